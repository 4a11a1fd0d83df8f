"""How long a fresh process takes to its first faces, beside the bare imports it stands on.

    python -m benchmarks.startup [--rounds 7] [--photo PHOTO]

Whole processes, interpreter included, taking turns. The first three import what unface runs on;
the fourth makes a detector of profile fast and finds the faces of a 640 x 480 picture; the last
is the command.
"""

from __future__ import annotations

import argparse
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np

from benchmarks.machine import describe
from benchmarks.pictures import draw

PROFILE = "fast"
DETECT = f"""
import sys, numpy, unface
pixels = numpy.load(sys.argv[1])
unface.Detector(profile={PROFILE!r}).detect(pixels)
"""
LINE = re.compile(r"import time:\s*(\d+) \|\s*(\d+) \| +(\S+)")
Command = list[str]


def commands(photo: Path, pixels: Path) -> dict[str, Command]:
    """Return what is measured, by name."""
    python = [sys.executable, "-c"]
    return {
        "python -c pass": [*python, "pass"],
        "import numpy, cv2": [*python, "import numpy, cv2"],
        "import numpy, cv2, grpc, ai_edge_litert": [
            *python,
            "import numpy, cv2, grpc, ai_edge_litert.interpreter",
        ],
        "import unface, Detector, first detection": [*python, DETECT, str(pixels)],
        "unface detect PHOTO": [
            *(sys.executable, "-m", "unface.command"),
            *("detect", "--profile", PROFILE, str(photo)),
        ],
    }


def seconds(command: Command) -> float:
    """Return how long a process takes, which must succeed."""
    begin = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True)
    return time.perf_counter() - begin


def slowest_imports(command: Command, count: int = 15) -> list[tuple[str, float, float]]:
    """Return name, own and whole milliseconds of the modules that take longest themselves."""
    python, *rest = command
    done = subprocess.run(
        [python, "-X", "importtime", *rest], check=True, capture_output=True, text=True
    )
    found = [
        (name, int(own) / 1000, int(whole) / 1000) for own, whole, name in LINE.findall(done.stderr)
    ]
    return sorted(found, key=lambda entry: -entry[1])[:count]


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--photo", type=Path, help="for the command (default: a composed one)")
    arguments = parser.parse_args()
    print(", ".join(describe().values()))
    with tempfile.TemporaryDirectory() as folder:
        image = draw("480p", "few").image
        pixels, composed = Path(folder, "pixels.npy"), Path(folder, "photo.jpg")
        np.save(pixels, image)
        cv2.imwrite(str(composed), image[..., ::-1])
        wanted = commands(arguments.photo or composed, pixels)
        taken: dict[str, list[float]] = {name: [] for name in wanted}
        for _ in range(arguments.rounds):
            for name, command in wanted.items():
                taken[name].append(seconds(command))
        print("\n| process | median | least |\n|---|---|---|")
        for name, times in taken.items():
            print(f"| `{name}` | {statistics.median(times):.2f} s | {min(times):.2f} s |")
        print("\n| slowest imports of the last | itself | with what it imports |\n|---|---|---|")
        for module, own, whole in slowest_imports(wanted["unface detect PHOTO"]):
            print(f"| {module} | {own:.1f} ms | {whole:.1f} ms |")


if __name__ == "__main__":
    main()
