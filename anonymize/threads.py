"""How many threads OpenCV takes for covering, turning and resizing: a pool of its own."""

from __future__ import annotations

import cv2


def limit_threads(count: int) -> None:
    """Let OpenCV use at most so many threads in this process."""
    cv2.setNumThreads(count)
