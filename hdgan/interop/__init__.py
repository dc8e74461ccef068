"""Weights of other implementations."""

from hdgan.interop.cyclegan import load_discriminator, load_generator
from hdgan.interop.cyclegan.files import convert_from_cyclegan, convert_to_cyclegan
from hdgan.interop.nvidia import load_network, to_state_dict
from hdgan.interop.nvidia.folder import convert_from_nvidia, convert_to_nvidia

__all__ = [
    "convert_from_cyclegan",
    "convert_from_nvidia",
    "convert_to_cyclegan",
    "convert_to_nvidia",
    "load_discriminator",
    "load_generator",
    "load_network",
    "to_state_dict",
]
