"""The front door to detection and anonymization by a server, over gRPC."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from types import TracebackType
from typing import TYPE_CHECKING, Any, cast, overload

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from unface.anonymize import Limits, decode, encode
from unface.anonymize.limits import check_rgb_image
from unface.arguments import (
    AnonymizeArguments,
    Anonymized,
    DetectArguments,
    File,
    Image,
    is_file,
    read_file,
    split_arguments,
)
from unface.errors import InvalidOption, ServerError, UnfaceError
from unface.mtcnn.faces import Faces
from unface.mtcnn.network import UInt8Array
from unface.mtcnn.options import DetectOptions
from unface.server import messages
from unface.server.calls import error_from_frame, error_from_rpc, stream
from unface.server.requests import anonymize_options_message, detect_options_message
from unface.v1 import unface_pb2 as pb
from unface.v1.unface_pb2_grpc import UnfaceStub

if TYPE_CHECKING:
    from typing_extensions import Unpack

SERVICE = "unface.v1.Unface"
FILE_LIMITS = Limits(max_bytes=1 << 30)  # gRPC counts in 31 bits; the server has its own limit
RAW_LIMIT = Limits().max_bytes  # larger arrays travel as PNG, which loses nothing
POLL_SECONDS = 0.05

_CHANNEL_OPTIONS = (
    ("grpc.max_receive_message_length", -1),  # the server's limit is the one that counts
    ("grpc.max_send_message_length", -1),
    ("grpc.enable_http_proxy", 0),  # pictures go to the server named and nowhere else
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 2000),
    ("grpc.keepalive_time_ms", 60_000),  # finds a server that vanished under a stream
)


@dataclass(frozen=True)
class ServerInfo:
    """What serves, and within which limits."""

    version: str
    backend: str  # "native", "tflite", "cuda"
    precision: str  # "fp32", "int8", "fp16"
    threads: int  # CPU threads of one detection
    engines: dict[str, str]  # network -> SHA-256 of its engine of that precision
    max_bytes: int  # of a picture as sent
    max_pixels: int  # width x height
    formats: tuple[str, ...]
    profiles: dict[str, DetectOptions]
    device: str  # name of the GPU that computes; empty: the CPU does
    device_reason: str  # why no GPU does


class Client:
    """Finds faces, and removes them from pictures, on a server.

        with unface.Client("localhost:50051") as client:
            faces = client.detect("photo.jpg")
            clean = client.anonymize(image)

    A picture is an array, RGB uint8 `[H, W, 3]`; or the bytes of a JPEG, PNG or WebP file; or the
    path of such a file. `timeout` is how many seconds one call may take; None waits for ever.
    Nothing connects before the first call. May be shared between threads.

    All methods raise `InvalidImage` and `InvalidOption` with the server's own words, `Overloaded`
    when the server has too much to do, and `ServerError` when it cannot be reached or fails.
    """

    def __init__(self, target: str = "localhost:50051", *, timeout: float | None = 30.0) -> None:
        self.target = target
        self.timeout = timeout
        self._channel = grpc.insecure_channel(target, options=_CHANNEL_OPTIONS)
        self._stub = UnfaceStub(self._channel)
        self._health = health_pb2_grpc.HealthStub(self._channel)

    @overload  # str and bytes are sequences too: this one comes first
    def detect(  # type: ignore[overload-overlap]
        self, image: Image, **options: Unpack[DetectArguments]
    ) -> Faces: ...
    @overload
    def detect(self, image: Sequence[Image], **options: Unpack[DetectArguments]) -> list[Faces]: ...
    def detect(
        self, image: Image | Sequence[Image], **options: Unpack[DetectArguments]
    ) -> Faces | list[Faces]:
        """Find the faces of a picture; a list of pictures gives a list."""
        message = detect_options_message(**options)
        if isinstance(image, (list, tuple)):
            return [self._detect_one(one, message) for one in image]
        return self._detect_one(cast("Image", image), message)

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
        request = _anonymize_request(image, options)
        return _anonymized(self._call(self._stub.Anonymize, request), is_file(image))

    def detect_stream(
        self,
        frames: Iterable[Image],
        *,
        timeout: float | None = None,
        **options: Unpack[DetectArguments],
    ) -> Iterator[Faces | UnfaceError]:
        """Find the faces of frame after frame over one call; answers come in order.

        A frame that fails gives its error as a value, and the stream goes on. `frames` is read on
        another thread, only as fast as the server takes them; what it raises is raised here.
        `timeout` bounds the whole stream; None does not.
        """
        message = detect_options_message(**options)

        def request(frame: Image, number: int) -> pb.DetectRequest:
            sent = pb.DetectRequest(detect_options=message, frame_id=number)
            _put_image(sent.image, frame)
            return sent

        def answer(response: pb.DetectStreamResponse, was_file: bool) -> Faces | UnfaceError:
            if response.HasField("error"):
                return error_from_frame(response.error)
            return messages.faces_from_message(response.response)

        return self._stream(self._stub.DetectStream, frames, request, answer, timeout)

    def anonymize_stream(
        self,
        frames: Iterable[Image],
        *,
        timeout: float | None = None,
        **options: Unpack[AnonymizeArguments],
    ) -> Iterator[Anonymized[Any] | UnfaceError]:
        """Cover the faces of frame after frame over one call, by the rules of `detect_stream`."""
        detect, mask, output = split_arguments(options)
        detect_options_message(**detect)  # what cannot be sent is raised before anything is
        anonymize_options_message(**mask, **output)

        def request(frame: Image, number: int) -> pb.AnonymizeRequest:
            message = _anonymize_request(frame, options)
            message.frame_id = number
            return message

        def answer(
            response: pb.AnonymizeStreamResponse, was_file: bool
        ) -> Anonymized[Any] | UnfaceError:
            if response.HasField("error"):
                return error_from_frame(response.error)
            return _anonymized(response.response, was_file)

        return self._stream(self._stub.AnonymizeStream, frames, request, answer, timeout)

    def info(self) -> ServerInfo:
        """Return what serves, and within which limits."""
        info = self._call(self._stub.GetServerInfo, pb.GetServerInfoRequest())
        return ServerInfo(
            version=info.version,
            backend=info.backend,
            precision=info.precision,
            threads=info.threads,
            engines={e.name: e.sha256 for e in info.engines if e.precision == info.precision},
            max_bytes=info.limits.max_bytes,
            max_pixels=info.limits.max_pixels,
            formats=tuple(info.formats),
            profiles={
                profile.name: replace(
                    messages.detect_options_from_message(profile.options),
                    precision=profile.precision or None,
                )
                for profile in info.profiles
            },
            device=info.device,
            device_reason=info.device_reason,
        )

    def wait_until_serving(self, timeout: float = 10.0) -> None:
        """Return once the server's health service says SERVING; `ServerError` after `timeout` s."""
        end = time.monotonic() + timeout
        state = "has not answered"
        while (left := end - time.monotonic()) > 0:
            try:
                answer = self._health.Check(
                    health_pb2.HealthCheckRequest(service=SERVICE), timeout=left
                )
            except grpc.RpcError as error:
                if error.code() not in (
                    grpc.StatusCode.UNAVAILABLE,
                    grpc.StatusCode.DEADLINE_EXCEEDED,
                ):
                    raise error_from_rpc(error, self.target, timeout) from error
            else:
                if answer.status == health_pb2.HealthCheckResponse.SERVING:
                    return
                state = "answers but is not ready"
            time.sleep(min(POLL_SECONDS, max(0.0, end - time.monotonic())))
        raise ServerError(
            f"the server at {self.target} {state} after {timeout:g} s; start one with "
            "`unface serve`, or see its log"
        )

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

    def _detect_one(self, image: Image, options: pb.DetectOptions) -> Faces:
        request = pb.DetectRequest(detect_options=options)
        _put_image(request.image, image)
        return messages.faces_from_message(self._call(self._stub.Detect, request))

    def _call(self, rpc: Any, request: Any) -> Any:
        try:
            return rpc(request, timeout=self.timeout)
        except grpc.RpcError as error:
            raise error_from_rpc(error, self.target, self.timeout) from error

    def _stream(
        self,
        rpc: Any,
        frames: Iterable[Image],
        request: Callable[[Image, int], Any],
        answer: Callable[[Any, bool], Any],
        timeout: float | None,
    ) -> Iterator[Any]:
        try:
            yield from stream(rpc, frames, request, answer, is_file, timeout)
        except grpc.RpcError as error:
            raise error_from_rpc(error, self.target, timeout) from error


