"""Audit records: what was done to a picture, as JSON beside it, signed if there is a key.

    {"record": {...}, "signature": null or {"algorithm", "public_key", "value"}}

The signature is Ed25519 (RFC 8032) over the canonical JSON of "record" (RFC 8785), so that layout
does not matter. Coordinates are rounded to 2 decimals and scores to 5 when a record is made. What
may be in it is said in `unface.audit_form`: no pixels, file names or callers. docs/audit.md says
what a record proves.

This module imports no room and every room may import it.
"""

from __future__ import annotations

import hashlib
import os
from base64 import b64decode, b64encode
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timezone
from functools import cache
from importlib.metadata import version
from numbers import Integral
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from unface.audit_form import (
    ALGORITHM,
    DETECTION_FIELDS,
    ENGINE_FIELDS,
    MASK_FIELDS,
    TIME_FORMAT,
    VERSION,
    check_file,
    check_record,
)
from unface.canonical_json import canonical, parse
from unface.errors import InvalidOption, UnfaceError
from unface.sealing import read_secret

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

MOST_KEY_BYTES = 64 << 10  # of a file with a public key
MOST_BYTES = 4 << 20  # of a file with a record
MOST_BOXES = 40_000  # in a record: 80 bytes each at most
_SPKI = bytes.fromhex("302a300506032b6570032100")  # RFC 8410, section 4: what comes before the key
_BOX_DECIMALS, _SCORE_DECIMALS = 2, 5

Buffer = bytes | bytearray | memoryview
SigningKey: TypeAlias = "Ed25519PrivateKey"  # for annotations where that may not be imported
Found = tuple[Sequence[float], float]  # a box, x1 y1 x2 y2 in pixels, and its score


class AuditError(UnfaceError):
    """An audit record is not what it should be: altered, cut short, or signed by another."""


class Verified(NamedTuple):
    """A record that is in order, and the public key that signed it: 32 bytes, None if unsigned."""

    record: dict[str, Any]
    signer: bytes | None


# Making ---------------------------------------------------------------------------------------


def record_of(
    *,
    input: Buffer,
    output: Buffer,
    format: str,
    width: int,
    height: int,
    detection: Mapping[str, Any] | None,
    mask: Mapping[str, Any],
    faces: Iterable[Found] = (),
    kept: Iterable[Found] = (),
    keep: Iterable[Sequence[float]] = (),
    cover: Iterable[Sequence[float]] = (),
    verification: Mapping[str, Any] | None = None,
    backend: str = "",
    precision: str = "",
    engines: Iterable[Mapping[str, str]] = (),
    certificates: Iterable[str] = (),
    request_id: str = "",
    time: datetime | None = None,
) -> dict[str, Any]:
    """Return what goes into "record".

    `input` and `output` are files, or raw pixels, C-contiguous, with `format` "raw". `detection` is
    None where nothing was searched for, else profile, min_face, scale_factor, thresholds and
    precision (of the engines asked for, or None); `mask` the fields of
    `unface.anonymize.MaskOptions`; `verification` clean, rounds, residual and covered, both in
    pairs as `faces` and `kept`; each of `engines` network, precision and sha256. `time` is now if
    None.
    """
    if verification is not None:
        found = {name: _faces(verification[name]) for name in ("residual", "covered")}
        verification = {"clean": verification["clean"], "rounds": verification["rounds"], **found}
    if detection is not None:
        detection = {name: _plain(detection[name]) for name in DETECTION_FIELDS}
    mask_fields = ("method", "shape", "margin", *MASK_FIELDS[mask["method"]])
    when = datetime.now(timezone.utc) if time is None else time.astimezone(timezone.utc)
    return {
        "unface_audit": VERSION,
        "version": _own_version(),
        "time": when.strftime(TIME_FORMAT),
        "request_id": request_id,
        "input": _digest(input),
        "output": {**_digest(output), "format": format, "width": width, "height": height},
        "detection": detection,
        "faces": _faces(faces),
        "kept": _faces(kept),
        "keep": [_box(box) for box in keep],
        "cover": [_box(box) for box in cover],
        "mask": {name: _plain(mask[name]) for name in mask_fields},
        "verification": verification,
        "backend": backend,
        "precision": precision,
        "engines": [{name: engine[name] for name in ENGINE_FIELDS} for engine in engines],
        "certificates": list(certificates),
    }


def sealed(record: Mapping[str, Any], key: SigningKey | None = None) -> str:
    """Return a record as JSON for a file, signed if there is a key.

    Raises `InvalidOption` for more than `MOST_BOXES`, `AuditError` for what else `verify` refuses.
    """
    found = record["verification"] or {}
    lists = [record[name] for name in ("faces", "kept", "cover")] + [*found.values()]
    if (boxes := sum(len(boxes) for boxes in lists if isinstance(boxes, list))) > MOST_BOXES:
        raise InvalidOption(
            f"audit is asked for where there are {boxes} boxes to tell of; a record has at most "
            f"{MOST_BOXES}, leave audit out"
        )
    try:
        check_record(record)
    except ValueError as error:
        raise AuditError(f"there is no audit record of this: {error}") from error
    signature = None
    if key is not None:
        signature = {
            "algorithm": ALGORITHM,
            "public_key": b64encode(key.public_key().public_bytes_raw()).decode(),
            "value": b64encode(key.sign(canonical(record))).decode(),
        }
    fields = ",\n".join(f'  "{name}": {_laid_out(value)}' for name, value in record.items())
    last = canonical(signature).decode()
    return f'{{\n "record": {{\n{fields}\n }},\n "signature": {last}\n}}\n'


