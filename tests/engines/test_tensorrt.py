"""The adapter against a fake of the API both libraries share, and against `tensorrt_rtx` itself.

The fake stands for what NVIDIA documents; that a GPU does the same, only a GPU can show.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from unface.engines.refusals import REMEDY, plainly, refusal
from unface.engines.tensorrt import (
    RTX,
    Batches,
    DeviceEngine,
    Library,
    build,
    device_capability,
    find_tensorrt,
    library_of,
)
from unface.errors import EngineError, InvalidOption

SIDES = (24, 24, 3)
SHAPES = {"pixels": (-1, *SIDES), "logit": (-1, 1, 1, 1), "box": (-1, 1, 1, 4)}
ADDRESSES = {"logit": 4096, "box": 8192}
FEW = Batches(1, 2, 4)


class Called:
    """Remembers calls; those named in `refused` return False."""

    def __init__(self, refused: str = "") -> None:
        self.calls: list[tuple[Any, ...]] = []
        self._refused = refused

    def __getattr__(self, name: str) -> Any:
        def call(*arguments: Any) -> bool:
            self.calls.append((name, *arguments))
            return name != self._refused

        return call


class Fake:
    """The part of the Python API of TensorRT 10 and 11 that the adapter uses."""

    __version__ = "10.13.2.6"
    BuilderFlag = SimpleNamespace(TF32=7)
    ProfilingVerbosity = SimpleNamespace(DETAILED=2)
    LayerInformationFormat = SimpleNamespace(JSON=1)
    NetworkDefinitionCreationFlag = SimpleNamespace(STRONGLY_TYPED=1)

    class ILogger:
        ERROR, INTERNAL_ERROR = "error", "internal error"

    def __init__(self, refused: str = "", says: str = "", mismatch: bool = False) -> None:
        self.context = Called(refused)
        self.config = SimpleNamespace()
        self.networks: list[int] = []
        self.timings: list[tuple[bytes, bool]] = []
        self._says, self._mismatch = says, mismatch

    # building

    def Builder(self, logger: Any) -> Any:
        self.config = SimpleNamespace(
            clear_flag=lambda flag: None,
            add_optimization_profile=lambda profile: 0,
            create_timing_cache=lambda data: data,
            set_timing_cache=self._set_timing_cache,
            get_timing_cache=lambda: SimpleNamespace(serialize=lambda: b"timed"),
        )
        pixels = SimpleNamespace(shape=SHAPES["pixels"])
        return SimpleNamespace(
            create_network=lambda flags: (
                self.networks.append(flags) or SimpleNamespace(get_input=lambda index: pixels)
            ),
            create_builder_config=lambda: self.config,
            create_optimization_profile=lambda: SimpleNamespace(set_shape=lambda *a: None),
            build_serialized_network=lambda network, config: b"plan",
        )

    def _set_timing_cache(self, cache: bytes, ignore: bool) -> bool:
        self.timings.append((cache, ignore))
        return not (self._mismatch and cache)

    def OnnxParser(self, network: Any, logger: Any) -> Any:
        return SimpleNamespace(
            parse=lambda data: data == b"onnx", num_errors=1, get_error=lambda i: "no model"
        )

    # running

    def Runtime(self, logger: Any) -> Any:
        def deserialize(plan: bytes) -> Any:
            if self._says:
                logger.log("error", self._says)
                return None
            return self._engine()

        return SimpleNamespace(deserialize_cuda_engine=deserialize)

    def _engine(self) -> Any:
        names = list(SHAPES)
        inspector = SimpleNamespace(
            get_engine_information=lambda form: '{"Layers": [{"Name": "c", "LayerType": "gemm"}]}'
        )
        return SimpleNamespace(
            num_io_tensors=len(names),
            device_memory_size_v2=1 << 20,
            get_tensor_name=names.__getitem__,
            get_tensor_shape=SHAPES.__getitem__,
            get_tensor_profile_shape=lambda name, index: [(n, *SIDES) for n in (1, 2, 4)],
            create_execution_context=lambda: self.context,
            create_engine_inspector=lambda: inspector,
        )


def library(fake: Any) -> Library:
    return library_of("tensorrt", fake)


def engine(fake: Fake) -> DeviceEngine:
    return DeviceEngine(b"plan", "rnet.plan", library(fake))


# --- running --------------------------------------------------------------------------------------


def test_a_run_sets_shape_and_addresses_and_goes_onto_the_stream() -> None:
    fake = Fake()
    engine(fake).context().enqueue(77, 3, 1024, ADDRESSES)
    assert fake.context.calls == [
        ("set_input_shape", "pixels", (3, *SIDES)),
        ("set_tensor_address", "pixels", 1024),
        ("set_tensor_address", "logit", 4096),
        ("set_tensor_address", "box", 8192),
        ("execute_async_v3", 77),
    ]


@pytest.mark.parametrize("refused", ["set_input_shape", "set_tensor_address", "execute_async_v3"])
def test_whatever_tensorrt_refuses_is_an_error(refused: str) -> None:
    context = engine(Fake(refused)).context()
    with pytest.raises(EngineError, match=r"rnet\.plan cannot run: TensorRT does not say why"):
        context.enqueue(77, 1, 1024, ADDRESSES)


@pytest.mark.parametrize("batch", [0, -1, 5])
def test_a_batch_outside_the_profile_is_refused_before_anything_is_set(batch: int) -> None:
    fake = Fake()
    with pytest.raises(EngineError, match=f"takes 1 to 4 images, not {batch}"):
        engine(fake).context().enqueue(77, batch, 1024, ADDRESSES)
    assert fake.context.calls == []


@pytest.mark.parametrize("addresses", [{}, {"logit": 1}, {**ADDRESSES, "landmarks": 2}])
def test_outputs_without_an_address_and_addresses_without_an_output_are_refused(
    addresses: dict[str, int],
) -> None:
    fake = Fake()
    with pytest.raises(EngineError, match="gives box, logit: one address for each"):
        engine(fake).context().enqueue(77, 1, 1024, addresses)
    assert fake.context.calls == []


def test_an_engine_says_what_it_takes_gives_and_needs() -> None:
    loaded = engine(Fake())
    assert loaded.max_batch == 4
    assert loaded.input_shape == SIDES
    assert loaded.output_shapes == {"logit": (1, 1, 1), "box": (1, 1, 4)}
    assert loaded.context_bytes == 1 << 20
    assert [layer.name for layer in loaded.layers()] == ["c"]
    assert loaded.compiled() == b""


# --- what is refused, and why ---------------------------------------------------------------------

SAID = {
    "version": "IRuntime::deserializeCudaEngine: Error Code 1: Serialization (Serialization "
    "assertion stdVersionRead == kSERIALIZATION_VERSION failed.Version tag does not match. Note: "
    "Current Version: 240, Serialized Engine Version: 239)",
    "gpu": "The engine plan file is generated on an incompatible device, expecting compute 8.6 got "
    "compute 7.5, please rebuild.",
    "damage": "IRuntime::deserializeCudaEngine: Error Code 1: Serialization (Serialization "
    "assertion plan.header.size == blobSize failed. In parsePlan at /_src/runtime.cpp:780)",
    "memory": "IRuntime::deserializeCudaEngine: Error Code 2: OutOfMemory (no further information)",
    "none": "IRuntime::deserializeCudaEngine: Error Code 1: Cuda Runtime (In ScopedCudaStream at "
    "/_src/cuda.cpp:25 (cudaError 35: CUDA driver version is insufficient for CUDA runtime "
    "version))",
}


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ("version", "it is damaged or of another version of TensorRT"),
        ("gpu", "it is of another GPU"),
        ("damage", "it is damaged (Serialization assertion plan.header.size == blobSize failed);"),
        ("memory", "it needs more GPU memory than is free"),
        ("none", "there is no NVIDIA GPU with a driver that serves it (cudaError 35: CUDA driver"),
    ],
)
def test_a_plan_that_does_not_fit_is_refused_with_the_reason(said: str, message: str) -> None:
    with pytest.raises(EngineError) as error:
        engine(Fake(says=SAID[said]))
    assert str(error.value).startswith(f"engine rnet.plan cannot be loaded: {message}")


@pytest.mark.parametrize("said", ["version", "gpu", "damage"])
def test_a_plan_that_another_build_would_replace_says_so(said: str) -> None:
    assert refusal([SAID[said]]).endswith(REMEDY)


def test_a_gpu_that_is_missing_is_not_answered_with_a_build() -> None:
    assert refusal([SAID["none"]]).endswith("the engines for the CPU run here")


def test_words_that_nobody_knows_are_passed_on() -> None:
    assert refusal(["Something new happened. In f at /a.cpp:1"]) == (
        f"Something new happened; {REMEDY}"
    )
    assert refusal([]) == f"TensorRT does not say why; {REMEDY}"
    assert plainly("") == ""


# --- building -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("flags", "wanted"), [(SimpleNamespace(STRONGLY_TYPED=1), 2), (SimpleNamespace(), 0)]
)
def test_networks_are_strongly_typed_by_flag_or_because_there_is_nothing_else(
    flags: Any, wanted: int
) -> None:
    fake = Fake()
    fake.NetworkDefinitionCreationFlag = flags  # type: ignore[misc]
    build(library(fake), b"onnx", FEW)
    assert fake.networks == [wanted]


def test_what_tensorrt_timed_is_given_back_and_taken_again() -> None:
    fake = Fake()
    built = build(library(fake), b"onnx", FEW, timing_cache=b"earlier")
    assert built.timing_cache == b"timed"
    assert fake.timings == [(b"earlier", False)]
    assert [layer.name for layer in built.layers] == ["c"]  # by the inspector: a GPU is there


def test_timings_of_another_gpu_are_left_out() -> None:
    fake = Fake(mismatch=True)
    build(library(fake), b"onnx", FEW, timing_cache=b"earlier")
    assert fake.timings == [(b"earlier", False), (b"", False)]


def test_tensorrt_builds_for_no_other_gpu_than_that_of_its_machine() -> None:
    with pytest.raises(InvalidOption, match=f"GPU of this machine.* take {RTX}"):
        build(library(Fake()), b"onnx", FEW, ["8.6"])


def test_a_model_that_cannot_be_read_is_an_error() -> None:
    with pytest.raises(EngineError, match="cannot read the ONNX model: no model"):
        build(library(Fake()), b"no onnx", FEW)


def test_an_unknown_library_is_refused() -> None:
    with pytest.raises(InvalidOption, match="it must be tensorrt or tensorrt_rtx"):
        find_tensorrt("tensorflow")


# --- tensorrt_rtx itself --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def rtx() -> Library:
    pytest.importorskip(RTX, reason="tensorrt_rtx comes with unface[rtx]")
    return find_tensorrt(RTX)


@pytest.fixture(scope="module")
def plan(rtx: Library) -> bytes:
    return build(rtx, identity(), FEW, ["8.6"]).plan


def identity() -> bytes:
    """An ONNX model that gives pixels as float, and a convolution of them."""
    onnx = pytest.importorskip("onnx", reason="onnx comes with unface[engines]")
    from unface.calibration.graph import Conv, Graph
    from unface.calibration.onnx_writer import write_onnx

    np = pytest.importorskip("numpy")
    one = Conv("logit", np.ones((1, 3, 1, 1), np.float32), np.zeros(1, np.float32))
    assert onnx
    return write_onnx(Graph("small", (), (one,)), SIDES[:2])


def test_rtx_names_the_compute_capabilities_it_builds_for(rtx: Library) -> None:
    assert {"7.5", "8.0", "8.6", "8.9", "12.0"} <= set(rtx.capabilities)
    with pytest.raises(InvalidOption, match=r"'5\.0'.*knows 7\.5, 8\.0"):
        build(rtx, identity(), FEW, ["5.0"])


def test_rtx_builds_without_a_gpu_and_tells_what_it_fused(rtx: Library) -> None:
    built = build(rtx, identity(), FEW, ["8.6", "8.9"])
    assert len(built.plan) > 1000
    assert built.timing_cache == b""
    assert any("logit/conv" in layer.nodes for layer in built.layers)


def test_rtx_says_what_it_cannot_read(rtx: Library) -> None:
    with pytest.raises(EngineError, match="cannot read the ONNX model"):
        build(rtx, b"no onnx", FEW, ["8.6"])


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda plan: plan[: len(plan) // 2], "it is damaged"),
        (lambda plan: b"", "it is damaged"),
        (lambda plan: b"X" + plan[1:], "damaged or of another version"),
        (lambda plan: b"something else" * 1000, "damaged or of another version"),
    ],
    ids=["cut", "empty", "other magic", "no plan"],
)
def test_a_damaged_plan_is_refused_by_rtx(
    rtx: Library, plan: bytes, damage: Any, message: str
) -> None:
    with pytest.raises(EngineError, match=message):
        DeviceEngine(damage(plan), "rnet.plan", rtx)


@pytest.mark.skipif(device_capability() is not None, reason="there is a GPU here")
def test_without_a_gpu_a_sound_plan_is_refused_with_that_reason(rtx: Library, plan: bytes) -> None:
    with pytest.raises(EngineError, match=r"no NVIDIA GPU with a driver.*CPU run here"):
        DeviceEngine(plan, "rnet.plan", rtx)
