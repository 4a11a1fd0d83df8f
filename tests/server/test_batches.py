"""Many pictures over REST: forms answered with a ZIP, and ZIPs that are downloaded as they grow."""

from __future__ import annotations

import hashlib
import io
import json
import re
import subprocess
import time
import zipfile
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from http.client import IncompleteRead
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from PIL import Image
from rest_calls import Answer, ask, dialled, file, form, form_type, head, post, post_form, text
from serving import ServerProcess, serving

REPORT = "unface-report.json"


@pytest.fixture(scope="module")
def strict() -> Iterator[ServerProcess]:
    limits = ("--max-message-bytes", "200000", "--http-batch-bytes", "600000")
    with serving("--http-port", "0", *limits) as running:
        yield running
        assert running.terminate() == 0
        assert "Traceback" not in running.log, running.log


def opened(answer: Answer) -> tuple[zipfile.ZipFile, list[dict[str, Any]]]:
    """Return the ZIP of an answer, and what its report says."""
    assert answer.status == 200, answer.body
    assert answer.headers["content-type"] == "application/zip"
    assert answer.headers["content-disposition"].startswith('attachment; filename="unface.zip"')
    archive = zipfile.ZipFile(io.BytesIO(answer.body))
    assert archive.testzip() is None
    return archive, json.loads(archive.read(REPORT))["files"]


# --- POST /v1/batch -------------------------------------------------------------------------------


def test_a_batch_is_a_zip_of_covered_pictures(door: ServerProcess, photo: bytes) -> None:
    single = post(door.http, "/v1/anonymize", photo, method="solid", format="png").body
    answer = post_form(
        door.http,
        "/v1/batch",
        text("method", "solid"),
        text("format", "png"),
        file(photo, "Ferien/a.jpg"),
        file(photo, "b.jpg"),
        file(photo, "a.png"),
    )
    archive, report = opened(answer)
    assert archive.namelist() == ["a.png", "b.png", "a (2).png", REPORT]
    assert archive.read("a.png") == archive.read("b.png") == single
    assert report[0] == {
        "name": "Ferien/a.jpg",
        "stored": "a.png",
        "faces": 1,
        "kept": 0,
        "verification": None,
        "error": None,
    }


def test_an_error_of_one_is_its_entry_and_its_original_is_not_in_the_zip(
    door: ServerProcess, photo: bytes
) -> None:
    secret = b"\xff\xd8\xff SECRET"
    answer = post_form(
        door.http,
        "/v1/batch",
        file(photo, "a.jpg"),
        file(secret, "b.jpg"),
        file(b"", "c.jpg"),
        file(photo, "d.jpg"),
    )
    archive, report = opened(answer)
    assert archive.namelist() == ["a.jpg", "d.jpg", REPORT]
    assert b"SECRET" not in answer.body
    assert [entry["stored"] for entry in report] == ["a.jpg", None, None, "d.jpg"]
    error = report[1]["error"]
    assert (error["reason"], error["status"]) == ("InvalidImage", 422)
    assert error["request_id"] == answer.headers["unface-request-id"] + ".2"


def test_checks_and_records_come_with_each(door: ServerProcess, photo: bytes) -> None:
    answer = post_form(
        door.http,
        "/v1/batch",
        text("verify", "true"),
        text("audit", "true"),
        file(photo, "a.jpg"),
        file(photo, "a.jpg.audit.json"),
    )
    archive, report = opened(answer)
    assert archive.namelist() == [
        "a.jpg",
        "a.jpg.audit.json",
        "a.jpg.audit.json.jpg",
        "a.jpg.audit.json.jpg.audit.json",
        REPORT,
    ]
    assert report[0]["verification"]["clean"] is True
    record = json.loads(archive.read("a.jpg.audit.json"))["record"]
    assert record["output"]["sha256"] == hashlib.sha256(archive.read("a.jpg")).hexdigest()


@pytest.mark.parametrize(
    "name",
    [
        "../../../etc/cron.d/x",
        "/etc/passwd",
        "..\\..\\x.bat",
        "C:\\x",
        "\u202egpj.exe",
        "..",
        "con",
        "a\0b.jpg",
        REPORT,
        "<script>alert(1)</script>.jpg",
        "x" * 5000,
    ],
)
def test_no_name_leads_out_of_the_zip(
    door: ServerProcess, photo: bytes, name: str, tmp_path: Path
) -> None:
    answer = post_form(door.http, "/v1/batch", file(photo, name))
    archive, (entry,) = opened(answer)
    stored, report = archive.namelist()
    assert entry["stored"] == stored
    assert report == REPORT
    assert not set(stored) & set("/\\:<>\0\u202e")
    (tmp_path / "x").mkdir()
    (tmp_path / "x.zip").write_bytes(answer.body)
    subprocess.run(["unzip", "-q", "-d", "x", "x.zip"], cwd=tmp_path, check=True)
    assert {path.name for path in (tmp_path / "x").iterdir()} == {stored, report}
    assert {path.name for path in tmp_path.iterdir()} == {"x", "x.zip"}


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        ([], "cannot be read|no file"),
        ([text("method", "solid")], "no file"),
        ([file(b"x"), text("method", "solid")], "'method' comes after a file"),
        ([text("answer", "json"), file(b"x")], "'answer' is no option of batch"),
        ([text("method", "x"), file(b"x")], "method is 'x'"),
        ([text("method", "solid"), text("method", "solid"), file(b"x")], "given twice"),
        ([file(b"x", field="photo")], "belongs into `image`"),
        ([file(b"")] * 1001, "more than 1000 files"),
    ],
)
def test_a_batch_that_makes_no_sense_is_refused(
    door: ServerProcess, parts: list[bytes], words: str
) -> None:
    answer = post_form(door.http, "/v1/batch", *parts)
    assert (answer.status, answer.reason) == (400, "InvalidOption")
    assert any(word in answer.json["detail"] for word in words.split("|")), answer.json


