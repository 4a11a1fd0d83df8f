"""The gate: what a candidate engine finds beside a reference, and whether that is good enough.

Recall is compared at equal false positives. The reference at its default threshold makes so many
false ones; that is the budget of both. Each then gets the lowest O-Net threshold with which it
stays within the budget (detections of equal score stand or fall together), and is counted there:
an engine whose scores all moved is not blamed for it, and one that buys recall with false alarms
is not praised. Pictures whose other faces are unlabelled have no part in the budget.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from unface.calibration.labels import LabelledPicture
from unface.calibration.matching import BANDS, FALSE, Boxes, assign, band_of, iou
from unface.calibration.outputs import Difference, compare_networks
from unface.errors import InvalidOption
from unface.mtcnn.cascade import Cascade
from unface.mtcnn.faces import Faces
from unface.mtcnn.network import Networks, UInt8Array
from unface.mtcnn.options import DetectOptions

DEFAULT = DetectOptions()
SWEPT_FROM = 0.5  # the lowest O-Net threshold of the sweep: that of the privacy profile
RESAMPLES, SEED = 2000, 0  # of the bootstrap
ROUNDING = 1e-9  # points: a limit met exactly is met


@dataclass(frozen=True)
class Limits:
    """How much worse a candidate may be."""

    recall: float = 0.3  # points, all faces
    band: float = 1.0  # points, faces of one size band
    landmarks: float = 0.5  # percent of the face's width
    faces: int = 30  # in a smaller band one face is points: only more than one missing fails


# For the built-in scenes: 40 pictures of one person, where four faces of a band are three points.
# They tell a damaged engine from a sound one, not a good one from a better.
BUILT_IN_LIMITS = Limits(recall=1.5, band=5.0)


@dataclass(frozen=True)
class Recall:
    """How many of the labelled faces each engine found.

    `interval` is the 95% bootstrap interval, over pictures, of `difference`, in points.
    """

    faces: int
    reference: int
    candidate: int
    interval: tuple[float, float] = (0.0, 0.0)

    @property
    def difference(self) -> float:
        """Candidate minus reference, in points (hundredths) of recall."""
        return 100 * (self.candidate - self.reference) / self.faces if self.faces else 0.0


@dataclass(frozen=True)
class LandmarkError:
    """Mean distance to the labelled landmarks over faces both found, in percent of face width."""

    faces: int
    reference: float
    candidate: float


@dataclass(frozen=True)
class Overlap:
    """IoU of the reference's box with the candidate's, over faces both found."""

    faces: int
    median: float
    low: float  # 5th percentile


@dataclass(frozen=True, eq=False)
class Missed:
    """A labelled face that one engine found and the other did not; scores are None if not met."""

    set: str
    name: str
    box: tuple[float, float, float, float]  # x1 y1 x2 y2, as labelled
    reference_score: float | None
    candidate_score: float | None
    load: Callable[[], UInt8Array]  # the whole picture, RGB uint8 [H, W, 3]

    @property
    def height(self) -> float:
        """Labelled height in pixels."""
        return self.box[3] - self.box[1]


@dataclass(frozen=True, eq=False)
class Comparison:
    """Everything measured of two engines on the same pictures; pairs are reference, candidate."""

    pictures: int
    thresholds: tuple[float, float]  # O-Net's, of equal false positives
    false_positives: tuple[int, int]
    overall: Recall
    bands: dict[str, Recall]
    sets: dict[str, Recall]
    in_use: Recall  # at the default threshold, whatever the false positives
    in_use_false_positives: tuple[int, int]
    landmarks: LandmarkError | None  # None: no face that both found has labelled landmarks
    overlap: Overlap | None  # None: no face was found by both
    missed_by_candidate: tuple[Missed, ...]  # largest first
    missed_by_reference: tuple[Missed, ...]
    networks: dict[str, dict[str, Difference]] = field(default_factory=dict)


@dataclass(frozen=True)
class Verdict:
    """The gate's answer: `reasons` say what failed, `notes` what could not be judged."""

    passed: bool
    reasons: tuple[str, ...]
    notes: tuple[str, ...]
    limits: Limits


