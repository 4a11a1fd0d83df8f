"""The three-stage cascade resident on a GPU; the rules are those of `unface.mtcnn.reference`."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeVar, cast

import numpy as np
import numpy.typing as npt

from unface.gpu.arrays import CudaArray, DeviceImage, Pixels, ResidentImage, is_resident
from unface.gpu.device import Device, close_all
from unface.gpu.lane import Crowded, Lane
from unface.gpu.masks import Coverer, Masks
from unface.gpu.networks import DeviceNetworks
from unface.gpu.plan import CHANNELS, Plan, plan_frame
from unface.mtcnn import boxes as bx
from unface.mtcnn.cascade import check_image
from unface.mtcnn.faces import Faces
from unface.mtcnn.network import UInt8Array
from unface.mtcnn.options import DetectOptions
from unface.mtcnn.team import Team, cores

BULK_LANES = 6  # pictures under way at once, beside an urgent one
COPIERS = 4  # threads that copy a picture into pinned memory; then memory is the limit

Result = TypeVar("Result")
PlanMasks = Callable[[Faces], Masks]  # such as `unface.anonymize.plan_masks` with its options


class GpuCascade:
    """P-, R- and O-Net on the device. Not thread-safe: one caller at a time.

    `detect` goes before whatever `detect_all` has under way. Raises `DeviceFailure` when the device
    does not do what is asked, `BeyondDevice` for what only the CPU takes, and what
    `unface.mtcnn.cascade.Cascade` raises; never an answer without faces instead.
    """

    def __init__(self, device: Device, networks: DeviceNetworks, lanes: int = BULK_LANES) -> None:
        self.device, self.networks = device, networks
        self._team = Team(min(COPIERS, cores()))
        self.urgent = Lane(device, networks, urgent=True, team=self._team)
        self._bulk: list[Lane] = []
        self._lanes = lanes
        self._coverers: dict[Lane, Coverer] = {}

    def detect(self, image: Pixels, options: DetectOptions | None = None) -> Faces:
        """Find the faces of an image, RGB uint8 `[H, W, 3]`, in main memory or on the device."""
        source = self._source(image, self.urgent)
        plan = self._plan(source, options)
        self.urgent.submit(source, plan)
        return self._faces(self.urgent, source, plan)

    def detect_all(
        self, images: Sequence[Pixels], options: DetectOptions | None = None
    ) -> list[Faces]:
        """Find the faces of each image, in order, several under way at once."""
        for image in images:
            if not is_resident(image):
                check_image(cast(UInt8Array, image))
        return list(self._stream(images, options, self._faces))

    def anonymize(
        self, image: UInt8Array, options: DetectOptions | None, plan_masks: PlanMasks
    ) -> tuple[UInt8Array, Faces]:
        """Return a copy of an image with its faces covered as planned, and the faces."""
        check_image(image)
        plan = self._plan(image, options)
        self.urgent.submit(image, plan)
        return self._covered(self.urgent, image, plan, plan_masks)

    def anonymize_all(
        self, images: Iterable[UInt8Array], options: DetectOptions | None, plan_masks: PlanMasks
    ) -> Iterator[tuple[UInt8Array, Faces]]:
        """Yield what `anonymize` returns for each image, in order, several under way at once.

        `images` is read some images ahead; each must stay as it is until its result is there. An
        error ends it: results that were yielded are whole, others are not yielded. Before the next
        `detect_all` or `anonymize_all` it must have ended, or be closed.
        """

        def checked() -> Iterator[UInt8Array]:
            for image in images:  # none on the device: it would be covered where it lies
                check_image(image)
                yield image

        def finish(
            lane: Lane, image: UInt8Array | ResidentImage, plan: Plan
        ) -> tuple[UInt8Array, Faces]:
            return self._covered(lane, image, plan, plan_masks)

        return self._stream(checked(), options, finish)

    def anonymize_array(
        self, image: CudaArray, options: DetectOptions | None, plan_masks: PlanMasks
    ) -> tuple[DeviceImage, Faces]:
        """Return a copy on the device of an array there, its faces covered, and the faces."""
        stream = self.urgent.stream
        source = self.device.view(image, stream)
        width, height = source.width, source.height
        memory = self.device.allocate(width * height * CHANNELS)
        covered = DeviceImage(memory, width, height)  # frees it, whatever happens
        stream.copy(memory.pointer, source.pointer, memory.size)
        _, faces = self.anonymize_resident(
            memory.pointer, width, height, options, plan_masks, in_place=True
        )
        return covered, faces

    def anonymize_resident(
        self,
        pointer: int,
        width: int,
        height: int,
        options: DetectOptions | None,
        plan_masks: PlanMasks,
        *,
        in_place: bool = False,
    ) -> tuple[int, Faces]:
        """Cover the faces of a picture on the device, RGB without gaps; return where it then lies.

        That is a copy, kept until the next call, unless `in_place`; then the picture must not
        change meanwhile, and after an error its faces may be clear.
        """
        plan = plan_frame(width, height, options or DetectOptions(), pages=self.networks.pages)
        lane = self.urgent
        coverer = self._coverer(lane)
        if not in_place:  # first of all: what is searched is what is covered
            pointer = coverer.keep(pointer, width, height)
        lane.submit_resident(pointer, plan)
        faces = self._collect(lane, plan, lambda: lane.submit_resident(pointer, plan))
        coverer.cover(pointer, width, height, plan_masks(faces))
        lane.stream.synchronize()
        return pointer, faces

    def close(self) -> None:
        """Free lanes, networks and device, as far as they can be; raises the first failure."""
        coverers = [coverer.close for coverer in self._coverers.values()]
        lanes = [lane.close for lane in (self.urgent, *self._bulk)]
        self._coverers.clear()
        self._bulk.clear()
        close_all(*coverers, *lanes, self._team.close, self.networks.close, self.device.close)

    def _stream(
        self,
        images: Iterable[Pixels],
        options: DetectOptions | None,
        finish: Callable[[Lane, UInt8Array | ResidentImage, Plan], Result],
    ) -> Iterator[Result]:
        """Yield what `finish` returns for each image, in order."""
        under_way: deque[tuple[Lane, UInt8Array | ResidentImage, Plan]] = deque()
        idle = deque(self._bulk)
        try:
            for image in images:
                if not idle and len(self._bulk) < self._lanes:
                    self._bulk.append(
                        Lane(self.device, self.networks, urgent=False, team=self._team)
                    )
                    idle.append(self._bulk[-1])
                if not idle:
                    yield finish(*under_way[0])
                    idle.append(under_way.popleft()[0])
                lane = idle.popleft()
                source = self._source(image, lane)
                plan = self._plan(source, options)
                under_way.append((lane, source, plan))
                lane.submit(source, plan)
            while under_way:
                yield finish(*under_way[0])
                under_way.popleft()
        finally:
            for lane, *_ in under_way:  # left by an error, or by a caller who wants no more
                lane.stream.synchronize()

    def _source(self, image: Pixels, lane: Lane) -> UInt8Array | ResidentImage:
        """Return what a lane takes; raises `InvalidImage`."""
        if is_resident(image):
            return self.device.view(image, lane.stream)
        check_image(cast(UInt8Array, image))
        return cast(UInt8Array, image)

    def _plan(self, image: UInt8Array | ResidentImage, options: DetectOptions | None) -> Plan:
        height, width = image.shape[:2]
        return plan_frame(width, height, options or DetectOptions(), pages=self.networks.pages)

    def _faces(self, lane: Lane, image: UInt8Array | ResidentImage, plan: Plan) -> Faces:
        """Return the faces of the image that a lane has under way."""
        return self._collect(lane, plan, lambda: lane.submit(image, plan))

    def _collect(self, lane: Lane, plan: Plan, again: Callable[[], None]) -> Faces:
        """Return a lane's faces, the picture done again where a list was too short."""
        while True:
            try:
                found = lane.collect()
                break
            except Crowded:
                again()
        return to_faces(found, plan, self.networks)

    def _covered(
        self, lane: Lane, image: UInt8Array | ResidentImage, plan: Plan, plan_masks: PlanMasks
    ) -> tuple[UInt8Array, Faces]:
        """Return a lane's picture, the copy that its faces were found in, with them covered."""
        faces = self._faces(lane, image, plan)
        coverer = self._coverer(lane)
        coverer.cover(lane.resident, plan.width, plan.height, plan_masks(faces))
        return coverer.download(lane.resident, plan.width, plan.height), faces

    def _coverer(self, lane: Lane) -> Coverer:
        if lane not in self._coverers:
            self._coverers[lane] = Coverer(self.device, lane.stream, self._team)
        return self._coverers[lane]


def to_faces(found: npt.NDArray[np.void], plan: Plan, networks: DeviceNetworks) -> Faces:
    """Return `FACE` `[n]` as faces, best first, clipped to the image."""
    found = found[np.lexsort((found["key"], -found["logit"]))]
    boxes = bx.clip(found["box"].astype(np.float64), plan.width, plan.height)
    inside = (boxes[:, 2:] > boxes[:, :2]).all(axis=1)
    found, boxes = found[inside], boxes[inside]
    scores = 1 / (1 + np.exp(-found["logit"].astype(np.float64)))
    landmarks = found["landmarks"].reshape(-1, 2, 5).transpose(0, 2, 1)
    return Faces(
        boxes.astype(np.float32),
        scores.astype(np.float32),
        np.ascontiguousarray(landmarks),
        plan.width,
        plan.height,
        networks.backend,
        networks.precision,
    )
