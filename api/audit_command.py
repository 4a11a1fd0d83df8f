"""`unface audit`: are records and pictures as they were? And the keys that sign records."""

from __future__ import annotations

import argparse
import errno
import hashlib
import json
import os
import stat
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from unface.audit import (
    MOST_BYTES,
    AuditError,
    Verified,
    fingerprint,
    new_keys,
    read_public_key,
    verify,
)
from unface.errors import InvalidOption

SUFFIX = ".audit.json"
CHUNK_BYTES = 1 << 20


def add_commands(commands: argparse._SubParsersAction[Any]) -> None:
    """Add `audit` to the commands of `unface`."""
    audit = commands.add_parser("audit", help="check audit records; make keys to sign them with")
    actions = audit.add_subparsers(metavar="ACTION", required=True)
    making = actions.add_parser("new-key", help="write a new key to sign with, and its public key")
    making.add_argument(
        "file", type=Path, metavar="FILE", help="only you may read it; FILE.pub is for everybody"
    )
    making.set_defaults(run=make_key)
    verifying = actions.add_parser("verify", help="are records and pictures as they were?")
    verifying.add_argument(
        "records", nargs="+", type=Path, metavar="RECORD", help="such as photo.jpg.audit.json"
    )
    verifying.add_argument(
        "--key", type=Path, metavar="FILE", help="public key that must have signed them (PEM)"
    )
    verifying.add_argument(
        "--input", type=Path, metavar="FILE", help="the picture before; default: not compared"
    )
    verifying.add_argument(
        "--output", type=Path, metavar="FILE", help="the picture after; default: beside the record"
    )
    verifying.add_argument("--json", action="store_true", help="one line of JSON for each record")
    verifying.set_defaults(run=verify_records)


def make_key(arguments: argparse.Namespace) -> int:
    """Write a private key that its owner alone may read, and its public key."""
    private_file: Path = arguments.file
    public_file = private_file.with_name(private_file.name + ".pub")
    private, public = new_keys()
    _write_new(private_file, private, 0o600)
    try:
        _write_new(public_file, public, 0o644)
    except InvalidOption:
        private_file.unlink()
        raise
    print(f"{private_file}: a new key; who has it can sign as you do")
    known_by = fingerprint(read_public_key(public_file))
    print(f"{public_file}: its public key, for those who verify; SHA-256 {known_by}")
    return 0


def verify_records(arguments: argparse.Namespace) -> int:
    """Print what each record is worth; returns 0 when all are in order, else 1."""
    records: list[Path] = arguments.records
    if len(records) > 1 and (arguments.input or arguments.output):
        raise InvalidOption(f"--input and --output are of one record; there are {len(records)}")
    outputs = [arguments.output or _beside(path) for path in records]
    key = None if arguments.key is None else read_public_key(arguments.key)
    all_good = True
    for path, output in zip(records, outputs, strict=True):
        report = _report(path, key, {"input": arguments.input, "output": output})
        all_good = all_good and report.good
        if arguments.json:
            print(json.dumps(report.to_json()))
        else:
            report.show()
    return 0 if all_good else 1


@dataclass
class _Report:
    """What was found of one record."""

    path: Path
    key_given: bool
    found: Verified | None = None
    compared: list[str] = field(default_factory=list)  # "input", "output": as recorded
    problems: list[str] = field(default_factory=list)

    @property
    def good(self) -> bool:
        return self.found is not None and not self.problems

    def to_json(self) -> dict[str, Any]:
        signer = self.found.signer if self.found else None
        return {
            "record": str(self.path),
            "good": self.good,
            "problems": self.problems,
            "compared": self.compared,
            "signed": signer is not None,
            "vouched": signer is not None and self.key_given,
            "fingerprint": signer and fingerprint(signer),
            "audit": self.found and self.found.record,
        }

    def show(self) -> None:
        for problem in self.problems:
            print(printable(f"unface: {self.path}: {problem}"), file=sys.stderr)
        if self.found is not None and self.good:
            compared = " and ".join(self.compared)
            matching = "matches" if len(self.compared) == 1 else "match"
            print(printable(f"{self.path}: {self._signature()}; the {compared} {matching}"))
            print(printable(f"  {_summary(self.found.record)}"))

    def _signature(self) -> str:
        signer = self.found.signer if self.found else None
        if signer is None:
            return "in order, but NOT SIGNED: whoever changes it leaves no trace"
        if self.key_given:
            return "good, signed with the key given"
        return f"intact, but signed with a key nobody vouched for, SHA-256 {fingerprint(signer)}"


