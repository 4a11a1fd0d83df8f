"""The clients and a real server with TLS, tokens, reports and reloads."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from issuing import SECRET, Authority, Issuer
from numpy.typing import NDArray
from serving import ServerProcess, serving

import unface
from unface.errors import Forbidden, ServerError, Unauthenticated, Unavailable

Image = NDArray[np.uint8]


@pytest.fixture(scope="module")
def ca(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("secured") / "ca.pem"


@pytest.fixture(scope="module")
def secured(ca: Path) -> Iterator[ServerProcess]:
    authority = Authority()
    ca.write_bytes(authority.pem)
    certificate, key = authority.issue().write(ca.parent, "server")
    secret = ca.parent / "secret"
    secret.write_text(SECRET)
    with serving(
        *("--tls-certificate", certificate, "--tls-key", key, "--jwt-secret-file", str(secret)),
        *("--quality-file", str(ca.parent / "quality.db")),
    ) as running:
        yield running
        assert running.terminate() == 0


@pytest.fixture(scope="module")
def access(ca: Path, secured: ServerProcess) -> dict[str, Any]:
    """What a client of the server needs but for the token."""
    return {"target": secured.target, "tls": ca, "retries": 0}


def test_a_good_token_opens_all_calls(access: dict[str, Any], face: Image) -> None:
    with unface.Client(token=Issuer().token(), **access) as client:
        client.wait_until_serving(10)
        assert len(client.detect(face)) == 1
        assert client.anonymize(face).shape == face.shape
        assert [len(a) for a in client.detect_stream([face]) if isinstance(a, unface.Faces)] == [1]
        assert client.reload().engines == client.info().engines

    async def run() -> None:
        async with unface.AsyncClient(token=Issuer().token, **access) as client:
            assert len(await client.detect(face)) == 1
            async for answer in client.anonymize_stream([face]):
                assert not isinstance(answer, Exception)

    asyncio.run(run())


def test_what_the_token_does_not_allow_is_an_error_that_says_so(
    access: dict[str, Any], face: Image
) -> None:
    with unface.Client(token=Issuer().token(scope="detect"), **access) as client:
        assert len(client.detect(face)) == 1
        with pytest.raises(Forbidden, match="anonymize") as caught:
            client.anonymize(face)
        assert caught.value.request_id
        with pytest.raises(Forbidden, match="admin"):
            client.reload()
        with pytest.raises(Forbidden, match="anonymize"):
            list(client.anonymize_stream([face] * 5))


@pytest.mark.parametrize("token", [None, "no.real.token"])
def test_without_a_good_token_nothing_is_done(
    access: dict[str, Any], face: Image, token: str | None
) -> None:
    frames = [np.zeros((500, 500, 3), np.uint8)] * 20
    with unface.Client(token=token, **access) as client:
        client.wait_until_serving(10)  # health is open
        with pytest.raises(Unauthenticated):
            client.detect(face)
        with pytest.raises(Unauthenticated):
            list(client.detect_stream(frames))

    async def run() -> None:
        async with unface.AsyncClient(token=token, **access) as client:
            with pytest.raises(Unauthenticated):
                async for _ in client.detect_stream(frames):
                    pass

    asyncio.run(run())


def test_without_tls_there_is_no_server(secured: ServerProcess, face: Image) -> None:
    with unface.Client(secured.target, retries=0) as client, pytest.raises(Unavailable):
        client.detect(face)


def test_a_report_names_the_request_that_went_wrong(access: dict[str, Any], face: Image) -> None:
    with unface.Client(token=Issuer().token(), **access) as client:
        faces = client.detect(face)
        assert faces.request_id
        assert faces.profile == "accurate"
        reported = client.report(
            face,
            missed=[(0, 0, 20, 20)],
            false_faces=[faces[0].box],
            request_id=faces.request_id,
            profile=faces.profile,
        )
        assert reported.report_id > 0
        assert not reported.crops_kept


def test_where_no_reports_are_kept_a_report_says_so(server: ServerProcess, face: Image) -> None:
    with unface.Client(server.target) as client, pytest.raises(ServerError, match="report"):
        client.report(face, missed=[(0, 0, 20, 20)])
