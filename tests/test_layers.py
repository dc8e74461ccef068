"""Which folder may import which: the list in docs/design.md, from the top down."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "hdgan"
MOST_LAYERS = 9
"""From the programs to the ops."""


def layers() -> list[list[str]]:
    """The list of layers in docs/design.md, each with its folders and modules, from the top down."""
    text = (ROOT / "docs/design.md").read_text()
    block = re.search(r"<!-- layers -->\n```\n(.*?)```", text, re.DOTALL)
    assert block is not None
    return [line.split("#")[0].split() for line in block[1].splitlines()]


LAYERS = layers()
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}


def part_of(module: str) -> str:
    """The folder, or the single module, of hdgan that a dotted name lies in; empty for hdgan itself."""
    return [*module.split("."), ""][1]


def owner(file: Path) -> str:
    """The folder, or the single module, that a file is of."""
    return part_of(".".join(file.relative_to(ROOT).with_suffix("").parts))


def imports(file: Path) -> Iterator[str]:
    """Everything of hdgan that a file imports, also inside functions and for type checkers, as dotted names."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module == "hdgan":
            yield from (f"hdgan.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module


def sources() -> list[Path]:
    """All files of the package, and those behind its two links but for the test that lies beside the benchmarks."""
    folders = (PACKAGE, PACKAGE / "benchmarks", PACKAGE / "kernels")
    beside = ("conftest.py", "test_benchmarks.py")
    return sorted({file for folder in folders for file in folder.rglob("*.py") if file.name not in beside})


def test_every_class_has_a_name_of_its_own() -> None:
    places: dict[str, list[str]] = {}
    for file in sources():
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.ClassDef):
                places.setdefault(node.name.lstrip("_"), []).append(str(file.relative_to(ROOT)))
    assert {name: files for name, files in places.items() if len(files) > 1} == {}


def test_every_part_has_a_layer() -> None:
    parts = {owner(file) for file in sources()} - {"__init__"}
    assert parts == set(LEVEL)
    assert LEVEL["ops"] - LEVEL["__main__"] < MOST_LAYERS


@pytest.mark.parametrize("file", sources(), ids=lambda file: str(file.relative_to(PACKAGE)))
def test_no_import_runs_up(file: Path) -> None:
    own = owner(file)
    if own == "__init__":  # hdgan.load, which is imported when it is asked for
        return
    for module in imports(file):
        part = part_of(module)
        if module.split(".")[0] == "hdgan" and part not in ("", own):
            assert LEVEL[part] > LEVEL[own], f"{own} imports {module}, which is not below it"