def printable(text: str) -> str:
    """Return text with everything escaped that a terminal would act on, bidi marks among it."""
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in text
    )


def _report(path: Path, key: bytes | None, pictures: Mapping[str, Path | None]) -> _Report:
    report = _Report(path, key is not None)
    try:
        report.found = verify(_read(path), key)
    except (AuditError, OSError) as error:
        report.problems.append(str(error))
        return report
    for name, picture in pictures.items():
        if picture is not None:
            try:
                _compare(picture, report.found.record[name])
            except (AuditError, OSError) as error:
                report.problems.append(f"the {name}, {picture}: {error}")
            else:
                report.compared.append(name)
    return report


def _beside(record: Path) -> Path:
    """Return where the picture of a record lies."""
    if record.name.endswith(SUFFIX) and record.name != SUFFIX:
        return record.with_name(record.name.removesuffix(SUFFIX))
    raise InvalidOption(
        f"{record} is not named NAME{SUFFIX}: say with --output where its picture lies"
    )


def _open(path: Path) -> BinaryIO:
    """Open a file, and nothing else: what a link or a device gives can change while it is read."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        link = error.errno == errno.ELOOP
        why = "it is a symbolic link; name the file itself" if link else error.strerror
        raise AuditError(f"it cannot be read: {why}") from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise AuditError("it is no regular file")
    return os.fdopen(descriptor, "rb")


def _read(path: Path) -> bytes:
    """Return a record's bytes, and of what is too long for one only a byte too many."""
    with _open(path) as stream:
        return stream.read(MOST_BYTES + 1)


def _compare(path: Path, recorded: Mapping[str, Any]) -> None:
    """Raise `AuditError` unless a file has the bytes that were recorded."""
    digest, left = hashlib.sha256(), recorded["bytes"]
    with _open(path) as stream:
        size = os.fstat(stream.fileno()).st_size
        if size != left:
            raise AuditError(f"it has {size} bytes, and {left} were recorded")
        while left > 0 and (chunk := stream.read(min(CHUNK_BYTES, left))):
            digest.update(chunk)
            left -= len(chunk)
    if left or digest.hexdigest() != recorded["sha256"]:
        raise AuditError("it is not what was recorded: its SHA-256 is another")


def _summary(record: Mapping[str, Any]) -> str:
    """Return in a line what was done, with what is left to worry about in capitals."""
    method, faces = record["mask"]["method"], len(record["faces"])
    covered = "FRAMED, NOT COVERED" if method == "box" else f"covered ({method})"
    parts = [f"{_count(faces, 'face')} {covered}"]
    if record["kept"]:
        parts.append(f"{len(record['kept'])} left clear")
    elif record["keep"] and record["verification"] is None and record["detection"] is None:
        parts.append(f"{len(record['keep'])} to be left clear as told")
    if record["cover"]:
        parts.append(f"{_count(len(record['cover']), 'place')} covered as told")
    if record["detection"] is None:
        parts.append("NOT SEARCHED FOR FACES")
    if (check := record["verification"]) is not None:
        if check["covered"]:
            parts.append(f"{len(check['covered'])} more found in the result and covered")
        clean = check["clean"] and not check["residual"]
        left = "no face" if clean else f"{_count(len(check['residual']), 'FACE')} LEFT"
        parts.append(f"result searched: {left}")
    if record["engines"]:
        served = f"{record['backend']} {record['precision']}"
        parts.append(served if record["certificates"] else f"{served}, NOT CERTIFIED")
    return f"{record['time']}, unface {record['version']}: {', '.join(parts)}"


def _count(number: int, noun: str) -> str:
    plural = "S" if noun.isupper() else "s"
    return f"{number} {noun}" if number == 1 else f"{number} {noun}{plural}"


def _write_new(file: Path, data: bytes, mode: int) -> None:
    try:
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    except FileExistsError as error:
        raise InvalidOption(f"{file} exists; a key is never overwritten") from error
    except OSError as error:
        raise InvalidOption(f"{file} cannot be written: {error.strerror}") from error
    try:
        with open(descriptor, "wb") as stream:
            stream.write(data)
    except OSError as error:
        file.unlink()
        raise InvalidOption(f"{file} cannot be written: {error.strerror}") from error
