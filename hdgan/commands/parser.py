"""Command lines parsed by tyro, with help that is wrapped to the width of the terminal.

tyro keeps line breaks in the middle of a docstring's sentence, does not wrap the text above the options, and shows an
optional path as {None}|PATH. This module corrects all three, so that commands can be written as usual.
"""

from __future__ import annotations

import functools
import operator
import re
import shutil
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from types import NoneType, UnionType
from typing import Any, Union, get_args

import docstring_parser
import tyro
from docstring_parser import Docstring
from tyro.constructors import ConstructorRegistry, PrimitiveConstructorSpec, PrimitiveTypeInfo

from hdgan.commands.process import work_begins

_BREAK = re.compile(r"(?<!\n)\n[ \t]*(?![-*] |\s)")
"""A line break that is not followed by a blank line or an item of a list."""

_values = ConstructorRegistry()
"""How values are read from arguments and shown in help, where that differs from tyro's own rules."""


@_values.primitive_rule
def _optional_value(info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec[Any] | None:
    """Show an option that may be None as one of its other type. `None` can still be typed, to undo a preset's value."""
    kinds = get_args(info.type)
    if info.type_origin not in (Union, UnionType) or NoneType not in kinds:
        return None
    other: Any = functools.reduce(operator.or_, (kind for kind in kinds if kind is not NoneType))
    spec = _values.get_primitive_spec(PrimitiveTypeInfo.make(other, info.markers))
    if not isinstance(spec, PrimitiveConstructorSpec):  # the fields of a dataclass are options of their own
        return None
    return replace(
        spec,
        instance_from_str=lambda words: None if words == ["None"] else spec.instance_from_str(words),
        is_instance=lambda value: value is None or spec.is_instance(value),
        str_from_instance=lambda value: ["None"] if value is None else spec.str_from_instance(value),
        choices=spec.choices and (*spec.choices, "None"),
    )


def run_command(command: Callable[..., Any], prog: str, arguments: Sequence[str], **options: Any) -> Any:
    """Call a function, or create a dataclass, from the arguments of a command line; options are those of `tyro.cli`."""
    description = options.pop("description", None) or docstring_parser.parse(command.__doc__ or "").description or ""
    with _folding(), _values:
        return tyro.cli(_at_work(command), prog=prog, args=arguments, description=wrapped(description), **options)


def run_one_of(
    commands: Mapping[str, Callable[..., Any]], prog: str, arguments: Sequence[str], description: str = ""
) -> Any:
    """Call the function that an argument selects, or list the functions."""
    with _folding(), _values:
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
