"""The real server with its real engines, but slow or failing where a test wants it so.

Pictures 77 pixels wide take `--slow` seconds, those 78 wide raise a defect, those 79 wide raise
`EngineError`. `--slow-start` delays the first detection, `--broken` makes it fail, and
`--blind` lets it find nothing. `--gpu` puts a simulated GPU in: it is lost when a picture 76 pixels
wide comes, and can be had again from one 75 wide on.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from unface.engines.cascades import Cascades, Serving
from unface.errors import EngineError
from unface.mtcnn.faces import Faces
from unface.mtcnn.network import UInt8Array
from unface.mtcnn.options import DetectOptions
from unface.server.app import Detector, open_cascade, run
from unface.server.config import ServerConfig, add_arguments, config_from_arguments

sys.path.append(str(Path(__file__).parents[1]))
from failing_gpus import Socket

PRIVATE = "/secret/path/of/the/server"


class OddDetector:
    def __init__(self, real: Detector, arguments: argparse.Namespace, socket: Socket) -> None:
        self.real = real
        self.arguments = arguments
        self.socket = socket
        self.calls = 0

    @property
    def serving(self) -> Serving:
        return self.real.serving

    def watch(self, changed: Callable[[], None]) -> None:
        self.real.watch(changed)

    def detect(self, image: UInt8Array, options: DetectOptions) -> Faces:
        self.calls += 1
        if self.calls == 1:
            time.sleep(self.arguments.slow_start)
            if self.arguments.broken:
                raise EngineError("engine pnet.fp32.tflite gave box values that are no numbers")
        width = image.shape[1]
        if width in (75, 76):
            self.socket.lost = width == 76
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
    parser.add_argument("--gpu", action="store_true")
    arguments = parser.parse_args()

    socket = Socket()

    def open_detector(config: ServerConfig) -> Detector:
        real = open_cascade(config)
        if arguments.gpu:
            real.close()
            real = Cascades(device=config.device, open_device=socket.open, pauses=(0.05,))
        return OddDetector(real, arguments, socket)

    return run(config_from_arguments(arguments), open_detector)


if __name__ == "__main__":
    sys.exit(main())
