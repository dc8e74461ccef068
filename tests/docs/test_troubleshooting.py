"""docs/troubleshooting.md: every message that it quotes is one that hdgan can print, and its options exist."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from tests.docs.options import options_in, options_of

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
UNKNOWN = "\0"
"""Stands for what a message takes from its caller, and for the names of options, which differ between commands."""
COMMANDS = (
    "train cityscapes-1024p",
    "generate",
    "styles cluster",
    "evaluate",
    "edit",
    "data check",
    "data pack",
    "convert",
    "export",
    "info",
)
OTHERS = {"--nproc-per-node": "torchrun", "--shm-size": "docker", "--norm": "NVIDIA's train.py"}
"""Options of other programs."""


def quoted() -> Iterator[str]:
    """The messages: each block quote of the page, without its line breaks."""
    for block in re.findall(r"(?:^> .*\n?)+", PAGE, re.MULTILINE):
        yield " ".join(line.removeprefix("> ").strip() for line in block.splitlines())


def fixed_words(message: str) -> list[str]:
    """The parts of a message that do not depend on what it is about."""
    parts = (part.strip(" ,;:.()") for part in re.split(r"…%?|--[\w.-]*\w", message))
    return [part for part in parts if part]


def text_of(node: ast.expr) -> str:
    """A string or f-string of the source with UNKNOWN for its values, without line breaks."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return re.sub(r"--[\w.-]*\w", UNKNOWN, node.value)
    if isinstance(node, ast.JoinedStr):
        return "".join(text_of(value) for value in node.values)
    return UNKNOWN


@cache
def texts() -> str:
    """All strings of the package and of its installation, one a line."""
    files = [ROOT / "setup.py", *sorted((ROOT / "hdgan").rglob("*.py"))]
    nodes = (node for file in files for node in ast.walk(ast.parse(file.read_bytes())))
    found = (text_of(node) for node in nodes if isinstance(node, ast.JoinedStr | ast.Constant))
    return "\n".join(sorted({text.replace("\n", " ") for text in found if text.count(" ") > 1}))


def test_quoted_messages_are_in_the_source() -> None:
    messages = list(quoted())
    assert len(messages) >= 30
    assert [part for message in messages for part in fixed_words(message) if part not in texts()] == []
    assert [message for message in messages if max(part.count(" ") for part in fixed_words(message)) < 2] == []


def test_fixed_words() -> None:
    assert fixed_words("--a.b is …: set … 1, or leave … out (…%)") == ["is", "set", "1, or leave", "out"]


def test_options_exist() -> None:
    known = set(OTHERS).union(*map(options_of, COMMANDS))
    named = set(options_in(re.sub(r"\.(?:STAGE|NAME)\.", ".joint.", PAGE)))
    assert len(named) > 40
    assert named - known - {"--model"} == set()
