"""`unface calibrate`: measure a calibration on pictures of one's own."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator

from tqdm import tqdm

from unface.calibration.samples import (
    Samples,
    find_images,
    harvest,
    read_images,
    read_samples,
    write_samples,
)
from unface.calibration.scenes import calibration_images
from unface.engines import open_networks
from unface.engines.shelf import NETWORKS
from unface.engines_command import needing_the_extra
from unface.errors import InvalidOption
from unface.mtcnn.network import UInt8Array


def calibrate_on_pictures(arguments: argparse.Namespace) -> int:
    """Harvest samples, measure every layer, write the cache; returns the exit code."""
    with needing_the_extra("calibrating"):
        from unface.calibration.cache import write_calibration
        from unface.calibration.calibrate import calibrate
        from unface.calibration.weights import int8_weights, native_weights
    if arguments.samples is not None and arguments.paths:
        raise InvalidOption("--samples and pictures were given; one of them is enough")
    samples = _samples(arguments)
    for sentence in samples.lacks():
        print(f"unface: {sentence}", file=sys.stderr)
    if arguments.save_samples is not None:
        write_samples(samples, arguments.save_samples)
    for network in NETWORKS:
        images = getattr(samples, network)
        own, own_name = native_weights(network)
        for name, weights in {network: int8_weights(network), own_name: own}.items():
            calibration = calibrate(weights, images, arguments.method)
            path = write_calibration(calibration, arguments.out, name)
            print(f"{path}  {len(images)} samples")
    print(f"now build the engines: unface engines build FOLDER --cache {arguments.out}")
    return 0


def _samples(arguments: argparse.Namespace) -> Samples:
    if arguments.samples is not None:
        return read_samples(arguments.samples)
    networks = open_networks("fp32", arguments.threads)
    if not arguments.paths:
        print(
            "unface: no pictures given: calibrating on the small built-in set, which shows one "
            "person; for use in earnest give 100 to 500 pictures like those you will anonymize",
            file=sys.stderr,
        )
        images = calibration_images()
        return harvest(_watched(iter(images), len(images)), networks)
    files = find_images(arguments.paths)
    return harvest(_watched(read_images(files), len(files)), networks)


def _watched(images: Iterator[UInt8Array], total: int) -> Iterator[UInt8Array]:
    """Yield the images with a progress bar, drawn only when a person watches."""
    with tqdm(total=total, desc="looking", unit="picture", leave=False, disable=None) as progress:
        for image in images:
            yield image
            progress.update()
