from __future__ import annotations

import hashlib
import json
import shutil
from importlib.metadata import version
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from scenes import Scene, compose, crowd, found

from unface.engines import open_networks, prebuilt, shelf, tflite
from unface.engines.shelf import Engine, cores
from unface.engines.tflite import PLANS_KEPT
from unface.errors import EngineError, InvalidOption
from unface.mtcnn import Cascade

PREBUILT = Path(__file__).parents[2] / "engines" / "prebuilt"
CACHE = Path(__file__).parents[2] / "calibration" / "cache"


def test_three_networks_ship_in_both_precisions() -> None:
    shipped = {(engine.network, engine.precision) for engine in prebuilt()}
    assert shipped == set(product(("pnet", "rnet", "onet"), ("fp32", "int8")))


@pytest.mark.parametrize("name", ["pnet", "rnet", "onet"])
@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_a_batch_of_any_size_gives_what_its_images_give_alone(name: str, precision: str) -> None:
    networks = open_networks(precision, threads=1)
    network = getattr(networks, name)
    side = {"pnet": 40, "rnet": 24, "onet": 48}[name]
    images = np.random.default_rng(2).integers(0, 256, (41, side, side, 3), dtype=np.uint8)
    alone = [network(images[k : k + 1]) for k in range(len(images))]
    for count in (1, 3, 4, 5, 8, 9, 33, 41):
        together = network(images[:count])
        for output, values in together.items():
            assert values.dtype == np.float32
            expected = np.concatenate([a[output] for a in alone[:count]])
            np.testing.assert_allclose(values, expected, atol=1e-5)


def test_int8_engines_find_the_same_easy_faces() -> None:
    scene = crowd(5, 3, 50)
    faces = Cascade(open_networks("int8", threads=2)).detect(scene.image)
    assert (faces.backend, faces.precision) == ("tflite", "int8")
    assert found(scene, faces.boxes) == len(scene.faces)
    fp32 = Cascade(open_networks("fp32", threads=2)).detect(scene.image)
    assert found(Scene(scene.image, fp32.boxes.astype(float)), faces.boxes, 0.8) == len(fp32)


