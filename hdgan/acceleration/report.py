"""What `accelerate` did, as a table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from hdgan.acceleration.parity import Parity
from hdgan.wording import count


@dataclass(frozen=True)
class Found:
    """Layers that one op computes now; or a layer, or a module that contains some, that is as before."""

    where: str
    """The path of the first of them, or the name of a call in a forward; "" is the module itself."""
    what: str
    """Their kinds, in order."""
    why: str = ""
    """Why they are as before, if they are."""

    def of(self, path: str) -> Found:
        """The same, as it is named from a module to which a path leads this one."""
        return replace(self, where=f"{path}.{self.where}" if path else self.where)


@dataclass(frozen=True)
class Report:
    """What was replaced in a module, what was not and why, and how the two compare. `str` makes a table of it."""

    name: str
    """The class of the module."""
    found: Sequence[Found] = ()
    modules: Sequence[str] = ()
    """The paths of the modules whose forward was replaced; "" is the module itself."""
    comparisons: Sequence[Parity] | None = None
    """Each comparison on the example; None if there was none."""
    notes: Sequence[str] = field(default=())

    @property
    def replaced(self) -> list[Found]:
        """What one op computes now."""
        return [row for row in self.found if not row.why]

    @property
    def kept(self) -> list[Found]:
        """What is as before, and why."""
        return [row for row in self.found if row.why]

    def __str__(self) -> str:
        lines = [f"{self.name}: {count(len(self.replaced), 'replacement')}, {len(self.kept)} kept"]
        lines += _table("replaced", [(row.where or self.name, row.what) for row in self.replaced])
        kept = [(row.where, f"{row.what}: {row.why}") if row.where else (self.name, row.why) for row in self.kept]
        lines += _table("kept", kept)
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
