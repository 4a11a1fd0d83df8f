"""The front door to detection and anonymization by a server, over gRPC."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, cast, overload

import grpc
from grpc_health.v1 import health_pb2

from unface.answers import (
    Reloaded,
    Reported,
    ServedFaces,
    ServerInfo,
    info_from_answer,
    reloaded_from_answer,
)
from unface.arguments import (
    AnonymizeArguments,
    Anonymized,
    DetectArguments,
    File,
    Image,
    is_file,
)
from unface.calls import Attempts, Wait, error_from_rpc
from unface.connection import SERVICE, Connection
from unface.errors import UnfaceError
from unface.mtcnn.network import UInt8Array
from unface.requests import Answer, Exchange, anonymization, detection, report_request
from unface.streams import stream
from unface.v1 import unface_pb2 as pb

if TYPE_CHECKING:
    from typing_extensions import Unpack


class Client(Connection):
    """Finds faces, and removes them from pictures, on a server.

        with unface.Client("localhost:50051") as client:
            faces = client.detect("photo.jpg")
            clean = client.anonymize(image)

    A picture is an array, RGB uint8 `[H, W, 3]`; or the bytes of a JPEG, PNG or WebP file; or the
    path of such a file. Nothing connects before the first call. May be shared between threads.

    - `timeout`: seconds that one call may take with all its tries; None waits for ever.
    - `token`: a JWT, or what returns one (asked before every try). Sent over TLS, or to this
      machine, and refused otherwise.
    - `tls`: True trusts the system's certificate authorities; a path names a PEM file of others.
    - `client_certificate`: PEM files of a certificate and of its key, for mutual TLS.
    - `retries`: how often a call is tried again that nobody answered (`Unavailable`) or that found
      the server's queue full (`Overloaded`). Not for `report`, `reload` and streams.
    - `priority`: "interactive" or "bulk"; default: interactive for single calls, bulk for streams.

    All methods raise `InvalidImage` and `InvalidOption` with the server's own words, `Overloaded`
    when the server has too much to do, `Unauthenticated` and `Forbidden` for what the token does
    not allow, `Unavailable` when nobody answers, and `ServerError` when the server is too slow or
    fails. An error's `request_id` is what the server's log calls the request.
    """

    @overload  # str and bytes are sequences too: this one comes first
    def detect(  # type: ignore[overload-overlap]
        self, image: Image, **options: Unpack[DetectArguments]
    ) -> ServedFaces: ...
    @overload
    def detect(
        self, image: Sequence[Image], **options: Unpack[DetectArguments]
    ) -> list[ServedFaces]: ...
    def detect(
        self, image: Image | Sequence[Image], **options: Unpack[DetectArguments]
    ) -> ServedFaces | list[ServedFaces]:
        """Find the faces of a picture; a list of pictures gives a list."""
        exchange = detection(options, self._priority)
        if isinstance(image, (list, tuple)):
            return [self._exchange(self._unface.Detect, exchange, one) for one in image]
        return self._exchange(self._unface.Detect, exchange, cast("Image", image))

    @overload
    def anonymize(self, image: UInt8Array, **options: Unpack[AnonymizeArguments]) -> UInt8Array: ...
    @overload
    def anonymize(self, image: File, **options: Unpack[AnonymizeArguments]) -> bytes: ...
    def anonymize(self, image: Image, **options: Unpack[AnonymizeArguments]) -> UInt8Array | bytes:
        """Return the picture with its faces covered: an array for an array, else file bytes."""
        return self.anonymize_with_faces(image, **options).image

    @overload
    def anonymize_with_faces(
        self, image: UInt8Array, **options: Unpack[AnonymizeArguments]
    ) -> Anonymized[UInt8Array]: ...
    @overload
    def anonymize_with_faces(
        self, image: File, **options: Unpack[AnonymizeArguments]
    ) -> Anonymized[bytes]: ...
    def anonymize_with_faces(
        self, image: Image, **options: Unpack[AnonymizeArguments]
    ) -> Anonymized[Any]:
        """Return the picture with its faces covered, and the faces."""
        exchange = anonymization(options, self._priority)
        return self._exchange(self._unface.Anonymize, exchange, image)

    def detect_stream(
        self,
        frames: Iterable[Image],
        *,
        timeout: float | None = None,
        **options: Unpack[DetectArguments],
    ) -> Iterator[ServedFaces | UnfaceError]:
        """Find the faces of frame after frame over one call; answers come in order.

        A frame that fails gives its error as a value, and the stream goes on. `frames` is read on
        another thread, only as fast as the server takes them; what it raises is raised here.
        `timeout` bounds the whole stream; None does not.
        """
        exchange = detection(options, self._priority)
        return self._stream(self._unface.DetectStream, frames, exchange, timeout)

    def anonymize_stream(
        self,
        frames: Iterable[Image],
        *,
        timeout: float | None = None,
        **options: Unpack[AnonymizeArguments],
    ) -> Iterator[Anonymized[Any] | UnfaceError]:
        """Cover the faces of frame after frame over one call, by the rules of `detect_stream`."""
        exchange = anonymization(options, self._priority)
        return self._stream(self._unface.AnonymizeStream, frames, exchange, timeout)

    def info(self) -> ServerInfo:
        """Return what serves, and within which limits."""
        return info_from_answer(self._call(self._unface.GetServerInfo, pb.GetServerInfoRequest()))

    def report(
        self,
        image: Image,
        *,
        missed: Sequence[Sequence[float]] = (),
        false_faces: Sequence[Sequence[float]] = (),
        request_id: str = "",
        profile: str = "",
    ) -> Reported:
        """Tell the server's operator of faces that were missed, or found where there are none.

        Boxes are `x1 y1 x2 y2` in pixels of the upright picture; `request_id` and `profile` are
        those of the faces that the server found. `ServerError` where no reports are kept. Sent
        once: a second try might be a second report.
        """
        request = report_request(image, missed, false_faces, request_id, profile)
        answer = self._call(self._unface.Report, request, retries=0)
        return Reported(answer.report_id, answer.crops_kept)

    def reload(self) -> Reloaded:
        """Have the server load its engines anew; on an error those that were there go on.

        Needs the scope "admin".
        """
        return reloaded_from_answer(self._call(self._admin.Reload, pb.ReloadRequest(), retries=0))

    def wait_until_serving(self, timeout: float = 10.0) -> None:
        """Return once the server's health service says SERVING; `Unavailable` after `timeout` s."""
        wait = Wait(self.target, timeout)
        question = health_pb2.HealthCheckRequest(service=SERVICE)
        while (left := wait.seconds_left) > 0:
            try:
                if wait.is_over(self._health.Check(question, timeout=left)):
                    return
            except grpc.RpcError as error:
                wait.note(error)
            time.sleep(wait.pause)
        raise wait.failure()

    def close(self) -> None:
        """Close the connection; calls under way are cancelled."""
        self._channel.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _open(
        self, credentials: grpc.ChannelCredentials | None, options: tuple[tuple[str, int], ...]
    ) -> grpc.Channel:
        if credentials is None:
            return grpc.insecure_channel(self.target, options)
        return grpc.secure_channel(self.target, credentials, options)

    def _exchange(self, rpc: Any, exchange: Exchange[Answer], image: Image) -> Answer:
        return exchange.answer(self._call(rpc, exchange.request(image)), is_file(image))

    def _call(self, rpc: Any, request: Any, retries: int | None = None) -> Any:
        attempts = Attempts(self.timeout, self._retries if retries is None else retries)
        while True:
            try:
                return rpc(request, timeout=attempts.seconds_left, metadata=self._metadata())
            except grpc.RpcError as error:
                pause = attempts.pause(error)
                if pause is None:
                    raise error_from_rpc(error, self.target, self.timeout) from error
            time.sleep(pause)

    def _stream(
        self,
        rpc: Any,
        frames: Iterable[Image],
        exchange: Exchange[Answer],
        timeout: float | None,
    ) -> Iterator[Answer | UnfaceError]:
        try:
            yield from stream(rpc, frames, exchange, timeout=timeout, metadata=self._metadata())
        except grpc.RpcError as error:
            raise error_from_rpc(error, self.target, timeout) from error
