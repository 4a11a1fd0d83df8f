"""`unface validate`: the gate that an engine must pass to take the place of another."""

from __future__ import annotations

import argparse
import hashlib
from datetime import datetime, timezone
from pathlib import Path

from tqdm import tqdm

from unface.calibration.cost import Pace, measure_speed, peak_memory
from unface.calibration.gate import BUILT_IN_LIMITS, Comparison, compare, judge
from unface.calibration.labels import LabelledPicture, read_labels
from unface.calibration.page import to_html
from unface.calibration.report import EngineFacts, Report, to_json, to_text
from unface.calibration.scenes import labelled_scenes
from unface.engines import shelf
from unface.errors import InvalidOption
from unface.folders import write_whole
from unface.mtcnn import Cascade, Networks


def validate_engines(arguments: argparse.Namespace) -> int:
    """Compare two engines, print the table, write the reports; returns the exit code.

    0 when the candidate passes the gate, 1 when it does not.
    """
    for file in (arguments.json, arguments.html):
        if file is not None and file.is_dir():
            raise InvalidOption(f"{file} is a folder; a file to write the report to is needed")
    pictures = labelled_scenes() if arguments.data is None else read_labels(arguments.data)
    key = shelf.read_engine_key(None)
    reference, candidate = (
        shelf.open_named(spec, threads=arguments.threads, key=key)
        for spec in (arguments.reference, arguments.candidate)
    )
    try:
        comparison, speed = _measure(reference, candidate, pictures, arguments.speed)
    finally:
        Cascade(reference).close()
        Cascade(candidate).close()
    report = Report(
        _facts(arguments.reference, arguments.speed),
        _facts(arguments.candidate, arguments.speed),
        _data_name(arguments.data),
        datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        comparison,
        judge(comparison, BUILT_IN_LIMITS if arguments.data is None else None),
        speed,
    )
    print(to_text(report))
    if arguments.json is not None:
        write_whole(to_json(report).encode(), arguments.json)
    if arguments.html is not None:
        write_whole(to_html(report).encode(errors="backslashreplace"), arguments.html)
    return 0 if report.verdict.passed else 1


def _measure(
    reference: Networks, candidate: Networks, pictures: list[LabelledPicture], timed: bool
) -> tuple[Comparison, dict[str, Pace]]:
    with tqdm(total=len(pictures), unit="picture", leave=False, disable=None) as progress:
        comparison = compare(reference, candidate, pictures, progress.update)
    return comparison, measure_speed(reference, candidate, pictures) if timed else {}


def _facts(spec: str, measured: bool) -> EngineFacts:
    files = shelf.named_files(spec, shelf.read_engine_key(None))
    engines = {name: files[name] for name in shelf.NETWORKS}
    return EngineFacts(
        spec,
        {name: hashlib.sha256(data).hexdigest() for name, data in engines.items()},
        {name: len(data) for name, data in engines.items()},
        peak_memory(spec) if measured else None,
    )


def _data_name(folder: Path | None) -> str:
    if folder is None:
        return "the scenes that ship with unface (no --data was given)"
    return folder.resolve().name
