"""Whether a covered picture may still show a face, and what is done about it then."""

from __future__ import annotations

from dataclasses import dataclass, replace

from unface.anonymize.masks import MaskOptions
from unface.errors import InvalidOption

MAX_ROUNDS = 4
MORE_MARGIN = 0.2  # each time, of the box that was found
COARSE_CELLS = 3  # of a mosaic, the first time


@dataclass(frozen=True)
class Verify:
    """How often faces that are left are covered more strongly; 0 only looks for them.

    Raises `InvalidOption` for what is not a whole number from 0 to 4.
    """

    rounds: int = 2

    def __post_init__(self) -> None:
        whole = isinstance(self.rounds, int) and not isinstance(self.rounds, bool)
        if not whole or not 0 <= self.rounds <= MAX_ROUNDS:
            raise InvalidOption(
                f"verify is {self.rounds!r} rounds; it must be a whole number from 0 to "
                f"{MAX_ROUNDS}"
            )


def check_verifiable(masks: MaskOptions) -> None:
    """Raise `InvalidOption` for a method after which all faces are left."""
    if masks.method == "box":
        raise InvalidOption(
            "method box covers nothing, so that verify would find every face; choose mosaic, "
            "solid or blur, or leave verify out"
        )


def stronger(masks: MaskOptions, round: int) -> MaskOptions:
    """Return what covers a face that was found after `round - 1` rounds; the first is 1.

    First a coarser mosaic over more, then a rectangle of one colour over more and more.
    """
    margin = min(masks.margin + MORE_MARGIN * round, 2.0)
    if round == 1 and masks.method != "solid":
        cells = min(masks.cells, COARSE_CELLS)
        return replace(masks, method="mosaic", margin=margin, cells=cells)
    return replace(masks, method="solid", shape="rectangle", margin=margin)
