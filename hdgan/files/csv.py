"""CSV: written atomically; from any source, read within limits and checked against a dataclass."""

from __future__ import annotations

import csv
import io
import re
import types
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any, TypeVar, get_args, get_type_hints

from hdgan.config.serialization import from_plain
from hdgan.errors import DataError
from hdgan.files.atomic import atomic_file
from hdgan.files.json import read_bytes

T = TypeVar("T")
_GROWTH = 64
"""A field of one byte becomes an object of up to about this many bytes."""
_WHOLE = re.compile("-?[0-9]{1,18}")


def write_csv(path: Path, heads: Sequence[str], lines: Iterable[Sequence[Any]]) -> None:
    """Write a table; None becomes an empty field.

    Raises:
        HdganError: the file cannot be written.
    """
    with atomic_file(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(heads)
        writer.writerows(lines)


def read_csv(
    path: Path, kind: type[T], remedy: str, rest: str | None = None, renamed: Mapping[str, str] | None = None
) -> list[T]:
    """Read a table whose columns are the fields of the dataclass `kind`, one object per line.

    Args:
        path: the file.
        kind: a dataclass of text and numbers; an empty field is None where the type of a number has it. The
            last columns may be missing, as in files of older versions, where their fields have defaults.
        remedy: what the user can do about a file with other columns.
        rest: name of a field of type dict[str, float | None] that takes all columns beyond those of the others.
        renamed: fields by the names of their columns, where these differ.

    Raises:
        DataError: the file is missing, no regular file, too large, no CSV of these columns, or has a value that its
            field cannot take, which is named with its line.
    """
    content = read_bytes(path, _GROWTH, "a table", DataError)
    try:
        lines = csv.reader(io.StringIO(content.decode("utf-8-sig"), newline=""), strict=True)
        heads = [(renamed or {}).get(head, head) for head in next(lines, [])]
        columns = [field for field in fields(kind) if field.name != rest]  # type: ignore[arg-type]
        while columns and columns[-1].default is not MISSING and columns[-1].name not in heads:
            del columns[-1]  # which files of older versions lack
        named = [field.name for field in columns]
        if heads[: len(named)] != named or (rest is None and heads != named) or len(set(heads)) < len(heads):
            raise DataError(f"{path} does not have the columns that this version of hdgan writes: {remedy}")
        return [_object(kind, named, heads, rest, cells, f"{path}, line {lines.line_num}") for cells in lines]
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 at byte {error.start}; {_REMEDY}") from error
    except csv.Error as error:
        raise DataError(f"{path} is not a CSV file ({error}); {_REMEDY}") from error


_REMEDY = "restore the file from git"


def _object(kind: type[T], named: list[str], heads: list[str], rest: str | None, cells: list[str], where: str) -> T:
    if len(cells) != len(heads):
        raise DataError(f"{where}: the number of fields is not that of the columns; {_REMEDY}")
    hints, n = get_type_hints(kind), len(named)
    values: dict[str, Any] = {name: _value(hints[name], text) for name, text in zip(named, cells[:n], strict=True)}
    if rest is not None:
        values[rest] = {name: _value(float | None, text) for name, text in zip(heads[n:], cells[n:], strict=True)}
    try:
        return from_plain(kind, values, where, DataError)
    except DataError as error:
        raise DataError(f"{error}; {_REMEDY}") from error


def _value(kind: Any, text: str) -> Any:
    """The value of a field. Text instead of a number stays text, which `from_plain` rejects by name."""
    kinds = get_args(kind) or (kind,)
    if str in kinds:
        return text
    if not text and types.NoneType in kinds:
        return None
    if int in kinds:
        return int(text) if _WHOLE.fullmatch(text) else text
    try:
        return float(text)
    except ValueError:
        return text
