"""The server under load, beside what it promises.

    python -m benchmarks.serving [SECTION...] [--seconds N] [--flags FLAGS] [--json FILE]

Real server processes over loopback, each section with its own. Prints a table for each; a run of
all writes `results/serving.json`, any other writes where `--json` says, in the place of the
sections of the same names. Exits with 1 where a target is missed.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from functools import partial
from importlib import import_module
from pathlib import Path

from benchmarks.serving_figures import Section, measure

RESULTS = Path(__file__).parent / "results" / "serving.json"
SECTIONS = {
    "overhead": "serving_speed",
    "rest": "serving_rest",
    "throughput": "serving_speed",
    "batching": "serving_speed",
    "overload": "serving_overload",
    "chaos": "serving_chaos",
    "kill": "serving_kill",
    "fuzz": "serving_fuzz",
}


def section_named(name: str) -> Callable[..., Section]:
    """Return the function that measures a section; its `seconds` have a default each."""
    section: Callable[..., Section] = getattr(import_module(f"benchmarks.{SECTIONS[name]}"), name)
    return section


def main() -> int:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "sections", nargs="*", metavar="SECTION", help=f"{', '.join(SECTIONS)}; default: all"
    )
    parser.add_argument("--seconds", type=float, help="of each measurement instead of its default")
    parser.add_argument(
        "--flags", type=str.split, help='of the overloaded server, such as="--queue-ms 20"'
    )
    parser.add_argument("--json", type=Path, help="file that the figures go to")
    arguments = parser.parse_args()
    if unknown := set(arguments.sections) - SECTIONS.keys():
        parser.error(f"{', '.join(unknown)}: there are {', '.join(SECTIONS)}")
    file = arguments.json or (None if arguments.sections else RESULTS)
    chosen = {} if arguments.seconds is None else {"seconds": arguments.seconds}
    sections = {
        name: partial(section_named(name), **chosen) for name in arguments.sections or SECTIONS
    }
    if arguments.flags and "overload" in sections:
        sections["overload"] = partial(sections["overload"], flags=arguments.flags)
    return int(measure(sections, file))


if __name__ == "__main__":
    sys.exit(main())