def test_a_batch_is_a_form(door: ServerProcess, photo: bytes) -> None:
    assert post(door.http, "/v1/batch", photo).reason == "InvalidOption"
    kind = {"content-type": "application/zip"}
    assert post(door.http, "/v1/batch", photo, kind).reason == "UnsupportedMediaType"


def test_a_batch_is_bounded_in_and_out(strict: ServerProcess, photo: bytes) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (220, 300, 3), np.uint8)
    noise = io.BytesIO()
    Image.fromarray(pixels).save(noise, "JPEG", quality=60)
    large = {**form_type(), "content-length": "600001"}
    declared = ask(strict.http, "POST", "/v1/batch", headers=large)
    assert (declared.status, declared.reason) == (413, "ImageTooLarge")
    body = form(*[file(noise.getvalue())] * 40)
    pieces = (body[n : n + 9999] for n in range(0, len(body), 9999))
    chunked = ask(strict.http, "POST", "/v1/batch", pieces, form_type())
    assert (chunked.status, chunked.reason) == (413, "ImageTooLarge")
    as_png = (text("format", "png"), *[file(noise.getvalue())] * 8)
    grown = post_form(strict.http, "/v1/batch", *as_png)
    assert (grown.status, grown.reason) == (413, "ImageTooLarge")
    assert "covered pictures" in grown.json["detail"]
    mixed = (file(photo), file(bytes(300_000)), file(photo))
    _, report = opened(post_form(strict.http, "/v1/batch", *mixed))
    errors = [entry["error"] and entry["error"]["reason"] for entry in report]
    assert errors == [None, "ImageTooLarge", None]


