"""The real server with its real engines, but workers that are slow or fail where a test wants it.

Pictures 77 pixels wide take `--slow` seconds, those 78 wide raise a defect, those 79 wide raise
`EngineError`. `--slow-start` delays the first detection, `--broken` makes it fail, and
`--blind` lets it find nothing. `--gpu` puts a simulated GPU in: it is lost when a picture 76 pixels
wide comes, and can be had again from one 75 wide on. A picture 74 wide kills the worker.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from unface.engines.cascades import Cascades, Serving
from unface.errors import EngineError
from unface.mtcnn.faces import Faces
from unface.mtcnn.network import UInt8Array
from unface.mtcnn.options import DetectOptions
from unface.server.app import run
from unface.server.config import add_arguments, config_from_arguments
from unface.worker import process
from unface.worker.batch import Detector
from unface.worker.settings import Settings

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
        if width == 74:
            os.kill(os.getpid(), signal.SIGKILL)
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

    def detect_all(self, images: Sequence[UInt8Array], options: DetectOptions) -> list[Faces]:
        print(f"batch of {len(images)}", file=sys.stderr, flush=True)
        return [self.detect(image, options) for image in images]

    def close(self) -> None:
        self.real.close()


def odd_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--slow", type=float, default=0)
    parser.add_argument("--slow-start", type=float, default=0)
    parser.add_argument("--broken", action="store_true")
    parser.add_argument("--blind", action="store_true")
    parser.add_argument("--gpu", action="store_true")


def work(arguments: argparse.Namespace) -> int:
    socket = Socket()

    def open_detector(settings: Settings) -> Detector:
        real = process.open_cascade(settings)
        if arguments.gpu:
            real.close()
            real = Cascades(device=settings.device, open_device=socket.open, pauses=(0.05,))
        return OddDetector(real, arguments, socket)

    return process.run(arguments.descriptor, open_detector)


def serve(arguments: argparse.Namespace) -> int:
    flags = [
        f"--{name.replace('_', '-')}" + ("" if value is True else f"={value}")
        for name in ("slow", "slow_start", "broken", "blind", "gpu")
        if (value := getattr(arguments, name))
    ]
    return run(config_from_arguments(arguments), [sys.executable, __file__, *flags])


def main() -> int:
    parser = argparse.ArgumentParser()
    odd_flags(parser)
    if "--port" in sys.argv:
        add_arguments(parser)
        return serve(parser.parse_args())
    parser.add_argument("descriptor", type=int)  # the server starts a worker
    return work(parser.parse_args())


if __name__ == "__main__":
    sys.exit(main())
