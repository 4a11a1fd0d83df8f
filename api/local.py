"""The calls of `unface.Client`, done in this process."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING, Any, cast, overload

from unface.anonymize import (
    Limits,
    MaskOptions,
    Regions,
    Verify,
    apply_masks,
    decode,
    encode,
    plan_masks,
)
from unface.anonymize.limits import check_rgb_image
from unface.anonymize.plans import METHOD_CODES
from unface.anonymize.regions import left_clear
from unface.arguments import (
    AnonymizeArguments,
    Anonymized,
    AnyImage,
    DetectArguments,
    File,
    Image,
    Said,
    check_for_array,
    is_file,
    read_file,
    split_arguments,
)
from unface.audit import SigningKey
from unface.detector import Detector
from unface.errors import InvalidOption
from unface.gpu.arrays import CudaArray, DeviceImage, Pixels, is_resident
from unface.mtcnn.faces import Faces
from unface.mtcnn.network import UInt8Array
from unface.mtcnn.options import detect_options, profile_masks
from unface.worker.covering import Covered, Verifier, cover_faces, no_faces
from unface.worker.messages import DEFAULT_PROFILE, OutputOptions
from unface.worker.pipeline import Options
from unface.worker.records import Served, audit_record

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from typing_extensions import Unpack

_OWN = Limits(1 << 40, 1 << 40)  # of a file that was written here


class Local:
    """Finds faces, and removes them from pictures, in this process.

    A picture is an array, RGB uint8 `[H, W, 3]`; or the bytes of a JPEG, PNG or WebP file; or the
    path of such a file. May be shared between threads: detections take turns, the rest does not.

    An array may lie on a GPU (CuPy, PyTorch, Numba): it is not copied, nor written, and what
    `anonymize` returns lies there too. `EngineError` when no GPU serves.

    All methods raise `InvalidImage` and `InvalidOption`; after an error no pixels are returned.
    """

    def __init__(
        self,
        detector: Detector | None = None,
        limits: Limits = Limits(),  # noqa: B008 - frozen
        audit_key: SigningKey | None = None,
    ) -> None:
        self.detector = detector or Detector()
        self.limits = limits
        self._audit_key = audit_key

    def detect(self, image: Image | CudaArray, **options: Unpack[DetectArguments]) -> Faces:
        """Find the faces of a picture."""
        wanted = detect_options(**options)
        if not is_file(image):
            return self.detector.detect(cast(Pixels, image), wanted)
        return self.detector.detect(decode(self._read(image), self.limits).pixels, wanted)

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
        said = split_arguments(options)
        wanted = _options(said)
        if not is_file(image):
            check_for_array(said)
            if is_resident(image):
                return self._cover(image, wanted)
            pixels = cast(UInt8Array, image)
            covered = self._covered(pixels, wanted, in_place=False)
            return self._verified(covered, wanted, lambda pixels: pixels, lambda pixels: pixels)[0]
        data = self._read(image)
        picture = decode(data, self.limits, keep_exif=wanted.output.keep_exif)
        covered = self._covered(picture.pixels, wanted, in_place=True)
        format = wanted.output.format or picture.format

        def to_file(pixels: UInt8Array) -> bytes:
            return encode(
                pixels,
                format,
                quality=wanted.output.quality,
                icc_profile=picture.icc_profile,
                exif=picture.exif,
            )

        def look(data: bytes) -> UInt8Array:
            return decode(data, _OWN).pixels

        result, searched = self._verified(covered, wanted, to_file, look)
        if wanted.audit:
            record = self._audit_record(data, result, searched, format, wanted)
            result = replace(result, audit_record=record)
        return result

    def close(self) -> None:
        """Free the engines."""
        self.detector.close()

    def _covered(self, pixels: UInt8Array, wanted: Options, *, in_place: bool) -> Covered:
        check_rgb_image(pixels)
        if wanted.regions.cover_only:
            height, width = pixels.shape[:2]
            faces = no_faces(width, height, self.detector.backend, self.detector.precision)
        else:
            faces = self.detector.detect(pixels, wanted.detect)
        return cover_faces(pixels, faces, wanted.masks, wanted.regions, in_place=in_place)

    def _verified(
        self,
        covered: Covered,
        wanted: Options,
        finish: Callable[[UInt8Array], AnyImage],
        look: Callable[[AnyImage], UInt8Array],
    ) -> tuple[Anonymized[AnyImage], Served | None]:
        """Return the result, searched again if that is wanted, and what searched it.

        `look` returns the pixels of what `finish` made, as whoever gets it sees them.
        """
        pixels, faces, kept = covered
        image = finish(pixels)
        if wanted.verify is None:
            return Anonymized(image, faces, kept), None
        verifier = Verifier(wanted.verify, wanted.detect, wanted.masks, wanted.regions, kept)
        while masks := verifier.judge(self.detector.detect(look(image), verifier.options)):
            pixels = apply_masks(pixels, verifier.residual_boxes, masks, in_place=True)
            image = finish(pixels)
        result = Anonymized(image, faces, verifier.kept, verifier.verification)
        return result, verifier.searched

    def _audit_record(
        self,
        data: bytes,
        result: Anonymized[bytes],
        searched: Served | None,
        format: str,
        wanted: Options,
    ) -> str:
        return audit_record(
            data,
            result.image,
            format,
            profile=wanted.profile,
            options=wanted.detect,
            masks=wanted.masks,
            regions=wanted.regions,
            faces=result.faces,
            kept=result.kept,
            verification=result.verification,
            searched=searched,
            provenance=self.detector.provenance,
            key=self._audit_key,
        )

    def _cover(self, image: CudaArray, wanted: Options) -> Anonymized[DeviceImage]:
        """Return a copy on the GPU of an array there with its faces covered, and the faces."""
        masks, regions = wanted.masks, wanted.regions
        if masks.method not in METHOD_CODES:
            raise InvalidOption(
                f"method is {masks.method!r}; an array on a GPU takes {', '.join(METHOD_CODES)}"
            )
        if wanted.verify or regions.cover_only:
            name = "verify" if wanted.verify else "cover_only"
            raise InvalidOption(f"{name} is for pictures in main memory; this one lies on a GPU")

        def plan(faces: Faces) -> NDArray[np.void]:
            regions.check(faces.width, faces.height, masks)
            boxes = faces.boxes[~left_clear(faces.boxes, regions.keep)].tolist()
            return plan_masks(faces.width, faces.height, [*boxes, *regions.cover], masks)

        covered, faces = self.detector.cover(image, plan, wanted.detect)
        clear = left_clear(faces.boxes, regions.keep)
        return Anonymized(covered, faces.select(~clear), faces.select(clear))

    def _read(self, image: Image) -> bytes:
        data = read_file(image, self.limits) if isinstance(image, (str, os.PathLike)) else image
        return bytes(cast(bytes, data))


def _options(said: Said) -> Options:
    """Return what was said as options; raises `InvalidOption` for any of them."""
    output = OutputOptions(**said.output)
    masks = MaskOptions(**{**profile_masks(said.detect.get("profile")), **said.mask})
    verify = None if said.rounds is None else Verify(said.rounds)
    regions = Regions(**said.regions)
    return Options(
        detect_options(**said.detect),
        said.detect.get("profile", DEFAULT_PROFILE),
        masks,
        output,
        regions,
        verify,
        said.audit,
    )


@cache
def default() -> Local:
    """Return the one that `unface.anonymize` uses, made at its first call."""
    return Local()
