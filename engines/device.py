"""Opening a GPU to do what a folder's engines do, and looking whether it sees what they see."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping
from contextlib import ExitStack, closing
from importlib.resources import files
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np
import numpy.typing as npt

from unface.engines.native import Arrays, read_arrays
from unface.engines.shelf import NATIVE, Shelf, open_named, read_shelf
from unface.errors import EngineError, InvalidOption
from unface.gpu.cascade import GpuCascade
from unface.gpu.device import Device, DeviceFailure
from unface.gpu.engines import EngineNetworks
from unface.gpu.networks import DeviceNetworks, KernelNetworks
from unface.mtcnn.cascade import Cascade
from unface.mtcnn.faces import Faces
from unface.mtcnn.network import UInt8Array

DEVICES = AUTO, CPU, GPU = ("auto", "cpu", "gpu")
TENSORRT, PLANS_PRECISION = "tensorrt", "fp16"  # backend; what a folder of plans stands for
SOURCE = "fp32"  # the engines whose weights the GPU takes
ON_GPU = ("fp32", "fp16", "int8")  # what its half precision stands in for
# On `check_picture` half precision has an overlap of 0.998 and INT8 one of 0.978; a network with a
# twentieth of its weights gone has 0.91 to 0.97.
LEAST_OVERLAP = 0.97  # intersection over union with the CPU's box
MOST_SHIFT = 0.05  # of a landmark, part of the box's longer side

OpenDevice = Callable[[], Device]

log = logging.getLogger("unface.engines")


class _Closable(Protocol):
    def close(self) -> None: ...


def check_device(name: str) -> None:
    """Raise `InvalidOption` unless it is one of `DEVICES`."""
    if name not in DEVICES:
        raise InvalidOption(f"device is {name!r}; there are {', '.join(DEVICES)}")


def open_first_gpu() -> Device:
    """Return this machine's first GPU; raises `DeviceFailure` saying what is missing."""
    from unface.gpu.cuda import open_cuda

    return open_cuda()


def why_cpu_alone(shelf: Shelf, precision: str) -> str:
    """Return why no GPU can do what a folder's engines of a precision do; "" when one can."""
    if precision not in ON_GPU:
        return f"{precision} engines run on the CPU alone"
    if (SOURCE, NATIVE) not in shelf.sets:
        return f"the folder has no {SOURCE} engines of the compiled core, whose weights a GPU takes"
    return ""


def open_cascade(
    device: Device,
    folder: Path | None,
    *,
    allow_uncertified: bool,
    plans: str | None = None,
    key: bytes | None = None,
) -> GpuCascade:
    """Return the cascade on a device, having found the faces of a picture as the CPU does.

    `plans` is "FOLDER" or "FOLDER:PRECISION" of TensorRT plans; where they do not fit the device
    the project's own kernels serve, and a warning says so. Raises `DeviceFailure`, and
    `EngineError` for engines that are damaged or not certified; the device is closed then.
    """
    with ExitStack() as undo:
        undo.callback(discard, device)
        networks = open_device_networks(
            device, folder, plans, allow_uncertified=allow_uncertified, key=key
        )
        undo.callback(discard, networks)
        cascade = GpuCascade(device, networks)
        undo.pop_all()
        undo.callback(discard, cascade)
        picture = check_picture()
        check_faces(cascade.detect(picture), _cpu_faces(picture, folder, key))
        undo.pop_all()
    return cascade


def open_device_networks(
    device: Device,
    folder: Path | None,
    plans: str | None,
    *,
    allow_uncertified: bool,
    key: bytes | None = None,
) -> DeviceNetworks:
    """Return the plans' networks where they fit the device, else those of the own kernels."""
    if plans is not None:
        try:
            return _open_plans(device, plans, allow_uncertified=allow_uncertified, key=key)
        except (EngineError, InvalidOption) as error:
            log.warning("THE PLANS DO NOT SERVE, the GPU's own kernels do: %s", error)
    weights = read_weights(read_shelf(folder, key), allow_uncertified=allow_uncertified)
    return KernelNetworks(device, weights)


