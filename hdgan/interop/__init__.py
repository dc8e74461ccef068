"""Weights of other implementations."""

from hdgan.interop.nvidia import load_network, to_state_dict
from hdgan.interop.nvidia_folder import convert, convert_from_nvidia, convert_to_nvidia

__all__ = ["convert", "convert_from_nvidia", "convert_to_nvidia", "load_network", "to_state_dict"]
