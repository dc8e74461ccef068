"""Spots in G's feature maps: one pixel so large that a norm of the plane sees little else.

Karras et al. 2020 (arXiv 1912.04958, section 2) found such droplets behind instance norms in all feature maps of a
layer, and in the images. The measure is therefore a mean over the planes of a layer: in a single plane, the only pixel
of a small object is as large.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

LEAST_PIXELS = 256
"""Smaller planes are left out: one of their pixels is a good part of them."""


def spot_share(generator: nn.Module, generate: Callable[[], object]) -> float:
    """Measure the spots in what the convolutions of a generator compute.

    Args:
        generator: the network; its last convolution, which makes the image, does not count.
        generate: runs it, without gradients.

    Returns:
        The largest pixel's share of the variance of its plane, in [0, 1], averaged over the planes of a layer: that of
        the layer with the largest. 0 if all planes are small.
    """
    shares: list[Tensor] = []

    def measure(_module: nn.Module, _inputs: object, output: Tensor) -> None:
        if output.dim() == 4 and output[0, 0].numel() >= LEAST_PIXELS:
            squares = (output.float() - output.float().mean((2, 3), keepdim=True)).square().flatten(2)
            shares.append((squares.amax(2) / squares.sum(2).clamp_min(1e-12)).mean())

    layers = [module for module in generator.modules() if isinstance(module, nn.Conv2d | nn.ConvTranspose2d)]
    hooks = [layer.register_forward_hook(measure) for layer in layers[:-1]]
    try:
        generate()
    finally:
        for hook in hooks:
            hook.remove()
    return float(torch.stack(shares).max()) if shares else 0.0
