"""The cascade on an NVIDIA GPU: kernels in CUDA C++ (`src/`), compiled by NVRTC when first used.

`unface.gpu.cascade.GpuCascade` finds faces; `unface.gpu.device` is the door to the GPU. Needs
`pip install unface[gpu]` and a driver; nothing here is imported where they are not.
"""
