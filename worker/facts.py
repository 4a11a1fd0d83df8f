"""What the server says of itself: the answer to `GetServerInfo`."""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

from unface.engines.cascades import Serving
from unface.engines.device import SOURCE
from unface.engines.shelf import NATIVE, read_engine_key, read_shelf
from unface.mtcnn.options import PROFILES
from unface.mtcnn.team import cores
from unface.v1 import unface_pb2 as pb
from unface.worker.messages import detect_options_to_message
from unface.worker.settings import Settings


def server_info(
    settings: Settings, serving: Callable[[], Serving]
) -> Callable[[], pb.GetServerInfoResponse]:
    """Return what gives the answer at any moment; `serving` says what then serves."""
    folder = None if settings.engines is None else Path(settings.engines)
    shelf = read_shelf(folder, read_engine_key(settings.engine_key_file))
    fixed = pb.GetServerInfoResponse(
        version=version("unface"),
        engines=[
            pb.Engine(name=engine.network, precision=engine.precision, sha256=engine.sha256)
            for precision in sorted({settings.precision, *_precisions_of_profiles()})
            for engine in shelf.of(precision, shelf.fastest(precision)).values()
        ],
        limits=pb.Limits(max_bytes=settings.max_message_bytes, max_pixels=settings.max_pixels),
        formats=settings.formats,
        profiles=[
            pb.Profile(
                name=name,
                options=detect_options_to_message(options),
                precision=options.precision or "",
            )
            for name, options in PROFILES.items()
        ],
        threads=settings.threads or cores(),
        audit_signed=settings.audit_key_file is not None,
    )
    on_gpu = shelf.of(SOURCE, NATIVE)

    def now() -> pb.GetServerInfoResponse:
        answer = pb.GetServerInfoResponse(**serving()._asdict())
        answer.MergeFrom(fixed)
        if answer.device:
            answer.engines.extend(
                pb.Engine(name=name, precision=answer.precision, sha256=engine.sha256)
                for name, engine in on_gpu.items()
            )
        return answer

    return now


def _precisions_of_profiles() -> set[str]:
    return {options.precision for options in PROFILES.values() if options.precision}
