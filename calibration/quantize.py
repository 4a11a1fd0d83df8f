"""INT8 TFLite engines from the float ones: the second half of `make engines`.

    python -m unface.calibration.quantize engines/prebuilt calibration/cache [--images FOLDER]

Without a folder of pictures the ranges come from the calibration cache; with one they are measured
anew and the cache is rewritten. Full-integer, symmetric per-channel weights, per-tensor
activations, ranges by minimum and maximum over real inputs (`samples.py`). Quantized by
ai-edge-quantizer, which the authors of TFLite keep.
"""

from __future__ import annotations

import argparse
import hashlib
from pathlib import Path
from typing import Any

import numpy as np
from ai_edge_quantizer import calibrator, quantizer, recipe, recipe_manager
from ai_edge_quantizer.utils.qsv_utils import min_max_update

from unface.calibration.ranges import Ranges, file_hash, read_ranges, write_ranges
from unface.calibration.samples import harvest, read_images
from unface.engines.build import write_manifest
from unface.mtcnn.network import UInt8Array
from unface.mtcnn.networks import torch_networks

NETWORKS = ("pnet", "rnet", "onet")
SIGNATURE, INPUT = "serving_default", "args_0"  # names that litert-torch gives


def calibrate(engine: Path, samples: UInt8Array) -> Ranges:
    """Measure the range of every tensor of a float engine over samples, uint8 `[n, H, W, 3]`."""
    # The quantizer's own calibration averages the ranges of single samples, which would clip the
    # scores of every face brighter than the average; the true extremes are wanted.
    tool = calibrator.Calibrator(str(engine), qsv_update_func=min_max_update)
    recipes = recipe_manager.RecipeManager()
    recipes.load_quantization_recipe(recipe.static_wi8_ai8())
    tool.calibrate({SIGNATURE: _inputs(samples)}, recipes)
    tensors = {
        name: (float(np.min(r["min"])), float(np.max(r["max"])))
        for name, r in tool.get_model_qsvs().items()
    }
    digest = hashlib.sha256(samples.tobytes()).hexdigest()
    return Ranges(file_hash(engine), len(samples), digest, "min-max", tensors)


def quantize(engine: Path, ranges: Ranges, target: Path) -> None:
    """Write the INT8 form of a float `.tflite` engine; raises `EngineError` for stale ranges."""
    ranges.check(engine)
    calibration: dict[str, Any] = {
        name: {"min": np.array([[low]], np.float32), "max": np.array([[high]], np.float32)}
        for name, (low, high) in ranges.tensors.items()
    }
    model = _quantizer(engine).quantize(calibration).quantized_model
    target.write_bytes(bytes(model))


def _quantizer(engine: Path) -> quantizer.Quantizer:
    tool = quantizer.Quantizer(str(engine))
    tool.load_quantization_recipe(recipe.static_wi8_ai8())
    return tool


def _inputs(samples: UInt8Array) -> list[dict[str, np.ndarray]]:
    # Black and white first, so that the input's range is 0-255 and its scale exactly 1.
    edges = np.zeros_like(samples[:1])
    edges[:, ::2] = 255
    images = np.concatenate([edges, samples])
    return [{INPUT: image[None].astype(np.float32)} for image in images]


def main() -> None:
    """Quantize all engines of a folder."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("engines", type=Path)
    parser.add_argument("cache", type=Path)
    parser.add_argument("--images", type=Path, help="your own pictures: 100-500 with faces")
    arguments = parser.parse_args()
    samples = harvest(read_images(arguments.images), torch_networks()) if arguments.images else None
    for name in NETWORKS:
        engine, cache = arguments.engines / f"{name}.fp32.tflite", arguments.cache / f"{name}.json"
        if samples is not None:
            write_ranges(calibrate(engine, getattr(samples, name)), cache)
        quantize(engine, read_ranges(cache), arguments.engines / f"{name}.int8.tflite")
    write_manifest(arguments.engines)


if __name__ == "__main__":
    main()
