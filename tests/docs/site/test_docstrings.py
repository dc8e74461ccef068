"""Parameters that a docstring describes together."""

from __future__ import annotations

from docs.site.docstrings import separated

TOGETHER = """Of a, b: c.

Args:
    a: x.
    b, c: y
        z.
    d: w.

Returns:
    e, f: g."""


def test_parameters_get_entries_of_their_own() -> None:
    entries = "    b: y\n        z.\n    c: y\n        z.\n"
    assert separated(TOGETHER) == TOGETHER.replace("    b, c: y\n        z.\n", entries)
    assert separated("No arguments.") == "No arguments."
