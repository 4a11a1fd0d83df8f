"""What goes wrong: hostile names, files that are no photos, a server that goes away, no network."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from issuing import SECRET, Issuer
from page.browsing import FOLDER, Browser, check, missing, page_of
from page.photos import EMPTY_PLACE
from serving import free_port, serving, started

HOSTILE = (
    "<img src=x onerror=alert(1)>.jpg",
    "\"><svg onload=alert(2)>'.jpg",
    "javascript:alert(3).jpg",
    "${alert(4)}{{alert(5)}}&lt;b&gt;.jpg",
    "photo\u202egpj.exe.jpg",
    "..\\..\\evil.jpg",
    "CON.jpg",
)


def test_a_files_name_is_text_and_nothing_else(play: Any, taken: Any, tmp_path: Path) -> None:
    files = [tmp_path / name for name in HOSTILE]
    for file in files:
        shutil.copy(taken.single.path, file)
    report = play("names", files=files)
    assert report["dialogs"] == []
    assert report["planted"] == 0
    for name, text in zip(HOSTILE, report["listed"], strict=True):
        assert name in text
    with zipfile.ZipFile(report["all"][0]["path"]) as archive:
        names = archive.namelist()
    assert len(names) == len(HOSTILE) + 1
    for name in [*names, report["one"][0]["name"]]:
        assert not set(name) & set('/\\:<>"|?*\u202e'), name
        assert name.isprintable()
        assert not name.startswith(".")
        assert name.split(".")[0].upper() != "CON"


def test_files_that_are_no_photos_are_named_with_their_reason(
    play: Any, taken: Any, tmp_path: Path
) -> None:
    whole = taken.single.path.read_bytes()
    files = {
        "notes.txt": b"Buy milk.",
        "text.jpg": b"Buy milk.",
        "empty.jpg": b"",
        "broken.jpg": whole[: len(whole) // 2],
        "phone.heic": b"\0\0\0\x18ftypheic" + bytes(200),
    }
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    bad = [tmp_path / name for name in files]
    report = play("refusals", problems="422", files=bad, good=taken.single.path)
    said = dict(zip([*files, "single.jpg"], report["said"], strict=True))
    assert "Not a picture" in said["notes.txt"]
    assert "Not a picture" in said["text.jpg"]
    assert "empty" in said["empty.jpg"]
    assert "HEIC" in said["phone.heic"]
    assert "1 hidden" in said["single.jpg"]
    assert "hidden" not in said["broken.jpg"]
    assert len(said["broken.jpg"].splitlines()) > 1


def test_the_page_waits_for_a_server_that_is_gone_and_loses_nothing(
    browser: Browser, taken: Any, tmp_path: Path
) -> None:
    flags = ("--http-port", str(free_port()))
    with ExitStack() as stack:
        server = stack.enter_context(serving(*flags))
        report = browser.play(
            "away",
            page_of(server),
            asked={
                "stop": server.kill,
                "start": lambda: stack.enter_context(serving(*flags)),
            },
            downloads=tmp_path,
            files=[taken.group.path, taken.pair.path],
            size=taken.group.size,
            draw=EMPTY_PLACE,
        )
        check(report, page_of(server), problems="net::ERR_")
    assert len(report["lost"]) == 4
    assert report["back"] == report["lost"]


def test_the_page_asks_for_a_token_where_the_server_does(
    browser: Browser, taken: Any, tmp_path: Path
) -> None:
    secret = tmp_path / "secret"
    secret.write_text(SECRET)
    with serving("--http-port", "0", "--jwt-secret-file", str(secret)) as server:
        report = browser.play(
            "token",
            page_of(server),
            file=taken.single.path,
            wrong="wrong",
            right=Issuer().token(scope="detect anonymize"),
        )
        check(report, page_of(server), problems="401")
    assert report["faces"] == 1


def test_the_page_works_where_there_is_no_network(taken: Any, tmp_path: Path) -> None:
    if lacks := missing():
        pytest.skip(lacks)
    alone = str(FOLDER / "offline.py")
    if subprocess.run([sys.executable, alone, "--try"], capture_output=True).returncode:
        pytest.skip("this user may not make a network namespace")
    enter = shutil.which("nsenter") or pytest.skip("there is no nsenter on this machine")
    with started(alone, "--port", "0", "--http-port", "0") as server:
        server.wait_until_announced()
        within = (enter, "--target", str(server.process.pid), "--net", "--")
        with Browser(within=within) as browser:
            report = browser.play(
                "selfCheck",
                page_of(server),
                downloads=tmp_path,
                file=taken.unsure.path,
                threshold=70,
            )
        check(report, page_of(server))
    assert report["residual"] == 1


def test_who_leaves_with_photos_that_are_not_saved_is_asked(play: Any, taken: Any) -> None:
    report = play("leaving", file=taken.single.path)
    assert report["unsaved"] == ["beforeunload"]
    assert report["saved"] == []
