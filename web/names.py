"""File names that strangers sent, made fit to be saved under: no path survives."""

from __future__ import annotations

import re
import unicodedata
from itertools import count
from urllib.parse import quote

MAX_SENT = 1024  # characters that are looked at, from the end: NFC takes their square in time
MAX_CHARACTERS = 120
MAX_BYTES = 200  # file systems take 255; " (2)" and ".audit.json" may come on top
MAX_SUFFIX = 16  # characters; what is longer is no suffix but part of the name
NAMELESS = "picture"
SUFFIXES = {"jpeg": ".jpg", "png": ".png", "webp": ".webp"}
_ALIKE = {".jpg", ".jpeg", ".jpe", ".jfif"}  # are all JPEG
_PICTURES = {*_ALIKE, *SUFFIXES.values()}

# https://learn.microsoft.com/windows/win32/fileio/naming-a-file
_RESERVED = re.compile(
    r"(con|prn|aux|nul|conin\$|conout\$|(com|lpt)[0-9¹²³])\s*(\.|$)", re.IGNORECASE
)
_FORBIDDEN = re.compile(r'[<>:"|?*]')
# Cc: controls; Cf: among others bidi overrides, by which "gpj.exe" looks like "exe.jpg"; Cs: halves
# of characters; Zl and Zp: ends of lines; Cn, Co: nobody knows what they look like.
_UNSEEN = {"Cc", "Cf", "Cs", "Zl", "Zp", "Cn", "Co"}


def cleaned(name: str) -> str:
    """Return the last component of a path as a plain file name, "picture" where nothing is left.

    NFC, at most `MAX_CHARACTERS` with its suffix kept, and a name on Windows too.
    """
    last = re.split(r"[/\\]", name[-MAX_SENT:])[-1]
    composed = unicodedata.normalize("NFC", last)
    seen = "".join(" " if c.isspace() else c for c in composed if _is_seen(c))
    plain = _FORBIDDEN.sub("_", seen).strip(" .")
    stem, suffix = _parted(plain)
    if _RESERVED.match(plain):
        stem = "_" + stem
    return _shortened(stem, suffix) or NAMELESS


def with_suffix(name: str, format: str) -> str:
    """Return a cleaned name with the suffix of a format, such as "jpeg"; a fitting one stays."""
    stem, suffix = _parted(name)
    wanted = SUFFIXES.get(format, "." + format)
    if suffix.lower() == wanted or {suffix.lower(), wanted} <= _ALIKE:
        return name
    return _shortened(stem if suffix.lower() in _PICTURES else name, wanted)


class Names:
    """Gives every file of a folder a name of its own, also where case makes no difference."""

    def __init__(self, *taken: str) -> None:
        self._taken = {name.casefold() for name in taken}
        self._next: dict[str, int] = {}  # by name: the number that has not been tried

    def take(self, name: str, beside: str = "") -> str:
        """Return a cleaned name, or "name (2)" where it is taken.

        With `beside`, such as ".audit.json", the name with that behind it is taken too.
        """
        stem, suffix = _parted(name)
        for number in count(self._next.get(name.casefold(), 1)):
            found = f"{stem} ({number}){suffix}" if number > 1 else name
            both = {found.casefold(), (found + beside).casefold()}
            if not both & self._taken:
                break
        self._taken |= both
        self._next[name.casefold()] = number + 1
        return found


def disposition(name: str) -> str:
    """Return the Content-Disposition that saves an answer under a cleaned name (RFC 6266, 4.3)."""
    plain = name.encode("ascii", "replace").decode().replace("?", "_").replace("%", "_")
    return f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(name, safe='')}"


def _is_seen(character: str) -> bool:
    return character.isspace() or unicodedata.category(character) not in _UNSEEN


def _parted(name: str) -> tuple[str, str]:
    """Return stem and suffix, with its dot."""
    stem, dot, suffix = name.rpartition(".")
    if not stem or not suffix or len(suffix) >= MAX_SUFFIX:
        return name, ""
    return stem, dot + suffix


def _shortened(stem: str, suffix: str) -> str:
    short = stem[: MAX_CHARACTERS - len(suffix)]
    most = MAX_BYTES - len(suffix.encode())
    while len(short.encode()) > most:
        short = short[:-1]
    return short.rstrip(" .") + suffix if short.strip(" .") else suffix.strip(" .")
