from __future__ import annotations

import re

import pytest

from benchmarks import peers, worker
from benchmarks.selection import DETECTORS


def test_every_peer_is_pinned() -> None:
    for name, calls in peers.REQUIREMENTS.items():
        assert any(word.startswith(f"{name}==") for call in calls for word in call), name


def test_every_detector_can_be_opened_or_says_why_not() -> None:
    assert set(peers.NAMES) == worker.DETECTORS.keys() | peers.NOT_TO_BE_HAD.keys()
    assert set(DETECTORS) == set(peers.NAMES) - {"unface-privacy"}


def test_what_cannot_be_had_says_why() -> None:
    reasons = peers.install(["unface", "opencv-yunet"])
    assert reasons.keys() == {"opencv-yunet"}
    assert "model" in reasons["opencv-yunet"]
    with pytest.raises(peers.NotInstalled, match="model"):
        peers.Worker("opencv-yunet", 1, 20)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "no message"),
        ("WARNING: a\nERROR: No matching distribution found for x==1\n[notice] new pip\n",
         "ERROR: No matching distribution found for x==1"),
        ('Traceback:\n  File "/a/b.py"\nModuleNotFoundError: No module named \'x\'\n',
         "ModuleNotFoundError: No module named 'x'"),
        ("Killed\n", "Killed"),
    ],
)  # fmt: skip
def test_the_line_that_says_what_went_wrong_is_taken(text: str, said: str) -> None:
    assert peers.last_error(text) == said


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("cannot reach https://host.example/simple/x/", "cannot reach ..."),
        ("Pool(host='host.example', port=443)", "Pool(..., port=443)"),
        ("cannot open /home/me/a.so: gone", "cannot open a.so: gone"),
        ("2 faces/s and 3/4", "2 faces/s and 3/4"),
    ],
)
def test_reasons_name_no_places(text: str, said: str) -> None:
    assert peers.without_places(text) == said


def test_a_worker_detects_decodes_and_names_its_libraries() -> None:
    with peers.worker("unface", 1, 40) as detector:
        assert re.match(r"\d+\.", detector.versions["unface"])
        with pytest.raises(peers.Failed, match=r"failed on missing\.npy"):
            detector.detect(peers.ROOT / "missing.npy")
        photo = peers.ROOT / "docs/images/astronaut.jpg"
        found = detector.detect(photo)
        assert len(found["boxes"]) == len(found["scores"]) == 1
        assert found["ms"] > 0
        assert found["decode_ms"] > 0
        assert found["peak_mb"] > 10
        assert detector.decode(photo).keys() == {"decode_ms"}
