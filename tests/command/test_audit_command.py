"""`unface audit` as a person types it: real files, real keys."""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unface.audit import fingerprint, read_public_key, read_signing_key, record_of, sealed
from unface.command import main

BEFORE, AFTER = bytes(range(256)) * 5, b"covered" * 1000
FACE = ((1.0, 2.0, 30.0, 40.0), 0.9)


class Photos:
    """A folder with keys, a picture before and after, and its record."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.before, self.after = folder / "before.jpg", folder / "after.jpg"
        self.key, self.public = folder / "audit.key", folder / "audit.key.pub"
        self.record = folder / "after.jpg.audit.json"
        self.before.write_bytes(BEFORE)
        self.after.write_bytes(AFTER)

    def write(self, *, signed: bool = True, **changes: Any) -> None:
        record = record_of(
            **{
                "input": BEFORE,
                "output": AFTER,
                "format": "jpeg",
                "width": 64,
                "height": 48,
                "detection": None,
                "mask": {"method": "solid", "shape": "ellipse", "margin": 0.1, "color": (0, 0, 0)},
                "faces": [FACE],
                **changes,
            }
        )
        self.record.write_text(sealed(record, read_signing_key(self.key) if signed else None))

    def verify(self, *arguments: object) -> int:
        return main(["audit", "verify", str(self.record), *map(str, arguments)])


@pytest.fixture
def photos(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Photos:
    made = Photos(tmp_path)
    assert main(["audit", "new-key", str(made.key)]) == 0
    made.write()
    capsys.readouterr()
    return made


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Photos:
    """The same, for tests that put back what they change."""
    made = Photos(tmp_path_factory.mktemp("shared"))
    assert main(["audit", "new-key", str(made.key)]) == 0
    made.write()
    return made


# --- keys -----------------------------------------------------------------------------------------


def test_a_new_key_is_its_owners_alone_and_its_public_key_is_for_everybody(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "audit.key"
    old = os.umask(0o022)
    try:
        assert main(["audit", "new-key", str(file)]) == 0
    finally:
        os.umask(old)
    public = tmp_path / "audit.key.pub"
    modes = [stat.S_IMODE(path.stat().st_mode) for path in (file, public)]
    assert modes == [0o600, 0o644]
    key = read_public_key(public)
    assert read_signing_key(file).public_key().public_bytes_raw() == key
    said = capsys.readouterr().out
    assert f"{public}: its public key" in said
    assert f"SHA-256 {fingerprint(key)}" in said
    assert b"PRIVATE" not in public.read_bytes()


@pytest.mark.parametrize("there", ["audit.key", "audit.key.pub"])
def test_no_key_is_ever_overwritten_and_none_is_left_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], there: str
) -> None:
    (tmp_path / there).write_text("mine")
    assert main(["audit", "new-key", str(tmp_path / "audit.key")]) == 2
    assert f"{there} exists; a key is never overwritten" in capsys.readouterr().err
    assert (tmp_path / there).read_text() == "mine"
    assert [path.name for path in tmp_path.iterdir()] == [there]


def test_a_link_to_nowhere_is_not_followed_to_write_a_key(tmp_path: Path) -> None:
    (tmp_path / "audit.key").symlink_to(tmp_path / "elsewhere")
    assert main(["audit", "new-key", str(tmp_path / "audit.key")]) == 2
    assert not (tmp_path / "elsewhere").exists()


def test_a_folder_that_is_not_there_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["audit", "new-key", str(tmp_path / "no" / "key")]) == 2
    assert "cannot be written: No such file" in capsys.readouterr().err


# --- records that are in order --------------------------------------------------------------------


def test_a_signed_record_beside_its_picture_is_good(
    photos: Photos, capsys: pytest.CaptureFixture[str]
) -> None:
    assert photos.verify("--key", photos.public) == 0
    said = capsys.readouterr()
    assert said.err == ""
    assert f"{photos.record}: good, signed with the key given; the output matches" in said.out
    assert "1 face covered (solid), NOT SEARCHED FOR FACES" in said.out
    assert photos.verify("--key", photos.public, "--input", photos.before) == 0
    assert "the input and output match" in capsys.readouterr().out


def test_without_a_key_it_is_said_that_nobody_vouches_for_the_one_that_signed(
    photos: Photos, capsys: pytest.CaptureFixture[str]
) -> None:
    assert photos.verify() == 0
    known_by = fingerprint(read_public_key(photos.public))
    assert f"a key nobody vouched for, SHA-256 {known_by}" in capsys.readouterr().out


def test_a_record_without_a_signature_passes_only_where_none_is_asked_for(
    photos: Photos, capsys: pytest.CaptureFixture[str]
) -> None:
    photos.write(signed=False)
    assert photos.verify() == 0
    assert "NOT SIGNED" in capsys.readouterr().out
    assert photos.verify("--key", photos.public) == 1
    said = capsys.readouterr()
    assert (said.out, said.err) == ("", f"unface: {photos.record}: it is not signed\n")


def test_the_picture_may_lie_elsewhere(photos: Photos, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    photos.after.rename(elsewhere)
    assert photos.verify("--output", elsewhere) == 0
    record = photos.record.rename(tmp_path / "record")
    assert main(["audit", "verify", str(record), "--output", str(elsewhere)]) == 0
    assert main(["audit", "verify", str(record)]) == 2  # whose is it?


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"faces": [FACE, FACE]}, "2 faces covered (solid)"),
        (
            {"mask": {"method": "box", "shape": "ellipse", "margin": 0}},
            "1 face FRAMED, NOT COVERED",
        ),
        ({"kept": [FACE], "cover": [FACE[0]] * 2}, "1 left clear, 2 places covered as told"),
        (
            {"verification": {"clean": True, "rounds": 0, "residual": [], "covered": []}},
            "result searched: no face",
        ),
        (
            {"verification": {"clean": False, "rounds": 0, "residual": [FACE], "covered": []}},
            "result searched: 1 FACE LEFT",
        ),
        (
            {
                "verification": {
                    "clean": True,
                    "rounds": 1,
                    "residual": [FACE] * 2,
                    "covered": [FACE],
                }
            },
            "1 more found in the result and covered, result searched: 2 FACES LEFT",
        ),
        (
            {
                "backend": "native",
                "precision": "int8",
                "engines": [{"network": "pnet", "precision": "int8", "sha256": "0" * 64}],
            },
            "native int8, NOT CERTIFIED",
        ),
    ],
)
def test_what_is_left_to_worry_about_is_said_aloud(
    photos: Photos, capsys: pytest.CaptureFixture[str], changes: dict[str, Any], said: str
) -> None:
    photos.write(**changes)
    assert photos.verify() == 0
    assert said in capsys.readouterr().out


# --- and those that are not -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "after.jpg: it cannot be read: No such file"),
        (AFTER[:-1], "it has 6999 bytes, and 7000 were recorded"),
        (AFTER + b"\0", "it has 7001 bytes"),
        (b"C" + AFTER[1:], "its SHA-256 is another"),
        (BEFORE, "it has 1280 bytes"),
        (b"", "it has 0 bytes"),
    ],
)
def test_another_picture_is_noticed(
    photos: Photos, capsys: pytest.CaptureFixture[str], content: bytes | None, message: str
) -> None:
    photos.after.unlink()
    if content is not None:
        photos.after.write_bytes(content)
    assert photos.verify("--key", photos.public) == 1
    said = capsys.readouterr()
    assert message in said.err
    assert said.out == ""


def test_all_pictures_that_do_not_match_are_named(
    photos: Photos, capsys: pytest.CaptureFixture[str]
) -> None:
    assert photos.verify("--input", photos.after, "--output", photos.before) == 1
    said = capsys.readouterr().err
    assert f"the input, {photos.after}: it has" in said
    assert f"the output, {photos.before}: it has" in said


@settings(max_examples=60)
@given(place=st.integers(0, len(AFTER) - 1), byte=st.integers(1, 255))
def test_every_changed_byte_of_a_picture_is_noticed(shared: Photos, place: int, byte: int) -> None:
    altered = bytearray(AFTER)
    altered[place] ^= byte
    shared.after.write_bytes(altered)
    assert shared.verify("--key", shared.public) == 1
    shared.after.write_bytes(AFTER)
    assert shared.verify("--key", shared.public) == 0


def test_the_record_of_another_picture_does_not_pass_for_this_ones(photos: Photos) -> None:
    photos.write(output=BEFORE)
    assert photos.verify("--key", photos.public) == 1


def test_a_link_a_folder_and_a_pipe_are_no_picture(
    photos: Photos, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    link, folder, pipe = tmp_path / "link", tmp_path / "folder", tmp_path / "pipe"
    link.symlink_to(photos.after)
    folder.mkdir()
    os.mkfifo(pipe)  # nobody writes: who reads it waits for ever
    for path, why in ((link, "symbolic link"), (folder, "no regular"), (pipe, "no regular")):
        assert photos.verify("--output", path) == 1
        assert why in capsys.readouterr().err
    assert photos.verify("--output", "/dev/zero") == 1
    for path in (link, folder, pipe):
        assert main(["audit", "verify", str(path), "--output", str(photos.after)]) == 1


def test_a_record_that_is_too_large_is_not_read_whole(
    photos: Photos, capsys: pytest.CaptureFixture[str]
) -> None:
    with photos.record.open("ab") as stream:
        stream.truncate(1 << 33)  # 8 GiB of nothing
    assert photos.verify() == 1
    assert "more than 4194304 bytes" in capsys.readouterr().err
    photos.write()
    text = photos.record.read_text()
    photos.record.write_text(text + " " * ((4 << 20) - len(text)))
    assert photos.verify() == 0


def test_a_picture_of_another_size_is_not_read_at_all(photos: Photos) -> None:
    with photos.after.open("ab") as stream:
        stream.truncate(1 << 33)
    assert photos.verify() == 1


def test_one_bad_record_among_many_fails_all_and_the_others_are_told(
    photos: Photos, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "other.jpg"
    shutil.copy(photos.after, other)
    record = tmp_path / "other.jpg.audit.json"
    record.write_text(photos.record.read_text().replace("0.9", "0.8"))
    names = [str(record), str(tmp_path / "nowhere.audit.json"), str(photos.record)]
    assert main(["audit", "verify", *names, "--key", str(photos.public)]) == 1
    said = capsys.readouterr()
    assert f"{record}: the signature does not fit" in said.err
    assert "nowhere.audit.json: it cannot be read" in said.err
    assert f"{photos.record}: good" in said.out


def test_a_wrong_use_is_explained(
    photos: Photos, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    two = ["audit", "verify", str(photos.record), str(photos.record)]
    assert main([*two, "--output", str(photos.after)]) == 2
    assert "--input and --output are of one record; there are 2" in capsys.readouterr().err
    assert photos.verify("--key", photos.key) == 2  # the private one
    assert "no public key" in capsys.readouterr().err
    assert photos.verify("--key", tmp_path / "nowhere") == 2
    for name in (".audit.json", "photo.json"):
        assert main(["audit", "verify", str(tmp_path / name)]) == 2
        assert "say with --output where its picture lies" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="2"):
        main(["audit", "verify"])


# --- for programs, and for terminals --------------------------------------------------------------


def test_json_tells_all_in_a_line_for_each_record(
    photos: Photos, capsys: pytest.CaptureFixture[str]
) -> None:
    assert photos.verify("--json", "--key", photos.public) == 0
    told = json.loads(capsys.readouterr().out)
    assert told.pop("audit") == json.loads(photos.record.read_text())["record"]
    assert told == {
        "record": str(photos.record),
        "good": True,
        "problems": [],
        "compared": ["output"],
        "signed": True,
        "vouched": True,
        "fingerprint": fingerprint(read_public_key(photos.public)),
    }
    photos.write(signed=False)
    assert photos.verify("--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["signed"], told["vouched"], told["fingerprint"]) == (False, False, None)
    photos.after.write_bytes(b"")
    assert photos.verify("--json") == 1
    told = json.loads(capsys.readouterr().out)
    assert (told["good"], told["compared"], len(told["problems"])) == (False, [], 1)
    photos.record.write_bytes(b"\xff")
    assert photos.verify("--json") == 1
    said = capsys.readouterr()
    assert json.loads(said.out)["audit"] is None
    assert said.err == ""


@pytest.mark.parametrize("options", [[], ["--json"]])
def test_nothing_of_a_record_or_a_name_reaches_a_terminal_that_it_would_act_on(
    tmp_path: Path, options: list[str]
) -> None:
    hostile = "\x1b]0;mine\x07\r\x9b31m\u202egnp\n"
    content = json.dumps({"record": {hostile: hostile, "unface_audit": hostile}, hostile: hostile})
    others = [
        content.encode(),
        content.replace(f'"{json.dumps(hostile)[1:-1]}"', "1", 1).encode(),
        f'{{"{hostile}'.encode(),
        hostile.encode("utf-16"),
    ]
    records = []
    for number, data in enumerate(others):
        path = tmp_path / f"{number}{hostile}\udcff.audit.json"
        path.write_bytes(data)
        records.append(path)
    command = [sys.executable, "-m", "unface.command", "audit", "verify", *records, *options]
    result = subprocess.run(command, capture_output=True, timeout=60)
    assert result.returncode == 1
    for stream in (result.stdout, result.stderr):
        for line in stream.decode().splitlines():
            assert line.isprintable(), line
    assert len((result.stdout if options else result.stderr).splitlines()) == len(others)