@dataclass(frozen=True, eq=False)
class Answers:
    """What one engine found in one picture, best score first.

    `boxes` float64 `[n, 4]`, `scores` `[n]`, `landmarks` `[n, 5, 2]`; `taken` `[n]` as `assign`
    gives it.
    """

    boxes: Boxes
    scores: NDArray[np.float64]
    landmarks: NDArray[np.float64]
    taken: NDArray[np.int64]

    def met(self, faces: int, threshold: float) -> NDArray[np.int64]:
        """Return for each of so many faces the detection that takes it above, -1 without one."""
        detections = np.full(faces, -1, np.int64)
        for index in np.flatnonzero((self.taken >= 0) & (self.scores > threshold)):
            detections[self.taken[index]] = index
        return detections


Pair = tuple[Answers, Answers]


def compare(
    reference: Networks,
    candidate: Networks,
    pictures: Sequence[LabelledPicture],
    progress: Callable[[], object] = lambda: None,
) -> Comparison:
    """Measure two engines on labelled pictures, one picture in memory at a time.

    `progress` is called after each picture. The same engines and pictures give the same figures.
    Raises `InvalidOption` when no labelled face counts or the reference finds none of them,
    `InvalidImage` for a picture that cannot be read, `EngineError` when an engine misbehaves.
    """
    if not sum(int(counted(picture).sum()) for picture in pictures):
        raise InvalidOption("no labelled face counts: nothing could be missed")
    cascades = Cascade(reference), Cascade(candidate)
    answers: list[Pair] = []
    for picture in pictures:
        pixels = picture.load()
        first, second = (look(cascade, pixels, picture) for cascade in cascades)
        answers.append((first, second))
        progress()
    comparison = score(pictures, answers)
    networks = compare_networks(reference, candidate, pictures)
    return replace(comparison, networks=networks)


class Finder(Protocol):
    """A cascade, on whatever device."""

    def detect(self, image: UInt8Array, options: DetectOptions | None = None) -> Faces:
        """Find the faces of an image."""
        ...


def look(cascade: Finder, pixels: UInt8Array, picture: LabelledPicture) -> Answers:
    """Return what a cascade finds in a picture, uncertain detections too."""
    first, second, _ = DEFAULT.thresholds
    found = cascade.detect(pixels, replace(DEFAULT, thresholds=(first, second, SWEPT_FROM)))
    order = np.argsort(-found.scores, kind="stable")
    boxes = found.boxes[order].astype(np.float64)
    taken = assign(boxes, picture.faces, picture.ignored, picture.rules.iou)
    scores, landmarks = found.scores[order], found.landmarks[order]
    return Answers(boxes, scores.astype(np.float64), landmarks.astype(np.float64), taken)


def counted(picture: LabelledPicture) -> NDArray[np.bool_]:
    """Return which labelled faces of a picture count for recall, bool `[n]`."""
    return ~picture.ignored & (not picture.rules.landmarks_only)


def score(pictures: Sequence[LabelledPicture], answers: Sequence[Pair]) -> Comparison:
    """Return what the answers of two engines to the same pictures amount to.

    Raises `InvalidOption` when the reference finds no face: nothing can be compared with it.
    """
    false = [false_scores(pictures, [pair[side] for pair in answers]) for side in (0, 1)]
    budget = above(false[0], DEFAULT.thresholds[2])
    limits = (threshold_within(false[0], budget), threshold_within(false[1], budget))
    usual = (DEFAULT.thresholds[2], DEFAULT.thresholds[2])
    overall, bands, sets = _recalls(pictures, answers, limits)
    if not overall.reference:
        raise InvalidOption(
            f"the first engine finds none of {overall.faces} labelled faces: no reference"
        )
    return Comparison(
        pictures=len(pictures),
        thresholds=limits,
        false_positives=(above(false[0], limits[0]), above(false[1], limits[1])),
        overall=overall,
        bands=bands,
        sets=sets,
        in_use=_recalls(pictures, answers, usual)[0],
        in_use_false_positives=(budget, above(false[1], usual[1])),
        landmarks=_landmark_error(pictures, answers, limits),
        overlap=_overlap(pictures, answers, limits),
        missed_by_candidate=_missed(pictures, answers, limits, by=1),
        missed_by_reference=_missed(pictures, answers, limits, by=0),
    )


