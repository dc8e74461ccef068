"""Paths on object storage and servers, which code that reads files can use as it uses other paths.

`located` turns a path that a user has given into a `RemotePath` where it is a URL, such as s3://bucket/set. Nothing
else makes one; the names below it follow as those of any path do. Until then a URL is a `Path` like any other, in which
pathlib has dropped one of two slashes.
"""

from __future__ import annotations

import io
import os
import re
import stat
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, NoReturn
from urllib.parse import quote, unquote

from hdgan.config.urls import URL, without_secrets
from hdgan.errors import ConfigError, DataError, HdganError
from hdgan.files import storage

if TYPE_CHECKING:
    _SystemPath = Path
else:
    _SystemPath = type(Path())

_CACHES = ("simplecache::", "filecache::")
"""The prefixes with which a file is copied to the cache of hdgan when it is first read. fsspec's own caches with these
names are not used, because processes that share one of them can read files that are only half written."""
_LOCAL = ("file", "local")


def located(path: Path, name: str) -> Path:
    """The path itself, or a `RemotePath` if it is the URL of a file or folder elsewhere. file:/// is a local path.

    Args:
        path: as the user has given it.
        name: what messages call it, such as "--data.root".

    Raises:
        ConfigError: the URL contains credentials or a query, or is of a kind that cannot be read.
    """
    match = None if isinstance(path, RemotePath) else URL.fullmatch(str(path).replace(os.sep, "/"))
    if match is None:
        return path
    cache, protocol, place = match.groups()
    protocol = protocol.lower()
    if cache not in ("", *_CACHES) or "::" in place:
        raise ConfigError(
            f"{name} is {without_secrets(str(path))}: of URLs in a chain only those with {' or '.join(_CACHES)} are "
            "read; unpack an archive into a folder"
        )
    user, _, _ = place.partition("/")[0].rpartition("@")
    if ":" in user or (user and protocol in ("http", "https")):  # which is not repeated in the message
        raise ConfigError(
            f"{name} is a URL with a name or password: leave it out, and put it into the environment or into fsspec's "
            "configuration"
        )
    if protocol in ("http", "https"):
        if "?" in place or "#" in place:
            raise ConfigError(
                f"{name} is a URL with a query: leave out what follows the ?, and put credentials into fsspec's "
                "configuration"
            )
        place = unquote(place)
    if protocol in _LOCAL and not cache:
        return Path("/", place)
    return RemotePath(f"{cache}{protocol}:", *place.split("/"))


def is_remote(path: Path | None) -> bool:
    """Whether a path is that of a file or folder elsewhere."""
    return isinstance(path, RemotePath)


def fetched(path: RemotePath, size: int | None = None) -> bytes:
    """The content of a file elsewhere.

    Args:
        path: the file.
        size: its length in bytes, if that is known.

    Raises:
        DataError: it does not exist, or cannot be fetched.
    """
    try:
        return path.read_bytes(size)
    except FileNotFoundError:
        raise DataError(f"{path} does not exist: check the path") from None


class RemotePath(_SystemPath):
    """A path on object storage or a server, which is only read.

    Functions that take the name of a file, such as `open` and `numpy.memmap`, refuse it in one line, as do the methods
    that write. `open`, `read_bytes` and `read_text` fetch the whole file.
    """

    __slots__ = ()

    def __str__(self) -> str:
        """The URL; the part of a path below a folder is written as it is."""
        text = super().__str__().replace(os.sep, "/")
        match = URL.fullmatch(text)
        if match is None:
            return text.removesuffix(":") + "://" if re.fullmatch(r"(?:\w+::)*[a-z][a-z0-9+.-]+:", text) else text
        cache, protocol, place = match.groups()
        place = quote(place, safe=storage.SAFE) if protocol in ("http", "https") else place
        # The paths of these begin with a slash.
        return f"{cache}{protocol}://{'/' if protocol in _LOCAL else ''}{place}"

    @property
    def url(self) -> str:
        """The URL without the prefix of a cache."""
        return str(self).rpartition("::")[2]

    @property
    def is_cached(self) -> bool:
        """Whether files are copied to the cache."""
        return str(self).startswith(_CACHES)

    def as_posix(self) -> str:
        return str(self)

    def __fspath__(self) -> str:
        self._refuse()

    def stat(self, *, follow_symlinks: bool = True) -> Any:
        """A `StoredFile`."""
        return storage.status_of(self.url)

    def exists(self, *, follow_symlinks: bool = True) -> bool:
        try:
            storage.status_of(self.url)
        except FileNotFoundError:
            return False
        return True

    def is_file(self, *, follow_symlinks: bool = True) -> bool:
        return self.exists() and stat.S_ISREG(storage.status_of(self.url).st_mode)

    def is_dir(self, *, follow_symlinks: bool = True) -> bool:
        return storage.is_folder(self.url)

    def is_symlink(self) -> bool:
        return False

    def is_absolute(self) -> bool:
        return True

    def absolute(self) -> RemotePath:
        return self

    def resolve(self, strict: bool = False) -> RemotePath:
        return self

    def forget(self) -> None:
        """Ask storage again for this file, or for what lies in this folder."""
        storage.forget(self.url)

    def folder_names(self) -> list[str]:
        """Names of the folders in this folder, which may be absent, in any order."""
        return storage.folders_in(self.url)

    def files_below(self) -> list[RemotePath]:
        """All files below this folder, which may be absent, in any order."""
        return [self / name for name in storage.files_below(self.url)]

    def copy_here(self) -> Path | None:
        """The file's copy in the cache, which is made if it is not there; None unless files are cached."""
        return storage.copy_of(self.url) if self.is_cached else None

    def read_bytes(self, size: int | None = None) -> bytes:
        """The content; `size` is its length if that is known."""
        copy = self.copy_here()
        return storage.content_of(self.url, size) if copy is None else copy.read_bytes()

    def read_range(self, start: int, end: int, size: int) -> bytes:
        """The bytes from `start` to before `end` of a file that is `size` bytes long; fewer where it is shorter."""
        return storage.range_of(self.url, start, end, size)

    def read_text(self, encoding: str | None = None, errors: str | None = None, newline: str | None = None) -> str:
        return self.read_bytes().decode(encoding or "utf-8", errors or "strict")

    def open(self, mode: str = "r", *_: Any, **__: Any) -> IO[Any]:  # type: ignore[override]
        if mode != "rb":
            self._refuse()
        return io.BytesIO(self.read_bytes())

    def _refuse(self, *_: Any, **__: Any) -> NoReturn:
        raise HdganError(f"{self} is not on this machine, and this needs a local file: copy it to a folder here")

    write_bytes = write_text = mkdir = touch = unlink = rmdir = rename = replace = chmod = _refuse
    symlink_to = hardlink_to = lstat = iterdir = glob = rglob = walk = owner = group = _refuse
