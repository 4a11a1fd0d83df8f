from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from base64 import b64decode, b64encode
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cryptography.hazmat.primitives import serialization as form
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, x25519
from hypothesis import given, settings
from hypothesis import strategies as st

from unface.audit import (
    MOST_BOXES,
    MOST_BYTES,
    AuditError,
    fingerprint,
    json_sha256,
    new_keys,
    read_public_key,
    read_signing_key,
    record_of,
    sealed,
    verify,
)
from unface.canonical_json import canonical
from unface.errors import InvalidOption

KEY = ed25519.Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
PUBLIC = KEY.public_key().public_bytes_raw()
OTHER = ed25519.Ed25519PrivateKey.from_private_bytes(bytes(32)).public_key().public_bytes_raw()
HASH = "0123456789abcdef" * 4
MASK = {
    "method": "mosaic",
    "shape": "ellipse",
    "margin": 0.1,
    "cells": 5,
    "kernel": 0.6,
    "color": (1, 2, 3),
}
DETECTION = {
    "profile": "accurate",
    "min_face": 20.0,
    "scale_factor": 0.709,
    "thresholds": (0.6, 0.7, 0.7),
    "precision": None,
}
FACE = ((10.123, 20.456, 30.999, 41.0), 0.9876543)
WHOLE: dict[str, Any] = {
    "input": b"before",
    "output": b"after",
    "format": "jpeg",
    "width": 640,
    "height": 480,
    "detection": DETECTION,
    "mask": MASK,
    "faces": [FACE, ((0, 0, 5, 5), 0.7)],
    "kept": [FACE],
    "keep": [(1, 2, 3.004, 4)],
    "cover": [(-3.0, 1.0, 2.005, 1e9)],
    "verification": {"clean": False, "rounds": 2, "residual": [FACE], "covered": [FACE, FACE]},
    "backend": "native",
    "precision": "fp32",
    "engines": [{"network": "pnet", "precision": "fp32", "sha256": HASH}],
    "certificates": [HASH[::-1]],
    "request_id": "a-1",
    "time": datetime(2026, 11, 21, 20, 30, tzinfo=timezone.utc),
}
SIGNED = sealed(record_of(**WHOLE), KEY).encode()
UNSIGNED = sealed(record_of(**WHOLE)).encode()


# --- what is in a record --------------------------------------------------------------------------


def test_a_record_says_what_was_done() -> None:
    assert verify(SIGNED).record == {
        "unface_audit": 1,
        "version": "0.1.0",
        "time": "2026-11-21T20:30:00Z",
        "request_id": "a-1",
        "input": {"sha256": sha256(b"before").hexdigest(), "bytes": 6},
        "output": {
            "sha256": sha256(b"after").hexdigest(),
            "bytes": 5,
            "format": "jpeg",
            "width": 640,
            "height": 480,
        },
        "detection": {
            "profile": "accurate",
            "min_face": 20,
            "scale_factor": 0.709,
            "thresholds": [0.6, 0.7, 0.7],
            "precision": None,
        },
        "faces": [
            {"box": [10.12, 20.46, 31, 41], "score": 0.98765},
            {"box": [0, 0, 5, 5], "score": 0.7},
        ],
        "kept": [{"box": [10.12, 20.46, 31, 41], "score": 0.98765}],
        "keep": [[1, 2, 3, 4]],
        "cover": [[-3, 1, 2, 1e9]],
        "mask": {"method": "mosaic", "shape": "ellipse", "margin": 0.1, "cells": 5},
        "verification": {
            "clean": False,
            "residual": [{"box": [10.12, 20.46, 31, 41], "score": 0.98765}],
            "rounds": 2,
            "covered": [{"box": [10.12, 20.46, 31, 41], "score": 0.98765}] * 2,
        },
        "backend": "native",
        "precision": "fp32",
        "engines": [{"network": "pnet", "precision": "fp32", "sha256": HASH}],
        "certificates": [HASH[::-1]],
    }


@pytest.mark.parametrize(
    ("method", "more"),
    [
        ("mosaic", {"cells": 5}),
        ("blur", {"kernel": 0.6}),
        ("solid", {"color": [1, 2, 3]}),
        ("box", {}),
    ],
)
def test_a_mask_is_told_by_the_options_that_its_method_has(
    method: str, more: dict[str, Any]
) -> None:
    record = record_of(**{**WHOLE, "mask": {**MASK, "method": method}})
    expected = {"method": method, "shape": "ellipse", "margin": 0.1, **more}
    assert verify(sealed(record).encode()).record["mask"] == expected


