"""The cascade as a specification: plain, one box at a time, the rules every engine is held to.

`cascade.py` does the same work packed, batched and vectorized; `tests/mtcnn` holds it to this one.
"Original" is the MATLAB code that Zhang et al. published with "Joint Face Detection and Alignment
using Multi-task Cascaded Convolutional Networks" (2016): `detect_face.m`, `generateBoundingBox.m`,
`nms.m`, `pad.m`, `rerec.m`, `bbreg.m`.

The rules
---------
Frame       Continuous pixels: pixel (0, 0) covers [0, 1) x [0, 1); a box is `x1 y1 x2 y2`, its
            width `x2 - x1`. The original counts from 1 and includes the last pixel, which gives
            the same width (`x2 - x1 + 1`). Nothing is rounded between stages; the original
            truncates (`fix`) to cut crops from whole pixels.
Levels      Scales `12 / min_face * factor ** k` while the shorter side has 12 pixels or more; sizes
            `ceil(side * scale)` (original; facenet-pytorch has `int(side * scale + 1)`). Boxes go
            back by the true scale of each axis, `level side / image side`.
Resampling  Area averaging to uint8 (original: `imResample`, which averages when it shrinks; so do
            the peers), through halvings of the image. See `pyramid.Mipmap`.
P-Net       Cells of 12 x 12 pixels every 2 pixels, whole cells only. Kept: probability >= its
            threshold.
Level NMS   Greedy, intersection over union > 0.5 suppresses, within each level.
Pyramid NMS Greedy, intersection over union > 0.7 suppresses, over all levels; boxes not yet
            regressed, as in the original. Then regression by fractions of the box, and the square
            of the longer side about the same centre.
Crops       Squares, black beyond the image (original: zero before the mean is subtracted;
            facenet-pytorch clips instead and distorts faces at the border). Squares under 1 pixel
            are dropped. The crop lies 0.4 output pixels up and left of the candidate,
            which moves with it (ours: measured, `cascade.CROP_OFFSET`). See `crops.crop_squares`.
R-Net       24 x 24. Kept: probability > threshold. NMS 0.7 by union, then regression, then squares.
O-Net       48 x 48. Kept: probability > threshold. Landmarks are fractions of the square, taken
            before regression. Regression, then NMS 0.7 by intersection over the smaller area
            ("Min").
Answer      Best score first; boxes clipped to the image, empty ones dropped; landmarks as they are.
Ties        Of equal scores the first wins: P-Net cells by level, row, column; later the order in
            which boxes come.
`docs/performance.md` has the measurements behind the rules that differ from the original's.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from unface.mtcnn.cascade import CROP_OFFSET, O_NET_SIZE, R_NET_SIZE, check_image
from unface.mtcnn.crops import crop_squares
from unface.mtcnn.faces import Faces
from unface.mtcnn.network import Network, Networks, UInt8Array
from unface.mtcnn.options import DetectOptions
from unface.mtcnn.pyramid import Mipmap, pyramid_levels

Box = tuple[float, float, float, float]


class Candidate(NamedTuple):
    """A box on its way through the cascade, with what the last network said of it."""

    box: Box
    logit: float
    offsets: list[float]
    landmarks: list[tuple[float, float]] = []  # noqa: RUF012 - never changed


def detect(image: UInt8Array, networks: Networks, options: DetectOptions | None = None) -> Faces:
    """Find the faces of an image, RGB uint8 `[H, W, 3]`, by the rules above.

    Raises `InvalidImage` for any other array.
    """
    check_image(image)
    options = options or DetectOptions()
    mipmap = Mipmap(image)
    first, second, third = (math.log(t / (1 - t)) for t in options.thresholds)
    proposals = propose(mipmap, networks.pnet, options, first)
    refined = judge(mipmap, proposals, networks.rnet, R_NET_SIZE, second)
    refined = [to_square(regress(c)) for c in suppress(refined, 0.7, "union")]
    found = judge(mipmap, refined, networks.onet, O_NET_SIZE, third)
    found = suppress([regress(c) for c in found], 0.7, "min")
    return to_faces(found, mipmap, networks)


def propose(mipmap: Mipmap, pnet: Network, options: DetectOptions, least: float) -> list[Candidate]:
    """Stage 1: P-Net on every level."""
    proposals: list[Candidate] = []
    size = (mipmap.width, mipmap.height)
    for level in pyramid_levels(*size, options.min_face, options.scale_factor):
        outputs = pnet(mipmap.level(level)[None])
        logit, offsets = outputs["logit"][0], outputs["box"][0]
        cells = [
            Candidate(
                (2.0 * x, 2.0 * y, 2.0 * x + 12, 2.0 * y + 12),
                float(logit[y, x]),
                offsets[y, x].tolist(),
            )
            for y, x in np.argwhere(logit >= least).tolist()
        ]
        scale_x, scale_y = level.width / mipmap.width, level.height / mipmap.height
        for cell in suppress(cells, 0.5, "union"):
            x1, y1, x2, y2 = cell.box
            box = (x1 / scale_x, y1 / scale_y, x2 / scale_x, y2 / scale_y)
            proposals.append(cell._replace(box=box))
    return [to_square(regress(c)) for c in suppress(proposals, 0.7, "union")]


def judge(
    mipmap: Mipmap, candidates: list[Candidate], network: Network, size: int, least: float
) -> list[Candidate]:
    """Stages 2 and 3: show a network the crop of each candidate square, keep what it believes."""
    passed = []
    for candidate in candidates:
        x1, y1, x2, _ = candidate.box
        side = x2 - x1
        if side < 1:
            continue
        x1, y1 = x1 - side * CROP_OFFSET / size, y1 - side * CROP_OFFSET / size
        crop = crop_squares(mipmap, np.array([[x1, y1, side]]), size)
        outputs = {name: values[0].tolist() for name, values in network(crop).items()}
        if outputs["logit"] > least:
            points = outputs.get("landmarks", [])
            landmarks = [
                (x1 + fx * side, y1 + fy * side)
                for fx, fy in zip(points[:5], points[5:], strict=True)
            ]
            box = (x1, y1, x1 + side, y1 + side)
            passed.append(Candidate(box, outputs["logit"], outputs["box"], landmarks))
    return passed


def suppress(candidates: list[Candidate], threshold: float, overlap: str) -> list[Candidate]:
    """Greedy non-maximum suppression: keep the best, drop what overlaps it too much, repeat."""
    left = sorted(candidates, key=lambda c: -c.logit)  # stable
    kept = []
    while left:
        best, left = left[0], left[1:]
        kept.append(best)
        left = [c for c in left if overlap_of(best.box, c.box, overlap) <= threshold]
    return kept


def overlap_of(a: Box, b: Box, overlap: str) -> float:
    """Return the intersection of two boxes over their union, or over the smaller area ("min")."""
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    area_a, area_b = ((box[2] - box[0]) * (box[3] - box[1]) for box in (a, b))
    whole = min(area_a, area_b) if overlap == "min" else area_a + area_b - width * height
    return width * height / whole


def regress(candidate: Candidate) -> Candidate:
    """Move each edge by its offset, a fraction of the box's width or height."""
    x1, y1, x2, y2 = candidate.box
    dx1, dy1, dx2, dy2 = candidate.offsets
    width, height = x2 - x1, y2 - y1
    box = (x1 + dx1 * width, y1 + dy1 * height, x2 + dx2 * width, y2 + dy2 * height)
    return candidate._replace(box=box)


