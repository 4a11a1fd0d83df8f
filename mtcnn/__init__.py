"""The detector: pyramid, boxes, crops and the three-stage cascade over any three networks."""

from unface.mtcnn.cascade import Cascade
from unface.mtcnn.faces import LANDMARK_NAMES, Face, Faces
from unface.mtcnn.network import Network, Networks
from unface.mtcnn.options import PROFILES, DetectOptions, profile_options

__all__ = [
    "LANDMARK_NAMES",
    "PROFILES",
    "Cascade",
    "DetectOptions",
    "Face",
    "Faces",
    "Network",
    "Networks",
    "profile_options",
]
