"""The three-stage cascade resident on a GPU; the rules are those of `unface.mtcnn.reference`."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from unface.gpu.device import Device
from unface.gpu.lane import Crowded, Lane
from unface.gpu.networks import DeviceNetworks
from unface.gpu.plan import Plan, plan_frame
from unface.mtcnn import boxes as bx
from unface.mtcnn.cascade import check_image
from unface.mtcnn.faces import Faces
from unface.mtcnn.network import UInt8Array
from unface.mtcnn.options import DetectOptions

BULK_LANES = 6  # pictures under way at once, beside an urgent one


class GpuCascade:
    """P-, R- and O-Net on the device. Not thread-safe: one caller at a time.

    `detect` goes before whatever `detect_all` has under way. Raises `DeviceFailure` when the device
    does not do what is asked, `BeyondDevice` for what only the CPU takes, and what
    `unface.mtcnn.cascade.Cascade` raises; never an answer without faces instead.
    """

    def __init__(self, device: Device, networks: DeviceNetworks, lanes: int = BULK_LANES) -> None:
        self.device, self.networks = device, networks
        self.urgent = Lane(device, networks, urgent=True)
        self._bulk: list[Lane] = []
        self._lanes = lanes

    def detect(self, image: UInt8Array, options: DetectOptions | None = None) -> Faces:
        """Find the faces of an image, RGB uint8 `[H, W, 3]`."""
        check_image(image)
        plan = self._plan(image, options)
        self.urgent.submit(image, plan)
        return self._faces(self.urgent, image, plan)

    def detect_all(
        self, images: Sequence[UInt8Array], options: DetectOptions | None = None
    ) -> list[Faces]:
        """Find the faces of each image, in order, several under way at once."""
        for image in images:
            check_image(image)
        return list(self._stream(images, options))

    def close(self) -> None:
        """Free lanes, networks and device."""
        for lane in (self.urgent, *self._bulk):
            lane.close()
        self._bulk.clear()
        self.networks.close()
        self.device.close()

    def _stream(
        self, images: Sequence[UInt8Array], options: DetectOptions | None
    ) -> Iterator[Faces]:
        while len(self._bulk) < min(self._lanes, len(images)):
            self._bulk.append(Lane(self.device, self.networks, urgent=False))
        under_way: deque[tuple[Lane, UInt8Array, Plan]] = deque()
        idle = deque(self._bulk)
        for image in images:
            if not idle:
                lane, *work = under_way.popleft()
                yield self._faces(lane, *work)
                idle.append(lane)
            plan = self._plan(image, options)
            lane = idle.popleft()
            lane.submit(image, plan)
            under_way.append((lane, image, plan))
        for lane, *work in under_way:
            yield self._faces(lane, *work)

    def _plan(self, image: UInt8Array, options: DetectOptions | None) -> Plan:
        height, width = image.shape[:2]
        return plan_frame(width, height, options or DetectOptions(), pages=self.networks.pages)

    def _faces(self, lane: Lane, image: UInt8Array, plan: Plan) -> Faces:
        """Return a lane's faces, the picture done again where a list was too short."""
        while True:
            try:
                found = lane.collect()
                break
            except Crowded:
                lane.submit(image, plan)
        return to_faces(found, plan, self.networks)


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
