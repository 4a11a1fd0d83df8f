"""Calibration: what the networks see, the ranges of their tensors, INT8 engines from them."""