def false_scores(
    pictures: Sequence[LabelledPicture], answers: Sequence[Answers]
) -> NDArray[np.float64]:
    """Return the scores of all false positives; none come from partially labelled pictures."""
    scores = [
        answer.scores[answer.taken == FALSE]
        for picture, answer in zip(pictures, answers, strict=True)
        if not picture.rules.partial
    ]
    return np.concatenate([np.empty(0), *scores])


def above(scores: NDArray[np.float64], threshold: float) -> int:
    """Return how many scores are above a threshold."""
    return int((scores > threshold).sum())


def threshold_within(false: NDArray[np.float64], budget: int) -> float:
    """Return the lowest threshold, from `SWEPT_FROM`, above which at most `budget` scores lie."""
    if len(false) <= budget:
        return SWEPT_FROM
    return max(SWEPT_FROM, float(np.sort(false)[::-1][budget]))


def judge(comparison: Comparison, limits: Limits | None = None) -> Verdict:
    """Hold a comparison against the limits."""
    limits = limits or Limits()
    reasons, notes = [], []
    if -comparison.overall.difference > limits.recall + ROUNDING:
        reasons.append(_worse("recall", comparison.overall, limits.recall))
    for band, recall in comparison.bands.items():
        lost = recall.reference - recall.candidate
        if recall.faces >= limits.faces:
            if -recall.difference > limits.band + ROUNDING:
                reasons.append(_worse(f"recall of faces {band} px", recall, limits.band))
        elif lost > 1:
            reasons.append(f"{lost} faces {band} px are missed more, of only {recall.faces}")
        else:
            notes.append(f"{recall.faces} faces {band} px are too few to judge their recall")
    marks = comparison.landmarks
    if marks is None:
        notes.append("no landmarks are labelled on faces that both found: not judged")
    elif marks.candidate - marks.reference > limits.landmarks:
        reasons.append(
            f"landmarks are off by {marks.candidate:.2f}% of the face's width, "
            f"{marks.candidate - marks.reference:.2f} more than the reference; "
            f"at most {limits.landmarks:g} more may be"
        )
    if not reasons and -comparison.in_use.difference > limits.band:
        notes.append(
            f"at the default threshold {-comparison.in_use.difference:.2f} points of recall are "
            "lost: the candidate's scores are lower"
        )
    return Verdict(not reasons, tuple(reasons), tuple(notes), limits)


def _worse(what: str, recall: Recall, limit: float) -> str:
    return (
        f"{what} is {-recall.difference:.2f} points lower ({recall.candidate} of {recall.faces} "
        f"found, reference {recall.reference}); at most {limit:g} may be"
    )


def _recalls(
    pictures: Sequence[LabelledPicture], answers: Sequence[Pair], thresholds: tuple[float, float]
) -> tuple[Recall, dict[str, Recall], dict[str, Recall]]:
    """Return the recall over all faces, by size band and by set."""
    names = list(dict.fromkeys(p.set for p in pictures if not p.rules.landmarks_only))
    groups = ["", *BANDS, *names]
    # Faces, found by the reference, found by the candidate: of each picture in each group.
    counts = np.zeros((len(groups), len(pictures), 3))
    for number, (picture, pair) in enumerate(zip(pictures, answers, strict=True)):
        found = [a.met(len(picture.faces), t) >= 0 for a, t in zip(pair, thresholds, strict=True)]
        for index in np.flatnonzero(counted(picture)):
            band = band_of(picture.faces[index, 3] - picture.faces[index, 1])
            row = [1, found[0][index], found[1][index]]
            # Sets come last: one may be called like a band.
            place = len(BANDS) + 1 + names.index(picture.set)
            counts[[0, groups.index(band), place], number] += row
    totals = counts.sum(axis=1).astype(int)
    intervals = _intervals(counts)
    recalls = [
        Recall(int(n), int(a), int(b), interval)
        for (n, a, b), interval in zip(totals, intervals, strict=True)
    ]
    last = len(BANDS) + 1
    by_band = dict(zip(BANDS, recalls[1:last], strict=True))
    by_set = {name: r for name, r in zip(names, recalls[last:], strict=True) if r.faces}
    return recalls[0], by_band, by_set


