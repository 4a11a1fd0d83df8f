"""When a call is tried again, and when not: a real server with a script."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scripted_server import FOUND, Failure, Script, scripted

import unface
from unface.calls import FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS, Attempts
from unface.errors import (
    EngineError,
    Forbidden,
    ImageTooLarge,
    InvalidImage,
    InvalidOption,
    Overloaded,
    ServerError,
    Unauthenticated,
    Unavailable,
    UnfaceError,
)
from unface.v1 import unface_pb2 as pb
from unface.v1.unface_pb2_grpc import UnfaceStub

PICTURE = np.zeros((10, 20, 3), np.uint8)
Code = grpc.StatusCode
DOWN = Failure(Code.UNAVAILABLE)
FULL = Failure(Code.RESOURCE_EXHAUSTED, reason="Overloaded")

Call = Callable[..., Any]


def in_a_thread(target: str, method: str, *arguments: Any, **options: Any) -> Any:
    with unface.Client(target, **options) as client:
        return getattr(client, method)(*arguments)


def in_a_loop(target: str, method: str, *arguments: Any, **options: Any) -> Any:
    async def call() -> Any:
        async with unface.AsyncClient(target, **options) as client:
            return await getattr(client, method)(*arguments)

    return asyncio.run(call())


@pytest.fixture(params=[in_a_thread, in_a_loop], ids=["Client", "AsyncClient"])
def call(request: pytest.FixtureRequest) -> Call:
    """Either client, for one call."""
    found: Call = request.param
    return found


@pytest.mark.parametrize(
    "failure",
    [DOWN, FULL, Failure(Code.UNAVAILABLE, reason="WorkerLost"), Failure(Code.CANCELLED)],
)
def test_a_call_that_nobody_did_is_tried_again(call: Call, failure: Failure) -> None:
    with scripted(failure, failure, FOUND) as script:
        faces = call(script.target, "detect", PICTURE)
    assert (faces.width, faces.height, faces.request_id) == (20, 10, "r-1")
    assert len(script.seen) == 3
    assert script.seen[0].request == script.seen[2].request


@pytest.mark.parametrize("retries", [0, 1, 3])
def test_a_call_is_tried_again_so_often_and_no_more(call: Call, retries: int) -> None:
    with (
        scripted(Failure(Code.UNAVAILABLE, reason="Closed")) as script,
        pytest.raises(Unavailable, match="the server's own words") as caught,
    ):
        call(script.target, "detect", PICTURE, retries=retries)
    assert len(script.seen) == 1 + retries
    assert caught.value.request_id == "r-9"


@pytest.mark.parametrize(
    ("failure", "error"),
    [
        (Failure(Code.INVALID_ARGUMENT, reason="InvalidImage"), InvalidImage),
        (Failure(Code.INVALID_ARGUMENT, reason="ImageTooLarge"), ImageTooLarge),
        (Failure(Code.INVALID_ARGUMENT, reason="InvalidOption"), InvalidOption),
        (Failure(Code.UNAUTHENTICATED, reason="Unauthenticated"), Unauthenticated),
        (Failure(Code.UNAUTHENTICATED), Unauthenticated),
        (Failure(Code.PERMISSION_DENIED, reason="Forbidden"), Forbidden),
        (Failure(Code.PERMISSION_DENIED), Forbidden),
        (Failure(Code.DEADLINE_EXCEEDED, reason="Expired"), ServerError),
        (Failure(Code.INTERNAL, reason="EngineError"), EngineError),
        (Failure(Code.INTERNAL, reason="Internal"), ServerError),
        (Failure(Code.INTERNAL), ServerError),
        (Failure(Code.RESOURCE_EXHAUSTED), ServerError),
        (Failure(Code.RESOURCE_EXHAUSTED, "message larger than max"), ImageTooLarge),
        (Failure(Code.FAILED_PRECONDITION), ServerError),
        (Failure(Code.ABORTED), ServerError),
        (Failure(Code.UNKNOWN), ServerError),
    ],
    ids=lambda value: f"{value.code.name} {value.reason}" if isinstance(value, Failure) else "",
)
def test_any_other_failure_is_final(call: Call, failure: Failure, error: type[UnfaceError]) -> None:
    with scripted(failure, FOUND) as script, pytest.raises(error) as caught:
        call(script.target, "detect", PICTURE)
    assert type(caught.value) is error
    assert len(script.seen) == 1


def test_a_request_larger_than_grpc_takes_is_sent_once(call: Call) -> None:
    with scripted(FOUND, max_bytes=1000) as script, pytest.raises(ImageTooLarge, match="larger"):
        call(script.target, "detect", bytes(2000))
    assert script.seen == []


@pytest.mark.parametrize("pushback", ["-1", "soon", "", "1.5", "99999999999", "9" * 400])
def test_a_server_that_wants_no_other_try_gets_none(call: Call, pushback: str) -> None:
    full = Failure(Code.RESOURCE_EXHAUSTED, reason="Overloaded", pushback=pushback)
    with scripted(full, FOUND) as script, pytest.raises(Overloaded):
        call(script.target, "detect", PICTURE, timeout=None)
    assert len(script.seen) == 1


def test_a_pause_that_outlasts_the_call_is_not_begun(call: Call) -> None:
    """It ends with what the server said, while there is time to go elsewhere."""
    full = Failure(Code.RESOURCE_EXHAUSTED, reason="Overloaded", pushback="60000")
    with scripted(full, FOUND) as script, pytest.raises(Overloaded):
        call(script.target, "detect", PICTURE, timeout=50)
    assert len(script.seen) == 1


def test_all_tries_share_one_deadline(call: Call) -> None:
    soon = Failure(Code.UNAVAILABLE, pushback="300")
    with scripted(soon, soon, FOUND) as script:
        call(script.target, "detect", PICTURE, timeout=5)
    left = [seen.seconds_left for seen in script.seen if seen.seconds_left is not None]
    assert len(left) == 3
    assert 5.1 > left[0] > left[1] > left[2] > 0  # gRPC rounds deadlines up
    assert left[0] - left[2] >= 0.4  # the pauses count


def test_a_slow_server_is_not_asked_again(call: Call) -> None:
    over = threading.Event()

    def slow(request: Any, context: Any) -> Any:
        over.wait(20)
        return FOUND

    with scripted(slow, FOUND) as script:
        with pytest.raises(ServerError, match=r"no answer within 0.2 s; raise timeout"):
            call(script.target, "detect", PICTURE, timeout=0.2)
        over.set()
        assert len(script.seen) == 1


def test_what_serves_is_asked_again(call: Call) -> None:
    with scripted(DOWN, pb.GetServerInfoResponse(version="7")) as script:
        assert call(script.target, "info").version == "7"


@pytest.mark.parametrize(("method", "arguments"), [("report", (PICTURE,)), ("reload", ())])
@pytest.mark.parametrize("failure", [DOWN, FULL])
def test_what_must_not_happen_twice_is_not_tried_twice(
    call: Call, method: str, arguments: tuple[Any, ...], failure: Failure
) -> None:
    with scripted(failure) as script, pytest.raises((Unavailable, Overloaded)):
        call(script.target, method, *arguments)
    assert len(script.seen) == 1


def test_a_stream_is_not_tried_again() -> None:
    with scripted(DOWN) as script:
        with unface.Client(script.target) as client, pytest.raises(Unavailable):
            list(client.detect_stream([PICTURE]))
        assert len(script.seen) == 1

        async def run() -> None:
            async with unface.AsyncClient(script.target) as client:
                async for _ in client.detect_stream([PICTURE]):
                    pass

        with pytest.raises(Unavailable):
            asyncio.run(run())
        assert len(script.seen) == 2


def test_a_function_gives_every_try_its_token(call: Call) -> None:
    tokens = iter(["one.a.b", "two.a.b"])
    with scripted(DOWN, FOUND) as script:
        call(script.target, "detect", PICTURE, token=lambda: next(tokens))
    sent = [seen.metadata["authorization"] for seen in script.seen]
    assert sent == ["Bearer one.a.b", "Bearer two.a.b"]


def test_a_connection_that_drops_is_tried_again(call: Call) -> None:
    """Something accepts, reads a little and hangs up, each time."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        accepted: list[int] = []

        def hang_up() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                accepted.append(1)
                with connection:
                    connection.recv(10)

        thread = threading.Thread(target=hang_up)
        thread.start()
        try:
            with pytest.raises(Unavailable, match="no server answers"):
                call(f"127.0.0.1:{listener.getsockname()[1]}", "detect", PICTURE, retries=1)
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join(10)
    assert accepted


