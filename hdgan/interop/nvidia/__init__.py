"""NVIDIA/pix2pixHD: its networks, checkpoint folders, opt.txt and clusters."""

from hdgan.interop.nvidia.networks import Network, layer_names, load_network, to_state_dict

__all__ = ["Network", "layer_names", "load_network", "to_state_dict"]
