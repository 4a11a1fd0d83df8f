"""Which form of PReLU is fastest in each layer, and how much faster INT8 is than FP32, measured.

    python -m benchmarks.forms [--quick]

Each layer in turn is written in every form it can have, the others as they ship, and timed beside
what ships: `unface.calibration.rewrite` takes its choices from this table. Everything is a ratio
within one run, by rounds: machines are shared.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from statistics import median
from time import perf_counter, process_time
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from benchmarks.machine import describe
from unface.calibration.build import shipped_cache
from unface.calibration.cache import Calibration, read_calibration
from unface.calibration.rewrite import (
    FLOAT_COLUMNS,
    INT8_COLUMNS,
    INT8_FORMS,
    MERGED_HEADS_OF,
    Form,
    Layer,
    merge_heads,
    read_trained,
    rewrite,
)
from unface.calibration.samples import SHAPES
from unface.calibration.tflite_writer import _Tensor, _Writer
from unface.calibration.weights import int8_weights
from unface.engines.shelf import NETWORKS, open_named
from unface.engines.tflite import TfliteNetwork
from unface.mtcnn.canvas import plan_pages
from unface.mtcnn.network import FloatArray, Networks, UInt8Array
from unface.mtcnn.pyramid import pyramid_levels
from unface.mtcnn.team import cores

RESULTS = Path(__file__).parent / "results/forms.json"
PRECISIONS = ("fp32", "int8")
BATCH = {"pnet": 1, "rnet": 64, "onet": 64}
COLUMNS = (1, 2)  # more would lose columns at the right edge
WANTED = {"pnet": 3.0, "rnet": 2.0, "onet": 2.0}  # times as fast as FP32, INT8's target
ROUNDS, QUICK_ROUNDS = 21, 5
INVOKES = 3  # a turn; the least of them counts
SURELY_FASTER = 0.98  # three quarters of the rounds below this, with every number of threads
PRELU: Form = "prelu"
MAXIMUM: Form = "maximum"
Call = Callable[[], object]
Row = dict[str, Any]


@dataclass(frozen=True)
class Choice:
    """How an engine is written: a form for each layer, columns, heads in float.

    `broken` writes each PReLU as converters do, see `BrokenWriter`.
    """

    network: str
    precision: str
    forms: Mapping[str, Form]
    columns: int
    float_heads: tuple[str, ...] = ()
    broken: bool = False


@dataclass
class Timing:
    """What one case took, round by round: milliseconds, and how many cores it had."""

    taken: list[float] = field(default_factory=list)
    cores: list[float] = field(default_factory=list)

    def turn(self, call: Call) -> None:
        """Keep the least time of some calls, after one that brings back the caches."""
        call()
        taken, began, busy = [], perf_counter(), process_time()
        for _ in range(INVOKES):
            begin = perf_counter()
            call()
            taken.append((perf_counter() - begin) * 1000)
        self.taken.append(min(taken))
        self.cores.append((process_time() - busy) / (perf_counter() - began))

    def figures(self, baseline: Timing) -> Row:
        """Return quartiles of the ratio to another, median milliseconds and cores."""
        ratios = np.divide(self.taken, baseline.taken)
        return {
            "ratio": [round(float(q), 3) for q in np.percentile(ratios, (25, 50, 75))],
            "ms": round(median(self.taken), 3),
            "cores": round(median(self.cores), 2),
        }


class BrokenWriter(_Writer):
    """Writes PReLU as litert-torch does, in INT8 too: `relu(x) - a * relu(-1 * x)`."""

    def _prelu(self, x: _Tensor, slopes: FloatArray) -> _Tensor:
        positive = self._like(x, "positive")
        self._operator("RELU", [x.index], positive)
        negative = self._times(x, np.array([-1], np.float32), relu=True)
        scaled = self._times(negative, slopes[None, None, None])
        y = self._like(x, "prelu")
        kind, options = schema.BuiltinOptions.SubOptions, schema.SubOptionsT()
        self._operator("SUB", [positive.index, scaled.index], y, kind, options, version=2)
        return y

    def _times(self, x: _Tensor, factor: FloatArray, relu: bool = False) -> _Tensor:
        y = self._like(x, "times")
        options = schema.MulOptionsT()
        options.fusedActivationFunction = int(relu)
        largest = np.abs(factor).max(keepdims=True).reshape(1) / 127
        constant = (
            self._constant(f"{self._name(y)}/factor", factor)
            if x.scale is None
            else self._constant(
                f"{self._name(y)}/factor", np.rint(factor / largest).astype(np.int8), largest
            )
        )
        kind = schema.BuiltinOptions.MulOptions
        self._operator("MUL", [x.index, constant], y, kind, options, version=2)
        return y

    def _like(self, x: _Tensor, what: str) -> _Tensor:
        return self._tensor(f"{self._name(x)}/{what}", x.shape, x.scale)


def shipped(network: str, precision: str) -> Choice:
    """Return how the engine that ships is written."""
    layers = [layer.conv.name for layer in read_trained(network).layers]
    if precision == "fp32":
        return Choice(network, precision, dict.fromkeys(layers, PRELU), FLOAT_COLUMNS[network])
    weights = int8_weights(network)
    forms = {**dict.fromkeys(layers, MAXIMUM), **INT8_FORMS[network]}
    heads = () if network in MERGED_HEADS_OF else tuple(head.name for head in weights.heads)
    return Choice(network, precision, forms, INT8_COLUMNS[network], heads)


def engine(choice: Choice) -> bytes:
    """Return the TFLite engine of a choice."""
    calibration, int8 = _calibration(choice.network), choice.precision == "int8"
    trained = int8_weights(choice.network) if int8 else read_trained(choice.network)
    graph = rewrite(trained, choice.forms, "prelu", choice.columns)
    if choice.network in MERGED_HEADS_OF:
        graph = merge_heads(graph)
    scales = calibration.engine_scales() if int8 else None
    return _writer(choice)(
        graph, SHAPES[choice.network][:2], "float32", scales, frozenset(choice.float_heads)
    ).write()


def _writer(choice: Choice) -> Callable[..., _Writer]:
    return BrokenWriter if choice.broken else _Writer


@cache
def _calibration(network: str) -> Calibration:
    return read_calibration(shipped_cache() / f"{network}.json")


def forms_of(layer: Layer, precision: str) -> list[Form]:
    """Return the forms that a layer can have."""
    forms: list[Form] = ["prelu"] if precision == "fp32" else []
    forms.append("maximum")
    if layer.pool is None or not layer.pool.ceil:
        forms.append("halves")
    if layer.pool is None:
        forms.append("pair")
    return forms


def alternatives(choice: Choice) -> dict[tuple[str, str], Choice]:
    """Return what differs in one thing from a choice, by that thing and its name."""
    found: dict[tuple[str, str], Choice] = {}
    for layer in read_trained(choice.network).layers:
        name = layer.conv.name
        for form in forms_of(layer, choice.precision):
            if form != choice.forms[name]:
                found[name, form] = replace(choice, forms={**choice.forms, name: form})
    for columns in COLUMNS:
        if columns != choice.columns:
            found["columns", str(columns)] = replace(choice, columns=columns)
    if choice.float_heads:
        found["heads", "int8"] = replace(choice, float_heads=())
    return found


def interleaved(cases: Mapping[str, Call], baseline: str, rounds: int) -> dict[str, Row]:
    """Time all cases in turns, in each round another one first; see `Timing.figures`."""
    names, timings = list(cases), {name: Timing() for name in cases}
    for call in cases.values():
        call()  # plans
    for turn in (n % len(names) for n in range(rounds)):
        for name in names[turn:] + names[:turn]:
            timings[name].turn(cases[name])
    return {name: timing.figures(timings[baseline]) for name, timing in timings.items()}


def pixels(network: str) -> UInt8Array:
    """Return a batch for a network; times do not depend on what it shows."""
    shape = (BATCH[network], *SHAPES[network])
    return np.random.default_rng(0).integers(0, 256, shape, np.uint8)


def calls(choices: Mapping[str, Choice], threads: int) -> dict[str, Call]:
    """Return calls that run the engines of choices over one batch."""
    opened: dict[str, Call] = {}
    for name, choice in choices.items():
        batch = pixels(choice.network)
        network = TfliteNetwork(engine(choice), name, (len(batch),), threads)
        opened[name] = lambda network=network, batch=batch: network(batch)  # type: ignore[misc]
    return opened


def compare(choices: Mapping[str, Choice], baseline: str, rounds: int) -> dict[str, Row]:
    """Return the figures of each choice, beside one of them, by threads."""
    rows: dict[str, Row] = {name: {} for name in choices}
    for threads in thread_counts():
        for name, figures in interleaved(calls(choices, threads), baseline, rounds).items():
            rows[name][str(threads)] = figures
    return rows


def thread_counts() -> list[int]:
    """Return one and two threads, as far as there are cores for them."""
    return sorted({1, min(2, cores())})


def layer_rows(choice: Choice, rounds: int) -> list[Row]:
    """Return the cost of each alternative to what ships."""
    others = alternatives(choice)
    named = {f"{what} {name}": other for (what, name), other in others.items()}
    rows = compare({"ships": choice, **named}, "ships", rounds)
    return [
        {
            "network": choice.network,
            "precision": choice.precision,
            "layer": what,
            "ships": _ships(choice, what),
            "instead": name,
            **rows[f"{what} {name}"],
        }
        for what, name in others
    ]


def _ships(choice: Choice, what: str) -> str:
    return {"columns": str(choice.columns), "heads": "float"}.get(what) or choice.forms[what]


def fastest(choice: Choice, rows: Iterable[Row]) -> Choice:
    """Return a choice changed in everything that some alternative does surely faster."""
    best: dict[str, Row] = {}
    for row in rows:
        if surely_faster(row):
            best[row["layer"]] = min(
                best.get(row["layer"], row), row, key=lambda r: sum(_ratios(r))
            )
    forms = {n: r["instead"] for n, r in best.items() if n not in ("columns", "heads")}
    columns = int(best["columns"]["instead"]) if "columns" in best else choice.columns
    heads = () if "heads" in best else choice.float_heads
    return replace(choice, forms={**choice.forms, **forms}, columns=columns, float_heads=heads)


def surely_faster(row: Row) -> bool:
    """Return whether the upper quartile is below what ships, with every number of threads."""
    return all(row[str(threads)]["ratio"][2] < SURELY_FASTER for threads in thread_counts())


def _ratios(row: Row) -> list[float]:
    return [row[str(threads)]["ratio"][1] for threads in thread_counts()]


def network_choices(network: str, best: Mapping[str, Choice]) -> dict[str, Choice]:
    """Return whole engines worth comparing with FP32 as it ships."""
    float_, int8 = (shipped(network, precision) for precision in PRECISIONS)
    plain = dict.fromkeys(float_.forms, PRELU)
    return {
        "FP32 ships": float_,
        "FP32 in the forms of INT8": replace(float_, forms=int8.forms, columns=int8.columns),
        "FP32, fastest of each layer": best["fp32"],
        "FP32, PReLU broken as converters do": replace(float_, columns=1, broken=True),
        "INT8 ships": int8,
        "INT8, fastest of each layer": best["int8"],
        "INT8, PReLU broken as converters do": replace(int8, forms=plain, columns=1, broken=True),
    }


def target_calls(networks: Networks) -> dict[str, Call]:
    """Return the work of the targets: P-Net over the pages of 1080p, R- and O-Net over 64 crops."""
    count = len(plan_pages(tuple(pyramid_levels(1920, 1080, 20, 0.709))))
    pages = [np.roll(pixels("pnet"), index, axis=1) for index in range(count)]
    crops = {name: pixels(name) for name in ("rnet", "onet")}
    return {
        "pnet": lambda: [networks.pnet(page) for page in pages],
        "rnet": lambda: networks.rnet(crops["rnet"]),
        "onet": lambda: networks.onet(crops["onet"]),
    }


def target_rows(rounds: int) -> dict[str, Row]:
    """Return the figures of INT8 and FP32, both as they ship, as the cascade runs them."""
    rows: dict[str, Row] = {name: {} for name in NETWORKS}
    for threads in thread_counts():
        opened = {p: target_calls(open_named(p, threads)) for p in PRECISIONS}
        for name in NETWORKS:
            cases = {p: opened[p][name] for p in PRECISIONS}
            figures = interleaved(cases, "fp32", rounds)
            rows[name][str(threads)] = {**figures["int8"], "fp32_ms": figures["fp32"]["ms"]}
    return rows


def measure(rounds: int) -> dict[str, Any]:
    """Measure everything."""
    layers: list[Row] = []
    networks: dict[str, Any] = {}
    for network in NETWORKS:
        best = {}
        for precision in PRECISIONS:
            choice = shipped(network, precision)
            rows = layer_rows(choice, rounds)
            layers += rows
            best[precision] = fastest(choice, rows)
        choices = network_choices(network, best)
        found = compare(choices, "FP32 ships", rounds)
        networks[network] = {name: {**found[name], **_said(c)} for name, c in choices.items()}
    return {"layers": layers, "networks": networks, "targets": target_rows(rounds)}


def _said(choice: Choice) -> Row:
    return {"forms": dict(choice.forms), "columns": choice.columns, "heads": choice.float_heads}


def show(results: Mapping[str, Any]) -> str:
    """Return the Markdown tables."""
    return "\n\n".join(
        (
            "Time with one thing changed, relative to what ships (bold: surely faster):",
            _table(("engine", "layer", "ships", "instead"), map(_layer_cells, results["layers"])),
            "Whole engines, one page or 64 crops, time relative to FP32 as it ships:",
            _table(("network", "engine"), _network_cells(results["networks"])),
            "INT8 as it ships, times as fast as FP32; P-Net over the pages of 1080p, 64 crops:",
            _table(("network", "wanted"), _target_cells(results["targets"])),
            _cores_had(results["layers"]),
        )
    )


def _table(head: tuple[str, ...], rows: Iterable[list[str]]) -> str:
    threads = [f"{n} thread{'s' if n > 1 else ''}" for n in thread_counts()]
    lines = [[*head, *threads], ["---"] * (len(head) + len(threads)), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _layer_cells(row: Row) -> list[str]:
    sure = "**" if surely_faster(row) else ""
    cells = [f"{sure}{ratio:.2f}{sure}" for ratio in _ratios(row)]
    engine = f"{row['network']} {row['precision']}"
    return [engine, row["layer"], row["ships"], row["instead"], *cells]


def _network_cells(networks: Mapping[str, Any]) -> Iterable[list[str]]:
    for network, rows in networks.items():
        for name, row in rows.items():
            had = [row[str(n)] for n in thread_counts()]
            yield [network, name, *(f"{f['ratio'][1]:.2f} ({f['ms']:.2f} ms)" for f in had)]


def _target_cells(targets: Mapping[str, Row]) -> Iterable[list[str]]:
    for network, row in targets.items():
        had = [row[str(n)] for n in thread_counts()]
        times = [f"{1 / f['ratio'][1]:.2f} ({f['fp32_ms']:.1f} / {f['ms']:.1f} ms)" for f in had]
        yield [network, f"{WANTED[network]:.0f}", *times]


def _cores_had(rows: list[Row]) -> str:
    """Say how many cores there were in truth: on a busy machine two threads may share one."""
    had = {n: median(row[str(n)]["cores"] for row in rows) for n in thread_counts()}
    return "Cores at work: " + ", ".join(f"{had[n]:.1f} of {n}" for n in had)


def main() -> None:
    """Time everything, print the tables, write `results/forms.json`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="few rounds, nothing written")
    quick = parser.parse_args().quick
    results = measure(QUICK_ROUNDS if quick else ROUNDS)
    print(show(results))
    if not quick:
        RESULTS.parent.mkdir(exist_ok=True)
        RESULTS.write_text(json.dumps({**describe(), **results}, indent=1) + "\n")


if __name__ == "__main__":
    main()
