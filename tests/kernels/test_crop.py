from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from unface.kernels.arrays import FAR, MAX_STEP, crop
from unface.kernels.library import CUT

Pixels = NDArray[np.uint8]
Rectangle = tuple[float, float, float, float]  # x, y, width, height


def literal(image: Pixels, rectangle: Rectangle, size: int) -> NDArray[np.float64]:
    """Return the mean of 2 x 2 bilinear samples of each pixel, black beyond the image."""
    x, y, width, height = rectangle
    steps = (np.arange(2 * size) + 0.5) / (2 * size)
    down = _weights(y + steps * height - 0.5, image.shape[0])
    across = _weights(x + steps * width - 0.5, image.shape[1])
    fine = np.einsum("ij,jkc,lk->ilc", down, image.astype(np.float64), across)
    return np.asarray(fine.reshape(size, 2, size, 2, 3).mean(axis=(1, 3)), np.float64)


def _weights(at: NDArray[np.float64], length: int) -> NDArray[np.float64]:
    """Return how much of each pixel a sample at each place takes, `[samples, length]`."""
    return np.maximum(1 - np.abs(at[:, None] - np.arange(length)), 0)


def cuts_of(*rectangles: Rectangle, picture: int = 0) -> NDArray[np.void]:
    return np.array([(*rectangle, picture) for rectangle in rectangles], CUT)


def crops_of(images: list[Pixels], cuts: NDArray[np.void], size: int) -> Pixels:
    crops = np.full((len(cuts), size, size, 3), 77, np.uint8)
    crop(images, cuts, crops)
    return crops


@st.composite
def tasks(draw: st.DrawFn) -> tuple[Pixels, Rectangle, int]:
    """Draw an image, a rectangle within, across or beyond its edges, and a size."""
    size = draw(st.integers(1, 26) | st.sampled_from([24, 48]))
    height, width = draw(st.tuples(*2 * [st.integers(1, 70)]))
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    image = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    sides = draw(st.tuples(*2 * [st.floats(1e-3, MAX_STEP * size)]))
    whole = draw(st.booleans())
    x = draw(st.floats(-sides[0] - 5, width + 5))
    y = draw(st.floats(-sides[1] - 5, height + 5))
    return image, (float(round(x)), float(round(y)), *sides) if whole else (x, y, *sides), size


@given(tasks())
@settings(max_examples=500, deadline=None)
def test_a_crop_is_the_mean_of_bilinear_samples_and_black_beyond(
    task: tuple[Pixels, Rectangle, int],
) -> None:
    image, rectangle, size = task
    given_ = crops_of([image], cuts_of(rectangle), size)[0]
    assert np.abs(given_ - literal(image, rectangle, size)).max() <= 1


@pytest.mark.parametrize("step", [1 / 3, 1.0, 1.5, 2.0, 3.0, MAX_STEP])
@pytest.mark.parametrize("size", [1, 2, 3, 23, 24, 48])
def test_a_plane_of_one_colour_stays_exactly_so(step: float, size: int) -> None:
    image = np.full((250, 250, 3), (3, 128, 255), np.uint8)
    side = step * size
    shown = crops_of([image], cuts_of((4.3, 5.7, side, side)), size)
    assert (shown == np.array([3, 128, 255], np.uint8)).all()


@pytest.mark.parametrize("far", [3e4, 1e6, FAR - 1])
def test_what_is_far_beyond_the_image_is_black(far: float) -> None:
    image = np.full((30, 40, 3), 200, np.uint8)
    places = [(far, 5), (-far, 5), (5, far), (5, -far), (far, far), (-far, -far)]
    cuts = cuts_of(*((x, y, 30.0, 30.0) for x, y in places))
    assert not crops_of([image], cuts, 24).any()


