"""The calls of `unface.Client`, done in this process."""

from __future__ import annotations

import os
from functools import cache
from typing import TYPE_CHECKING, Any, cast, overload

from unface.anonymize import Limits, MaskOptions, Picture, apply_masks, decode, encode
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
from unface.mtcnn.faces import Faces
from unface.mtcnn.network import UInt8Array
from unface.mtcnn.options import detect_options, profile_masks

if TYPE_CHECKING:
    from typing_extensions import Unpack


class Local:
    """Finds faces, and removes them from pictures, in this process.

    A picture is an array, RGB uint8 `[H, W, 3]`; or the bytes of a JPEG, PNG or WebP file; or the
    path of such a file. May be shared between threads: detections take turns, the rest does not.

    All methods raise `InvalidImage` and `InvalidOption`; after an error no pixels are returned.
    """

    def __init__(self, detector: Detector | None = None, limits: Limits = Limits()) -> None:  # noqa: B008 - frozen
        self.detector = detector or Detector()
        self.limits = limits

    def detect(self, image: Image, **options: Unpack[DetectArguments]) -> Faces:
        """Find the faces of a picture."""
        wanted = detect_options(**options)
        pixels = self._decode(image).pixels if is_file(image) else cast(UInt8Array, image)
        return self.detector.detect(pixels, wanted)

    @overload
    def anonymize(self, image: UInt8Array, **options: Unpack[AnonymizeArguments]) -> UInt8Array: ...
    @overload
    def anonymize(self, image: File, **options: Unpack[AnonymizeArguments]) -> bytes: ...
    def anonymize(self, image: Image, **options: Unpack[AnonymizeArguments]) -> UInt8Array | bytes:
        """Return the picture with its faces covered: an array for an array, else file bytes."""
        return self.anonymize_with_faces(image, **options).image

    @overload
    def anonymize_with_faces(
        self, image: UInt8Array, **options: Unpack[AnonymizeArguments]
    ) -> Anonymized[UInt8Array]: ...
    @overload
    def anonymize_with_faces(
        self, image: File, **options: Unpack[AnonymizeArguments]
    ) -> Anonymized[bytes]: ...
    def anonymize_with_faces(
        self, image: Image, **options: Unpack[AnonymizeArguments]
    ) -> Anonymized[Any]:
        """Return the picture with its faces covered, and the faces."""
        detect, mask, output = split_arguments(options)
        wanted = detect_options(**detect)
        masks = MaskOptions(**{**profile_masks(detect.get("profile")), **mask})
        if not is_file(image):
            if output:
                names = " and ".join(output)
                raise InvalidOption(f"{names} is for files; an array was given and one comes back")
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

    def _decode(self, image: Image, *, keep_exif: bool = False) -> Picture:
        data = read_file(image, self.limits) if isinstance(image, (str, os.PathLike)) else image
        return decode(bytes(cast(bytes, data)), self.limits, keep_exif=keep_exif)


@cache
def default() -> Local:
    """Return the one that `unface.anonymize` uses, made at its first call."""
    return Local()
