import math
import re

import cv2
import numpy as np
import pytest
from corpus import photo
from hypothesis import given, settings
from hypothesis import strategies as st

from unface.anonymize import METHODS, SHAPES, MaskOptions, apply_masks
from unface.errors import InvalidImage, InvalidOption

COVERING = [method for method in METHODS if method != "box"]
WIDTH, HEIGHT = 60, 50
Box = tuple[float, float, float, float]


def noise(height: int = HEIGHT, width: int = WIDTH, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def boxes_of(*boxes: Box) -> np.ndarray:
    return np.array(boxes, np.float32).reshape(-1, 4)


def a_box() -> st.SearchStrategy[Box]:
    place = st.floats(-40, 90, width=32)
    side = st.floats(0.125, 80, width=32)
    return st.builds(lambda x, y, w, h: (x, y, x + w, y + h), place, place, side, side)


def touched(box: Box, height: int = HEIGHT, width: int = WIDTH) -> tuple[slice, slice]:
    """Return the rows and columns of the pixels that a box touches inside the image."""
    x1, y1, x2, y2 = boxes_of(box)[0].astype(float)
    rows = slice(max(math.floor(y1), 0), max(min(math.ceil(y2), height), 0))
    columns = slice(max(math.floor(x1), 0), max(min(math.ceil(x2), width), 0))
    return rows, columns


def solid_coverage(boxes: np.ndarray, **options: object) -> np.ndarray:
    """Return bool `[H, W]`: which pixels are covered, found with a colour that was not there."""
    black = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    masked = apply_masks(
        black,
        boxes,
        MaskOptions(method="solid", color=(1, 2, 3), **options),  # type: ignore[arg-type]
    )
    covered: np.ndarray = (masked == (1, 2, 3)).all(axis=2)
    return covered


@pytest.mark.parametrize("shape", SHAPES)
@given(box=a_box(), margin=st.floats(0, 2))
def test_every_pixel_the_box_touches_is_covered(shape: str, box: Box, margin: float) -> None:
    covered = solid_coverage(boxes_of(box), shape=shape, margin=margin)
    assert covered[touched(box)].all()


@given(box=a_box())
def test_margin_grows_the_box_on_every_side(box: Box) -> None:
    x1, y1, x2, y2 = boxes_of(box)[0].astype(float)
    grow_x, grow_y = 0.5 * (x2 - x1), 0.5 * (y2 - y1)
    grown = (x1 - grow_x, y1 - grow_y, x2 + grow_x, y2 + grow_y)
    with_margin = solid_coverage(boxes_of(box), shape="rectangle", margin=0.5)
    expected = np.zeros_like(with_margin)
    rows = slice(max(math.floor(grown[1]), 0), max(math.ceil(grown[3]), 0))
    expected[rows, max(math.floor(grown[0]), 0) : max(math.ceil(grown[2]), 0)] = True
    assert np.array_equal(with_margin, expected)


@given(box=a_box())
def test_ellipse_is_inside_its_own_bounds(box: Box) -> None:
    covered = solid_coverage(boxes_of(box), margin=0)
    x1, y1, x2, y2 = boxes_of(box)[0].astype(float)
    for low, high, axis in ((x1, x2, 0), (y1, y2, 1)):
        low, high = math.floor(low), math.ceil(high)
        reach = (high - low) * (math.sqrt(2) - 1) / 2
        places = np.flatnonzero(covered.any(axis=axis))
        assert ((places >= low - reach - 1) & (places <= high + reach)).all()


@pytest.mark.parametrize("shape", SHAPES)
def test_last_row_and_column_of_the_image_are_covered(shape: str) -> None:
    assert solid_coverage(boxes_of((0, 0, WIDTH, HEIGHT)), shape=shape, margin=0).all()


@pytest.mark.parametrize("shape", SHAPES)
def test_box_without_area_covers_the_pixel_it_lies_in(shape: str) -> None:
    assert solid_coverage(boxes_of((7.5, 8.5, 7.5, 8.5)), shape=shape)[8, 7]
    assert solid_coverage(boxes_of((7, 8, 7, 8)), shape=shape)[8, 7]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("box", [(-50, -50, -40, -40), (500, 3, 510, 9), (1e9, 1e9, 2e9, 2e9)])
def test_box_outside_of_the_image_changes_nothing(method: str, box: Box) -> None:
    image = noise()
    assert np.array_equal(apply_masks(image, boxes_of(box), MaskOptions(method=method)), image)


@pytest.mark.parametrize("method", COVERING)
def test_huge_box_covers_the_whole_image(method: str) -> None:
    image = noise()
    masked = apply_masks(image, boxes_of((-1e9, -1e9, 1e9, 1e9)), MaskOptions(method=method))
    assert len(np.unique(masked.reshape(-1, 3), axis=0)) == 1


@pytest.mark.parametrize("boxes", [np.empty((0, 4), np.float32), [], np.empty(0)])
@pytest.mark.parametrize("method", METHODS)
def test_no_boxes_give_an_equal_copy(method: str, boxes: np.ndarray) -> None:
    image = noise()
    masked = apply_masks(image, boxes, MaskOptions(method=method))
    assert np.array_equal(masked, image)
    assert not np.shares_memory(masked, image)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("method", METHODS)
def test_input_is_never_changed_and_may_be_a_read_only_view(method: str, shape: str) -> None:
    image = noise(100, 120)[::2, ::-2]
    image.flags.writeable = False
    before = image.copy()
    masked = apply_masks(image, boxes_of((10, 10, 30, 40)), MaskOptions(method=method, shape=shape))
    assert np.array_equal(image, before)
    assert not np.array_equal(masked, before)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("method", METHODS)
def test_in_place_covers_the_very_array(method: str, shape: str) -> None:
    image, boxes = noise(), boxes_of((10, 10, 30, 40), (-5, 20, 25, 60))
    options = MaskOptions(method=method, shape=shape)
    wanted = apply_masks(image, boxes, options)
    assert apply_masks(image, boxes, options, in_place=True) is image
    assert np.array_equal(image, wanted)


@pytest.mark.parametrize("method", METHODS)
def test_in_place_copies_what_cannot_be_written_to(method: str) -> None:
    read_only, view = noise(), noise(100, 120)[::2, ::-2]
    read_only.flags.writeable = False
    for image in (read_only, view):
        before, options = image.copy(), MaskOptions(method=method)
        masked = apply_masks(image, boxes_of((10, 10, 30, 40)), options, in_place=True)
        assert np.array_equal(image, before)
        assert np.array_equal(masked, apply_masks(before, boxes_of((10, 10, 30, 40)), options))


@pytest.mark.parametrize("shape", SHAPES)
def test_a_box_of_any_finite_size_covers_what_it_touches(shape: str) -> None:
    boxes = boxes_of((-3e38, -3e38, 3e38, 3e38)).astype(float) * 1e269
    masked = apply_masks(noise(), boxes, MaskOptions(method="solid", shape=shape, margin=2))
    assert not masked.any()


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("method", COVERING)
@given(boxes=st.lists(a_box(), min_size=1, max_size=4))
def test_pixels_outside_of_the_regions_stay_as_they_were(
    method: str, shape: str, boxes: list[Box]
) -> None:
    image = noise()
    masked = apply_masks(image, boxes_of(*boxes), MaskOptions(method=method, shape=shape))
    outside = ~solid_coverage(boxes_of(*boxes), shape=shape)
    assert np.array_equal(masked[outside], image[outside])


# Strength ------------------------------------------------------------------------------------


@given(
    box=a_box(),
    cells=st.integers(2, 16),
    shape=st.sampled_from(SHAPES),
    margin=st.floats(0, 1),
)
def test_mosaic_has_at_most_cells_by_cells_colours(
    box: Box, cells: int, shape: str, margin: float
) -> None:
    options = MaskOptions(cells=cells, shape=shape, margin=margin)
    covered = solid_coverage(boxes_of(box), shape=shape, margin=margin)
    masked = apply_masks(noise(), boxes_of(box), options)
    assert len(np.unique(masked[covered], axis=0)) <= cells**2


@pytest.mark.parametrize("side", [6, 20, 60, 300])
def test_mosaic_strength_scales_with_the_face(side: int) -> None:
    image = photo(side * 4, side * 4)
    box = boxes_of((side, side, 2 * side, 2 * side))
    masked = apply_masks(image, box, MaskOptions(shape="rectangle", margin=0))
    face = masked[side : 2 * side, side : 2 * side]
    assert len(np.unique(face.reshape(-1, 3), axis=0)) == min(5, side // 4) ** 2


@given(side=st.integers(1, 12), cells=st.integers(2, 16), x=st.floats(0, 40), y=st.floats(0, 30))
def test_mosaic_of_a_small_face_has_cells_of_4_pixels_or_more(
    side: int, cells: int, x: float, y: float
) -> None:
    box = boxes_of((x, y, x + side, y + side))
    options = MaskOptions(shape="rectangle", margin=0, cells=cells)
    masked = apply_masks(noise(), box, options)
    rows, columns = touched(tuple(box[0]))
    face = masked[rows, columns]
    limit = max(face.shape[0] // 4, 1) * max(face.shape[1] // 4, 1)
    assert len(np.unique(face.reshape(-1, 3), axis=0)) <= limit


def test_mosaic_cells_have_the_mean_colour_of_their_pixels() -> None:
    image = noise()
    options = MaskOptions(shape="rectangle", margin=0, cells=4)
    masked = apply_masks(image, boxes_of((10, 10, 50, 50)), options)
    for top in range(10, 50, 10):
        for left in range(10, 50, 10):
            cell = (slice(top, top + 10), slice(left, left + 10))
            mean = image[cell].reshape(-1, 3).mean(axis=0)
            assert np.abs(masked[cell] - mean).max() <= 0.5


def test_mosaic_of_a_face_cut_by_the_border_is_as_coarse_as_of_the_whole_face() -> None:
    options = MaskOptions(shape="rectangle", margin=0)
    masked = apply_masks(noise(), boxes_of((-40, 0, 10, 50)), options)
    assert len(np.unique(masked[:, :10].reshape(-1, 3), axis=0)) == 5


def test_solid_covers_with_its_colour() -> None:
    options = MaskOptions(method="solid", shape="rectangle", margin=0, color=(10, 20, 30))
    masked = apply_masks(noise(), boxes_of((5, 6, 15, 26)), options)
    assert (masked[6:26, 5:15] == (10, 20, 30)).all()


@pytest.mark.parametrize("kernel", [0.3, 0.6, 2.0])
@pytest.mark.parametrize("side", [8, 20, 50, 101, 160, 300])
def test_blur_is_at_least_as_strong_as_opencvs(side: int, kernel: float) -> None:
    image = noise(side * 2, side * 2)
    box = boxes_of((side / 2, side / 2, side * 3 / 2, side * 3 / 2))
    options = MaskOptions(method="blur", shape="rectangle", margin=0, kernel=kernel)
    face = (slice(side // 2, side // 2 + side),) * 2
    masked = apply_masks(image, box, options)[face].astype(float)
    size = max(15, round(kernel * side)) // 2 * 2 + 1
    reference = cv2.GaussianBlur(image[face], (size, size), 0).astype(float)
    for axis in (0, 1):
        detail = np.diff(masked, axis=axis).std()
        assert detail <= np.diff(reference, axis=axis).std() * 1.1 + 0.25  # rounding to uint8
    assert masked.std() <= reference.std() * 1.1 + 0.25


@settings(max_examples=30)
@given(box=a_box())
def test_blur_leaves_no_pixel_of_noise_as_it_was(box: Box) -> None:
    x1, y1, x2, y2 = box
    box = (x1, y1, max(x2, x1 + 6), max(y2, y1 + 6))
    image = np.where(noise() < 128, 0, 255).astype(np.uint8)
    covered = solid_coverage(boxes_of(box))
    if covered.sum() < 30:
        return
    masked = apply_masks(image, boxes_of(box), MaskOptions(method="blur"))
    # Black and white pixels, blurred, are gray: none is near black or white any more.
    assert ((masked[covered] > 16) & (masked[covered] < 239)).all()


@pytest.mark.parametrize("corner", [(0, 0), (0, 40), (40, 0), (40, 40)])
def test_blur_at_the_border_does_not_bring_pixels_back(corner: tuple[int, int]) -> None:
    image = np.full((60, 60, 3), 255, np.uint8)
    x, y = corner
    edge_x, edge_y = (0 if x == 0 else 59), (0 if y == 0 else 59)
    image[edge_y, edge_x] = 0
    options = MaskOptions(method="blur", shape="rectangle", margin=0)
    masked = apply_masks(image, boxes_of((x, y, x + 20, y + 20)), options)
    assert masked[edge_y, edge_x].min() > 200  # repeating the border would leave about 170


# Overlaps ------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", [1, -1])
@pytest.mark.parametrize("method", ["mosaic", "blur"])
def test_small_face_does_not_uncover_a_large_one_it_lies_in(method: str, order: int) -> None:
    image = np.where(noise(200, 200) < 128, 0, 255).astype(np.uint8)
    large, small = (20, 20, 180, 180), (90, 90, 110, 110)
    options = MaskOptions(method=method)
    alone = apply_masks(image, boxes_of(large), options)
    both = apply_masks(image, boxes_of(*(large, small)[::order]), options)
    inside = (slice(85, 115), slice(85, 115))
    assert both[inside].std() <= alone[inside].std() + 3


@pytest.mark.parametrize("method", COVERING)
@settings(max_examples=50)
@given(boxes=st.lists(a_box(), min_size=2, max_size=5))
def test_order_of_faces_never_leaves_a_region_clear(method: str, boxes: list[Box]) -> None:
    boxes = [(x1, y1, max(x2, x1 + 8), max(y2, y1 + 8)) for x1, y1, x2, y2 in boxes]
    image = np.where(noise() < 128, 0, 255).astype(np.uint8)
    options = MaskOptions(method=method, color=(100, 100, 100))
    for order in (boxes, boxes[::-1]):
        masked = apply_masks(image, boxes_of(*order), options)
        for box in boxes:
            face = masked[touched(box)]
            if face.shape[0] >= 8 and face.shape[1] >= 8:
                assert (face == image[touched(box)]).mean() < 0.05


# Review and refusals -------------------------------------------------------------------------


def test_box_draws_a_frame_and_leaves_the_face() -> None:
    image = noise(200, 200)
    masked = apply_masks(image, boxes_of((50, 60, 150, 160)), MaskOptions(method="box"))
    assert np.array_equal(masked[65:155, 55:145], image[65:155, 55:145])
    assert (masked[60, 50:150] == (0, 255, 0)).all()
    assert (masked[159, 50:150] == (0, 255, 0)).all()


def test_box_writes_the_score_above_the_frame() -> None:
    image = np.zeros((200, 200, 3), np.uint8)
    box = boxes_of((50, 60, 150, 160))
    plain = apply_masks(image, box, MaskOptions(method="box"))
    scored = apply_masks(image, box, MaskOptions(method="box"), scores=[0.98])
    changed = np.argwhere((plain != scored).any(axis=2))
    assert len(changed) > 20
    assert changed[:, 0].max() < 60


def test_box_at_the_top_border_still_shows_its_score() -> None:
    image = np.zeros((200, 200, 3), np.uint8)
    box = boxes_of((50, 0, 150, 100))
    plain = apply_masks(image, box, MaskOptions(method="box"))
    scored = apply_masks(image, box, MaskOptions(method="box"), scores=[0.98])
    assert (plain != scored).sum() > 20


@pytest.mark.parametrize("scores", [[0.5, 0.5], 0.5])
def test_scores_that_do_not_belong_to_the_boxes_are_refused(scores: object) -> None:
    with pytest.raises(InvalidOption, match="scores"):
        apply_masks(noise(), boxes_of((1, 2, 3, 4)), MaskOptions(method="box"), scores=scores)  # type: ignore[arg-type]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    "boxes",
    [
        [[1, 2, np.nan, 4]],
        [[1, 2, np.inf, 4]],
        [[1, 2, 3, 4], [-np.inf, 2, 3, 4]],
        [[5, 2, 3, 4]],
        [[1, 6, 3, 4]],
        [1, 2, 3, 4],
        [[1, 2, 3, 4, 0.9]],
        [[[1, 2, 3, 4]]],
    ],
)
def test_boxes_that_make_no_sense_are_refused(method: str, boxes: list[object]) -> None:
    with pytest.raises(InvalidOption, match="box"):
        apply_masks(noise(), np.array(boxes), MaskOptions(method=method))


@pytest.mark.parametrize(
    "image",
    [
        noise().astype(np.float32) / 255,
        noise().astype(np.int64),
        noise()[:, :, 0],
        np.dstack([noise(), noise()[:, :, 0]]),
        np.zeros((0, 5, 3), np.uint8),
        "image",
    ],
)
def test_images_that_are_not_uint8_rgb_are_refused(image: np.ndarray) -> None:
    with pytest.raises(InvalidImage, match="image"):
        apply_masks(image, boxes_of((1, 2, 3, 4)))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *(("method", "pixelate"), ("method", ""), ("shape", "circle")),
        *(("margin", -0.1), ("margin", 2.1), ("margin", math.nan), ("margin", "wide")),
        *(("cells", 1), ("cells", 17), ("cells", 5.5), ("cells", True)),
        *(("kernel", 0.29), ("kernel", 2.1), ("kernel", math.inf), ("kernel", None)),
        *(("color", (0, 0)), ("color", (0, 0, 256)), ("color", (-1, 0, 0)), ("color", (0.5, 0, 0))),
        *(("color", 7), ("color", "red")),
    ],
)
def test_option_outside_its_range_is_refused_and_named(field: str, value: object) -> None:
    with pytest.raises(InvalidOption, match=re.escape(f"{field} is {value!r}")):
        MaskOptions(**{field: value})  # type: ignore[arg-type]
