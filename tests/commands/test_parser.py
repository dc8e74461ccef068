"""Help that fits the terminal."""

from __future__ import annotations

import re
from itertools import pairwise

import docstring_parser
import pytest

from hdgan.commands.main import main
from hdgan.commands.parser import folded
from hdgan.commands.process import NARROWEST


def test_folding_keeps_paragraphs_and_lists() -> None:
    assert folded("one\n    two\n\nthree\n- four\n  five\n* six") == "one two\n\nthree\n- four five\n* six"


def test_help_for_a_terminal_of_one_column_ends(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "1")
    with pytest.raises(SystemExit):
        main(["evaluate", "--help"])
    _, options = capsys.readouterr().out.split("positional arguments")
    assert max(map(len, options.splitlines())) == NARROWEST


@pytest.mark.parametrize("columns", [80, 110, 140])
def test_help_is_wrapped_to_the_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, columns: int
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    parsers = docstring_parser.parse, docstring_parser.parse_from_object
    with pytest.raises(SystemExit):
        main(["evaluate", "--help"])
    assert (docstring_parser.parse, docstring_parser.parse_from_object) == parsers
    about, options = capsys.readouterr().out.split("positional arguments")
    (paragraph,) = (part for part in about.split("\n\n") if "scorer, which recognises" in " ".join(part.split()))
    (scorer,) = re.findall(r"--scorer \{None\}\|PATH(.*?)--scorer-range", options, re.DOTALL)
    for text, words in (
        (paragraph, "trains one on the real"),
        (scorer, "by default scorer.safetensors in the folder of"),
    ):
        lines = [line.strip("│ ") for line in text.splitlines() if line.strip("│ ")]
        assert words in " ".join(lines)
        longest = max(map(len, lines))
        assert longest <= columns
        # A word more would have been too long, by as much as the lines of the paragraph hang at least.
        assert all(len(f"{line} {after.split()[0]}") > longest - 2 for line, after in pairwise(lines))
