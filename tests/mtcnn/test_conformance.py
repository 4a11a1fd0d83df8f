"""The packed, batched cascade is held to the plain reference over the PyTorch networks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import cv2
import numpy as np
import pytest
from scenes import Image, astronaut, compose, crowd, iou

from unface.engines.shelf import open_named
from unface.mtcnn import Cascade, DetectOptions, Faces, Networks

torch = pytest.importorskip("torch", reason="torch comes with unface[engines]")

from unface.mtcnn import reference  # noqa: E402
from unface.mtcnn.networks import torch_networks  # noqa: E402

SCENES: dict[str, Callable[[], Image]] = {
    "portrait": astronaut,
    "odd size": lambda: astronaut()[3:400, 5:450],
    "several sizes": lambda: compose(900, 500, [(10, 10, 22), (90, 30, 45), (330, 10, 170)]).image,
    "across the border": lambda: compose(500, 300, [(-60, 20, 100), (380, 160, 90)]).image,
    "crowd": lambda: crowd(6, 4, 34).image,
    "no face": lambda: compose(300, 260, []).image,
    "smaller than a face": lambda: astronaut()[:19, :300],
}


@pytest.fixture(scope="module")
def torch_reference() -> Iterator[Networks]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # one crop at a time leaves a second thread nothing to do but wait
    yield torch_networks()
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def expected_of(torch_reference: Networks) -> Callable[[str], Faces]:
    """What the reference finds in a scene, found once."""
    return cache(lambda scene: reference.detect(picture(scene), torch_reference))


def picture(scene: str) -> Image:
    return np.ascontiguousarray(SCENES[scene]())


@pytest.fixture(scope="module", params=["torch", "native", "tflite", "tflite without the core"])
def engines(request: pytest.FixtureRequest, torch_reference: Networks) -> Iterator[Networks]:
    """All that serves; without the core resampling and suppression are OpenCV's and numpy's too."""
    backend, _, alone = request.param.partition(" ")
    if backend == "torch":
        yield torch_reference
        return
    if not alone:
        request.getfixturevalue("core")
    with pytest.MonkeyPatch.context() as patch:
        if alone:
            patch.setenv("UNFACE_KERNELS", "none")
        networks = open_named(f"fp32.{backend}", threads=2)
        assert networks.backend == backend
        yield networks


def disagreements(faces: Faces, expected: Faces) -> int:
    """Return how many faces are not the same: IoU over 0.98, landmarks within 1% of the width."""
    if not len(faces) or not len(expected):
        return max(len(faces), len(expected))
    overlap = iou(expected.boxes, faces.boxes)
    match = overlap.argmax(axis=1)
    widths = expected.boxes[:, 2] - expected.boxes[:, 0]
    moved = np.abs(faces.landmarks[match] - expected.landmarks).max(axis=(1, 2)) / widths
    different = (overlap.max(axis=1) <= 0.98) | (moved > 0.01)
    return int(different.sum()) + abs(len(faces) - len(expected))


@pytest.mark.parametrize("scene", SCENES)
def test_the_cascade_finds_what_the_reference_finds(
    scene: str, engines: Networks, expected_of: Callable[[str], Faces]
) -> None:
    expected = expected_of(scene)
    faces = Cascade(engines).detect(picture(scene))
    assert disagreements(faces, expected) == 0
    assert faces.backend == engines.backend
    assert faces.boxes.dtype == faces.scores.dtype == faces.landmarks.dtype == np.float32
    if len(faces):
        matched = iou(expected.boxes, faces.boxes).argmax(axis=1)
        np.testing.assert_allclose(faces.scores[matched], expected.scores, atol=2e-3)


def test_options_mean_the_same_to_both(torch_reference: Networks) -> None:
    image = compose(400, 300, [(10, 10, 30), (150, 20, 60)]).image
    for options in (
        DetectOptions(min_face=40),
        DetectOptions(scale_factor=0.6),
        DetectOptions(thresholds=(0.4, 0.4, 0.3)),
    ):
        expected = reference.detect(image, torch_reference, options)
        assert disagreements(Cascade(torch_reference).detect(image, options), expected) == 0


@pytest.mark.slow
@pytest.mark.parametrize("folder", ["cmu_mit", "dlib_faces", "wider_orig"])
def test_the_cascade_agrees_with_the_reference_on_real_pictures(
    folder: str, shared_data: Path, cascade: Cascade, torch_reference: Networks
) -> None:
    total = different = 0
    for path in sorted((shared_data / "labelled" / folder / "images").iterdir())[:40]:
        pixels = cv2.imread(str(path), cv2.IMREAD_COLOR_RGB)
        assert pixels is not None
        if pixels.size > 3e6:
            continue
        image = np.asarray(pixels, np.uint8)
        expected = reference.detect(image, torch_reference)
        different += disagreements(cascade.detect(image), expected)
        total += len(expected)
    assert total > 10
    print(f"{folder}: {different} of {total} faces are not the same")
    # A candidate on the very edge of a threshold may fall to either side of it.
    assert different <= max(1, 0.005 * total), f"{different} of {total}"