def test_where_nothing_was_searched_for_a_record_says_so() -> None:
    nothing = {"detection": None, "verification": None, "faces": [], "engines": []}
    record = verify(sealed(record_of(**{**WHOLE, **nothing})).encode()).record
    assert (record["detection"], record["verification"], record["faces"]) == (None, None, [])


@pytest.mark.parametrize(
    "data",
    [
        b"bytes",
        bytearray(b"bytes"),
        memoryview(b"bytes"),
        np.frombuffer(b"bytesbytesby", np.uint8).reshape(2, 2, 3),
    ],
)
def test_pictures_may_be_bytes_or_pixels(data: Any) -> None:
    record = record_of(**{**WHOLE, "input": data, "output": data, "format": "raw"})
    told = {"sha256": sha256(bytes(memoryview(data).cast("B"))).hexdigest()}
    told |= {"bytes": memoryview(data).nbytes}
    assert record["input"] == told
    assert record["output"].items() >= told.items()


def test_numbers_of_numpy_are_numbers() -> None:
    mask = {**MASK, "margin": np.float32(0.5), "cells": np.int64(5), "method": "mosaic"}
    color = {**MASK, "method": "solid", "color": [np.uint8(1), 2, 3]}
    boxes = np.array([[1, 2, 3, 4]], np.float32)
    for chosen in (mask, color):
        record = record_of(
            **{**WHOLE, "mask": chosen, "faces": [(boxes[0], np.float32(0.7))], "cover": boxes}
        )
        assert verify(sealed(record, KEY).encode()).record == json.loads(canonical(record))
        assert record["faces"] == [{"box": [1, 2, 3, 4], "score": 0.7}]


def test_time_is_utc_and_now_unless_told() -> None:
    east = timezone(timedelta(hours=8))
    record = record_of(**{**WHOLE, "time": datetime(2027, 1, 1, 1, 2, 3, tzinfo=east)})
    assert record["time"] == "2026-12-31T17:02:03Z"
    before = datetime.now(timezone.utc).replace(microsecond=0)
    record = record_of(**{**WHOLE, "time": None})
    said = datetime.strptime(record["time"], "%Y-%m-%dT%H:%M:%S%z")
    assert before <= said <= datetime.now(timezone.utc)


def test_the_text_is_for_people_and_its_numbers_are_those_that_are_signed() -> None:
    lines = SIGNED.decode().splitlines()
    assert f'  "input": {{"bytes":6,"sha256":"{sha256(b"before").hexdigest()}"}},' in lines
    assert '   {"box":[10.12,20.46,31,41],"score":0.98765},' in lines
    assert max(map(len, lines)) < 300
    assert SIGNED.endswith(b"}\n")


@pytest.mark.parametrize(
    "change",
    [
        {"faces": [((0, 0, float("nan"), 1), 0.5)]},
        {"faces": [((5, 0, 1, 1), 0.5)]},
        {"kept": [((0, 0, 1, 1), 1.5)]},
        {"cover": [(0, 0, 1)]},
        {"certificates": ["abc"]},
        {"request_id": "a b"},
        {"format": "gif"},
        {"backend": "a\nb"},
        {"width": -1},
    ],
)
def test_a_record_that_could_not_be_verified_is_not_made(change: dict[str, Any]) -> None:
    with pytest.raises(AuditError, match="no audit record of this: record"):
        sealed(record_of(**{**WHOLE, **change}), KEY)


def test_a_record_of_too_much_is_not_made_and_the_largest_can_be_read() -> None:
    widest = ((-123456.78, -123456.78, 123456.78, 123456.78), 0.12345)
    line = sealed(record_of(**{**WHOLE, "faces": [widest] * 9})).splitlines()[10]
    assert line.startswith('   {"box":[-123456.78,')
    assert (len(line) + 1) * MOST_BOXES + 10_000 < MOST_BYTES
    many = {"faces": [FACE] * (MOST_BOXES - 5), "kept": [FACE] * 6, "verification": None}
    with pytest.raises(InvalidOption, match="at most 40000, leave audit out"):
        sealed(record_of(**{**WHOLE, **many, "cover": []}), KEY)
    checked = {"clean": False, "rounds": 0, "residual": [FACE] * MOST_BOXES, "covered": []}
    with pytest.raises(InvalidOption, match="leave audit out"):
        sealed(record_of(**{**WHOLE, "verification": checked}), KEY)


