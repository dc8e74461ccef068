"""The options that take the URL of data on object storage or a server. All other paths are those of this machine."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from hdgan.config.urls import is_url, without_secrets
from hdgan.errors import ConfigError

_ROOT = ("--root",)
_TAKE = {
    "train": ("--data.root",),
    "generate": ("--label", "--instance", "--input", "--photo"),
    "edit": _ROOT,
    "evaluate": _ROOT,
    "styles encode": _ROOT,
    "styles cluster": _ROOT,
    "styles show": _ROOT,
    "data check": ("ROOT",),
    "data pack": ("FOLDER",),
}
"""By command. A name in capitals is that of the argument without an option."""


def refuse_urls(command: str, arguments: Sequence[str]) -> None:
    """Refuse a URL that is given for a path of this machine, before pathlib drops one of its slashes.

    Raises:
        ConfigError: there is one.
    """
    take = _TAKE.get(command, ())
    for before, argument in pairwise(["", *arguments]):
        name, value = argument.split("=", 1) if argument.startswith("--") and "=" in argument else (before, argument)
        if "://" not in value or not is_url(value):
            continue
        name = name.replace("_", "-")
        bare = take[:1] != () and take[0].isupper()
        if name in take or (bare and name != "--out"):
            continue
        instead = f"; only {', '.join(take)} may be a URL" if take else ""
        value = without_secrets(value)
        typed = f"{name} {value}" if name.startswith("--") else value
        raise ConfigError(f"{typed}: hdgan needs a path of this machine there{instead}")
