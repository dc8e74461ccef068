"""What the searches for patterns share: nodes of a graph, and what was found in it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import fx


@dataclass(frozen=True)
class Found:
    """Operations that one op replaces, or a norm that it does not."""

    where: str
    """The path of the first layer, from the traced module; or the name of a call in its forward."""
    what: str
    why_not: str | None = None


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