# --- what is noticed ------------------------------------------------------------------------------


def test_whoever_signed_is_told_and_may_be_asked_for() -> None:
    assert verify(SIGNED).signer == verify(SIGNED, PUBLIC).signer == PUBLIC
    assert verify(UNSIGNED).signer is None
    assert verify(UNSIGNED).record == verify(SIGNED).record
    with pytest.raises(AuditError, match=f"by another key, SHA-256 {fingerprint(PUBLIC)}"):
        verify(SIGNED, OTHER)
    with pytest.raises(AuditError, match="not signed"):
        verify(UNSIGNED, PUBLIC)


def test_a_signature_by_another_key_under_the_name_of_the_right_one_does_not_fit() -> None:
    other = ed25519.Ed25519PrivateKey.from_private_bytes(bytes(32))
    fake = json.loads(sealed(record_of(**WHOLE), other))
    fake["signature"]["public_key"] = b64encode(PUBLIC).decode()
    with pytest.raises(AuditError, match="does not fit"):
        verify(json.dumps(fake).encode(), PUBLIC)


@settings(max_examples=1000)
@given(st.integers(0, len(SIGNED) - 1), st.integers(0, 255))
def test_every_changed_byte_is_noticed_unless_it_says_the_same(place: int, byte: int) -> None:
    """The same is said with another space between tokens, and with nothing else that is found."""
    altered = bytearray(SIGNED)
    altered[place] = byte
    try:
        found = verify(bytes(altered), PUBLIC)
    except AuditError:
        return
    assert canonical(found.record) == canonical(verify(SIGNED).record)
    assert bytes(altered).translate(None, b" \t\r\n") == SIGNED.translate(None, b" \t\r\n")


@given(st.data())
def test_every_cut_and_every_added_byte_is_noticed(data: st.DataObject) -> None:
    cut = data.draw(st.integers(0, len(SIGNED) - 2))
    with pytest.raises(AuditError):
        verify(SIGNED[:cut], PUBLIC)
    place, more = data.draw(st.integers(0, len(SIGNED))), data.draw(st.binary(min_size=1))
    try:
        found = verify(SIGNED[:place] + more + SIGNED[place:], PUBLIC)
    except AuditError:
        return
    assert canonical(found.record) == canonical(verify(SIGNED).record)


@given(st.binary())
def test_rubbish_is_an_error_and_nothing_else(data: bytes) -> None:
    with pytest.raises(AuditError):
        verify(data)


def test_a_file_too_large_for_a_record_is_not_parsed() -> None:
    assert verify(SIGNED.ljust(MOST_BYTES), PUBLIC).signer == PUBLIC
    with pytest.raises(AuditError, match="more than 4194304 bytes"):
        verify(SIGNED.ljust(MOST_BYTES + 1), PUBLIC)


def test_another_layout_is_the_same_record() -> None:
    whole = json.loads(SIGNED)
    for text in (
        json.dumps(whole),
        json.dumps(whole, indent=4, sort_keys=True),
        json.dumps(dict(reversed(whole.items()))),
        json.dumps(whole).replace('"jpeg"', '"\\u006a\\u0070eg"').replace("0.709", "7.09e-1"),
    ):
        assert verify(text.encode(), PUBLIC) == verify(SIGNED, PUBLIC)


Change = Callable[[dict[str, Any]], Any]


def setting(*path: Any, value: Any) -> Change:
    def change(whole: dict[str, Any]) -> None:
        for step in path[:-1]:
            whole = whole[step]
        whole[path[-1]] = value

    return change


