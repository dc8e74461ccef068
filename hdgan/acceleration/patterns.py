"""Which operations of a graph one op computes, and the graph with that op in their place."""

from __future__ import annotations

import inspect
import operator
from collections.abc import Callable, Set
from typing import Any

import torch
import torch.nn.functional as F
from torch import fx, nn

from hdgan.acceleration import calls
from hdgan.acceleration.changes import is_fresh, may_move, mutates
from hdgan.acceleration.nodes import argument_of, only_user
from hdgan.acceleration.reads import Reads
from hdgan.acceleration.report import Found
from hdgan.acceleration.stems import fuse_stems
from hdgan.nn import _paddings
from hdgan.nn.instance_norm_act import keeps_statistics
from hdgan.wording import count

_NOTHINGS = (nn.Identity, nn.Dropout, nn.Dropout2d)
"""Layers that do nothing, if they drop nothing."""
_RELUS = (F.relu, torch.relu, F.relu_, torch.relu_)
_ADDS: tuple[Any, ...] = (operator.add, torch.add)
_ADDS_IN_PLACE: tuple[Any, ...] = (operator.iadd,)


class _LeftLayer(nn.Module):
    """A layer that could do anything."""


_LEFT_LAYER = _LeftLayer()


class Rewriter:
    """Puts the ops into a graph.

    Args:
        root: the module whose forward it is of.
        graph: is changed.
        left: layers that are to be called as they are.
    """

    def __init__(self, root: nn.Module, graph: fx.Graph, left: Set[nn.Module] = frozenset()) -> None:
        self.root, self.graph, self._left = root, graph, left
        self.reads: list[Reads] = []
        """What the changes take for granted, beside what the graph does."""
        self._paths = {module: path for path, module in root.named_modules()}
        self.found: list[Found] = []
        self._fused: dict[fx.Node, Found] = {}

    def rewrite(self) -> list[Found]:
        """Change the graph, and say what was found in it."""
        self._drop_nothings()
        for node in list(self.graph.nodes):
            if self._is_norm(node):
                self._fuse_norm(node)
        for node in list(self._fused):
            self._absorb_pads(node)
        fused: set[fx.Node] = set()
        for node in list(self.graph.nodes):
            if node not in fused and self._is_pool(node):
                fused.update(self._fuse_pools(node))
        self.found += fuse_stems(self)
        self.graph.lint()
        return [*self._fused.values(), *self.found]

    def layer(self, node: Any) -> nn.Module | None:
        """The layer that a node calls, or one of no known kind for a layer that is left."""
        if not isinstance(node, fx.Node) or node.op != "call_module":
            return None
        layer = self.root.get_submodule(str(node.target))
        return _LEFT_LAYER if layer in self._left else layer

    # What a node is. Layers are given as they are; of calls only what the op needs.

    def _is_norm(self, node: Any) -> bool:
        if isinstance(self.layer(node), nn.InstanceNorm1d | nn.InstanceNorm2d | nn.InstanceNorm3d):
            return True
        return isinstance(node, fx.Node) and node.op == "call_function" and node.target is F.instance_norm

    def _norm(self, node: fx.Node) -> tuple[fx.Node, dict[str, Any]] | str:
        """What a norm reads and how norm_act is called for it; or why not."""
        layer = self.layer(node)
        if layer is not None:
            if keeps_statistics(layer):
                return "keeps running statistics"
            if calls.eps_of(layer) is None:
                return "is not nn.InstanceNorm2d or nn.InstanceNorm3d itself, or has hooks"
            x = argument_of(node, "input", 0)
            return (x, {"norm": layer}) if isinstance(x, fx.Node) else "is called with something else than a tensor"
        given = _bound(F.instance_norm, node)
        if (
            given["running_mean"] is not None
            or given["running_var"] is not None
            or given["use_input_stats"] is not True
        ):
            return "uses running statistics"
        if not isinstance(given["eps"], float) or not isinstance(given["input"], fx.Node):
            return "has options that are computed"
        affine = {name: given[name] for name in ("weight", "bias") if given[name] is not None}
        return given["input"], {"norm": given["eps"], **affine}

    def _act(self, node: fx.Node) -> Any:
        """The activation of a node, as norm_act takes it."""
        layer = self.layer(node)
        if layer is not None:
            return layer if calls.activation_of(layer) is not None else None
        if node.op == "call_function" and node.target in _RELUS:
            return 0.0
        if node.op == "call_method" and node.target in ("relu", "relu_"):
            return 0.0
        if node.op == "call_function" and node.target in (F.leaky_relu, F.leaky_relu_):
            slope = argument_of(node, "negative_slope", 1, 0.01)
            return slope if isinstance(slope, float) and 0 < slope < 1 else None
        return None

    def padding(self, node: fx.Node) -> Any:
        """The padding of a node, as norm_act takes it."""
        layer = self.layer(node)
        if layer is not None:
            return layer if calls.padding_of(layer) is not None else None
        if node.op != "call_function" or node.target is not F.pad:
            return None
        sides, mode = argument_of(node, "pad", 1), argument_of(node, "mode", 2, "constant")
        value = argument_of(node, "value", 3)
        if (
            not isinstance(sides, list | tuple)
            or len(sides) != 4
            or mode not in _paddings.OF_CALLS
            or value not in (None, 0)
        ):
            return None
        equal = all(isinstance(side, int) and side == sides[0] > 0 for side in sides)
        return (_paddings.OF_CALLS[mode], sides[0]) if equal else None

    def _addend(self, node: fx.Node, chain: fx.Node) -> fx.Node | None:
        """What a node adds to a chain, if it is a sum of the two that leaves its other operand alone."""
        method = node.op == "call_method" and node.target in ("add", "add_")
        function = node.op == "call_function" and node.target in (*_ADDS, *_ADDS_IN_PLACE)
        if not (function or method) or node.kwargs or len(node.args) != 2:
            return None
        first, second = node.args
        other = second if first is chain else first
        if not isinstance(other, fx.Node) or other is chain or (_adds_in_place(node) and first is not chain):
            return None
        return other

    def _is_pool(self, node: Any) -> bool:
        layer = self.layer(node)
        if layer is not None:
            return calls.is_pyramid_pool(layer) and len(node.args) == 1
        if not isinstance(node, fx.Node) or node.op != "call_function" or node.target is not F.avg_pool2d:
            return False
        names = ("kernel_size", "stride", "padding", "ceil_mode", "count_include_pad", "divisor_override")
        given = [argument_of(node, name, place, None) for place, name in enumerate(names, 1)]
        pairs = [tuple(option) if isinstance(option, list | tuple) else (option, option) for option in given[:3]]
        whole = pairs == [(3, 3), (2, 2), (1, 1)]
        return whole and given[4] is False and not given[3] and not given[5] and isinstance(node.args[0], fx.Node)

    # Replacements.

    def _drop_nothings(self) -> None:
        """Take out the layers that do nothing, which may stand between others."""
        for node in list(self.graph.nodes):
            layer = self.layer(node)
            if layer is None or len(node.args) != 1 or node.kwargs or not calls.is_bare(layer, *_NOTHINGS):
                continue
            dropout = not isinstance(layer, nn.Identity)
            if dropout and layer.p != 0:
                continue
            values = ((("p",), layer.p),) if dropout else ()
            self.reads.append(Reads(tuple(str(node.target).split(".")), type(layer), None, True, values))
            node.replace_all_uses_with(node.args[0])
            self.graph.erase_node(node)

    def _fuse_norm(self, norm: fx.Node) -> None:
        where = str(norm.target) if self.layer(norm) is not None else f"{norm.name} (a call in forward)"
        read = self._norm(norm)
        if isinstance(read, str):
            self.found.append(Found(where, "instance norm", read))
            return
        x, options = read
        members, words, place = [norm], ["instance norm"], norm
        after = only_user(norm)
        if after is not None and (act := self._act(after)) is not None:
            members.append(after)
            kind, _ = calls.activation_of(act)  # type: ignore[misc]
            words.append({"relu": "ReLU", "leaky_relu": "LeakyReLU"}[kind])
            options["act"] = act
            after = only_user(after)
        addend = None if after is None else self._addend(after, members[-1])
        if after is not None and addend is not None and may_move(x, norm, after, members, self.layer):
            members.append(after)
            words.append("residual")
            options["residual"], place = addend, after
            if _adds_in_place(after):
                options["in_place"] = True
        with self.graph.inserting_before(place):
            references = {name: self.reference(value) for name, value in options.items()}
            fused = self.graph.call_function(calls.norm_act, (x, references.pop("norm")), references)
        members[-1].replace_all_uses_with(fused)
        for member in reversed(members):
            self.graph.erase_node(member)
        self._fused[fused] = Found(where, " + ".join(words))

    def _absorb_pads(self, fused: fx.Node) -> None:
        """Let a fused norm write the padded tensor, if all that reads it can do with that."""
        users = list(fused.users)
        residual_of = [user for user in users if user in self._fused and _is_residual_only(user, fused)]
        pads = [user for user in users if user not in residual_of]
        kinds = [self.padding(pad) for pad in pads]
        if not pads or None in kinds or len({calls.padding_of(kind) for kind in kinds}) != 1:
            return
        if len(users) > 1 and not all(self._only_reads(user) for pad in pads for user in pad.users):
            return
        mode, pixels = calls.padding_of(kinds[0])  # type: ignore[misc]
        with self.graph.inserting_before(fused):
            fused.kwargs = {**fused.kwargs, "pad": self.reference(kinds[0])}
        for user in residual_of:
            user.kwargs = {**user.kwargs, "margin": pixels}
        for pad in pads:
            if (layer := self.layer(pad)) is not None:  # another one could pad otherwise, or have hooks
                path = tuple(str(pad.target).split("."))
                self.reads.append(Reads(path, type(layer), None, True, ((("padding",), layer.padding),)))
            pad.replace_all_uses_with(fused)
            self.graph.erase_node(pad)
        found = self._fused[fused]
        self._fused[fused] = Found(found.where, f"{found.what} + {mode} padding {pixels}")

    def _only_reads(self, node: fx.Node) -> bool:
        return node in self._fused or (is_fresh(node, self.layer(node)) and not mutates(node, self.layer(node)))

    def _fuse_pools(self, first: fx.Node) -> list[fx.Node]:
        chain = [first]
        while True:
            below = [user for user in chain[-1].users if self._is_pool(user) and user.args[0] is chain[-1]]
            if not below or not may_move(chain[-1], first, below[0], chain, self.layer):
                break
            chain.append(below[0])
        where = str(first.target) if self.layer(first) is not None else f"{first.name} (a call in forward)"
        with self.graph.inserting_before(first):
            pools = [self.reference(self.layer(node)) for node in chain]
            levels = self.graph.call_function(calls.pyramid, (first.args[0], pools))
            for level, node in enumerate(chain):
                result = self.graph.call_function(operator.getitem, (levels, level))
                node.replace_all_uses_with(result)
        for node in reversed(chain):
            self.graph.erase_node(node)
        self.found.append(Found(where, f"average pyramid, {count(len(chain), 'level')}"))
        return chain

    def reference(self, value: Any) -> Any:
        """A layer as a node of the graph; anything else as it is."""
        if not isinstance(value, nn.Module):
            return value
        return self.graph.create_node("get_attr", self._paths[value])


def _bound(function: Callable[..., Any], node: fx.Node) -> dict[str, Any]:
    bound = inspect.signature(function).bind(*node.args, **node.kwargs)
    bound.apply_defaults()
    return bound.arguments


def _adds_in_place(node: fx.Node) -> bool:
    return node.target in _ADDS_IN_PLACE or node.target == "add_"


def _is_residual_only(user: fx.Node, fused: fx.Node) -> bool:
    return user.kwargs.get("residual") is fused and fused not in user.args
