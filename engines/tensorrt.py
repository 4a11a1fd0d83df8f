"""TensorRT: the one thin adapter between unface and `tensorrt` 10 and 11 or `tensorrt_rtx` 1.

All that differs between them is here: `tensorrt` builds for the GPU of its machine and keeps what
it timed; `tensorrt_rtx` builds for named compute capabilities, without a GPU, and compiles the rest
when the plan is loaded. Networks are strongly typed: the ONNX says every type. Device memory is
plain addresses, streams are plain handles, so that any CUDA binding will do. Neither library is
imported before it is asked for.

Sources: NVIDIA's Python API references of TensorRT 10.x, 11.x and TensorRT for RTX 1.x.
"""

from __future__ import annotations

import ctypes
import importlib
import logging
import re
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from threading import Lock
from typing import Any

from unface.engines.layers import Layer, layers_from_inspector, layers_from_log
from unface.engines.refusals import plainly, refusal
from unface.errors import EngineError, InvalidOption

TENSORRT, RTX = RUNTIMES = ("tensorrt", "tensorrt_rtx")  # modules; the first is preferred
INPUT = "pixels"
_KEPT_ERRORS = 20

log = logging.getLogger("unface.engines")


@dataclass(frozen=True)
class Batches:
    """How many images at once a plan takes, and the number it is made fastest for."""

    least: int
    optimum: int
    most: int


@dataclass(frozen=True)
class Built:
    """A plan: its bytes, what was fused, and what `tensorrt` timed (empty with `tensorrt_rtx`)."""

    plan: bytes
    layers: tuple[Layer, ...]
    timing_cache: bytes


@dataclass
class _Messages:
    """What a library says: the last errors, and everything while `all` is a list."""

    errors: deque[str] = field(default_factory=lambda: deque(maxlen=_KEPT_ERRORS))
    all: list[str] | None = None


@dataclass(frozen=True, eq=False)
class Library:
    """`tensorrt` or `tensorrt_rtx` as installed here; see `find_tensorrt`."""

    name: str
    module: Any
    _logger: Any = None
    _said: _Messages = field(default_factory=_Messages)
    _lock: Lock = field(default_factory=Lock)

    @property
    def version(self) -> str:
        """Version of the library: "10.13.2.6"."""
        return str(self.module.__version__)

    @property
    def is_rtx(self) -> bool:
        """Whether plans are portable: built without a GPU, finished when they are loaded."""
        return self.name == RTX

    @property
    def capabilities(self) -> tuple[str, ...]:
        """The compute capabilities that it builds for by name: "8.6"; none with `tensorrt`."""
        if not self.is_rtx:
            return ()
        names = (re.fullmatch(r"SM(\d+)(\d)", n) for n in dir(self.module.ComputeCapability))
        found = [(int(n[1]), int(n[2])) for n in names if n]
        return tuple(f"{major}.{minor}" for major, minor in sorted(found))


def find_tensorrt(name: str | None = None) -> Library:
    """Return `tensorrt` or `tensorrt_rtx`; None: the first of them that is installed.

    Raises `InvalidOption` for another name and `EngineError` when it is not installed.
    """
    if name is not None and name not in RUNTIMES:
        raise InvalidOption(f"TensorRT is {name!r}; it must be {' or '.join(RUNTIMES)}")
    wanted = (name,) if name else RUNTIMES
    found = next(filter(None, map(_library, wanted)), None)
    if found is None:
        raise EngineError(
            f"{' or '.join(wanted)} is not installed or does not load: pip install 'unface[rtx]', "
            "or tensorrt as NVIDIA describes"
        )
    return found


@cache
def _library(name: str) -> Library | None:
    try:
        return library_of(name, importlib.import_module(name))
    except (ImportError, OSError) as error:  # OSError: a library beneath it is missing
        log.debug("%s: %s", name, error)
        return None


def library_of(name: str, module: Any) -> Library:
    """Return a library whose messages are kept to explain what fails."""
    said = _Messages()

    def keep(self: object, severity: Any, message: str) -> None:
        if severity in (module.ILogger.ERROR, module.ILogger.INTERNAL_ERROR):
            said.errors.append(message)
        if said.all is not None:
            said.all.append(message)

    def init(self: Any) -> None:
        module.ILogger.__init__(self)

    logger = type("Log", (module.ILogger,), {"__init__": init, "log": keep})()
    return Library(name, module, logger, said)


