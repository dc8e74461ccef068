"""The pages people read first: their links lead somewhere, their commands have these options, their Python is right."""

from __future__ import annotations

import ast
import importlib
import re
import shlex
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path

import pytest

from hdgan.commands.main import main
from hdgan.training import PRESETS

ROOT = Path(__file__).parents[1]
PAGES = [
    *(ROOT / name for name in ("README.md", "CHANGELOG.md", "CONTRIBUTING.md")),
    ROOT / "examples" / "README.md",
    *sorted((ROOT / "docs").glob("*.md")),
]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAIRS = ("reproduce report", "bench report", "bench profile")
"""Beside those of styles and data: commands whose second word names one as well."""


def shown() -> Iterator[tuple[str, str, list[str]]]:
    """Page, command (`train` with its preset) and options of each command in a page's blocks or code spans."""
    for page in PAGES:
        text = page.read_text(encoding="utf-8").replace("\\\n", " ")
        spans = re.findall(r"`((?:hdgan|hdgan-train) [^`]+)`", re.sub(r"```.*?```", "", text, flags=re.DOTALL))
        for line in [*re.findall(r"(?:^|&& |-m )(hdgan(?:-train)? .*)", text, re.MULTILINE), *spans]:
            if page.name == "CHANGELOG.md" or not re.match(r"hdgan(-train)? [a-zA-Z-]", line):
                continue
            words = shlex.split(line, comments=True)
            words = ["train", *words[1:]] if words[0] == "hdgan-train" else words[1:]
            options = [word.split("=")[0] for word in words if word.startswith("--")]
            yield page.name, name_of(words), options


def name_of(words: list[str]) -> str:
    if words[0] == "train":
        preset = next((word for word in words[1:] if not word.startswith("-") and word != "PRESET"), "demo")
        return f"train {preset if words[1:2] == [preset] else 'demo'}"
    pair = " ".join(words[:2])
    return pair if words[0] in ("styles", "data") or pair in PAIRS else words[0]


@pytest.fixture
def options_of(capsys: pytest.CaptureFixture[str]) -> Callable[[str], set[str]]:
    @lru_cache
    def options(command: str) -> set[str]:
        with pytest.raises(SystemExit) as stop:
            main([*command.split(), "--help-all" if command.startswith("train ") else "--help"])
        assert stop.value.code == 0
        return set(re.findall(r"(?<![\w-])--[a-z](?:[\w.-]*\w)?", capsys.readouterr().out))

    return options


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text(encoding="utf-8"))
    local = [link for link in links if "://" not in link]
    assert [link for link in local if not (page.parent / link).exists()] == []


def test_commands_have_the_options_that_are_shown(options_of: Callable[[str], set[str]]) -> None:
    commands = list(shown())
    assert {name for _, name, _ in commands} >= {"train pix2pix", "styles encode", "evaluate", "bench", "info"}
    assert {name.split()[1] for _, name, _ in commands if name.startswith("train ")} <= set(PRESETS)
    unknown = [
        (page, name, option)
        for page, name, options in commands
        for option in options
        if option not in options_of(name) | {"--help", "--version"}
    ]
    assert unknown == []


def test_python_uses_what_there_is() -> None:
    snippets = [
        (page.name, snippet)
        for page in PAGES
        for snippet in re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    ]
    assert {"README.md", "integration.md", "large.md"} <= {page for page, _ in snippets}
    looked_up = 0
    for page, snippet in snippets:
        compile(snippet, page, "exec")
        tree = ast.parse(snippet)
        modules = {}
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom):
                found = {
                    alias.name: getattr(importlib.import_module(str(node.module)), alias.name) for alias in node.names
                }
                modules |= found
            elif isinstance(node, ast.Import):
                modules |= {alias.name: importlib.import_module(alias.name) for alias in node.names}
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in modules:
                assert hasattr(modules[node.value.id], node.attr), ast.unparse(node)
                looked_up += 1
    assert looked_up > 5