@pytest.fixture(scope="module")
def real_error() -> Iterator[Callable[[Failure], grpc.RpcError]]:
    """What gRPC raises for a failure."""
    script: Script
    with scripted(DOWN) as script, grpc.insecure_channel(script.target) as channel:

        def raised(failure: Failure) -> grpc.RpcError:
            script.steps = [failure]
            with pytest.raises(grpc.RpcError) as caught:
                UnfaceStub(channel).Detect(pb.DetectRequest())
            return caught.value

        yield raised


def test_the_pause_is_the_one_that_the_server_asks_for(
    real_error: Callable[[Failure], grpc.RpcError],
) -> None:
    for code, reason in ((Code.RESOURCE_EXHAUSTED, "Overloaded"), (Code.UNAVAILABLE, "Closed")):
        for asked in (0, 1, 250, 60_000):
            error = real_error(Failure(code, reason=reason, pushback=str(asked)))
            assert Attempts(None, 3).pause(error) == asked / 1000


def test_pauses_grow_twofold_to_a_limit_and_are_spread_over_all_of_it(
    real_error: Callable[[Failure], grpc.RpcError],
) -> None:
    error = real_error(DOWN)
    many = [Attempts(None, 20) for _ in range(300)]
    for step in range(8):
        pauses = [pause for a in many if (pause := a.pause(error)) is not None]
        most = min(FIRST_PAUSE_SECONDS * 2**step, LONGEST_PAUSE_SECONDS)
        assert len(pauses) == 300
        assert 0 <= min(pauses) < 0.1 * most
        assert 0.9 * most < max(pauses) <= most


