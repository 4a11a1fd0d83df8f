"""What a caller may choose about a detection."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

from unface.errors import InvalidOption


@dataclass(frozen=True)
class DetectOptions:
    """Options of one detection; the defaults are those of Zhang et al. 2016 and of every peer.

    `min_face` is the side, in pixels of the upright image, of the smallest face searched for: the
    first pyramid level shrinks it to P-Net's 12 pixels. It bounds the search, not the answer: a
    box may come out a little smaller after regression. `precision` names the engines ("fp32",
    "int8"); None leaves it to the detector.

    Raises `InvalidOption` naming the field, its value and what it accepts.
    """

    min_face: float = 20.0
    scale_factor: float = 0.709  # ratio of one pyramid level to the one before: area halves
    thresholds: tuple[float, float, float] = (0.6, 0.7, 0.7)  # P-Net (>=), R-Net (>), O-Net (>)
    precision: str | None = None

    def __post_init__(self) -> None:
        if not (math.isfinite(self.min_face) and self.min_face >= 12):
            raise InvalidOption(
                f"min_face is {self.min_face}; it must be 12 pixels or more, P-Net's own size"
            )
        if not 0.3 <= self.scale_factor <= 0.95:
            raise InvalidOption(f"scale_factor is {self.scale_factor}; it must be 0.3 to 0.95")
        if len(self.thresholds) != 3 or not all(0 < t < 1 for t in self.thresholds):
            raise InvalidOption(
                f"thresholds are {self.thresholds}; three numbers between 0 and 1 are needed, "
                "for P-Net, R-Net and O-Net"
            )


PROFILES = {
    "accurate": DetectOptions(),
    "fast": DetectOptions(precision="int8"),
    "privacy": DetectOptions(thresholds=(0.5, 0.6, 0.5)),  # fewer missed faces, more false ones
}
# Of a box's width and height, added on every side when its face is covered; other profiles leave
# it to the masks. More than the usual, so that nothing slips through beside a box.
MARGINS = {"privacy": 0.25}


def profile_options(profile: str) -> DetectOptions:
    """Return the options a profile stands for; raises `InvalidOption` for an unknown name."""
    if profile not in PROFILES:
        raise InvalidOption(f"profile is {profile!r}; there are {', '.join(sorted(PROFILES))}")
    return PROFILES[profile]


def profile_masks(profile: str | None) -> dict[str, Any]:
    """Return what a profile changes about the masks: `margin`, or nothing."""
    return {"margin": MARGINS[profile]} if profile in MARGINS else {}


def detect_options(
    profile: str | None = None,
    min_face: float | None = None,
    scale_factor: float | None = None,
    thresholds: tuple[float, float, float] | None = None,
    precision: str | None = None,
) -> DetectOptions:
    """Return a profile's options ("accurate" if None) with those that are not None replaced."""
    options = profile_options(profile or "accurate")
    changes = {
        "min_face": min_face,
        "scale_factor": scale_factor,
        "thresholds": thresholds,
        "precision": precision,
    }
    return replace(options, **{k: v for k, v in changes.items() if v is not None})  # type: ignore[arg-type]
