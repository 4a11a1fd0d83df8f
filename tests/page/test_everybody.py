"""Everybody can use the page: axe-core finds nothing grave, phones fit it, Chinese is whole."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
from page.browsing import Browser, check, page_of
from page.photos import EMPTY_PLACE
from scenes import iou
from serving import ServerProcess, serving

import unface

PHONE = {"viewport": {"width": 360, "height": 740}, "hasTouch": True, "isMobile": True}
STATES = {"empty", "found", "framed", "editing", "compare", "help"}
PHONE_STATES = {"empty", "found", "framed"}
ENGLISH = re.compile(r"[A-Za-z]{3,}")
NAMES = {  # that Chinese leaves as they are
    "unface", "English", "Ctrl", "Shift", "Delete", "Enter", "Tab", "Esc", "Page", "Down", "JSON",
    "ZIP", "native", "tflite", "jpeg", "png", "webp", "JPEG", "PNG", "WebP", "group", "pair", "jpg",
    "unsure", "int", "Space", "Switch",
}  # fmt: skip


def tour(taken: Any, phone: bool = False) -> dict[str, Any]:
    files = [taken.unsure.path, taken.group.path, taken.pair.path]
    return {"files": files, "draw": EMPTY_PLACE, "size": taken.group.size, "phone": phone}


@pytest.mark.parametrize(
    "screen",
    [
        pytest.param({}, id="light"),
        pytest.param({"colorScheme": "dark"}, id="dark"),
        pytest.param(PHONE, id="phone"),
        pytest.param({"locale": "zh-CN"}, id="Chinese"),
    ],
)
def test_axe_finds_no_serious_problem(screen: Any, play: Any, taken: Any) -> None:
    phone = screen is PHONE
    report = play("audit", screen=screen, **tour(taken, phone))
    assert report["problems"].keys() == (PHONE_STATES if phone else STATES)
    assert {state: found for state, found in report["problems"].items() if found} == {}


def test_faults_would_be_seen(browser: Browser, server: ServerProcess) -> None:
    url = page_of(server)
    report = browser.play("faults", url)
    assert any("button-name" in problem for problem in report["problems"])
    seen = report["seen"]
    assert {what.split()[0] for what in seen["violations"]} == {"style-src-attr", "img-src"}
    assert "complaint" in seen["problems"]
    good = {"requests": [f"GET {url}"], "violations": [], "problems": []}
    check({"seen": good}, url)
    for fault in (
        {"violations": seen["violations"]},
        {"problems": seen["problems"]},
        {"requests": ["GET http://192.0.2.1/elsewhere.png"]},
    ):
        with pytest.raises(AssertionError):
            check({"seen": {**good, **fault}}, url)


@pytest.mark.parametrize("locale", ["en-GB", "zh-CN"])
def test_a_phone_is_not_scrolled_sideways(locale: str, play: Any, taken: Any) -> None:
    report = play("widths", screen={**PHONE, "locale": locale}, **tour(taken, phone=True))
    assert report["wide"] == {s: {"beyond": 0, "scrolled": 0} for s in PHONE_STATES}


def test_a_finger_keeps_and_draws(play: Any, taken: Any) -> None:
    keep = taken.group.face(1)
    details = {
        "file": taken.group.path,
        "size": taken.group.size,
        "keep": keep,
        "draw": EMPTY_PLACE,
    }
    report = play("touch", screen=PHONE, **details)
    (kept,) = (frame for frame in report["kept"] if not frame["hidden"])
    assert iou(np.array([kept["box"]]), np.array([keep])).item() > 0.6
    (drawn,) = (frame for frame in report["drawn"] if frame["label"].startswith("Drawn"))
    assert iou(np.array([drawn["box"]]), np.array([EMPTY_PLACE])).item() > 0.6


def test_the_chinese_page_has_no_english_left(play: Any, taken: Any) -> None:
    report = play("wording", screen={"locale": "zh-CN"}, **tour(taken))
    for said in report["said"].values():
        assert said["language"] == "zh-CN"
        for text in [said["text"], *said["labels"]]:
            assert set(ENGLISH.findall(text)) <= NAMES, text


def test_the_language_is_switched_on_the_page(play: Any) -> None:
    english, chinese, again = play("language")["steps"]
    assert english == again
    assert english[1] == "en"
    assert chinese[1] == "zh-CN"
    assert not re.search(r"[\u4e00-\u9fff]", english[0])
    assert re.search(r"[\u4e00-\u9fff]", chinese[0])


def test_the_page_tells_the_truth_about_where_photos_are_worked_on(
    play: Any, server: ServerProcess
) -> None:
    with unface.Client(server.target) as client:
        info = client.info()
    said = play("truth")["said"]
    assert said.startswith(f"Processed on this machine by {info.backend} {info.precision} (")
    assert said.endswith("nothing is stored.")


def test_the_page_names_the_host_where_it_is_not_this_machine(browser: Browser) -> None:
    with serving("--http-port", "0", "--http-names", "photos.localhost") as server:
        url = page_of(server).replace("127.0.0.1", "photos.localhost")
        report = browser.play("truth", url)
        check(report, url)
    assert report["said"].startswith(f"Processed on {url.split('/')[2]} by ")
