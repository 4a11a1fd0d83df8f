"""unface: find faces and remove them from pictures, on your own machine.

    import unface
    detector = unface.Detector()
    faces = detector.detect(image)           # RGB uint8 [H, W, 3]
    clean = unface.anonymize(image)          # the same picture without faces
    client = unface.Client("localhost:50051")  # the same two calls against a server, or AsyncClient

`unface.Local` has the calls of `Client`, done in this process. Everything loads when first used, so
that `import unface` is quick.
"""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

import unface.anonymize as _room  # noqa: F401 - made callable below

if TYPE_CHECKING:
    from typing import overload

    from typing_extensions import Unpack

    from unface.aio import AsyncClient
    from unface.arguments import AnonymizeArguments, File
    from unface.client import Client
    from unface.detector import Detector
    from unface.gpu.arrays import CudaArray, DeviceImage
    from unface.local import Local
    from unface.mtcnn.faces import Face, Faces
    from unface.mtcnn.network import UInt8Array
    from unface.mtcnn.options import DetectOptions

    @overload
    def anonymize(image: UInt8Array, **options: Unpack[AnonymizeArguments]) -> UInt8Array: ...
    @overload
    def anonymize(image: CudaArray, **options: Unpack[AnonymizeArguments]) -> DeviceImage: ...
    @overload
    def anonymize(image: File, **options: Unpack[AnonymizeArguments]) -> bytes: ...
    def anonymize(image: Any, **options: Any) -> Any:
        """See `_CallableRoom.__call__`."""


_HOMES = {
    "AsyncClient": "unface.aio",
    "Client": "unface.client",
    "Detector": "unface.detector",
    "DetectOptions": "unface.mtcnn.options",
    "Face": "unface.mtcnn.faces",
    "Faces": "unface.mtcnn.faces",
    "Local": "unface.local",
}

__all__ = [
    "AsyncClient",
    "Client",
    "DetectOptions",
    "Detector",
    "Face",
    "Faces",
    "Local",
    "anonymize",
]


class _CallableRoom(ModuleType):
    """The package `unface.anonymize`, which is also the function of that name."""

    def __call__(self, image: Any, **options: Any) -> Any:
        """Return the picture with its faces covered.

        An array, RGB uint8 `[H, W, 3]`, gives an array; one on a GPU (CuPy, PyTorch, Numba) gives
        one there, which `cupy.asarray` or `torch.as_tensor(..., device="cuda")` take without a
        copy; the bytes or the path of a JPEG, PNG or WebP file give the bytes of a file of the same
        format, upright and without metadata. For the options see
        `unface.arguments.AnonymizeArguments`; the default, a mosaic of a few cells, cannot be
        undone.

        Raises `InvalidImage` and `InvalidOption`; after an error no pixels are returned.
        """
        from unface.local import default

        return default().anonymize(image, **options)


sys.modules["unface.anonymize"].__class__ = _CallableRoom


def __getattr__(name: str) -> object:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    if name == "__version__":
        from importlib.metadata import version

        return version("unface")
    raise AttributeError(f"module 'unface' has no attribute {name!r}")
