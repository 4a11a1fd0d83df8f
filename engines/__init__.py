"""Engines: what computes P-, R- and O-Net.

open_networks("fp32", threads=2) -> Networks, from the engines that ship in the package
prebuilt() -> what ships: name, precision, hash
"""

from unface.engines.shelf import Engine, open_networks, prebuilt

__all__ = ["Engine", "open_networks", "prebuilt"]