ALTERATIONS: dict[str, Change] = {
    "another version": setting("record", "unface_audit", value=2),
    "a version that is true": setting("record", "unface_audit", value=True),
    "version 1.0": setting("record", "unface_audit", value="1"),
    "no version": lambda w: w["record"].pop("unface_audit"),
    "no input": lambda w: w["record"].pop("input"),
    "no kept": lambda w: w["record"].pop("kept"),
    "no word of a signature": lambda w: w.pop("signature"),
    "no record": lambda w: w.pop("record"),
    "a list for a record": setting("record", value=[]),
    "null for a record": setting("record", value=None),
    "a field more": setting("record", "camera", value="x"),
    "a field more in the output": setting("record", "output", "name", value="me.jpg"),
    "a field more outside": setting("more", value=1),
    "a mask of two methods": setting("record", "mask", "kernel", value=0.5),
    "a mask of no method": setting("record", "mask", "method", value="none"),
    "a mask of a list of methods": setting("record", "mask", "method", value=["solid"]),
    "a mask without cells": lambda w: w["record"]["mask"].pop("cells"),
    "no mask": setting("record", "mask", value=None),
    "a short hash": setting("record", "input", "sha256", value="ab"),
    "a hash in capitals": setting("record", "input", "sha256", value=HASH.upper()),
    "a hash and a line": setting("record", "input", "sha256", value=HASH + "\n"),
    "half a byte": setting("record", "input", "bytes", value=0.5),
    "true bytes": setting("record", "input", "bytes", value=True),
    "negative bytes": setting("record", "output", "bytes", value=-1),
    "a box of five": setting("record", "faces", 0, "box", value=[0, 0, 1, 1, 1]),
    "a box of words": setting("record", "faces", 0, "box", value=["0", 0, 1, 1]),
    "a box turned over": setting("record", "cover", 0, value=[9, 0, 1, 1]),
    "a box of true": setting("record", "cover", 0, value=[False, False, True, True]),
    "faces that are an object": setting("record", "faces", value={}),
    "a score of two": setting("record", "faces", 0, "score", value=2),
    "no score": lambda w: w["record"]["faces"][0].pop("score"),
    "two thresholds": setting("record", "detection", "thresholds", value=[0.1, 0.2]),
    "a clean of one": setting("record", "verification", "clean", value=1),
    "rounds in part": setting("record", "verification", "rounds", value=1.5),
    "a date of no month": setting("record", "time", value="2026-13-01T00:00:00Z"),
    "a time elsewhere": setting("record", "time", value="2026-11-21T20:30:00+08:00"),
    "a terminal's colours": setting("record", "backend", value="\x1b[31m"),
    "a bidi mark": setting("record", "request_id", value="\u202egnp"),
    "a long word": setting("record", "precision", value="x" * 65),
    "null for a word": setting("record", "precision", value=None),
}
SIGNATURES: dict[str, Change] = {
    "a field more in the signature": setting("signature", "time", value=1),
    "another algorithm": setting("signature", "algorithm", value="none"),
    "no algorithm": lambda w: w["signature"].pop("algorithm"),
    "an empty key": setting("signature", "public_key", value=""),
    "a short key": setting("signature", "public_key", value=b64encode(bytes(31)).decode()),
    "a key of no use": setting("signature", "public_key", value=b64encode(bytes(32)).decode()),
    "a long signature": setting("signature", "value", value=b64encode(bytes(65)).decode()),
    "a signature of nothing": setting("signature", "value", value=b64encode(bytes(64)).decode()),
    "a signature that is a number": setting("signature", "value", value=1),
    "an empty signature": setting("signature", value={}),
    "a false signature": setting("signature", value=False),
}


def text_of(whole: dict[str, Any]) -> bytes:
    return json.dumps(whole).encode()


def signed_again(whole: dict[str, Any]) -> bytes:
    """Return a record as who has the key, and other ideas of what is in a record, would sign it."""
    value = b64encode(KEY.sign(canonical(whole["record"]))).decode()
    public = b64encode(PUBLIC).decode()
    signature = {"algorithm": "Ed25519", "public_key": public, "value": value}
    return text_of({**whole, "signature": signature})


def refusal(data: bytes, key: bytes | None = None) -> str:
    with pytest.raises(AuditError) as error:
        verify(data, key)
    message = str(error.value)
    assert message.isprintable()
    assert len(message) < 250
    return message


@pytest.mark.parametrize("alteration", ALTERATIONS)
def test_whatever_does_not_belong_into_a_record_is_refused(alteration: str) -> None:
    whole = json.loads(UNSIGNED)
    ALTERATIONS[alteration](whole)
    refusal(text_of(whole))
    if "record" in whole and "signature" in whole:
        assert "signature" not in refusal(signed_again(whole), PUBLIC)


