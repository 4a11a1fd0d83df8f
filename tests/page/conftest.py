"""The real page at a real server, in a real browser; where there is none these tests skip."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from page import photos
from page.browsing import Browser, Report, check, missing, page_of
from serving import ServerProcess, serving

Play = Callable[..., Report]


@dataclass(frozen=True)
class Photos:
    """The photos that most scenarios take."""

    group: photos.Photo
    pair: photos.Photo
    single: photos.Photo
    unsure: photos.Photo


@pytest.fixture(scope="session")
def taken(tmp_path_factory: pytest.TempPathFactory) -> Photos:
    folder = tmp_path_factory.mktemp("photos")
    return Photos(
        photos.group(folder / "group.png"),
        photos.pair(folder / "pair.jpg"),
        photos.single(folder / "single.jpg"),
        photos.unsure(folder / "unsure.jpg"),
    )


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    if lacks := missing():
        pytest.skip(lacks)
    camera = photos.video(tmp_path_factory.mktemp("camera") / "face.mjpeg")
    with Browser(camera) as one:
        yield one


@pytest.fixture(scope="session")
def server() -> Iterator[ServerProcess]:
    with serving("--http-port", "0") as one:
        yield one


@pytest.fixture
def play(browser: Browser, server: ServerProcess, tmp_path: Path) -> Play:
    """Play a scenario at the page; its downloads lie in `tmp_path`, and nothing went wrong."""

    def play(scenario: str, problems: str | None = None, **details: Any) -> Report:
        url = page_of(server)
        report = browser.play(scenario, url, downloads=tmp_path, **details)
        check(report, url, problems)
        return report

    return play
