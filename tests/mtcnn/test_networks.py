from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scenes import astronaut

torch = pytest.importorskip("torch", reason="torch comes with unface[engines]")

from safetensors.torch import load_file  # noqa: E402
from torch.nn.functional import conv2d, max_pool2d, prelu, softmax  # noqa: E402

from unface.engines.shelf import open_named  # noqa: E402
from unface.engines.weights import SOURCES, convert, tensor_hash  # noqa: E402
from unface.mtcnn.networks import TorchNetwork, load_network  # noqa: E402

WEIGHTS = Path(__file__).parents[2] / "mtcnn" / "weights"
Weights = dict[str, Any]


def published(name: str) -> Weights:
    return load_file(WEIGHTS / f"{name}.safetensors")


def block(x: Any, w: Weights, n: int) -> Any:
    return prelu(conv2d(x, w[f"conv{n}.weight"], w[f"conv{n}.bias"]), w[f"prelu{n}.weight"])


def dense(x: Any, w: Weights, name: str) -> Any:
    return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]


def published_pnet(x: Any, w: Weights) -> tuple[Any, ...]:
    x = block(block(max_pool2d(block(x, w, 1), 2, 2, ceil_mode=True), w, 2), w, 3)
    scores = conv2d(x, w["conv4_1.weight"], w["conv4_1.bias"])
    boxes = conv2d(x, w["conv4_2.weight"], w["conv4_2.bias"])
    return softmax(scores, 1)[:, 1], boxes.permute(0, 2, 3, 1)


def published_rnet(x: Any, w: Weights) -> tuple[Any, ...]:
    x = max_pool2d(block(x, w, 1), 3, 2, ceil_mode=True)
    x = max_pool2d(block(x, w, 2), 3, 2, ceil_mode=True)
    x = block(x, w, 3).permute(0, 3, 2, 1).reshape(len(x), -1)
    x = prelu(dense(x, w, "dense4"), w["prelu4.weight"])
    return softmax(dense(x, w, "dense5_1"), 1)[:, 1], dense(x, w, "dense5_2")


def published_onet(x: Any, w: Weights) -> tuple[Any, ...]:
    x = max_pool2d(block(x, w, 1), 3, 2, ceil_mode=True)
    x = max_pool2d(block(x, w, 2), 3, 2, ceil_mode=True)
    x = max_pool2d(block(x, w, 3), 2, 2, ceil_mode=True)
    x = block(x, w, 4).permute(0, 3, 2, 1).reshape(len(x), -1)
    x = prelu(dense(x, w, "dense5"), w["prelu5.weight"])
    probability = softmax(dense(x, w, "dense6_1"), 1)[:, 1]
    return probability, dense(x, w, "dense6_2"), dense(x, w, "dense6_3")


@pytest.mark.parametrize(
    ("name", "size", "forward"),
    [
        ("pnet", (60, 44), published_pnet),
        ("pnet", (61, 47), published_pnet),
        ("rnet", (24, 24), published_rnet),
        ("onet", (48, 48), published_onet),
    ],
)
def test_folded_networks_compute_what_the_published_ones_do(
    name: str, size: tuple[int, int], forward: Callable[..., tuple[Any, ...]]
) -> None:
    images = np.random.default_rng().integers(0, 256, (9, *size, 3), dtype=np.uint8)
    pixels = torch.from_numpy(images).permute(0, 3, 1, 2).float()
    expected = [t.numpy() for t in forward((pixels - 127.5) * 0.0078125, published(name))]
    outputs = TorchNetwork(load_network(name))(images)
    if name == "pnet":  # of odd sizes the published network also takes a last half cell
        rows, columns = ((side - 12) // 2 + 1 for side in size)
        expected = [values[:, :rows, :columns] for values in expected]
    probability = 1 / (1 + np.exp(-outputs["logit"]))
    np.testing.assert_allclose(probability, expected[0], atol=1e-5)
    np.testing.assert_allclose(outputs["box"], expected[1], atol=1e-5)
    if name == "onet":
        np.testing.assert_allclose(outputs["landmarks"], expected[2], atol=1e-5)


@pytest.mark.parametrize("name", ["pnet", "rnet", "onet"])
def test_engines_compute_what_the_torch_networks_do(name: str, runtime: str) -> None:
    """Every output of every engine that ships, on photographs and on the extremes."""
    side = {"pnet": 256, "rnet": 24, "onet": 48}[name]
    images = np.stack(
        [astronaut()[y : y + side, x : x + side] for y in (0, 60, 200) for x in (150, 190, 250)]
        + [np.full((side, side, 3), grey, np.uint8) for grey in (0, 255)]
    )
    expected = TorchNetwork(load_network(name))(images)
    outputs = getattr(open_named(f"fp32.{runtime}", threads=1), name)(images)
    assert outputs.keys() == expected.keys()
    for output, values in outputs.items():
        assert values.shape == expected[output].shape
        np.testing.assert_allclose(values, expected[output], atol=2e-4)


def test_p_net_leaves_out_the_last_half_cell() -> None:
    network = TorchNetwork(load_network("pnet"))
    for side, expected in ((12, 1), (13, 1), (14, 2), (101, 45)):
        logit = network(np.zeros((1, side, 12, 3), np.uint8))["logit"]
        assert logit.shape == (1, expected, 1)


@pytest.mark.parametrize("name", ["pnet", "rnet", "onet"])
def test_committed_weights_are_the_published_ones_by_hash(name: str) -> None:
    sources = json.loads((WEIGHTS / "sources.json").read_text())
    hashes = {key: tensor_hash(tensor) for key, tensor in published(name).items()}
    assert hashes == sources[name]["tensors"]


@pytest.mark.slow
def test_conversion_from_the_published_wheel_gives_the_committed_files(tmp_path: Path) -> None:
    wheel = published_wheel(tmp_path)
    sources = json.loads((WEIGHTS / "sources.json").read_text())
    with zipfile.ZipFile(wheel) as archive:
        for name, member in SOURCES.items():
            assert hashlib.sha256(archive.read(member)).hexdigest() == sources[name]["sha256"]
    convert(wheel, tmp_path)
    for name in SOURCES:
        file = f"{name}.safetensors"
        assert (tmp_path / file).read_bytes() == (WEIGHTS / file).read_bytes()


def published_wheel(folder: Path) -> Path:
    """Return facenet-pytorch's wheel: from UNFACE_WEIGHTS_WHEEL, else downloaded by pip."""
    if "UNFACE_WEIGHTS_WHEEL" in os.environ:
        return Path(os.environ["UNFACE_WEIGHTS_WHEEL"])
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest"]
    result = subprocess.run(
        [*command, str(folder), "facenet-pytorch==2.6.0"], capture_output=True, text=True
    )
    if result.returncode:
        pytest.skip("facenet-pytorch's wheel cannot be downloaded here")
    return next(folder.glob("*.whl"))
