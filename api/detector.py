"""The front door to detection in this process."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import cast, overload

from unface.engines.cascades import Cascades
from unface.engines.provenance import Provenance
from unface.engines.shelf import read_engine_key
from unface.errors import InvalidOption
from unface.gpu.arrays import CudaArray, DeviceImage, Pixels
from unface.gpu.cascade import PlanMasks
from unface.mtcnn.faces import Faces
from unface.mtcnn.options import DetectOptions, detect_options

DEFAULT_PRECISION = "fp32"


class Detector:
    """Finds faces with the engines that ship in the package.

        detector = unface.Detector()
        for face in detector.detect(image):
            print(face.box, face.score, face.landmarks)

    `profile` is "accurate" (the thresholds of Zhang et al. 2016, FP32), "fast" (the same, INT8)
    or "privacy" (lower thresholds: fewer missed faces, more false ones); `min_face`,
    `scale_factor`, `thresholds` and `precision` replace what the profile says. `threads` is how
    many CPU threads the detector uses (None: all cores this process may use). `device` "auto"
    uses a GPU that is there and finds what the CPU finds, "gpu" warns when there is none, "cpu"
    leaves it alone. The CPU takes over whenever the GPU fails; every answer names its `backend`.
    `plans` is "FOLDER" or "FOLDER:PRECISION" of TensorRT plans (`make engines TARGET=tensorrt`),
    which the GPU runs instead of unface's own kernels where they fit it. `engines` is a folder of
    your own engines instead of those that ship. When they, or the plans, are encrypted, `key_file`
    holds their key (`unface engines new-key`); None takes the one in the environment variable
    UNFACE_ENGINE_KEY, if any. With a key the folders must be encrypted.

    May be shared between threads: calls take turns. Raises `InvalidOption` for an option outside
    its range and `EngineError` when an engine is missing or damaged or, unless
    `allow_uncertified`, has not passed the gate.
    """

    def __init__(
        self,
        profile: str = "accurate",
        min_face: float = 20,
        threads: int | None = None,
        *,
        scale_factor: float | None = None,
        thresholds: tuple[float, float, float] | None = None,
        precision: str | None = None,
        engines: str | os.PathLike[str] | None = None,
        allow_uncertified: bool = False,
        device: str = "auto",
        plans: str | None = None,
        key_file: str | os.PathLike[str] | None = None,
    ) -> None:
        own = engines is not None or plans is not None
        if key_file is not None and not own:
            raise InvalidOption("there is a key file, but engines and plans name no folder")
        self.options = detect_options(profile, min_face, scale_factor, thresholds, precision)
        self._cascades = Cascades(
            self.options.precision or DEFAULT_PRECISION,
            threads,
            None if engines is None else Path(engines),
            allow_uncertified=allow_uncertified,
            device=device,
            plans=plans,
            key=read_engine_key(key_file) if own else None,
        )
        self._turn = threading.Lock()

    @property
    def backend(self) -> str:
        """What computes now: "cuda" (a GPU), "native" (the compiled core) or "tflite"."""
        return self._cascades.backend

    @property
    def precision(self) -> str:
        """In which arithmetic, for options that name no engines: "fp32", "int8", "fp16"."""
        return self._cascades.precision

    @property
    def device(self) -> str:
        """The name of the GPU that computes now; empty when the CPU does."""
        return self._cascades.serving.device

    @property
    def device_reason(self) -> str:
        """Why no GPU computes now; empty when one does."""
        return self._cascades.serving.device_reason

    @overload
    def detect(self, image: Pixels, options: DetectOptions | None = None) -> Faces: ...
    @overload
    def detect(
        self, image: Sequence[Pixels], options: DetectOptions | None = None
    ) -> list[Faces]: ...
    def detect(
        self, image: Pixels | Sequence[Pixels], options: DetectOptions | None = None
    ) -> Faces | list[Faces]:
        """Find the faces of an image, RGB uint8 `[H, W, 3]`; a list of images gives a list.

        The threads share one image; of a list each takes an image at a time, which has more images
        done in the same time. A GPU has several of a list under way at once.

        An array that lies on a GPU (CuPy, PyTorch, Numba) is taken without a copy; `EngineError`
        when no GPU serves.

        `options` replaces the detector's own for this call. Raises `InvalidImage` for an array of
        another kind: pixels are never guessed.
        """
        with self._turn:
            if isinstance(image, (list, tuple)):
                return self._cascades.detect_all(image, options or self.options)
            return self._cascades.detect(cast(Pixels, image), options or self.options)

    def cover(
        self, image: CudaArray, plan_masks: PlanMasks, options: DetectOptions | None = None
    ) -> tuple[DeviceImage, Faces]:
        """Return a copy of an array on the GPU with its faces covered as planned, and the faces.

        Raises `EngineError` when no GPU serves, and what `detect` raises.
        """
        with self._turn:
            return self._cascades.anonymize(image, options or self.options, plan_masks)

    def provenance(self, backend: str, precision: str) -> Provenance:
        """Return which engines, with which certificates, gave faces of a backend and precision."""
        return self._cascades.provenance(backend, precision)

    def close(self) -> None:
        """Free the engines."""
        with self._turn:
            self._cascades.close()

    def __enter__(self) -> Detector:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()
