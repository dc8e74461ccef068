"""An extension of Griffe for docstrings that describe several parameters at once, as in `height, width: in pixels.`

The reference describes each of them on its own, with its type.
"""

from __future__ import annotations

import re
from typing import Any

import griffe

_TOGETHER = re.compile(r"^( +)(\w+(?:, \w+)+): (.*(?:\n\1 +\S.*)*)", re.MULTILINE)
_ARGUMENTS = re.compile(r"^Args:(?:\n(?: .*)?)+", re.MULTILINE)


class OneByOne(griffe.Extension):
    """Gives each of the parameters an entry of its own."""

    def on_object(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        if obj.docstring is not None:
            obj.docstring.value = separated(obj.docstring.value)


def separated(docstring: str) -> str:
    """The docstring with an entry for each parameter."""
    return _ARGUMENTS.sub(lambda section: _TOGETHER.sub(_one_by_one, section[0]), docstring)


def _one_by_one(entry: re.Match[str]) -> str:
    return "\n".join(f"{entry[1]}{name}: {entry[3]}" for name in entry[2].split(", "))
