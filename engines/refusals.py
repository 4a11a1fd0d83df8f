"""Why TensorRT refuses a plan, in words that say what to do."""

from __future__ import annotations

import re
from collections.abc import Sequence

REMEDY = "build it for this machine (make engines TARGET=tensorrt)"
ON_CPU = "the engines for the CPU run here"

# What the libraries say when they refuse a plan, in the order it is looked for; what it means, what
# helps. TensorRT cannot tell another version from damage: the hash in the manifest can.
_REFUSALS = (
    (
        r"magicTag|serialization version|ersion tag|not compatible with this version"
        r"|kSERIALIZATION_VERSION|VERSION_MISMATCH",
        "it is damaged or of another version of TensorRT",
        REMEDY,
    ),
    (
        r"incompatible device|UNSUPPORTED_CC|expecting compute|not support\w* .*compute capabilit",
        "it is of another GPU",
        REMEDY,
    ),
    (r"blobSize|empty memory|MALFORMED_ENGINE|Serialization", "it is damaged", REMEDY),
    (
        r"INSUFFICIENT_GPU_MEMORY|[Oo]ut ?[Oo]f ?[Mm]emory",
        "it needs more GPU memory than is free",
        "free some, or run fewer contexts",
    ),
    (
        r"cudaError|CUDA initialization|no CUDA-capable|OLD_CUDA|CUDA_ERROR",
        "there is no NVIDIA GPU with a driver that serves it",
        ON_CPU,
    ),
)


def refusal(said: Sequence[str]) -> str:
    """Return in our words why a plan was refused, the library's own in brackets, what helps."""
    text = "\n".join(said)
    own = plainly(said[0]) if said else "TensorRT does not say why"
    for pattern, reason, remedy in _REFUSALS:
        if re.search(pattern, text):
            return f"{reason} ({own}); {remedy}"
    return f"{own}; {REMEDY}"


def plainly(message: str) -> str:
    """Return the first sentence of what TensorRT says, without where in its source that was."""
    text = re.sub(r"^.*?Error Code \d+: [\w ]+ \(", "", message)
    text = re.sub(r"In \w+ at \S+", "", text)
    return re.split(r"\.(?=\s|[A-Z]|$)", text, maxsplit=1)[0].strip(" ()")
