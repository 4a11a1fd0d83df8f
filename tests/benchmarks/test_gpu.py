"""What `benchmarks.gpu` counts, compares and keeps; without a GPU."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import gpu, gpu_floor, gpu_machine, gpu_peers, gpu_report
from benchmarks.gpu_agreement import Agreement
from benchmarks.gpu_correct import Checks, same
from benchmarks.gpu_floor import ONET, PNET, RNET, Ceilings, microseconds, work_of
from benchmarks.gpu_probe import _Enough, _Prefix
from benchmarks.gpu_report import MAIN, NotMeasured, Report, Target, show_targets, verdicts
from benchmarks.gpu_rooms import ROOT, map_rooms
from benchmarks.gpu_setting import SIZES, photo, variants
from benchmarks.gpu_speed import ahead
from unface.gpu.lane import RESULT_BYTES
from unface.gpu.plan import plan_frame
from unface.mtcnn.faces import Faces
from unface.mtcnn.options import DetectOptions

FULL_HD = plan_frame(1920, 1080, DetectOptions())

# --- the floor -----------------------------------------------------------------------------------


def test_a_cell_and_a_crop_need_what_the_networks_have() -> None:
    assert sum(layer.needed for layer in PNET) == 4 * 270 + 1440 + 4608 + 160
    assert sum(layer.needed for layer in RNET) == 1_530_640
    assert sum(layer.needed for layer in ONET) == 12_909_696


@pytest.mark.parametrize(("name", "size"), [("rnet", 24), ("onet", 48)])
def test_crops_need_what_torch_multiplies(name: str, size: int) -> None:
    torch = pytest.importorskip("torch")
    from unface.mtcnn.networks import load_network

    network, counted = load_network(name), []

    def count(layer: Any, _: Any, output: Any) -> None:
        counted.append(output[0].numel() * layer.weight[0].numel())

    for layer in network.modules():
        if isinstance(layer, torch.nn.Conv2d):
            layer.register_forward_hook(count)
    network(torch.zeros(1, 3, size, size))
    layers = {"rnet": RNET, "onet": ONET}[name]
    assert sum(counted) == sum(layer.needed for layer in layers)


def test_kernels_do_at_least_what_is_needed() -> None:
    for layer in (*RNET, *ONET):
        assert layer.done >= layer.needed
    for layer in PNET:
        assert layer.done >= layer.needed * 512
    work = work_of(FULL_HD, 500, 50)
    assert work.done_bytes > work.needed_bytes
    assert work.done_macs > work.needed_macs


def test_a_picture_is_read_once_and_its_faces_are_written() -> None:
    work = work_of(FULL_HD)
    assert work.picture_bytes == 1920 * 1080 * 3
    assert work.needed_bytes == work.picture_bytes + RESULT_BYTES
    assert work.needed_macs == FULL_HD.cells * 7288
    assert 2.6e9 < work.needed_macs < 2.8e9  # as `docs/performance.md` has it for the CPU


def test_crops_add_their_own_work() -> None:
    none, some = work_of(FULL_HD), work_of(FULL_HD, 10, 3)
    assert some.needed_macs - none.needed_macs == 10 * 1_530_640 + 3 * 12_909_696
    assert some.needed_bytes == none.needed_bytes
    assert some.done_bytes - none.done_bytes == 10 * (1728 + 2304) + 3 * (6912 + 4608)


def test_a_small_picture_without_levels_asks_for_nothing_but_itself() -> None:
    work = work_of(plan_frame(11, 11, DetectOptions()))
    assert (work.needed_macs, work.done_macs) == (0, 0)
    assert work.done_bytes >= 11 * 11 * 3


def test_the_floor_is_the_longer_of_bytes_and_operations() -> None:
    work = gpu_floor.Work(4_000_000, 40_000_000, 10**9, 4 * 10**9, 6_000_000)
    times = microseconds(work, Ceilings(4e12, 1e15, 5e10))
    assert times["needed_bytes"] == pytest.approx(1)
    assert times["needed_operations"] == pytest.approx(2)
    assert times["floor"] == pytest.approx(2)
    assert times["done"] == pytest.approx(10)
    assert times["from_host"] == pytest.approx(120)


def test_the_table_has_a_line_a_case_and_dashes_for_what_was_not_timed() -> None:
    work = work_of(FULL_HD)
    times = microseconds(work, Ceilings(4e12, 1e15, 5e10))
    speed = {"resident": {"fps": 2000.0}}
    table = gpu_floor.show({"timed": (work, times, speed), "not": (work, times, None)})
    head, _, timed, untimed = table.splitlines()
    assert head.startswith("| case")
    assert " 500 |" in timed
    assert f" {500 / times['floor']:.0f} |" in timed
    assert untimed.rstrip().endswith("- |        - |")


# --- the report ----------------------------------------------------------------------------------

FAST = Target("fast", ("speed", "fps"), "frames/s", least=2000)
SOON = Target("soon", ("speed", "ms"), "ms", most=1.5)


@pytest.mark.parametrize(
    ("target", "value", "said"),
    [(FAST, 2000, "met"), (FAST, 1999, "MISSED"), (SOON, 1.5, "met"), (SOON, 1.6, "MISSED"),
     (SOON, float("nan"), "MISSED"), (FAST, None, "not measured")],
)  # fmt: skip
def test_a_target_is_met_missed_or_not_measured(target: Target, value: Any, said: str) -> None:
    figures = {} if value is None else {"speed": {target.path[1]: value}}
    assert verdicts(figures, [target])[0][-1] == said


def test_the_last_table_says_what_was_missed_and_why_something_is_not_there() -> None:
    figures = {
        "speed": {"fps": 10.0},
        "failed": {"stages": "ValueError: no"},
        "not_measured": {"peers": "torch sees no GPU", "times": "torch sees no GPU"},
    }
    said = show_targets(figures, [FAST, SOON])
    assert "MISSED" in said
    assert ">= 2000 frames/s" in said
    assert "stages: failed: ValueError: no" in said
    assert "peers, times: not measured: torch sees no GPU" in said


def test_the_targets_are_found_where_the_sections_put_them() -> None:
    figures = {
        "speed kernels": {MAIN: {"resident": {"fps": 2500}, "host": {"fps": 900},
                                 "latency": {"p50_ms": 1.0}}},
        "times": {"facenet-pytorch": 31.0},
        "agreement kernels": Agreement(1, 1, 1).answer(),
        "checks kernels": Checks().answer(),
        "agreement tensorrt int8": Agreement(1, 1, 1).answer(),
        "sanitizers": {name: {"errors": 0} for name in gpu_machine.TOOLS},
    }  # fmt: skip
    said = {row[0]: row[-1] for row in verdicts(figures)}
    assert said.pop("1080p from host memory") == "MISSED"
    assert set(said.values()) == {"met"}


def test_figures_come_back_as_they_were_written(tmp_path: Path) -> None:
    file = tmp_path / "deep" / gpu_report.file_name("NVIDIA H200")
    figures = {"card": "NVIDIA H200", "fps": np.float64(2000.123456), "counts": np.arange(3),
               "bad": float("nan"), "worse": float("inf"), "ok": True, "none": None,
               "path": Path("a"), "list": (1, 2)}  # fmt: skip
    gpu_report.write(file, figures)
    assert file.name == "gpu-nvidia-h200.json"
    assert gpu_report.read(file) == {
        "card": "NVIDIA H200", "fps": 2000.1, "counts": [0, 1, 2], "bad": None, "worse": None,
        "ok": True, "none": None, "path": "a", "list": [1, 2],
    }  # fmt: skip


def test_a_section_that_fails_stops_no_other(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "figures.json"
    report = Report(60, [file])

    def missing() -> None:
        raise NotMeasured("no card")

    assert report.section("broken", lambda: [][1]) is None
    assert report.section("missing", missing) is None
    assert report.section("fine", lambda: {"fps": 1}) == {"fps": 1}
    kept = json.loads(file.read_text())
    assert kept["fine"] == {"fps": 1}
    assert kept["failed"] == {"broken": "IndexError: list index out of range"}
    assert kept["not_measured"] == {"missing": "no card"}
    said = capsys.readouterr().out
    assert "Traceback" in said
    assert "not measured: no card" in said


def test_no_section_begins_after_the_limit() -> None:
    report = Report(-1)
    assert report.section("late", lambda: {"fps": 1}) is None
    assert "limit" in report.figures["not_measured"]["late"]


def test_short_runs_write_only_where_they_are_told(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("OUT", raising=False)
    whole, quick = gpu._arguments([]), gpu._arguments(["--quick"])
    assert gpu._files(whole, "X 1") == [gpu.RESULTS / "gpu-x-1.json"]
    assert gpu._files(quick, "X 1") == []
    monkeypatch.setenv("OUT", str(tmp_path))
    assert gpu._files(quick, "X 1") == [tmp_path / "gpu-x-1.json"]
    assert gpu._files(gpu._arguments(["--out", "there"]), "X 1")[1:] == [Path("there/gpu-x-1.json")]


def test_groups_add_their_figures_and_their_reasons() -> None:
    figures: dict[str, Any] = {"failed": {"a": "x"}, "not_measured": {}, "about": {}}
    gpu._merge(figures, {"failed": {"b": "y"}, "seconds": 3, "speed": {}})
    assert figures["failed"] == {"a": "x", "b": "y"}
    assert "speed" in figures
    assert "seconds" not in figures


def test_what_facenet_is_beaten_by_is_its_best_batch() -> None:
    batches = {
        "1": {"resident": {"fps": 8.0}},
        "8": {"resident": {"fps": 10.0}},
        "16": {"failed": ""},
    }
    figures = {
        "facenet-pytorch": {MAIN: {"batches": batches}},
        "speed kernels": {MAIN: {"resident": {"fps": 400.0}}},
    }
    assert gpu_peers.times(figures)["facenet-pytorch"] == 40
    with pytest.raises(NotMeasured):
        gpu_peers.times({})


# --- what is read from other programs ------------------------------------------------------------

PTXAS = """
ptxas info    : Compiling entry function 'pnet' for 'sm_90'
ptxas info    : Function properties for pnet
ptxas         .     0 bytes stack frame, 4 bytes spill stores, 8 bytes spill loads
ptxas info    : Used 128 registers, used 1 barriers, 48240 bytes smem
ptxas info    : Compile time = 120.616 ms
ptxas info    : Compiling entry function 'halve' for 'sm_90'
ptxas         .     0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 51 registers, used 0 barriers
"""


def test_registers_and_spills_are_read_from_the_compiler() -> None:
    found = gpu_machine.kernels_from_log(PTXAS)
    pnet, halve = found["pnet"], found["halve"]
    assert pnet == {"registers": 128, "shared": 48240, "spill_stores": 4, "spill_loads": 8}
    assert halve == {"registers": 51, "shared": 0, "spill_stores": 0, "spill_loads": 0}
    assert gpu_machine.kernels_from_log("") == {}


FINE = "sanitized: ok [2]\n"


@pytest.mark.parametrize(
    ("said", "errors"),
    [(FINE + "========= ERROR SUMMARY: 0 errors", 0),
     (FINE + "========= Program hit CUDA_ERROR_X\n========= ERROR SUMMARY: 3 errors", 3),
     (FINE + "========= RACECHECK SUMMARY: 1 hazard displayed (1 error, 0 warnings)", 1),
     ("========= ERROR SUMMARY: 0 errors", None), (FINE, None), ("", None)],
)  # fmt: skip
def test_a_sanitizer_is_clean_only_when_work_and_tool_came_to_their_end(
    said: str, errors: int | None
) -> None:
    assert gpu_machine.verdict(said, 0).get("errors") == errors


def test_what_takes_too_long_is_ended_with_all_that_it_started(tmp_path: Path) -> None:
    mark = tmp_path / "pid"
    command = ["sh", "-c", f"sleep 60 & echo $! > {mark}; wait"]
    with pytest.raises(subprocess.TimeoutExpired):
        gpu_machine.run(command, 0.5)
    deadline = time.monotonic() + 10
    while is_running(mark):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def is_running(mark: Path) -> bool:
    status = Path(f"/proc/{mark.read_text().strip()}/status")
    return status.exists() and "State:\tZ" not in status.read_text()


def test_the_rooms_of_a_checkout_become_the_package(tmp_path: Path) -> None:
    map_rooms(tmp_path)
    program = "import unface, unface.gpu.plan, unface.v1; print(unface.__file__)"
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path, env=environment, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.strip() == str(tmp_path / "unface" / "__init__.py")


# --- checking and timing -------------------------------------------------------------------------


def faces(*boxes: tuple[float, float, float, float]) -> Faces:
    rows = np.array(boxes, np.float32).reshape(-1, 4)
    landmarks = np.repeat(rows[:, None, :2], 5, axis=1)
    return Faces(rows, np.linspace(1, 0.9, len(rows), dtype=np.float32), landmarks, 100, 100)


HERE, THERE = (10, 10, 30, 30), (50, 50, 80, 80)


def test_equal_faces_agree() -> None:
    agreement = Agreement()
    agreement.add(faces(HERE, THERE), faces(HERE, THERE), np.array([HERE, THERE], np.float64), 20)
    answer = agreement.answer()
    assert (answer["met"], answer["alone"], answer["lost_points"]) == (2, 0, 0)
    assert (answer["labelled"], answer["found"], answer["recall_lost_points"]) == (2, 2, 0)
    assert answer["least_iou"] == pytest.approx(1)


def test_a_face_that_is_not_met_and_one_too_many_are_told() -> None:
    agreement = Agreement()
    agreement.add(faces((0, 60, 20, 80)), faces(HERE), np.array([HERE], np.float64), 20)
    answer = agreement.answer()
    assert (answer["met"], answer["alone"], answer["lost_points"]) == (0, 1, 100)
    assert answer["recall_lost_points"] == 100


def test_a_moved_face_is_met_with_the_overlap_it_has() -> None:
    agreement = Agreement()
    agreement.add(faces((10, 10, 30, 29)), faces(HERE), np.empty((0, 4)), 20)
    assert agreement.met == 1
    assert agreement.least_iou == pytest.approx(0.95)


@pytest.mark.parametrize(("found", "expected"), [((), ()), ((HERE,), ()), ((), (HERE,))])
def test_pictures_without_faces_agree_or_not(found: Any, expected: Any) -> None:
    agreement = Agreement()
    agreement.add(faces(*found), faces(*expected), np.empty((0, 4)), 20)
    assert (agreement.met, agreement.alone, agreement.faces) == (0, len(found), len(expected))
    assert agreement.answer()["recall_lost_points"] == 0


def test_the_same_is_the_same_bit_by_bit() -> None:
    first = faces(HERE)
    assert same(first, faces(HERE))
    assert not same(first, replace(first, scores=first.scores - np.float32(1e-7)))
    assert not same(first, faces(HERE, THERE))


class Recorded:
    """A recorder that notes what reaches it."""

    handle = 7

    def __init__(self) -> None:
        self.steps: list[str] = []

    def launch(self, kernel: str, blocks: int, threads: int, *arguments: int) -> None:
        self.steps.append(kernel)

    def clear(self, pointer: int, size: int) -> None:
        self.steps.append("clear")


def test_work_can_be_cut_after_any_step() -> None:
    recorder = Recorded()
    prefix = _Prefix(recorder, 3)
    prefix.clear(0, 4)
    prefix.launch("halve", 1, 256, 1234, 1)
    assert prefix.handle == 7
    with pytest.raises(_Enough):
        prefix.launch("halve", 1, 256, 1234, 2)
    assert recorder.steps == ["clear", "halve"]
    assert prefix.names == ["clear", "halve 1", "engine"]


@pytest.mark.parametrize(("count", "depth"), [(0, 3), (2, 3), (3, 3), (20, 3), (5, 1)])
def test_work_ahead_comes_in_order_and_whole(count: int, depth: int) -> None:
    begun: list[int] = []

    def items() -> Iterator[int]:
        for item in range(count):
            begun.append(item)
            yield item

    with ThreadPoolExecutor(2) as pool:
        found = []
        for item in ahead(pool, lambda item: -item, items(), depth):
            found.append(item)
            assert len(begun) <= len(found) + depth
    assert found == [-item for item in range(count)]


def test_frames_that_take_turns_differ() -> None:
    image = photo("tiny", "few").image
    frames = variants(image, 4)
    assert np.array_equal(frames[0], image)
    assert len({frame.tobytes() for frame in frames}) == 4
    assert {frame.shape for frame in frames} == {image.shape}


def test_pictures_have_the_size_that_they_are_called() -> None:
    one = photo("480p", "few")
    assert one.image.shape[1::-1] == SIZES["480p"]
    assert len(one.faces) == 5
    assert not photo("tiny", "none").faces.size


def test_the_stand_in_finds_the_faces_facenet_finds() -> None:
    torch = pytest.importorskip("torch")
    from benchmarks.gpu_standin import StandIn

    def suppress(boxes: Any, scores: Any, groups: Any, threshold: float) -> Any:
        """Greedy, one after the other."""
        kept: list[int] = []
        for index in torch.argsort(scores, descending=True).tolist():
            rivals = [k for k in kept if groups[k] == groups[index]]
            if all(_overlap(boxes[k], boxes[index]) <= threshold for k in rivals):
                kept.append(index)
        return torch.tensor(kept, dtype=torch.int64)

    one = photo("tiny", "few")
    pictures = np.stack([one.image, one.image[:, ::-1], np.zeros_like(one.image)])
    found = StandIn("cpu", 24, suppress).detect(np.ascontiguousarray(pictures))
    assert [len(boxes) for boxes, _ in found] == [2, 2, 0]
    boxes = found[0][0]
    assert np.abs(boxes[np.argsort(boxes[:, 0])] - one.faces).max() < 10


def _overlap(a: Any, b: Any) -> float:
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    shared = max(float(width), 0) * max(float(height), 0)
    areas = sum(float((box[2] - box[0]) * (box[3] - box[1])) for box in (a, b))
    return shared / (areas - shared)


# --- all of it, on a simulated GPU ---------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="the simulated GPU needs g++")
def test_every_section_runs_on_a_simulated_gpu(tmp_path: Path) -> None:
    pytest.importorskip("cuda.core", reason="cuda-core comes with unface[gpu]")
    pytest.importorskip("torch")
    sys.path.append(str(ROOT / "tests" / "gpu"))
    from simulated import driver_folder

    from unface.gpu.program import compile_kernels

    driver = driver_folder()
    compile_kernels("sm_90")  # NVRTC dies of the simulated driver: it must find them compiled
    environment = {**os.environ, "LD_LIBRARY_PATH": str(driver)}
    environment.pop("OUT", None)
    command = [sys.executable, "-m", "benchmarks.gpu", "--tiny", "--out", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    figures = gpu_report.read(tmp_path / "gpu-simulated-gpu.json")
    assert figures["failed"] == {}
    assert figures["checks kernels"]["failed"] == 0
    assert figures["agreement kernels"]["met"] == 2
    assert figures["speed kernels"]["tiny few 40"]["resident"]["fps"] > 0
    assert "pnet" in figures["stages"]["tiny few 40"]
    assert figures["floor"]["tiny few 40"]["needed_macs"] > 0
    assert set(figures["not_measured"]) >= {"facenet-pytorch", "sanitizers"}
    assert not (ROOT / "benchmarks" / "results" / "gpu-simulated-gpu.json").exists()