def test_a_pause_that_was_asked_for_starts_the_growth_anew(
    real_error: Callable[[Failure], grpc.RpcError],
) -> None:
    """gRFC A6: after a pushback, the first backoff comes next."""
    down, asked = real_error(DOWN), real_error(Failure(Code.UNAVAILABLE, pushback="1"))
    for _ in range(50):
        attempts = Attempts(None, 20)
        for error in (down, down, down, asked):
            attempts.pause(error)
        pause = attempts.pause(down)
        assert pause is not None
        assert pause <= FIRST_PAUSE_SECONDS


@given(
    retries=st.integers(0, 5),
    failures=st.lists(
        st.builds(
            Failure,
            st.sampled_from([Code.UNAVAILABLE, Code.RESOURCE_EXHAUSTED, Code.INTERNAL]),
            reason=st.sampled_from([None, "Overloaded", "Closed"]),
            pushback=st.none() | st.integers(-5, 500).map(str) | st.sampled_from(["x", "1e3"]),
        ),
        max_size=8,
    ),
    timeout=st.none() | st.floats(0.001, 100),
)
def test_no_script_gets_more_tries_or_longer_pauses_than_it_may(
    real_error: Callable[[Failure], grpc.RpcError],
    retries: int,
    failures: list[Failure],
    timeout: float | None,
) -> None:
    attempts = Attempts(timeout, retries)
    pauses = [attempts.pause(real_error(failure)) for failure in failures]
    granted = [pause for pause in pauses if pause is not None]
    assert len(granted) <= retries
    assert all(0 <= pause <= (timeout or LONGEST_PAUSE_SECONDS) for pause in granted)
    for failure, pause in zip(failures, pauses, strict=True):
        if failure.code is Code.INTERNAL or failure.pushback in ("x", "1e3"):
            assert pause is None


def test_a_call_that_is_cancelled_ends_at_the_server_too() -> None:
    begun, ended = threading.Event(), threading.Event()

    def slow(request: Any, context: grpc.ServicerContext) -> Any:
        context.add_callback(ended.set)
        begun.set()
        assert ended.wait(20)
        return FOUND

    async def run(target: str) -> None:
        async with unface.AsyncClient(target) as client:
            task = asyncio.create_task(client.detect(PICTURE))
            assert await asyncio.to_thread(begun.wait, 20)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert await asyncio.to_thread(ended.wait, 20)

    with scripted(slow) as script:
        asyncio.run(run(script.target))
        assert len(script.seen) == 1


@pytest.mark.parametrize(
    "options", [{"timeout": 0}, {"timeout": -1}, {"timeout": float("nan")}, {"retries": -1}]
)
def test_choices_that_make_no_sense_are_refused(call: Call, options: dict[str, Any]) -> None:
    with pytest.raises(InvalidOption, match=next(iter(options))):
        call("localhost:1", "info", **options)
