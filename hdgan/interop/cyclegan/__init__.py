"""junyanz/pytorch-CycleGAN-and-pix2pix: its networks and checkpoint folders."""

from hdgan.interop.cyclegan.networks import layer_names, load_discriminator, load_generator, to_state_dict

__all__ = ["layer_names", "load_discriminator", "load_generator", "to_state_dict"]
