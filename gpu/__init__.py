"""The cascade on an NVIDIA GPU: kernels in CUDA C++ (`src/`), compiled by NVRTC when first used.

`unface.gpu.cascade.GpuCascade` finds faces; `unface.gpu.device` is the door to the GPU. To open one
needs `pip install unface[gpu]` and a driver. What is imported without them imports nothing of CUDA:
`unface.gpu.cuda` and `program` do, and so are imported only when a GPU is opened.
"""