def test_each_cut_is_of_its_own_picture() -> None:
    images = [np.full((20 + n, 30 - n, 3), 10 * n, np.uint8) for n in range(5)]
    cuts = np.concatenate([cuts_of((4.0, 4.0, 8.0, 8.0), picture=n) for n in (3, 0, 4, 4, 1)])
    shown = crops_of(images, cuts, 6)
    assert shown.reshape(5, -1).max(axis=1).tolist() == [30, 0, 40, 40, 10]
    assert shown.reshape(5, -1).min(axis=1).tolist() == [30, 0, 40, 40, 10]


def test_a_crop_does_not_depend_on_its_neighbours() -> None:
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, (h, w, 3), dtype=np.uint8) for h, w in ((60, 80), (30, 40))]
    cuts = np.empty(50, CUT)
    for field, low, high in (("x", -30, 90), ("y", -30, 90), ("width", 1, 90), ("height", 1, 90)):
        cuts[field] = rng.uniform(low, high, 50)
    cuts["picture"] = rng.integers(0, 2, 50)
    together = crops_of(images, cuts, 24)
    for n in range(50):
        assert (crops_of(images, cuts[n : n + 1], 24)[0] == together[n]).all()
    assert (crops_of(images, cuts[::-1], 24) == together[::-1]).all()


def test_no_cuts_are_no_crops() -> None:
    assert crops_of([np.zeros((5, 5, 3), np.uint8)], cuts_of()[:0].astype(CUT), 24).shape[0] == 0


@pytest.mark.parametrize("field", ["x", "y", "width", "height"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, FAR, -1e300])
def test_cuts_that_are_no_rectangles_are_refused(field: str, value: float) -> None:
    cuts = cuts_of((1.0, 1.0, 10.0, 10.0), (1.0, 1.0, 10.0, 10.0))
    cuts[field][1] = value
    with pytest.raises(ValueError, match="rectangle is too large"):
        crops_of([np.zeros((20, 20, 3), np.uint8)], cuts, 24)


@pytest.mark.parametrize("side", [0.0, -1.0, MAX_STEP * 24 + 0.1])
def test_cuts_without_a_size_or_with_too_much_are_refused(side: float) -> None:
    for rectangle in ((0.0, 0.0, side, 10.0), (0.0, 0.0, 10.0, side)):
        with pytest.raises(ValueError, match="rectangle is too large"):
            crops_of([np.zeros((20, 20, 3), np.uint8)], cuts_of(rectangle), 24)


def test_other_bad_arguments_are_refused() -> None:
    image, cuts = np.zeros((20, 20, 3), np.uint8), cuts_of((1.0, 1.0, 9.0, 9.0))
    for picture in (-1, 1, 1 << 30):
        with pytest.raises(ValueError, match="no picture"):
            crops_of([image], cuts_of((1.0, 1.0, 9.0, 9.0), picture=picture), 24)
    with pytest.raises(ValueError, match="no picture"):
        crops_of([], cuts, 24)
    packed = np.dtype([(name, CUT[name]) for name in CUT.names or ()])  # 36 bytes, not 40
    for other in (cuts.astype(packed), np.zeros((1, 5)), np.zeros((1, 1), CUT)):
        with pytest.raises((ValueError, IndexError)):
            crops_of([image], other, 24)
    for shape in ((2, 24, 24, 3), (1, 24, 23, 3), (1, 24, 24, 4), (1, 24, 24), (24,), ()):
        with pytest.raises(ValueError, match="do not fit"):
            crop([image], cuts, np.zeros(shape, np.uint8))
    with pytest.raises(ValueError, match="do not fit"):
        crop([image], cuts, np.zeros((1, 24, 24, 3), np.float32))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="not contiguous"):
        crop([image], cuts, np.zeros((1, 24, 48, 3), np.uint8)[:, :, ::2])
    for wrong in (image[:, ::2], image.astype(np.int16), image[:, :, 0], image[:0]):
        with pytest.raises(ValueError, match="image is"):
            crop([wrong], cuts, np.zeros((1, 24, 24, 3), np.uint8))
