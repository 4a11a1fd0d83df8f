"""A real server as those who watch it see it: metrics, probes and log of a few requests."""

from __future__ import annotations

import json
import re
import time
import urllib.request
from collections.abc import Iterator

import cv2
import grpc
import numpy as np
import pytest
from numpy.typing import NDArray
from prometheus_client.parser import text_string_to_metric_families
from serving import ServerProcess, serving

from unface.v1 import unface_pb2 as pb
from unface.v1.unface_pb2_grpc import UnfaceStub


@pytest.fixture(scope="module")
def watched() -> Iterator[ServerProcess]:
    with serving("--metrics-port", "0", "--log-format", "json") as server:
        yield server
        assert server.terminate() == 0


@pytest.fixture(scope="module")
def answer(watched: ServerProcess, astronaut: NDArray[np.uint8]) -> pb.AnonymizeResponse:
    """One picture that is answered, after one that is refused."""
    encoded = cv2.imencode(".jpg", cv2.cvtColor(astronaut, cv2.COLOR_RGB2BGR))[1].tobytes()
    with grpc.insecure_channel(watched.target) as channel:
        stub = UnfaceStub(channel)
        with pytest.raises(grpc.RpcError):
            stub.Detect(pb.DetectRequest(image=pb.Image(encoded=b"no picture")))
        return stub.Anonymize(pb.AnonymizeRequest(image=pb.Image(encoded=encoded)))


def get(server: ServerProcess, page: str) -> str:
    found = re.search(r"unface metrics on (http://\S+)/metrics", server.log)
    assert found, server.log
    with urllib.request.urlopen(found[1] + page, timeout=20) as reply:  # noqa: S310 - our own
        return str(reply.read().decode())


def test_a_server_that_serves_is_alive_and_ready(watched: ServerProcess) -> None:
    assert get(watched, "/healthz") == get(watched, "/readyz") == "ok\n"


def test_requests_are_in_the_metrics(watched: ServerProcess, answer: pb.AnonymizeResponse) -> None:
    samples = {
        (sample.name, *sorted(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(get(watched, "/metrics"))
        for sample in family.samples
    }
    assert samples["unface_requests_total", "", "Anonymize", "OK"] == 1
    assert samples["unface_requests_total", "Detect", "INVALID_ARGUMENT", "InvalidImage"] == 1
    assert samples["unface_face_score_sum",] == pytest.approx(answer.faces[0].score, abs=1e-5)
    assert samples["unface_picture_faces_count",] == 1
    assert samples["unface_pixels_total",] == 512 * 512
    assert samples["unface_workers",] == 1
    for step in ("queue", "decode", "detect", "mask", "encode"):
        told = getattr(answer.timings, f"{step}_ms") / 1000
        assert samples["unface_step_seconds_sum", step] >= told * 0.99


def test_requests_are_in_the_log_and_pictures_and_callers_are_not(
    watched: ServerProcess, answer: pb.AnonymizeResponse
) -> None:
    ends_at = time.monotonic() + 20
    while len(lines := [line for line in watched.lines if "unface.access" in line]) < 2:
        assert time.monotonic() < ends_at, watched.log  # a thread of its own writes them
        time.sleep(0.01)
    refused, answered = entries = [json.loads(line) for line in lines]
    assert (refused["method"], refused["reason"]) == ("Detect", "InvalidImage")
    assert answered["request_id"] == answer.request_id
    assert (answered["code"], answered["faces"], answered["pixels"]) == ("OK", 1, 512 * 512)
    assert "127.0.0.1" not in json.dumps(entries)
    assert all(len(json.dumps(entry)) < 600 for entry in entries)
