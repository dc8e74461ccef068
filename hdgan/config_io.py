"""Configurations as plain JSON values and back, strictly: nested frozen dataclasses are what a checkpoint carries.

`to_plain` and `from_plain` are inverses for dataclasses of None, bool, int, float, str, Path, Literal, tuples, lists,
dicts with string keys, dataclasses, and unions of these.
"""

from __future__ import annotations

import dataclasses
import functools
import types
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints, overload

from hdgan.errors import CheckpointError, ConfigError

T = TypeVar("T")


def to_plain(value: Any) -> Any:
    """Turn a configuration into values that JSON holds: dicts, lists, strings, numbers, booleans, None.

    Raises:
        TypeError: a value of another type.
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: to_plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): to_plain(item) for key, item in value.items()}
    if isinstance(value, (tuple, list)):
        return [to_plain(item) for item in value]
    if isinstance(value, Path):
        return value.as_posix()
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise TypeError(f"cannot store a {type(value).__name__} in a configuration: {value!r}")


@overload
def from_plain(cls: type[T], data: Any, where: str) -> T: ...
@overload
def from_plain(cls: types.UnionType, data: Any, where: str) -> Any: ...
def from_plain(cls: Any, data: Any, where: str) -> Any:
    """Build the dataclass `cls` from what `to_plain` made of it.

    Options that `data` lacks keep their defaults, so that files of an older version load. Dataclasses of a union are
    told apart by a tag: a field that is in each a Literal of one string of its own. Data without it are of the first.

    Args:
        cls: a dataclass, or a union of them.
        data: as read from JSON.
        where: what the error message starts with, usually the file.

    Raises:
        CheckpointError: an option that `cls` does not have, lacks, or cannot take, named with its path
            (`generator.ngf`).
    """
    return _value(cls, data, where, "")


def check_choices(config: Any, path: str = "") -> None:
    """Make sure that every Literal field, in nested dataclasses and dicts too, has one of its values.

    Python checks no annotations, so a config that was made by hand could hold anything.

    Args:
        config: a dataclass.
        path: of its option, such as "model."

    Raises:
        ConfigError: the first that has not, by the name of its option.
    """
    if isinstance(config, Mapping):
        for key, item in config.items():
            check_choices(item, f"{path}{key}.")
    if not dataclasses.is_dataclass(config) or isinstance(config, type):
        return
    hints = get_type_hints(type(config))
    for field in dataclasses.fields(config):
        value, hint = getattr(config, field.name), hints[field.name]
        option = path + field.name.replace("_", "-")
        choices = get_args(hint)
        if get_origin(hint) is Literal and value not in choices:
            raise ConfigError(f"--{option} is {value!r}: give {' or '.join(map(str, choices))}")
        check_choices(value, f"{option}.")


def _dataclass(cls: Any, data: Any, where: str, path: str) -> Any:
    if not isinstance(data, Mapping):
        raise _wrong(where, path, f"a table of {cls.__name__}", data)
    fields = {field.name: field for field in dataclasses.fields(cls) if field.init}
    unknown = [_join(path, str(key)) for key in data if key not in fields]
    if unknown:
        raise CheckpointError(
            f"{where}: unknown option {', '.join(unknown)}; "
            "it was written by another version of hdgan: use that version, or remove the option"
        )
    required = [
        _join(path, name)
        for name, field in fields.items()
        if name not in data and field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
    ]
    if required:
        raise CheckpointError(f"{where}: option {', '.join(required)} is missing; add it, or write the file again")
    types_of = get_type_hints(cls)
    values = {name: _value(types_of[name], data[name], where, _join(path, name)) for name in fields if name in data}
    try:
        return cls(**values)
    except ConfigError as error:
        raise CheckpointError(f"{where}: {path + ': ' if path else ''}{error}") from error


def _value(kind: Any, data: Any, where: str, path: str) -> Any:
    origin, arguments = get_origin(kind), get_args(kind)
    if kind is Any:
        return data
    if origin in (Union, types.UnionType):
        return _union(arguments, data, where, path)
    if origin is Literal:
        if not any(data == choice and type(data) is type(choice) for choice in arguments):
            raise _wrong(where, path, " or ".join(repr(choice) for choice in arguments), data)
        return data
    if dataclasses.is_dataclass(kind):
        return _dataclass(kind, data, where, path)
    if kind is tuple or origin is tuple:
        return _tuple(arguments, data, where, path)
    if kind is list or origin is list:
        return list(_tuple((arguments[0], ...) if arguments else (), data, where, path))
    if isinstance(origin or kind, type) and issubclass(origin or kind, Mapping):
        return _dict(arguments[1] if arguments else Any, data, where, path)
    return _scalar(kind, data, where, path)


def _union(kinds: tuple[Any, ...], data: Any, where: str, path: str) -> Any:
    if data is None and types.NoneType in kinds:
        return None
    kinds = tuple(kind for kind in kinds if kind is not types.NoneType)
    if all(dataclasses.is_dataclass(kind) for kind in kinds):
        return _dataclass(kinds[0] if len(kinds) == 1 else _tagged(kinds, data, where, path), data, where, path)
    for kind in kinds[:-1]:
        try:
            return _value(kind, data, where, path)
        except CheckpointError:
            continue
    return _value(kinds[-1], data, where, path)


def _tagged(kinds: tuple[Any, ...], data: Any, where: str, path: str) -> Any:
    """The dataclass whose tag the data has; the first, if they have none."""
    tag, tagged = _tags(kinds)
    if not isinstance(data, Mapping) or tag not in data:
        return kinds[0]
    found = data[tag]
    if not isinstance(found, str) or found not in tagged:
        raise _wrong(where, _join(path, tag), " or ".join(repr(choice) for choice in tagged), found)
    return tagged[found]


@functools.cache
def _tags(kinds: tuple[Any, ...]) -> tuple[str, dict[str, Any]]:
    """The field that tells dataclasses apart, and each by its value."""
    hints = [get_type_hints(kind) for kind in kinds]
    for name in hints[0]:
        own = [get_args(hint[name]) if get_origin(hint.get(name)) is Literal else () for hint in hints]
        if all(len(values) == 1 for values in own) and len(set(own)) == len(kinds):
            return name, {values[0]: kind for values, kind in zip(own, kinds, strict=True)}
    raise TypeError(f"no Literal tells {', '.join(kind.__name__ for kind in kinds)} apart")


def _tuple(kinds: tuple[Any, ...], data: Any, where: str, path: str) -> tuple[Any, ...]:
    if not isinstance(data, (list, tuple)):
        raise _wrong(where, path, "a list", data)
    if not kinds or kinds[-1] is Ellipsis:
        kinds = (kinds[0] if kinds else Any,) * len(data)
    if len(kinds) != len(data):
        raise _wrong(where, path, f"a list of {len(kinds)}", data)
    return tuple(
        _value(kind, item, where, f"{path}[{i}]") for i, (kind, item) in enumerate(zip(kinds, data, strict=True))
    )


def _dict(kind: Any, data: Any, where: str, path: str) -> dict[str, Any]:
    if not isinstance(data, Mapping):
        raise _wrong(where, path, "a table", data)
    return {str(key): _value(kind, item, where, _join(path, str(key))) for key, item in data.items()}


def _scalar(kind: Any, data: Any, where: str, path: str) -> Any:
    if kind is Path and isinstance(data, str):
        return Path(data)
    if kind is float and isinstance(data, int) and not isinstance(data, bool):
        return float(data)
    if kind is types.NoneType and data is None:
        return None
    # bool is a subclass of int, but true is no count.
    if kind in (bool, int, float, str) and type(data) is kind:
        return data
    raise _wrong(
        where, path, "text" if kind in (Path, str) else f"a value of type {getattr(kind, '__name__', kind)}", data
    )


def _wrong(where: str, path: str, expected: str, data: Any) -> CheckpointError:
    shown = repr(data)
    shown = shown if len(shown) <= 60 else f"{shown[:60]}…"
    return CheckpointError(f"{where}: expected {path or 'the configuration'} to be {expected}, got {shown}; correct it")


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name
