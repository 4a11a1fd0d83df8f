"""Pictures on the GPU: arrays of CuPy, PyTorch, PyCUDA, Numba, taken and given without a copy."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Protocol, TypeGuard

from unface.errors import InvalidImage
from unface.gpu.device import DeviceFailure, Memory
from unface.gpu.plan import CHANNELS
from unface.mtcnn.network import UInt8Array

_CUDA = 2  # kDLCUDA, DLPack's dlpack.h


class CudaArray(Protocol):
    """An array on a GPU; one that has DLPack alone is taken too."""

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        """Pointer, shape, strides and type, version 2 or 3."""
        ...


Pixels = UInt8Array | CudaArray  # RGB uint8 [H, W, 3], in main memory or on the GPU


@dataclass(frozen=True)
class ResidentImage:
    """Where an RGB uint8 picture `[H, W, 3]` lies on the device, rows without gaps.

    `owner` keeps it there.
    """

    pointer: int
    width: int
    height: int
    owner: Any

    @property
    def shape(self) -> tuple[int, int, int]:
        """Height, width, channels."""
        return self.height, self.width, CHANNELS


class DeviceImage:
    """An RGB uint8 picture `[H, W, 3]` in memory of its own on the GPU, freed when it goes.

    `cupy.asarray(image)` and `torch.as_tensor(image, device="cuda")` take it without a copy, and
    keep it.
    """

    def __init__(self, memory: Memory, width: int, height: int) -> None:
        self.shape = (height, width, CHANNELS)
        self._memory = memory
        weakref.finalize(self, _free, memory).atexit = False  # the process takes it along

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        """Version 3; nothing needs to be waited for."""
        return {
            "shape": self.shape,
            "strides": None,
            "typestr": "|u1",
            "data": (self._memory.pointer, False),
            "version": 3,
            "stream": None,
        }


def _free(memory: Memory) -> None:
    with suppress(DeviceFailure):  # of a GPU that is lost; its memory is too
        memory.close()


def is_resident(image: object) -> TypeGuard[CudaArray]:
    """Return whether an array says that it lies on a GPU.

    By `__cuda_array_interface__` (version 2 or 3) or DLPack (`__dlpack_device__`).
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
    if not view.is_device_accessible or view.device_id != ordinal:
        raise InvalidImage(f"image lies on device {view.device_id}; GPU {ordinal} works here")
    return resident_image(int(view.ptr), str(view.dtype), view.shape, view.strides, view)


def resident_image(
    pointer: int, dtype: str, shape: Sequence[int], strides: Sequence[int] | None, owner: Any
) -> ResidentImage:
    """Return an array on the device as a picture; raises `InvalidImage` where it is none.

    `strides` are in bytes; none: there are no gaps.
    """
    if dtype != "uint8":
        raise InvalidImage(f"image is {dtype}; RGB uint8 0-255 of shape [H, W, 3] is needed")
    if len(shape) != 3 or shape[2] != CHANNELS or 0 in shape:
        raise InvalidImage(f"image has shape {[*shape]}; [H, W, 3] (RGB) is needed")
    height, width, _ = shape
    if strides is not None and tuple(strides) != (width * CHANNELS, CHANNELS, 1):
        raise InvalidImage("image is not contiguous; rows of RGB without gaps are needed")
    return ResidentImage(pointer, width, height, owner)
