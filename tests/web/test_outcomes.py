from __future__ import annotations

import json
from typing import Any

from unface.v1 import unface_pb2 as pb
from unface.web.outcomes import MAX_NAME, Outcomes, covered, failed

FACE = pb.Face(box=pb.Box(x1=1, y1=2, x2=3, y2=4), score=0.5)


def reported(outcomes: Outcomes) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(outcomes.to_json())
    return found


def test_the_report_is_one_object_in_utf_8() -> None:
    assert reported(Outcomes()) == {"files": [], "left_out": 0}
    outcomes = Outcomes()
    outcomes.add(failed("é\u202e.jpg", {"reason": "x"}))
    outcomes.add(covered("b", "b.jpg", pb.AnonymizeResponse(faces=[FACE, FACE], kept=[FACE])))
    none = {"verification": None, "error": None}
    assert reported(outcomes) == {
        "files": [
            {
                "name": "é\u202e.jpg",
                "stored": None,
                "faces": 0,
                "kept": 0,
                **none,
                "error": {"reason": "x"},
            },
            {"name": "b", "stored": "b.jpg", "faces": 2, "kept": 1, **none},
        ],
        "left_out": 0,
    }


def test_faces_that_are_left_have_no_landmarks_in_it() -> None:
    answer = pb.AnonymizeResponse(verification=pb.Verification(residual=[FACE], rounds=2))
    assert covered("a", "a.jpg", answer)["verification"] == {
        "clean": False,
        "residual": [{"box": [1, 2, 3, 4], "score": 0.5}],
        "rounds": 2,
        "covered": [],
    }


def test_a_long_name_is_there_with_its_end() -> None:
    name = failed("x" * 5000 + ".jpg", {})["name"]
    assert len(name) == MAX_NAME
    assert name.endswith("x.jpg")


def test_what_finds_no_room_is_counted() -> None:
    outcomes = Outcomes(most_bytes=300)
    for name in ("a" * 50, "b" * 50, "c" * 250, "d"):
        outcomes.add(failed(name, {}))
    report = reported(outcomes)
    assert [file["name"][0] for file in report["files"]] == ["a", "b"]
    assert report["left_out"] == 2
    assert len(outcomes.to_json()) <= 300 + 30
