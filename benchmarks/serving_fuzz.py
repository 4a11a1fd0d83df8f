"""Ten thousand hostile calls, always the same ones: each gets a status, and the server lives on."""

from __future__ import annotations

import asyncio
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import grpc

from benchmarks.serving_client import bare_rpc
from benchmarks.serving_figures import Section, as_figures
from benchmarks.serving_server import (
    ServerProcess,
    is_serving,
    resident_bytes,
    serving,
    tracebacks,
    wait_until_idle,
    worker_ids,
)
from unface.v1 import unface_pb2 as pb

sys.path.append(str(Path(__file__).parent.parent / "tests"))

from hostile_files import CANARY, good_files  # type: ignore[import-not-found]
from hostile_inputs import Hostile, hostile_inputs, parsed  # type: ignore[import-not-found]

COUNT, SEED = 10_000, 6
GROWTH = 0.10  # target, from the end of the warm-up on
WARM_UP = 0.4  # of the calls: until then memory grows to what the largest pictures need
AT_ONCE = 4
TIMEOUT = 30.0  # a call without an answer by then hangs
SERVICE = "/unface.v1.Unface/"
RESPONSES: dict[str, Any] = {
    "Detect": pb.DetectResponse,
    "Anonymize": pb.AnonymizeResponse,
    "DetectStream": pb.DetectStreamResponse,
    "AnonymizeStream": pb.AnonymizeStreamResponse,
    "Report": pb.ReportResponse,
}
# RESOURCE_EXHAUSTED is not among them: so few calls at once are no overload, and no message is
# larger than gRPC takes. One picture may not have others refused.
ALLOWED = {"OK", "INVALID_ARGUMENT"}
# Bombs are beyond so many pixels; below, a picture takes a second at most. None is refused for what
# others on a busy machine have it wait.
FLAGS = ("--max-pixels", "20000000", "--queue-ms", "600000")
NO_REPORTS = "FAILED_PRECONDITION"  # where the operator keeps none


class Answer(NamedTuple):
    """What came back: the status and its words, and the messages as bytes."""

    code: str
    details: str
    messages: list[bytes]


@dataclass
class Fuzzed:
    """What became of hostile calls. `wrong` says of each answer that may not be what it was."""

    codes: Counter[tuple[str, str]] = field(default_factory=Counter)  # kind of input, status
    wrong: list[str] = field(default_factory=list)
    warm_bytes: int = 0  # resident after the warm-up
    end_bytes: int = 0  # and after all of it
    seconds: float = 0.0
    slowest: tuple[float, str] = (0.0, "")


def fuzz(seconds: float | None = None) -> Section:
    """Send `COUNT` hostile calls to a server; `seconds` sends as many as 100 a second would be."""
    count = COUNT if seconds is None else max(100, round(seconds * 100))
    section = Section("fuzz", {"server": " ".join(FLAGS)})
    with serving(*FLAGS) as server:
        found = fuzz_server(server, count)
        grown = found.end_bytes / found.warm_bytes - 1
        section.add(
            f"{count} hostile calls",
            f"{len(found.wrong)} answers that may not be",
            "0",
            not found.wrong,
        )
        for wrong in found.wrong[:20]:
            section.add("- wrong", wrong)
        for (kind, code), times in sorted(found.codes.items()):
            section.add(f"- {kind}", f"{code}: {times}")
        section.add("slowest answer", f"{found.slowest[0]:.2f} s, {found.slowest[1]}")
        section.add(
            "memory of all processes, end to warm",
            f"{grown:+.1%}, {found.end_bytes / 1e6:.0f} MB",
            f"within {GROWTH:.0%}",
            grown <= GROWTH,
        )
    section.figures |= as_figures(
        count=count, seed=SEED, wrong=found.wrong, seconds=found.seconds, memory_growth=grown,
        codes={f"{kind}, {code}": times for (kind, code), times in sorted(found.codes.items())},
    )  # fmt: skip
    return section


def fuzz_server(server: ServerProcess, count: int, seed: int = SEED) -> Fuzzed:
    """Send so many hostile calls and look at every answer, and at the server before and after."""
    found = Fuzzed()
    before, ids, begin = good_answers(server.target), worker_ids(server), time.monotonic()
    calls = hostile_inputs(count, seed)
    asyncio.run(_send(server.target, islice(calls, round(count * WARM_UP)), found))
    wait_until_idle(server)
    found.warm_bytes = resident_bytes(server)
    asyncio.run(_send(server.target, calls, found))
    wait_until_idle(server)
    found.end_bytes = resident_bytes(server)
    found.seconds = time.monotonic() - begin
    if not is_serving(server):
        found.wrong.append("the health service does not say SERVING")
    if worker_ids(server) != ids:
        found.wrong.append(f"workers {sorted(ids)} are now {sorted(worker_ids(server))}")
    if good_answers(server.target) != before:
        found.wrong.append("good pictures get other faces than before")
    found.wrong += [f"in the server's log: {error}" for error in tracebacks(server)]
    return found


