from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scenes import Scene, compose, crowd, found

from unface.engines import tflite
from unface.engines.shelf import open_named
from unface.engines.tflite import PLANS_KEPT, TfliteNetwork
from unface.errors import EngineError
from unface.mtcnn import Cascade
from unface.mtcnn.canvas import PAGE_SIDE
from unface.mtcnn.network import UInt8Array

PREBUILT = Path(__file__).parents[2] / "engines" / "prebuilt"
SIDES = {"pnet": PAGE_SIDE, "rnet": 24, "onet": 48}
PRECISIONS = ("fp32", "fp16", "dynamic", "int8", "mixed")


def noise(count: int, side: int, seed: int = 2) -> UInt8Array:
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (count, side, side, 3), dtype=np.uint8)


@pytest.mark.parametrize("name", ["pnet", "rnet", "onet"])
@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_batch_of_any_size_gives_what_its_images_give_alone(name: str, precision: str) -> None:
    network = getattr(open_named(f"{precision}.tflite", threads=1), name)
    images = noise(3 if name == "pnet" else 41, SIDES[name])
    alone = [network(images[k : k + 1]) for k in range(len(images))]
    for count in (1, 2, 3, 4, 5, 8, 9, 33, 41):
        if count > len(images):
            break
        together = network(images[:count])
        for output, values in together.items():
            assert values.dtype == np.float32
            expected = np.concatenate([a[output] for a in alone[:count]])
            np.testing.assert_allclose(values, expected, atol=1e-5)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_outputs_have_the_shapes_of_the_contract(precision: str) -> None:
    networks = open_named(f"{precision}.tflite", threads=1)
    cells = (PAGE_SIDE - 2) // 2 - 4
    shapes = {
        "pnet": {"logit": (2, cells, cells), "box": (2, cells, cells, 4)},
        "rnet": {"logit": (2,), "box": (2, 4)},
        "onet": {"logit": (2,), "box": (2, 4), "landmarks": (2, 10)},
    }
    for name, wanted in shapes.items():
        outputs = getattr(networks, name)(noise(2, SIDES[name]))
        assert {output: values.shape for output, values in outputs.items()} == wanted
    assert (networks.backend, networks.precision) == ("tflite", precision)


@pytest.mark.parametrize(
    ("precision", "least"), [("fp16", 0.9999), ("dynamic", 0.99), ("int8", 0.97), ("mixed", 0.97)]
)
def test_every_precision_gives_nearly_what_fp32_does(precision: str, least: float) -> None:
    image = crowd(5, 4, 30).image
    crops = {
        "pnet": np.ascontiguousarray(image[None, :PAGE_SIDE, :PAGE_SIDE]),
        "rnet": np.stack([image[y : y + 24, x : x + 24] for y in range(0, 90, 9) for x in (4, 70)]),
        "onet": np.stack([image[y : y + 48, x : x + 48] for y in range(0, 90, 9) for x in (0, 66)]),
    }
    exact, rough = (open_named(f"{p}.tflite", threads=1) for p in ("fp32", precision))
    for name, images in crops.items():
        wanted, given = (getattr(networks, name)(images) for networks in (exact, rough))
        for output, values in wanted.items():
            likeness = np.corrcoef(values.ravel(), given[output].ravel())[0, 1]
            assert likeness > least, (name, output)
            assert (values != given[output]).any(), (name, output)  # it is another engine


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_easy_faces_are_found(precision: str) -> None:
    scene = crowd(5, 3, 50)
    faces = Cascade(open_named(f"{precision}.tflite", threads=2)).detect(scene.image)
    assert (faces.backend, faces.precision) == ("tflite", precision)
    assert found(scene, faces.boxes) == len(scene.faces)


@pytest.mark.parametrize("precision", ["fp16", "dynamic", "int8", "mixed"])
def test_rougher_engines_find_the_same_easy_faces(precision: str) -> None:
    scene = crowd(4, 2, 50)
    faces = Cascade(open_named(f"{precision}.tflite", threads=2)).detect(scene.image)
    assert found(scene, faces.boxes) == len(scene.faces)
    fp32 = Cascade(open_named("fp32.tflite", threads=2)).detect(scene.image)
    assert found(Scene(scene.image, fp32.boxes.astype(float)), faces.boxes, 0.8) == len(fp32)


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_the_number_of_threads_does_not_change_the_faces(precision: str) -> None:
    image = compose(500, 300, [(10, 10, 30), (120, 10, 90)]).image
    one, two = (Cascade(open_named(f"{precision}.tflite", threads=t)).detect(image) for t in (1, 2))
    assert len(one) >= 2
    np.testing.assert_allclose(one.boxes, two.boxes, atol=1e-3)
    np.testing.assert_allclose(one.scores, two.scores, atol=1e-4)


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("name", ["pnet", "rnet", "onet"])
def test_the_number_of_threads_does_not_change_an_output(name: str, precision: str) -> None:
    images = noise(2 if name == "pnet" else 9, SIDES[name], seed=3)
    one, two = (getattr(open_named(f"{precision}.tflite", threads=t), name)(images) for t in (1, 2))
    for output, values in one.items():
        np.testing.assert_allclose(values, two[output], atol=1e-5)


