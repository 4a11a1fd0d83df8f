from __future__ import annotations

import pytest

from benchmarks import selection
from benchmarks.selection import QUICK, WHOLE, Selection


def read(*words: str) -> Selection:
    return selection.read(list(words), None).selection


def test_without_options_everything_is_measured() -> None:
    assert read() == WHOLE
    assert len(list(WHOLE.openings())) * len(list(WHOLE.pictures())) == 4 * 3 * 3 * 2


def test_quick_has_all_detectors_and_few_cases() -> None:
    assert read("--quick") == QUICK
    assert QUICK.detectors == WHOLE.detectors
    assert list(QUICK.openings()) == [(2, 20), (2, 40)]
    assert list(QUICK.pictures()) == [("480p", "few"), ("1080p", "few")]


def test_options_choose_and_keep_the_order_of_pictures() -> None:
    words = ["--sizes", "4k,1080P", "--pictures", "crowd, few", "--detectors", "deface,unface-fast"]
    chosen = read(*words, "--min-face", "20", "--threads", "2")
    assert list(chosen.pictures()) == [
        ("1080p", "few"), ("1080p", "crowd"), ("4k", "few"), ("4k", "crowd"),
    ]  # fmt: skip
    assert list(chosen.openings()) == [(2, 20)]
    assert chosen.detectors == ("unface-fast", "deface")


def test_an_option_changes_the_quick_run_too() -> None:
    assert read("--quick", "--min-face", "80", "--rounds", "1").min_faces == (80,)
    assert read("--quick", "--cap", "0").cap_s == 0


@pytest.mark.parametrize(
    "words",
    [
        ("--sizes", "8k"),
        ("--sizes", ""),
        ("--pictures", "few,many"),
        ("--detectors", "unface-privacy"),
        ("--min-face", "0"),
        ("--min-face", "20,"),
        ("--threads", "-1"),
        ("--rounds", "0"),
        ("--rounds", "some"),
    ],
)
def test_a_wrong_option_is_refused(
    words: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        read(*words)
    assert words[0] in capsys.readouterr().err


def test_what_cannot_be_had_is_selected_too_so_that_the_table_says_why() -> None:
    assert "opencv-yunet" in WHOLE.detectors
