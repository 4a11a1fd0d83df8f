"""The calls of `unface.Client`, done in this process."""

from __future__ import annotations

import os
from functools import cache
from typing import TYPE_CHECKING, Any, cast, overload

from unface.anonymize import (
    Limits,
    MaskOptions,
    Picture,
    apply_masks,
    decode,
    encode,
    plan_masks,
)
from unface.anonymize.plans import METHOD_CODES
from unface.arguments import (
    AnonymizeArguments,
    Anonymized,
    DetectArguments,
    File,
    Image,
    is_file,
    read_file,
    split_arguments,
)
from unface.detector import Detector
from unface.errors import InvalidOption
from unface.gpu.arrays import CudaArray, DeviceImage, Pixels, is_resident
from unface.mtcnn.faces import Faces
from unface.mtcnn.network import UInt8Array
from unface.mtcnn.options import DetectOptions, detect_options, profile_masks

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from typing_extensions import Unpack


class Local:
    """Finds faces, and removes them from pictures, in this process.

    A picture is an array, RGB uint8 `[H, W, 3]`; or the bytes of a JPEG, PNG or WebP file; or the
    path of such a file. May be shared between threads: detections take turns, the rest does not.

    An array may lie on a GPU (CuPy, PyTorch, Numba): it is not copied, nor written, and what
    `anonymize` returns lies there too. `EngineError` when no GPU serves.

    All methods raise `InvalidImage` and `InvalidOption`; after an error no pixels are returned.
    """

    def __init__(self, detector: Detector | None = None, limits: Limits = Limits()) -> None:  # noqa: B008 - frozen
        self.detector = detector or Detector()
        self.limits = limits

    def detect(self, image: Image | CudaArray, **options: Unpack[DetectArguments]) -> Faces:
        """Find the faces of a picture."""
        wanted = detect_options(**options)
        pixels = self._decode(image).pixels if is_file(image) else cast(Pixels, image)
        return self.detector.detect(pixels, wanted)

    @overload
    def anonymize(self, image: UInt8Array, **options: Unpack[AnonymizeArguments]) -> UInt8Array: ...
    @overload
    def anonymize(self, image: CudaArray, **options: Unpack[AnonymizeArguments]) -> DeviceImage: ...
    @overload
    def anonymize(self, image: File, **options: Unpack[AnonymizeArguments]) -> bytes: ...
    def anonymize(
        self, image: Image | CudaArray, **options: Unpack[AnonymizeArguments]
    ) -> UInt8Array | DeviceImage | bytes:
        """Return the picture with its faces covered: an array for an array, else file bytes."""
        return self.anonymize_with_faces(image, **options).image

    @overload
    def anonymize_with_faces(
        self, image: UInt8Array, **options: Unpack[AnonymizeArguments]
    ) -> Anonymized[UInt8Array]: ...
    @overload
    def anonymize_with_faces(
        self, image: CudaArray, **options: Unpack[AnonymizeArguments]
    ) -> Anonymized[DeviceImage]: ...
    @overload
    def anonymize_with_faces(
        self, image: File, **options: Unpack[AnonymizeArguments]
    ) -> Anonymized[bytes]: ...
    def anonymize_with_faces(
        self, image: Image | CudaArray, **options: Unpack[AnonymizeArguments]
    ) -> Anonymized[Any]:
        """Return the picture with its faces covered, and the faces."""
        detect, mask, output = split_arguments(options)
        wanted = detect_options(**detect)
        masks = MaskOptions(**{**profile_masks(detect.get("profile")), **mask})
        if not is_file(image):
            if output:
                names = " and ".join(output)
                raise InvalidOption(f"{names} is for files; an array was given and one comes back")
            if is_resident(image):
                return self._cover(image, wanted, masks)
            faces = self.detector.detect(cast(UInt8Array, image), wanted)
            covered = apply_masks(cast(UInt8Array, image), faces.boxes, masks, scores=faces.scores)
            return Anonymized(covered, faces)
        picture = self._decode(image, keep_exif=output.get("keep_exif", False))
        faces = self.detector.detect(picture.pixels, wanted)
        covered = apply_masks(
            picture.pixels, faces.boxes, masks, scores=faces.scores, in_place=True
        )
        data = encode(
            covered,
            output.get("format", picture.format),
            quality=output.get("quality", 95),
            icc_profile=picture.icc_profile,
            exif=picture.exif,
        )
        return Anonymized(data, faces)

    def close(self) -> None:
        """Free the engines."""
        self.detector.close()

    def _cover(
        self, image: CudaArray, wanted: DetectOptions, masks: MaskOptions
    ) -> Anonymized[DeviceImage]:
        """Return a copy on the GPU of an array there with its faces covered, and the faces."""
        if masks.method not in METHOD_CODES:
            raise InvalidOption(
                f"method is {masks.method!r}; an array on a GPU takes {', '.join(METHOD_CODES)}"
            )

        def plan(faces: Faces) -> NDArray[np.void]:
            return plan_masks(faces.width, faces.height, faces.boxes, masks)

        return Anonymized(*self.detector.cover(image, plan, wanted))

    def _decode(self, image: Image, *, keep_exif: bool = False) -> Picture:
        data = read_file(image, self.limits) if isinstance(image, (str, os.PathLike)) else image
        return decode(bytes(cast(bytes, data)), self.limits, keep_exif=keep_exif)


@cache
def default() -> Local:
    """Return the one that `unface.anonymize` uses, made at its first call."""
    return Local()
