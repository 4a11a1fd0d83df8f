"""From a report to a labelled set that the gate reads, by the real commands."""

from __future__ import annotations

import argparse
import json
import stat
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from scenes import astronaut, background

from unface.calibration.labels import read_labels
from unface.detector import Detector
from unface.errors import InvalidOption, UnfaceError
from unface.mtcnn.network import UInt8Array
from unface.quality.crops import cut_crops
from unface.quality.export import NotExported, export
from unface.quality.places import Place, Report
from unface.quality.store import Store, StoreError
from unface.quality.trials import Outcome, Trial
from unface.quality_command import add_commands
from unface.sealing import new_key

FACE = Place("missed", 177, 63, 264, 170)  # in the portrait
KEY = bytes(range(32))


def unface(*arguments: object) -> int:
    """Run a command as `unface` does; errors are raised."""
    parser = argparse.ArgumentParser("unface")
    add_commands(parser.add_subparsers(required=True))
    parsed = parser.parse_args([str(argument) for argument in arguments])
    code: int = parsed.run(parsed)
    return code


def keep(store: Store, pixels: UInt8Array | None, *places: Place, id: str = "r1") -> int:
    """Store a report, with crops where there is a picture."""
    crops = [] if pixels is None else list(cut_crops(pixels, places))
    height, width = (None, None) if pixels is None else pixels.shape[:2]
    return store.add_report(Report(id, "fast", width, height, places), crops, KEY)


def lines(file: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in file.read_text().splitlines()]


@pytest.fixture
def db(tmp_path: Path) -> Path:
    """A file with a missed face and a false one, crops and all."""
    with Store(tmp_path / "quality.db") as store:
        keep(store, astronaut(), FACE)
        keep(store, background(800, 600), Place("false", 100, 100, 180, 190), id="r2")
    return tmp_path / "quality.db"


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    path = tmp_path / "key"
    path.write_bytes(KEY)
    path.chmod(0o600)
    return path


def test_an_export_is_read_as_labels_and_the_detector_finds_the_face_where_it_was_reported(
    db: Path, tmp_path: Path
) -> None:
    with Store(db) as store:
        exported = export(store, tmp_path / "out", KEY)
    assert (exported.reports, exported.pictures, exported.faces) == (2, 2, 1)
    assert exported.lacks() == []
    missed, false = read_labels(tmp_path / "out")
    assert len(false.faces) == 0
    assert false.load().shape == (180, 160, 3)
    crop = missed.load()
    assert (crop == astronaut()[9:224, 133:308]).all()
    (found,) = Detector().detect(crop)
    assert np.abs(np.array(found.box) - missed.faces[0]).max() < 15