def test_a_batch_whose_client_leaves_is_forgotten(door: ServerProcess, photo: bytes) -> None:
    process = psutil.Process(door.process.pid)
    body = form(*[file(photo)] * 30)
    sent = head(
        door.http,
        "POST",
        "/v1/batch",
        f"content-length: {len(body)}",
        f"content-type: {form_type()['content-type']}",
    )
    for _ in range(10):
        with dialled(door.http) as connection:
            connection.sendall(sent + body[: len(body) // 2])
    assert post(door.http, "/v1/detect", photo).status == 200
    assert process.memory_info().rss < 300 << 20


# --- /v1/archives ---------------------------------------------------------------------------------


class Growing:
    """An archive that is downloaded on another thread."""

    def __init__(self, server: ServerProcess, threads: ThreadPoolExecutor) -> None:
        answer = post(server.http, "/v1/archives", b"")
        assert answer.status == 201
        self.url, self.id = server.http, answer.json["id"]
        assert re.fullmatch("[0-9a-f]{32}", self.id)
        self.download: Future[Answer] = threads.submit(ask, self.url, "GET", self.path())

    def path(self, *more: str) -> str:
        return "/".join(["/v1/archives", self.id, *more])

    def add(self, content: bytes, **query: str) -> Answer:
        return post(self.url, self.path("files"), content, **query)

    def close(self) -> Answer:
        return post(self.url, self.path("close"), b"")


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor() as pool:
        yield pool


def test_an_archive_grows_while_it_is_downloaded(
    door: ServerProcess, photo: bytes, threads: ThreadPoolExecutor
) -> None:
    growing = Growing(door, threads)
    first = growing.add(photo, name="../Ferien é.png", method="solid", audit="true")
    assert first.json["faces"][0]["score"] > 0.9
    assert "image" not in first.json
    wrong = growing.add(b"SECRET", name="b.jpg")
    assert (wrong.status, wrong.reason) == (422, "InvalidImage")
    odd = growing.add(photo, name="c.jpg", method="x")
    assert (odd.status, odd.reason) == (400, "InvalidOption")
    parts = form(text("format", "webp"), file(photo, "Ferien é.jpg"))
    assert post(door.http, growing.path("files"), parts, form_type()).status == 200
    assert growing.add(photo).status == 200
    closed = growing.close()
    archive, report = opened(growing.download.result())
    assert closed.json == {"files": report, "left_out": 0}
    assert archive.namelist() == [
        "Ferien é.jpg",
        "Ferien é.jpg.audit.json",
        "Ferien é.webp",
        "picture.jpg",
        REPORT,
    ]
    assert [(entry["name"], entry["stored"]) for entry in report] == [
        ("../Ferien é.png", "Ferien é.jpg"),
        ("b.jpg", None),
        ("Ferien é.jpg", "Ferien é.webp"),
        ("picture", "picture.jpg"),
    ]
    assert report[1]["error"]["reason"] == "InvalidImage"
    assert b"SECRET" not in growing.download.result().body
    for later in (growing.add(photo), growing.close(), ask(door.http, "GET", growing.path())):
        assert (later.status, later.reason) == (410, "Gone")


def test_a_name_is_bounded(door: ServerProcess, photo: bytes, threads: ThreadPoolExecutor) -> None:
    growing = Growing(door, threads)
    refused = growing.add(photo, name="é" * 513)
    assert (refused.status, refused.reason) == (400, "InvalidOption")
    assert refused.json["detail"] == "name is longer than 1024 bytes"
    assert growing.add(photo, name="é" * 512).status == 200
    growing.close()
    archive, (entry,) = opened(growing.download.result())
    assert entry["name"] == "é" * 255
    assert archive.namelist() == [entry["stored"], REPORT]


def test_an_upload_that_breaks_off_does_no_harm_to_the_others(
    door: ServerProcess, photo: bytes, threads: ThreadPoolExecutor
) -> None:
    id = post(door.http, "/v1/archives", b"").json["id"]
    path = f"/v1/archives/{id}/files?name=left.jpg"
    for _ in range(3):
        with dialled(door.http) as connection:
            connection.sendall(
                head(door.http, "POST", path, f"content-length: {len(photo)}") + photo
            )
            time.sleep(0.5)  # it waits for the download
    download = threads.submit(ask, door.http, "GET", f"/v1/archives/{id}")
    other = post(door.http, f"/v1/archives/{id}/files", photo, name="other.jpg")
    assert other.status == 200
    assert post(door.http, f"/v1/archives/{id}/close", b"").status == 200
    archive, report = opened(download.result())
    assert archive.namelist() == ["other.jpg", REPORT]
    assert [entry["stored"] for entry in report] == ["other.jpg"]


def test_an_archive_that_is_given_up_ends_at_once(
    door: ServerProcess, photo: bytes, threads: ThreadPoolExecutor
) -> None:
    growing = Growing(door, threads)
    assert growing.add(photo).status == 200
    answer = ask(door.http, "DELETE", growing.path())
    assert (answer.status, answer.body) == (204, b"")
    assert isinstance(growing.download.exception(10), (IncompleteRead, ConnectionError))
    for later in (growing.add(photo), ask(door.http, "DELETE", growing.path())):
        assert (later.status, later.reason) == (410, "Gone")


def test_sixteen_may_post_at_once(
    door: ServerProcess, photo: bytes, threads: ThreadPoolExecutor
) -> None:
    growing = Growing(door, threads)
    answers = list(threads.map(lambda n: growing.add(photo, name=f"{n}.jpg"), range(16)))
    assert {answer.status for answer in answers} == {200}
    growing.close()
    archive, _ = opened(growing.download.result())
    assert set(archive.namelist()) == {REPORT, *(f"{n}.jpg" for n in range(16))}


def test_an_archive_whose_download_leaves_is_gone(door: ServerProcess, photo: bytes) -> None:
    id = post(door.http, "/v1/archives", b"").json["id"]
    with dialled(door.http) as connection:
        connection.sendall(head(door.http, "GET", f"/v1/archives/{id}"))
        assert connection.recv(12) == b"HTTP/1.1 200"
        assert post(door.http, f"/v1/archives/{id}/files", photo).status == 200
    while (answer := post(door.http, f"/v1/archives/{id}/files", photo)).status == 200:
        pass
    assert (answer.status, answer.reason) == (410, "Gone")


def test_an_archive_that_is_cut_off_does_not_look_whole(
    photo: bytes, threads: ThreadPoolExecutor
) -> None:
    with serving("--http-port", "0") as server:
        growing = Growing(server, threads)
        assert growing.add(photo).status == 200
        assert server.terminate() == 0
        error = growing.download.exception()
    assert isinstance(error, (IncompleteRead, ConnectionError))


def test_ids_that_there_are_not(door: ServerProcess, photo: bytes) -> None:
    for id in ("0", "0" * 32, "..%2f..", "%00"):
        for verb, path in (("GET", ""), ("POST", "/files"), ("POST", "/close")):
            answer = ask(door.http, verb, f"/v1/archives/{id}{path}")
            assert answer.status in (404, 410)


def test_there_are_only_so_many_archives(photo: bytes) -> None:
    with serving("--http-port", "0") as server:
        assert [post(server.http, "/v1/archives", b"").status for _ in range(8)] == [201] * 8
        answer = post(server.http, "/v1/archives", b"")
        assert (answer.status, answer.reason) == (429, "Overloaded")
        assert int(answer.headers["retry-after"]) > 0