def json_sha256(value: Any) -> str:
    """Return the SHA-256, in hex, of canonical JSON: the id of an engine certificate."""
    return hashlib.sha256(canonical(value)).hexdigest()


def _laid_out(value: Any) -> str:
    """Return a field's value: what is a list of faces, boxes or hashes, with a line for each."""
    if isinstance(value, list) and value:
        return "[\n" + ",\n".join(f"   {canonical(item).decode()}" for item in value) + "\n  ]"
    return canonical(value).decode()


def _digest(data: Buffer) -> dict[str, Any]:
    return {"sha256": hashlib.sha256(data).hexdigest(), "bytes": memoryview(data).nbytes}


def _faces(pairs: Iterable[Found]) -> list[dict[str, Any]]:
    return [
        {"box": _box(box), "score": round(float(score), _SCORE_DECIMALS)} for box, score in pairs
    ]


def _box(box: Sequence[float]) -> list[float]:
    return [round(float(coordinate), _BOX_DECIMALS) for coordinate in box]


def _plain(value: Any) -> Any:
    """Return an option as JSON has it: lists for tuples, Python's own numbers for NumPy's."""
    if isinstance(value, (tuple, list)):
        return [_plain(item) for item in value]
    if value is None or isinstance(value, str):
        return value
    return int(value) if isinstance(value, Integral) else float(value)


@cache
def _own_version() -> str:
    return version("unface")


# Verifying ------------------------------------------------------------------------------------


def verify(data: bytes, key: bytes | None = None) -> Verified:
    """Return what the file of a record says, having checked its form and its signature.

    `key` is the public key that must have signed it, 32 bytes. Without it any key may have, and a
    record without a signature passes too: `Verified.signer` tells. Whether the pictures are those
    of the record is for the caller to see. Raises `AuditError`, and `InvalidOption` where there is
    a signature and no library to check it with.
    """
    if len(data) > MOST_BYTES:
        raise AuditError(f"it has more than {MOST_BYTES} bytes, as no audit record has")
    try:
        whole = parse(data)
        check_file(whole)
        message = canonical(whole["record"])
    except ValueError as error:
        raise AuditError(str(error)) from error
    signature = whole["signature"]
    if signature is None:
        if key is not None:
            raise AuditError("it is not signed")
        return Verified(whole["record"], None)
    signer = b64decode(signature["public_key"])
    if not _signed(message, signer, b64decode(signature["value"])):
        raise AuditError("the signature does not fit: it was altered after it was signed")
    if key is not None and signer != key:
        raise AuditError(f"it is signed by another key, SHA-256 {fingerprint(signer)}")
    return Verified(whole["record"], signer)


def fingerprint(public_key: bytes) -> str:
    """Return the SHA-256, in hex, of a public key as DER (RFC 8410), the form OpenSSL writes."""
    return hashlib.sha256(_SPKI + public_key).hexdigest()


def _signed(message: bytes, public_key: bytes, signature: bytes) -> bool:
    check_library()
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    try:
        Ed25519PublicKey.from_public_bytes(public_key).verify(signature, message)
    except InvalidSignature:
        return False
    return True


# Keys -----------------------------------------------------------------------------------------


def new_keys() -> tuple[bytes, bytes]:
    """Return a new private key and its public key, both PEM; for what is raised see the others."""
    check_library()
    from cryptography.hazmat.primitives import serialization as form
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    key = Ed25519PrivateKey.generate()
    return (
        key.private_bytes(form.Encoding.PEM, form.PrivateFormat.PKCS8, form.NoEncryption()),
        key.public_key().public_bytes(form.Encoding.PEM, form.PublicFormat.SubjectPublicKeyInfo),
    )


def read_signing_key(file: str | os.PathLike[str]) -> SigningKey:
    """Return the private key in a file: Ed25519, PEM, without a passphrase.

    Raises `InvalidOption` for anything else, for a file that others may read, and where
    `cryptography` is not installed.
    """
    check_library()
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    data = read_secret(os.fspath(file))
    try:
        key = load_pem_private_key(data, None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:  # TypeError: a passphrase
        raise _no_key(file, "private") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise _no_key(file, "private")
    return key


def read_public_key(file: str | os.PathLike[str]) -> bytes:
    """Return the public key in a file (Ed25519, PEM), 32 bytes; else raises `InvalidOption`."""
    check_library()
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    try:
        with open(file, "rb") as stream:
            key = load_pem_public_key(stream.read(MOST_KEY_BYTES))
    except OSError as error:
        raise InvalidOption(
            f"the key file {os.fspath(file)} cannot be read: {error.strerror}"
        ) from error
    except (ValueError, UnsupportedAlgorithm) as error:
        raise _no_key(file, "public") from error
    if not isinstance(key, Ed25519PublicKey):
        raise _no_key(file, "public")
    return key.public_bytes_raw()


def check_library() -> None:
    """Raise `InvalidOption` where there is no library for keys and signatures."""
    try:
        import cryptography  # noqa: F401
    except ImportError as error:
        raise InvalidOption(
            "signatures need unface[server]: pip install 'unface[server]'"
        ) from error


def _no_key(file: str | os.PathLike[str], kind: str) -> InvalidOption:
    return InvalidOption(
        f"{os.fspath(file)} holds no {kind} key: an Ed25519 key in PEM, without a passphrase, is "
        "needed; `unface audit new-key FILE` writes FILE and FILE.pub"
    )
