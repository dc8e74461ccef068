"""Look-alikes of other projects' networks, on which `hdgan.accelerate` is tried and measured.

They are written anew. What they share with the originals is what recognition depends on: which modules follow each
other in an nn.Sequential, what they are called, who shares or iterates over them, and what `forward` takes. Their state
dicts have the keys and shapes of the originals.
"""

from hdgan.benchmarks.foreign.cyclegan import CycleGanDiscriminator, CycleGanGenerator, CycleGanUNet
from hdgan.benchmarks.foreign.monai import MonaiDiscriminator
from hdgan.benchmarks.foreign.pix2pixhd import (
    Pix2PixHDDiscriminator,
    Pix2PixHDEncoder,
    Pix2PixHDEnhancer,
    Pix2PixHDGenerator,
)
from hdgan.benchmarks.foreign.spade import SpadeDiscriminator, SpadeGenerator

__all__ = [
    "CycleGanDiscriminator",
    "CycleGanGenerator",
    "CycleGanUNet",
    "MonaiDiscriminator",
    "Pix2PixHDDiscriminator",
    "Pix2PixHDEncoder",
    "Pix2PixHDEnhancer",
    "Pix2PixHDGenerator",
    "SpadeDiscriminator",
    "SpadeGenerator",
]
