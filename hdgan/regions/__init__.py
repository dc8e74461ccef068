"""Images too large to be computed at once: networks that run on them region by region, with the same result.

`RegionTensor` stands for an image without holding its pixels. A network runs on it as it is.
"""

from hdgan.regions import norms, operations  # which register themselves
from hdgan.regions.boxes import Box
from hdgan.regions.nodes import Local, Node, Source
from hdgan.regions.run import RegionRun, Statistics
from hdgan.regions.storage import RegionStorage
from hdgan.regions.tensor import RegionTensor

__all__ = [
    "Box",
    "Local",
    "Node",
    "RegionRun",
    "RegionStorage",
    "RegionTensor",
    "Source",
    "Statistics",
    "norms",
    "operations",
]
