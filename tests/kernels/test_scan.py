"""P-Net on the compiled core: whole images, strips, and resizing on the way."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from native_networks import available, engine, limited_to, literal, random_arrays
from numpy.typing import NDArray

from unface.engines.native import NativePNet
from unface.engines.shelf import open_named
from unface.errors import EngineError
from unface.kernels.arrays import resize_rows
from unface.mtcnn.canvas import cells
from unface.mtcnn.proposals import propose
from unface.mtcnn.pyramid import Mipmap, pyramid_levels

Pixels = NDArray[np.uint8]
Hits = NDArray[np.void]


def noise(width: int, height: int, seed: int = 0) -> Pixels:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def pnet(*, quantized: bool = True, seed: int = 1) -> NativePNet:
    arrays = random_arrays("pnet", np.random.default_rng(seed), quantized=quantized)
    return NativePNet(engine(arrays), "random")


def whole(network: NativePNet, image: Pixels, lowest: float = -np.inf) -> Hits:
    height, width = image.shape[:2]
    return network.scan(image, (width, height), (0, cells(height)), lowest)


WIDTHS = [12, 13, 14, *(2 * (vectors * lanes + 5) + more for lanes in (8, 16)
          for vectors in (1, 2, 3, 4) for more in (-2, -1, 0, 1, 2))]  # fmt: skip


@pytest.mark.parametrize("quantized", [True, False])
def test_each_cell_is_what_the_network_gives_its_twelve_pixels(isa: str, quantized: bool) -> None:
    """Widths about all numbers of cells that fill a vector."""
    arrays = random_arrays("pnet", np.random.default_rng(2), quantized=quantized)
    network = NativePNet(engine(arrays), "random")
    sizes = {*itertools.product((12, 13, 14), (12, 13, 14)), *((w, 15) for w in WIDTHS)}
    for width, height in sizes:
        image = noise(width, height, width)
        hits, wanted = whole(network, image), literal(arrays, "pnet", image[None])
        rows, columns = cells(height), cells(width)
        assert hits["row"].tolist() == np.repeat(np.arange(rows), columns).tolist()
        assert hits["column"].tolist() == np.tile(np.arange(columns), rows).tolist()
        np.testing.assert_allclose(hits["logit"], wanted["logit"].ravel(), atol=1e-4)
        np.testing.assert_allclose(hits["box"], wanted["box"].reshape(-1, 4), atol=1e-4)


@pytest.mark.parametrize("size", [(12, 12), (13, 12), (12, 13), (96, 64), (101, 77), (44, 300)])
def test_float_cells_are_those_of_torch(isa: str, size: tuple[int, int]) -> None:
    pytest.importorskip("torch", reason="torch comes with unface[engines]")
    from unface.mtcnn.networks import TorchNetwork, load_network

    network = open_named("fp32.native", threads=1).pnet
    for image in (noise(*size), np.zeros_like(noise(*size)), np.full_like(noise(*size), 255)):
        given_, wanted = network(image[None]), TorchNetwork(load_network("pnet"))(image[None])
        for name, values in wanted.items():
            np.testing.assert_allclose(given_[name], values, atol=1e-4)


@given(
    st.tuples(st.integers(12, 80), st.integers(12, 60)),
    st.tuples(st.floats(1, 3), st.floats(1, 3)),
    st.sets(st.integers(0, 25)),
    st.booleans(),
)
@settings(max_examples=60, deadline=None)
def test_any_cut_into_strips_gives_the_same_hits_in_the_same_order(
    size: tuple[int, int], ratio: tuple[float, float], edges: set[int], quantized: bool
) -> None:
    width, height = size
    image = noise(int(width * ratio[0]), int(height * ratio[1]))
    rows = cells(height)
    cuts = sorted({0, rows, *(edge for edge in edges if edge < rows)})
    for isa in available():
        with limited_to(isa):
            network = pnet(quantized=quantized)
        together = network.scan(image, size, (0, rows), -0.2)
        strips = [network.scan(image, size, run, -0.2) for run in itertools.pairwise(cuts)]
        assert np.concatenate(strips).tobytes() == together.tobytes()


@given(
    st.tuples(st.integers(12, 80), st.integers(12, 60)),
    st.tuples(st.floats(1, 3), st.floats(1, 3)),
    st.booleans(),
)
@settings(max_examples=60, deadline=None)
def test_scanning_a_shrunk_image_is_shrinking_it_and_then_scanning(
    size: tuple[int, int], ratio: tuple[float, float], quantized: bool
) -> None:
    width, height = size
    image = noise(int(width * ratio[0]), int(height * ratio[1]))
    resized = np.empty((height, width, 3), np.uint8)
    resize_rows(image, resized, 0, height)
    for isa in available():
        with limited_to(isa):
            network = pnet(quantized=quantized)
        at_once = network.scan(image, size, (0, cells(height)), -np.inf)
        assert at_once.tobytes() == whole(network, resized).tobytes()


@pytest.mark.parametrize("quantized", [True, False])
def test_hits_are_the_cells_at_least_as_sure_in_order(isa: str, quantized: bool) -> None:
    network, image = pnet(quantized=quantized), noise(99, 61)
    everything = whole(network, image)
    assert len(everything) == cells(99) * cells(61)
    assert len(whole(network, image, np.inf)) == 0
    for lowest in np.sort(everything["logit"])[[0, 1, 100, 500, -1]].tolist():
        wanted = everything[everything["logit"] >= np.float32(lowest)]
        assert whole(network, image, lowest).tobytes() == wanted.tobytes()


def test_no_rows_have_no_hits(isa: str) -> None:
    network, image = pnet(), noise(40, 30)
    for row in range(cells(30) + 1):
        assert len(network.scan(image, (40, 30), (row, row), -np.inf)) == 0


@pytest.mark.parametrize("value", [0, 255])
def test_all_cells_of_a_plane_are_the_same(isa: str, value: int) -> None:
    hits = whole(pnet(), np.full((50, 80, 3), value, np.uint8))
    assert len(np.unique(hits[["logit", "box"]])) == 1


def test_a_picture_65500_pixels_wide_is_scanned_to_its_end(isa: str) -> None:
    network, image = pnet(), noise(65_500, 14)
    hits, end = whole(network, image), whole(network, np.ascontiguousarray(image[:, -100:]))
    assert len(hits) == 2 * cells(65_500)
    last = hits[(hits["column"] >= cells(65_500) - cells(100))]
    assert (last["logit"] == end["logit"]).all()
    assert (last["box"] == end["box"]).all()


def test_bad_arguments_are_refused() -> None:
    network, image = pnet(), noise(40, 30)
    wrong = [
        (image, (40, 30), (0, 11)), (image, (40, 30), (-1, 5)), (image, (40, 30), (5, 4)),
        (image, (11, 30), (0, 1)), (image, (40, 11), (0, 1)), (image, (40, 5), (0, 0)),
        (image, (41, 30), (0, 5)), (image, (40, 31), (0, 5)), (image, (13, 30), (0, 5)),
        (image[::-1], (40, 30), (0, 5)), (image[:, ::2], (20, 30), (0, 5)),
        (image.astype(np.float32), (40, 30), (0, 5)), (image[:, :, :1], (40, 30), (0, 5)),
        (image[0], (40, 30), (0, 5)),
    ]  # fmt: skip
    for arguments in wrong:
        with pytest.raises(ValueError, match=r"rows|too much|image"):
            network.scan(*arguments, 0.0)  # type: ignore[arg-type]


def test_logits_that_are_no_numbers_are_no_picture_without_faces(isa: str) -> None:
    """Weights that overflow float32: infinity less infinity is above no threshold."""
    arrays = random_arrays("pnet", np.random.default_rng(0), quantized=False)
    arrays["conv3.weight"] = arrays["conv3.weight"] * np.float32(1e38)
    arrays["conv3.slopes"][:] = 1
    arrays["logit.weight"] = arrays["logit.weight"] * np.float32(1e10)
    network, levels = NativePNet(engine(arrays), "loud"), tuple(pyramid_levels(40, 30, 20, 0.709))
    with pytest.raises(EngineError, match="no numbers"):
        propose(Mipmap(noise(40, 30)), levels, network, 0.6)
