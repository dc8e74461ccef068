"""Help that fits the terminal."""

from __future__ import annotations

import re
from itertools import pairwise
from pathlib import Path
from typing import Literal

import docstring_parser
import pytest

from hdgan.commands.main import main
from hdgan.commands.parser import folded, run_command
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
    (scorer,) = re.findall(r"--scorer PATH(.*?)--scorer-range", options, re.DOTALL)
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


def test_optional_values_are_shown_without_none_and_may_be_none(capsys: pytest.CaptureFixture[str]) -> None:
    def command(
        file: Path | None = None, n: int | None = 3, kind: Literal["a", "b"] | None = "a", sides: tuple[int, ...] = ()
    ) -> tuple[object, ...]:
        return file, n, kind, sides

    with pytest.raises(SystemExit):
        run_command(command, "command", ["--help"])
    shown = capsys.readouterr().out
    assert "{None}" not in shown
    for option in ("--file PATH", "--n INT", "--kind {a,b}", "(default: None)"):
        assert option in shown
    assert run_command(command, "command", []) == (None, 3, "a", ())
    assert run_command(command, "command", ["--file", "x", "--n", "4", "--kind", "b"]) == (Path("x"), 4, "b", ())
    assert run_command(command, "command", ["--n", "None", "--kind", "None"]) == (None, None, None, ())
    with pytest.raises(SystemExit):
        run_command(command, "command", ["--n", "many"])
    assert "many" in capsys.readouterr().err
