"""REST as people use it: what gRPC answers, over HTTP."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection
from io import BytesIO
from typing import Any
from urllib.request import urlopen

import grpc
import numpy as np
import pytest
from issuing import Issuer
from numpy.typing import NDArray
from PIL import Image
from rest_calls import Answer, ask, file, head, post, post_form, raw, text
from serving import ServerProcess, serving, serving_oddly

from unface.v1 import unface_pb2 as pb
from unface.v1.unface_pb2_grpc import UnfaceStub
from unface.web.pages import FOLDER

FACE = [176, 60, 265, 171]  # about there


@pytest.fixture(scope="module")
def stub(door: ServerProcess) -> Iterator[UnfaceStub]:
    with grpc.insecure_channel(door.target) as channel:
        yield UnfaceStub(channel)


def series(server: ServerProcess, line: str) -> float:
    """Return the value of a series, 0 where there is none."""
    found = re.search(r"unface metrics on (\S+)", server.log)
    assert found
    with urlopen(found[1]) as page:  # noqa: S310 - the server's own
        value = re.search(rf"^{re.escape(line)} (\S+)$", page.read().decode(), re.M)
    return float(value[1]) if value else 0.0


def requests(server: ServerProcess, method: str, code: str, reason: str = "") -> float:
    labels = f'code="{code}",method="{method}",reason="{reason}"'
    return series(server, f"unface_requests_total{{{labels}}}")


def picture(width: int, height: int = 60, format: str = "PNG") -> bytes:
    file = BytesIO()
    Image.fromarray(np.zeros((height, width, 3), np.uint8)).save(file, format)
    return file.getvalue()


def near(face: dict[str, Any]) -> bool:
    return bool(np.allclose(face["box"], FACE, atol=6))


# --- detect ---------------------------------------------------------------------------------------


def test_faces_are_those_of_grpc(door: ServerProcess, photo: bytes, stub: UnfaceStub) -> None:
    rest = post(door.http, "/v1/detect", photo).json
    rpc = stub.Detect(pb.DetectRequest(image=pb.Image(encoded=photo)))
    assert (rest["width"], rest["height"]) == (rpc.width, rpc.height) == (512, 512)
    assert (rest["backend"], rest["precision"]) == (rpc.backend, rpc.precision)
    assert rest["profile"] == "accurate"
    (face,), (other,) = rest["faces"], rpc.faces
    assert near(face)
    sides = [other.box.x1, other.box.y1, other.box.x2, other.box.y2]
    assert face["box"] == pytest.approx(sides, abs=1e-3)
    assert face["score"] == pytest.approx(other.score, abs=1e-6)
    assert face["landmarks"]["nose"] == pytest.approx(
        [other.landmarks.nose.x, other.landmarks.nose.y], abs=1e-3
    )
    assert face["landmarks"].keys() == {
        "left_eye",
        "right_eye",
        "nose",
        "mouth_left",
        "mouth_right",
    }
    assert rest["timings_ms"].keys() >= {"queue", "decode", "detect"}
    assert rest["timings_ms"]["detect"] > 0


@pytest.mark.parametrize("kind", ["image/jpeg", "image/png", "application/octet-stream", None])
def test_a_body_is_a_picture_whatever_kind_of_picture_it_says(
    door: ServerProcess, photo: bytes, kind: str | None
) -> None:
    headers = {} if kind is None else {"content-type": kind}
    assert len(ask(door.http, "POST", "/v1/detect", photo, headers).json["faces"]) == 1


def test_a_form_is_the_same(door: ServerProcess, photo: bytes) -> None:
    parts = (file(photo), text("profile", "privacy"), text("min_face", "40"))
    for given in (parts, parts[::-1]):  # options may come after the file
        answer = post_form(door.http, "/v1/detect", *given).json
        assert answer["profile"] == "privacy"
        assert len(answer["faces"]) == 1
    mixed = post_form(door.http, "/v1/detect", file(photo), profile="fast")
    assert mixed.json["precision"] == "int8"


def test_a_body_in_chunks_is_the_same(door: ServerProcess, photo: bytes) -> None:
    pieces = (photo[n : n + 1000] for n in range(0, len(photo), 1000))
    answer = ask(door.http, "POST", "/v1/detect", pieces, {"content-type": "image/jpeg"})
    assert len(answer.json["faces"]) == 1


def test_options_do_what_they_do_over_grpc(door: ServerProcess, photo: bytes) -> None:
    assert post(door.http, "/v1/detect", photo, min_face="300").json["faces"] == []
    assert post(door.http, "/v1/detect", photo, onet_threshold="0.99999").json["faces"] == []
    assert len(post(door.http, "/v1/detect", photo, thresholds="0.6,0.7,0.9").json["faces"]) == 1


def test_one_connection_takes_many_calls(door: ServerProcess, photo: bytes) -> None:
    connection = HTTPConnection(door.http.removeprefix("http://"), timeout=30)
    for path in ("/v1/detect", "/v1/nothing", "/v1/anonymize", "/v1/detect"):
        connection.request("POST", path, photo, {"content-type": "image/jpeg"})
        socket = connection.sock
        answer = connection.getresponse()
        assert answer.status == (404 if path == "/v1/nothing" else 200)
        answer.read()
        assert connection.sock is socket
    connection.close()


# --- anonymize ------------------------------------------------------------------------------------


def test_the_picture_is_that_of_grpc(door: ServerProcess, photo: bytes, stub: UnfaceStub) -> None:
    rest = post(door.http, "/v1/anonymize", photo, method="solid", format="png", audit="true")
    rpc = stub.Anonymize(
        pb.AnonymizeRequest(
            image=pb.Image(encoded=photo),
            anonymize_options=pb.AnonymizeOptions(
                method=pb.MASK_METHOD_SOLID, format=pb.OUTPUT_FORMAT_PNG
            ),
        )
    )
    assert rest.body == rpc.image.encoded
    assert rest.headers["content-type"] == "image/png"
    assert rest.headers["unface-faces"] == "1"
    assert rest.headers["unface-kept"] == "0"
    assert rest.headers["unface-backend"] == rpc.backend
    assert "unface-residual" not in rest.headers
    assert "content-disposition" not in rest.headers
    assert int(rest.headers["content-length"]) == len(rest.body)


@pytest.mark.parametrize(
    ("format", "kind"), [("jpeg", "image/jpeg"), ("png", "image/png"), ("webp", "image/webp")]
)
def test_the_answer_says_what_it_is(
    door: ServerProcess, photo: bytes, format: str, kind: str
) -> None:
    answer = post(door.http, "/v1/anonymize", photo, format=format)
    assert answer.headers["content-type"] == kind
    assert Image.open(BytesIO(answer.body)).format == format.upper()


def test_a_file_that_has_a_name_is_saved_under_it(door: ServerProcess, photo: bytes) -> None:
    answer = post_form(
        door.http, "/v1/anonymize", file(photo, "../Ferien é.png"), text("format", "jpeg")
    )
    assert answer.headers["content-disposition"] == (
        "attachment; filename=\"Ferien _.jpg\"; filename*=UTF-8''Ferien%20%C3%A9.jpg"
    )


def test_the_answer_may_be_json(door: ServerProcess, photo: bytes) -> None:
    plain = post(door.http, "/v1/anonymize", photo).body
    whole = post(door.http, "/v1/anonymize", photo, answer="json")
    assert whole.headers["content-type"] == "application/json"
    assert base64.b64decode(whole.json["image"], validate=True) == plain
    asked = post(door.http, "/v1/anonymize", photo, {"accept": "application/json"})
    assert asked.json["image"] == whole.json["image"]
    report = post(door.http, "/v1/anonymize", photo, answer="report").json
    assert report.keys() == whole.json.keys() - {"image"}
    assert (report["format"], report["kept"]) == ("jpeg", [])
    assert (report["verification"], report["audit"]) == (None, None)
    assert near(report["faces"][0])
    said = post(door.http, "/v1/anonymize", photo, {"accept": "application/json"}, answer="image")
    assert said.body == plain


def test_a_large_picture_in_json_is_whole(door: ServerProcess) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (700, 900, 3), np.uint8)
    sent = BytesIO()
    Image.fromarray(pixels).save(sent, "PNG")
    answer = post(door.http, "/v1/anonymize", sent.getvalue(), answer="json", cover_only="true")
    back = Image.open(BytesIO(base64.b64decode(answer.json["image"])))
    assert np.array_equal(np.asarray(back), pixels)
    assert answer.headers["content-length"] == str(len(answer.body))


def test_faces_may_be_kept_and_places_covered(
    door: ServerProcess, photo: bytes, astronaut: NDArray[np.uint8]
) -> None:
    png = {"format": "png", "method": "solid", "color": "255,0,255", "shape": "rectangle"}
    kept = post(door.http, "/v1/anonymize", photo, keep=json.dumps([FACE]), **png)
    assert (kept.headers["unface-kept"], kept.headers["unface-faces"]) == ("1", "0")
    covered = post(
        door.http, "/v1/anonymize", photo, cover="[[300,300,340,340]]", cover_only="true", **png
    )
    pixels = np.asarray(Image.open(BytesIO(covered.body)))
    assert (pixels[320, 320] == (255, 0, 255)).all()
    assert not (pixels[110, 220] == (255, 0, 255)).all()


def test_the_result_may_be_searched_again_and_recorded(door: ServerProcess, photo: bytes) -> None:
    report = post(
        door.http, "/v1/anonymize", photo, verify="true", audit="true", answer="report"
    ).json
    assert report["verification"]["clean"] is True
    assert report["verification"]["residual"] == []
    assert report["audit"]["record"]["unface_audit"] == 1
    kept = post(
        door.http, "/v1/anonymize", photo, verify="0", cover="[[0,0,9,9]]", cover_only="true"
    )
    assert kept.headers["unface-residual"] == "1"


# --- errors ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "query", "status", "reason", "words"),
    [
        (b"", {}, 422, "InvalidImage", "empty"),
        (b"no picture", {}, 422, "InvalidImage", "not accepted"),
        (None, {"min_face": "1"}, 400, "InvalidOption", "min_face is 1"),
        (None, {"min_face": "x"}, 400, "InvalidOption", "min_face is 'x'; it must be a number"),
        (None, {"profile": ""}, 400, "InvalidOption", "profile"),
        (None, {"profile": "slow"}, 400, "InvalidOption", "profile is 'slow'"),
        (None, {"thresholds": "2,2,2"}, 400, "InvalidOption", "thresholds"),
        (None, {"minface": "20"}, 400, "InvalidOption", "'minface' is no option of detect"),
        (None, {"method": "solid"}, 400, "InvalidOption", "'method' is no option of detect"),
    ],
)
def test_errors_say_what_was_wrong(
    door: ServerProcess,
    photo: bytes,
    body: bytes | None,
    query: dict[str, str],
    status: int,
    reason: str,
    words: str,
) -> None:
    answer = post(door.http, "/v1/detect", photo if body is None else body, **query)
    assert (answer.status, answer.reason) == (status, reason)
    assert words in answer.json["detail"]


def test_a_name_that_is_given_twice_is_refused_wherever_it_stands(
    door: ServerProcess, photo: bytes
) -> None:
    answer = post_form(
        door.http, "/v1/detect", text("profile", "fast"), file(photo), profile="fast"
    )
    assert (answer.status, answer.reason) == (400, "InvalidOption")
    assert "profile is given twice" in answer.json["detail"]
    twice = ask(door.http, "POST", "/v1/detect?profile=fast&profile=fast", photo)
    assert twice.reason == "InvalidOption"


def test_paths_and_methods_that_there_are_not(door: ServerProcess) -> None:
    for path in ("/v1", "/v1/", "/v1/detect/", "/v2/detect", "/docs", "/openapi.json", "/metrics"):
        answer = ask(door.http, "GET", path)
        assert (answer.status, answer.reason) == (404, "NotFound"), path
    for verb, path, allowed in (
        ("GET", "/v1/detect", "POST"),
        ("PUT", "/v1/anonymize", "POST"),
        ("POST", "/", "GET, HEAD"),
        ("OPTIONS", "/v1/detect", "POST"),
    ):
        answer = ask(door.http, verb, path)
        assert (answer.status, answer.reason) == (405, "MethodNotAllowed")
        assert answer.headers["allow"] == allowed


def test_a_defect_is_told_by_its_id_alone_and_others_are_unharmed() -> None:
    with serving_oddly("--http-port", "0") as server:
        answer = post(server.http, "/v1/detect", picture(78), {"unface-request-id": "odd.1"})
        assert (answer.status, answer.reason) == (500, "Internal")
        assert "odd.1" in answer.json["detail"]
        assert "/secret" not in answer.body.decode()
        assert post(server.http, "/v1/detect", picture(79)).reason == "EngineError"
        lost = post(server.http, "/v1/detect", picture(74))
        assert (lost.status, lost.reason) == (503, "WorkerLost")
        assert post(server.http, "/v1/detect", picture(80)).status in (200, 503)
        assert server.terminate() == 0


def test_where_there_is_no_room_one_is_told_when_to_come_again() -> None:
    flags = ("--http-port", "0", "--slow", "1", "--queue-size", "1", "--workers", "1")
    with (
        serving_oddly(*flags, "--batch-size", "1") as server,
        ThreadPoolExecutor(9) as threads,
    ):
        answers = list(
            threads.map(lambda _: post(server.http, "/v1/detect", picture(77)), range(9))
        )
    refused = [answer for answer in answers if answer.status != 200]
    assert refused
    for answer in refused:
        assert (answer.status, answer.reason) == (429, "Overloaded")
        assert int(answer.headers["retry-after"]) >= 1
        assert answer.json["retry_ms"] > 0


# --- what it tells --------------------------------------------------------------------------------


def test_ids_are_the_clients_own_where_they_are_fit_to_be(
    door: ServerProcess, photo: bytes
) -> None:
    answer = post(door.http, "/v1/detect", photo, {"unface-request-id": "mine-1"})
    assert answer.headers["unface-request-id"] == answer.json["request_id"] == "mine-1"
    made = post(door.http, "/v1/detect", photo, {"unface-request-id": "a b"})
    assert re.fullmatch("[0-9a-f]{16}", made.headers["unface-request-id"])
    lost = ask(door.http, "GET", "/nothing", headers={"unface-request-id": "mine-2"})
    assert lost.json["request_id"] == "mine-2"


def test_requests_are_in_the_same_series_as_those_of_grpc(
    door: ServerProcess, photo: bytes
) -> None:
    before = [
        requests(door, "Detect", "OK"),
        requests(door, "Anonymize", "OK"),
        requests(door, "Detect", "INVALID_ARGUMENT", "InvalidImage"),
        requests(door, "Anonymize", "INVALID_ARGUMENT", "UnsupportedMediaType"),
    ]
    post(door.http, "/v1/detect", photo)
    post(door.http, "/v1/anonymize", photo)
    post(door.http, "/v1/detect", b"no picture")
    post(door.http, "/v1/anonymize", photo, {"content-type": "text/plain"})
    assert [
        requests(door, "Detect", "OK"),
        requests(door, "Anonymize", "OK"),
        requests(door, "Detect", "INVALID_ARGUMENT", "InvalidImage"),
        requests(door, "Anonymize", "INVALID_ARGUMENT", "UnsupportedMediaType"),
    ] == [count + 1 for count in before]


def test_requests_are_in_the_log_without_names_or_tokens(photo: bytes) -> None:
    with serving("--http-port", "0", "--log-format", "json") as server:
        headers = {"unface-request-id": "log.1", "traceparent": f"00-{'a' * 32}-{'b' * 16}-01"}
        headers |= {"authorization": "Bearer SECRET-TOKEN", "content-type": "image/jpeg"}
        ask(server.http, "POST", "/v1/detect?name=SECRET-NAME", photo, headers)
        ask(server.http, "POST", "/v1/detect", photo, headers)
        post_form(server.http, "/v1/anonymize", file(photo, "SECRET-NAME.jpg"))
        assert server.terminate() == 0
    entries = [json.loads(line) for line in server.lines if line.startswith("{")]
    told = [entry for entry in entries if entry["logger"] == "unface.access"]
    assert [(e["method"], e["code"]) for e in told] == [
        ("Detect", "INVALID_ARGUMENT"),
        ("Detect", "OK"),
        ("Anonymize", "OK"),
    ]
    assert told[1]["request_id"] == "log.1"
    assert told[1]["faces"] == 1
    assert "SECRET" not in server.log
    assert "127.0.0.1" not in "".join(map(json.dumps, entries))


def test_what_serves_is_told(door: ServerProcess, stub: UnfaceStub) -> None:
    info = ask(door.http, "GET", "/v1/info").json
    rpc = stub.GetServerInfo(pb.GetServerInfoRequest())
    assert (info["version"], info["backend"], info["threads"]) == (
        rpc.version,
        rpc.backend,
        rpc.threads,
    )
    assert info["limits"] == {"max_bytes": 64 << 20, "max_pixels": 100_000_000}
    assert info["formats"] == ["jpeg", "png", "webp"]
    profiles = {profile["name"]: profile for profile in info["profiles"]}
    assert profiles["accurate"]["thresholds"] == [0.6, 0.7, 0.7]
    assert profiles["fast"]["precision"] == "int8"
    assert len(info["engines"]) == len(rpc.engines)


# --- who may --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    folder = tmp_path_factory.mktemp("secret")
    (folder / "secret").write_text(Issuer().key)
    with serving("--http-port", "0", "--jwt-secret-file", str(folder / "secret")) as running:
        yield running


def bearer(scope: str) -> dict[str, str]:
    return {"authorization": f"Bearer {Issuer().token(scope=scope)}"}


@pytest.mark.parametrize(
    ("verb", "path", "scope"),
    [
        ("POST", "/v1/detect", "detect"),
        ("POST", "/v1/anonymize", "anonymize"),
        ("POST", "/v1/batch", "anonymize"),
        ("POST", "/v1/archives", "anonymize"),
        ("POST", "/v1/archives/0/files", "anonymize"),
        ("POST", "/v1/archives/0/close", "anonymize"),
        ("DELETE", "/v1/archives/0", "anonymize"),
        ("GET", "/v1/info", ""),
    ],
)
def test_a_call_needs_a_token_with_its_scope(
    secured: ServerProcess, verb: str, path: str, scope: str
) -> None:
    stranger = ask(secured.http, verb, path)
    assert (stranger.status, stranger.reason) == (401, "Unauthenticated")
    assert stranger.headers["www-authenticate"] == "Bearer"
    for wrong in ("Bearer x.y.z", "Basic eDp5", bearer("detect")["authorization"] + "x"):
        assert ask(secured.http, verb, path, headers={"authorization": wrong}).status == 401
    if scope:
        other = "admin" if scope == "detect" else "detect"
        lacking = ask(secured.http, verb, path, headers=bearer(other))
        assert (lacking.status, lacking.reason) == (403, "Forbidden")
        assert f'lacks the scope "{scope}"' in lacking.json["detail"]
    else:
        assert ask(secured.http, verb, path, headers=bearer("admin")).status == 200


def test_a_good_token_is_served(secured: ServerProcess, photo: bytes) -> None:
    assert post(secured.http, "/v1/detect", photo, bearer("detect")).status == 200
    assert post(secured.http, "/v1/anonymize", photo, bearer("anonymize")).status == 200


def test_two_tokens_are_none(secured: ServerProcess, photo: bytes) -> None:
    line = "authorization: " + bearer("detect")["authorization"]
    sent = head(
        secured.http, "POST", "/v1/detect", line, line, "content-length: 0", "connection: close"
    )
    assert raw(secured.http, sent).startswith(b"HTTP/1.1 401 ")


@pytest.mark.parametrize("path", ["/", "/page/docs.css", "/v1/docs", "/v1/openapi.json"])
def test_the_page_needs_no_token(secured: ServerProcess, path: str) -> None:
    assert ask(secured.http, "GET", path).status == 200


# --- many, and those who leave --------------------------------------------------------------------


def test_sixteen_at_once_are_served(door: ServerProcess, photo: bytes) -> None:
    def call(number: int) -> Answer:
        path = ("/v1/detect", "/v1/anonymize")[number % 2]
        return post(door.http, path, photo)

    with ThreadPoolExecutor(16) as threads:
        answers = list(threads.map(call, range(48)))
    assert {answer.status for answer in answers} == {200}
    assert len({answer.body for answer in answers[1::2]}) == 1


def test_pages_have_tags_by_which_they_are_kept(door: ServerProcess) -> None:
    for path in ("/", "/page/docs.css", "/v1/docs"):
        first = ask(door.http, "GET", path)
        assert first.headers["cache-control"] == "no-cache"
        again = ask(door.http, "GET", path, headers={"if-none-match": first.headers["etag"]})
        assert (again.status, again.body) == (304, b"")
        assert ask(door.http, "HEAD", path).body == b""
    assert first.headers["content-type"] == "text/html; charset=utf-8"


def test_a_page_has_no_other_files_than_its_own(door: ServerProcess) -> None:
    assert (FOLDER.parent / "pages.py").exists()
    for name in ("", "..", "../pages.py", "%2e%2e/pages.py", "..%2fpages.py", "/etc/passwd"):
        assert ask(door.http, "GET", f"/page/{name}").status == 404
