"""Configurations as plain JSON values and back, strictly: nested frozen dataclasses are what a checkpoint carries.

`to_plain` and `from_plain` are inverses for dataclasses of None, bool, int, float, str, Path, Literal, tuples, lists,
dicts with string keys, dataclasses, and unions of these. Numbers have bounds where their type says so, such as
`Annotated[int, Interval(ge=1)]`; `check_values` also checks configs that are made in Python or on a command line.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import reprlib
import types
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints, overload

from annotated_types import Interval

from hdgan.config.needs import effective, refuse_idle
from hdgan.config.options import option
from hdgan.errors import CheckpointError, ConfigError, HdganError
from hdgan.wording import is_text

T = TypeVar("T")
_NAMES = {bool: "true or false", int: "a whole number", float: "a number", str: "text", Path: "a path"}


def to_plain(value: Any) -> Any:
    """Turn a configuration into values that JSON holds: dicts, lists, strings, numbers, booleans, None.

    Raises:
        ConfigError: a name that is not UTF-8, which no file of ours could be read with.
        TypeError: a value of another type.
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: to_plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): to_plain(item) for key, item in value.items()}
    if isinstance(value, (tuple, list)):
        return [to_plain(item) for item in value]
    if isinstance(value, Path):
        value = value.as_posix()
    if isinstance(value, str) and not is_text(value):
        raise ConfigError(f"the name {value!r} contains a NUL or is not UTF-8: rename it")
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise TypeError(f"cannot store a {type(value).__name__} in a configuration: {value!r}")


def flattened(plain: Mapping[str, Any], path: tuple[str, ...] = ()) -> dict[tuple[str, ...], Any]:
    """The values of nested tables, as `to_plain` makes them, by the names on the way to each."""
    flat: dict[tuple[str, ...], Any] = {}
    for key, value in plain.items():
        flat.update(flattened(value, (*path, key)) if isinstance(value, Mapping) else {(*path, key): value})
    return flat


@overload
def from_plain(cls: type[T], data: Any, where: str, error: type[HdganError] = ...) -> T: ...
@overload
def from_plain(cls: types.UnionType, data: Any, where: str, error: type[HdganError] = ...) -> Any: ...
def from_plain(cls: Any, data: Any, where: str, error: type[HdganError] = CheckpointError) -> Any:
    """Build the dataclass `cls` from what `to_plain` made of it.

    Options that are missing in `data`, or have no effect (see `hdgan.config.needs`), keep their defaults, so that files
    of an older version load. Where a dataclass has a class method `upgraded`, it turns the table that an older version
    wrote into one of today. Dataclasses of a union are distinguished by a tag: a field that is a Literal of one string,
    different in each of them, or such a field of a nested dataclass. Data without the tag belong to the first.

    Args:
        cls: a dataclass, or a union of them.
        data: as read from JSON.
        where: what the error message starts with, usually the file.
        error: what is raised.

    Raises:
        HdganError: of the given class: an option is unknown, missing or has an unsuitable value; the message gives its
            path (`generator.ngf`).
    """
    return _Check(where, error).value(cls, data, "")


def check_values(config: Any, path: str = "") -> None:
    """Make sure that every field, in nested dataclasses and dicts too, has a value of its type and within its bounds.

    Python does not check annotations, so a config made by hand could contain anything. An option that has no effect, by
    the `NEEDS` of its dataclass, must have its default.

    Args:
        config: a dataclass.
        path: of its option, such as "model".

    Raises:
        ConfigError: a field does not; the message names the option of the first.
    """
    _Check("", ConfigError).value(type(config), config, path)


def check_value(kind: Any, value: Any, name: str) -> None:
    """The same check for one option that is not a field of a dataclass.

    Args:
        kind: its type, such as `Annotated[int, Interval(ge=1)] | None`.
        value: what was given.
        name: of the option.

    Raises:
        ConfigError: the value is not of the type, or out of its bounds.
    """
    _Check("", ConfigError).value(kind, value, name)


