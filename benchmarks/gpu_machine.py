"""The machine, the compiler and the memory checkers: what stands around the figures of a GPU."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

from benchmarks.gpu_probe import checked
from benchmarks.gpu_report import NotMeasured
from benchmarks.gpu_rooms import ROOT
from benchmarks.gpu_setting import Setting
from benchmarks.machine import describe

PACKAGES = (
    "numpy", "torch", "torchvision", "cuda-core", "cuda-bindings", "cuda-toolkit",
    "nvidia-cuda-nvrtc", "onnx", "onnxruntime", "opencv-python-headless", "scikit-image",
    "facenet-pytorch", "tensorrt", "tensorrt-rtx-cu13", "ai-edge-litert",
)  # fmt: skip
QUERY = (
    "name,driver_version,pcie.link.gen.current,pcie.link.width.current,clocks.sm,clocks.mem,"
    "power.draw,temperature.gpu,memory.used,memory.total"
)
SIMULATOR = "unface-simulator-"  # in the folder of `tests/gpu`'s driver
TOOLS = ("memcheck", "racecheck", "synccheck", "initcheck")
_FUNCTION = re.compile(r"Compiling entry function '(\w+)'")
_USED = re.compile(r"Used (\d+) registers.*?(?:(\d+) bytes smem)?$")
_SPILLS = re.compile(r"(\d+) bytes spill stores, (\d+) bytes spill loads")
_ERRORS = re.compile(r"(?:ERROR|RACECHECK) SUMMARY: (\d+) (?:error|hazard)")

Figures = dict[str, Any]


def about(setting: Setting) -> Figures:
    """Return card, driver, clocks as found, versions."""
    from cuda.bindings import driver, nvrtc

    card = checked(driver.cuDeviceGet(0))
    attribute = driver.CUdevice_attribute

    def of_card(name: str) -> int:
        number = getattr(attribute, f"CU_DEVICE_ATTRIBUTE_{name}")
        return int(checked(driver.cuDeviceGetAttribute(number, card)))

    capability = "COMPUTE_CAPABILITY"
    found: Figures = {
        **describe(),
        "card": setting.device.name,
        "multiprocessors": setting.device.multiprocessors,
        "capability": f"{of_card(f'{capability}_MAJOR')}.{of_card(f'{capability}_MINOR')}",
        "l2_bytes": of_card("L2_CACHE_SIZE"),
        "driver_cuda": checked(driver.cuDriverGetVersion()),
        "nvrtc": ".".join(map(str, checked(nvrtc.nvrtcVersion()))),
        "python": sys.version.split()[0],
        "versions": _versions(),
        "nvidia_smi": _smi(),
    }
    for name, value in found.items():
        print(f"{name:16} {value}")
    return found


def l2_bytes() -> int:
    """Return the size of the card's second cache; the context must be made."""
    from cuda.bindings import driver

    number = driver.CUdevice_attribute.CU_DEVICE_ATTRIBUTE_L2_CACHE_SIZE
    return int(checked(driver.cuDeviceGetAttribute(number, checked(driver.cuDeviceGet(0)))))


def _versions() -> dict[str, str]:
    here = {
        (d.metadata["Name"] or "").lower().replace("_", "-"): d.version for d in distributions()
    }
    return {name: here.get(name, "-") for name in PACKAGES}


