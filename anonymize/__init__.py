"""What happens to the pixels of a face, and how pictures come in and go out.

Names load when first used: `import unface.anonymize` brings in neither OpenCV nor Pillow.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from unface.anonymize.codec import FORMATS, Picture, decode, encode, raw_rgb
    from unface.anonymize.limits import Limits
    from unface.anonymize.masks import METHODS, SHAPES, MaskOptions, apply_masks
    from unface.anonymize.plans import plan_masks
    from unface.anonymize.regions import Regions
    from unface.anonymize.verification import Verify

__all__ = [
    "FORMATS",
    "METHODS",
    "SHAPES",
    "Limits",
    "MaskOptions",
    "Picture",
    "Regions",
    "Verify",
    "apply_masks",
    "decode",
    "encode",
    "plan_masks",
    "raw_rgb",
]

_HOME = {
    "FORMATS": "codec",
    "Limits": "limits",
    "METHODS": "masks",
    "MaskOptions": "masks",
    "Picture": "codec",
    "Regions": "regions",
    "SHAPES": "masks",
    "Verify": "verification",
    "apply_masks": "masks",
    "decode": "codec",
    "encode": "codec",
    "plan_masks": "plans",
    "raw_rgb": "codec",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
