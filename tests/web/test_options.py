from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unface.errors import InvalidOption
from unface.v1 import unface_pb2 as pb
from unface.web.options import (
    ANONYMIZE,
    BATCH,
    DETECT,
    OPTIONS,
    find_option,
    options_of,
    read_options,
)
from unface.web.values import MAX_BOXES, names_of

CALLS = (DETECT, ANONYMIZE, BATCH)
sides = st.floats(-1e6, 1e6, width=32)
boxes = st.lists(st.lists(sides, min_size=4, max_size=4), max_size=20)


def read(call: str = ANONYMIZE, **options: str) -> Any:
    return read_options(options.items(), call).request


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("profile", "privacy", {"detect_options": {"profile": "privacy"}}),
        ("min_face", "40", {"detect_options": {"min_face": 40}}),
        ("scale_factor", ".8", {"detect_options": {"scale_factor": 0.8}}),
        ("onet_threshold", "0.9", {"detect_options": {"onet_threshold": 0.9}}),
        (
            "thresholds",
            "0.5, 0.25,1e-1",
            {
                "detect_options": {
                    "pnet_threshold": 0.5,
                    "rnet_threshold": 0.25,
                    "onet_threshold": 0.1,
                }
            },
        ),
        ("method", "solid", {"anonymize_options": {"method": pb.MASK_METHOD_SOLID}}),
        ("shape", "rectangle", {"anonymize_options": {"shape": pb.MASK_SHAPE_RECTANGLE}}),
        ("margin", "0", {"anonymize_options": {"margin": 0}}),
        ("cells", "4", {"anonymize_options": {"cells": 4}}),
        ("kernel", "1.5", {"anonymize_options": {"kernel": 1.5}}),
        (
            "color",
            "255, 204,0",
            {"anonymize_options": {"color": {"red": 255, "green": 204, "blue": 0}}},
        ),
        ("format", "webp", {"anonymize_options": {"format": pb.OUTPUT_FORMAT_WEBP}}),
        ("quality", "90", {"anonymize_options": {"quality": 90}}),
        ("keep_exif", "true", {"anonymize_options": {"keep_exif": True}}),
        ("keep_exif", "false", {"anonymize_options": {}}),
        (
            "keep",
            "[[1,2,3.5,4]]",
            {"anonymize_options": {"regions": {"keep": [{"x1": 1, "y1": 2, "x2": 3.5, "y2": 4}]}}},
        ),
        ("cover", "[]", {"anonymize_options": {"regions": {}}}),
        ("cover_only", "true", {"anonymize_options": {"regions": {"cover_only": True}}}),
        ("verify", "true", {"anonymize_options": {"verify": {}}}),
        ("verify", "0", {"anonymize_options": {"verify": {"rounds": 0}}}),
        ("verify", "false", {}),
        ("audit", "true", {"anonymize_options": {"audit": True}}),
        ("priority", "bulk", {"priority": pb.PRIORITY_BULK}),
        ("answer", "json", {}),
    ],
)
def test_an_option_is_a_field_of_the_request(
    name: str, text: str, expected: dict[str, Any]
) -> None:
    assert read(**{name: text}).SerializeToString(deterministic=True) == pb.AnonymizeRequest(
        **expected
    ).SerializeToString(deterministic=True)


def test_nothing_said_is_an_empty_request() -> None:
    assert read(DETECT) == pb.DetectRequest()
    assert read(ANONYMIZE) == pb.AnonymizeRequest()
    assert read_options([], ANONYMIZE).answer is None
    assert read_options([("answer", "report")], ANONYMIZE).answer == "report"


def test_the_threshold_of_one_network_comes_before_that_of_all() -> None:
    for order in (1, -1):
        given = [("thresholds", "0.1,0.2,0.3"), ("onet_threshold", "0.9")][::order]
        options = read_options(given, DETECT).request.detect_options
        assert (options.pnet_threshold, options.onet_threshold) == (0.1, 0.9)


@pytest.mark.parametrize("name", OPTIONS)
def test_the_example_of_every_option_is_taken_and_does_something(name: str) -> None:
    option = OPTIONS[name]
    for call in option.calls:
        chosen = read_options([(name, option.example)], call)
        assert chosen.answer or chosen.request.ByteSize()


def test_calls_differ_in_what_they_take() -> None:
    assert {o.name for o in options_of(BATCH)} == OPTIONS.keys() - {"answer"}
    assert {o.name for o in options_of(DETECT)} < {o.name for o in options_of(BATCH)}
    with pytest.raises(InvalidOption, match="'method' is no option of detect; there are profile"):
        find_option("method", DETECT)


