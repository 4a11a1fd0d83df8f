"""The compiled core of the cascade: resampling, networks and suppression as C with SIMD.

Everything here has a counterpart in numpy, OpenCV and LiteRT that serves where there is no core
(`unface.kernels.library.instruction_set() == "none"`): another processor, or no compiler when
unface was installed. `docs/performance.md` has what was measured against these.
"""
