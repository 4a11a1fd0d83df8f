"""Encrypted folders of engines: who lacks the key can neither read nor change anything unseen."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from skimage import data

import unface
from unface.engines import open_networks
from unface.engines.cascades import Cascades
from unface.engines.device import read_weights
from unface.engines.plans import read_plans
from unface.engines.sealed import write_sealed
from unface.engines.shelf import KEY_VARIABLE, named_files, open_named, read_shelf
from unface.errors import EngineError, InvalidOption
from unface.mtcnn.cascade import Cascade
from unface.sealing import is_sealed, new_key

KEY, OTHER_KEY = new_key(), new_key()
TINY = {"a.tflite": b"weights of a", "b.tflite": b"weights of b", "c.onnx": b"not served"}


@pytest.fixture(autouse=True)
def no_key_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(KEY_VARIABLE, raising=False)


@pytest.fixture(scope="module")
def shipped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The engines that ship, encrypted with KEY."""
    folder = tmp_path_factory.mktemp("sealed") / "engines"
    write_sealed(read_shelf(), folder, KEY)
    return folder


def plain_folder(folder: Path, files: dict[str, bytes]) -> Path:
    folder.mkdir()
    engines = []
    for name, content in files.items():
        (folder / name).write_bytes(content)
        engines.append(
            {
                "network": "pnet",
                "precision": name,
                "runtime": "onnx" if name.endswith("onnx") else "tflite",
                "file": name,
                "sha256": hashlib.sha256(content).hexdigest(),
            }
        )
    manifest = {"engines": engines, "certificates": []}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    """A folder of a few bytes, encrypted with KEY."""
    folder = tmp_path / "tiny.sealed"
    write_sealed(read_shelf(plain_folder(tmp_path / "tiny", TINY)), folder, KEY)
    return folder


def read_all(folder: Path, key: bytes | None) -> list[bytes]:
    shelf = read_shelf(folder, key)
    return [shelf.read(engine) for engine in shelf.engines if engine.runtime != "onnx"]


def test_a_sealed_folder_reads_as_the_plain_one_and_shows_nothing_of_it(tiny: Path) -> None:
    assert read_all(tiny, KEY) == [TINY["a.tflite"], TINY["b.tflite"]]
    assert {path.name for path in tiny.iterdir()} == {"a.tflite", "b.tflite", "manifest.json"}
    for path in tiny.iterdir():
        content = path.read_bytes()
        assert is_sealed(content)
        assert b"weights" not in content
        assert b"sha256" not in content


@pytest.mark.parametrize("runtime", ["native", "tflite"])
@pytest.mark.parametrize("precision", ["int8", "fp32"])
def test_sealed_engines_find_the_same_faces(
    shipped: Path, precision: str, runtime: str, request: pytest.FixtureRequest
) -> None:
    if runtime == "native":
        request.getfixturevalue("core")
    spec = f"{precision}.{runtime}"
    plain = Cascade(open_named(spec, threads=1))
    sealed = Cascade(open_named(f"{shipped}:{spec}", threads=1, key=KEY))
    expected, found = plain.detect(data.astronaut()), sealed.detect(data.astronaut())
    assert len(found) == 1
    np.testing.assert_array_equal(found.boxes, expected.boxes)
    np.testing.assert_array_equal(found.landmarks, expected.landmarks)
    np.testing.assert_array_equal(found.scores, expected.scores)


