"""Pictures of the page for docs/: taken with UNFACE_SCREENSHOTS=1 (`make screenshots`)."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from page.photos import EMPTY_PLACE

IMAGES = Path(__file__).parents[2] / "docs" / "images"
MOST_BYTES = 150_000
WIDE = {"viewport": {"width": 1280, "height": 800}}
PHONE = {"viewport": {"width": 360, "height": 740}, "hasTouch": True, "isMobile": True}
ALL = ("empty", "framed", "editing", "found", "compare")
SHOTS = {  # name of the file: screen, state
    **{f"page-{state}": ({}, state) for state in ALL},
    "page-dark": ({"colorScheme": "dark"}, "framed"),
    "page-phone": ({**PHONE, "deviceScaleFactor": 2}, "framed"),
    "page-chinese": ({"locale": "zh-CN"}, "framed"),
}

pytestmark = pytest.mark.skipif(
    not os.environ.get("UNFACE_SCREENSHOTS"), reason="UNFACE_SCREENSHOTS is not set"
)


@pytest.mark.parametrize("name", SHOTS)
def test_a_screenshot_is_taken(name: str, play: Any, taken: Any) -> None:
    screen, state = SHOTS[name]
    report = play(
        "screenshots",
        screen={**WIDE, **screen},
        files=[taken.unsure.path, taken.group.path, taken.pair.path],
        draw=EMPTY_PLACE,
        size=taken.group.size,
        phone="isMobile" in screen,
        shots={state: IMAGES / f"{name}.jpg"},
    )
    assert report["taken"]
    assert 10_000 < (IMAGES / f"{name}.jpg").stat().st_size < MOST_BYTES