def _open_plans(
    device: Device, plans: str, *, allow_uncertified: bool, key: bytes | None
) -> EngineNetworks:
    from unface.engines.plans import open_plans

    folder, _, precision = plans.rpartition(":")
    if not folder:
        folder, precision = plans, PLANS_PRECISION
    engines = open_plans(Path(folder), precision, allow_uncertified=allow_uncertified, key=key)
    return EngineNetworks(device, engines, TENSORRT, precision)


def read_weights(shelf: Shelf, *, allow_uncertified: bool) -> Mapping[str, Arrays]:
    """Return the arrays by network; raises `EngineError` unless they may serve."""
    if not allow_uncertified:
        check_certificate(shelf)
    engines = shelf.of(SOURCE, NATIVE)
    return {name: read_arrays(shelf.read(e), e.file, name) for name, e in engines.items()}


def check_certificate(shelf: Shelf) -> None:
    """Raise `EngineError` unless what the GPU computes from passed the gate, on CPU and GPU."""
    shelf.check_certificate(SOURCE, NATIVE)
    certificate = json.loads((files("unface.gpu") / "certificate.json").read_text())
    hashes = {name: e.sha256 for name, e in shelf.of(SOURCE, NATIVE).items()}
    if not certificate["passed"] or certificate["engines"] != hashes:
        raise EngineError(
            "the GPU's half precision has not passed the gate with these weights; take the engines "
            "that ship, or allow uncertified engines (--allow-uncertified), which may miss faces"
        )


def check_picture() -> UInt8Array:
    """Return two faces, the smaller one mirrored: RGB uint8 `[100, 150, 3]`, of what ships."""
    file = files("unface.calibration") / "pictures" / "astronaut.jpg"
    data = np.frombuffer(file.read_bytes(), np.uint8)
    portrait = cv2.imdecode(data, cv2.IMREAD_COLOR_RGB)
    if portrait is None:
        raise EngineError("the picture to check the GPU with cannot be read: reinstall unface")
    head = portrait[20:220, 130:310]
    picture = np.zeros((100, 150, 3), np.uint8)
    picture[:, :90] = head[::2, ::2]
    picture[:67, 90:] = head[::3, ::-3]
    return picture


def check_faces(found: Faces, expected: Faces) -> None:
    """Raise `DeviceFailure` unless the faces are those that the CPU found."""
    wrong = "the GPU gives other faces than the CPU"
    if len(found) != len(expected) or not len(expected):
        raise DeviceFailure(f"{wrong}: {len(found)} instead of {len(expected)}")
    for face in expected:
        overlaps = _overlaps(np.array(face.box), found.boxes)
        best = int(overlaps.argmax())
        side = max(face.box[2] - face.box[0], face.box[3] - face.box[1])
        shift = float(np.abs(found.landmarks[best] - face.landmarks).max()) / side
        # Not `or`: what is no number is wrong too.
        if not (overlaps[best] > LEAST_OVERLAP and shift < MOST_SHIFT):
            raise DeviceFailure(
                f"{wrong}: overlap {overlaps[best]:.3f}, landmarks off by {shift:.3f} of a face"
            )


def discard(thing: _Closable) -> None:
    """Close what may be broken; that it cannot be closed is logged and nothing more."""
    try:
        thing.close()
    except Exception as error:  # noqa: BLE001 - it is given up in any case
        log.warning("the GPU could not be closed in order: %s", str(error) or repr(error))


def _cpu_faces(picture: UInt8Array, folder: Path | None, key: bytes | None) -> Faces:
    """Return what the CPU finds, with engines of its own: another thread may use the others."""
    spec = SOURCE if folder is None else f"{folder}:{SOURCE}"
    with closing(Cascade(open_named(spec, threads=1, key=key))) as cascade:
        faces = cascade.detect(picture)
    if not len(faces):
        raise EngineError(f"the {SOURCE} engines find no face to check the GPU with")
    return faces


def _overlaps(
    box: npt.NDArray[np.float64], boxes: npt.NDArray[np.float32]
) -> npt.NDArray[np.float64]:
    """Return the intersection over union of a box `[4]` and boxes `[n, 4]` as `[n]`."""
    sides = np.minimum(box[2:], boxes[:, 2:]) - np.maximum(box[:2], boxes[:, :2])
    shared = np.clip(sides, 0, None).prod(axis=1)
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)
    return np.asarray(shared / (areas + (box[2:] - box[:2]).prod() - shared), np.float64)