def test_every_enum_of_the_contract_can_be_said() -> None:
    assert names_of(pb.MaskMethod.DESCRIPTOR) == {"mosaic": 1, "solid": 2, "blur": 3, "box": 4}
    for name, enum, without in (
        ("method", pb.MaskMethod, set()),
        ("shape", pb.MaskShape, set()),
        ("format", pb.OutputFormat, {"raw"}),
        ("priority", pb.Priority, set()),
    ):
        assert set(OPTIONS[name].schema["enum"]) == names_of(enum.DESCRIPTOR).keys() - without


def test_every_option_of_the_contract_can_be_said() -> None:
    """Fields that are added there are missed here."""
    ways = {"pnet_threshold", "rnet_threshold", "regions"}  # thresholds; keep, cover, cover_only
    for message in (pb.DetectOptions, pb.AnonymizeOptions):
        assert set(message.DESCRIPTOR.fields_by_name) - ways <= OPTIONS.keys()
    assert set(pb.Regions.DESCRIPTOR.fields_by_name) <= OPTIONS.keys()


@pytest.mark.parametrize(
    ("name", "text"),
    [
        *[("min_face", text) for text in ("", "x", "nan", "inf", "1e999", "0x10", "1_0", "1,5")],
        *[("cells", text) for text in ("", "-1", "1.5", "4294967296", "9" * 30, " 4", "+4")],
        *[(name, "\u0661") for name in ("min_face", "cells", "color")],  # a digit, not of ASCII
        *[("keep_exif", text) for text in ("", "1", "yes", "True", "TRUE", "on")],
        *[("thresholds", text) for text in ("", "0.6", "0.6,0.7", "0.6,0.7,0.7,0.7", ",,")],
        *[("color", text) for text in ("", "red", "#ffcc00", "1,2", "1,2,3,4", "-1,0,0", "1.,0,0")],
        *[("method", text) for text in ("", "MOSAIC", "unspecified", "pixelate", "1")],
        *[("format", text) for text in ("raw", "gif", "jpg")],
        *[("verify", text) for text in ("", "yes", "-1", "1.0")],
        *[("priority", text) for text in ("", "unspecified", "high")],
        *[("answer", text) for text in ("", "html", "JSON")],
        *[("keep", text) for text in ("", "null", "{}", "1", '"x"', "[1]", "[[1,2,3]]")],
        *[("keep", text) for text in ("[[1,2,3,4,5]]", "[[1,2,3,true]]", "[[1,2,3,null]]")],
        *[("keep", text) for text in ('[["1",2,3,4]]', "[[[1],2,3,4]]")],
        *[("keep", text) for text in ("[[1,2,3,NaN]]", "[[1,2,3,Infinity]]", "[[1,2,3,1e39]]")],
        *[("keep", text) for text in ("[" * 100_000, "[[1,2,3,4]", "[[1,2,3,4]]x", "[[1,2,3,4],]")],
        ("keep", json.dumps([[0, 0, 1, 1]] * (MAX_BOXES + 1))),
        ("keep", "[[1,2,3," + "9" * 5000 + "]]"),
    ],
)
def test_what_cannot_be_read_is_refused_by_name(name: str, text: str) -> None:
    with pytest.raises(InvalidOption, match=f"^{name} is ") as error:
        read(**{name: text})
    assert len(str(error.value)) < 300


def test_so_many_boxes_as_the_contract_allows_are_read() -> None:
    text = json.dumps([[0.5, 1, 2, 3]] * MAX_BOXES)
    assert len(read(cover=text).anonymize_options.regions.cover) == MAX_BOXES


@pytest.mark.parametrize("call", CALLS)
def test_unknown_and_repeated_names_are_refused(call: str) -> None:
    for name in ("", "image", "profil", "Profile", "__class__", "\n" * 100):
        with pytest.raises(InvalidOption, match=f"is no option of {call}; there are profile, "):
            read_options([(name, "1")], call)
    with pytest.raises(InvalidOption, match=r"^min_face is given twice"):
        read_options([("min_face", "20"), ("min_face", "20")], call)


@pytest.mark.parametrize(("name", "most"), [("profile", 1 << 10), ("cover", 1 << 20)])
def test_a_text_may_be_only_so_long(name: str, most: int) -> None:
    with pytest.raises(InvalidOption, match=f"^{name} is longer than {most} bytes"):
        read(**{name: "é" * (most // 2 + 1)})


@given(st.sampled_from([*OPTIONS]), st.text(max_size=60))
def test_any_text_is_either_an_option_or_refused(name: str, text: str) -> None:
    with suppress(InvalidOption):
        read(**{name: text})


@given(boxes)
def test_boxes_come_as_they_were_sent(sent: list[list[float]]) -> None:
    found = read(keep=json.dumps(sent)).anonymize_options.regions.keep
    assert [[box.x1, box.y1, box.x2, box.y2] for box in found] == sent


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_numbers_come_as_they_were_sent(sent: float) -> None:
    assert read(min_face=repr(sent)).detect_options.min_face == sent
