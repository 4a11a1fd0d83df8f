"""What one run measures: which detectors, on which pictures, with which options."""

from __future__ import annotations

import argparse
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks.peers import NOT_TO_BE_HAD, REQUIREMENTS
from benchmarks.pictures import KINDS, SIZES

DETECTORS = ("unface-fast", "unface", *REQUIREMENTS, *NOT_TO_BE_HAD)
MIN_FACES, THREADS = (20, 40, 80), (2, 1)
ROUNDS, QUICK_ROUNDS = 7, 3
CAP_S = 1.5


@dataclass(frozen=True)
class Selection:
    """The cases of a run: every size with every kind of picture, minimum face, number of threads.

    Each detector has `rounds` runs a case that count, and fewer once it has spent `cap_s` seconds
    on them.
    """

    sizes: tuple[str, ...] = tuple(SIZES)
    kinds: tuple[str, ...] = tuple(KINDS)
    min_faces: tuple[int, ...] = MIN_FACES
    threads: tuple[int, ...] = THREADS
    detectors: tuple[str, ...] = DETECTORS
    rounds: int = ROUNDS
    cap_s: float = CAP_S

    def openings(self) -> Iterator[tuple[int, int]]:
        """Yield threads and minimum face: every detector is opened once for each."""
        for threads in self.threads:
            for min_face in self.min_faces:
                yield threads, min_face

    def pictures(self) -> Iterator[tuple[str, str]]:
        """Yield size and kind; small ones and empty ones first, for the sake of peak memory."""
        for size in SIZES:
            for kind in KINDS:
                if size in self.sizes and kind in self.kinds:
                    yield size, kind


WHOLE = Selection()
QUICK = Selection(("480p", "1080p"), ("few",), (20, 40), (2,), DETECTORS, QUICK_ROUNDS)


@dataclass(frozen=True)
class Arguments:
    """What the command was told: `data` is a folder of labelled photographs, `out` for results."""

    selection: Selection
    data: Path | None
    out: Path | None


def read(words: list[str] | None, description: str | None) -> Arguments:
    """Return the arguments of the command line (None: this process's); exits on wrong ones."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--quick", action="store_true", help="480p, 1080p, few faces: two minutes")
    for name, choices in (
        ("--sizes", tuple(SIZES)),
        ("--pictures", tuple(KINDS)),
        ("--min-face", MIN_FACES),
        ("--threads", THREADS),
        ("--detectors", DETECTORS),
    ):
        parser.add_argument(name, metavar=",".join(map(str, choices)))
    parser.add_argument("--rounds", type=_positive, help=f"runs a case ({ROUNDS})")
    parser.add_argument("--cap", type=float, help=f"seconds a detector and case ({CAP_S})")
    parser.add_argument("--data", type=Path, help="labelled photographs: judge new peers on them")
    parser.add_argument("--out", type=Path, help="write speed.json and speed.svg here")
    given = parser.parse_args(words)
    start = QUICK if given.quick else WHOLE
    try:
        selection = Selection(
            _names("--sizes", given.sizes, SIZES, start.sizes),
            _names("--pictures", given.pictures, KINDS, start.kinds),
            _numbers("--min-face", given.min_face, start.min_faces),
            _numbers("--threads", given.threads, start.threads),
            _names("--detectors", given.detectors, DETECTORS, start.detectors),
            given.rounds or start.rounds,
            start.cap_s if given.cap is None else given.cap,
        )
    except ValueError as error:
        parser.error(str(error))
    return Arguments(selection, given.data, given.out)


def _positive(word: str) -> int:
    if int(word) < 1:
        raise argparse.ArgumentTypeError("must be 1 or more")
    return int(word)


def _names(
    option: str, given: str | None, known: Collection[str], default: tuple[str, ...]
) -> tuple[str, ...]:
    """Return the names between commas, once each, in the order of those known."""
    if given is None:
        return default
    wanted = {word.strip().lower() for word in given.split(",")}
    for word in wanted.difference(known):
        raise ValueError(f"{option}: {word!r} is not one of {', '.join(known)}")
    return tuple(name for name in known if name in wanted)


def _numbers(option: str, given: str | None, default: tuple[int, ...]) -> tuple[int, ...]:
    """Return the numbers between commas, once each, as given."""
    if given is None:
        return default
    words = dict.fromkeys(word.strip() for word in given.split(","))
    if not all(word.isdecimal() and int(word) for word in words):
        raise ValueError(f"{option}: {given!r}; whole numbers above 0 are needed, with commas")
    return tuple(map(int, words))
