"""The page in a browser, beside what it promises: weight, speed, memory with many photos.

    python -m benchmarks.page [SECTION...] [--photos N] [--json FILE]

A real server and Debian's Chromium (`make tests/page/node_modules/.installed`). Prints a table for
each section; a run of all writes `results/page.json`, any other where `--json` says. Exits with 1
where a target is missed.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import monotonic

from benchmarks.serving_figures import Section, as_figures, measure
from benchmarks.serving_server import ServerProcess, serving, tracebacks

# After serving_server, which puts tests/ on the path.
from page import photos  # type: ignore[import-not-found]  # isort: skip
from page.browsing import Browser, Peaks, missing, page_of  # type: ignore[import-not-found]  # isort: skip

RESULTS = Path(__file__).parent / "results" / "page.json"
MOST_KILOBYTES = 150  # of 1024 bytes, of the first load
MOST_MS = 1000
MOST_BYTES = 1 << 30
LOADS = 7
ROUNDS = 7
PHOTOS = 200
MINUTES = 30  # until many photos count as stuck


@contextmanager
def opened() -> Iterator[tuple[ServerProcess, Browser, str]]:
    """Start a server and a browser; yields both and the page's address."""
    with serving("--http-port", "0") as server, Browser() as browser:
        yield server, browser, page_of(server)


def load() -> Section:
    """Measure the first load: each time in a new context, with nothing cached."""
    section = Section("load", {"server": "defaults"})
    with opened() as (_, browser, url):
        loads = [browser.play("load", url) for _ in range(LOADS)]
    interactive = [one["interactive"] for one in loads]
    for what, kilobytes, files in (
        ("until it can be used", loads[0]["first"]["bytes"] / 1024, loads[0]["first"]["files"]),
        ("with all that comes by itself", loads[0]["bytes"] / 1024, loads[0]["files"]),
    ):
        section.add(
            f"first load, {what}",
            f"{kilobytes:.1f} KB in {files} files",
            f"under {MOST_KILOBYTES} KB",
            kilobytes < MOST_KILOBYTES,
        )
    section.add(
        "interactive after",
        spread(interactive),
        f"under {MOST_MS} ms",
        median(interactive) < MOST_MS,
    )
    section.add("first paint after", spread([one["painted"] for one in loads]))
    names = ("bytes", "interactive", "painted", "loaded")
    section.figures = as_figures(
        first=loads[0]["first"], loads=[{name: one[name] for name in names} for one in loads]
    )
    return section


def frames() -> Section:
    """Measure the time from the drop of a 12 MP photo until its preview is there with frames."""
    section = Section("frames", {"server": "defaults"})
    with TemporaryDirectory() as folder, opened() as (_, browser, url):
        photo = photos.large(Path(folder) / "photo.jpg")
        times = browser.play("firstFrames", url, file=photo.path, rounds=ROUNDS)["times"]
    whole = [max(one["framed"], one["shown"]) for one in times]
    section.add(
        "12 MP JPEG, from drop to framed preview",
        spread(whole),
        f"under {MOST_MS} ms",
        median(whole) < MOST_MS,
    )
    section.add("- frames", spread([one["framed"] for one in times]))
    section.add("- picture", spread([one["shown"] for one in times]))
    section.figures = as_figures(times=times)
    return section


def many(number: int = PHOTOS) -> Section:
    """Measure the memory while many photos are searched, checked and saved in one ZIP."""
    section = Section("many", {"server": "defaults"})
    at: dict[str, float] = {}
    with TemporaryDirectory() as folder, opened() as (server, browser, url):
        files = photos.many(Path(folder), number)
        asked = {
            step: lambda step=step: at.update({step: monotonic()})
            for step in ("opened", "searched", "saved")
        }
        with Peaks(server, browser) as peaks:
            report = browser.play(
                "many", url, asked=asked, downloads=folder, files=files, minutes=MINUTES
            )
        assert not tracebacks(server), tracebacks(server)
        megabytes = Path(report["zip"]["path"]).stat().st_size / 1e6
    searched, saved = at["searched"] - at["opened"], at["saved"] - at["searched"]
    what = f"{number} photos of 12 MP in one go"
    section.add(f"{what}: all searched after", f"{searched:.1f} s")
    section.add("all covered and in one ZIP after further", f"{saved:.1f} s, {megabytes:.0f} MB")
    for name, peak, bounded in (
        ("server, front and worker", peaks.server, True),
        ("tab", peaks.tab, True),
        ("whole browser", peaks.browser, False),
    ):
        target = ("under 1 GB", peak < MOST_BYTES) if bounded else ("", None)
        section.add(f"most memory: {name}", f"{peak / (1 << 20):.0f} MB", *target)
    section.figures = as_figures(
        photos=number,
        searched_seconds=searched,
        saved_seconds=saved,
        server_bytes=peaks.server,
        tab_bytes=peaks.tab,
        browser_bytes=peaks.browser,
    )
    return section


def spread(times_ms: list[float]) -> str:
    """Return median, least and most of times in milliseconds."""
    return f"{median(times_ms):.0f} ms ({min(times_ms):.0f}..{max(times_ms):.0f})"


SECTIONS: dict[str, Callable[[], Section]] = {"load": load, "frames": frames, "many": many}


def main() -> int:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "sections", nargs="*", metavar="SECTION", help=f"{', '.join(SECTIONS)}; default: all"
    )
    parser.add_argument("--photos", type=int, default=PHOTOS, help="of section many")
    parser.add_argument("--json", type=Path, help="file that the figures go to")
    arguments = parser.parse_args()
    if unknown := set(arguments.sections) - SECTIONS.keys():
        parser.error(f"{', '.join(unknown)}: there are {', '.join(SECTIONS)}")
    if lacks := missing():
        parser.error(lacks)
    file = arguments.json or (None if arguments.sections else RESULTS)
    sections = {name: SECTIONS[name] for name in arguments.sections or SECTIONS}
    if "many" in sections:
        sections["many"] = partial(many, arguments.photos)
    return int(measure(sections, file))


if __name__ == "__main__":
    sys.exit(main())