def test_the_number_of_threads_does_not_change_the_faces() -> None:
    image = compose(500, 300, [(10, 10, 30), (120, 10, 90)]).image
    one, two = (Cascade(open_networks("fp32", threads=t)).detect(image) for t in (1, 2))
    np.testing.assert_allclose(one.boxes, two.boxes, atol=1e-3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"precision": "fp8"}, "there are fp32, int8"),
        ({"threads": 0}, "1 to 64"),
        ({"threads": 65}, "1 to 64"),
        ({"threads": 1.5}, "whole number"),
        ({"threads": "2"}, "whole number"),
        ({"threads": float("nan")}, "whole number"),
        ({"precision": None}, "there are fp32, int8"),
    ],
)
def test_a_bad_choice_of_engines_is_refused(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(InvalidOption, match=message):
        open_networks(**arguments)  # type: ignore[arg-type]


def test_threads_default_to_the_cores_this_process_may_use() -> None:
    assert 1 <= cores() <= 64


@pytest.fixture
def copy_of_engines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(PREBUILT, tmp_path / "prebuilt")
    monkeypatch.setattr(shelf, "files", lambda _: tmp_path)
    prebuilt.cache_clear()
    return tmp_path / "prebuilt"


@pytest.fixture(autouse=True)
def fresh_manifest() -> object:
    yield None
    prebuilt.cache_clear()


def test_a_damaged_engine_is_refused(copy_of_engines: Path) -> None:
    file = copy_of_engines / "onet.fp32.tflite"
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    with pytest.raises(EngineError, match=r"onet\.fp32\.tflite is damaged"):
        open_networks("fp32")


def test_a_missing_engine_is_refused(copy_of_engines: Path) -> None:
    (copy_of_engines / "rnet.fp32.tflite").unlink()
    with pytest.raises(EngineError, match=r"rnet\.fp32\.tflite is missing"):
        open_networks("fp32")


@pytest.mark.parametrize("content", ["", "{}", '{"engines": [{}]}', "[1]"])
def test_a_damaged_manifest_is_refused(copy_of_engines: Path, content: str) -> None:
    (copy_of_engines / "manifest.json").write_text(content)
    with pytest.raises(EngineError, match="manifest"):
        open_networks("fp32")


def test_a_file_that_is_no_engine_is_refused(copy_of_engines: Path) -> None:
    file = copy_of_engines / "pnet.fp32.tflite"
    file.write_bytes(b"not a flatbuffer")
    manifest = json.loads((copy_of_engines / "manifest.json").read_text())
    for engine in manifest["engines"]:
        if engine["file"] == file.name:
            engine["sha256"] = hashlib.sha256(file.read_bytes()).hexdigest()
    (copy_of_engines / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(EngineError, match="cannot be loaded"):
        open_networks("fp32").pnet(np.zeros((1, 12, 12, 3), np.uint8))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # the build tools warn of themselves
def test_engines_built_again_are_the_committed_ones(tmp_path: Path) -> None:
    pytest.importorskip("litert_torch", reason="litert-torch comes with unface[engines]")
    pytest.importorskip("ai_edge_quantizer", reason="it comes with unface[engines]")
    from unface.calibration.quantize import quantize
    from unface.calibration.ranges import read_ranges
    from unface.engines.build import TOOLCHAIN, build_float

    made_with = json.loads((PREBUILT / "manifest.json").read_text())["toolchain"]
    same_tools = all(version(t).split("+")[0] == made_with[t].split("+")[0] for t in TOOLCHAIN)
    for name in ("pnet", "rnet", "onet"):
        fp32, int8 = tmp_path / f"{name}.fp32.tflite", tmp_path / f"{name}.int8.tflite"
        build_float(name, fp32)
        if same_tools:
            quantize(fp32, read_ranges(CACHE / f"{name}.json"), int8)
            assert int8.read_bytes() == (PREBUILT / int8.name).read_bytes()
            assert fp32.read_bytes() == (PREBUILT / fp32.name).read_bytes()
        else:
            compare(fp32, PREBUILT / fp32.name, name)


def compare(built: Path, committed: Path, name: str) -> None:
    """Hold two engines to the same answers, for tools other than those of the manifest."""
    from unface.engines.tflite import TfliteNetwork

    side = {"pnet": 64, "rnet": 24, "onet": 48}[name]
    images = np.random.default_rng().integers(0, 256, (3, side, side, 3), dtype=np.uint8)
    a, b = (TfliteNetwork(p.read_bytes(), p.name, (1,), 1)(images) for p in (built, committed))
    for output in a:
        np.testing.assert_allclose(a[output], b[output], atol=1e-4)


def test_an_engine_knows_its_file_by_hash() -> None:
    engine = Engine("pnet", "fp32", "pnet.fp32.tflite", "0" * 64)
    with pytest.raises(EngineError, match="hash differs"):
        engine.read()


def test_the_manifest_names_every_file_that_ships_and_its_hash() -> None:
    assert {engine.file for engine in prebuilt()} == {p.name for p in PREBUILT.glob("*.tflite")}
    for engine in prebuilt():
        assert hashlib.sha256(engine.read()).hexdigest() == engine.sha256


def test_more_shapes_than_interpreters_are_kept_give_the_same_again() -> None:
    pnet = open_networks("fp32", threads=1).pnet
    rng = np.random.default_rng(6)
    sizes = [(12, 12), (40, 30), (31, 64), (50, 50), (13, 90), (77, 21), (256, 256)]
    assert len(sizes) > PLANS_KEPT
    images = [rng.integers(0, 256, (1, *size, 3), dtype=np.uint8) for size in sizes]
    once = [pnet(image) for image in images]
    for image, first in reversed(list(zip(images, once, strict=True))):
        again = pnet(image)
        assert all((again[name] == values).all() for name, values in first.items())
    assert len(pnet._plans) == PLANS_KEPT  # type: ignore[attr-defined]
    pnet.close()
    assert not pnet._plans  # type: ignore[attr-defined]


def test_planning_happens_once_for_a_shape(monkeypatch: pytest.MonkeyPatch) -> None:
    planned: list[tuple[int, ...]] = []
    plan = tflite._Plan.__init__

    def counted(self: object, model: bytes, name: str, shape: tuple[int, ...], n: int) -> None:
        planned.append(shape)
        plan(self, model, name, shape, n)  # type: ignore[arg-type]

    monkeypatch.setattr(tflite._Plan, "__init__", counted)
    cascade = Cascade(open_networks("fp32", threads=1))
    for size in (30, 44, 70):
        cascade.detect(crowd(3, 2, size).image)
    assert planned.count((1, 256, 256, 3)) == 1
    assert len(set(planned)) == len(planned) <= 5  # a page, two batches of R-Net, two of O-Net


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_outputs_of_an_engine_do_not_change_when_it_runs_again(precision: str) -> None:
    """The interpreter's own memory is not handed out."""
    rnet = open_networks(precision, threads=1).rnet
    rng = np.random.default_rng(7)
    first, second = rng.integers(0, 256, (2, 5, 24, 24, 3), dtype=np.uint8)
    outputs = rnet(first)
    kept = {name: values.copy() for name, values in outputs.items()}
    rnet(second)
    assert all((outputs[name] == values).all() for name, values in kept.items())


def test_an_int8_engine_that_does_not_take_pixels_as_they_are_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from ai_edge_litert import interpreter

    details = interpreter.Interpreter.get_input_details

    def scaled(self: object) -> list[dict[str, object]]:
        return [{**d, "quantization": (0.99, -128)} for d in details(self)]

    monkeypatch.setattr(interpreter.Interpreter, "get_input_details", scaled)
    with pytest.raises(EngineError, match="calibrate it again"):
        open_networks("int8", threads=1).rnet(np.zeros((1, 24, 24, 3), np.uint8))


def test_two_detectors_share_no_interpreter() -> None:
    one, two = (open_networks("fp32", threads=1) for _ in range(2))
    image = np.zeros((1, 24, 24, 3), np.uint8)
    one.rnet(image), two.rnet(image)
    mine, other = (n.rnet._plans.values() for n in (one, two))  # type: ignore[attr-defined]
    assert not {id(p._interpreter) for p in mine} & {id(p._interpreter) for p in other}
