"""Chromium, driven by Playwright as a person uses the page: `drive.mjs` does it, in node."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import psutil
from serving import ServerProcess

FOLDER = Path(__file__).parent
NODE = shutil.which("node")
CHROMIUM = os.environ.get("UNFACE_CHROMIUM") or next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
SAMPLE_SECONDS = 0.2
NODE_MAJOR = 20  # what playwright-core needs
Report = dict[str, Any]


def missing() -> str | None:
    """Return what the page cannot be driven without, or None where all is there."""
    if NODE is None:
        return "node is not on this machine"
    version = subprocess.run([NODE, "--version"], capture_output=True, text=True).stdout.strip()
    if int(version.removeprefix("v").split(".")[0] or 0) < NODE_MAJOR:
        return f"node is {version}; playwright-core needs {NODE_MAJOR}"
    if CHROMIUM is None:
        return "Chromium is not on this machine"
    if not (FOLDER / "node_modules" / "playwright-core").is_dir():
        return "playwright-core is not installed: make tests/page/node_modules"
    return None


class Failed(AssertionError):
    """A scenario that could not be played: what a person would do was not possible."""


class Browser:
    """A browser in a process of its own; scenarios run one after the other, each in a new context.

    `camera` is a video (.mjpeg) that the browser takes for its camera. `within` is a command that
    the browser runs under, such as `nsenter`.
    """

    def __init__(self, camera: Path | None = None, within: tuple[str, ...] = ()) -> None:
        assert NODE is not None
        assert CHROMIUM is not None
        start = {"chromium": CHROMIUM, "camera": str(camera) if camera else None}
        self.process = subprocess.Popen(
            [*within, NODE, str(FOLDER / "drive.mjs"), json.dumps(start)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            encoding="utf-8",
        )

    def play(
        self,
        scenario: str,
        url: str,
        *,
        asked: Mapping[str, Callable[[], object]] | None = None,
        **details: Any,
    ) -> Report:
        """Play a scenario of `scenarios.mjs` at an address; raises `Failed`.

        `asked` has what the scenario may ask to be done meanwhile, outside of the browser.

        The report has what the scenario returns and `seen`: the browser's `requests`, the
        `problems` it complained of, and the `violations` of the page's security policy.
        """
        self._tell({"scenario": scenario, "url": url, "details": details})
        while "ask" in (report := self._hear(scenario)):
            if done := (asked or {}).get(report["ask"]):
                done()
            self._tell({})
        if "failed" in report:
            seen = report["seen"]
            last = {**seen, "requests": seen["requests"][-3:]}
            raise Failed(f"{scenario}: {report['failed']}\n{last}")
        return report

    def _tell(self, what: Report) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(what, default=str) + "\n")
        self.process.stdin.flush()

    def _hear(self, scenario: str) -> Report:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise Failed(f"the driver ended with {self.process.wait()} during {scenario}")
        heard: Report = json.loads(line)
        return heard

    def processes(self) -> dict[str, list[psutil.Process]]:
        """Return the browser's processes by what they are: "browser", "renderer", ..."""
        found: dict[str, list[psutil.Process]] = {}
        for one in psutil.Process(self.process.pid).children(recursive=True):
            try:
                words = one.cmdline()
            except (psutil.NoSuchProcess, psutil.ZombieProcess):
                continue
            kinds = [word.removeprefix("--type=") for word in words if word.startswith("--type=")]
            if words and "chrom" in words[0]:
                found.setdefault(kinds[0] if kinds else "browser", []).append(one)
        return found

    def close(self) -> None:
        """End the browser; harmless when it has ended."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        children = psutil.Process(self.process.pid).children(recursive=True)
        self.process.stdin.close()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()
        for child in psutil.wait_procs(children, timeout=5)[1]:
            child.kill()

    def __enter__(self) -> Browser:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Peaks:
    """The most memory that server, tab and browser were seen to hold, in resident bytes.

    Of the server all processes count, of the browser too; of the tab the largest renderer. Pages
    that processes share count in each.
    """

    def __init__(self, server: ServerProcess, browser: Browser) -> None:
        self.server = self.tab = self.browser = 0
        self._watched = server, browser
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="memory", daemon=True)
        self._thread.start()

    def __enter__(self) -> Peaks:
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        server, browser = self._watched
        while not self._stop.wait(SAMPLE_SECONDS):
            kinds = browser.processes()
            front = psutil.Process(server.process.pid)
            self.server = max(self.server, _resident([front, *front.children(recursive=True)]))
            tabs = [_resident([one]) for one in kinds.get("renderer", [])]
            self.tab = max(self.tab, *tabs, 0)
            self.browser = max(self.browser, sum(map(_resident, kinds.values())))


def _resident(processes: list[psutil.Process]) -> int:
    total = 0
    for one in processes:
        try:
            total += one.memory_info().rss
        except (psutil.NoSuchProcess, psutil.ZombieProcess):  # noqa: PERF203 - has ended since
            continue
    return total


def page_of(server: ServerProcess) -> str:
    """Return the address of a server's page."""
    found = re.search(r"^unface page on (https?://\S+)$", server.log, re.M)
    assert found, server.log
    return found[1]


def check(report: Report, url: str, problems: str | None = None) -> None:
    """Hold what the browser was seen to do against what the page may do.

    `problems` is a pattern of the complaints of the browser that are to be expected.
    """
    seen = report["seen"]
    inside = (url, f"blob:{url}", "data:image/")
    assert seen["requests"]
    assert [r for r in seen["requests"] if not r.split(" ", 1)[1].startswith(inside)] == []
    assert seen["violations"] == []
    others = [p for p in seen["problems"] if problems is None or not re.search(problems, p)]
    assert others == []
