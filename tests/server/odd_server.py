"""The real server with its real engines, but slow or failing where a test wants it so.

Pictures 77 pixels wide take `--slow` seconds, those 78 wide raise a defect, those 79 wide raise
`EngineError`. `--slow-start` delays the first detection, `--broken` makes it fail, and
`--blind` lets it find nothing.
"""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import replace

from unface.errors import EngineError
from unface.mtcnn.faces import Faces
from unface.mtcnn.network import UInt8Array
from unface.mtcnn.options import DetectOptions
from unface.server.app import Detector, open_cascade, run
from unface.server.config import ServerConfig, add_arguments, config_from_arguments

PRIVATE = "/secret/path/of/the/server"


class OddDetector:
    def __init__(self, real: Detector, arguments: argparse.Namespace) -> None:
        self.real = real
        self.arguments = arguments
        self.calls = 0

    def detect(self, image: UInt8Array, options: DetectOptions) -> Faces:
        self.calls += 1
        if self.calls == 1:
            time.sleep(self.arguments.slow_start)
            if self.arguments.broken:
                raise EngineError("engine pnet.fp32.tflite gave box values that are no numbers")
        width = image.shape[1]
        if width == 77:
            print(f"slow detection {self.calls}", file=sys.stderr, flush=True)
            time.sleep(self.arguments.slow)
        if width == 78:
            raise RuntimeError(f"a defect near {PRIVATE}")
        if width == 79:
            raise EngineError("engine pnet gave box values that are no numbers")
        faces = self.real.detect(image, options)
        if self.arguments.blind:
            faces = replace(
                faces, boxes=faces.boxes[:0], scores=faces.scores[:0], landmarks=faces.landmarks[:0]
            )
        return faces

    def close(self) -> None:
        self.real.close()


def main() -> int:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    parser.add_argument("--slow", type=float, default=0)
    parser.add_argument("--slow-start", type=float, default=0)
    parser.add_argument("--broken", action="store_true")
    parser.add_argument("--blind", action="store_true")
    arguments = parser.parse_args()

    def open_detector(config: ServerConfig) -> Detector:
        return OddDetector(open_cascade(config), arguments)

    return run(config_from_arguments(arguments), open_detector)


if __name__ == "__main__":
    sys.exit(main())
