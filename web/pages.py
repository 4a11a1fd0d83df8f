"""The page: its files, as they are served."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

FOLDER = Path(__file__).parent / "page"
INDEX = "index.html"
TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".svg": "image/svg+xml",
    ".png": "image/png",
    ".ico": "image/x-icon",
    ".webmanifest": "application/manifest+json",
}


@dataclass(frozen=True)
class File:
    """A file: its bytes, and the suffix that says what it is."""

    content: bytes
    suffix: str

    @property
    def media_type(self) -> str:
        """Its Content-Type."""
        return TYPES[self.suffix]

    @property
    def etag(self) -> str:
        """What changes with it (RFC 9110, 8.8.3)."""
        return f'"{sha256(self.content).hexdigest()[:32]}"'

    @property
    def etag_zipped(self) -> str:
        """The same for its compressed form: another form is another tag."""
        return f'{self.etag[:-1]}-gzip"'


def read_files(folder: Path = FOLDER) -> dict[str, File]:
    """Return the files of the page by name; those of other kinds than `TYPES` are left out."""
    return {
        path.name: File(path.read_bytes(), path.suffix)
        for path in sorted(folder.iterdir())
        if path.suffix in TYPES and path.is_file()
    }
