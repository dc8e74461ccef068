"""URLs on a command line, before pathlib drops one of their slashes.

Some options take the URL of data on object storage or a server. All other paths are those of this machine.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
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
_WITH_HOST = re.compile(r"((?:\w+::)*(?:file|local)://)([^/]+)(.*)", re.IGNORECASE | re.DOTALL)
"""The beginning, the host and the path of a file URL that names a host."""


def without_hosts(arguments: Sequence[str]) -> list[str]:
    """The arguments, with file:///PATH for file://localhost/PATH, which is the same file.

    Raises:
        ConfigError: a file URL names another host.
    """
    changed = list(arguments)
    for i, (name, value) in enumerate(_values(arguments)):
        match = _WITH_HOST.fullmatch(value)
        if match is None:
            continue
        start, host, path = match.groups()
        if host.lower() != "localhost":
            value = without_secrets(value)
            raise ConfigError(
                f"{f'{name} ' if name.startswith('--') else ''}{value} names the host {host.rpartition('@')[2]}, but a "
                f"file URL is read on this machine: give file:///PATH or the path itself, or copy the files here"
            )
        changed[i] = f"{arguments[i].removesuffix(value)}{start}{path or '/'}"
    return changed


def _values(arguments: Sequence[str]) -> Iterator[tuple[str, str]]:
    """What each argument gives a value to, the argument before it or the option in front of its =, and the value."""
    for before, argument in pairwise(["", *arguments]):
        name, value = argument.split("=", 1) if argument.startswith("--") and "=" in argument else (before, argument)
        yield name.replace("_", "-"), value


def refuse_urls(command: str, arguments: Sequence[str]) -> None:
    """Refuse a URL that is given for a path of this machine.

    Raises:
        ConfigError: there is one.
    """
    take = _TAKE.get(command, ())
    for name, value in _values(arguments):
        if "://" not in value or not is_url(value):
            continue
        bare = take[:1] != () and take[0].isupper()
        if name in take or (bare and name != "--out"):
            continue
        instead = f"; only {', '.join(take)} may be a URL" if take else ""
        value = without_secrets(value)
        typed = f"{name} {value}" if name.startswith("--") else value
        raise ConfigError(f"{typed}: hdgan needs a path of this machine there{instead}")
