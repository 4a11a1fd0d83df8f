"""`Report`, from a message to the store: what is accepted, what is kept, what clients are told."""

from __future__ import annotations

import math
import os
import sqlite3
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from corpus import HEIGHT, WIDTH, bad_inputs, oriented_files, photo, saved

from unface.anonymize import decode
from unface.errors import ImageTooLarge, InvalidImage, InvalidOption
from unface.quality import store as store_module
from unface.quality.places import Place
from unface.quality.store import Store, StoreError, crop_context
from unface.sealing import unseal
from unface.server.config import ServerConfig
from unface.server.reports import NotStored, Reports, open_reports
from unface.v1 import unface_pb2 as pb
from unface.worker.messages import raw_image_message

KEY = bytes(range(32))
BOX = pb.Box(x1=4, y1=6, x2=10, y2=12)
Opener = Callable[..., Reports]


def message(**fields: Any) -> pb.ReportRequest:
    return pb.ReportRequest(**{"request_id": "r-1", "profile": "fast", "missed": [BOX], **fields})


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    path = tmp_path / "key"
    path.write_bytes(KEY)
    path.chmod(0o600)
    return path


@pytest.fixture
def opened(tmp_path: Path, key_file: Path) -> Iterator[Opener]:
    """A function that opens the reports of a configuration."""
    open_now: list[Reports] = []

    def open_(crops: bool = False, **options: Any) -> Reports:
        if crops:
            options.update(quality_crops=True, quality_key_file=str(key_file))
        reports = open_reports(ServerConfig(quality_file=str(tmp_path / "quality.db"), **options))
        assert reports is not None
        open_now.append(reports)
        return reports

    yield open_
    for reports in open_now:
        reports.close()


@pytest.fixture
def kept(tmp_path: Path) -> Iterator[Store]:
    with Store(tmp_path / "quality.db") as store:
        yield store


def test_without_a_file_there_are_no_reports() -> None:
    assert open_reports(ServerConfig()) is None


def test_a_report_is_kept_with_its_places_and_the_pictures_size(
    opened: Opener, kept: Store
) -> None:
    false = pb.Box(x1=0, y1=0, x2=WIDTH, y2=HEIGHT)
    image = pb.Image(encoded=saved(photo(), "JPEG"))
    answer = opened().store_report(message(image=image, false_faces=[false]))
    (report,) = kept.reports()
    assert (answer.report_id, answer.crops_kept) == (report.id, False)
    assert (report.request_id, report.profile) == ("r-1", "fast")
    assert (report.width, report.height) == (WIDTH, HEIGHT)
    assert report.places == (Place("missed", 4, 6, 10, 12), Place("false", 0, 0, WIDTH, HEIGHT))
    assert kept.crops(report.id) == []


def test_where_no_crops_are_kept_the_picture_may_be_left_out(opened: Opener, kept: Store) -> None:
    opened().store_report(message(request_id="", profile=""))
    (report,) = kept.reports()
    assert (report.request_id, report.width, report.height) == ("", None, None)


@pytest.mark.parametrize("name", ["JPEG", "PNG", "WebP"])
@pytest.mark.parametrize("orientation", [1, 6])
def test_the_size_is_that_of_the_upright_picture_with_crops_and_without(
    opened: Opener, kept: Store, name: str, orientation: int
) -> None:
    image = pb.Image(encoded=oriented_files(orientation)[name])
    for crops in (False, True):
        opened(crops).store_report(message(image=image))
    size = (WIDTH, HEIGHT) if orientation == 1 else (HEIGHT, WIDTH)
    assert [(r.width, r.height) for r in kept.reports()] == [size, size]


@pytest.mark.parametrize("raw", [False, True])
def test_a_crop_is_sealed_and_shows_the_place_and_what_is_around_it(
    opened: Opener, kept: Store, raw: bool
) -> None:
    pixels = photo()
    image = raw_image_message(pixels) if raw else pb.Image(encoded=saved(pixels, "PNG"))
    answer = opened(crops=True).store_report(message(image=image))
    assert answer.crops_kept
    (crop,) = kept.crops(answer.report_id)
    png = unseal(crop.sealed, KEY, crop_context(answer.report_id, 0))
    assert (decode(png).pixels == pixels[3:15, 1:13]).all()


def test_a_place_that_is_most_of_the_picture_gets_no_crop(opened: Opener, kept: Store) -> None:
    box = pb.Box(x1=0, y1=0, x2=WIDTH, y2=HEIGHT)
    image = pb.Image(encoded=saved(photo(), "PNG"))
    answer = opened(crops=True).store_report(message(image=image, missed=[box]))
    assert not answer.crops_kept
    assert len(kept.reports()) == 1