def test_a_detector_takes_the_key_from_a_file_or_the_environment(
    shipped: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "key"
    file.write_bytes(KEY)
    file.chmod(0o600)
    image = data.astronaut()
    expected = unface.Detector("fast", device="cpu").detect(image)
    with unface.Detector("fast", engines=shipped, key_file=file, device="cpu") as detector:
        np.testing.assert_array_equal(detector.detect(image).boxes, expected.boxes)
        both = detector.detect([image, image])
        np.testing.assert_array_equal(both[1].boxes, expected.boxes)
    monkeypatch.setenv(KEY_VARIABLE, KEY.hex())
    with unface.Detector("fast", engines=shipped, device="cpu") as detector:
        np.testing.assert_array_equal(detector.detect(image).boxes, expected.boxes)
    assert len(unface.Detector("fast", device="cpu").detect(image)) == 1  # it is for folders alone
    with pytest.raises(InvalidOption, match="engines and plans name no folder"):
        unface.Detector(key_file=file)


def test_all_who_read_a_folder_take_the_key(shipped: Path) -> None:
    Cascades("int8", 1, shipped, key=KEY).close()
    assert named_files(f"{shipped}:int8.tflite", KEY) == named_files("int8.tflite")
    assert read_weights(read_shelf(shipped, KEY), allow_uncertified=False).keys()
    networks = open_networks("int8", threads=1, folder=shipped, key=KEY)  # with its certificate
    assert networks.precision == "int8"


def test_plans_are_read_from_a_sealed_folder_too(tmp_path: Path) -> None:
    folder = plain_folder(tmp_path / "plans", {"p.plan": b"a plan"})
    manifest = json.loads((folder / "manifest.json").read_text())
    extra = {"library": "tensorrt", "version": "11", "onnx_sha256": "0"}
    manifest["engines"][0] |= {**extra, "compute_capabilities": ["9.0"]}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    write_sealed(read_shelf(folder), tmp_path / "sealed", KEY)
    plans = read_plans(tmp_path / "sealed", KEY)
    assert plans.plans == read_plans(folder).plans
    assert plans.shelf.read(plans.plans[0].engine) == b"a plan"
    with pytest.raises(EngineError, match="are encrypted"):
        read_plans(tmp_path / "sealed")


def test_without_the_key_nothing_opens_and_the_message_says_how(tiny: Path) -> None:
    with pytest.raises(EngineError, match=rf"encrypted.*--engine-key-file.*{KEY_VARIABLE}"):
        read_shelf(tiny)


def test_another_key_opens_nothing(tiny: Path) -> None:
    with pytest.raises(EngineError, match="cannot be decrypted: the key is another one"):
        read_shelf(tiny, OTHER_KEY)
    with pytest.raises(EngineError, match="cannot be decrypted: the key has 16 bytes"):
        read_shelf(tiny, KEY[:16])


def test_a_plain_folder_cannot_take_the_place_of_a_sealed_one(tiny: Path) -> None:
    with pytest.raises(EngineError, match=r"not encrypted, but there is a key"):
        read_shelf(tiny.with_name("tiny"), KEY)
    assert read_shelf(None, KEY) == read_shelf()  # what ships is the package's own


def test_every_flipped_byte_of_every_file_is_refused(tiny: Path) -> None:
    for path in tiny.iterdir():
        content = path.read_bytes()
        for place in range(len(content)):
            altered = bytearray(content)
            altered[place] ^= 0x40
            path.write_bytes(altered)
            with pytest.raises(EngineError):
                read_all(tiny, KEY)
        path.write_bytes(content)
    read_all(tiny, KEY)


def swap(folder: Path) -> None:
    a, b = folder / "a.tflite", folder / "b.tflite"
    content = a.read_bytes()
    a.write_bytes(b.read_bytes())
    b.write_bytes(content)


def from_elsewhere(folder: Path) -> None:
    """Another folder's engine of the same name under the same key."""
    other = folder.with_name("other")
    write_sealed(
        read_shelf(plain_folder(folder.with_name("o"), {"a.tflite": b"others"})), other, KEY
    )
    (folder / "a.tflite").write_bytes((other / "a.tflite").read_bytes())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (swap, r"a\.tflite is damaged \(the key is right, but .* altered or moved"),
        (from_elsewhere, r"a\.tflite is damaged \(its hash differs"),
        (lambda f: (f / "a.tflite").write_bytes(TINY["a.tflite"]), "right, but it is not encrypt"),
        (lambda f: (f / "a.tflite").write_bytes(b"UNFACE1\0short"), "right, but it is cut short"),
        (lambda f: (f / "a.tflite").unlink(), r"a\.tflite is missing"),
        (lambda f: (f / "manifest.json").unlink(), "manifest of the engines cannot be read"),
        (lambda f: (f / "a.tflite").replace(f / "manifest.json"), "cannot be decrypted"),
    ],
)
def test_what_was_done_to_a_folder_is_said(
    tiny: Path, change: Callable[[Path], object], message: str
) -> None:
    change(tiny)
    with pytest.raises(EngineError, match=message):
        read_all(tiny, KEY)


def test_engines_are_sealed_into_a_new_folder_only(tiny: Path, tmp_path: Path) -> None:
    plain = read_shelf(tmp_path / "tiny")
    before = {path.name: path.read_bytes() for path in tiny.iterdir()}
    with pytest.raises(InvalidOption, match="is not empty"):
        write_sealed(plain, tiny, KEY)
    assert {path.name: path.read_bytes() for path in tiny.iterdir()} == before
    with pytest.raises(InvalidOption, match="cannot be written"):
        write_sealed(plain, tmp_path / "tiny" / "a.tflite" / "below", KEY)


def test_a_damaged_folder_is_not_sealed(tiny: Path, tmp_path: Path) -> None:
    (tmp_path / "tiny" / "b.tflite").write_bytes(b"altered")
    with pytest.raises(EngineError, match="hash differs"):
        write_sealed(read_shelf(tmp_path / "tiny"), tmp_path / "out", KEY)
    assert not (tmp_path / "out").exists()


def test_the_key_is_not_shown_with_the_shelf(tiny: Path) -> None:
    shown = repr(read_shelf(tiny, KEY))
    assert repr(KEY) not in shown
    assert KEY.hex() not in shown


def test_decrypted_engines_are_never_written(shipped: Path, tmp_path: Path) -> None:
    """No file is opened for writing while engines are opened and a face is found."""
    code = (
        "import os, sys, unface\nfrom skimage import data\nimage = data.astronaut()\n"
        "from unface.anonymize import threads\nimport unface.local\n"
        "writing = os.O_WRONLY | os.O_RDWR | os.O_CREAT\n"
        "def watch(event, arguments):\n"
        "    if event == 'open' and arguments[2] & writing and arguments[0] != os.devnull:\n"
        "        print('WRITES', arguments)\n"
        "sys.addaudithook(watch)\n"
        "for precision in ('int8', 'mixed'):\n"
        f"    detector = unface.Detector(engines={str(shipped)!r}, precision=precision)\n"
        "    print(len(detector.detect(image)), detector.backend)\n"
    )
    environment = {KEY_VARIABLE: KEY.hex(), "TMPDIR": str(tmp_path), "PATH": "/usr/bin"}
    done = subprocess.run(
        [sys.executable, "-B", "-c", code], capture_output=True, text=True, env=environment
    )
    assert done.returncode == 0, done.stderr
    assert [line.split()[0] for line in done.stdout.splitlines()] == ["1", "1"]
    assert not list(tmp_path.iterdir())
