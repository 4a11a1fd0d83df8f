"""`unface engines`: what there is, what the gate said of it; building, encrypting."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from unface.engines.layers import Layer, table
from unface.engines.plans import Plan, Plans, read_plans
from unface.engines.sealed import write_sealed
from unface.engines.shelf import KEY_VARIABLE, Shelf, read_engine_key, read_shelf
from unface.engines.tensorrt import DeviceEngine, find_tensorrt
from unface.errors import EngineError, InvalidOption
from unface.sealing import new_key


def list_engines(arguments: argparse.Namespace) -> int:
    """Print a line for each precision; returns the exit code."""
    shelf = read_shelf(arguments.folder, read_engine_key(arguments.key_file))
    for precision, runtime in _sets(shelf):
        engines = shelf.of(precision, runtime)
        size = sum(len(shelf.read(engine)) for engine in engines.values())
        verdict = _certificate(shelf, precision, runtime)
        print(f"{precision:<8} {runtime:<7} {size / 1024:7.0f} KiB  {verdict}")
        for certificate in shelf.certificates_of(precision, runtime):
            print(f"  certificate  {certificate.id}")
        for name, engine in engines.items():
            print(f"  {name}  {engine.file}  {engine.sha256}")
    return 0


def build_engines(arguments: argparse.Namespace) -> int:
    """Build, judge, write the manifest; returns 0 when all passed the gate, else 1."""
    folder: Path = arguments.folder
    if arguments.target == "tensorrt":
        passed = _build_plans(arguments)
        print(f"{folder}: built; what was fused: unface engines inspect {folder}")
        return 0 if passed else 1
    if arguments.capabilities or arguments.library or arguments.precisions:
        raise InvalidOption("--capability, --library and --precision are for --target tensorrt")
    with needing_the_extra("building"):
        from unface.calibration.build import build, shipped_cache
    passed = build(folder, arguments.cache or shipped_cache(), arguments.data)
    print(f"{folder}: built; use them with --engines {folder}")
    return 0 if passed else 1


def make_key(arguments: argparse.Namespace) -> int:
    """Write a new key that its owner alone may read; returns the exit code."""
    file: Path = arguments.file
    try:
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with open(descriptor, "w") as stream:
            stream.write(f"{new_key().hex()}\n")
    except FileExistsError as error:
        raise InvalidOption(f"{file} exists; what it encrypted would be lost with it") from error
    except OSError as error:
        raise InvalidOption(f"{file} cannot be written: {error.strerror}") from error
    print(f"{file}: a new key; keep a copy, for nothing opens what it encrypts without it")
    return 0


def encrypt_engines(arguments: argparse.Namespace) -> int:
    """Write a folder's engines encrypted into another; returns the exit code."""
    key = read_engine_key(arguments.key_file)
    if key is None:
        raise InvalidOption(f"a key is needed: --key-file or {KEY_VARIABLE}")
    names = write_sealed(read_shelf(arguments.folder), arguments.out, key)
    print(f"{arguments.out}: {len(names)} files encrypted; use them with --engines {arguments.out}")
    return 0


def inspect_engines(arguments: argparse.Namespace) -> int:
    """Print what TensorRT fused in every plan that was asked for; returns the exit code."""
    chosen = [
        (plans, plan)
        for path in arguments.paths
        for plans, plan in _plans_of(path)
        if arguments.network in (None, plan.engine.network)
        and arguments.precision in (None, plan.engine.precision)
    ]
    if not chosen:
        raise InvalidOption("there is no such plan: unface engines list FOLDER shows what there is")
    for plans, plan in chosen:
        layers, source = _layers(plans, plan)
        made = f"{plan.library} {plan.version}, compute capability {', '.join(plan.capabilities)}"
        print(f"{plan.engine.file}: {made}\n{source}\n{table(layers)}\n")
    return 0


@contextmanager
def needing_the_extra(what: str) -> Iterator[None]:
    """Say, of imports that fail inside, that `what` needs `unface[engines]`: `EngineError`."""
    try:
        yield
    except ImportError as error:
        raise EngineError(
            f"{what} needs {error.name}, which is not installed: pip install 'unface[engines]'"
        ) from error


def _certificate(shelf: Shelf, precision: str, runtime: str) -> str:
    try:
        shelf.check_certificate(precision, runtime)
    except EngineError as error:
        return f"NOT CERTIFIED: {error}"
    return "passed the gate"


def _sets(shelf: Shelf) -> list[tuple[str, str]]:
    """Return the precisions and runtimes that serve: those of the CPU, and those of TensorRT."""
    plans = {(e.precision, e.runtime) for e in shelf.engines if e.runtime.startswith("tensorrt")}
    return sorted({*shelf.sets, *(pair for pair in plans if len(shelf.of(*pair)) == 3)})


def _build_plans(arguments: argparse.Namespace) -> bool:
    with needing_the_extra("building"):
        from unface.calibration.tensorrt import Order, build_plans
    order = Order(
        arguments.folder,
        arguments.precisions,
        arguments.capabilities,
        arguments.library,
        arguments.cache,
    )
    return build_plans(order, arguments.data)


def _plans_of(path: Path) -> list[tuple[Plans, Plan]]:
    """Return the plans of a folder, or the one of a plan file, with their folder."""
    is_plan = path.suffix == ".plan"
    plans = read_plans(path.parent if is_plan else path)
    chosen = [p for p in plans.plans if not is_plan or p.engine.file == path.name]
    if not chosen:
        raise EngineError(f"{path} is not in the manifest of its folder: build the engines again")
    return [(plans, plan) for plan in chosen]


def _layers(plans: Plans, plan: Plan) -> tuple[tuple[Layer, ...], str]:
    """Return the layers of a plan and who says so: the inspector where the plan can be loaded."""
    data = plans.shelf.read(plan.engine)
    try:
        engine = DeviceEngine(data, plan.engine.file, find_tensorrt(plan.library))
    except EngineError as error:
        return plans.kept_layers(plan), f"by the builder's log, for {error}"
    return engine.layers(), "by the engine inspector"
