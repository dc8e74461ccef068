"""Weights in files: read without running any code, within limits, and rejected if they are not usable numbers."""

from hdgan.files.safetensors import open_safetensors
from hdgan.weights.pickles import StoredTensor
from hdgan.weights.pth import open_saved, read_weights, require_bounded_archive
from hdgan.weights.state import is_finite, plain_names, require_finite

__all__ = [
    "StoredTensor",
    "is_finite",
    "open_safetensors",
    "open_saved",
    "plain_names",
    "read_weights",
    "require_bounded_archive",
    "require_finite",
]
