"""Docstrings that describe several parameters at once, as in `height, width: in pixels.`"""

from __future__ import annotations

import re

_TOGETHER = re.compile(r"^( +)(\w+(?:, \w+)+): (.*(?:\n\1 +\S.*)*)", re.MULTILINE)
_ARGUMENTS = re.compile(r"^Args:(?:\n(?: .*)?)+", re.MULTILINE)


def separated(docstring: str) -> str:
    """The docstring with an entry for each parameter, so that the reference can show its type."""
    return _ARGUMENTS.sub(lambda section: _TOGETHER.sub(_one_by_one, section[0]), docstring)


def _one_by_one(entry: re.Match[str]) -> str:
    return "\n".join(f"{entry[1]}{name}: {entry[3]}" for name in entry[2].split(", "))
