"""The options of commands, as their help lists them, for tests of pages that name options."""

from __future__ import annotations

import io
import re
from contextlib import redirect_stdout
from functools import cache

import pytest

from hdgan.commands.main import main


def options_in(text: str) -> list[str]:
    """All long options that a text names, such as --data.root."""
    return re.findall(r"(?<![\w-])--[A-Za-z](?:[\w.-]*\w)?", text)


@cache
def options_of(command: str) -> frozenset[str]:
    """The long options of a command, such as `generate`, or of all of the configuration of `train PRESET`."""
    with redirect_stdout(io.StringIO()) as printed, pytest.raises(SystemExit) as stop:
        main([*command.split(), "--help-all" if command.startswith("train ") else "--help"])
    assert stop.value.code == 0
    return frozenset(options_in(printed.getvalue()))
