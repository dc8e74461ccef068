"""One-hot stems: the convolution of the planes that F.one_hot makes of a label map."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import fx, nn

from hdgan.acceleration import calls
from hdgan.acceleration.nodes import Found, argument_of, only_user

if TYPE_CHECKING:
    from hdgan.acceleration.patterns import Rewriter

_TO_PLANES = (0, 3, 1, 2)


def fuse_stems(rewriter: Rewriter) -> list[Found]:
    """Put label_conv2d into the places of F.one_hot, permute(0, 3, 1, 2), a cast, maybe a padding, and a convolution.

    Args:
        rewriter: holds the graph, which is changed.
    """
    starts = [node for node in rewriter.graph.nodes if node.op == "call_function" and node.target is F.one_hot]
    rows = [_fuse_stem(rewriter, node) for node in starts]
    return [row for row in rows if row is not None]


def _fuse_stem(rewriter: Rewriter, one_hot: fx.Node) -> Found | None:
    label, n_labels = argument_of(one_hot, "tensor", 0), argument_of(one_hot, "num_classes", 1, -1)
    permuted = only_user(one_hot)
    cast = only_user(permuted) if permuted is not None and _is_permute(permuted) else None
    last = only_user(cast) if cast is not None else None
    if permuted is None or cast is None or last is None:
        return None
    members, pad = [one_hot, permuted, cast], rewriter.padding(last)
    if pad is not None:
        members.append(last)
        last = only_user(last)
    conv = rewriter.layer(last)
    if last is None or not isinstance(conv, nn.Conv2d) or calls.stem_options(conv, pad) is None:
        return None
    if not isinstance(label, fx.Node) or not rewriter.may_move(label, one_hot, last, members):
        return None
    if n_labels != conv.in_channels or _dtype_of(cast) != conv.weight.dtype:
        return None
    with rewriter.graph.inserting_before(last):
        references = [rewriter.reference(layer) for layer in (conv, pad)]
        stem = rewriter.graph.call_function(calls.label_stem, (label, n_labels, *references))
    last.replace_all_uses_with(stem)
    for member in (last, *reversed(members)):
        rewriter.graph.erase_node(member)
    return Found(str(last.target), "convolution of one-hot planes")


def _is_permute(node: fx.Node) -> bool:
    order: Any = node.args[1:]
    if node.target not in ("permute", torch.permute) or node.kwargs:
        return False
    return (tuple(order[0]) if len(order) == 1 else order) == _TO_PLANES


def _dtype_of(cast: fx.Node) -> Any:
    """What a node casts to; None if it does something else."""
    if cast.op != "call_method" or cast.kwargs:
        return None
    if cast.target == "float":
        return torch.float32
    return cast.args[1] if cast.target in ("to", "type") and len(cast.args) == 2 else None