def _intervals(counts: NDArray[np.float64]) -> list[tuple[float, float]]:
    """Return the 95% bootstrap interval of candidate minus reference, in points, of each group.

    `counts` `[groups, pictures, 3]`: faces and those that each engine found.
    """
    rng = np.random.default_rng(SEED)
    pictures = counts.shape[1]
    drawn = rng.multinomial(pictures, np.full(pictures, 1 / pictures), RESAMPLES)
    intervals = []
    for group in counts:
        sums = drawn @ group
        lost = sums[:, 2] - sums[:, 1]
        points = 100 * np.divide(lost, sums[:, 0], out=np.zeros(RESAMPLES), where=sums[:, 0] > 0)
        low, high = np.percentile(points, [2.5, 97.5])
        intervals.append((float(low), float(high)))
    return intervals


def _found_by_both(
    pictures: Sequence[LabelledPicture], answers: Sequence[Pair], thresholds: tuple[float, float]
) -> Iterator[tuple[LabelledPicture, int, Pair, tuple[int, int]]]:
    """Yield the faces both found: picture, its face, the answers, the detection in each."""
    for picture, pair in zip(pictures, answers, strict=True):
        count = len(picture.faces)
        first, second = (a.met(count, t) for a, t in zip(pair, thresholds, strict=True))
        for face in np.flatnonzero(~picture.ignored & (first >= 0) & (second >= 0)):
            yield picture, int(face), pair, (int(first[face]), int(second[face]))


def _landmark_error(
    pictures: Sequence[LabelledPicture], answers: Sequence[Pair], thresholds: tuple[float, float]
) -> LandmarkError | None:
    errors = []
    for picture, face, pair, at in _found_by_both(pictures, answers, thresholds):
        truth, box = picture.landmarks[face], picture.faces[face]
        if np.isfinite(truth).all():
            points = [answer.landmarks[index] for answer, index in zip(pair, at, strict=True)]
            width = box[2] - box[0]
            errors.append([np.linalg.norm(p - truth, axis=1).mean() / width for p in points])
    if not errors:
        return None
    reference, candidate = (100 * np.mean(errors, axis=0)).tolist()
    return LandmarkError(len(errors), reference, candidate)


def _overlap(
    pictures: Sequence[LabelledPicture], answers: Sequence[Pair], thresholds: tuple[float, float]
) -> Overlap | None:
    overlaps = [
        iou(pair[0].boxes[at[0]][None], pair[1].boxes[at[1]][None])[0, 0]
        for _, _, pair, at in _found_by_both(pictures, answers, thresholds)
    ]
    if not overlaps:
        return None
    return Overlap(len(overlaps), float(np.median(overlaps)), float(np.percentile(overlaps, 5)))


def _missed(
    pictures: Sequence[LabelledPicture],
    answers: Sequence[Pair],
    thresholds: tuple[float, float],
    by: int,
) -> tuple[Missed, ...]:
    """Return the faces that one engine (0 reference, 1 candidate) misses and the other finds."""
    missed = []
    for picture, pair in zip(pictures, answers, strict=True):
        count = len(picture.faces)
        found = [a.met(count, t) >= 0 for a, t in zip(pair, thresholds, strict=True)]
        best = [a.met(count, 0.0) for a in pair]  # also what is below the threshold
        for face in np.flatnonzero(counted(picture) & found[1 - by] & ~found[by]):
            first, second = (
                float(a.scores[b[face]]) if b[face] >= 0 else None
                for a, b in zip(pair, best, strict=True)
            )
            x1, y1, x2, y2 = picture.faces[face].tolist()
            box = (x1, y1, x2, y2)
            missed.append(Missed(picture.set, picture.name, box, first, second, picture.load))
    return tuple(sorted(missed, key=lambda m: (-m.height, m.set, m.name, m.box)))