def _put_image(message: pb.Image, image: Image) -> None:
    """Put a picture into a message as it travels; raises `InvalidImage` for what is none."""
    if isinstance(image, (str, os.PathLike)):
        message.encoded = read_file(image, FILE_LIMITS)
    elif isinstance(image, (bytes, bytearray, memoryview)):
        message.encoded = bytes(image)
    else:
        check_rgb_image(image)
        if image.nbytes <= RAW_LIMIT:
            messages.put_pixels(message, image)
        else:
            message.encoded = encode(image, "png")


def _anonymize_request(image: Image, options: AnonymizeArguments) -> pb.AnonymizeRequest:
    detect, mask, output = split_arguments(options)
    if is_file(image):
        if output.get("format") == messages.RAW:
            raise InvalidOption("format is 'raw'; a file comes back as jpeg, png or webp")
    elif output:
        names = " and ".join(output)
        raise InvalidOption(f"{names} is for files; an array was given and one comes back")
    request = pb.AnonymizeRequest(detect_options=detect_options_message(**detect))
    _put_image(request.image, image)
    if not is_file(image):
        is_raw = request.image.WhichOneof("source") == "raw"
        output = {"format": messages.RAW if is_raw else "png"}
    request.anonymize_options.CopyFrom(anonymize_options_message(**mask, **output))
    return request


def _anonymized(response: pb.AnonymizeResponse, was_file: bool) -> Anonymized[Any]:
    faces = messages.faces_from_message(response)
    if was_file:
        return Anonymized(response.image.encoded, faces)
    if response.image.WhichOneof("source") == "raw":
        return Anonymized(messages.pixels_from_message(response.image), faces)
    data = response.image.encoded
    own = Limits(max(1, len(data)), faces.width * faces.height)
    return Anonymized(decode(data, own).pixels, faces)
