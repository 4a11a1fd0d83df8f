"""The front door to a server for programs on asyncio."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Sequence
from contextlib import aclosing
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
from unface.streams import stream_async
from unface.v1 import unface_pb2 as pb

if TYPE_CHECKING:
    from typing_extensions import Unpack


class AsyncClient(Connection):
    """`unface.Client` for coroutines: the same arguments, methods, answers and errors.

        async with unface.AsyncClient("localhost:50051") as client:
            faces = await client.detect("photo.jpg")
            async for answer in client.detect_stream(frames):
                ...

    Belongs to the event loop that runs where it is made. Files are read, pictures are packed and a
    `token` function is called on other threads: the loop is never held up.
    """

    @overload  # str and bytes are sequences too: this one comes first
    async def detect(  # type: ignore[overload-overlap]
        self, image: Image, **options: Unpack[DetectArguments]
    ) -> ServedFaces: ...
    @overload
    async def detect(
        self, image: Sequence[Image], **options: Unpack[DetectArguments]
    ) -> list[ServedFaces]: ...
    async def detect(
        self, image: Image | Sequence[Image], **options: Unpack[DetectArguments]
    ) -> ServedFaces | list[ServedFaces]:
        """Find the faces of a picture; a list of pictures gives a list, one after the other."""
        exchange = detection(options, self._priority)
        if isinstance(image, (list, tuple)):
            return [await self._exchange(self._unface.Detect, exchange, one) for one in image]
        return await self._exchange(self._unface.Detect, exchange, cast("Image", image))

    @overload
    async def anonymize(
        self, image: UInt8Array, **options: Unpack[AnonymizeArguments]
    ) -> UInt8Array: ...
    @overload
    async def anonymize(self, image: File, **options: Unpack[AnonymizeArguments]) -> bytes: ...
    async def anonymize(
        self, image: Image, **options: Unpack[AnonymizeArguments]
    ) -> UInt8Array | bytes:
        """Return the picture with its faces covered: an array for an array, else file bytes."""
        return (await self.anonymize_with_faces(image, **options)).image

    @overload
    async def anonymize_with_faces(
        self, image: UInt8Array, **options: Unpack[AnonymizeArguments]
    ) -> Anonymized[UInt8Array]: ...
    @overload
    async def anonymize_with_faces(
        self, image: File, **options: Unpack[AnonymizeArguments]
    ) -> Anonymized[bytes]: ...
    async def anonymize_with_faces(
        self, image: Image, **options: Unpack[AnonymizeArguments]
    ) -> Anonymized[Any]:
        """Return the picture with its faces covered, and the faces."""
        exchange = anonymization(options, self._priority)
        return await self._exchange(self._unface.Anonymize, exchange, image)

    def detect_stream(
        self,
        frames: AsyncIterable[Image] | Iterable[Image],
        *,
        timeout: float | None = None,
        **options: Unpack[DetectArguments],
    ) -> AsyncIterator[ServedFaces | UnfaceError]:
        """Find the faces of frame after frame over one call; answers come in order.

        A frame that fails gives its error as a value, and the stream goes on. `frames` is read only
        as fast as the server takes them, in the event loop: where the next one has to be waited
        for, it must be an asynchronous iterator. What it raises is raised here. `timeout` bounds
        the whole stream; None does not.
        """
        exchange = detection(options, self._priority)
        return self._stream(self._unface.DetectStream, frames, exchange, timeout)

    def anonymize_stream(
        self,
        frames: AsyncIterable[Image] | Iterable[Image],
        *,
        timeout: float | None = None,
        **options: Unpack[AnonymizeArguments],
    ) -> AsyncIterator[Anonymized[Any] | UnfaceError]:
        """Cover the faces of frame after frame over one call, by the rules of `detect_stream`."""
        exchange = anonymization(options, self._priority)
        return self._stream(self._unface.AnonymizeStream, frames, exchange, timeout)

    async def info(self) -> ServerInfo:
        """Return what serves, and within which limits."""
        answer = await self._call(self._unface.GetServerInfo, pb.GetServerInfoRequest())
        return info_from_answer(answer)

    async def report(
        self,
        image: Image,
        *,
        missed: Sequence[Sequence[float]] = (),
        false_faces: Sequence[Sequence[float]] = (),
        request_id: str = "",
        profile: str = "",
    ) -> Reported:
        """Tell the server's operator of errors in an answer; see `unface.Client.report`."""
        request = await asyncio.to_thread(
            report_request, image, missed, false_faces, request_id, profile
        )
        answer = await self._call(self._unface.Report, request, retries=0)
        return Reported(answer.report_id, answer.crops_kept)

    async def reload(self) -> Reloaded:
        """Have the server load its engines anew; see `unface.Client.reload`."""
        answer = await self._call(self._admin.Reload, pb.ReloadRequest(), retries=0)
        return reloaded_from_answer(answer)

    async def wait_until_serving(self, timeout: float = 10.0) -> None:
        """Return once the server's health service says SERVING; `Unavailable` after `timeout` s."""
        wait = Wait(self.target, timeout)
        question = health_pb2.HealthCheckRequest(service=SERVICE)
        while (left := wait.seconds_left) > 0:
            try:
                if wait.is_over(await self._health.Check(question, timeout=left)):
                    return
            except grpc.RpcError as error:
                wait.note(error)
            await asyncio.sleep(wait.pause)
        raise wait.failure()

    async def close(self) -> None:
        """Close the connection; calls under way are cancelled."""
        await self._channel.close()

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    def _open(
        self, credentials: grpc.ChannelCredentials | None, options: tuple[tuple[str, int], ...]
    ) -> grpc.aio.Channel:
        asyncio.get_running_loop()  # raises here, not in a later call, where there is none
        if credentials is None:
            return grpc.aio.insecure_channel(self.target, options)
        return grpc.aio.secure_channel(self.target, credentials, options)

    async def _exchange(self, rpc: Any, exchange: Exchange[Answer], image: Image) -> Answer:
        request = await asyncio.to_thread(exchange.request, image)
        answer = await self._call(rpc, request)
        return await asyncio.to_thread(exchange.answer, answer, is_file(image))

    async def _call(self, rpc: Any, request: Any, retries: int | None = None) -> Any:
        attempts = Attempts(self.timeout, self._retries if retries is None else retries)
        while True:
            metadata = await self._metadata_async()
            try:
                return await rpc(request, timeout=attempts.seconds_left, metadata=metadata)
            except grpc.RpcError as error:
                pause = attempts.pause(error)
                if pause is None:
                    raise error_from_rpc(error, self.target, self.timeout) from error
            await asyncio.sleep(pause)

    async def _stream(
        self,
        rpc: Any,
        frames: AsyncIterable[Image] | Iterable[Image],
        exchange: Exchange[Answer],
        timeout: float | None,
    ) -> AsyncIterator[Answer | UnfaceError]:
        metadata = await self._metadata_async()
        answers = stream_async(rpc, frames, exchange, timeout=timeout, metadata=metadata)
        try:
            async with aclosing(answers):
                async for answer in answers:
                    yield answer
        except grpc.RpcError as error:
            raise error_from_rpc(error, self.target, timeout) from error

    async def _metadata_async(self) -> tuple[tuple[str, str], ...]:
        if callable(self._token):
            return await asyncio.to_thread(self._metadata)
        return self._metadata()
