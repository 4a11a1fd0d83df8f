"""What serves calls that ask for different engines, or for many images: a GPU, or the CPU."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from functools import cached_property, partial
from itertools import chain
from pathlib import Path
from queue import SimpleQueue
from typing import NamedTuple, cast

from unface.engines.device import (
    CPU,
    GPU,
    ON_GPU,
    TENSORRT,
    OpenDevice,
    check_device,
    open_cascade,
    open_first_gpu,
    why_cpu_alone,
)
from unface.engines.fallback import PAUSES, Answer, Gpu
from unface.engines.provenance import HALF, KERNELS, Provenance, of_engines, of_kernels, of_plans
from unface.engines.shelf import Shelf, open_from, read_shelf
from unface.errors import EngineError
from unface.gpu.arrays import CudaArray, DeviceImage, Pixels, is_resident
from unface.gpu.cascade import GpuCascade, PlanMasks
from unface.mtcnn.cascade import Cascade
from unface.mtcnn.faces import Faces
from unface.mtcnn.network import UInt8Array
from unface.mtcnn.options import DetectOptions
from unface.mtcnn.team import Team

log = logging.getLogger("unface.engines")


class Serving(NamedTuple):
    """What would serve a call now whose options name no engines."""

    backend: str  # "cuda"; "native", "tflite" on the CPU
    precision: str  # "fp16" on a GPU; "fp32", "int8", ...
    device: str  # the GPU's name; "" when the CPU serves
    device_reason: str  # why the CPU serves; "" when a GPU does


class Cascades:
    """A GPU's cascade, and on the CPU one for each precision that is asked for.

    `precision` serves the options that name none, and is opened on the CPU at once, also beside a
    GPU: the CPU takes over a call on which the GPU fails. `device` "auto" uses a GPU that is
    there, "gpu" says loudly when there is none and goes on looking for it, "cpu" leaves it alone.
    FP32, FP16 and INT8 are all the GPU's FP16; other engines run on the CPU. `plans` are TensorRT's
    for the GPU (`unface.engines.device.open_cascade`). For the other arguments and what is raised
    see `unface.engines.open_networks`.

    On the CPU one image is shared among all threads; of several, each thread takes one at a time,
    with a cascade of its own: the same number of threads works either way. Not thread-safe: one
    caller at a time, but `serving` is for any.
    """

    def __init__(
        self,
        precision: str = "fp32",
        threads: int | None = None,
        folder: Path | None = None,
        *,
        allow_uncertified: bool = False,
        device: str = CPU,
        plans: str | None = None,
        key: bytes | None = None,
        open_device: OpenDevice = open_first_gpu,
        pauses: Sequence[float] = PAUSES,
    ) -> None:
        check_device(device)
        self._plans, self._key = plans, key
        self._precision = precision
        self._threads, self._folder = threads, folder
        self._allow_uncertified = allow_uncertified
        self._open: dict[str, Cascade] = {}
        self._single: dict[str, list[Cascade]] = {}  # of one thread each
        self._opened: dict[str, tuple[Shelf, str]] = {}  # what each precision is from; its backend
        networks = self._cascade(precision).networks
        self._cpu_backend = networks.backend
        self._team = Team(networks.team.threads)
        self._gpu_shelf = read_shelf(folder, key)
        self._on_gpu = {*ON_GPU} & {*self._gpu_shelf.precisions}  # what the CPU could do
        self._gpu: Gpu | None = None
        self._no_gpu = f"device is {CPU}"
        if device != CPU:
            self._find_gpu(open_device, pauses, wanted=device == GPU)

    @property
    def serving(self) -> Serving:
        """What would serve a call now whose options name no engines."""
        gpu = self._gpu.cascade if self._gpu else None
        if gpu is None:
            reason = self._gpu.reason if self._gpu else self._no_gpu
            return Serving(self._cpu_backend, self._precision, "", reason)
        return Serving(gpu.networks.backend, gpu.networks.precision, gpu.device.name, "")

    @property
    def backend(self) -> str:
        """See `Serving`."""
        return self.serving.backend

    @property
    def precision(self) -> str:
        """See `Serving`."""
        return self.serving.precision

    def provenance(self, backend: str, precision: str) -> Provenance:
        """Return which engines gave an answer that names a backend and a precision.

        For any thread. Raises `EngineError` where none that was opened here can have given it.
        """
        shelf, runtime = self._opened.get(precision, (None, ""))
        if shelf and backend == runtime:
            return of_engines(shelf, precision, runtime)
        if self._gpu and (backend, precision) == (KERNELS, HALF):
            return of_kernels(self._gpu_shelf)
        if self._gpu and backend == TENSORRT:
            return self._of_plans
        raise EngineError(f"no {precision!r} engines ({backend!r}) have served here")

    def watch(self, changed: Callable[[], None]) -> None:
        """Have `changed` called, on any thread, when `serving` has changed."""
        if self._gpu:
            self._gpu.changed = changed

    def detect(self, image: Pixels, options: DetectOptions) -> Faces:
        """Find the faces of an image; see `unface.mtcnn.cascade.Cascade.detect`.

        One that lies on a GPU is its alone: raises `EngineError` when that does not serve.
        """
        resident = is_resident(image)
        faces = self._by_gpu(options, lambda gpu: gpu.detect(image, options), alone=resident)
        if faces is None:
            (pixels,) = self._in_main_memory([image], options)
            faces = self._cascade(options.precision or self._precision).detect(pixels, options)
        return faces

    def anonymize(
        self, image: CudaArray, options: DetectOptions, plan_masks: PlanMasks
    ) -> tuple[DeviceImage, Faces]:
        """Return a copy of an array on the GPU with its faces covered as planned, and the faces.

        Raises `EngineError` when the GPU does not serve.
        """
        covered = self._by_gpu(
            options, lambda gpu: gpu.anonymize_array(image, options, plan_masks), alone=True
        )
        if covered is None:
            raise self._out_of_reach(options)
        return covered

    def detect_all(self, images: Sequence[Pixels], options: DetectOptions) -> list[Faces]:
        """Find the faces of each image, in order; the same faces as one by one."""
        if len(images) < 2:
            return [self.detect(image, options) for image in images]
        found = self._by_gpu(options, lambda gpu: gpu.detect_all(images, options))
        if found is not None:
            return found
        if self._team.threads == 1 or self._gpu_serves(options):  # but not all of them together
            return [self.detect(image, options) for image in images]
        return self._share(self._in_main_memory(images, options), options)

    def close(self) -> None:
        """Free the engines."""
        if self._gpu:
            self._gpu.close()
        self._team.close()
        for cascade in chain(self._open.values(), *self._single.values()):
            cascade.close()
        self._open.clear()
        self._single.clear()

    def _find_gpu(self, open_device: OpenDevice, pauses: Sequence[float], *, wanted: bool) -> None:
        self._no_gpu = why_cpu_alone(self._gpu_shelf, self._precision)
        if self._no_gpu:
            log.log(logging.WARNING if wanted else logging.INFO, "the CPU serves: %s", self._no_gpu)
            return
        opener = partial(
            open_cascade,
            folder=self._folder,
            allow_uncertified=self._allow_uncertified,
            plans=self._plans,
            key=self._key,
        )
        self._gpu = Gpu(open_device, opener, wanted=wanted, pauses=pauses)

    def _by_gpu(
        self, options: DetectOptions, work: Callable[[GpuCascade], Answer], *, alone: bool = False
    ) -> Answer | None:
        """Return what the GPU's cascade answers; None when the CPU has to."""
        return self._gpu.run(work, alone=alone) if self._gpu and self._gpu_serves(options) else None

    def _in_main_memory(
        self, images: Sequence[Pixels], options: DetectOptions
    ) -> Sequence[UInt8Array]:
        """Return the images, none of which lies on a GPU; raises `EngineError`."""
        if any(map(is_resident, images)):
            raise self._out_of_reach(options)
        return cast(Sequence[UInt8Array], images)

    def _out_of_reach(self, options: DetectOptions) -> EngineError:
        """Return the error for a picture on a GPU that does not serve."""
        why = self._gpu.reason if self._gpu else self._no_gpu
        precision = options.precision or self._precision
        if precision not in self._on_gpu:
            why = f"{precision} engines run on the CPU alone"
        return EngineError(
            f"the picture lies on a GPU, and none serves: {why}; for the CPU give its pixels in "
            "main memory"
        )

    def _gpu_serves(self, options: DetectOptions) -> bool:
        precision = options.precision or self._precision
        return self._gpu is not None and self._gpu.cascade is not None and precision in self._on_gpu

    def _share(self, images: Sequence[UInt8Array], options: DetectOptions) -> list[Faces]:
        """Return the faces of each image, found by the CPU's threads, an image each at a time."""
        idle: SimpleQueue[Cascade] = SimpleQueue()
        for cascade in self._singles(options.precision or self._precision):
            idle.put(cascade)

        def detect_one(image: UInt8Array) -> Faces:
            cascade = idle.get()
            try:
                return cascade.detect(image, options)
            finally:
                idle.put(cascade)

        return self._team.map(detect_one, images)

    def _cascade(self, precision: str) -> Cascade:
        if precision not in self._open:
            self._open[precision] = self._new(precision, self._threads)
        return self._open[precision]

    def _singles(self, precision: str) -> list[Cascade]:
        if precision not in self._single:
            self._single[precision] = [self._new(precision, 1) for _ in range(self._team.threads)]
        return self._single[precision]

    def _new(self, precision: str, threads: int | None) -> Cascade:
        shelf, _ = self._opened.get(precision) or (read_shelf(self._folder, self._key), "")
        allowed = self._allow_uncertified
        networks = open_from(shelf, precision, threads, allow_uncertified=allowed)
        self._opened[precision] = shelf, networks.backend
        return Cascade(networks)

    @cached_property
    def _of_plans(self) -> Provenance:
        if self._plans is None:
            raise EngineError("there are no plans")
        return of_plans(self._plans, self._key)
