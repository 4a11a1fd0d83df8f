"""The report of a ZIP: what became of each file, in bounded memory."""

from __future__ import annotations

from typing import Any

from unface.v1 import unface_pb2 as pb
from unface.web.answers import to_json, to_verification

REPORT = "unface-report.json"
MAX_NAME = 255  # characters of a name as it was sent; its end, which has the suffix
MAX_REPORT = 4 << 20  # bytes; files beyond it are counted


class Outcomes:
    """Entries as JSON, so that what they take is known and the report is there at once."""

    def __init__(self, most_bytes: int = MAX_REPORT) -> None:
        self._most = most_bytes
        self._entries: list[bytes] = []
        self._size = self._left_out = 0

    def add(self, entry: dict[str, Any]) -> None:
        """Add an entry; once one has found no room, all are only counted."""
        text = to_json(entry)
        if self._left_out or self._size + len(text) > self._most:
            self._left_out += 1
        else:
            self._entries.append(text)
            self._size += len(text) + 1

    def to_json(self) -> bytes:
        """Return the report: its `files`, and how many are `left_out`."""
        return b'{"files":[%b],"left_out":%d}' % (b",".join(self._entries), self._left_out)


def covered(name: str, stored: str, answer: pb.AnonymizeResponse) -> dict[str, Any]:
    """Return the entry of a file that is in the ZIP as `stored`; its faces have no landmarks."""
    found = answer.verification if answer.HasField("verification") else None
    return _entry(
        name,
        stored,
        faces=len(answer.faces),
        kept=len(answer.kept),
        verification=found and to_verification(found, has_points=False),
    )


def failed(name: str, error: dict[str, Any]) -> dict[str, Any]:
    """Return the entry of a file with an error, problem details."""
    return _entry(name, None, error=error)


def _entry(name: str, stored: str | None, **known: Any) -> dict[str, Any]:
    return {
        "name": name[-MAX_NAME:],
        "stored": stored,
        **{"faces": 0, "kept": 0, "verification": None, "error": None},
        **known,
    }
