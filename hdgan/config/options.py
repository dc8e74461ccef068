"""The names of options in messages, as the user types them on a command line or in Python.

Code below the commands knows an option by its place in the configuration, such as `model.n_labels`. It is
--model.n-labels for `hdgan train`, --n-labels for `hdgan data check`, and the field `n_labels` of `model` in Python.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

_typed: Mapping[str, str] | None = None
"""The names of options that the running command does not name after their place; None outside a command."""


def option(name: str) -> str:
    """What the user types for an option.

    Args:
        name: its place in the configuration, such as `model.n_labels` or `stages.joint.batch_size`.

    Returns:
        In a command, its name there or else `--model.n-labels`; in Python, the place itself.
    """
    if _typed is None:
        return name
    return _typed.get(name, f"--{name.replace('_', '-')}")


def option_off(name: str) -> str:
    """What the user types to turn an option off that is on by default.

    Args:
        name: its place in the configuration, such as `model.instances`.

    Returns:
        On a command line `--model.no-instances`, or `--no-instances` where the option is called --instances; in Python
        `model.instances=False`.
    """
    if _typed is None:
        return f"{name}=False"
    group, dot, flag = option(name).removeprefix("--").rpartition(".")
    return f"--{group}{dot}no-{flag}"


@contextmanager
def typed_as(names: Mapping[str, str] | None = None) -> Iterator[None]:
    """Let messages name options as on a command line while a command runs.

    The setting belongs to the process, not to a thread, since commands read images in threads.

    Args:
        names: the options that this command does not call by their place, for example
            {"data.root": "FOLDER", "model.n_labels": "--n-labels"}.
    """
    global _typed
    before, _typed = _typed, dict(names or {})
    try:
        yield
    finally:
        _typed = before
