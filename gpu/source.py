"""The kernels' source, as one text and as a hash."""

from __future__ import annotations

import hashlib
import re
from functools import cache
from importlib.resources import files

_INCLUDE = re.compile(r'^#include "([a-z_]+\.cuh?)"$', re.MULTILINE)


@cache
def source() -> str:
    """Return all kernels as one text, included files in place: what is compiled, and cached by."""
    included: set[str] = set()

    def text(name: str) -> str:
        if name in included:
            return ""
        included.add(name)
        content = (files("unface.gpu") / "src" / name).read_text()
        return _INCLUDE.sub(lambda m: text(m[1]), content.replace("#pragma once\n", ""))

    return text("kernels.cu")


def kernels_hash() -> str:
    """Return the SHA-256 of what the kernels do: the source without comments and spaces."""
    code = re.sub(r"/\*.*?\*/", "", source(), flags=re.DOTALL)
    return hashlib.sha256("".join(code.split()).encode()).hexdigest()
