"""How much of a picture is accepted, checked before any pixel is decoded."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from unface.errors import ImageTooLarge, InvalidImage, InvalidOption

if TYPE_CHECKING:  # who looks at files alone does not need numpy
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Limits:
    """The largest picture accepted: bytes as sent, and pixels (width x height) once decoded.

    Raises `InvalidOption` for a limit that is not a positive whole number.
    """

    max_bytes: int = 64 * 1024 * 1024  # several times a 50-megapixel phone JPEG
    max_pixels: int = 100_000_000  # 300 MB as RGB

    def __post_init__(self) -> None:
        for name in ("max_bytes", "max_pixels"):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value <= 0:
                raise InvalidOption(f"{name} is {value!r}; it must be a positive whole number")


def check_bytes(size: int, limits: Limits) -> None:
    """Raise `InvalidImage` for no bytes at all and `ImageTooLarge` for more than the limit."""
    if size == 0:
        raise InvalidImage("image is empty (0 bytes); send a whole image file")
    if size > limits.max_bytes:
        raise ImageTooLarge(
            f"image has {size} bytes; the limit is {limits.max_bytes} bytes, "
            "set max_bytes to raise it"
        )


def check_size(width: int, height: int, limits: Limits) -> None:
    """Raise `InvalidImage` for a side that is not positive, `ImageTooLarge` for too many pixels."""
    if width <= 0 or height <= 0:
        raise InvalidImage(f"image is {width} x {height} pixels; both sides must be 1 or more")
    if width * height > limits.max_pixels:
        raise ImageTooLarge(
            f"image is {width} x {height} ({_megapixels(width * height)}); the limit is "
            f"{_megapixels(limits.max_pixels)}, set max_pixels to raise it"
        )


def check_rgb_image(image: NDArray[Any]) -> None:
    """Raise `InvalidImage` unless the array is uint8 `[H, W, 3]` with at least one pixel."""
    import numpy as np

    if not isinstance(image, np.ndarray) or image.dtype != np.uint8:
        kind = getattr(image, "dtype", type(image).__name__)
        raise InvalidImage(f"image is {kind}; it must be a uint8 array with values 0-255")
    if image.ndim != 3 or image.shape[2] != 3 or image.size == 0:
        raise InvalidImage(f"image has shape {image.shape}; it must be height x width x 3 (RGB)")


def _megapixels(pixels: int) -> str:
    return f"{pixels / 1e6:.3g} MP" if pixels < 1e9 else f"{pixels / 1e6:.0f} MP"