@dataclasses.dataclass(frozen=True)
class _Check:
    """Checks values against types and builds what the types say."""

    where: str
    """The file that contains the values; empty for a config in memory, whose values stay unchanged."""
    error: type[HdganError]

    def value(self, kind: Any, data: Any, path: str) -> Any:
        kind, bounds = _unwrapped(kind)
        origin, arguments = get_origin(kind), get_args(kind)
        if kind is Any:
            return data
        if origin in (Union, types.UnionType):
            return self._union(arguments, data, path)
        if origin is Literal:
            if not any(data == choice and type(data) is type(choice) for choice in arguments):
                raise self._wrong(kind, data, path)
            return data
        if dataclasses.is_dataclass(kind):
            return self._dataclass(kind, data, path)
        if (origin or kind) is tuple:
            return tuple(self._list(kind, arguments or (Any, ...), data, path))
        if (origin or kind) is list:
            return self._list(kind, (*(arguments or (Any,)), ...), data, path)
        if isinstance(origin or kind, type) and issubclass(origin or kind, Mapping):
            return self._dict(kind, data, path)
        return self._scalar(kind, bounds, data, path)

    def _dataclass(self, cls: Any, data: Any, path: str) -> Any:
        if isinstance(data, cls):
            own: Any = type(data)
            for name, kind in _hints(own).items():
                self.value(kind, getattr(data, name), _join(path, name))
            refuse_idle(data, path)
            return data
        if not isinstance(data, Mapping) or not self.where:
            raise self._wrong(cls, data, path)
        data = getattr(cls, "upgraded", dict)(data)
        fields = {field.name: field for field in dataclasses.fields(cls) if field.init}
        unknown = [_join(path, str(key)) for key in data if key not in fields]
        if unknown:
            raise self.error(
                f"{self.where}: unknown option {_clipped(', '.join(unknown))}; another version of hdgan wrote it: use "
                "that version, or remove the option"
            )
        required = [_join(path, name) for name, field in fields.items() if name not in data and not _has_default(field)]
        if required:
            raise self.error(f"{self.where}: option {', '.join(required)} is missing; add it, or write the file again")
        kinds = _hints(cls)
        values = {name: self.value(kinds[name], data[name], _join(path, name)) for name in fields if name in data}
        try:
            return cls(**effective(cls, values))
        except ConfigError as problem:
            raise self.error(f"{self.where}: {path + ': ' if path else ''}{problem}") from problem

    def _union(self, kinds: tuple[Any, ...], data: Any, path: str) -> Any:
        if data is None and types.NoneType in kinds:
            return None
        kinds = tuple(kind for kind in kinds if kind is not types.NoneType)
        if all(dataclasses.is_dataclass(kind) for kind in kinds):
            return self._dataclass(kinds[0] if len(kinds) == 1 else self._tagged(kinds, data, path), data, path)
        for kind in kinds[:-1]:
            try:
                return self.value(kind, data, path)
            except self.error:
                continue
        try:
            return self.value(kinds[-1], data, path)
        except self.error:
            if len(kinds) == 1 or not all(get_origin(_unwrapped(kind)[0]) in (None, Literal) for kind in kinds):
                raise  # it names the part that is wrong
        raise self._wrong(Union[kinds], data, path)  # noqa: UP007

    def _tagged(self, kinds: tuple[Any, ...], data: Any, path: str) -> Any:
        """The dataclass of the data or, in a union, the one whose tag it has; the first if it has none."""
        if isinstance(data, kinds):
            return type(data)
        names, tagged = _tags(kinds)
        for name in names:
            if not isinstance(data, Mapping) or name not in data:
                return kinds[0]
            data, path = data[name], _join(path, name)
        if not isinstance(data, str) or data not in tagged:
            raise self._wrong(Literal[tuple(tagged)], data, path)
        return tagged[data]

    def _list(self, kind: Any, kinds: tuple[Any, ...], data: Any, path: str) -> list[Any]:
        if not isinstance(data, (list, tuple)):
            raise self._wrong(kind, data, path)
        if kinds[-1] is Ellipsis:
            kinds = kinds[:1] * len(data)
        if len(kinds) != len(data):
            raise self._wrong(kind, data, path)
        return [self.value(kind, item, f"{path}[{i}]") for i, (kind, item) in enumerate(zip(kinds, data, strict=True))]

    def _dict(self, kind: Any, data: Any, path: str) -> dict[str, Any]:
        if not isinstance(data, Mapping):
            raise self._wrong(kind, data, path)
        key_kind, item_kind = get_args(kind) or (str, Any)
        return {
            self.value(key_kind, key, path): self.value(item_kind, item, _join(path, str(key)))
            for key, item in data.items()
        }

    def _scalar(self, kind: Any, bounds: Interval | None, data: Any, path: str) -> Any:
        # bool is a subclass of int, but true is no count.
        numeric = isinstance(data, (int, float)) and not isinstance(data, bool)
        if kind is Path and self.where and isinstance(data, str):
            data = Path(data)
        if kind is float and numeric:
            fits = abs(data) <= _LARGEST_FLOAT  # which also tells NaN, and whole numbers that no float holds
            data = float(data) if fits else data
        else:
            fits = isinstance(data, kind) and (kind is not int or numeric)
        if kind in (str, Path) and fits:
            fits = is_text(str(data))
        if not fits or not _within(data, bounds):
            raise self._wrong(kind if bounds is None else Annotated[kind, bounds], data, path)
        return data

    def _wrong(self, kind: Any, data: Any, path: str) -> HdganError:
        start = f"{self.where}: {path or 'the content'}" if self.where else option(path)
        return self.error(f"{start} is {_shown(data)}: give {_expected(kind)}")


