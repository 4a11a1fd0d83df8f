"""Other ways to run MTCNN on the same GPU, in the same run: facenet-pytorch, ONNX Runtime.

facenet-pytorch's package where it is there (its wheel is 1.9 MB and needs nothing else here), else
its algorithm said again (`gpu_standin`), and named so.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from statistics import median
from typing import Any

import numpy as np

from benchmarks.figures import judge
from benchmarks.gpu_report import MAIN, NotMeasured, lookup
from benchmarks.gpu_setting import NETWORKS, PREBUILT, Case, Setting, photo, variants
from benchmarks.tables import markdown
from unface.mtcnn.cascade import Cascade
from unface.mtcnn.network import FloatArray, Networks, UInt8Array
from unface.mtcnn.options import DetectOptions

BATCHES = (1, 8, 16)  # of facenet-pytorch
MOST_RUNS = 30
MOST_BATCH_BYTES = 128 << 20  # of pictures: as float32, with all levels, a hundred times that
PACKAGE, STAND_IN = "facenet-pytorch", "facenet-pytorch's algorithm, said again"

Figures = dict[str, Any]
Detect = Callable[[Any], list[tuple[Any, Any]]]  # boxes and scores of each of [N, H, W, 3]


def facenet(setting: Setting) -> Figures:
    """Return the speed of facenet-pytorch for some cases, by batch, and what it finds."""
    torch = _torch()
    found: Figures = {}
    for case in setting.extent.cases:
        if case.kind == "none" or (case.min_face != 20 and case.size != "1080p"):
            continue
        name, detect = open_facenet(case.min_face, "cuda")
        batches = BATCHES if case.kind == "few" else BATCHES[:1]
        found[str(case)] = _case(setting, case, name, detect, batches, torch)
    print(show(found))
    return found


def _torch() -> Any:
    """Return torch with a GPU; raises `NotMeasured` without."""
    try:
        import torch
    except ImportError as error:
        raise NotMeasured(f"torch is missing: {error}") from error
    if not torch.cuda.is_available():
        raise NotMeasured("torch sees no GPU")
    return torch


def open_facenet(min_face: float, device: str) -> tuple[str, Detect]:
    """Return the name and the detector of the package, or of the stand-in without it."""
    try:
        from torchvision.ops.boxes import batched_nms  # type: ignore[import-not-found]
    except Exception as error:
        raise NotMeasured(f"torchvision cannot be imported: {error}") from error
    try:
        from facenet_pytorch import MTCNN  # type: ignore[import-not-found]
    except ImportError as error:
        print(f"{PACKAGE} is not here ({error}): its algorithm, said again, takes its place")
        from benchmarks.gpu_standin import StandIn

        return STAND_IN, StandIn(device, min_face, batched_nms).detect
    mtcnn = MTCNN(keep_all=True, min_face_size=min_face, device=device, post_process=False)

    def detect(pictures: Any) -> list[tuple[Any, Any]]:
        boxes, scores = mtcnn.detect(pictures)
        nothing = (np.empty((0, 4)), np.empty(0))
        return [nothing if b is None else (b, s) for b, s in zip(boxes, scores, strict=True)]

    return PACKAGE, detect


def _case(
    setting: Setting, case: Case, name: str, detect: Detect, batches: Sequence[int], torch: Any
) -> Figures:
    one = photo(case.size, case.kind)
    found: Figures = {"detector": name, "batches": {}}
    for batch in batches:
        if batch > 1 and batch * one.image.nbytes > MOST_BATCH_BYTES:
            continue
        images = np.stack(variants(one.image, batch))
        there = torch.as_tensor(images, device="cuda")
        try:
            row = {"resident": _rate(detect, there, batch, setting.extent.peer_s, torch)}
            if batch == 1:
                row["host"] = _rate(detect, images, batch, setting.extent.peer_s, torch)
            found["batches"][str(batch)] = row
        except torch.cuda.OutOfMemoryError:
            found["batches"][str(batch)] = {"failed": "out of memory"}
            torch.cuda.empty_cache()
    boxes, scores = detect(torch.as_tensor(one.image[None], device="cuda"))[0]
    counts = judge(boxes, scores, one.faces, case.min_face)
    found |= {"faces": len(scores), "found": counts.found, "labelled": counts.faces}
    print(f"{case}: {name}, best {best_fps(found):.1f} frames/s", flush=True)
    return found


def _rate(detect: Detect, pictures: Any, batch: int, cap_s: float, torch: Any) -> Figures:
    """Return frames a second of a detector: one run warms up, then until it has spent its time."""
    detect(pictures)
    taken: list[float] = []
    while not taken or (sum(taken) < cap_s and len(taken) < MOST_RUNS):
        torch.cuda.synchronize()
        begin = time.perf_counter()
        detect(pictures)
        torch.cuda.synchronize()
        taken.append(time.perf_counter() - begin)
    rates = sorted(batch / t for t in taken)
    return {"fps": batch / median(taken), "low": rates[0], "high": rates[-1], "runs": len(taken)}


def best_fps(found: Figures) -> float:
    """Return the most resident frames a second that any batch gave."""
    rows = found["batches"].values()
    return max((row["resident"]["fps"] for row in rows if "resident" in row), default=0.0)


def times(figures: Figures) -> Figures:
    """Return how many times facenet-pytorch's frames a second ours are, both on the device."""
    answer = {}
    for case, peer in figures.get("facenet-pytorch", {}).items():
        ours = lookup(figures, ("speed kernels", case, "resident", "fps"))
        theirs = best_fps(peer)
        if ours is not None and theirs:
            answer[case] = ours / theirs
    if not answer:
        raise NotMeasured("there are not both of them")
    for case, value in answer.items():
        print(f"{case}: {value:.0f} times")
    found: Figures = {"by case": answer}
    if MAIN in answer:
        found["facenet-pytorch"] = answer[MAIN]
    return found


