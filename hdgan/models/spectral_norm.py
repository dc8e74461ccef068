"""Spectral norm (Miyato et al. 2018): the weights of convolutions are divided by their largest singular values.

It is `torch.nn.utils.parametrizations.spectral_norm`, which estimates the value by power iterations, with one
difference: a forward pass does not change the estimate. PyTorch's own refines it in every forward pass in training
mode. D would then be another network on the fake than on the photo. Here the trainer refines it once after each update
(`refine`). The two vectors of an estimate are buffers of the convolution and are saved with its weight.
"""

from __future__ import annotations

import copy
from typing import TypeVar

import torch
from torch import nn
from torch.nn.utils.parametrizations import spectral_norm
from torch.nn.utils.parametrize import ParametrizationList, is_parametrized

N = TypeVar("N", bound=nn.Module)


def normalised(network: N, enabled: bool = True) -> N:
    """The network itself, with spectral norm on all of its convolutions if that is enabled.

    Args:
        network: with its initial weights.
        enabled: whether to do anything.
    """
    for conv in [module for module in network.modules() if isinstance(module, nn.Conv2d | nn.ConvTranspose2d)]:
        if enabled:
            spectral_norm(conv)
            _estimate_of(conv).eval().is_ours = True  # type: ignore[assignment]
    return network


@torch.no_grad()
def refine(network: nn.Module) -> None:
    """One power iteration for the estimate of each weight that trains.

    It belongs outside of autocast, which would multiply in bfloat16. A forward pass under autocast on a GPU does so
    for the value that it divides by, which is then off by about as much as a weight that is rounded to bfloat16.
    """
    for conv in _normalised_in(network):
        estimate = _estimate_of(conv)
        if estimate.original.requires_grad:
            estimate.train()
            estimate()
            estimate.eval()


def without_spectral_norm(network: N) -> N:
    """The network itself if it has no spectral norm, else a copy of plain convolutions with the divided weights."""
    if not _normalised_in(network):
        return network
    network = copy.deepcopy(network)
    for conv in _normalised_in(network):
        weight, trains = conv.weight.detach(), _estimate_of(conv).original.requires_grad  # type: ignore[operator]
        # PyTorch's remove_parametrizations would take the weight away from the copied network too: they share the class
        # that it makes for a parametrised module.
        del conv.parametrizations
        conv.__class__ = type(conv).__bases__[0]
        conv.weight = nn.Parameter(weight, trains)
    return network


def class_without_norm(module: nn.Module) -> type[nn.Module]:
    """The class of a module or, for a convolution that has been `normalised`, that of the convolution without it.

    The weight of such a convolution is a function of its parameter, and stays the same if it is computed again. That is
    not so once somebody has put it into training mode, and need not be so for other parametrisations.
    """
    parametrizations = module._modules.get("parametrizations")
    if isinstance(parametrizations, nn.ModuleDict) and len(parametrizations) == 1 and "weight" in parametrizations:
        estimate = _estimate_of(module)
        if getattr(estimate, "is_ours", False) and len(estimate) == 1 and not estimate.training:
            return type(module).__bases__[0]
    return type(module)


def _normalised_in(network: nn.Module) -> list[nn.Module]:
    return [module for module in network.modules() if is_parametrized(module, "weight")]


def _estimate_of(conv: nn.Module) -> ParametrizationList:
    """The vectors from which a convolution's weight is computed, with its original weight."""
    parametrizations = conv.parametrizations
    assert isinstance(parametrizations, nn.ModuleDict)
    estimate = parametrizations["weight"]
    assert isinstance(estimate, ParametrizationList)
    return estimate
