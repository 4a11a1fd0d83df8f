"""Writing results: whole or not at all."""

from __future__ import annotations

import itertools
import sys
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from unface import folders

# Between opening a file and closing it the interpreter alone knows of it, and closes it late.
INTERRUPTED = "ignore::pytest.PytestUnraisableExceptionWarning"


@pytest.mark.filterwarnings(INTERRUPTED)
def test_ctrl_c_at_any_line_of_writing_leaves_no_half_written_file(tmp_path: Path) -> None:
    target = tmp_path / "picture.png"

    def is_interrupted_at(number: int) -> bool:
        lines = itertools.count()

        def trace(frame: FrameType, event: str, _: Any) -> Any:
            if frame.f_code.co_filename != folders.__file__:
                return None
            if event == "line" and next(lines) == number:
                raise KeyboardInterrupt
            return trace

        before = sys.gettrace()
        sys.settrace(trace)
        try:
            folders.write_whole(b"picture", target)
        except KeyboardInterrupt:
            return True
        finally:
            sys.settrace(before)
        return False

    number = 0
    while is_interrupted_at(number):
        assert not [path for path in tmp_path.iterdir() if path != target]
        assert not target.exists() or target.read_bytes() == b"picture"
        target.unlink(missing_ok=True)
        number += 1
    assert number > 8
    assert target.read_bytes() == b"picture"