def _smi() -> dict[str, str] | str:
    """Return what nvidia-smi says now; it changes nothing."""
    command = ["nvidia-smi", f"--query-gpu={QUERY}", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
    except (OSError, subprocess.SubprocessError) as error:
        return f"nvidia-smi: {error}"
    values = done.stdout.strip().splitlines()[0].split(", ")
    return dict(zip(QUERY.split(","), values, strict=False))


# --- the compiler --------------------------------------------------------------------------------


def compile_here(arch: str) -> Figures:
    """Return what compiling the kernels takes and gives; no GPU is asked."""
    import io

    from unface.gpu.program import compile_kernels

    begin, log = time.perf_counter(), io.StringIO()
    code = compile_kernels(arch, log=log)
    return {
        "arch": arch,
        "seconds": time.perf_counter() - begin,
        "cubin_bytes": len(code.code),
        "kernels": kernels_from_log(log.getvalue()),
    }


def kernels_from_log(log: str) -> dict[str, dict[str, int]]:
    """Return registers, spilled and shared bytes by kernel, of what ptxas says with -v."""
    found: dict[str, dict[str, int]] = {}
    name = ""
    for line in log.splitlines():
        if match := _FUNCTION.search(line):
            name = match[1]
            found[name] = {"registers": 0, "shared": 0, "spill_stores": 0, "spill_loads": 0}
        elif name and (match := _SPILLS.search(line)):
            found[name] |= {"spill_stores": int(match[1]), "spill_loads": int(match[2])}
        elif name and (match := _USED.search(line.strip())):
            found[name] |= {"registers": int(match[1]), "shared": int(match[2] or 0)}
    return found


def compiled(capability: str) -> Figures:
    """Return the same from a process of its own: a compiler that dies takes nothing along."""
    arch = f"sm_{capability.replace('.', '')}"
    done = _ourselves(["--compile", arch], 300, env=_without_simulator())
    if done.returncode:
        raise RuntimeError(f"compiling for {arch} failed: {done.stderr.strip()[-2000:]}")
    found: Figures = json.loads(done.stdout.splitlines()[-1])
    print(f"{arch}: {found['seconds']:.1f} s, {found['cubin_bytes']} bytes")
    for name, row in sorted(found["kernels"].items()):
        spills = f"{row['spill_stores']} + {row['spill_loads']} bytes spilled"
        print(f"{name:16} {row['registers']:4} registers, {row['shared']:6} shared, {spills}")
    return found


def _without_simulator() -> dict[str, str]:
    """Return this process's environment, the simulator's driver left out: NVRTC dies of it."""
    folders = os.environ.get("LD_LIBRARY_PATH", "").split(os.pathsep)
    kept = os.pathsep.join(folder for folder in folders if SIMULATOR not in folder)
    return {**os.environ, "LD_LIBRARY_PATH": kept}


def _ourselves(
    words: list[str],
    timeout_s: float,
    before: tuple[str, ...] = (),
    env: dict[str, str] | None = None,
) -> subprocess.CompletedProcess[str]:
    command = [*before, sys.executable, "-m", "benchmarks.gpu", *words]
    return run(command, timeout_s, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def run(command: list[str], timeout_s: float, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run a command in the checkout; too late, it is killed with all that it started."""
    with subprocess.Popen(
        command, cwd=ROOT, text=True, start_new_session=True, **options
    ) as process:
        try:
            stdout, stderr = process.communicate(timeout=timeout_s)
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            raise
    return subprocess.CompletedProcess(command, process.returncode, stdout, stderr)


# --- memory checkers -----------------------------------------------------------------------------


def sanitizers(setting: Setting, out: Path | None) -> Figures:
    """Return what each tool of compute-sanitizer says of a small picture's way through the cascade.

    Logs of those that found something go to `out`.
    """
    tool = _sanitizer()
    found: Figures = {}
    for name in TOOLS:
        before = (tool, "--tool", name, "--print-limit", "50") if tool else ()
        begin = time.perf_counter()
        try:
            done = _ourselves(["--sanitize"], setting.extent.sanitizer_s, before)
        except subprocess.TimeoutExpired:
            found[name] = {"stopped": f"after {setting.extent.sanitizer_s:.0f} s"}
            print(f"{name}: {found[name]['stopped']}", flush=True)
            continue
        found[name] = verdict(done.stdout + done.stderr, done.returncode)
        found[name]["seconds"] = time.perf_counter() - begin
        print(f"{name}: {found[name]}", flush=True)
        if found[name].get("errors") != 0:
            print("\n".join((done.stdout + done.stderr).splitlines()[:40]), flush=True)
            if out is not None:
                (out / f"sanitizer-{name}.log").write_text(done.stdout + done.stderr)
        if not tool:
            print("(compute-sanitizer is not here: the same work without it)")
            if done.returncode:
                raise RuntimeError(f"the work itself fails: {done.stderr[-2000:]}")
            raise NotMeasured("compute-sanitizer is not installed")
    return found


def verdict(said: str, returned: int) -> Figures:
    """Return what a tool's output amounts to: `errors`, and `calls` that were failed driver calls.

    No `errors` where the tool or the program did not come to its end.
    """
    match = _ERRORS.search(said)
    found: Figures = {"faces": said.count("sanitized: ok"), "returned": returned}
    if match and found["faces"]:
        found |= {"errors": int(match[1]), "calls": len(re.findall("Program hit CUDA_ERROR", said))}
    else:
        last = [line for line in said.splitlines() if line.strip()][-1:]
        found["stopped"] = last[0] if last else "without a word"
    return found


def _sanitizer() -> str | None:
    found = shutil.which("compute-sanitizer")
    if found:
        return found
    places = sorted(Path("/usr/local").glob("cuda*/bin/compute-sanitizer"))
    return str(places[-1]) if places else None


def sanitize_here(patience_s: float = 600.0) -> None:
    """Do what the memory checkers watch: few pixels, every kernel of the cascade."""
    import numpy as np

    from benchmarks.gpu_setting import kernel_networks, photo
    from unface.gpu import cuda
    from unface.gpu.cascade import GpuCascade
    from unface.mtcnn.options import DetectOptions

    cuda.PATIENCE = patience_s  # a kernel that is watched takes its time
    device = cuda.open_cuda()
    cascade = GpuCascade(device, kernel_networks(device), lanes=2)
    picture = photo("tiny", "few").image
    counts = [
        len(cascade.detect(picture, DetectOptions(min_face=24))),
        # Levels close together: also suppression across them.
        len(cascade.detect(picture, DetectOptions(min_face=40, scale_factor=0.9))),
        *map(len, cascade.detect_all([picture, np.ascontiguousarray(picture[:, ::-1])])),
    ]
    cascade.close()
    assert min(counts) > 0, counts
    print("sanitized: ok", counts)
