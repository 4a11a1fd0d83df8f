"""What `Report` does: checks a report, cuts crops if the operator wants them, stores it.

Blocking, for a thread of its own. Pixels are touched only where crops are kept, and numpy and
OpenCV loaded only then.
"""

from __future__ import annotations

import logging
import re
import threading
from dataclasses import replace

from unface.anonymize.exif import orientation
from unface.anonymize.files import take_apart
from unface.anonymize.formats import identify
from unface.anonymize.limits import Limits, check_size
from unface.errors import InvalidImage, InvalidOption, UnfaceError
from unface.quality.places import Crop, Place, Report, check_report
from unface.quality.store import Store, StoreError
from unface.sealing import read_key
from unface.server.config import ServerConfig
from unface.v1 import unface_pb2 as pb

KEY_VARIABLE = "UNFACE_QUALITY_KEY"
SWEEP_SECONDS = 3600.0
REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{0,64}")  # as the server takes and gives them, or none
PROFILE = re.compile(r"[a-z0-9_-]{0,32}")
FIRST_TURNED = 5  # EXIF orientations from here on swap width and height (CIPA DC-008)

_log = logging.getLogger("unface.server")


class NotKept(UnfaceError):
    """The operator of this server keeps no reports."""


class NotStored(UnfaceError):
    """The report is good but could not be stored; it may be sent again later."""


class Reports:
    """The reports that a server keeps.

    The store becomes this object's: `close` closes it, and until then what is too old is deleted
    every hour. `key`, 32 bytes, seals crops of the reported places; without one none are kept.
    """

    def __init__(self, store: Store, config: ServerConfig, key: bytes | None = None) -> None:
        self._store, self._key, self._formats = store, key, config.formats
        self._limits = Limits(config.max_message_bytes, config.max_pixels)
        self._decoding = threading.Lock()  # one picture in memory, however many reports come
        self._closed = threading.Event()
        self._sweeper = threading.Thread(target=self._sweep, name="reports", daemon=True)
        self._sweeper.start()

    def store_report(self, request: pb.ReportRequest) -> pb.ReportResponse:
        """Check a report, store it and return its number; safe to call from several threads.

        Raises `InvalidOption` and `InvalidImage` for a report that is not right, and `NotStored`.
        """
        report = _report_from_message(request)
        check_report(report)
        with self._decoding:
            report, crops = self._look(request.image, report)
        try:
            number = self._store.add_report(report, crops, self._key or b"")
        except StoreError as error:  # names the file, which is nothing for clients
            _log.error("a report could not be stored: %s", error)
            raise NotStored("the report could not be stored; try again later") from error
        return pb.ReportResponse(report_id=number, crops_kept=bool(crops))

    def close(self) -> None:
        """Close the store."""
        self._closed.set()
        self._sweeper.join()
        self._store.close()

    def _look(self, image: pb.Image, report: Report) -> tuple[Report, list[Crop]]:
        """Return the report with its picture's size, checked against it, and its crops."""
        if self._key is None:
            width, height = self._size(image)
            report = replace(report, width=width, height=height)
            check_report(report)
            return report, []
        from unface.quality.crops import cut_crops
        from unface.worker.messages import picture_from_message

        self._check_format(image)
        pixels = picture_from_message(image, self._limits).pixels
        report = replace(report, width=pixels.shape[1], height=pixels.shape[0])
        check_report(report)
        return report, list(cut_crops(pixels, report.places))

    def _size(self, image: pb.Image) -> tuple[int, int] | tuple[None, None]:
        """Return width and height of the upright picture, from its header, if there is one."""
        source = image.WhichOneof("source")
        if source is None:
            return None, None
        if source == "raw":
            check_size(image.raw.width, image.raw.height, self._limits)
            return image.raw.width, image.raw.height
        self._check_format(image)
        file = take_apart(image.encoded, self._limits)
        turned = orientation(file.exif) >= FIRST_TURNED
        return (file.height, file.width) if turned else (file.width, file.height)

    def _check_format(self, image: pb.Image) -> None:
        if image.WhichOneof("source") == "encoded":
            format = identify(image.encoded)
            if format not in self._formats:
                raise InvalidImage(f"image is {format}; accepted are {', '.join(self._formats)}")

    def _sweep(self) -> None:
        while not self._closed.wait(SWEEP_SECONDS):
            try:
                self._store.sweep()
            except StoreError as error:  # noqa: PERF203 - once an hour
                _log.error("old reports could not be deleted: %s", error)


def open_reports(config: ServerConfig) -> Reports | None:
    """Return the reports of a server, None where the operator keeps none.

    Raises `InvalidOption` for a key that is not right, and `StoreError`.
    """
    if config.quality_file is None:
        return None
    key = read_key(config.quality_key_file, KEY_VARIABLE) if config.quality_crops else None
    if config.quality_crops and key is None:
        raise InvalidOption("quality_crops needs a key; quality_key_file names its file")
    return Reports(Store(config.quality_file, days=config.quality_days), config, key)


def _report_from_message(request: pb.ReportRequest) -> Report:
    """Return the report; raises `InvalidOption` for names that the server never gave."""
    for name, pattern in (("request_id", REQUEST_ID), ("profile", PROFILE)):
        if not pattern.fullmatch(getattr(request, name)):
            raise InvalidOption(f"{name} is none of this server's; copy it from the answer")
    places = [Place("missed", box.x1, box.y1, box.x2, box.y2) for box in request.missed]
    places += [Place("false", box.x1, box.y1, box.x2, box.y2) for box in request.false_faces]
    return Report(request.request_id, request.profile, None, None, tuple(places))
