"""What `accelerate` did, as a table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from hdgan.acceleration.parity import Parity
from hdgan.wording import count


@dataclass(frozen=True)
class Replaced:
    """Layers that one op computes now."""

    where: str
    """The path of the first of them."""
    what: str
    """Their kinds, in order."""


@dataclass(frozen=True)
class NotReplaced:
    """A layer, or a module that contains some, that is as before."""

    where: str
    what: str
    why: str


@dataclass(frozen=True)
class Report:
    """What was replaced in a module, what was not and why, and how the two compare. `str` makes a table of it."""

    name: str
    """The class of the module."""
    replaced: Sequence[Replaced] = ()
    kept: Sequence[NotReplaced] = ()
    modules: Sequence[str] = ()
    """The paths of the modules whose forward was replaced; "" is the module itself."""
    comparisons: Sequence[Parity] | None = None
    """Each comparison on the example; None if there was none."""
    notes: Sequence[str] = field(default=())

    def __str__(self) -> str:
        lines = [f"{self.name}: {count(len(self.replaced), 'replacement')}, {len(self.kept)} kept"]
        rows = [(f"{row.where or self.name}", row.what) for row in self.replaced]
        lines += _table("replaced", rows)
        lines += _table("kept", [(row.where or self.name, f"{row.what}: {row.why}") for row in self.kept])
        if self.comparisons is None:
            lines.append("not compared with the original, since no example was given")
        elif self.comparisons:
            lines += ["compared with the original:", *(f"  {comparison}" for comparison in self.comparisons)]
        return "\n".join([*lines, *self.notes])


def _table(title: str, rows: Sequence[tuple[str, str]]) -> list[str]:
    if not rows:
        return []
    width = max(len(where) for where, _ in rows)
    return [f"{title}:", *(f"  {where:{width}}  {what}" for where, what in rows)]
