"""TensorRT on this card: whether its engines build, load and run, and what they find how fast.

TensorRT for RTX is an ordinary wheel, but NVIDIA's list of supported cards may not have this one:
each step is tried, and its outcome written down either way.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import closing
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.gpu_probe import Clock, download, held, upload
from benchmarks.gpu_report import NotMeasured
from benchmarks.gpu_setting import NETWORKS, Opener, Setting
from unface.engines.tensorrt import RTX, Batches, DeviceEngine, Library, build, find_tensorrt
from unface.errors import UnfaceError
from unface.gpu.device import Device
from unface.gpu.engines import INPUT_SIDES, OUTPUTS, OUTPUTS_OF, PAGE_CELLS, EngineNetworks
from unface.gpu.networks import DeviceNetworks
from unface.mtcnn.network import UInt8Array

PRECISIONS = ("fp32", "fp16", "int8")
BATCHES = {"pnet": Batches(1, 32, 256), "rnet": Batches(1, 128, 512), "onet": Batches(1, 64, 512)}
OTHERS = ("8.0", "8.6", "8.9")  # a plan for these, to see whether it runs on a newer card too
REPEATS = 10

Figures = dict[str, Any]


def model(network: str, precision: str, *, even: bool) -> bytes:
    """Return a network's ONNX model, as `make engines TARGET=tensorrt` makes it.

    `unface.calibration.build` says the same, but imports LiteRT's writer along, which a machine
    with a GPU need not have.
    """
    from unface.calibration.cache import read_calibration
    from unface.calibration.onnx_writer import write_onnx
    from unface.calibration.rewrite import read_trained, relu_graph, rewrite
    from unface.calibration.weights import int8_weights

    sides = (INPUT_SIDES[network], INPUT_SIDES[network])
    if precision != "int8":
        graph = rewrite(read_trained(network), {}, "prelu")
        return write_onnx(graph, sides, half=precision == "fp16")
    weights = int8_weights(network)
    path = Path(str(files("unface.calibration") / "cache" / f"{network}.json"))
    calibration = read_calibration(path)
    calibration.check(weights)
    return write_onnx(relu_graph(weights), sides, calibration.scales(), even=even)


def try_engines(setting: Setting) -> Figures:
    """Return what happened to each network and precision, by library."""
    found: Figures = {}
    for name in ("tensorrt", RTX):
        try:
            library = find_tensorrt(name)
        except UnfaceError as error:
            print(f"{name}: {error}")
            found[name] = {"missing": str(error)}
            continue
        found[name] = _try_library(setting, library)
    if all("missing" in row for row in found.values()):
        raise NotMeasured("; ".join(row["missing"] for row in found.values()))
    return found


def _try_library(setting: Setting, library: Library) -> Figures:
    print(f"{library.name} {library.version}; can be told to build for {library.capabilities}")
    rows: Figures = {}
    for precision in PRECISIONS:
        for network in NETWORKS:
            rows[f"{network} {precision}"] = _try(setting, library, network, precision, ())
    if library.is_rtx:
        for network in NETWORKS:
            rows[f"{network} fp16, built for {' '.join(OTHERS)}"] = _try(
                setting, library, network, "fp16", OTHERS
            )
    return {"version": library.version, "capabilities": list(library.capabilities), **rows}


def _told(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _try(
    setting: Setting, library: Library, network: str, precision: str, capabilities: tuple[str, ...]
) -> Figures:
    """Return how far one engine got: built, loaded, run; what it took and how far off it is."""
    row: Figures = {}
    step = "build"
    try:
        begin = time.perf_counter()
        onnx = model(network, precision, even=library.is_rtx)
        plan = build(library, onnx, BATCHES[network], capabilities).plan
        row |= {"built_s": time.perf_counter() - begin, "plan_bytes": len(plan)}
        step = "load"
        engine = DeviceEngine(plan, f"{network}.{precision}", library)
        step = "run"
        row |= _run(setting, engine, network)
    except Exception as error:  # noqa: BLE001 - what happens is what is asked for
        row["stopped"] = f"at {step}: {type(error).__name__}: {error}"
    told = ", ".join(f"{key} {_told(value)}" for key, value in row.items())
    made = f", built for {' '.join(capabilities)}" if capabilities else ""
    print(f"{network} {precision}{made}: {told}", flush=True)
    return row


def _run(setting: Setting, engine: DeviceEngine, network: str) -> Figures:
    """Return the milliseconds of a usual batch, and the greatest error beside the reference."""
    from benchmarks.gpu_correct import reference

    device, batch = setting.device, BATCHES[network].optimum
    side = INPUT_SIDES[network]
    rng = np.random.default_rng()
    images: UInt8Array = rng.integers(0, 256, (batch, side, side, 3), np.uint8)
    rows = batch * (PAGE_CELLS if network == "pnet" else 1)
    sizes = {name: 4 * rows * OUTPUTS[name] for name in OUTPUTS_OF[network]}
    stream = device.stream(urgent=False)
    there = upload(device, stream, images)
    outputs = {name: device.allocate(size) for name, size in sizes.items()}
    with closing(stream), held([there, *outputs.values()]):
        context = engine.context()
        pointers = {name: memory.pointer for name, memory in outputs.items()}

        def work() -> None:
            context.enqueue(stream.handle, batch, there.pointer, pointers)

        work()
        stream.synchronize()
        found = {
            name: download(device, stream, memory.pointer, sizes[name]).view("<f4")
            for name, memory in outputs.items()
        }
        with closing(Clock(device, stream, setting.extent.spacer_bytes)) as clock:
            taken = clock.milliseconds(work, REPEATS)
        graph = stream.record(
            lambda recorder: _enqueue(context, recorder.handle, batch, there, outputs)
        )
        with closing(graph):
            stream.replay(graph)
            stream.synchronize()
    expected = getattr(reference(), network)(images)
    errors = {
        name: float(
            np.linalg.norm(values - expected[name].reshape(-1)) / np.linalg.norm(expected[name])
        )
        for name, values in found.items()
    }
    return {"batch": batch, "ms": float(np.median(taken)), "in_a_graph": True, "errors": errors}


def _enqueue(context: Any, handle: int, batch: int, there: Any, outputs: Mapping[str, Any]) -> None:
    pointers = {name: memory.pointer for name, memory in outputs.items()}
    context.enqueue(handle, batch, there.pointer, pointers)


def opener(precision: str) -> Opener:
    """Return what opens TensorRT's engines of a precision, built now, as a cascade's networks."""

    def open_networks(device: Device) -> DeviceNetworks:
        try:
            library = find_tensorrt()
            engines = {}
            for network in NETWORKS:
                onnx = model(network, precision, even=library.is_rtx)
                plan = build(library, onnx, BATCHES[network]).plan
                engines[network] = DeviceEngine(plan, f"{network}.{precision}", library)
        except (UnfaceError, ImportError) as error:
            raise NotMeasured(str(error)) from error
        return EngineNetworks(device, engines, "tensorrt", precision)

    return open_networks