@pytest.mark.parametrize("alteration", SIGNATURES)
@pytest.mark.parametrize("key", [None, PUBLIC])
def test_whatever_is_no_signature_is_refused(alteration: str, key: bytes | None) -> None:
    whole = json.loads(SIGNED)
    SIGNATURES[alteration](whole)
    assert "signature" in refusal(text_of(whole), key)


def test_another_spelling_of_a_signature_in_base64_is_refused() -> None:
    whole = json.loads(SIGNED)
    for field, spelled in whole["signature"].items():
        if field == "algorithm":
            continue
        last = spelled.rstrip("=")[-1]
        other = chr(ord(last) + 1) if last.isalnum() else "B"  # bits that nobody reads
        twin = spelled.rstrip("=")[:-1] + other + "=" * spelled.count("=")
        for text in (twin, spelled.rstrip("="), spelled + "=", spelled[:8] + "\n" + spelled[8:]):
            altered = {**whole, "signature": {**whole["signature"], field: text}}
            assert f"signature.{field}" in refusal(text_of(altered), PUBLIC)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b'"score":0.7', b'"score":NaN'),
        (b'"score":0.7', b'"score":-Infinity'),
        (b'"score":0.7', b'"score":1e999'),
        (b'"score":0.7', b'"score":0.7,"score":0.7'),
        (b'"kept"', b'"faces"'),
        (b'"kept"', b'"kept": [], "kept"'),
        (b'"signature"', b'"signature": null, "signature"'),
        (b'"jpeg"', b'"jp\xffeg"'),
        (b'"native"', b'"nati\\ud800ve"'),
    ],
)
def test_what_json_may_not_hold_or_hold_twice_is_refused(old: bytes, new: bytes) -> None:
    for data, key in ((SIGNED, PUBLIC), (SIGNED, None), (UNSIGNED, None)):
        assert old in data
        assert "altered after" not in refusal(data.replace(old, new, 1), key)


# --- by others' tools -----------------------------------------------------------------------------


def openssl(*arguments: object) -> subprocess.CompletedProcess[bytes]:
    if shutil.which("openssl") is None:
        pytest.skip("there is no openssl here")
    return subprocess.run(["openssl", *map(str, arguments)], capture_output=True, check=False)


def test_openssl_agrees_on_the_signature_and_on_the_fingerprint(tmp_path: Path) -> None:
    private, public = new_keys()
    for name, data in (("key", private), ("key.pub", public)):
        (tmp_path / name).write_bytes(data)
    (tmp_path / "key").chmod(0o600)
    whole = json.loads(sealed(record_of(**WHOLE), read_signing_key(tmp_path / "key")))
    # As docs/audit.md has it: Python's own JSON is canonical for what is in this record.
    message = json.dumps(
        whole["record"], sort_keys=True, separators=(",", ":"), ensure_ascii=False
    ).encode()
    (tmp_path / "signature").write_bytes(b64decode(whole["signature"]["value"]))
    verifying = ["pkeyutl", "-verify", "-rawin", "-pubin", "-inkey", tmp_path / "key.pub"]
    verifying += ["-sigfile", tmp_path / "signature", "-in", tmp_path / "message"]
    (tmp_path / "message").write_bytes(message)
    assert b"Verified Successfully" in openssl(*verifying).stdout
    (tmp_path / "message").write_bytes(message.replace(b"0.7", b"0.8"))
    assert openssl(*verifying).returncode != 0
    der = openssl("pkey", "-pubin", "-in", tmp_path / "key.pub", "-outform", "DER").stdout
    known_by = fingerprint(read_public_key(tmp_path / "key.pub"))
    assert sha256(der).hexdigest() == known_by


def test_keys_that_openssl_makes_are_taken(tmp_path: Path) -> None:
    key, public = tmp_path / "key", tmp_path / "key.pub"
    assert openssl("genpkey", "-algorithm", "ed25519", "-out", key).returncode == 0
    assert openssl("pkey", "-in", key, "-pubout", "-out", public).returncode == 0
    data = sealed(record_of(**WHOLE), read_signing_key(key)).encode()
    assert verify(data, read_public_key(public)).signer == read_public_key(public)


