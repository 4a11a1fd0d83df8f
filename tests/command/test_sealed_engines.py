"""Keys and encrypted engines as a person types them."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image
from skimage import data

from unface.engines.shelf import KEY_VARIABLE, read_shelf


def unface(*arguments: object, key: str | None = None) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name != KEY_VARIABLE}
    command = [sys.executable, "-m", "unface.command", *map(str, arguments)]
    environment |= {KEY_VARIABLE: key} if key else {}
    return subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment)


@pytest.fixture(scope="module")
def key_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("keys") / "engine.key"
    made = unface("engines", "new-key", file)
    assert made.returncode == 0, made.stderr
    assert file.read_text().strip() not in made.stdout + made.stderr
    return file


@pytest.fixture(scope="module")
def sealed(key_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The engines that ship, encrypted by the command."""
    folder = tmp_path_factory.mktemp("engines") / "sealed"
    done = unface("engines", "encrypt", folder, "--key-file", key_file)
    assert done.returncode == 0, done.stderr
    assert "22 files encrypted" in done.stdout  # 15 for LiteRT, 6 for the core, the manifest
    return folder


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    Image.fromarray(data.astronaut()).save(tmp_path / "photo.png")
    return tmp_path / "photo.png"


def test_a_new_key_is_for_its_owner_alone_and_never_overwritten(key_file: Path) -> None:
    assert stat.S_IMODE(key_file.stat().st_mode) == 0o600
    before = key_file.read_text()
    assert len(bytes.fromhex(before)) == 32
    again = unface("engines", "new-key", key_file)
    assert again.returncode == 2
    assert "exists" in again.stderr
    assert key_file.read_text() == before
    assert "cannot be written" in unface("engines", "new-key", key_file / "below").stderr


def test_sealed_engines_detect_with_the_key_and_not_without(
    sealed: Path, key_file: Path, photo: Path
) -> None:
    arguments = ("detect", photo, "--json", "--profile", "fast")
    plain = json.loads(unface(*arguments).stdout)
    options = ("--engines", sealed, "--engine-key-file", key_file)
    opened = unface(*arguments, *options)
    assert opened.returncode == 0, opened.stderr
    assert json.loads(opened.stdout) == plain
    assert len(plain["faces"]) == 1
    refused = unface(*arguments, "--engines", sealed)
    assert refused.returncode == 1
    assert "are encrypted: their key is needed" in refused.stderr
    assert "Traceback" not in refused.stderr


def test_the_environment_holds_the_key_as_well(sealed: Path, key_file: Path, photo: Path) -> None:
    key = key_file.read_text().strip()
    facts = json.loads(unface("info", "--json", "--engines", sealed, key=key).stdout)
    assert facts["engines"] == json.loads(unface("info", "--json").stdout)["engines"]
    other = unface("detect", photo, "--engines", sealed, key="0" * 64)
    assert other.returncode == 1
    assert "the key is another one" in other.stderr
    broken = unface("detect", photo, "--engines", sealed, key="0")
    assert broken.returncode == 2
    assert f"{KEY_VARIABLE} holds no key" in broken.stderr


def test_sealed_engines_are_listed_with_their_certificates(sealed: Path, key_file: Path) -> None:
    listed = unface("engines", "list", sealed, "--key-file", key_file)
    assert listed.stdout == unface("engines", "list").stdout
    assert "are encrypted" in unface("engines", "list", sealed).stderr


def test_sealed_engines_can_be_judged(
    sealed: Path, key_file: Path, photo: Path, tmp_path: Path
) -> None:
    (tmp_path / "images").mkdir()
    photo.rename(tmp_path / "images" / "a.png")
    face = {"box": [177, 63, 87, 107]}
    (tmp_path / "labels.jsonl").write_text(json.dumps({"image": "a.png", "faces": [face]}))
    spec, report = f"{sealed}:int8", tmp_path / "report.json"
    options = ("--data", tmp_path, "--json", report)
    key = key_file.read_text().strip()
    judged = unface("validate", "fp32", spec, *options, key=key)
    assert "Traceback" not in judged.stderr, judged.stderr
    hashes = json.loads(report.read_text())["candidate"]["hashes"]
    shipped = {e.sha256 for e in read_shelf().engines if e.precision == "int8"}
    assert len({*hashes.values()} & shipped) == 3
    refused = unface("validate", "fp32", spec, "--no-speed")
    assert refused.returncode == 1
    assert "are encrypted" in refused.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["encrypt", "{out}"], 2, "a key is needed: --key-file or UNFACE_ENGINE_KEY"),
        (["encrypt", "{out}", "--key-file", "{out}"], 2, "cannot be read: No such file"),
        (["encrypt", "{sealed}", "{out}", "--key-file", "{key}"], 1, "are encrypted"),
        (["encrypt", "{sealed}", "--key-file", "{key}"], 2, "is not empty"),
        (["encrypt", "nowhere", "{out}", "--key-file", "{key}"], 1, "is no folder of engines"),
    ],
)
def test_a_wrong_use_is_explained(
    sealed: Path, key_file: Path, tmp_path: Path, arguments: list[str], code: int, message: str
) -> None:
    out = tmp_path / "out"
    given = [part.format(out=out, sealed=sealed, key=key_file) for part in arguments]
    result = unface("engines", *given)
    assert result.returncode == code
    assert message in result.stderr
    assert not out.exists()


def test_a_key_that_others_may_read_is_refused_by_the_command(
    sealed: Path, key_file: Path, photo: Path, tmp_path: Path
) -> None:
    open_key = tmp_path / "open.key"
    open_key.write_text(key_file.read_text())
    open_key.chmod(0o644)
    result = unface("detect", photo, "--engines", sealed, "--engine-key-file", open_key)
    assert result.returncode == 2
    assert f"chmod 600 {open_key}" in result.stderr