def good_answers(target: str) -> list[bytes]:
    """Return the faces of pictures that are right, as bytes."""
    answers = []
    with grpc.insecure_channel(target) as channel:
        detect = bare_rpc(channel, f"{SERVICE}Detect")
        for file in good_files()[:12]:
            request = pb.DetectRequest(image=pb.Image(encoded=file))
            answer = pb.DetectResponse.FromString(
                detect(request.SerializeToString(), timeout=TIMEOUT)
            )
            answers.append(b"".join(face.SerializeToString() for face in answer.faces))
    assert any(answers), "no face is found in the pictures that have one"
    return answers


def faults(hostile: Hostile, answer: Answer) -> Iterator[str]:
    """Yield what an answer has that it may not have."""
    allowed = ALLOWED | {NO_REPORTS} if hostile.method == "Report" else ALLOWED
    if answer.code not in allowed:
        yield f"{answer.code} ({answer.details})"
    sent = [parsed(hostile.method, message) for message in hostile.messages]
    for request, message in zip(sent, answer.messages, strict=False):
        told = RESPONSES[hostile.method].FromString(message)
        if hostile.method.endswith("Stream"):
            error = told.error
            if told.HasField("error") and error.code not in _ALLOWED_NUMBERS:
                yield f"frame with status {error.code} ({error.message})"
            told = told.response if told.HasField("response") else None
        if told is not None and request is None:
            yield "OK to what is no message"
        elif told is not None and "Anonymize" in hostile.method:
            yield from _leaks(request, told)


def _leaks(request: Any, answer: Any) -> Iterator[str]:
    """Yield how an answer to Anonymize lets through what it should have covered or dropped."""
    image, output = request.image, answer.image
    came_back = output.encoded or output.raw.rgb
    if not came_back:
        yield "OK without a picture"
    if image.encoded and image.encoded in came_back:
        yield "the file came back as it was"
    if CANARY in came_back and not request.anonymize_options.keep_exif:
        yield "bytes beside the picture came back"
    boxes = request.anonymize_options.method == pb.MASK_METHOD_BOX  # frames, covers nothing
    if answer.faces and not boxes and image.raw.rgb and image.raw.rgb == came_back:
        yield "a face came back uncovered"


_ALLOWED_NUMBERS = {
    int(status.value[0]) for status in grpc.StatusCode if status.name in ALLOWED - {"OK"}
}


async def _send(target: str, calls: Iterator[Hostile], found: Fuzzed) -> None:
    options = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]
    async with grpc.aio.insecure_channel(target, options) as channel:
        await asyncio.gather(*(_work(channel, calls, found) for _ in range(AT_ONCE)))


async def _work(channel: grpc.aio.Channel, calls: Iterator[Hostile], found: Fuzzed) -> None:
    for hostile in calls:
        begin = time.monotonic()
        answer = await _call(channel, hostile)
        found.slowest = max(found.slowest, (time.monotonic() - begin, hostile.name))
        found.codes[_kind(hostile), answer.code] += 1
        where = f"{hostile.name}, {hostile.method}"
        found.wrong += [f"{where}: {fault}" for fault in faults(hostile, answer)]


async def _call(channel: grpc.aio.Channel, hostile: Hostile) -> Answer:
    call, answers = bare_rpc(channel, f"{SERVICE}{hostile.method}"), []
    try:
        if hostile.method.endswith("Stream"):
            frames = _frames(hostile.messages)
            async for answer in call(frames, timeout=TIMEOUT):
                answers.append(answer)  # noqa: PERF401 - those before an error count
        else:
            answers.append(await call(hostile.messages[0], timeout=TIMEOUT))
    except grpc.aio.AioRpcError as error:
        return Answer(error.code().name, error.details() or "", answers)
    return Answer("OK", "", answers)


async def _frames(messages: Sequence[bytes]) -> AsyncIterator[bytes]:
    for message in messages:
        yield message


def _kind(hostile: Hostile) -> str:
    kind = hostile.name.split(": ", 1)[1].split(",")[0].split()[0]
    return f"{kind}, {'a message' if hostile.are_messages else 'no message'}"
