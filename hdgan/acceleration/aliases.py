"""Which operations of a graph change a tensor in place, and which tensors may lie in the same memory."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import fx, nn

from hdgan.acceleration import calls
from hdgan.acceleration.tracing import IN_PLACE_OPERATORS

_FRESH_LAYERS = (
    *(nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d, nn.Linear),
    *(nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d, nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d),
    *(nn.LayerNorm, nn.GroupNorm, nn.AvgPool2d, nn.MaxPool2d, nn.Upsample),
    *(nn.ReLU, nn.LeakyReLU, nn.PReLU, nn.ELU, nn.GELU, nn.SiLU, nn.Sigmoid, nn.Tanh, nn.Softmax),
)
_FRESH_CALLS: tuple[Any, ...] = (
    *(calls.norm_act, calls.pyramid),
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


class Aliases:
    """The memory in which the tensors of a graph may lie.

    Args:
        layer: gives the layer that a node calls.
        graph: as it is before it is rewritten.
    """

    def __init__(self, layer: Callable[[fx.Node], nn.Module | None], graph: fx.Graph) -> None:
        self._layer = layer
        self._memory: dict[fx.Node, frozenset[Any]] = {}
        for node in graph.nodes:
            self._memory[node] = self._of(node)

    def _of(self, node: fx.Node) -> frozenset[Any]:
        if node.op in ("placeholder", "get_attr"):
            return frozenset([node.op])  # arguments may be the same tensor
        if is_fresh(node, self._layer(node)):
            return frozenset([node])
        return frozenset().union(*(self.of(read) for read in node.all_input_nodes), [node])

    def of(self, node: fx.Node) -> frozenset[Any]:
        """Names of the memory in which a tensor may lie."""
        if node not in self._memory:  # put into the graph since
            self._memory[node] = self._of(node)
        return self._memory[node]

    def replaced(self, new: fx.Node, old: Sequence[fx.Node]) -> None:
        """Note that a node takes the place of others, as which their readers know it."""
        self._memory[new] = frozenset([new]).union(*(self._memory[node] for node in old))

    def changes(self, node: fx.Node, tensor: fx.Node) -> bool:
        """Whether a node may change a tensor."""
        if not mutates(node, self._layer(node)):
            return False
        return any(self.of(read) & self.of(tensor) for read in node.all_input_nodes)
