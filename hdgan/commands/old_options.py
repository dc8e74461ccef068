"""Options of stages and losses that older versions of `hdgan train` had."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import islice
from typing import Any

from hdgan.errors import ConfigError
from hdgan.families.common.train_config import TrainConfig

_OPTION = re.compile(r"--(?P<part>loss|stages\.(?P<stage>.+))\.(?P<name>[\w-]+)(=(?P<value>.*))?")


def with_todays_names(arguments: Sequence[str], run: TrainConfig) -> list[str]:
    """The arguments, with options of older versions replaced by today's.

    Args:
        arguments: of `hdgan train`.
        run: what they change. The `upgraded` of its stages and losses knows the old options. Options that had no effect
            are left out, and unknown ones stay as they were typed.

    Raises:
        ConfigError: an option is given by its old and by today's name.
    """
    given = {argument.split("=")[0].replace("_", "-") for argument in arguments}
    renamed: list[str] = []
    rest = iter(arguments)
    for argument in rest:
        match = _OPTION.fullmatch(argument)
        part: Any = None
        if match:
            part = run.stages.get(match["stage"]) if match["stage"] else run.loss
        name = match["name"].replace("-", "_") if match else ""
        if match is None or part is None or hasattr(part, name.removeprefix("no_")):
            renamed.append(argument)
            continue
        typed, plain = [argument], {"encoder": name == "encoder"}
        if name not in ("encoder", "no_encoder"):  # which have no value
            typed += islice(rest, 1 if match["value"] is None else 0)
            plain = {name: _parsed(match["value"] or typed[-1])}
        today = getattr(part, "upgraded", dict)(plain)
        if today == plain:
            renamed += typed
        else:
            for new, value in today.items():
                option = f"--{match['part']}.{new.replace('_', '-')}"
                if option in given:
                    old = argument.split("=")[0]
                    raise ConfigError(f"{old} is an old name of {option}: give only one of them")
                renamed += [option, str(value)]
    return renamed


def _parsed(value: str) -> Any:
    return int(value) if value.isdecimal() else None if value == "None" else value
