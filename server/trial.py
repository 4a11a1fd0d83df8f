"""Another profile, tried on part of the requests that name none: to answer them, or beside."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import replace

from unface.errors import UnfaceError
from unface.quality.trials import arm_of
from unface.server.background import Background
from unface.server.config import ServerConfig
from unface.server.jobs import BULK, Job, WorkFailed
from unface.server.scheduler import Scheduler
from unface.v1 import unface_pb2 as pb

SHADOWS = 4  # under way at once; requests beyond are answered and not compared
SHADOW_CLIENT = "unface-trial"  # shares the queue as one client

Request = pb.DetectRequest | pb.AnonymizeRequest
Response = pb.DetectResponse | pb.AnonymizeResponse
Compared = Callable[[Response, Response], None]  # the answers of a and b


class Trial:
    """Chooses the arm of a request, and runs the second profile beside the first.

    Arm "a" is served as asked, "b" by the profile that is tried. A request that names a profile
    gets that one and belongs to no arm, and neither does one that decides itself what is covered:
    its answer tells less than what was found. `compared` is told both answers of a shadowed
    request.
    """

    def __init__(self, profile: str, config: ServerConfig, compared: Compared) -> None:
        self._profile = profile
        self._share = config.trial_share
        self._shadow = config.trial_shadow
        self._compared = compared
        self._shadows = Background()

    def arm(self, request: Request, request_id: str) -> str:
        """Return "a", "b" or "" (none) for a request, and set the profile of "b"."""
        if request.detect_options.HasField("profile"):
            return ""
        if isinstance(request, pb.AnonymizeRequest) and request.anonymize_options.HasField(
            "regions"
        ):
            return ""
        if self._shadow or arm_of(request_id, self._share) == "a":
            return "a"
        request.detect_options.profile = self._profile
        return "b"

    def shadow(self, scheduler: Scheduler, request: Request, job: Job, answer: Response) -> None:
        """Detect with the other profile what has just been answered, if its share says so."""
        chosen = self._shadow and arm_of(job.request_id, self._share) == "b"
        if not chosen or len(self._shadows) >= SHADOWS:
            return
        self._shadows.start(self._run(scheduler, request, job, answer))

    async def _run(
        self, scheduler: Scheduler, request: Request, job: Job, answer: Response
    ) -> None:
        options = pb.DetectOptions()
        options.CopyFrom(request.detect_options)
        options.profile = self._profile
        second = replace(
            job,
            method="Detect",
            request=pb.DetectRequest(detect_options=options).SerializeToString(),
            client=SHADOW_CLIENT,
            priority=BULK,
            expires_at=float("inf"),
            bucket=(options.SerializeToString(deterministic=True), job.pixels.bit_length()),
            entered=time.monotonic(),
            cancel=None,
            future=asyncio.get_running_loop().create_future(),
        )
        try:
            body = (await scheduler.run(second)).body
        except (UnfaceError, WorkFailed):
            return  # overload, or what the first answer met as well; metrics have it
        await asyncio.to_thread(self._compared, answer, pb.DetectResponse.FromString(body))
