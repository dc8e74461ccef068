"""Command lines parsed by tyro, with help that is wrapped to the width of the terminal.

tyro keeps line breaks in the middle of a docstring's sentence, and does not wrap the text above the options. This
module corrects both, so that docstrings can be written as usual.
"""

from __future__ import annotations

import functools
import re
import shutil
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import docstring_parser
import tyro
from docstring_parser import Docstring

from hdgan.commands.process import work_begins

_BREAK = re.compile(r"(?<!\n)\n[ \t]*(?![-*] |\s)")
"""A line break that is not followed by a blank line or an item of a list."""


def run_command(command: Callable[..., Any], prog: str, arguments: Sequence[str], **options: Any) -> Any:
    """Call a function, or create a dataclass, from the arguments of a command line; options are those of `tyro.cli`."""
    description = options.pop("description", None) or docstring_parser.parse(command.__doc__ or "").description or ""
    with _folding():
        return tyro.cli(_at_work(command), prog=prog, args=arguments, description=wrapped(description), **options)


def run_one_of(
    commands: Mapping[str, Callable[..., Any]], prog: str, arguments: Sequence[str], description: str = ""
) -> Any:
    """Call the function that an argument selects, or list the functions."""
    with _folding():
        working = {name: _at_work(command) for name, command in commands.items()}
        return tyro.extras.subcommand_cli_from_dict(
            working, prog=prog, description=wrapped(description), args=arguments
        )


def _at_work(command: Callable[..., Any]) -> Callable[..., Any]:
    """A function that handles Ctrl-C as an exception once it runs. A class is returned unchanged, since creating it is
    quick."""
    if isinstance(command, type):
        return command

    @functools.wraps(command)
    def work(*args: Any, **kwargs: Any) -> Any:
        work_begins()
        return command(*args, **kwargs)

    return work


def folded(text: str) -> str:
    """The text with every paragraph and every item of a list on one line."""
    return _BREAK.sub(" ", text)


def wrapped(text: str) -> str:
    """The text wrapped for the terminal. Lines hang, since tyro would join those that begin with a letter."""
    fill = functools.partial(
        textwrap.fill, width=shutil.get_terminal_size().columns, subsequent_indent="  ", break_on_hyphens=False
    )
    return "\n\n".join(fill(paragraph) for paragraph in folded(text).split("\n\n"))


@contextmanager
def _folding() -> Iterator[None]:
    """Let tyro find `folded` descriptions. It has no hook for that, but looks its parsers up by these names."""

    def fold(parse: Callable[..., Docstring]) -> Callable[..., Docstring]:
        def parse_folded(*args: Any, **kwargs: Any) -> Docstring:
            docstring = parse(*args, **kwargs)
            for part in docstring.params:
                part.description = folded(part.description or "") or None
            docstring.long_description = folded(docstring.long_description or "") or None
            return docstring

        return parse_folded

    before = docstring_parser.parse, docstring_parser.parse_from_object
    docstring_parser.parse, docstring_parser.parse_from_object = map(fold, before)
    try:
        yield
    finally:
        docstring_parser.parse, docstring_parser.parse_from_object = before
