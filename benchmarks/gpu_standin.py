"""facenet-pytorch's MTCNN, said again in plain torch, for where its package is missing.

The same steps in the same order, pictures and boxes on the device throughout as there: P-Net on one
level after the other, crops cut one by one at whole pixels, suppression per picture by torchvision,
the last one in numpy on the CPU. Its networks are ours (`unface.mtcnn.networks`): the same layers
and weights. Tim Esler's facenet-pytorch 2.6.0, `models/utils/detect_face.py`, is what it follows.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from unface.mtcnn.networks import load_network

FACTOR, THRESHOLDS = 0.709, (0.6, 0.7, 0.7)
CROPS_AT_ONCE = 512
Suppress = Callable[[Tensor, Tensor, Tensor, float], Tensor]


class StandIn:
    """The detector; `suppress` is torchvision's `batched_nms`."""

    def __init__(self, device: str, min_face: float, suppress: Suppress) -> None:
        self._device, self._min_face, self._suppress = device, min_face, suppress
        self._pnet, self._rnet, self._onet = (
            load_network(name).to(device) for name in ("pnet", "rnet", "onet")
        )

    @torch.inference_mode()
    def detect(self, pictures: Any) -> list[tuple[Any, Any]]:
        """Return boxes `[n, 4]` and scores `[n]` of each picture, uint8 RGB `[N, H, W, 3]`."""
        images = torch.as_tensor(pictures, device=self._device).permute(0, 3, 1, 2).float()
        boxes, indices = self._propose(images)
        boxes, indices = self._refine(images, boxes, indices)
        boxes, indices = self._finish(images, boxes, indices)
        found, where = boxes.cpu().numpy(), indices.cpu().numpy()
        return [(found[where == n, :4], found[where == n, 4]) for n in range(len(images))]

    def _propose(self, images: Tensor) -> tuple[Tensor, Tensor]:
        height, width = images.shape[2:]
        scale, kept, owners = 12 / self._min_face, [], []
        while min(height, width) * scale >= 12:
            size = (int(height * scale + 1), int(width * scale + 1))
            logits, offsets = self._pnet(interpolate(images, size=size, mode="area"))
            scores = torch.sigmoid(logits[:, 0])
            mask = scores >= THRESHOLDS[0]
            places = mask.nonzero()
            owner, cells = places[:, 0], places[:, 1:].flip(1).float()
            corners = [((2 * cells + edge) / scale).floor() for edge in (1, 12)]
            moves = offsets.permute(0, 2, 3, 1)[mask]
            rows = torch.cat([*corners, scores[mask][:, None], moves], dim=1)
            pick = self._suppress(rows[:, :4], rows[:, 4], owner, 0.5)
            kept.append(rows[pick])
            owners.append(owner[pick])
            scale *= FACTOR
        rows, indices = torch.cat(kept), torch.cat(owners)
        pick = self._suppress(rows[:, :4], rows[:, 4], indices, 0.7)
        rows, indices = rows[pick], indices[pick]
        sides = (rows[:, 2:4] - rows[:, :2]).repeat(1, 2)
        return _squared(torch.cat([rows[:, :4] + rows[:, 5:] * sides, rows[:, 4:5]], 1)), indices

    def _refine(self, images: Tensor, boxes: Tensor, indices: Tensor) -> tuple[Tensor, Tensor]:
        if not len(boxes):
            return boxes, indices
        logits, offsets = self._run(self._rnet, self._crops(images, boxes, indices, 24))
        boxes, indices, offsets = _passed(boxes, indices, logits, offsets, THRESHOLDS[1])
        pick = self._suppress(boxes[:, :4], boxes[:, 4], indices, 0.7)
        return _squared(_moved(boxes[pick], offsets[pick])), indices[pick]

    def _finish(self, images: Tensor, boxes: Tensor, indices: Tensor) -> tuple[Tensor, Tensor]:
        if not len(boxes):
            return boxes, indices
        logits, offsets, _ = self._run(self._onet, self._crops(images, boxes, indices, 48))
        boxes, indices, offsets = _passed(boxes, indices, logits, offsets, THRESHOLDS[2])
        boxes = _moved(boxes, offsets)
        pick = _suppress_by_smaller(boxes, indices)
        return boxes[pick], indices[pick]

    def _crops(self, images: Tensor, boxes: Tensor, indices: Tensor, size: int) -> Tensor:
        height, width = images.shape[2:]
        whole = boxes.trunc().int().cpu().numpy()
        left, top = np.maximum(whole[:, 0], 1) - 1, np.maximum(whole[:, 1], 1) - 1
        right, bottom = np.minimum(whole[:, 2], width), np.minimum(whole[:, 3], height)
        crops = []
        for n in range(len(whole)):
            x2, y2 = max(right[n], left[n] + 1), max(bottom[n], top[n] + 1)
            crop = images[indices[n], :, top[n] : y2, left[n] : x2][None]
            crops.append(interpolate(crop, size=(size, size), mode="area"))
        return torch.cat(crops)

    @staticmethod
    def _run(network: Any, crops: Tensor) -> list[Tensor]:
        parts = [network(crops[n : n + CROPS_AT_ONCE]) for n in range(0, len(crops), CROPS_AT_ONCE)]
        return [torch.cat(part)[:, :, 0, 0] for part in zip(*parts, strict=True)]


def _passed(
    boxes: Tensor, indices: Tensor, logits: Tensor, offsets: Tensor, threshold: float
) -> tuple[Tensor, Tensor, Tensor]:
    scores = torch.sigmoid(logits[:, 0])
    above = scores > threshold
    rows = torch.cat([boxes[above, :4], scores[above][:, None]], 1)
    return rows, indices[above], offsets[above]


def _moved(boxes: Tensor, offsets: Tensor) -> Tensor:
    sides = (boxes[:, 2:4] - boxes[:, :2] + 1).repeat(1, 2)
    return torch.cat([boxes[:, :4] + offsets * sides, boxes[:, 4:5]], 1)


def _squared(boxes: Tensor) -> Tensor:
    sides = boxes[:, 2:4] - boxes[:, :2]
    longer = sides.max(1, keepdim=True).values
    corner = boxes[:, :2] + sides * 0.5 - longer * 0.5
    return torch.cat([corner, corner + longer, boxes[:, 4:5]], 1)


def _suppress_by_smaller(boxes: Tensor, indices: Tensor, threshold: float = 0.7) -> Tensor:
    """Greedy suppression by the smaller area, pictures apart, in numpy as there."""
    rows = boxes.cpu().numpy().astype(np.float64)
    owners = indices.cpu().numpy()
    left, kept = np.argsort(rows[:, 4]), []
    areas = (rows[:, 2] - rows[:, 0] + 1) * (rows[:, 3] - rows[:, 1] + 1)
    while left.size:
        best, left = left[-1], left[:-1]
        kept.append(best)
        low = np.maximum(rows[best, :2], rows[left, :2])
        high = np.minimum(rows[best, 2:4], rows[left, 2:4])
        shared = np.clip(high - low + 1, 0, None).prod(1) / np.minimum(areas[best], areas[left])
        left = left[(shared <= threshold) | (owners[left] != owners[best])]
    return torch.as_tensor(np.array(kept, np.int64), device=boxes.device)
