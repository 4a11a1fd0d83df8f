"""The standard health service, grpc.health.v1: the server, and which backend serves it."""

from __future__ import annotations

from typing import Any, cast

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from unface.v1 import unface_pb2 as pb

SERVICE, ADMIN, HEALTH = "unface.v1.Unface", "unface.v1.Admin", health.SERVICE_NAME
GPU_BACKEND, CPU_BACKEND = "unface.backend.cuda", "unface.backend.cpu"
_NAMES = (health.OVERALL_HEALTH, SERVICE, CPU_BACKEND)
_SERVING = health_pb2.HealthCheckResponse.SERVING
_NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


class Health:
    """NOT_SERVING until `update` says otherwise."""

    def __init__(self) -> None:
        self._service: Any = cast(Any, health).aio.HealthServicer()  # the stubs lack it
        self._told: tuple[bool, bool] | None = None

    def add_to(self, server: grpc.aio.Server) -> None:
        """Have a server answer for it."""
        health_pb2_grpc.add_HealthServicer_to_server(self._service, server)

    def differs(self, info: pb.GetServerInfoResponse, serving: bool) -> bool:
        """Tell whether this is another state than the last one told."""
        return self._told is not None and self._told != (serving, bool(info.device))

    async def update(self, info: pb.GetServerInfoResponse, *, serving: bool) -> None:
        """Tell who watches whether the server serves, and whether on a GPU."""
        self._told = (serving, bool(info.device))
        for name in _NAMES:
            await self._service.set(name, _SERVING if serving else _NOT_SERVING)
        on_gpu = serving and info.device
        await self._service.set(GPU_BACKEND, _SERVING if on_gpu else _NOT_SERVING)

    async def shut_down(self) -> None:
        """Say NOT_SERVING from now on, whatever comes."""
        await self._service.enter_graceful_shutdown()
