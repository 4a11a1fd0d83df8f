"""Photos come in by drop (as everywhere here), paste, folder and camera."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from page import photos


def test_a_picture_is_pasted(play: Any, tmp_path: Path) -> None:
    photo = photos.single(tmp_path / "single.png")
    assert play("paste", file=photo.path)["faces"] == 1


def test_a_folder_is_taken_with_the_folders_in_it(play: Any, taken: Any, tmp_path: Path) -> None:
    deep = tmp_path / "holiday" / "day 2" / "evening"
    deep.mkdir(parents=True)
    shutil.copy(taken.single.path, tmp_path / "holiday" / "first.jpg")
    shutil.copy(taken.pair.path, deep / "last.jpg")
    report = play("folder", folder=tmp_path / "holiday", photos=2)
    assert sum("first.jpg" in text for text in report["dropped"]) == 1
    assert sum("last.jpg" in text for text in report["dropped"]) == 1


def test_the_camera_takes_a_picture_and_is_switched_off_again(play: Any) -> None:
    report = play("camera")
    assert report["faces"] == 1
    assert report["during"]
    assert not report["after"]