def build(
    library: Library,
    onnx: bytes,
    batches: Batches,
    capabilities: Sequence[str] = (),
    timing_cache: bytes = b"",
) -> Built:
    """Return the plan of an ONNX model that takes `pixels` uint8 `[N, height, width, 3]`.

    `capabilities` are those a plan of `tensorrt_rtx` shall run on (none: its own choice);
    `tensorrt` builds for the GPU of this machine, and `timing_cache` is what an earlier build gave.
    Raises `InvalidOption` for capabilities the library cannot name, `EngineError` with the
    library's own words when it cannot build.
    """
    _check_capabilities(library, capabilities)
    with library._lock:
        library._said.errors.clear()
        library._said.all = []
        try:
            plan, timed = _serialized(library, onnx, batches, capabilities, timing_cache)
            lines = library._said.all
        finally:
            library._said.all = None
    # With a GPU the plan itself says more; without one the builder's log says the same.
    layers = layers_from_log(lines) if library.is_rtx else ()
    return Built(plan, layers or DeviceEngine(plan, "just built", library).layers(), timed)


def _check_capabilities(library: Library, capabilities: Sequence[str]) -> None:
    if capabilities and not library.is_rtx:
        raise InvalidOption(
            f"{library.name} builds for the GPU of this machine; for other compute capabilities "
            f"take {RTX}"
        )
    for capability in capabilities:
        if capability not in library.capabilities:
            raise InvalidOption(
                f"compute capability is {capability!r}; {library.name} {library.version} knows "
                f"{', '.join(library.capabilities)}"
            )


def _serialized(
    library: Library,
    onnx: bytes,
    batches: Batches,
    capabilities: Sequence[str],
    timing_cache: bytes,
) -> tuple[bytes, bytes]:
    trt = library.module
    try:
        builder = trt.Builder(library._logger)
    except (TypeError, RuntimeError) as error:  # how a missing GPU shows with `tensorrt`
        raise EngineError(f"TensorRT cannot build here: {_said(library) or error}") from error
    network = builder.create_network(_strongly_typed(trt))
    parser = trt.OnnxParser(network, library._logger)
    if not parser.parse(onnx):
        reasons = [str(parser.get_error(index)) for index in range(parser.num_errors)]
        raise EngineError(f"TensorRT cannot read the ONNX model: {'; '.join(reasons)}")
    config = builder.create_builder_config()
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    config.clear_flag(trt.BuilderFlag.TF32)  # float32 is to be what was judged
    profile = builder.create_optimization_profile()
    sides = tuple(network.get_input(0).shape)[1:]
    sizes = (batches.least, batches.optimum, batches.most)
    profile.set_shape(INPUT, *((size, *sides) for size in sizes))
    config.add_optimization_profile(profile)
    if library.is_rtx:
        config.num_compute_capabilities = len(capabilities)
        for index, name in enumerate(capabilities):
            capability = getattr(trt.ComputeCapability, f"SM{name.replace('.', '')}")
            config.set_compute_capability(capability, index)
    else:  # RTX times nothing: its timing cache does nothing but ask for a GPU
        _set_timing_cache(config, timing_cache)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise EngineError(f"TensorRT cannot build the engine: {_said(library)}")
    timed = b"" if library.is_rtx else bytes(config.get_timing_cache().serialize())
    return bytes(plan), timed


def _strongly_typed(trt: Any) -> int:
    """Return the flags of a strongly typed network: a flag in 10, what there is in later ones."""
    flag = getattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)
    return 0 if flag is None else 1 << int(flag)


def _set_timing_cache(config: Any, kept: bytes) -> None:
    if not config.set_timing_cache(config.create_timing_cache(kept), False):  # of another GPU
        config.set_timing_cache(config.create_timing_cache(b""), False)


