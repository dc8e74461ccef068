"""docs/comparison.md: every cell about other code says where it was read, at which commit."""

from __future__ import annotations

import re
from pathlib import Path

PAGE = (Path(__file__).parents[2] / "docs" / "comparison.md").read_text(encoding="utf-8")


def tables() -> list[list[list[str]]]:
    """The cells of each table of the page, without the line below its head."""
    blocks = re.findall(r"(?:^\|.*\n)+", PAGE, re.MULTILINE)
    lines = [[line for line in block.splitlines() if not set(line) <= {"|", "-"}] for block in blocks]
    return [[[cell.strip() for cell in line[1:-1].split("|")] for line in block] for block in lines]


def test_each_project_has_a_source_for_each_row() -> None:
    comparison, *sources = tables()
    assert {len(row) for row in comparison} == {len(comparison[0])}
    assert len(sources) == len(comparison[0]) - 2, "of all columns but that of names and that of hdgan"
    names = [row[0] for row in comparison]
    assert all([row[0] for row in table] == names and all(row[1] for row in table[1:]) for table in sources)


def test_files_are_linked_at_a_commit() -> None:
    places = re.findall(r"https://github\.com/[\w-]+/[\w-]+/(?:blob|tree)/([^/)]+)", PAGE)
    assert len(places) > 50
    assert [place for place in places if not re.fullmatch("[0-9a-f]{40}", place)] == []
