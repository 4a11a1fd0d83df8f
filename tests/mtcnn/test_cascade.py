"""What goes wrong in other MTCNN code, and must not here."""

from __future__ import annotations

import threading

import cv2
import numpy as np
import pytest
from scenes import Image, Scene, astronaut, compose, crowd, found, iou

import unface
from unface.errors import EngineError, InvalidImage, InvalidOption
from unface.mtcnn import Cascade, DetectOptions, Faces, Networks
from unface.mtcnn.options import PROFILES, detect_options


def same(a: Faces, b: Faces) -> bool:
    return all(
        (getattr(a, name) == getattr(b, name)).all() for name in ("boxes", "scores", "landmarks")
    )


def test_the_face_of_the_portrait_is_found_with_its_landmarks(cascade: Cascade) -> None:
    (face,) = cascade.detect(astronaut())
    assert iou(np.array([[177, 63, 264, 170]]), np.array([face.box]))[0, 0] > 0.8
    expected = [[205, 101], [247, 103], [225, 129], [201, 139], [244, 141]]
    assert np.abs(face.landmarks - expected).max() < 6
    assert face.score > 0.99


def test_red_and_blue_are_not_exchanged(cascade: Cascade) -> None:
    """The networks are trained on RGB; given BGR they miss faces."""
    options = DetectOptions(thresholds=(0.6, 0.7, 0.01))
    scores, swapped = [], []
    for size in (24, 30, 40, 60, 90):
        image = compose(260, 260, [(20, 20, size)]).image
        scores += [max([f.score for f in cascade.detect(image, options)], default=0)]
        bgr = np.ascontiguousarray(image[..., ::-1])
        swapped += [max([f.score for f in cascade.detect(bgr, options)], default=0)]
    assert sum(scores) > sum(swapped)
    assert min(scores) > 0.9


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((40, 40), np.uint8),
        np.zeros((40, 40, 4), np.uint8),
        np.zeros((40, 40, 1), np.uint8),
        np.zeros((40, 40, 3), np.float32),
        np.zeros((40, 40, 3), np.uint16),
        np.zeros((0, 40, 3), np.uint8),
        np.zeros((1, 40, 40, 3), np.uint8),
        np.zeros((40, 40, 3, 1), np.uint8),
        [[0, 0, 0]],
        None,
    ],
    ids=str,
)
def test_what_is_not_rgb_uint8_is_refused(cascade: Cascade, image: Image) -> None:
    with pytest.raises(InvalidImage, match=r"uint8|shape"):
        cascade.detect(image)


@pytest.mark.parametrize("shape", [(1, 1), (1, 20000), (20000, 1), (19, 500), (12, 12)])
def test_an_image_smaller_than_the_minimum_face_has_no_faces(
    cascade: Cascade, shape: tuple[int, int]
) -> None:
    faces = cascade.detect(np.full((*shape, 3), 128, np.uint8))
    assert len(faces) == 0
    assert faces.boxes.shape == (0, 4)
    assert faces.landmarks.shape == (0, 5, 2)
    assert (faces.height, faces.width) == shape


def test_a_face_that_fills_the_image_is_found(cascade: Cascade) -> None:
    image = np.ascontiguousarray(astronaut()[30:190, 145:295])
    large = cv2.resize(image, (1500, 1600), interpolation=cv2.INTER_CUBIC)
    assert max(f.box[2] - f.box[0] for f in cascade.detect(np.asarray(large, np.uint8))) > 600


def test_faces_from_twenty_pixels_up_are_found(cascade: Cascade) -> None:
    scene = compose(
        1100, 400, [(5, 5, 24), (80, 5, 36), (180, 5, 60), (330, 5, 110), (600, 5, 160)]
    )
    assert found(scene, cascade.detect(scene.image).boxes) == 5


def test_a_larger_minimum_face_leaves_small_faces_out(cascade: Cascade) -> None:
    scene = compose(500, 300, [(5, 5, 26), (150, 5, 100)])
    boxes = cascade.detect(scene.image, DetectOptions(min_face=70)).boxes
    assert found(Scene(scene.image, scene.faces[1:]), boxes) == 1
    assert found(Scene(scene.image, scene.faces[:1]), boxes) == 0


def test_a_face_cut_by_the_border_is_found_and_its_box_clipped(cascade: Cascade) -> None:
    image = np.ascontiguousarray(astronaut()[85:300, 195:420])  # her forehead and left cheek cut
    faces = cascade.detect(image, DetectOptions(thresholds=(0.5, 0.5, 0.5)))
    assert len(faces) >= 1
    assert (faces.boxes[:, :2] >= 0).all()
    assert (faces.boxes[:, 2] <= image.shape[1]).all()
    assert (faces.boxes[:, 3] <= image.shape[0]).all()
    assert (faces.boxes[:, 2:] > faces.boxes[:, :2]).all()


