"""Telling URLs from paths."""

from __future__ import annotations

import os
import re

URL = re.compile(r"((?:\w+::)*)([A-Za-z][A-Za-z0-9+.-]+):/+(.*)", re.DOTALL)
"""Prefixes of a chain, protocol and place of a URL, of whose two slashes pathlib has perhaps dropped one. A protocol
has at least two letters, since a drive of Windows has one."""


_SECRETS = re.compile(r"(?<=:/)(/*)[^/@?#\s]*@|\?[^\s]*")


def without_secrets(url: str) -> str:
    """A URL for messages: without the name and password before its server, and without its query."""
    return _SECRETS.sub(lambda found: found[1] or "", url)


def is_url(path: str | os.PathLike[str]) -> bool:
    """Whether a path is a URL, or what pathlib makes of one."""
    return URL.fullmatch(str(path).replace(os.sep, "/")) is not None
