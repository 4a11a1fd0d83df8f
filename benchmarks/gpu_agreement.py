"""The faces the GPU finds beside those of the FP32 reference in torch, and beside the labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.gpu_correct import reference
from benchmarks.gpu_probe import borrowed, detect, lanes_of
from benchmarks.gpu_setting import Case, Photo, Setting, photo, variants
from unface.calibration.matching import Counts, iou, match
from unface.gpu.cascade import to_faces
from unface.gpu.networks import DeviceNetworks
from unface.gpu.plan import plan_frame
from unface.mtcnn.cascade import Cascade
from unface.mtcnn.faces import Faces
from unface.mtcnn.network import UInt8Array
from unface.mtcnn.options import DetectOptions

FOUND_IOU = 0.4  # with a labelled face, as in `benchmarks.figures`
SAME_IOU = 0.5  # from here on two detections are of one face


@dataclass
class Agreement:
    """Faces of many pictures beside those of the FP32 reference.

    `faces` of the reference, `met` by a detection of an IoU above `SAME_IOU`, `alone` met by none
    of the reference's; of those met the least IoU and the greatest shift of a landmark, part of
    the face's longer side. Recall is against the labels.
    """

    pictures: int = 0
    faces: int = 0
    met: int = 0
    alone: int = 0
    least_iou: float = 1.0
    most_shift: float = 0.0
    most_score_difference: float = 0.0
    labelled: int = 0
    found: int = 0
    found_by_reference: int = 0

    @property
    def lost_points(self) -> float:
        """Part of the reference's faces that were not met, in hundredths."""
        return 100 * (self.faces - self.met) / max(self.faces, 1)

    @property
    def recall_lost_points(self) -> float:
        """Recall that the reference has more, in hundredths."""
        return 100 * (self.found_by_reference - self.found) / max(self.labelled, 1)

    def add(self, found: Faces, expected: Faces, truth: NDArray[np.float64], least: float) -> None:
        """Count one picture; labelled faces lower than `least` count neither way."""
        self.pictures += 1
        self.faces += len(expected)
        overlaps = iou(expected.boxes.astype(np.float64), found.boxes.astype(np.float64))
        for index, row in enumerate(overlaps):
            best = int(row.argmax()) if row.size else -1
            if best < 0 or row[best] <= SAME_IOU:
                continue
            self.met += 1
            self.least_iou = min(self.least_iou, float(row[best]))
            side = float((expected.boxes[index, 2:] - expected.boxes[index, :2]).max())
            shift = np.abs(found.landmarks[best] - expected.landmarks[index]).max() / side
            self.most_shift = max(self.most_shift, float(shift))
            change = abs(float(found.scores[best] - expected.scores[index]))
            self.most_score_difference = max(self.most_score_difference, change)
        best_of_ours = overlaps.max(axis=0, initial=0) if overlaps.size else np.zeros(len(found))
        self.alone += int((best_of_ours <= SAME_IOU).sum())
        ignored = truth[:, 3] - truth[:, 1] < least
        counts, theirs = Counts(), Counts()
        match(counts, found.boxes.astype(np.float64), truth, ignored, FOUND_IOU)
        match(theirs, expected.boxes.astype(np.float64), truth, ignored, FOUND_IOU)
        self.labelled += counts.faces
        self.found += counts.found
        self.found_by_reference += theirs.found

    def answer(self) -> dict[str, Any]:
        """Return it as figures."""
        points = {"lost_points": self.lost_points, "recall_lost_points": self.recall_lost_points}
        return {**asdict(self), **points}


@dataclass(frozen=True)
class Expected:
    """A picture with its labels, and what the reference finds of it."""

    photo: Photo
    options: DetectOptions
    faces: Faces


def compare(
    setting: Setting, networks: DeviceNetworks, expected: Sequence[Expected]
) -> dict[str, Any]:
    """Return how the faces of pictures agree with those of the reference."""
    agreement = Agreement()
    with lanes_of(setting.device, networks, 1) as (lane,):
        for one in expected:
            height, width = one.photo.image.shape[:2]
            plan = plan_frame(width, height, one.options, pages=networks.pages)
            found = to_faces(detect(lane, one.photo.image, plan), plan, networks)
            agreement.add(found, one.faces, one.photo.faces, one.options.min_face)
    print(tell(agreement))
    return agreement.answer()


def tell(agreement: Agreement) -> str:
    """Return an agreement in words."""
    a = agreement
    return (
        f"{a.pictures} pictures: {a.met} of {a.faces} faces of the FP32 reference met, {a.alone} "
        f"more; least IoU {a.least_iou:.4f}, landmarks within {a.most_shift:.2%} of a face, scores "
        f"within {a.most_score_difference:.4f}; of {a.labelled} labelled faces {a.found} found, by "
        f"the reference {a.found_by_reference}"
    )


def expect(setting: Setting, *, few: bool = False) -> list[Expected]:
    """Return the composed pictures, or a `few` of them, with what the reference finds."""
    cascade = Cascade(reference())
    found = []
    for case, image, faces in _pictures(setting, few):
        options = DetectOptions(min_face=case.min_face)
        found.append(Expected(Photo(image, faces), options, cascade.detect(image, options)))
    return found


def _pictures(setting: Setting, few: bool) -> list[tuple[Case, UInt8Array, NDArray[np.float64]]]:
    if setting.is_tiny:
        one = photo("tiny", "few")
        return [(Case("tiny", "few", 40), one.image, one.faces)]
    whole = not few and setting.extent.random_pictures > 2
    sizes = ("480p", "720p", "1080p", "4k") if whole else ("480p", "1080p")
    cases = [Case(size, kind, 20) for size in sizes for kind in ("none", "few", "crowd")]
    if whole:
        cases += [Case("1080p", kind, 40) for kind in ("few", "crowd")]
    found = []
    for case in cases:
        one = photo(case.size, case.kind)
        # Moved pictures have their faces elsewhere: they are held against the reference alone.
        extra = variants(one.image, 2, seed=case.min_face)[1:] if case.size != "4k" else []
        found.append((case, one.image, one.faces))
        found += [(case, image, np.empty((0, 4))) for image in extra]
    return found


def gate(setting: Setting, networks: DeviceNetworks, folder: Path) -> dict[str, Any]:
    """Return what the project's gate says of networks, on labelled photographs."""
    from unface.calibration.gate import judge, look, score
    from unface.calibration.labels import read_labels

    pictures = read_labels(folder)
    reference_cascade = Cascade(reference())
    with borrowed(setting.device, networks) as cascade:
        answers = []
        for picture in pictures:
            pixels = picture.load()
            theirs = look(reference_cascade, pixels, picture)
            answers.append((theirs, look(cascade, pixels, picture)))
    comparison = score(pictures, answers)
    verdict, recall = judge(comparison), comparison.overall
    print(
        f"{len(pictures)} pictures, {recall.faces} faces: the reference finds {recall.reference}, "
        f"the GPU {recall.candidate}: {'; '.join(verdict.reasons) or 'passed'}"
    )
    return {
        "pictures": len(pictures),
        "faces": recall.faces,
        "found": recall.candidate,
        "found_by_reference": recall.reference,
        "recall_lost_points": -recall.difference,
        "false_positives": list(comparison.false_positives),
        "passed": verdict.passed,
        "reasons": list(verdict.reasons),
    }