def test_the_real_gate_judges_engines_on_an_export(
    db: Path, key_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, record = tmp_path / "out", tmp_path / "report.json"
    assert unface("feedback", "export", db, out, "--key-file", key_file) == 0
    shown = capsys.readouterr()
    assert f"{out}: 2 reports, 2 pictures, 1 faces" in shown.out
    assert f"unface validate fp32 int8 --data {out}" in shown.out
    command = [sys.executable, "-m", "unface.command", "validate", "fp32", "fp32", "--no-speed"]
    run = subprocess.run(
        [*command, "--data", out, "--json", record], capture_output=True, text=True, timeout=120
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert json.loads(record.read_text())["passed"] is True


def test_crops_can_be_calibrated_on(db: Path, tmp_path: Path) -> None:
    from unface.calibration.samples import find_images, read_images

    with Store(db) as store:
        export(store, tmp_path / "out", KEY)
    assert len(list(read_images(find_images([tmp_path / "out" / "images"])))) == 2


def test_a_crop_is_labelled_with_every_missed_face_in_it_and_cut_ones_are_ignored(
    tmp_path: Path,
) -> None:
    pixels = background(1000, 1000)
    places = (
        Place("missed", 100, 100, 200, 200),  # its crop: 50 to 250
        Place("missed", 210.5, 120, 230, 140),
        Place("missed", 240, 100, 300, 160),  # cut by the first crop's edge
        Place("false", 60, 60, 90, 90),
        Place("missed", 600, 600, 650, 650),
    )
    with Store(tmp_path / "quality.db") as store:
        keep(store, pixels, *places)
        export(store, tmp_path / "out", KEY)
    by_name = {line["image"]: line for line in lines(tmp_path / "out" / "labels.jsonl")}
    assert by_name["1-0.png"]["faces"] == [
        {"box": [50, 50, 100, 100], "ignore": False},
        {"box": [160.5, 70, 19.5, 20], "ignore": False},
        {"box": [190, 50, 10, 60], "ignore": True},
    ]
    assert by_name["1-3.png"]["faces"] == [{"box": [55, 55, 5, 5], "ignore": True}]
    assert by_name["1-4.png"]["faces"] == [{"box": [25, 25, 50, 50], "ignore": False}]
    assert len(read_labels(tmp_path / "out")) == 5


def test_what_is_exported_is_its_owners_alone(db: Path, tmp_path: Path) -> None:
    with Store(db) as store:
        export(store, tmp_path / "out", KEY)
    out = tmp_path / "out"
    assert stat.S_IMODE(out.stat().st_mode) == 0o700
    files = [path for path in out.rglob("*") if path.is_file()]
    assert len(files) == 4
    assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o600}


def test_without_crops_the_reports_are_exported_and_it_says_what_is_lacking(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    db, out = tmp_path / "quality.db", tmp_path / "out"
    with Store(db, clock=lambda: 1000.0) as store:
        keep(store, None, FACE, Place("false", 1, 2, 3, 4))
    assert unface("feedback", "export", db, out) == 0
    assert "no crops are kept" in capsys.readouterr().err
    assert [path.name for path in out.iterdir()] == ["reports.jsonl"]
    assert lines(out / "reports.jsonl") == [
        {
            "id": 1,
            "request_id": "r1",
            "time": 1000.0,
            "profile": "fast",
            "width": None,
            "height": None,
            "places": [
                {"kind": "missed", "box": [177, 63, 264, 170]},
                {"kind": "false", "box": [1, 2, 3, 4]},
            ],
        }
    ]


@pytest.mark.parametrize(
    ("places", "said"),
    [
        ((), "there are no reports"),
        ((Place("false", 1, 2, 30, 40),), "no missed face is among the crops"),
        ((FACE, Place("missed", 0, 0, 512, 512)), "1 of 2 places have no crop"),
    ],
)
def test_what_an_export_lacks_is_said(tmp_path: Path, places: Sequence[Place], said: str) -> None:
    with Store(tmp_path / "quality.db") as store:
        if places:
            keep(store, astronaut(), *places)
        (sentence,) = export(store, tmp_path / "out", KEY).lacks()
    assert said in sentence


def test_nothing_is_overwritten(db: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with Store(db) as store:
        export(store, tmp_path / "out", KEY)  # an empty folder is as good as none
        labels = (tmp_path / "out" / "labels.jsonl").read_bytes()
        for target in (tmp_path / "out", db):
            with pytest.raises(NotExported, match="is there already"):
                export(store, target, KEY)
    assert (tmp_path / "out" / "labels.jsonl").read_bytes() == labels


@pytest.mark.parametrize(
    ("key", "said"), [(None, "--key-file names their key"), (new_key(), "the key is another one")]
)
def test_without_the_right_key_nothing_is_written(
    db: Path, tmp_path: Path, key: bytes | None, said: str
) -> None:
    before = set(tmp_path.rglob("*"))
    with Store(db) as store, pytest.raises(NotExported, match=said):
        export(store, tmp_path / "out", key)
    assert set(tmp_path.rglob("*")) == before


def test_crops_that_were_swapped_are_refused(db: Path, tmp_path: Path) -> None:
    with Store(db) as store:
        sealed = [store.crops(id)[0].sealed for id in (1, 2)]
        for id, other in ((1, sealed[1]), (2, sealed[0])):
            store._connection.execute(
                "UPDATE crops SET sealed = ? WHERE report_id = ?", (other, id)
            )
        with pytest.raises(NotExported, match="report 1, place 0 cannot be opened"):
            export(store, tmp_path / "out", KEY)


# The other commands -----------------------------------------------------------------------------


def test_reports_are_listed_and_deleted_by_number(
    db: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert unface("feedback", "list", db) == 0
    first, second = capsys.readouterr().out.splitlines()
    assert first.split()[0] == "1"
    assert "1 missed  0 false  1 crops  r1" in first
    assert "0 missed  1 false  1 crops  r2" in second
    assert unface("feedback", "delete", db, 2, 2, 7) == 1
    assert "1 of 2 reports deleted" in capsys.readouterr().out
    assert unface("feedback", "delete", db, 1) == 0
    capsys.readouterr()
    unface("feedback", "list", db)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    "command",
    [("feedback", "list"), ("feedback", "export"), ("feedback", "delete"), ("ab", "report")],
)
def test_a_file_that_is_not_there_is_an_error_and_is_not_made(
    tmp_path: Path, command: tuple[str, str]
) -> None:
    path = tmp_path / "quality.db"
    more = {"export": [tmp_path / "out"], "delete": [1]}.get(command[1], [])
    with pytest.raises(StoreError, match="is not there"):
        unface(*command, path, *more)
    assert not path.exists()


def test_ab_report_prints_a_table_or_json_and_says_when_there_is_no_trial(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "quality.db"
    with Store(path) as store:
        with pytest.raises(InvalidOption, match="has no trial in it"):
            unface("ab", "report", path)
        store.put_counts(Trial("fast", 0.25), [Outcome(28_000_000, "a", "accurate", 3)], [])
    assert unface("ab", "report", path) == 0
    text = capsys.readouterr().out
    assert text.startswith("trial of fast on 25% of the requests, 2023-03-28 10:40 to")
    assert "Too little data: a has 3 pictures in 1 different times" in text
    assert unface("ab", "report", path, "--json") == 0
    (record,) = json.loads(capsys.readouterr().out)
    assert record["trial"] == {"profile": "fast", "share": 0.25, "shadow": False}


def test_every_refusal_is_an_error_of_unface() -> None:
    assert issubclass(NotExported, UnfaceError)
    assert issubclass(StoreError, UnfaceError)
