"""The pages people read first: their links lead somewhere, their commands have these options, their Python is right."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import pytest

from docs.site.sources import reference_paths
from hdgan.training import PRESETS
from tests.docs.options import options_of
from tests.docs.playground import Playground

ROOT = Path(__file__).parents[2]
PAGES = [
    *(ROOT / name for name in ("README.md", "CHANGELOG.md", "CONTRIBUTING.md")),
    ROOT / "examples" / "README.md",
    *sorted((ROOT / "docs").rglob("*.md")),
]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAIRS = ("reproduce report", "bench report", "bench profile")
"""Beside those of styles and data: commands whose second word names one as well."""


class Block(NamedTuple):
    """A block of Python in a page."""

    line: int
    code: str
    reason: str | None
    """Why it is not executed, from a comment in front of it: `<!-- not executed: it trains for hours -->`."""


def python_blocks(page: Path) -> list[Block]:
    text = page.read_text(encoding="utf-8")
    found = re.finditer(r"(?:<!-- not executed: (.*?) -->\s+)?^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    return [Block(text[: block.start(2)].count("\n") + 1, block[2], block[1]) for block in found]


def name_of_page(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


PAGES_WITH_PYTHON = [page for page in PAGES if python_blocks(page)]


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
            yield name_of_page(page), name_of(words), options


def name_of(words: list[str]) -> str:
    if words[0] == "train":
        preset = next((word for word in words[1:] if not word.startswith("-") and word != "PRESET"), "demo")
        return f"train {preset if words[1:2] == [preset] else 'demo'}"
    pair = " ".join(words[:2])
    return pair if words[0] in ("styles", "data") or pair in PAIRS else words[0]


@pytest.mark.parametrize("page", PAGES, ids=name_of_page)
def test_links_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)\s]+)\)", re.sub(r"^```.*?^```", "", page.read_text("utf-8"), flags=re.M | re.S))
    local = [link.partition("#") for link in links if "://" not in link]
    targets = [(page if not name else page.parent / name, anchor) for name, _, anchor in local]
    missing = {os.path.relpath(file, ROOT / "docs") for file, _ in targets if not file.exists()}
    assert missing <= (set(reference_paths()) if page.is_relative_to(ROOT / "docs") else set())  # pages of the site
    assert [(file.name, anchor) for file, anchor in targets if anchor and anchor not in anchors(file)] == []


@lru_cache
def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as those who show Markdown of a repository make them."""
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    slugs = [
        re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in re.findall(r"(?m)^#+ (.*?)\s*$", text)
    ]
    return {f"{slug}-{slugs[:k].count(slug)}" if slug in slugs[:k] else slug for k, slug in enumerate(slugs)}


def test_commands_have_the_options_that_are_shown() -> None:
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


@pytest.mark.parametrize("page", PAGES_WITH_PYTHON, ids=name_of_page)
def test_python_blocks_run(
    page: Path, run: Path, scorer: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The blocks of a page run one after the other, as a reader would run them, on small files."""
    playground = Playground(tmp_path, run, scorer)
    monkeypatch.chdir(tmp_path)
    variables = {"__name__": "documentation"}
    for block in python_blocks(page):
        code = compile(block.code, f"{page.name}:{block.line}", "exec")
        if block.reason is None:
            playground.furnish(block.code)
            exec(code, variables)


def test_few_blocks_are_not_executed_and_say_why() -> None:
    blocks = [block for page in PAGES_WITH_PYTHON for block in python_blocks(page)]
    reasons = [block.reason for block in blocks if block.reason is not None]
    assert all(len(reason.split()) > 2 for reason in reasons)
    assert len(reasons) <= len(blocks) / 4
