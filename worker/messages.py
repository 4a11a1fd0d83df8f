"""Between protobuf messages and plain values: pure conversions, for the server and the client."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from unface.anonymize import Limits, MaskOptions, Picture, Regions, Verify, decode, raw_rgb
from unface.errors import InvalidImage, InvalidOption
from unface.mtcnn.faces import LANDMARK_NAMES, Face, Faces
from unface.mtcnn.network import UInt8Array
from unface.mtcnn.options import DetectOptions, profile_masks, profile_options
from unface.v1 import unface_pb2 as pb

DEFAULT_PROFILE = "accurate"
RAW = "raw"  # beside the formats of unface.anonymize

METHODS = {
    pb.MASK_METHOD_MOSAIC: "mosaic",
    pb.MASK_METHOD_SOLID: "solid",
    pb.MASK_METHOD_BLUR: "blur",
    pb.MASK_METHOD_BOX: "box",
}
SHAPES = {pb.MASK_SHAPE_ELLIPSE: "ellipse", pb.MASK_SHAPE_RECTANGLE: "rectangle"}
OUTPUT_FORMATS = {
    pb.OUTPUT_FORMAT_JPEG: "jpeg",
    pb.OUTPUT_FORMAT_PNG: "png",
    pb.OUTPUT_FORMAT_WEBP: "webp",
    pb.OUTPUT_FORMAT_RAW: RAW,
}


@dataclass(frozen=True)
class OutputOptions:
    """The form in which a picture is returned."""

    format: str | None = None  # a picture format or RAW; None: as the input, PNG for raw
    quality: int = 95
    keep_exif: bool = False


# Messages to values, on the server ------------------------------------------------------------


def picture_from_message(image: pb.Image, limits: Limits, *, keep_exif: bool = False) -> Picture:
    """Return the decoded picture; a raw one has the format `RAW` and read-only pixels.

    Raises `InvalidImage` and `ImageTooLarge`.
    """
    source = image.WhichOneof("source")
    if source == "encoded":
        return decode(image.encoded, limits, keep_exif=keep_exif)
    if source == "raw":
        return Picture(raw_rgb(image.raw.width, image.raw.height, image.raw.rgb, limits), RAW)
    raise InvalidImage("image is missing; set encoded (a JPEG, PNG or WebP file) or raw")


def detect_options_from_message(message: pb.DetectOptions) -> DetectOptions:
    """Return the options; absent fields are the profile's. Raises `InvalidOption`."""
    profile = message.profile if message.HasField("profile") else DEFAULT_PROFILE
    options = profile_options(profile)
    pnet, rnet, onet = options.thresholds
    return replace(
        options,
        min_face=_present(message, "min_face", options.min_face),
        scale_factor=_present(message, "scale_factor", options.scale_factor),
        thresholds=(
            _present(message, "pnet_threshold", pnet),
            _present(message, "rnet_threshold", rnet),
            _present(message, "onet_threshold", onet),
        ),
    )


def mask_options_from_message(
    message: pb.AnonymizeOptions, profile: str | None = None
) -> MaskOptions:
    """Return how faces are covered; absent fields are the profile's. Raises `InvalidOption`."""
    defaults = MaskOptions(**profile_masks(profile))
    color = message.color
    given = (color.red, color.green, color.blue) if message.HasField("color") else defaults.color
    return MaskOptions(
        method=_name(METHODS, message.method, "method") or defaults.method,
        shape=_name(SHAPES, message.shape, "shape") or defaults.shape,
        margin=_present(message, "margin", defaults.margin),
        cells=_present(message, "cells", defaults.cells),
        kernel=_present(message, "kernel", defaults.kernel),
        color=given,
    )


def output_options_from_message(message: pb.AnonymizeOptions) -> OutputOptions:
    """Return the form of the answer; absent fields are the defaults. Raises `InvalidOption`."""
    quality = _present(message, "quality", OutputOptions.quality)
    if not 1 <= quality <= 100:
        raise InvalidOption(f"quality is {quality}; it must be a whole number from 1 to 100")
    return OutputOptions(
        _name(OUTPUT_FORMATS, message.format, "format"), quality, message.keep_exif
    )


