"""The GPU cascade on this machine's card: is it right, how fast is it, how far from the floor.

    python3 -m benchmarks.gpu [--quick] [--data FOLDER] [--out FOLDER] [--limit SECONDS]

One command, no network, nothing to install: it runs from a checkout as it is. It compiles the
kernels, holds them against the FP32 reference in torch, times them and facenet-pytorch on the same
card in the same run, and tries TensorRT. What is missing on the machine is a line with the reason.
It changes nothing about the card. About six minutes; `--quick` one to two.

Needs: an NVIDIA driver of CUDA 13; Python 3.10 or newer with numpy, opencv-python-headless 4.11,
pillow, cuda-core 1.0, cuda-bindings 13, NVRTC (nvidia-cuda-nvrtc or a CUDA toolkit); for the
reference torch and safetensors, for the pictures scikit-image.

To bring along, if they are to be measured and are not there, installed into a folder on PYTHONPATH
(`benchmarks/README.md` has the commands):
    facenet_pytorch-2.6.0-py3-none-any.whl       1.9 MB   else its algorithm, said again
    tensorrt_rtx_cu13-1.7.1.116-py3-none-any.whl  23 KB   else no TensorRT; wants onnx there
    tensorrt_rtx_cu13_bindings-1.7.1.116, of the Python there   1.2 MB
    tensorrt_rtx_cu13_libs-1.7.1.116              95 MB

Figures go to `benchmarks/results/gpu-<card>.json` (or `--out`), and to $OUT where that is set,
after every group: a run cut short keeps what it has. Each group of sections is a process of its
own: what one does to the card's memory, or never finishes, is no other's trouble.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import benchmarks.gpu_rooms  # before anything imports unface
from benchmarks import (
    gpu_agreement,
    gpu_ceilings,
    gpu_correct,
    gpu_machine,
    gpu_peers,
    gpu_speed,
    gpu_tensorrt,
)
from benchmarks.gpu_report import Report, file_name, read, show_targets
from benchmarks.gpu_setting import QUICK, TINY, WHOLE, Extent, Opener, Setting, kernel_networks

RESULTS = benchmarks.gpu_rooms.ROOT / "benchmarks" / "results"
LIMIT_S = 400.0  # no section begins later
GRACE_S = 45.0  # and none goes on for longer than that after it
KERNELS = "kernels"
NETWORKS: dict[str, Opener] = {
    KERNELS: kernel_networks,
    "tensorrt fp16": gpu_tensorrt.opener("fp16"),
    "tensorrt int8": gpu_tensorrt.opener("int8"),
}
Arguments = argparse.Namespace


def machine(report: Report, setting: Setting, arguments: Arguments) -> None:
    """Look at card, compiler and ceilings."""
    about = report.section("about", partial(gpu_machine.about, setting))
    report.section("build", lambda: gpu_machine.compiled(about["capability"]))
    report.section("ceilings", lambda: gpu_ceilings.ceilings(setting))


def checks(report: Report, setting: Setting, arguments: Arguments) -> None:
    """Hold the kernels against the reference."""
    networks = partial(setting.open, KERNELS, NETWORKS[KERNELS])
    steps = (gpu_correct.check_state, gpu_correct.check_stages)
    report.section(f"checks {KERNELS}", lambda: gpu_correct.check_all(setting, networks(), steps))
    report.section(f"agreement {KERNELS}", partial(_agreement, setting, KERNELS))
    if arguments.data:
        report.section(f"gate {KERNELS}", partial(_gate, setting, KERNELS, arguments.data))


def speed(report: Report, setting: Setting, arguments: Arguments) -> None:
    """Time the kernels."""
    staged = [case for case in setting.extent.cases if case.min_face == 20 or setting.is_tiny]
    report.section(f"speed {KERNELS}", partial(_speed, setting, KERNELS))
    report.section(
        "stages",
        lambda: gpu_ceilings.stages(setting, setting.open(KERNELS, kernel_networks), staged),
    )


def peers(report: Report, setting: Setting, arguments: Arguments) -> None:
    """Time the peers."""
    report.section("facenet-pytorch", lambda: gpu_peers.facenet(setting))
    report.section("onnxruntime", lambda: gpu_peers.onnxruntime_cuda(setting))


def sanitizers(report: Report, setting: Setting, arguments: Arguments) -> None:
    """Let the memory checkers watch."""
    place = os.environ.get("OUT")
    out = Path(place) if place else None
    report.section("sanitizers", lambda: gpu_machine.sanitizers(setting, out))


def tensorrt(report: Report, setting: Setting, arguments: Arguments) -> None:
    """Try TensorRT."""
    report.section("tensorrt", lambda: gpu_tensorrt.try_engines(setting))
    if "tensorrt" not in report.figures:
        return
    for name in list(NETWORKS)[1:]:
        report.section(f"agreement {name}", partial(_agreement, setting, name))
        report.section(f"speed {name}", partial(_speed, setting, name))
        if arguments.data:
            report.section(f"gate {name}", partial(_gate, setting, name, arguments.data))


def _agreement(setting: Setting, name: str) -> dict[str, Any]:
    expected = gpu_agreement.expect(setting, few=name != KERNELS)
    return gpu_agreement.compare(setting, setting.open(name, NETWORKS[name]), expected)


def _speed(setting: Setting, name: str) -> dict[str, Any]:
    cases = setting.extent.cases if name == KERNELS else setting.extent.cases[:1]
    return gpu_speed.speeds(setting, setting.open(name, NETWORKS[name]), cases)


def _gate(setting: Setting, name: str, folder: Path) -> dict[str, Any]:
    return gpu_agreement.gate(setting, setting.open(name, NETWORKS[name]), folder)


Group = Callable[[Report, Setting, Arguments], None]
# In order, with the seconds after which something must be wrong.
GROUPS: dict[str, tuple[Group, float]] = {
    "machine": (machine, 90),
    "checks": (checks, 150),
    "speed": (speed, 180),
    "peers": (peers, 100),
    "sanitizers": (sanitizers, 240),
    "tensorrt": (tensorrt, 150),
}


def main(words: list[str] | None = None) -> int:
    """Measure, print, keep; the exit code says whether something failed."""
    arguments = _arguments(words)
    if arguments.compile:
        print(json.dumps(gpu_machine.compile_here(arguments.compile)))
    elif arguments.sanitize:
        gpu_machine.sanitize_here()
    elif arguments.group:
        run_group(arguments)
    else:
        return run_all(arguments)
    return 0


def run_all(arguments: Arguments) -> int:
    """Do every group in a process of its own, then what follows from all figures together."""
    report = Report(arguments.limit)
    end = time.monotonic() + arguments.limit
    with tempfile.TemporaryDirectory() as folder:
        for name in GROUPS:
            report.section(
                f"group {name}", partial(_in_process, arguments, name, end, report, folder)
            )
            if name == "machine":
                if "about" not in report.figures:
                    print("\nwithout a GPU there is nothing to measure")
                    return 1
                report.files = _files(arguments, report.figures["about"]["card"])
    report.limit_s += GRACE_S
    cases = _extent(arguments).cases
    report.section("floor", lambda: gpu_ceilings.floors(cases, report.figures))
    report.section("times", lambda: gpu_peers.times(report.figures))
    if f"speed {KERNELS}" in report.figures:
        print("\n" + gpu_speed.show(report.figures[f"speed {KERNELS}"]))
    print("\n" + show_targets(report.figures), flush=True)
    return 1 if report.figures.get("failed") else 0


def _in_process(arguments: Arguments, name: str, end: float, report: Report, folder: str) -> None:
    """Run a group, its figures added to the report's; raises when it dies or takes too long."""
    left, file = end - time.monotonic(), Path(folder) / f"{name}.json"
    timeout = min(max(left, 0) + GRACE_S, GROUPS[name][1] + 1e6 * bool(arguments.data))
    words = ["--group", name, "--file", str(file), "--limit", f"{left:.0f}"]
    words += ["--quick"] * arguments.quick + ["--tiny"] * arguments.tiny
    words += ["--data", str(arguments.data)] if arguments.data else []
    command = [sys.executable, "-m", "benchmarks.gpu", *words]
    try:
        done = gpu_machine.run(command, timeout)
    finally:
        _merge(report.figures, read(file) if file.exists() else {})
    if done.returncode:
        raise RuntimeError(f"its process ended with {done.returncode}")