@pytest.mark.skipif(shutil.which("node") is None, reason="there is no node here")
def test_a_browsers_json_is_canonical_but_for_the_order_of_names() -> None:
    script = """
        const sorted = (value) => Array.isArray(value) ? value.map(sorted)
            : value && typeof value === "object" ? Object.fromEntries(
                Object.keys(value).sort().map((name) => [name, sorted(value[name])])) : value;
        const text = require("fs").readFileSync(0, "utf8");
        process.stdout.write(JSON.stringify(sorted(JSON.parse(text).record)));
    """
    said = subprocess.run(["node", "-e", script], input=SIGNED, capture_output=True, check=True)
    assert said.stdout == canonical(verify(SIGNED).record)


def test_the_id_of_what_json_says_is_the_hash_of_its_canonical_form() -> None:
    assert json_sha256({"b": 2.0, "a": "é"}) == sha256('{"a":"é","b":2}'.encode()).hexdigest()


# --- keys -----------------------------------------------------------------------------------------


def pem_of(key: Any, *, passphrase: bytes = b"") -> bytes:
    hidden = form.BestAvailableEncryption(passphrase) if passphrase else form.NoEncryption()
    data: bytes = key.private_bytes(form.Encoding.PEM, form.PrivateFormat.PKCS8, hidden)
    return data


def public_pem_of(key: Any) -> bytes:
    data: bytes = key.public_key().public_bytes(
        form.Encoding.PEM, form.PublicFormat.SubjectPublicKeyInfo
    )
    return data


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"-----BEGIN PRIVATE KEY-----\n",
        bytes(32),
        public_pem_of(KEY),
        pem_of(x25519.X25519PrivateKey.generate()),
        pem_of(ec.generate_private_key(ec.SECP256R1())),
        pem_of(KEY, passphrase=b"secret"),
    ],
)
def test_what_is_no_private_key_for_signing_is_refused(tmp_path: Path, data: bytes) -> None:
    file = tmp_path / "key"
    file.write_bytes(data)
    file.chmod(0o600)
    with pytest.raises(
        InvalidOption, match="no private key: an Ed25519 key in PEM, without a pass"
    ):
        read_signing_key(file)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        PUBLIC,
        pem_of(KEY),
        public_pem_of(x25519.X25519PrivateKey.generate()),
        public_pem_of(ec.generate_private_key(ec.SECP256R1())),
    ],
)
def test_what_is_no_public_key_for_verifying_is_refused(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "key.pub").write_bytes(data)
    with pytest.raises(InvalidOption, match="no public key"):
        read_public_key(tmp_path / "key.pub")


def test_a_private_key_that_others_may_read_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_bytes(new_keys()[0])
    file.chmod(0o644)
    with pytest.raises(InvalidOption, match="chmod 600"):
        read_signing_key(file)


@pytest.mark.parametrize("read", [read_signing_key, read_public_key])
def test_a_key_file_that_cannot_be_read_is_named(
    tmp_path: Path, read: Callable[[Path], object]
) -> None:
    for path in (tmp_path / "nowhere", tmp_path):
        with pytest.raises(InvalidOption, match=re.escape(f"{path} cannot be read: ")):
            read(path)


def run_without(library: str, code: str) -> str:
    begin = f"import sys; sys.modules[{library!r}] = None\n"
    said = subprocess.run(
        [sys.executable, "-c", begin + code], capture_output=True, text=True, check=True
    )
    return said.stdout


def test_without_cryptography_the_extra_is_named_and_what_is_not_signed_can_be_checked(
    tmp_path: Path,
) -> None:
    (tmp_path / "signed").write_bytes(SIGNED)
    (tmp_path / "unsigned").write_bytes(UNSIGNED)
    said = run_without(
        "cryptography",
        "from pathlib import Path\nfrom unface import audit\n"
        "from unface.errors import InvalidOption\n"
        f"folder = Path({os.fspath(tmp_path)!r})\n"
        "print(audit.verify((folder / 'unsigned').read_bytes()).signer)\n"
        "for call in (lambda: audit.verify((folder / 'signed').read_bytes()), audit.new_keys,\n"
        "             lambda: audit.read_signing_key('k'), lambda: audit.read_public_key('k')):\n"
        "    try: call()\n    except InvalidOption as error: print(error)\n",
    )
    first, *others = said.splitlines()
    assert first == "None"
    assert others == ["signatures need unface[server]: pip install 'unface[server]'"] * 4


def test_importing_audit_loads_no_library() -> None:
    said = run_without(
        "nothing", "import unface.audit\nprint({'cryptography', 'numpy'} & {*sys.modules})"
    )
    assert said.strip() == "set()"
