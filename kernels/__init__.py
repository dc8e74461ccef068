"""Triton kernels of the ops in `hdgan.ops`, one file an op; imported as `hdgan.kernels`."""