class DeviceEngine:
    """A plan on the GPU of this machine, the current CUDA device of the calling thread."""

    def __init__(
        self, plan: bytes, name: str, library: Library | None = None, compiled: bytes = b""
    ) -> None:
        """Load a plan; `compiled` is what an earlier `compiled()` gave.

        Raises `EngineError` that says what does not fit: another version, another GPU, damage, no
        GPU at all.
        """
        self.name = name
        self._library = find_tensorrt() if library is None else library
        with self._library._lock:
            self._library._said.errors.clear()
            self._engine = self._loaded(plan)
        self._config = self._runtime_config(compiled) if self._library.is_rtx else None
        # The largest number of images at once.
        self.max_batch = int(self._engine.get_tensor_profile_shape(INPUT, 0)[2][0])

    def _loaded(self, plan: bytes) -> Any:
        library = self._library
        try:
            self._runtime = library.module.Runtime(library._logger)
            engine = self._runtime.deserialize_cuda_engine(plan)
        except (TypeError, RuntimeError) as error:
            said = [*library._said.errors, str(error)]
            raise EngineError(f"engine {self.name} cannot be loaded: {refusal(said)}") from error
        if engine is None:
            said = [*library._said.errors, *_diagnoses(library, self._runtime, plan)]
            raise EngineError(f"engine {self.name} cannot be loaded: {refusal(said)}")
        return engine

    def _runtime_config(self, compiled: bytes) -> Any:
        """Return how RTX runs: what it compiles is shared by all contexts, and done at once.

        Kernels for a batch size are compiled the first time it comes, not in the background: a
        CUDA graph captured after that holds the final ones.
        """
        trt, config = self._library.module, self._engine.create_runtime_config()
        kept = config.create_runtime_cache()
        if compiled:
            kept.deserialize(compiled)
        config.set_runtime_cache(kept)
        config.dynamic_shapes_kernel_specialization_strategy = (
            trt.DynamicShapesKernelSpecializationStrategy.EAGER
        )
        return config

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one image, uint8: `(height, width, 3)`."""
        return tuple(self._engine.get_tensor_shape(INPUT))[1:]

    @property
    def output_shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of each output for one image, float32, by name: `{"box": (123, 123, 4)}`."""
        names = (self._engine.get_tensor_name(i) for i in range(self._engine.num_io_tensors))
        return {n: tuple(self._engine.get_tensor_shape(n))[1:] for n in names if n != INPUT}

    @property
    def context_bytes(self) -> int:
        """Device memory that each context takes, bytes."""
        return int(self._engine.device_memory_size_v2)

    def context(self) -> DeviceContext:
        """Return a context to run on one stream; contexts of one engine may run side by side."""
        if self._config is None:
            context = self._engine.create_execution_context()
        else:
            context = self._engine.create_execution_context(self._config)
        if context is None:
            raise EngineError(f"engine {self.name} gives no context: {_said(self._library)}")
        return DeviceContext(context, self)

    def layers(self) -> tuple[Layer, ...]:
        """Return what was fused, by the engine inspector."""
        inspector = self._engine.create_engine_inspector()
        form = self._library.module.LayerInformationFormat.JSON
        return layers_from_inspector(inspector.get_engine_information(form))

    def compiled(self) -> bytes:
        """Return what RTX compiled so far, to be kept for the next start; empty with `tensorrt`."""
        if self._config is None:
            return b""
        return bytes(self._config.get_runtime_cache().serialize())


class DeviceContext:
    """One execution context: for one stream, one run after the other."""

    def __init__(self, context: Any, engine: DeviceEngine) -> None:
        self._context, self._engine = context, engine
        self._max_batch, self._sides = engine.max_batch, engine.input_shape
        self._outputs = frozenset(engine.output_shapes)

    def enqueue(
        self,
        stream_handle: int,
        batch: int,
        input_pointer: int,
        output_pointers: Mapping[str, int],
    ) -> None:
        """Put one run on a stream and return: it is not done yet.

        `input_pointer` is the device address of uint8 `[batch, height, width, 3]`, and
        `output_pointers` those of float32 `[batch, *output_shapes[name]]` by name, all of them;
        they must stay until the stream has passed. Raises `EngineError` when TensorRT refuses.
        """
        if not 1 <= batch <= self._max_batch:
            raise self._error(f"takes 1 to {self._max_batch} images, not {batch}")
        if output_pointers.keys() != self._outputs:
            raise self._error(f"gives {', '.join(sorted(self._outputs))}: one address for each")
        context = self._context
        addresses = {INPUT: input_pointer, **output_pointers}
        if not (
            context.set_input_shape(INPUT, (batch, *self._sides))
            and all(context.set_tensor_address(n, a) for n, a in addresses.items())
            and context.execute_async_v3(stream_handle)
        ):
            raise self._error(f"cannot run: {_said(self._engine._library)}")

    def _error(self, what: str) -> EngineError:
        return EngineError(f"engine {self._engine.name} {what}")


def device_capability(ordinal: int = 0) -> str | None:
    """Return the compute capability of a GPU of this machine, "8.6"; None without one."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return None
    device, major, minor = ctypes.c_int(), ctypes.c_int(), ctypes.c_int()
    # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR and _MINOR are 75 and 76; 0 is success.
    if (
        driver.cuInit(0)
        or driver.cuDeviceGet(ctypes.byref(device), ordinal)
        or driver.cuDeviceGetAttribute(ctypes.byref(major), 75, device)
        or driver.cuDeviceGetAttribute(ctypes.byref(minor), 76, device)
    ):
        return None
    return f"{major.value}.{minor.value}"


def _diagnoses(library: Library, runtime: Any, plan: bytes) -> list[str]:
    """Return what RTX finds wrong with a plan, by name; `tensorrt` has no such question."""
    if not hasattr(runtime, "get_engine_validity"):
        return []
    bits = int(runtime.get_engine_validity(plan)[1])
    known = library.module.EngineInvalidityDiagnostics.__members__
    return [name for name, member in known.items() if bits & int(member)]


def _said(library: Library) -> str:
    return "; ".join(map(plainly, library._said.errors)) or "TensorRT does not say why"