def _merge(figures: dict[str, Any], others: dict[str, Any]) -> None:
    others.pop("seconds", None)
    for kind in ("failed", "not_measured"):
        figures.setdefault(kind, {}).update(others.pop(kind, {}))
    figures.update(others)


def run_group(arguments: Arguments) -> None:
    """Do one group here."""
    from unface.gpu.cuda import open_cuda

    extent = _extent(arguments)
    setting = Setting(open_cuda(), extent, arguments.tiny, gpu_machine.l2_bytes())
    report = Report(arguments.limit, [arguments.file])
    GROUPS[arguments.group][0](report, setting, arguments)


def _extent(arguments: Arguments) -> Extent:
    return TINY if arguments.tiny else QUICK if arguments.quick else WHOLE


def _files(arguments: Arguments, card: str) -> list[Path]:
    """Return where the figures go; those of a short run only where it was told."""
    place = os.environ.get("OUT")
    folders = [Path(place)] if place else []
    if arguments.out:
        folders.append(arguments.out)
    elif not (arguments.tiny or arguments.quick):
        folders.append(RESULTS)
    return [folder / file_name(card) for folder in folders]


def _arguments(words: list[str] | None) -> Arguments:
    parser = argparse.ArgumentParser(
        prog="python3 -m benchmarks.gpu",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--quick", action="store_true", help="a minute; nothing into results/")
    parser.add_argument("--tiny", action="store_true", help="for a simulated GPU: no figure counts")
    parser.add_argument("--data", type=Path, help="labelled photographs: recall beside FP32")
    parser.add_argument("--out", type=Path, help="folder for the figures")
    parser.add_argument("--limit", type=float, default=LIMIT_S, help="no section begins later (s)")
    for hidden in ("--group", "--compile"):
        parser.add_argument(hidden, help=argparse.SUPPRESS)
    parser.add_argument("--file", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--sanitize", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args(words)


if __name__ == "__main__":
    raise SystemExit(main())
