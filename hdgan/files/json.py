"""JSON: written atomically; from any source, read within limits and checked against a dataclass."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from hdgan.config.serialization import from_plain, to_plain
from hdgan.errors import CheckpointError, HdganError
from hdgan.files import require_file, write_text
from hdgan.files.limits import require_bounded

T = TypeVar("T")
_GROWTH = 32
"""Python objects take up to about this many times the bytes of their JSON text; "{}," is three bytes and 72."""
_MOST_DIGITS = 20
"""The length of the largest 64-bit integers."""
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")


def write_json(path: Path, value: Any) -> None:
    """Write a config, or plain values, as indented JSON.

    Raises:
        HdganError: the file cannot be written.
    """
    write_text(path, json.dumps(to_plain(value), indent=2) + "\n")


def parse_json(
    text: str | bytes, where: str, remedy: str = "write it again", error: type[HdganError] = CheckpointError
) -> Any:
    """Decode JSON as plain values, more strictly than `json.loads`.

    It refuses what Python reads although JSON does not have it: NaN, infinities, and halves of surrogate pairs, which
    cannot be printed or written. It also refuses integers beyond 64 bits, numbers beyond the largest float, and a name
    that an object has twice, since one of the values would be lost. A byte order mark at the start is ignored.

    Args:
        text: the JSON; bytes are UTF-8.
        where: what the error message starts with, usually the file.
        remedy: what the user can do about a damaged file.
        error: the class of the error to raise.

    Raises:
        HdganError: of the given class, if the text is not such JSON, or nested too deeply.
    """
    try:
        content = text.decode("utf-8") if isinstance(text, bytes) else text
        value = _DECODER.decode(content.removeprefix("\ufeff"))
        if isinstance(text, str) or _SURROGATE.search(content):
            json.dumps(value, ensure_ascii=False).encode("utf-8")
    except RecursionError:
        raise error(f"{where} is damaged (nested too deeply): {remedy}") from None
    except UnicodeError as problem:
        raise error(f"{where} is damaged (its text is not UTF-8): {remedy}") from problem
    except ValueError as problem:
        raise error(f"{where} is damaged ({problem}): {remedy}") from problem
    return value


def read_json(
    path: Path, kind: type[T], remedy: str = "write it again", error: type[HdganError] = CheckpointError
) -> T:
    """Read a JSON file as the dataclass `kind`, as strictly as `from_plain`.

    Args:
        path: the file.
        kind: a dataclass, or `dict` or `list` for plain values.
        remedy: what the user can do about a damaged file.
        error: the class of the error to raise.

    Raises:
        HdganError: of the given class, if the file is missing, no regular file, too large, not JSON, or has fields
            that `kind` does not have or cannot take.
    """
    content = read_bytes(path, _GROWTH, "a JSON file", error)
    return from_plain(kind, parse_json(content, str(path), remedy, error), str(path), error)


def read_bytes(path: Path, growth: int, what: str, error: type[HdganError] = CheckpointError) -> bytes:
    """The content of a file that will be parsed.

    Args:
        path: the file.
        growth: how many bytes of memory each byte may take once it is parsed.
        what: the kind of file, with an article.
        error: the class of the error to raise.

    Raises:
        HdganError: of the given class, if the file is missing, no regular file, too large, or cannot be read.
    """
    require_file(path, error)
    try:
        size = path.stat().st_size or 0  # a server may not tell it
        require_bounded(path, size * growth, f"{what} of {size} bytes", error)
        return path.read_bytes()
    except OSError as problem:
        raise error(f"{path} cannot be read ({problem.strerror}): make it readable") from problem


def read_text(path: Path, growth: int, what: str, error: type[HdganError] = CheckpointError) -> str:
    """The text of a file in UTF-8 that will be parsed, without a byte order mark; arguments as of `read_bytes`.

    Raises:
        HdganError: of the given class, as `read_bytes`, or if the file is not UTF-8.
    """
    try:
        return read_bytes(path, growth, what, error).decode("utf-8-sig")
    except UnicodeDecodeError as problem:
        raise error(f"{path} is not UTF-8 at byte {problem.start}: save it as UTF-8") from problem


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON value")


def _whole(text: str) -> int:
    if len(text) > _MOST_DIGITS:
        raise ValueError(f"{text[:_MOST_DIGITS]}… is a number of {len(text)} digits")
    return int(text)


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text[:_MOST_DIGITS]} is beyond the largest number")
    return value


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) < len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise ValueError(f"it has {twice[:60]!r} twice")
    return table


_DECODER = json.JSONDecoder(
    parse_constant=_refuse_constant, parse_int=_whole, parse_float=_finite, object_pairs_hook=_once
)
