"""Time from decoded pixels to faces, unface and its peers side by side in one run.

    python -m benchmarks [--quick] [--sizes 1080p,4k] [--min-face 20] [--threads 2]
                         [--pictures few,crowd] [--detectors unface-fast,deface]
                         [--data FOLDER] [--out FOLDER]

Every detector has a process of its own, in an environment of its own under `.bench/`, and the same
cores, pixels and minimum face; they take turns. Pictures are composed, so that their faces are
known: recall stands beside every time. The whole run writes `benchmarks/results/speed.json` and
`speed.svg`; any other only where `--out` says.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks import accuracy, plot, selection, tables
from benchmarks.figures import Photographs, read_photographs
from benchmarks.machine import describe
from benchmarks.rounds import Measured, measure

RESULTS = Path(__file__).parent / "results"


def main(words: list[str] | None = None) -> None:
    """Measure, print the tables, write the results."""
    arguments = selection.read(words, __doc__)
    if arguments.data is not None:
        accuracy.add_missing(arguments.data, arguments.selection.detectors)
    photographs = read_photographs(accuracy.RESULTS)
    measured = measure(arguments.selection)
    print(tables.show(measured.cases, measured.not_measured, photographs))
    whole = arguments.selection == selection.WHOLE
    out = arguments.out or (RESULTS if whole else None)
    if out is not None:
        write(out, measured, photographs)


def write(folder: Path, measured: Measured, photographs: dict[str, Photographs]) -> None:
    """Write `speed.json` and, when the cases of the plot were measured, `speed.svg`."""
    folder.mkdir(parents=True, exist_ok=True)
    results = to_json(measured, photographs)
    (folder / "speed.json").write_text(json.dumps(results, indent=1, allow_nan=False) + "\n")
    svg = plot.draw(measured.cases, photographs, measured.not_measured, describe())
    if svg is not None:
        (folder / "speed.svg").write_text(svg, encoding="utf-8")


def to_json(measured: Measured, photographs: dict[str, Photographs]) -> dict[str, Any]:
    """Return all figures with machine, date and versions."""
    return {
        **describe(),
        "versions": measured.versions,
        "not_measured": measured.not_measured,
        "photographs": {
            name: {**asdict(photographs[name]), "recall": photographs[name].recall}
            for name in measured.versions
            if name in photographs
        },
        "cases": [asdict(case) for case in measured.cases],
    }


if __name__ == "__main__":
    main()