_LARGEST_FLOAT = 1.7976931348623157e308


def _unwrapped(kind: Any) -> tuple[Any, Interval | None]:
    """A type without annotations, and its bounds."""
    bounds = None
    while get_origin(kind) is Annotated:
        kind, *notes = get_args(kind)
        bounds = next((note for note in notes if isinstance(note, Interval)), bounds)
    return kind, bounds


def _within(value: Any, bounds: Interval | None) -> bool:
    return bounds is None or (
        (bounds.ge is None or value >= bounds.ge)
        and (bounds.gt is None or value > bounds.gt)
        and (bounds.le is None or value <= bounds.le)
        and (bounds.lt is None or value < bounds.lt)
    )


def _expected(kind: Any) -> str:
    """A type in words."""
    kind, bounds = _unwrapped(kind)
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is Literal:
        return " or ".join(map(str, arguments))
    if origin is Union:
        return " or ".join(map(_expected, arguments))
    if (origin or kind) in (tuple, list):
        fixed = origin is tuple and arguments[-1] is not Ellipsis
        return f"a list of {len(arguments)}" if fixed else "a list"
    if dataclasses.is_dataclass(kind):
        return f"a table of {getattr(kind, '__name__', '').lstrip('_')}"
    name = _NAMES.get(kind) or ("a table" if issubclass(origin or kind, Mapping) else f"a {kind.__name__}")
    return f"{name} {_range(bounds)}" if bounds else name


def _range(bounds: Interval) -> str:
    low = f"above {bounds.gt}" if bounds.ge is None else f"from {bounds.ge}"
    if bounds.le is None:
        return f"{low} and below {bounds.lt}"
    return f"{low} {'and up ' if bounds.ge is None else ''}to {bounds.le}"


def _shown(data: Any) -> str:
    """A value as a message shows it, shortened if it is large."""
    if isinstance(data, int) and abs(data) >= 10**30:  # Python does not print those of some thousand digits
        return f"a number of more than {math.floor(math.log10(2) * (data.bit_length() - 1))} digits"
    return _clipped(_SHORT.repr(data))


def _clipped(text: str) -> str:
    return text if len(text) <= 60 else f"{text[:60]}…"


_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = 65


@functools.cache
def _hints(cls: Any) -> dict[str, Any]:
    """Types of the fields of a dataclass, with their bounds."""
    hints = get_type_hints(cls, include_extras=True)
    return {field.name: hints[field.name] for field in dataclasses.fields(cls)}


@functools.cache
def _tags(kinds: tuple[Any, ...]) -> tuple[tuple[str, ...], dict[str, Any]]:
    """The path of the field that distinguishes dataclasses, and the dataclasses by its value."""
    hints = [get_type_hints(kind) for kind in kinds]
    for name in hints[0]:
        own = tuple(hint.get(name) for hint in hints)
        if len(set(own)) < len(kinds):
            continue
        if all(get_origin(kind) is Literal and len(get_args(kind)) == 1 for kind in own):
            return (name,), {get_args(tag)[0]: kind for tag, kind in zip(own, kinds, strict=True)}
        if all(map(dataclasses.is_dataclass, own)):
            names, tagged = _tags(own)
            return (name, *names), {tag: kinds[own.index(kind)] for tag, kind in tagged.items()}
    raise TypeError(f"no Literal tells {', '.join(kind.__name__ for kind in kinds)} apart")


def _has_default(field: dataclasses.Field[Any]) -> bool:
    return field.default is not dataclasses.MISSING or field.default_factory is not dataclasses.MISSING


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name
