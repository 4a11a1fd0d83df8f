"""What the page costs: bytes of the first load, and memory with many photos."""

from __future__ import annotations

import json
import os
import zipfile
from pathlib import Path
from typing import Any

import pytest
from page import photos
from page.browsing import Browser, Peaks, check, missing, page_of
from serving import serving

MOST_LOADED = 150 << 10
GIGABYTE = 1 << 30


def test_the_first_load_is_small(play: Any) -> None:
    report = play("load")
    assert 20_000 < report["first"]["bytes"] < report["bytes"] < MOST_LOADED
    assert report["files"] > 20  # also what comes once somebody does something


@pytest.mark.slow
def test_many_large_photos_fit_into_memory(tmp_path: Path) -> None:
    if lacks := missing():
        pytest.skip(lacks)
    files = photos.many(tmp_path, 24)
    with serving("--http-port", "0") as server, Browser() as browser:
        with Peaks(server, browser) as peaks:
            report = browser.play(
                "many", page_of(server), downloads=tmp_path, files=files, minutes=5
            )
        check(report, page_of(server))
    with zipfile.ZipFile(report["zip"]["path"]) as archive:
        assert archive.testzip() is None
        told = json.loads(archive.read("unface-report.json"))["files"]
    assert len(told) == len(files)
    assert all(one["error"] is None and one["stored"] for one in told)
    assert 0 < peaks.server < GIGABYTE
    assert 0 < peaks.tab < GIGABYTE
    assert os.path.getsize(report["zip"]["path"]) > 24 * 500_000