def regions_from_message(message: pb.AnonymizeOptions) -> Regions:
    """Return the places that the caller decides about. Raises `InvalidOption`."""
    regions = message.regions
    return Regions(
        [_corners(box) for box in regions.keep],
        [_corners(box) for box in regions.cover],
        regions.cover_only,
    )


def verify_from_message(message: pb.AnonymizeOptions) -> Verify | None:
    """Return how the result is searched again, None if it is not. Raises `InvalidOption`."""
    if not message.HasField("verify"):
        return None
    return Verify(_present(message.verify, "rounds", Verify.rounds))


# Values to messages, on the server ------------------------------------------------------------


def faces_to_message(faces: Iterable[Face]) -> list[pb.Face]:
    """Return faces as messages, in their order."""
    return [
        pb.Face(
            box=pb.Box(x1=face.box[0], y1=face.box[1], x2=face.box[2], y2=face.box[3]),
            score=face.score,
            landmarks=pb.Landmarks(
                **{
                    name: pb.Point(x=x, y=y)
                    for name, (x, y) in zip(LANDMARK_NAMES, face.landmarks.tolist(), strict=True)
                }
            ),
        )
        for face in faces
    ]


def detect_options_to_message(options: DetectOptions) -> pb.DetectOptions:
    """Return options with every field set but the profile."""
    pnet, rnet, onet = options.thresholds
    return pb.DetectOptions(
        min_face=options.min_face,
        scale_factor=options.scale_factor,
        pnet_threshold=pnet,
        rnet_threshold=rnet,
        onet_threshold=onet,
    )


def raw_image_message(pixels: UInt8Array) -> pb.Image:
    """Return uint8 `[H, W, 3]` RGB pixels as a raw image."""
    image = pb.Image()
    put_pixels(image, pixels)
    return image


def put_pixels(image: pb.Image, pixels: UInt8Array) -> None:
    """Make an image a raw one of uint8 `[H, W, 3]` RGB pixels.

    In place: protobuf copies a message that is given to another's constructor, and holds the
    interpreter's lock meanwhile.
    """
    image.raw.height, image.raw.width = pixels.shape[:2]
    image.raw.rgb = pixels.tobytes()


# For the client -------------------------------------------------------------------------------


def faces_from_message(
    message: pb.DetectResponse | pb.AnonymizeResponse, listed: Sequence[pb.Face] | None = None
) -> Faces:
    """Return the faces of an answer, or those `listed`; `timings_ms` has the server's steps."""
    listed = message.faces if listed is None else listed
    landmarks = [
        [[point.x, point.y] for point in (getattr(f.landmarks, n) for n in LANDMARK_NAMES)]
        for f in listed
    ]
    return Faces(
        boxes=np.array([_corners(f.box) for f in listed], np.float32).reshape(-1, 4),
        scores=np.array([f.score for f in listed], np.float32),
        landmarks=np.array(landmarks, np.float32).reshape(-1, 5, 2),
        width=message.width,
        height=message.height,
        backend=message.backend,
        precision=message.precision,
        timings_ms={
            field.name.removesuffix("_ms"): getattr(message.timings, field.name)
            for field in message.timings.DESCRIPTOR.fields
        },
    )


def pixels_from_message(image: pb.Image) -> UInt8Array:
    """Return the pixels of a raw image, uint8 `[H, W, 3]`, writable."""
    shape = (image.raw.height, image.raw.width, 3)
    return np.array(np.frombuffer(image.raw.rgb, np.uint8).reshape(shape))


def number_of(names: dict[Any, str], name: str, field: str) -> Any:
    """Return the enum value that has a name, such as "mosaic" in `METHODS`.

    Raises `InvalidOption` for another name.
    """
    for number, known in names.items():
        if known == name:
            return number
    raise InvalidOption(f"{field} is {name!r}; there are {', '.join(names.values())}")


def _corners(box: pb.Box) -> tuple[float, float, float, float]:
    return box.x1, box.y1, box.x2, box.y2


def _present(message: Any, field: str, default: Any) -> Any:
    return getattr(message, field) if message.HasField(field) else default


def _name(names: dict[Any, str], number: int, field: str) -> str | None:
    """Return the name of an enum value, None when unset; raises `InvalidOption` if unknown."""
    if number == 0:
        return None
    if number not in names:
        raise InvalidOption(
            f"{field} is number {number}; there are "
            + ", ".join(f"{known} ({name})" for known, name in names.items())
        )
    return names[number]
