from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from scenes import astronaut, compose, crowd, found

from unface.engines.native import NativeNetwork, NativePNet
from unface.engines.shelf import open_named
from unface.errors import EngineError
from unface.mtcnn import Cascade
from unface.mtcnn.network import Network, UInt8Array
from unface.mtcnn.team import Team

PREBUILT = Path(__file__).parents[2] / "engines" / "prebuilt"
SIDES = {"pnet": 76, "rnet": 24, "onet": 48}
NETWORKS = ("pnet", "rnet", "onet")
PRECISIONS = ("fp32", "int8")
pytestmark = pytest.mark.usefixtures("core")


def noise(count: int, side: int, seed: int = 2) -> UInt8Array:
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (count, side, side, 3), dtype=np.uint8)


def opened(name: str, precision: str, threads: int = 1) -> Network:
    network: Network = getattr(open_named(f"{precision}.native", threads=threads), name)
    return network


@pytest.fixture(params=["avx2", "avxvnni", "avx512"])
def instructions(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Each instruction set there is a core for; the best of the machine where it is less."""
    monkeypatch.setenv("UNFACE_KERNELS", request.param)
    return str(request.param)


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_batch_of_any_size_gives_what_its_images_give_alone(name: str, precision: str) -> None:
    network = opened(name, precision, threads=2)
    images = noise(3 if name == "pnet" else 41, SIDES[name])
    alone = [network(images[k : k + 1]) for k in range(len(images))]
    for count in (1, 2, 3, 4, 5, 8, 9, 15, 16, 17, 31, 32, 33, 41):
        if count > len(images):
            break
        for output, values in network(images[:count]).items():
            assert values.dtype == np.float32
            assert (values == np.concatenate([a[output] for a in alone[:count]])).all()


@pytest.mark.parametrize("precision", PRECISIONS)
def test_outputs_have_the_shapes_of_the_contract(precision: str) -> None:
    networks = open_named(f"{precision}.native", threads=1)
    shapes = {
        "pnet": {"logit": (2, 33, 33), "box": (2, 33, 33, 4)},
        "rnet": {"logit": (2,), "box": (2, 4)},
        "onet": {"logit": (2,), "box": (2, 4), "landmarks": (2, 10)},
    }
    for name, wanted in shapes.items():
        outputs = getattr(networks, name)(noise(2, SIDES[name]))
        assert {output: values.shape for output, values in outputs.items()} == wanted
    assert (networks.backend, networks.precision) == ("native", precision)


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.usefixtures("instructions")
def test_fp32_gives_what_litert_does(name: str) -> None:
    """The same weights: all that differs is the order in which products are added."""
    side = {**SIDES, "pnet": 256}[name]
    places = [(y, x) for y in (0, 60, 200) for x in (150, 190, 250)]
    images = np.stack([astronaut()[y : y + side, x : x + side] for y, x in places])
    images = np.concatenate([images, noise(2, side), np.zeros_like(images[:1])])
    wanted = getattr(open_named("fp32.tflite", threads=1), name)(images)
    given = opened(name, "fp32")(images)
    assert given.keys() == wanted.keys()
    for output, values in wanted.items():
        np.testing.assert_allclose(given[output], values, atol=2e-4)


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.usefixtures("instructions")
def test_int8_gives_nearly_what_fp32_does(name: str) -> None:
    """As near as LiteRT's engines must be (test_tflite)."""
    side = SIDES[name]
    image = crowd(5, 4, 30).image
    images = np.stack([image[y : y + side, x : x + side] for y in range(0, 90, 9) for x in (4, 70)])
    exact, rough = (opened(name, precision)(images) for precision in ("fp32", "int8"))
    for output, values in exact.items():
        assert np.corrcoef(values.ravel(), rough[output].ravel())[0, 1] > 0.97, output
        assert (values != rough[output]).any(), output  # it is another engine


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.usefixtures("instructions")
def test_easy_faces_are_found(precision: str) -> None:
    scene = crowd(5, 3, 50)
    faces = Cascade(open_named(f"{precision}.native", threads=2)).detect(scene.image)
    assert (faces.backend, faces.precision) == ("native", precision)
    assert found(scene, faces.boxes) == len(scene.faces)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_the_number_of_threads_does_not_change_the_faces(precision: str) -> None:
    image = compose(700, 500, [(10, 10, 30), (120, 10, 90), (300, 200, 50)]).image
    one, *others = (
        Cascade(open_named(f"{precision}.native", threads=t)).detect(image) for t in (1, 2, 5)
    )
    assert len(one) >= 3
    for other in others:
        assert (one.boxes == other.boxes).all()
        assert (one.scores == other.scores).all()
        assert (one.landmarks == other.landmarks).all()


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("name", NETWORKS)
def test_outputs_of_an_engine_do_not_change_when_it_runs_again(name: str, precision: str) -> None:
    network = opened(name, precision)
    pixels = noise(5, SIDES[name], seed=7)
    before = pixels.copy()
    outputs = network(pixels)
    kept = {output: values.copy() for output, values in outputs.items()}
    network(noise(5, SIDES[name], seed=8))
    assert all((outputs[output] == values).all() for output, values in kept.items())
    assert (pixels == before).all()
    network.close()


@pytest.mark.parametrize("precision", PRECISIONS)
def test_an_engine_shared_by_threads_gives_each_its_own_answer(precision: str) -> None:
    pnet, rnet = (opened(name, precision) for name in ("pnet", "rnet"))
    images = [noise(1, 76, seed) for seed in range(12)]
    crops = [noise(7, 24, seed) for seed in range(12)]
    alone = [(pnet(i)["logit"], rnet(c)["logit"]) for i, c in zip(images, crops, strict=True)]
    with ThreadPoolExecutor(4) as pool:
        logits = zip(pool.map(pnet, images), pool.map(rnet, crops), strict=True)
        for (one, two), (wanted, other) in zip(logits, alone, strict=True):
            assert (one["logit"] == wanted).all()
            assert (two["logit"] == other).all()


@pytest.mark.parametrize("shape", [(11, 40, 3), (40, 11, 3)])
def test_p_net_looks_at_twelve_pixels_or_more(shape: tuple[int, ...]) -> None:
    pnet = opened("pnet", "fp32")
    with pytest.raises(EngineError, match="P-Net looks at 12 pixels or more, not"):
        pnet(np.zeros((1, *shape), np.uint8))
    assert pnet(np.zeros((1, 12, 13, 3), np.uint8))["logit"].shape == (1, 1, 1)


@pytest.mark.parametrize("shape", [(23, 24, 3), (24, 24, 4), (48, 48, 3), (12, 48, 3)])
def test_crops_of_another_size_are_refused(shape: tuple[int, ...]) -> None:
    """As many pixels in another shape would come out as another picture."""
    with pytest.raises(EngineError, match=r"\[N, 24, 24, 3\] is needed"):
        opened("rnet", "int8")(np.zeros((2, *shape), np.uint8))


def test_views_of_pixels_give_what_copies_give() -> None:
    wide = noise(4, 96)
    for name, side in (("pnet", 48), ("rnet", 24)):
        network = opened(name, "int8")
        view = wide[::2, 10 : 10 + 2 * side : 2, ::2][:, :side, :side, ::-1]
        for output, values in network(np.ascontiguousarray(view)).items():
            assert (network(view)[output] == values).all()


@pytest.mark.parametrize("damage", [b"", b"not an archive", b"\0" * 64, b"PK\5\6" + bytes(18)])
def test_what_is_no_engine_is_refused(damage: bytes) -> None:
    with pytest.raises(EngineError, match=r"odd\.npz cannot be loaded"):
        NativePNet(damage, "odd.npz")
    with pytest.raises(EngineError, match=r"odd\.npz cannot be loaded"):
        NativeNetwork(damage, "odd.npz", "rnet", Team())
    with pytest.raises(EngineError, match=r"odd\.npz cannot be loaded: .*conv"):
        NativePNet((PREBUILT / "rnet.int8.npz").read_bytes(), "odd.npz")
