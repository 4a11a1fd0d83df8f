"""Audit records as users get them: from this process, from a server, from the command."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scenes import compose
from serving import serving

import unface
from unface import audit
from unface.anonymize import decode, encode
from unface.engines.shelf import read_shelf
from unface.errors import InvalidOption, ServerError
from unface.local import Local

pytest.importorskip("cryptography", reason="signatures come with unface[server]")
SCENE = compose(640, 400, [(40, 60, 80), (360, 90, 100)])
LEFT, RIGHT = SCENE.faces.tolist()
FILE = encode(SCENE.image, "jpeg")


def command(*arguments: object) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-m", "unface.command", *map(str, arguments)]
    return subprocess.run(line, capture_output=True, text=True, timeout=60)


@pytest.fixture(scope="module")
def key_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("keys") / "audit.key"
    assert command("audit", "new-key", path).returncode == 0
    return path


def checked(record: str, result: Any) -> dict[str, Any]:
    """Return what a record says once it is what was done."""
    told, signer = audit.verify(record.encode())
    assert signer is not None
    assert told["input"] == {"bytes": len(FILE), "sha256": hashlib.sha256(FILE).hexdigest()}
    assert told["output"]["sha256"] == hashlib.sha256(result.image).hexdigest()
    assert len(told["faces"]) == len(result.faces)
    assert len(told["kept"]) == len(result.kept) == 1
    assert told["cover"] == [[300, 20, 340, 50]]
    assert told["verification"]["clean"] is True
    certified = {c.id for c in read_shelf().certificates if c.passed}
    assert told["certificates"]
    assert set(told["certificates"]) <= certified
    files = {engine.sha256 for engine in read_shelf().engines}
    assert {engine["sha256"] for engine in told["engines"]} <= files
    return told


OPTIONS: dict[str, Any] = {
    "keep": [RIGHT],
    "cover": [(300, 20, 340, 50)],
    "verify": True,
    "audit": True,
}


def test_this_process_makes_a_signed_record(key_file: Path) -> None:
    local = Local(audit_key=audit.read_signing_key(key_file))
    result = local.anonymize_with_faces(FILE, **OPTIONS)
    local.close()
    told = checked(result.audit_record, result)
    assert told["request_id"] == ""
    assert (told["mask"]["method"], told["mask"]["cells"]) == ("mosaic", 5)


def test_a_server_signs_with_its_own_key(key_file: Path) -> None:
    flags = ("--audit-key-file", str(key_file))
    with serving(*flags) as server, unface.Client(server.target) as client:
        result = client.anonymize_with_faces(FILE, profile="fast", **OPTIONS)
        told = checked(result.audit_record, result)
        assert client.info().audit_signed
        assert told["request_id"] == result.faces.request_id  # type: ignore[attr-defined]
        assert told["detection"]["profile"] == "fast"
        assert {engine["precision"] for engine in told["engines"]} == {"fp32", "int8"}, (
            "INT8 found the faces, and FP32 searched the result"
        )
        assert client.anonymize_with_faces(FILE).audit_record == ""


def test_a_server_without_a_key_makes_records_that_are_not_signed(server: Any) -> None:
    with unface.Client(server.target) as client:
        result = client.anonymize_with_faces(FILE, cover=[LEFT], cover_only=True, audit=True)
    told, signer = audit.verify(result.audit_record.encode())
    assert signer is None
    assert told["detection"] is None
    assert told["faces"] == []


def test_who_stays_clear_by_the_callers_word_is_in_the_record(server: Any) -> None:
    """As from the page, which has searched before: a face left visible must not go unmentioned."""
    options: dict[str, Any] = {"cover": [LEFT], "keep": [RIGHT], "cover_only": True, "audit": True}
    with unface.Client(server.target) as client:
        looked = client.anonymize_with_faces(FILE, verify=0, **options)
        blind = client.anonymize_with_faces(FILE, **options)
    assert looked.verification is not None
    assert looked.verification.clean
    assert len(looked.kept) == 1
    told, _ = audit.verify(looked.audit_record.encode())
    assert (len(told["keep"]), len(told["kept"])) == (1, 1)
    told, _ = audit.verify(blind.audit_record.encode())
    assert (len(told["keep"]), len(told["kept"])) == (1, 0)


def test_a_server_does_not_start_without_the_key_it_was_given(tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.key"
    wrong.write_text("no key")
    wrong.chmod(0o600)
    line = [sys.executable, "-m", "unface.server", "--port", "0", "--http-port", "none"]
    for path in (wrong, tmp_path / "missing.key"):
        flags = ["--audit-key-file", str(path)]
        done = subprocess.run([*line, *flags], capture_output=True, text=True, timeout=60)
        assert done.returncode != 0
        assert str(path) in done.stderr
        assert "Traceback" not in done.stderr


def test_arrays_have_no_record(server: Any) -> None:
    with unface.Client(server.target) as client, pytest.raises(InvalidOption, match="for files"):
        client.anonymize(SCENE.image, audit=True)
    local = Local()
    with pytest.raises(InvalidOption, match="for files"):
        local.anonymize(SCENE.image, audit=True)
    local.close()


def test_an_answer_without_the_record_that_was_asked_for_is_an_error() -> None:
    """A server that knows nothing of records would pass over the question."""
    from unface.requests import anonymization
    from unface.v1 import unface_pb2 as pb

    answer = pb.AnonymizeResponse(width=8, height=8, image=pb.Image(encoded=b"x"))
    with pytest.raises(ServerError, match="too old for audit"):
        anonymization({"audit": True}, None).answer(answer, True)
    with pytest.raises(ServerError, match="too old for verify"):
        anonymization({"verify": True}, None).answer(answer, True)


def test_the_command_writes_records_that_verify(tmp_path: Path, key_file: Path) -> None:
    photos, out = tmp_path / "photos", tmp_path / "out"
    photos.mkdir()
    (photos / "a.jpg").write_bytes(FILE)
    (photos / "b.jpg").write_bytes(FILE)
    line = ("anonymize", photos, "-o", out, "--audit", "--audit-key", key_file)
    done = command(*line)
    assert done.returncode == 0, done.stderr
    records = sorted(out.glob("*.audit.json"))
    assert [path.name for path in records] == ["a.jpg.audit.json", "b.jpg.audit.json"]
    public = f"{key_file}.pub"
    done = command("audit", "verify", *records, "--key", public)
    assert done.returncode == 0, done.stderr
    pixels = decode((out / "b.jpg").read_bytes()).pixels.copy()
    pixels[0, 0] ^= 255
    (out / "b.jpg").write_bytes(encode(np.ascontiguousarray(pixels), "jpeg"))
    done = command("audit", "verify", *records, "--key", public)
    assert done.returncode == 1
    assert "b.jpg" in done.stderr
    (out / "a.jpg").unlink()
    done = command(*line)
    assert done.returncode == 1
    assert "a.jpg.audit.json exists already" in done.stderr
    assert not (out / "a.jpg").exists(), "nothing is done whose record cannot be written"


def test_a_key_without_a_record_is_wrong_usage(tmp_path: Path, key_file: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(FILE)
    done = command(
        "anonymize", tmp_path / "a.jpg", "-o", tmp_path / "b.jpg", "--audit-key", key_file
    )
    assert done.returncode == 2
    assert "--audit" in done.stderr
