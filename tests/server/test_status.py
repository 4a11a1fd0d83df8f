import logging

import grpc
import pytest

from unface import errors
from unface.errors import UnfaceError
from unface.server.crew import NotReloaded, WorkerLost
from unface.server.reports import NotKept
from unface.server.scheduler import Closed, Expired
from unface.server.status import CODES, MAX_MESSAGE, failure_from_exception

EXPECTED = {
    errors.InvalidImage: grpc.StatusCode.INVALID_ARGUMENT,
    errors.ImageTooLarge: grpc.StatusCode.INVALID_ARGUMENT,
    errors.InvalidOption: grpc.StatusCode.INVALID_ARGUMENT,
    errors.Overloaded: grpc.StatusCode.RESOURCE_EXHAUSTED,
    errors.EngineError: grpc.StatusCode.INTERNAL,
    errors.SealError: grpc.StatusCode.INTERNAL,
    errors.Unauthenticated: grpc.StatusCode.UNAUTHENTICATED,
    errors.Forbidden: grpc.StatusCode.PERMISSION_DENIED,
    NotKept: grpc.StatusCode.FAILED_PRECONDITION,
    NotReloaded: grpc.StatusCode.FAILED_PRECONDITION,
    WorkerLost: grpc.StatusCode.UNAVAILABLE,
    Expired: grpc.StatusCode.DEADLINE_EXCEEDED,
    Closed: grpc.StatusCode.UNAVAILABLE,
}


@pytest.mark.parametrize("kind", EXPECTED, ids=lambda kind: kind.__name__)
def test_each_error_has_its_code_keeps_its_message_and_gives_its_name(
    kind: type[UnfaceError],
) -> None:
    failure = failure_from_exception(kind("what was wrong"))
    assert failure.code is EXPECTED[kind]
    assert failure.message == "what was wrong"
    assert failure.reason == kind.__name__
    assert failure.number == failure.code.value[0]


def test_every_error_a_room_may_raise_is_in_the_table() -> None:
    kinds = {
        kind
        for kind in vars(errors).values()
        if isinstance(kind, type) and issubclass(kind, UnfaceError)
    }
    clients = {kind for kind in kinds if issubclass(kind, errors.ServerError)}
    for kind in kinds - {UnfaceError} - clients:
        assert any(issubclass(kind, known) for known, *_ in CODES), kind


@pytest.mark.parametrize("error", [KeyError("/home/me/key"), MemoryError(), UnfaceError("secret")])
def test_a_defect_tells_a_client_only_the_id_under_which_it_is_logged(
    error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.ERROR, "unface.server"):
        failure = failure_from_exception(error)
    assert failure.code is grpc.StatusCode.INTERNAL
    assert failure.reason == "Internal"
    request_id = failure.message.rsplit(" ", 1)[-1]
    assert failure.message == f"internal error; the server's log has it as request {request_id}"
    assert request_id in caplog.text
    assert type(error).__name__ in caplog.text


def test_a_message_that_quotes_a_whole_book_is_cut_to_fit_a_trailer() -> None:
    failure = failure_from_exception(errors.InvalidOption("x" * 100_000))
    assert len(failure.message) == MAX_MESSAGE
    assert failure.message.endswith("...")
