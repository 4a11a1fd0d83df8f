"""The cascade's geometry under networks written by hand, whose answers are known."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from scenes import Image, astronaut

from unface.mtcnn import Cascade, DetectOptions, Networks, reference
from unface.mtcnn.boxes import BoxArray
from unface.mtcnn.cascade import finish, input_squares, refine
from unface.mtcnn.crops import crop_squares
from unface.mtcnn.proposals import propose, scan
from unface.mtcnn.pyramid import Mipmap, pyramid_levels

Answer = dict[str, NDArray[np.float32]]


class Fake:
    """A network whose answer is a function of the crops; remembers what it was shown."""

    def __init__(self, answer: Callable[[Image], Answer], max_batch: int = 256) -> None:
        self.answer = answer
        self.max_batch = max_batch
        self.shown: list[Image] = []

    def __call__(self, images: Image) -> Answer:
        assert 1 <= len(images) <= self.max_batch
        self.shown.append(images.copy())
        return self.answer(images)

    def close(self) -> None:
        pass


def constant(logit: float, box: list[float], landmarks: list[float] | None = None) -> Fake:
    def answer(images: Image) -> Answer:
        outputs = {"logit": [logit], "box": box, "landmarks": landmarks or [0.5] * 10}
        return {
            name: np.tile(np.array(values, np.float32), (len(images), 1))[
                :, 0 if name == "logit" else slice(None)
            ]
            for name, values in outputs.items()
        }

    return Fake(answer)


def waves(means: NDArray[np.float64], seed: int, reach: float) -> Answer:
    """Return answers that vary smoothly with mean colours `[..., 3]`, box offsets to `reach`."""
    rng = np.random.default_rng(seed)
    angles = (means / 255) @ rng.uniform(-9, 9, (3, 15)) + rng.uniform(0, 6, 15)
    values = np.sin(angles).astype(np.float32)
    return {
        "logit": values[..., 0] * 3 + 1,
        "box": values[..., 1:5] * np.float32(reach),
        "landmarks": values[..., 5:] * np.float32(0.5) + np.float32(0.5),
    }


def wave_networks(seed: int, reach: float) -> Networks:
    def over_cells(images: Image) -> Answer:
        blurred = cv2.boxFilter(images[0].astype(np.float64), -1, (12, 12), anchor=(0, 0))
        height, width = images.shape[1:3]
        means = blurred[: height - 11 : 2, : width - 11 : 2]
        return {name: values[None] for name, values in waves(means, seed, reach).items()}

    def over_crops(more: int) -> Callable[[Image], Answer]:
        return lambda images: waves(images.mean(axis=(1, 2)), seed + more, reach)

    return Networks(Fake(over_cells), Fake(over_crops(1)), Fake(over_crops(2)), "fake", "fp32")


@pytest.mark.parametrize("scale_factor", [0.709, 0.9])
@pytest.mark.parametrize("reach", [0.1, 0.9])  # 0.9 turns boxes inside out and leaves the image
@pytest.mark.parametrize("seed", range(6, 11))
def test_the_cascade_follows_the_reference_whatever_the_networks_say(
    seed: int, reach: float, scale_factor: float
) -> None:
    image = np.ascontiguousarray(astronaut()[20:171, 130:263])
    options = DetectOptions(24, scale_factor, thresholds=(0.7, 0.6, 0.6))
    networks = wave_networks(seed, reach)
    expected = reference.detect(image, networks, options)
    faces = Cascade(networks).detect(image, options)
    assert len(faces) == len(expected) > 0
    # Sums in another order move a sample by cv2's 1/32 pixel, and a mean colour by a little.
    np.testing.assert_allclose(faces.scores, expected.scores, atol=1e-3)
    np.testing.assert_allclose(faces.boxes, expected.boxes, atol=0.05)
    np.testing.assert_allclose(faces.landmarks, expected.landmarks, atol=0.05)
    assert (faces.boxes[:, 2:] > faces.boxes[:, :2]).all()
    assert (faces.boxes >= 0).all()
    assert (faces.boxes <= [133, 151, 133, 151]).all()


def test_p_net_keeps_a_score_at_its_threshold_and_the_others_do_not() -> None:
    mipmap = Mipmap(np.zeros((24, 24, 3), np.uint8))
    levels = tuple(pyramid_levels(24, 24, 20, 0.709))
    at_half = Fake(
        lambda images: {
            "logit": np.zeros((1, 123, 123), np.float32),
            "box": np.zeros((1, 123, 123, 4), np.float32),
        }
    )
    found = scan(mipmap, levels, at_half, 0.5)
    assert len(found.logit) == sum(((v.width - 12) // 2 + 1) ** 2 for v in levels)
    assert len(scan(mipmap, levels, at_half, 0.501).logit) == 0
    square = np.array([[2.0, 2.0, 20.0]])
    for logit, kept in ((0.0, 0), (1e-6, 1)):
        network = constant(logit, [0, 0, 0, 0])
        assert len(refine(mipmap, square, network, 0.5)) == kept
        assert len(finish(mipmap, square, network, 0.5)[0]) == kept


def test_every_cell_is_a_candidate_when_p_net_believes_every_cell() -> None:
    """No cap: far more cells than 16 bits count; of each 2 x 2 the first stays."""
    image = np.zeros((700, 900, 3), np.uint8)
    levels = tuple(pyramid_levels(900, 700, 12, 0.709))
    believer = Fake(
        lambda images: {
            "logit": np.ones((1, 123, 123), np.float32),
            "box": np.zeros((1, 123, 123, 4), np.float32),
        }
    )
    columns, rows = (
        [(getattr(v, side) - 12) // 2 + 1 for v in levels] for side in ("width", "height")
    )
    assert len(scan(Mipmap(image), levels, believer, 0.6).logit) == np.dot(columns, rows) > 3e5
    kept = sum((c + 1) // 2 * ((r + 1) // 2) for c, r in zip(columns[3:], rows[3:], strict=True))
    assert len(propose(Mipmap(image), levels[3:], believer, 0.6)) == kept > 5000


def distinct_squares() -> BoxArray:
    """Squares of one grey each, with empty and inside-out ones between them."""
    return np.array(
        [[10, 10, 30], [0, 0, 0.2], [110, 10, 40], [50, 50, -7], [10, 110, 50], [110, 110, 60]],
        np.float64,
    )


def grey_of_each_quarter() -> Image:
    image = np.zeros((200, 200, 3), np.uint8)
    image[:100, :100], image[:100, 100:], image[100:, :100], image[100:, 100:] = 40, 90, 140, 190
    return image


def test_scores_stay_with_their_boxes_when_empty_squares_are_dropped() -> None:
    def grey(images: Image) -> Answer:
        middle = images[:, 20:28, 20:28].mean(axis=(1, 2, 3)).astype(np.float32)
        count = len(images)
        return {
            "logit": middle / 100,
            "box": np.zeros((count, 4), np.float32),
            "landmarks": np.full((count, 10), 0.5, np.float32),
        }

    mipmap = Mipmap(grey_of_each_quarter())
    for max_batch in (1, 2, 3, 256):
        network = Fake(grey, max_batch)
        boxes, scores, landmarks = finish(mipmap, distinct_squares(), network, 0.5)
        assert np.log(scores / (1 - scores)).tolist() == pytest.approx([1.9, 1.4, 0.9, 0.4])
        middles = (boxes[:, :2] + boxes[:, 2:]) / 2
        np.testing.assert_allclose(middles, [[140, 140], [35, 135], [130, 30], [25, 25]], atol=0.51)
        np.testing.assert_allclose(landmarks[:, 2], middles, atol=1e-3)


def test_landmarks_are_taken_from_the_square_before_regression() -> None:
    mipmap = Mipmap(np.zeros((200, 200, 3), np.uint8))
    points = [0.25, 0.75, 0.5, 0.25, 0.75, 0.25, 0.25, 0.5, 0.75, 0.75]  # x1..x5, y1..y5
    network = constant(3.0, [0.1, 0.2, 0.3, 0.4], points)
    boxes, _, landmarks = finish(mipmap, np.array([[40.0, 60.0, 48.0]]), network, 0.7)
    x, y = 40 - 0.4, 60 - 0.4  # a crop of 48 pixels for 48: moved by 0.4 of them
    np.testing.assert_allclose(boxes, [[x + 4.8, y + 9.6, x + 62.4, y + 67.2]], atol=1e-4)
    expected = [[12, 12], [36, 12], [24, 24], [12, 36], [36, 36]]
    np.testing.assert_allclose(landmarks[0] - [x, y], expected, atol=1e-4)


@pytest.mark.parametrize(("stage", "size"), [(refine, 24), (finish, 48)])
def test_networks_see_crops_a_little_up_and_left_of_the_candidate(
    stage: Callable[..., object], size: int
) -> None:
    mipmap = Mipmap(astronaut())
    squares = np.array([[180.0, 60.0, 96.0], [30.0, 300.0, 40.0]])
    network = constant(3.0, [0, 0, 0, 0])
    stage(mipmap, squares, network, 0.7)
    moved = squares - squares[:, 2:] * [0.4 / size, 0.4 / size, 0]
    assert (network.shown[0] == crop_squares(mipmap, moved, size)).all()


def test_squares_of_one_pixel_are_shown_and_smaller_ones_are_not() -> None:
    squares = np.array([[5, 5, 1.0], [5, 5, 0.999], [5, 5, 3.0], [5, 5, -20.0]])
    assert input_squares(squares, 24)[:, 2].tolist() == [1.0, 3.0]


def test_boxes_wholly_outside_the_image_are_dropped_and_others_clipped() -> None:
    mipmap = Mipmap(np.zeros((50, 100, 3), np.uint8))
    squares = np.array([[-60.0, 5.0, 40.0], [-20.0, 5.0, 40.0], [80.0, 30.0, 60.0]])
    boxes, scores, _ = finish(mipmap, squares, constant(3.0, [0, 0, 0, 0]), 0.7)
    assert len(scores) == 2
    np.testing.assert_allclose(boxes, [[0, 4.67, 19.67, 44.67], [79.5, 29.5, 100, 50]], atol=0.01)


def test_the_last_suppression_is_min_so_that_a_box_in_a_box_goes() -> None:
    mipmap = Mipmap(np.zeros((200, 200, 3), np.uint8))
    squares = np.array([[20.0, 20.0, 100.0], [50.0, 50.0, 30.0]])  # union 0.09, min 1
    assert len(finish(mipmap, squares, constant(3.0, [0, 0, 0, 0]), 0.7)[0]) == 1
    assert len(refine(mipmap, squares, constant(3.0, [0, 0, 0, 0]), 0.7)) == 2


def test_r_net_suppresses_before_it_moves_boxes() -> None:
    """Two squares that regression would bring together are both kept, as in the original."""

    def toward_each_other(images: Image) -> Answer:
        left = np.array([1, 0, 1, 0], np.float32) * 0.5
        return {
            "logit": np.full(len(images), 3, np.float32),
            "box": np.stack([left, -left])[: len(images)],
        }

    mipmap = Mipmap(np.zeros((100, 200, 3), np.uint8))
    squares = np.array([[20.0, 20.0, 40.0], [60.0, 20.0, 40.0]])
    kept = refine(mipmap, squares, Fake(toward_each_other), 0.7)
    assert len(kept) == 2
    np.testing.assert_allclose(kept[0], kept[1], atol=1e-6)
