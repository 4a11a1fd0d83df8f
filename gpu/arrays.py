"""Pictures that already lie on the GPU: arrays of CuPy, PyTorch, PyCUDA, Numba, taken without a copy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from unface.errors import InvalidImage

_CUDA = 2  # kDLCUDA, DLPack's dlpack.h
CHANNELS = 3


@dataclass(frozen=True)
class ResidentImage:
    """Where an RGB uint8 picture `[H, W, 3]` lies on the device, rows without gaps.

    `owner` keeps it there.
    """

    pointer: int
    width: int
    height: int
    owner: Any


def is_resident(image: object) -> bool:
    """Return whether an array says that it lies on a GPU.

    By `__cuda_array_interface__` (version 3) or DLPack (`__dlpack_device__`).
    """
    if hasattr(image, "__cuda_array_interface__"):
        return True
    device = getattr(image, "__dlpack_device__", None)
    return device is not None and int(device()[0]) == _CUDA


def view_resident(image: object, stream: int, ordinal: int) -> ResidentImage:
    """Return where an array lies, once `stream` waits for what still writes to it.

    Raises `InvalidImage` for what is not RGB uint8 `[H, W, 3]`, C-contiguous, on GPU `ordinal`.
    """
    from cuda.core.utils import StridedMemoryView

    try:
        view = StridedMemoryView.from_any_interface(image, stream_ptr=stream)
    except (BufferError, RuntimeError, TypeError, ValueError) as error:
        raise InvalidImage(f"the array on the GPU cannot be taken: {error}") from error
    shape, strides = tuple(view.shape), view.strides
    if view.dtype is None or str(view.dtype) != "uint8":
        raise InvalidImage(f"image is {view.dtype}; RGB uint8 0-255 of shape [H, W, 3] is needed")
    if len(shape) != 3 or shape[2] != CHANNELS or 0 in shape:
        raise InvalidImage(f"image has shape {[*shape]}; [H, W, 3] (RGB) is needed")
    height, width, _ = shape
    if strides is not None and tuple(strides) != (width * CHANNELS, CHANNELS, 1):
        raise InvalidImage("image is not contiguous; rows of RGB without gaps are needed")
    if not view.is_device_accessible or view.device_id != ordinal:
        raise InvalidImage(f"image lies on device {view.device_id}; GPU {ordinal} works here")
    return ResidentImage(int(view.ptr), width, height, image)
