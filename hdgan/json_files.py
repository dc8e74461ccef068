"""Reading JSON that somebody else may have written: bounded, and checked against a dataclass."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from hdgan.config_io import from_plain
from hdgan.errors import CheckpointError, HdganError
from hdgan.files import require_file
from hdgan.limits import require_bounded

T = TypeVar("T")
_GROWTH = 16
"""Python objects take up to about this many times the bytes of their JSON text."""


def parse_json(
    text: str | bytes, where: str, remedy: str = "write it again", error: type[HdganError] = CheckpointError
) -> Any:
    """Decode JSON as plain values. NaN and infinities, which JSON does not have, are refused.

    Args:
        text: the JSON; bytes are UTF-8.
        where: what the error message starts with, usually the file.
        remedy: what the user can do about a damaged file.
        error: what is raised.

    Raises:
        HdganError: of the given class, if the text is not JSON, or nested too deeply.
    """
    try:
        content = text.decode("utf-8") if isinstance(text, bytes) else text
        content.encode("utf-8")  # JSON's \u escapes and surrogates of undecodable names end in tracebacks later
        return json.loads(content, parse_constant=_refuse_constant)
    except RecursionError:
        raise error(f"{where} is damaged (nested too deeply): {remedy}") from None
    except ValueError as problem:
        raise error(f"{where} is damaged ({problem}): {remedy}") from problem


def read_json(
    path: Path, kind: type[T], remedy: str = "write it again", error: type[HdganError] = CheckpointError
) -> T:
    """Read a JSON file as the dataclass `kind`, as strictly as `from_plain`.

    Args:
        path: the file.
        kind: a dataclass, or `dict` or `list` for plain values.
        remedy: what the user can do about a damaged file.
        error: what is raised.

    Raises:
        HdganError: of the given class, if the file is missing, no regular file, too large, not JSON, or has fields
            that `kind` does not have or cannot take.
    """
    require_file(path, error)
    size = path.stat().st_size
    require_bounded(path, size * _GROWTH, f"a JSON file of {size} bytes", error)
    try:
        content = path.read_bytes()
    except OSError as problem:
        raise error(f"{path} cannot be read ({problem.strerror}): make it readable") from problem
    data = parse_json(content, str(path), remedy, error)
    try:
        return from_plain(kind, data, str(path))
    except CheckpointError as problem:
        raise error(str(problem)) from problem


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON value")
