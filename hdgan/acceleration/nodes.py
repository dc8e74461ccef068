"""What the searches for patterns ask of the nodes of a graph."""

from __future__ import annotations

from typing import Any

from torch import fx


def argument_of(node: fx.Node, name: str, place: int, default: Any = None) -> Any:
    if len(node.args) > place:
        return node.args[place]
    return node.kwargs.get(name, default)


def only_user(node: fx.Node) -> fx.Node | None:
    """The node that reads another one, if there is just one and it reads it once."""
    if len(node.users) != 1:
        return None
    user = next(iter(node.users))
    return user if [*user.args, *user.kwargs.values()].count(node) == 1 else None
