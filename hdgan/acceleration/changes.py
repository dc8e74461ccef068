"""Which operations of a graph change a tensor in place, and whether another one may be moved past them."""

from __future__ import annotations

import operator
from collections.abc import Callable, Collection
from typing import Any

import torch
import torch.nn.functional as F
from torch import fx, nn

from hdgan.acceleration import calls
from hdgan.acceleration.nodes import only_user
from hdgan.acceleration.tracing import IN_PLACE_OPERATORS

_FRESH_LAYERS = (
    *(nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d, nn.Linear),
    *(nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d, nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d),
    *(nn.LayerNorm, nn.GroupNorm, nn.AvgPool2d, nn.MaxPool2d, nn.Upsample),
    *(nn.ReLU, nn.LeakyReLU, nn.PReLU, nn.ELU, nn.GELU, nn.SiLU, nn.Sigmoid, nn.Tanh, nn.Softmax),
)
_FRESH_CALLS: tuple[Any, ...] = (
    *(calls.norm_act, calls.pyramid, calls.label_stem, torch.zeros),
    *(operator.add, operator.sub, operator.mul, operator.truediv),
    *(torch.add, torch.sub, torch.mul, torch.cat, torch.tanh, torch.sigmoid, torch.relu),
    *(F.conv2d, F.conv_transpose2d, F.relu, F.leaky_relu, F.avg_pool2d, F.instance_norm, F.tanh, F.sigmoid),
)
_IN_PLACE_CALLS = (*(getattr(operator, name) for name in IN_PLACE_OPERATORS), operator.setitem)


def mutates(node: fx.Node, layer: nn.Module | None) -> bool:
    """Whether a node may change a tensor that it reads. A layer that is not PyTorch's may do anything."""
    if node.kwargs.get("inplace") or node.kwargs.get("out") is not None:
        return True
    if node.op == "call_module":
        return not type(layer).__module__.startswith("torch.nn.") or bool(getattr(layer, "inplace", False))
    name = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", "")
    if node.op == "call_method":
        return name.endswith("_")
    if node.op == "call_function":
        in_place = node.target in _IN_PLACE_CALLS or (name.endswith("_") and not name.endswith("__"))
        return in_place or any(argument is True for argument in node.args[1:])  # as in relu(x, True)
    return False


def is_fresh(node: fx.Node, layer: nn.Module | None) -> bool:
    """Whether a node certainly gives a new tensor."""
    if mutates(node, layer):
        return False
    if node.op == "call_module":
        return type(layer) in _FRESH_LAYERS
    return node.op == "call_function" and node.target in _FRESH_CALLS


def may_move(
    read: fx.Node,
    start: fx.Node,
    end: fx.Node,
    members: Collection[fx.Node],
    layer: Callable[[fx.Node], nn.Module | None],
) -> bool:
    """Whether what `start` reads is certainly still the same at `end`.

    It is if `start` alone knows of it, or if whatever changes in between was made in between, so that nothing older
    lies in its memory.

    Args:
        read: what `start` reads.
        start, end: nodes of a graph.
        members: nodes between the two that move along, and whose results must not change either.
        layer: gives the layer that a node calls.
    """
    if only_user(read) is start and is_fresh(read, layer(read)):
        return True
    made: set[fx.Node] = set()
    node = start.next
    while node is not end:
        if node not in members:
            changes = mutates(node, layer(node))
            if changes and not made.issuperset(node.all_input_nodes):
                return False
            if changes or is_fresh(node, layer(node)):
                made.add(node)
        node = node.next
    return True
