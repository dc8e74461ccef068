"""The options of stages in older versions, where the stages of all families had the same options."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

from hdgan.families.common.train_config import StageConfig

_OPTION = re.compile(r"--stages\.(?P<stage>.+)\.(?P<name>[\w-]+)(=(?P<value>.*))?")


def with_todays_names(arguments: Sequence[str], stages: Mapping[str, StageConfig]) -> list[str]:
    """The arguments, with options of older versions replaced by today's.

    Args:
        arguments: of `hdgan train`.
        stages: of the run; their `upgraded` knows the old options. Options that had no effect are left out, and unknown
            ones stay as they were typed.
    """
    return list(_renamed(iter(arguments), stages))


def _renamed(arguments: Iterator[str], stages: Mapping[str, StageConfig]) -> Iterator[str]:
    for argument in arguments:
        match = _OPTION.fullmatch(argument)
        stage = stages.get(match["stage"]) if match else None
        name = match["name"].replace("-", "_") if match else ""
        if match is None or stage is None or hasattr(stage, name.removeprefix("no_")):
            yield argument
            continue
        typed, plain = [argument], {"encoder": name == "encoder"}
        if name not in ("encoder", "no_encoder"):  # which have no value
            typed += islice(arguments, 1 if match["value"] is None else 0)
            plain = {name: _parsed(match["value"] or typed[-1])}
        today = stage.upgraded(plain)
        if today == plain:
            yield from typed
            continue
        for new, value in today.items():
            yield from (f"--stages.{match['stage']}.{new.replace('_', '-')}", str(value))


def _parsed(value: str) -> Any:
    return int(value) if value.isdecimal() else value