def to_square(candidate: Candidate) -> Candidate:
    """Grow the shorter side to the longer one, about the same centre."""
    x1, y1, x2, y2 = candidate.box
    side = max(x2 - x1, y2 - y1)
    x, y = x1 + (x2 - x1 - side) / 2, y1 + (y2 - y1 - side) / 2
    return candidate._replace(box=(x, y, x + side, y + side))


def to_faces(found: list[Candidate], mipmap: Mipmap, networks: Networks) -> Faces:
    """Clip to the image, drop what is outside, turn logits into probabilities."""
    width, height = mipmap.width, mipmap.height
    faces = []
    for candidate in found:
        x1, x2 = (min(max(x, 0.0), width) for x in candidate.box[::2])
        y1, y2 = (min(max(y, 0.0), height) for y in candidate.box[1::2])
        if x2 > x1 and y2 > y1:
            score = 1 / (1 + math.exp(-candidate.logit))
            faces.append(((x1, y1, x2, y2), score, candidate.landmarks))
    return Faces(
        np.array([f[0] for f in faces], np.float32).reshape(-1, 4),
        np.array([f[1] for f in faces], np.float32),
        np.array([f[2] for f in faces], np.float32).reshape(-1, 5, 2),
        width,
        height,
        networks.backend,
        networks.precision,
    )