@pytest.mark.parametrize("crops", [False, True])
@pytest.mark.parametrize(
    "box",
    [
        pb.Box(),
        pb.Box(x1=5, y1=5, x2=4, y2=9),
        pb.Box(x1=0, y1=0, x2=WIDTH + 1, y2=5),
        pb.Box(x1=0, y1=-1, x2=5, y2=5),
        pb.Box(x1=math.nan, y1=0, x2=5, y2=5),
        pb.Box(x1=0, y1=0, x2=5, y2=math.inf),
    ],
)
def test_wrong_boxes_are_refused_and_nothing_is_kept(
    opened: Opener, kept: Store, crops: bool, box: pb.Box
) -> None:
    image = pb.Image(encoded=saved(photo(), "PNG"))
    for fields in ({"missed": [BOX, box]}, {"missed": [], "false_faces": [box]}):
        with pytest.raises(InvalidOption):
            opened(crops).store_report(message(image=image, **fields))
    assert kept.reports() == []


@pytest.mark.parametrize("count", [0, 1001])
def test_no_boxes_and_too_many_are_refused(opened: Opener, kept: Store, count: int) -> None:
    with pytest.raises(InvalidOption, match=f"{count} places are reported"):
        opened().store_report(message(missed=[BOX] * count))
    assert kept.reports() == []


@pytest.mark.parametrize(
    "fields",
    [
        {"request_id": "Jane Doe"},
        {"request_id": "x" * 65},
        {"request_id": "a\n"},
        {"profile": "../fast"},
        {"profile": "FAST"},
    ],
)
def test_a_name_that_the_server_never_gave_is_not_kept(
    opened: Opener, kept: Store, fields: dict[str, str]
) -> None:
    with pytest.raises(InvalidOption, match="none of this server's"):
        opened().store_report(message(**fields))
    assert kept.reports() == []


def test_where_crops_are_kept_a_picture_is_needed(opened: Opener) -> None:
    with pytest.raises(InvalidImage, match="image is missing"):
        opened(crops=True).store_report(message())


@pytest.mark.parametrize("crops", [False, True])
def test_the_servers_limits_and_formats_hold_for_reports_too(opened: Opener, crops: bool) -> None:
    big = pb.Image(encoded=saved(np.zeros((200, 200, 3), np.uint8), "PNG"))
    raw = raw_image_message(np.zeros((200, 200, 3), np.uint8))
    for image in (big, raw):
        with pytest.raises(ImageTooLarge):
            opened(crops, max_pixels=10_000).store_report(message(image=image))
    with pytest.raises(InvalidImage, match="image is png; accepted are jpeg"):
        opened(crops, formats=("jpeg",)).store_report(message(image=big))


@pytest.mark.parametrize("crops", [False, True])
def test_no_hostile_picture_does_more_than_be_refused(
    opened: Opener, kept: Store, crops: bool
) -> None:
    reports, accepted = opened(crops), 0
    for bad in bad_inputs():
        with suppress(InvalidImage, InvalidOption):
            reports.store_report(message(image=pb.Image(encoded=bad.data)))
            accepted += 1
    assert accepted == len(kept.reports())
    assert kept.crop_counts() == {}
    # Without crops no pixel is looked at: a header that is right is all that is asked for.
    assert accepted == 0 if crops else accepted < len(bad_inputs()) / 2


def test_reports_may_come_on_several_threads(opened: Opener, kept: Store) -> None:
    reports = opened(crops=True)
    image = pb.Image(encoded=saved(photo(), "JPEG"))
    with ThreadPoolExecutor(4) as threads:
        answers = list(threads.map(reports.store_report, [message(image=image)] * 20))
    assert len({answer.report_id for answer in answers}) == len(kept.reports()) == 20


def test_a_file_that_cannot_be_written_to_is_logged_and_the_client_learns_no_path(
    opened: Opener,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(store_module, "BUSY_SECONDS", 0.01)
    reports = opened()
    with closing(sqlite3.connect(tmp_path / "quality.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(NotStored) as caught:
            reports.store_report(message())
        other.execute("COMMIT")
    assert str(tmp_path) not in str(caught.value)
    assert "quality.db cannot be used: database is locked" in caplog.text
    assert reports.store_report(message()).report_id == 1


def test_a_log_never_holds_what_was_reported(
    opened: Opener, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(0)
    image = pb.Image(encoded=saved(photo(), "PNG"))
    opened(crops=True).store_report(message(request_id="secret-id", image=image))
    assert "secret-id" not in caplog.text


def test_a_key_that_is_wrong_or_lacking_stops_the_server_from_starting(
    tmp_path: Path, key_file: Path
) -> None:
    key_file.write_bytes(b"short")
    options = {"quality_file": str(tmp_path / "quality.db"), "quality_crops": True}
    for file in (key_file, tmp_path / "nowhere"):
        with pytest.raises(InvalidOption):
            open_reports(ServerConfig(**options, quality_key_file=str(file)))


def test_a_file_that_is_none_of_ours_stops_the_server_from_starting(tmp_path: Path) -> None:
    (tmp_path / "quality.db").write_bytes(os.urandom(8192))
    with pytest.raises(StoreError, match="not a database"):
        open_reports(ServerConfig(quality_file=str(tmp_path / "quality.db")))
