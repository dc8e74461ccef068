"""One-hot stems: the convolution of the planes that F.one_hot or scatter_ makes of a label map."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import fx, nn

from hdgan.acceleration import calls
from hdgan.acceleration.changes import may_move
from hdgan.acceleration.nodes import argument_of, only_user
from hdgan.acceleration.report import Found

if TYPE_CHECKING:
    from hdgan.acceleration.patterns import Rewriter

_PLANES = "one-hot planes"
_TO_PLANES = (0, 3, 1, 2)
_CASTS = ("float", "half", "double", "bfloat16", "to", "type", "type_as", "cuda", "cpu", "contiguous")
"""Methods that change the dtype or the device of a tensor, and do the same to an empty one."""
_CAST_OPTIONS = {"dtype", "device", "non_blocking"}


@dataclass(frozen=True)
class _OneHotPlanes:
    """One-hot planes in a graph."""

    start: fx.Node
    """F.one_hot, or scatter."""
    zeros: fx.Node | None
    """What scatter sets, as it is made."""
    label: Any
    classes: Any
    """The number of planes, or the size of the zeros."""
    members: list[fx.Node]
    """All nodes that make the planes, from `start` to the planes themselves."""

    @property
    def n_labels(self) -> Any:
        """The number of planes; a node if it is computed."""
        return self.classes[1] if self.zeros is not None else self.classes


def fuse_stems(rewriter: Rewriter) -> list[Found]:
    """Put label_conv2d into the places of one-hot planes, maybe a padding, and a convolution.

    The planes are F.one_hot(label, n).permute(0, 3, 1, 2) or torch.zeros((B, n, H, W)).scatter_(1, label, 1), with
    casts anywhere.

    Args:
        rewriter: holds the graph, which is changed.
    """
    rows = []
    for node in list(rewriter.graph.nodes):
        planes = _one_hot(node) or _scattered(node)
        if planes is not None:
            rows.append(_fuse_stem(rewriter, planes))
    return rows


def _fuse_stem(rewriter: Rewriter, planes: _OneHotPlanes) -> Found:
    where = f"{planes.start.name} (a call in forward)"
    last, members = planes.members[-1], planes.members
    users = list(last.users)
    if len(users) != 1:
        return Found(where, _PLANES, f"are read by {' and '.join(map(_named, users)) or 'nothing'}")
    reader, pad = users[0], rewriter.padding(users[0])
    if pad is not None:
        last, members, reader = reader, [*members, reader], only_user(reader) or reader
    conv = rewriter.layer(reader)
    if not isinstance(conv, nn.Conv2d) or reader.args != (last,) or reader.kwargs:
        return Found(where, _PLANES, f"are read by {_named(reader)}, and not by a convolution alone")
    options = calls.stem_options(conv, pad)
    if isinstance(options, str):
        return Found(where, _PLANES, options)
    if not isinstance(planes.label, fx.Node) or planes.n_labels != conv.in_channels:
        return Found(where, _PLANES, f"are not the {conv.in_channels} channels of the convolution")
    if not may_move(planes.label, planes.start, reader, members, rewriter.layer):
        return Found(where, _PLANES, "may change, or their label map may, before they are convolved")
    like = _emptied(rewriter.graph, planes)
    with rewriter.graph.inserting_before(reader):
        references = [rewriter.reference(layer) for layer in (conv, pad)]
        stem = rewriter.graph.call_function(calls.label_stem, (planes.label, planes.classes, like, *references))
    reader.replace_all_uses_with(stem)
    rewriter.graph.erase_node(reader)
    if pad is not None:
        rewriter.graph.erase_node(last)
    return Found(str(reader.target), f"convolution of {_PLANES}")


def _emptied(graph: fx.Graph, planes: _OneHotPlanes) -> fx.Node:
    """Let an empty tensor take the place of the planes in their casts; the last of these."""
    zeros = planes.zeros
    if zeros is None:
        with graph.inserting_before(planes.start):
            like = graph.call_method("new_empty", (planes.label, 0))
    else:
        zeros.args = (*zeros.args[: int(zeros.op == "call_method")], (0,))
        like = _input(planes.start)
    for node in planes.members:
        if _is_cast(node):
            like = node
        else:
            node.replace_all_uses_with(like)
            graph.erase_node(node)
    return like


def _one_hot(node: fx.Node) -> _OneHotPlanes | None:
    """The planes that begin with a node, if it is F.one_hot of a map."""
    if node.op != "call_function" or node.target is not F.one_hot:
        return None
    members = _followed(node, lambda after: _is_cast(after) or _is_permute(after))
    if sum(map(_is_permute, members)) != 1:
        return None
    return _OneHotPlanes(node, None, argument_of(node, "tensor", 0), argument_of(node, "num_classes", 1, -1), members)


def _scattered(node: fx.Node) -> _OneHotPlanes | None:
    """The planes that begin with a node, if it sets ones in zeros of four dimensions."""
    if node.target not in ("scatter", "scatter_", torch.scatter) or not isinstance(_input(node), fx.Node):
        return None
    options = [argument_of(node, "dim", 1), argument_of(node, "value", 3)]
    if options not in ([1, 1], [-3, 1]) or "reduce" in node.kwargs:
        return None
    zeros = _input(node)
    if node.target == "scatter_":  # gives the same tensor, which may be read by either name
        zeros.replace_all_uses_with(node, delete_user_cb=lambda user: user is not node and user in _after(node))
    while only_user(zeros) is not None and _is_cast(zeros):
        zeros = _input(zeros)
    size = _size_of_zeros(zeros)
    if size is None or only_user(zeros) is None:
        return None
    return _OneHotPlanes(node, zeros, argument_of(node, "index", 2), size, _followed(node, _is_cast))


def _followed(node: fx.Node, belongs: Callable[[fx.Node], bool]) -> list[fx.Node]:
    """A node and those after it that belong to it, each of which is all that reads the one before."""
    chain = [node]
    while (after := only_user(chain[-1])) is not None and belongs(after) and _input(after) is chain[-1]:
        chain.append(after)
    return chain


def _size_of_zeros(node: fx.Node) -> tuple[Any, ...] | None:
    """The size of the four-dimensional zeros that a node makes; None if it does something else."""
    if not node.kwargs.keys() <= {"dtype", "device"}:
        return None
    if node.op == "call_function" and node.target is torch.zeros:
        size = node.args
    elif node.op == "call_method" and node.target == "new_zeros":
        size = node.args[1:]
    else:
        return None
    whole: Any = size[0] if len(size) == 1 else size
    return tuple(whole) if isinstance(whole, list | tuple) and len(whole) == 4 else None


def _after(node: fx.Node) -> set[fx.Node]:
    after = set()
    while (node := node.next).op != "root":
        after.add(node)
    return after


def _input(node: fx.Node) -> Any:
    return argument_of(node, "input", 0)


def _is_permute(node: fx.Node) -> bool:
    """Whether a node moves the classes of F.one_hot in front of height and width."""
    order: Any = node.args[1:]
    if node.kwargs:
        return False
    if node.target in ("movedim", "moveaxis", torch.movedim, torch.moveaxis):
        return order in ((-1, 1), (3, 1))
    return node.target in ("permute", torch.permute) and (tuple(order[0]) if len(order) == 1 else order) == _TO_PLANES


def _is_cast(node: fx.Node) -> bool:
    """Whether a node gives its first input in another dtype or on another device."""
    return node.op == "call_method" and node.target in _CASTS and node.kwargs.keys() <= _CAST_OPTIONS


def _named(node: fx.Node) -> str:
    """What a node does, as its author calls it."""
    if node.op == "output":
        return "the result"
    return str(node.target) if isinstance(node.target, str) else getattr(node.target, "__name__", node.name)
