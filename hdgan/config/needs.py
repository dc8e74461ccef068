"""Options that have an effect only while another option has a certain value.

A dataclass lists them as `NEEDS = {"adaptive": {"policy": ON}, "target": {"adaptive": True}}`, in addition to those of
its bases. Nobody can say whether a value that is the default has been given, so `refuse_idle` refuses only others. The
same holds for the values of the preset or run that a command line changes (`beginning_with`). A file however contains
the defaults of the version that wrote it, which may have been others: `effective` leaves out what has no effect there,
so that such a file stays readable.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

from hdgan.config.options import option, option_off
from hdgan.errors import ConfigError

ON: Final = object()
"""Any value that does not turn the needed option off: neither None, False, 0 nor empty."""
Needs = Mapping[str, Mapping[str, Any]]
"""Options of a dataclass, the others that each of them needs, and the values that these must have."""


_beginning: Any = None
"""The config whose values do not count as given; None if there is none."""


@contextmanager
def beginning_with(config: Any) -> Iterator[None]:
    """Inside the block, values that equal those of a config, such as a preset's, do not count as given."""
    global _beginning
    before, _beginning = _beginning, config
    try:
        yield
    finally:
        _beginning = before


def refuse_idle(config: Any, path: str) -> None:
    """Refuse options of a dataclass that were given, but have no effect.

    Args:
        config: the dataclass.
        path: of its option, such as "loss"; empty for a whole run.

    Raises:
        ConfigError: there is one.
    """
    defaults, values = _defaults(type(config)), vars(config)
    start = f"{path}." if path else ""
    for name in needs_of(type(config)):
        needed = _missing(type(config), name, values)
        if not needed or values[name] in (defaults[name], _at_the_beginning(start + name, defaults[name])):
            continue
        given = option_off(start + name) if values[name] is False else _typed(start + name, values[name])
        why, remedy = ("with", "change that") if _words(values[needed]) else ("without", "set that too")
        raise ConfigError(
            f"{given} has no effect {why} {_typed(start + needed, values[needed])}: {remedy}, or "
            f"{_undone(start + name, defaults[name])}"
        )


def effective(cls: type, values: Mapping[str, Any]) -> dict[str, Any]:
    """The options of a file without those that have no effect, which thereby get their defaults.

    Args:
        cls: the dataclass that they are for.
        values: the options by their names; those that are missing have their defaults.
    """
    complete = {**_defaults(cls), **values}
    return {name: value for name, value in values.items() if not _missing(cls, name, complete)}


def needs_of(cls: type) -> Needs:
    """The `NEEDS` of a dataclass and of its bases."""
    needs: dict[str, dict[str, Any]] = {}
    for base in cls.__mro__:
        for name, others in vars(base).get("NEEDS", {}).items():
            needs.setdefault(name, {}).update(others)
    return needs


def _at_the_beginning(path: str, default: Any) -> Any:
    """The value of an option in the config that is being changed; the default if there is none."""
    value = _beginning
    for name in path.split("."):
        value = value.get(name, default) if isinstance(value, Mapping) else getattr(value, name, default)
    return value


def _missing(cls: type, name: str, values: Mapping[str, Any]) -> str:
    """The option because of whose value another one has no effect; empty if it has one."""
    for other, value in needs_of(cls).get(name, {}).items():
        if not (values[other] if value is ON else values[other] == value):
            return other
        if missing := _missing(cls, other, values):
            return missing
    return ""


def _defaults(cls: Any) -> dict[str, Any]:
    return {field.name: field.default for field in dataclasses.fields(cls)}


def _undone(name: str, default: Any) -> str:
    """What the user can do to give an option its default, also where a resumed run has saved another value."""
    if isinstance(default, bool):
        return f"use {option(name) if default else option_off(name)}"
    return f"set this to {_words(default) or default}, its default"


def _typed(name: str, value: Any) -> str:
    """An option and its value as the user types them."""
    return f"{option(name)} {_words(value)}".rstrip()


def _words(value: Any) -> str:
    """A value on a command line; empty if the option has none, or is off."""
    if isinstance(value, tuple):
        return " ".join(map(_words, value))
    if value is None or isinstance(value, bool):
        return ""
    return f"{value:g}" if isinstance(value, float) else str(value)
