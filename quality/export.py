"""Reports as a labelled set: what `unface validate` and `unface calibrate` read."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unface.errors import SealError, UnfaceError
from unface.quality.places import Place, Report, Window
from unface.quality.store import SealedCrop, Store, crop_context
from unface.sealing import unseal


class NotExported(UnfaceError):
    """The labelled set could not be, or must not be, written."""


@dataclass(frozen=True)
class Exported:
    """What was written: numbers of reports, pictures (crops) and faces labelled on them."""

    reports: int
    pictures: int
    faces: int
    places: int  # reported, with a crop or without

    def lacks(self) -> list[str]:
        """Return what is lacking for the set to be of use, in sentences."""
        missing = []
        if not self.reports:
            missing.append("there are no reports")
        elif not self.pictures:
            missing.append("no crops are kept (quality_crops): there is nothing to look at")
        elif self.pictures < self.places:
            missing.append(f"{self.places - self.pictures} of {self.places} places have no crop")
        if self.pictures and not self.faces:
            missing.append("no missed face is among the crops; unface validate needs one at least")
        return missing


def export(store: Store, folder: Path, key: bytes | None) -> Exported:
    """Write all reports into a folder that is not there yet, or empty.

    `reports.jsonl` has every report; `labels.jsonl` and `images/` the crops, in the form that
    `unface.calibration.labels` reads, each with the missed faces that were reported in it. Only the
    owner may read them. Raises `NotExported` when the folder has something in it, when there are
    crops and no key, or the wrong one; then nothing is written.
    """
    if folder.is_file() or (folder.is_dir() and any(folder.iterdir())):
        raise NotExported(f"{folder} is there already and not empty; name a new folder")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        draft = Path(tempfile.mkdtemp(prefix=".unface-", dir=folder.parent))  # of mode 700
        try:
            exported = _write(store, draft, key)
            draft.replace(folder)
        except BaseException:
            shutil.rmtree(draft)
            raise
    except OSError as error:
        raise NotExported(f"{folder} cannot be written: {error.strerror}") from error
    return exported


def _write(store: Store, folder: Path, key: bytes | None) -> Exported:
    reports, labels = store.reports(), []
    (folder / "images").mkdir()
    for report in reports:
        for crop in store.crops(report.id):
            name = f"{report.id}-{crop.place}.png"
            _write_file(folder / "images" / name, _opened(report.id, crop, key))
            labels.append(_label(name, crop.window, report.places))
    _write_lines(folder / "reports.jsonl", [_record(report) for report in reports])
    if labels:
        _write_lines(folder / "labels.jsonl", labels)
    else:
        (folder / "images").rmdir()
    return Exported(
        len(reports),
        len(labels),
        sum(not face["ignore"] for label in labels for face in label["faces"]),
        sum(len(report.places) for report in reports),
    )


def _opened(report_id: int, crop: SealedCrop, key: bytes | None) -> bytes:
    if key is None:
        raise NotExported("there are crops, and they are encrypted; --key-file names their key")
    try:
        return unseal(crop.sealed, key, crop_context(report_id, crop.place))
    except SealError as error:
        what = f"the crop of report {report_id}, place {crop.place} cannot be opened"
        raise NotExported(f"{what}: {error}") from error


def _label(name: str, window: Window, places: Sequence[Place]) -> dict[str, Any]:
    """Return the line of a crop: the missed faces in it; one that it cuts is to be ignored."""
    faces = []
    for place in places:
        x1, x2 = (min(max(x - window.x, 0), window.width) for x in (place.x1, place.x2))
        y1, y2 = (min(max(y - window.y, 0), window.height) for y in (place.y1, place.y2))
        if place.kind == "missed" and x1 < x2 and y1 < y2:
            whole = (x2 - x1, y2 - y1) == (place.x2 - place.x1, place.y2 - place.y1)
            faces.append({"box": [x1, y1, x2 - x1, y2 - y1], "ignore": not whole})
    return {"image": name, "width": window.width, "height": window.height, "faces": faces}


def _record(report: Report) -> dict[str, Any]:
    return {
        "id": report.id,
        "request_id": report.request_id,
        "time": report.time,
        "profile": report.profile,
        "width": report.width,
        "height": report.height,
        "places": [{"kind": place.kind, "box": list(place[1:])} for place in report.places],
    }


def _write_lines(path: Path, lines: Sequence[dict[str, Any]]) -> None:
    _write_file(path, "".join(json.dumps(line) + "\n" for line in lines).encode())


def _write_file(path: Path, data: bytes) -> None:
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(data)