def test_a_mirrored_image_swaps_left_and_right(cascade: Cascade) -> None:
    mirrored = np.ascontiguousarray(astronaut()[:, ::-1])
    (face,), (other,) = cascade.detect(astronaut()), cascade.detect(mirrored)
    for points in (face.landmarks, other.landmarks):
        assert points[0, 0] < points[1, 0]  # left_eye is left in the picture
        assert points[3, 0] < points[4, 0]
    back = other.landmarks[[1, 0, 2, 4, 3]]
    back[:, 0] = 512 - back[:, 0]
    assert np.abs(back - face.landmarks).max() < 0.06 * (face.box[2] - face.box[0])


def test_landmarks_lie_within_their_face(cascade: Cascade) -> None:
    for face in cascade.detect(crowd(4, 3, 50).image):
        x1, y1, x2, y2 = face.box
        assert ((face.landmarks > [x1, y1]) & (face.landmarks < [x2, y2])).all()


def test_a_batch_gives_what_its_images_give_alone_in_any_order() -> None:
    images = [astronaut(), compose(300, 200, []).image, crowd(3, 2, 40).image, astronaut()[:90]]
    with unface.Detector() as detector:
        alone = [detector.detect(image) for image in images]
        together = detector.detect(images)
        backwards = detector.detect(images[::-1])[::-1]
    assert all(
        same(a, b) and same(a, c) for a, b, c in zip(alone, together, backwards, strict=True)
    )


def test_nothing_of_one_image_is_left_for_the_next(cascade: Cascade) -> None:
    first, second = astronaut(), crowd(5, 4, 36).image
    once, other, twice = (cascade.detect(image) for image in (first, second, first))
    assert same(once, twice)
    assert len(other) != len(once)


def test_a_crowd_is_found_whole_and_nothing_is_capped(cascade: Cascade) -> None:
    scene = crowd(24, 16, 30)  # 384 faces: more than any batch, many more candidates
    boxes = cascade.detect(scene.image).boxes
    assert found(scene, boxes) >= 0.98 * len(scene.faces)
    assert len(boxes) <= 1.05 * len(scene.faces)


def test_best_scores_come_first(cascade: Cascade) -> None:
    scores = cascade.detect(crowd(6, 4, 34).image).scores
    assert (np.diff(scores) <= 0).all()


def test_a_detector_shared_between_threads_gives_serial_results() -> None:
    images = [astronaut(), crowd(4, 3, 40).image, compose(300, 240, [(30, 30, 60)]).image] * 3
    with unface.Detector() as detector:
        expected = [detector.detect(image) for image in images]
        results: dict[int, Faces] = {}

        def work(index: int) -> None:
            results[index] = detector.detect(images[index])

        threads = [threading.Thread(target=work, args=(k,)) for k in range(len(images))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert all(same(results[k], expected[k]) for k in range(len(images)))


class _Broken:
    """A network whose answers are no numbers, as after a failing device."""

    max_batch = 64

    def __init__(self, network: object) -> None:
        self.network = network

    def __call__(self, images: Image) -> dict[str, np.ndarray]:
        outputs = self.network(images)  # type: ignore[operator]
        return {name: values * np.float32("nan") for name, values in outputs.items()}

    def close(self) -> None:
        pass


@pytest.mark.parametrize("stage", ["pnet", "rnet", "onet"])
def test_answers_that_are_no_numbers_are_an_error_and_never_zero_faces(
    cascade: Cascade, stage: str
) -> None:
    networks = {name: getattr(cascade.networks, name) for name in ("pnet", "rnet", "onet")}
    networks[stage] = _Broken(networks[stage])
    broken = Cascade(Networks(**networks, backend="broken", precision="fp32"))
    with pytest.raises(EngineError, match="no number"):
        broken.detect(astronaut())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"min_face": 11}, "12 pixels"),
        ({"min_face": float("nan")}, "12 pixels"),
        ({"min_face": float("inf")}, "12 pixels"),
        ({"scale_factor": 1.0}, "0.3 to 0.95"),
        ({"scale_factor": float("nan")}, "0.3 to 0.95"),
        ({"thresholds": (0.5, 0.5)}, "three numbers"),
        ({"thresholds": (0.5, 0.5, 1.0)}, "between 0 and 1"),
        ({"thresholds": (0.5, 0.0, 0.5)}, "between 0 and 1"),
        ({"profile": "wild"}, "accurate, fast, privacy"),
    ],
)
def test_a_bad_option_is_named_with_what_it_accepts(
    options: dict[str, float], message: str
) -> None:
    with pytest.raises(InvalidOption, match=message):
        detect_options(**options)  # type: ignore[arg-type]


def test_explicit_options_replace_the_profile() -> None:
    assert detect_options("privacy", min_face=40).thresholds == PROFILES["privacy"].thresholds
    assert detect_options("privacy", thresholds=(0.6, 0.7, 0.7)) == DetectOptions()


def test_privacy_finds_what_accurate_finds(cascade: Cascade) -> None:
    scene = crowd(5, 3, 26)
    accurate = cascade.detect(scene.image)
    privacy = cascade.detect(scene.image, PROFILES["privacy"])
    assert found(Scene(scene.image, accurate.boxes.astype(float)), privacy.boxes, 0.6) == len(
        accurate
    )