def show(found: Figures) -> str:
    """Return the peer's cases as a table."""
    lines = []
    for case, row in found.items():
        cells = [case, row["detector"]]
        for batch in BATCHES:
            part = row["batches"].get(str(batch), {})
            cells.append(f"{part['resident']['fps']:.1f}" if "resident" in part else "-")
        host = row["batches"].get("1", {}).get("host")
        cells += [f"{host['fps']:.1f}" if host else "-", f"{row['found']}/{row['labelled']}"]
        lines.append(cells)
    head = ("frames/s", "detector", *(f"resident, {n} at once" for n in BATCHES), "host", "found")
    return markdown(head, lines)


# --- ONNX Runtime --------------------------------------------------------------------------------


class _OnnxNetwork:
    """A shipped ONNX engine on ONNX Runtime's CUDA provider; see `unface.mtcnn.network.Network`."""

    max_batch = 256

    def __init__(self, name: str, providers: Sequence[str]) -> None:
        import onnxruntime

        model = (PREBUILT / f"{name}.fp32.onnx").read_bytes()
        self._session = onnxruntime.InferenceSession(model, providers=list(providers))
        self._outputs = [output.name for output in self._session.get_outputs()]

    def __call__(self, images: UInt8Array) -> dict[str, FloatArray]:
        values = self._session.run(None, {"pixels": images})
        results = dict(zip(self._outputs, values, strict=True))
        if results["logit"].shape[1:3] == (1, 1):
            results = {name: value[:, 0, 0] for name, value in results.items()}
        results["logit"] = results["logit"][..., 0]
        return results

    def close(self) -> None:
        """Nothing to free: the session goes with its last reference."""


def onnxruntime_cuda(setting: Setting) -> Figures:
    """Return the speed of the CPU's cascade with its networks in ONNX Runtime on the GPU."""
    try:
        import onnxruntime
    except ImportError as error:
        raise NotMeasured(f"onnxruntime is missing: {error}") from error
    there = onnxruntime.get_available_providers()
    if "CUDAExecutionProvider" not in there:
        raise NotMeasured(f"onnxruntime {onnxruntime.__version__} has {', '.join(there)} alone")
    return onnxruntime_speed(setting, ["CUDAExecutionProvider"])


def onnxruntime_speed(setting: Setting, providers: Sequence[str]) -> Figures:
    """Return the speed of the CPU's cascade with its networks on some providers."""
    pnet, rnet, onet = (_OnnxNetwork(name, providers) for name in NETWORKS)
    cascade = Cascade(Networks(pnet, rnet, onet, backend="onnxruntime", precision="fp32"))
    case = setting.extent.cases[0]
    one = photo(case.size, case.kind)
    options = DetectOptions(min_face=case.min_face)
    taken = []
    for image in variants(one.image, 2 + (1 if setting.is_tiny else 10)):
        begin = time.perf_counter()
        cascade.detect(image, options)
        taken.append(time.perf_counter() - begin)
    fps = 1 / median(taken[2:])
    print(f"{case}: {fps:.1f} frames/s from host memory")
    return {str(case): {"host": {"fps": fps}}}
