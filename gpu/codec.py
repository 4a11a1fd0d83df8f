"""JPEG on the device, by NVIDIA's nvImageCodec where that is installed.

**Not run on a GPU yet**: its calls were checked with nvImageCodec's CPU backends, which take the
same ones, and nothing uses it by itself. To be seen on a GPU first:

- What nvJPEG makes of a damaged file. libjpeg fills what is missing with gray; a decoder that left
  there what it decoded before would show one sender another's picture. Until that is known, decode
  here only what comes from one owner, and strangers' files on the CPU.
- Whether its pixels give the faces that libjpeg's give: it computes the inverse DCT otherwise.

`pip install 'nvidia-nvimgcodec-cu13[nvjpeg]>=0.9'`.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import Any

from unface.gpu.plan import CHANNELS

_FAILURES = (RuntimeError, ValueError, TypeError, MemoryError)
_HEAD, _END = b"\xff\xd8\xff\xe0", b"\xff\xd9"  # SOI and a JFIF segment; EOI


@dataclass(frozen=True)
class Resident:
    """A picture on the device, RGB without gaps, as the CUDA array interface tells of it."""

    pointer: int
    width: int
    height: int

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        return {
            "shape": (self.height, self.width, CHANNELS),
            "typestr": "|u1",
            "data": (self.pointer, False),
            "strides": None,
            "version": 3,
        }


class DeviceCodec:
    """Decodes and encodes JPEGs on a device. Not thread-safe.

    Whatever goes wrong, the answer is None, and the CPU's codec does it or says why not.
    """

    def __init__(self, module: Any, device: int, *backends: Any) -> None:
        self._module = module
        options = {"device_id": device, "backends": [module.Backend(kind) for kind in backends]}
        self._decoder, self._encoder = module.Decoder(**options), module.Encoder(**options)
        self._decoding = module.DecodeParams(
            apply_exif_orientation=False,
            color_spec=module.ColorSpec.SRGB,
            sample_format=module.SampleFormat.I_RGB,
        )

    def decode(self, file: bytes, width: int, height: int, stream: int) -> Any | None:
        """Return the pixels of a JPEG as an image with `__cuda_array_interface__`, or None.

        `file` must be a plain one, without metadata and of the size said, as `unface.anonymize`
        tells and leaves it (`Container.pixels_file`). The pixels are RGB without gaps, to be used
        in `stream` (its handle), while the image is held.
        """
        try:
            source = self._module.CodeStream(file)
            image = self._decoder.decode(source, params=self._decoding, cuda_stream=stream)
        except _FAILURES:
            return None
        if image is None or tuple(image.shape) != (height, width, CHANNELS):
            return None
        gapless = tuple(image.strides) == (width * CHANNELS, CHANNELS, 1)
        return image if gapless and image.dtype == "uint8" else None

    def encode(
        self, pixels: Any, width: int, height: int, quality: int, stream: int
    ) -> bytes | None:
        """Return pixels as a baseline JPEG, 4:2:0, without metadata, or None.

        `pixels` is a `Resident` that is whole, covered and waited for.
        """
        module = self._module
        parameters = module.EncodeParams(
            quality_type=module.QualityType.QUALITY,
            quality_value=quality,
            chroma_subsampling=module.ChromaSubsampling.CSS_420,
        )
        try:
            image = module.as_image(pixels, stream, sample_format=module.SampleFormat.I_RGB)
            coded = self._encoder.encode(image, "jpeg", params=parameters, cuda_stream=stream)
            if coded is None or (coded.width, coded.height) != (width, height):
                return None
            file = bytes(coded)
        except _FAILURES:
            return None
        return file if file.startswith(_HEAD) and file.endswith(_END) else None


def open_codec(device: int = 0) -> DeviceCodec | None:
    """Return the codec of a GPU; None where nvImageCodec or its GPU is not there."""
    try:
        module = import_module("nvidia.nvimgcodec")
        kinds = module.BackendKind
        return DeviceCodec(module, device, kinds.HW_GPU_ONLY, kinds.GPU_ONLY, kinds.HYBRID_CPU_GPU)
    except (ImportError, AttributeError, *_FAILURES):
        return None