@pytest.mark.parametrize("shape", [(255, 256, 3), (256, 256, 4), (128, 512, 3), (128, 256, 3)])
@pytest.mark.parametrize("count", [1, 2])
def test_p_nets_engine_takes_nothing_but_pages(shape: tuple[int, ...], count: int) -> None:
    """As many pixels in another shape would come out as another picture."""
    pnet = open_named("fp32.tflite", threads=1).pnet
    with pytest.raises(EngineError, match=r"pnet\.fp32\.tflite cannot be loaded: it takes"):
        pnet(np.zeros((count, *shape), np.uint8))
    assert pnet(np.zeros((1, 256, 256, 3), np.uint8))["logit"].shape == (1, 123, 123)


def test_more_shapes_than_interpreters_are_kept_give_the_same_again() -> None:
    model = (PREBUILT / "rnet.fp32.tflite").read_bytes()
    batches = tuple(range(1, PLANS_KEPT + 4))
    rnet = TfliteNetwork(model, "rnet", batches, threads=1)
    images = [noise(count, 24, seed=count) for count in batches]
    once = [rnet(image) for image in images]
    for image, first in reversed(list(zip(images, once, strict=True))):
        again = rnet(image)
        assert all((again[name] == values).all() for name, values in first.items())
    assert len(rnet._plans) == PLANS_KEPT
    rnet.close()
    assert not rnet._plans


def test_planning_happens_once_for_a_shape(monkeypatch: pytest.MonkeyPatch) -> None:
    planned: list[tuple[int, ...]] = []
    plan = tflite._Plan.__init__

    def counted(self: object, model: bytes, name: str, shape: tuple[int, ...], n: int) -> None:
        planned.append(shape)
        plan(self, model, name, shape, n)  # type: ignore[arg-type]

    monkeypatch.setattr(tflite._Plan, "__init__", counted)
    cascade = Cascade(open_named("fp32.tflite", threads=1))
    for size in (30, 44, 70):
        cascade.detect(crowd(3, 2, size).image)
    assert planned.count((1, 256, 256, 3)) == 1
    assert len(set(planned)) == len(planned) <= 5  # a page, two batches of R-Net, two of O-Net


@pytest.mark.parametrize("precision", PRECISIONS)
def test_outputs_of_an_engine_do_not_change_when_it_runs_again(precision: str) -> None:
    """The interpreter's own memory is not handed out."""
    rnet = open_named(f"{precision}.tflite", threads=1).rnet
    outputs = rnet(noise(5, 24, seed=7))
    kept = {name: values.copy() for name, values in outputs.items()}
    rnet(noise(5, 24, seed=8))
    assert all((outputs[name] == values).all() for name, values in kept.items())


def test_an_engine_leaves_the_pixels_as_they_are() -> None:
    for precision in ("fp32", "int8"):
        pixels = noise(1, PAGE_SIDE, seed=9)
        kept = pixels.copy()
        open_named(f"{precision}.tflite", threads=1).pnet(pixels)
        assert (pixels == kept).all()


def test_an_int8_engine_that_does_not_take_pixels_as_they_are_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from ai_edge_litert import interpreter

    details = interpreter.Interpreter.get_input_details

    def scaled(self: object) -> list[dict[str, object]]:
        return [{**d, "quantization": (0.99, -128)} for d in details(self)]

    monkeypatch.setattr(interpreter.Interpreter, "get_input_details", scaled)
    with pytest.raises(EngineError, match="calibrate it again"):
        open_named("int8.tflite", threads=1).rnet(np.zeros((1, 24, 24, 3), np.uint8))


def test_two_detectors_share_no_interpreter() -> None:
    one, two = (open_named("fp32.tflite", threads=1) for _ in range(2))
    image = np.zeros((1, 24, 24, 3), np.uint8)
    one.rnet(image), two.rnet(image)
    mine, other = (n.rnet._plans.values() for n in (one, two))  # type: ignore[attr-defined]
    assert not {id(p._interpreter) for p in mine} & {id(p._interpreter) for p in other}


@pytest.mark.parametrize("damage", [b"", b"not a flatbuffer", b"\0" * 64])
def test_what_is_no_engine_is_refused(damage: bytes) -> None:
    with pytest.raises(EngineError, match=r"odd\.tflite cannot be loaded"):
        TfliteNetwork(damage, "odd.tflite", (1,), 1)(np.zeros((1, 24, 24, 3), np.uint8))
