"""A trial of another profile: which requests it gets, and what is counted of both arms.

Arm "a" is what is served without the trial, arm "b" the profile on trial. In the shadow "b" runs
beside "a" on the same pictures and answers nobody. Needs nothing but the standard library, as the
store and the counting do: the process that serves has no use for arrays.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

Arm = Literal["a", "b"]
_PURPOSE = b"unface trial"  # keeps the choice apart from other uses of the same hash


@dataclass(frozen=True)
class Trial:
    """A trial of `profile` on the part `share` (0 to 1) of the requests, or in their shadow."""

    profile: str
    share: float
    shadow: bool = False

    def arm_of(self, request_id: str) -> Arm:
        """Return "b" for the requests that the profile on trial gets, else "a"."""
        return arm_of(request_id, self.share)


def arm_of(request_id: str, share: float) -> Arm:
    """Return "b" for the part `share` of all request ids, always the same ones, else "a".

    More share only adds to the ids of "b". A client that makes its own ids can choose its arm.
    """
    digest = hashlib.blake2b(request_id.encode(), digest_size=8, person=_PURPOSE).digest()
    return "b" if int.from_bytes(digest, "big") < share * 2**64 else "a"


class Agreement(NamedTuple):
    """How far two lists of faces of one picture agree: numbers of faces, and the sum of IoUs."""

    matched: int
    only_a: int
    only_b: int
    iou: float


@dataclass
class Outcome:
    """What one arm did with one profile in one minute (since 1970). Sums are over the answers."""

    minute: int
    arm: Arm
    profile: str
    answers: int = 0
    errors: int = 0  # requests that the server failed to answer
    seconds: float = 0.0
    faces: int = 0
    scores: float = 0.0
    latencies: Counter[int] = field(default_factory=Counter)  # answers by bin, see `latencies`


@dataclass
class Pairs:
    """How the two arms of a shadow trial agreed on the pictures of one minute. All are sums."""

    minute: int
    pictures: int = 0
    matched: int = 0
    only_a: int = 0
    only_b: int = 0
    iou: float = 0.0
    seconds_a: float = 0.0
    seconds_b: float = 0.0
