"""REST beside gRPC: the same calls on the same server, turn by turn."""

from __future__ import annotations

import http.client
from collections.abc import Callable
from functools import partial
from statistics import median
from urllib.parse import urlsplit

import grpc

from benchmarks.pictures import JPEG_QUALITY, draw
from benchmarks.serving_figures import Section, as_figures
from benchmarks.serving_server import serving
from benchmarks.serving_speed import ratios_of_blocks, spread, take_turns
from unface.anonymize import encode
from unface.v1 import unface_pb2 as pb
from unface.v1.unface_pb2_grpc import UnfaceStub

AS_FAST = 1.10  # of gRPC's median, at most
BOUNDARY = "a-boundary-that-no-picture-has"


def rest(seconds: float = 10) -> Section:
    """Time calls with a 1080p JPEG over gRPC and over HTTP, where it is the body or in a form."""
    section = Section("rest", {"server": "defaults"})
    jpeg = encode(draw("1080p", "few").image, "jpeg", quality=JPEG_QUALITY)
    with serving("--http-port", "0") as server, grpc.insecure_channel(server.target) as channel:
        stub, address = UnfaceStub(channel), urlsplit(server.http).netloc
        connection = http.client.HTTPConnection(address)
        image = pb.Image(encoded=jpeg)
        calls: dict[str, Callable[[], object]] = {
            "detect": partial(stub.Detect, pb.DetectRequest(image=image), timeout=30),
            "anonymize": partial(stub.Anonymize, pb.AnonymizeRequest(image=image), timeout=30),
        }
        for name, over_grpc in calls.items():
            for form in ("body", "form"):
                over_http = partial(post, connection, f"/v1/{name}", jpeg, form)
                pairs = take_turns(over_grpc, over_http, seconds)
                there, here = (median(column) for column in zip(*pairs, strict=True))
                ratios = ratios_of_blocks(pairs)
                section.add(
                    f"1080p JPEG, {name}: HTTP ({form}) to gRPC, p50",
                    f"{here / there:.3f} ({spread(ratios, '{:.3f}')}), {here:.1f} ms to "
                    f"{there:.1f} ms",
                    f"at most {AS_FAST:.2f}",
                    here / there <= AS_FAST,
                )
                section.figures[f"{name}, {form}"] = as_figures(
                    ratio=here / there, blocks=ratios, http_ms=here, grpc_ms=there
                )
        connection.close()
    return section


def post(connection: http.client.HTTPConnection, path: str, jpeg: bytes, form: str) -> bytes:
    """Send a picture over an open connection and return the answer's body."""
    kind, body = "image/jpeg", jpeg
    if form == "form":
        kind = f"multipart/form-data; boundary={BOUNDARY}"
        head = f'--{BOUNDARY}\r\ncontent-disposition: form-data; name="image"; filename="a.jpg"'
        body = f"{head}\r\n\r\n".encode() + jpeg + f"\r\n--{BOUNDARY}--\r\n".encode()
    connection.request("POST", path, body, {"content-type": kind})
    answer = connection.getresponse()
    content = answer.read()
    assert answer.status == 200, content[:500]
    return content
