"""Files on object storage and servers, read through fsspec: whole or in ranges, with retries and a local cache.

A URL is text such as s3://bucket/set/packed.json. Failures of the network are told apart from damage of a file, because
a file is fetched before anything decodes it. No file system of fsspec is kept here: fsspec itself keeps one for each
process, so that data workers may be forked. Credentials come from the environment or from fsspec's configuration.
"""

from __future__ import annotations

import asyncio
import functools
import hashlib
import os
import stat
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar
from urllib.parse import quote, unquote

from hdgan.errors import ConfigError, DataError, HdganError
from hdgan.files.atomic import atomic_file
from hdgan.files.cache import default_cache
from hdgan.files.limits import require_bounded

T = TypeVar("T")
PAUSES: tuple[float, ...] = (0.5, 1, 2, 4, 8)
"""Seconds to wait before a request is repeated; after the last one it has failed."""
_SILENCE = 60
"""Seconds without a byte after which an HTTP request has failed. Other packages have their own settings."""
_PACKAGES = {
    "s3": "s3fs", "s3a": "s3fs", "gs": "gcsfs", "gcs": "gcsfs", "abfs": "adlfs", "abfss": "adlfs", "az": "adlfs",
    'http': '"fsspec[http]"', 'https': '"fsspec[http]"', "sftp": "paramiko", "ssh": "paramiko", "smb": "smbprotocol",
    "oci": "ocifs", "oss": "ossfs", "hdfs": "pyarrow", "hf": "huggingface_hub",
}  # fmt: skip
"""What to install for a protocol."""
SAFE = "/:@[]"
"""What stays as it is in the URL of a file on a web server."""
_TIMES = ("LastModified", "last_modified", "updated", "mtime", "modified", "created")
_TAGS = ("ETag", "etag", "md5Hash", "content_md5", "checksum")


@dataclass(frozen=True)
class StoredFile:
    """What storage says of a file or folder, with the names of `os.stat_result`."""

    st_mode: int
    st_size: int | None
    """None where a server does not tell it."""
    st_mtime_ns: int
    """The time of the last change in nanoseconds; else a number that changes with the content; 0 where neither is
    told."""
    st_ino: int = 0


_known: dict[str, StoredFile] = {}
"""What storage has said of files, until `forget`, or until a folder above them is listed again."""
_latest = threading.local()
"""The file that each thread has fetched last: a check reads its header, its checksums and its pixels in turn."""
_times_forgotten = 0
"""How often `forget` was called."""


def forget(url: str) -> None:
    """Ask storage again for a file, or for what lies in a folder, since another process may have written there."""
    global _times_forgotten
    _times_forgotten += 1
    _known.pop(url, None)
    _ask(url, lambda files, _: files.invalidate_cache())


def status_of(url: str) -> StoredFile:
    """Kind, size and time of a file or folder.

    Raises:
        FileNotFoundError: nothing is there.
        ConfigError, DataError: as of `content_of`.
    """
    if url not in _known:
        _known[url] = _status(_ask(url, lambda files, path: files.info(path)))
    return _known[url]


def is_folder(url: str) -> bool:
    """Whether a folder is there that can be listed; storage without folders has those that begin the names of files.

    Raises:
        ConfigError, DataError: as of `content_of`.
    """
    try:
        if not _is_http(url):
            return stat.S_ISDIR(status_of(url).st_mode)
        # To fsspec everything on a web server is a file; the page of a folder has links to what is in it.
        page = str(_ask(url, lambda files, path: files.info(path)).get("mimetype"))
        return page.startswith("text/html") and bool(_ask(url, lambda files, path: files.ls(path, detail=False)))
    except FileNotFoundError:
        return False


def folders_in(url: str) -> list[str]:
    """Names of the folders in a folder, which may be absent.

    Raises:
        ConfigError, DataError: as of `content_of`.
    """
    try:
        entries = _ask(url, lambda files, path: files.ls(path, detail=True))
    except FileNotFoundError:
        return []
    names = (str(entry["name"]).rstrip("/").rpartition("/")[2] for entry in entries if entry["type"] == "directory")
    return [unquote(name) if _is_http(url) else name for name in names]


def files_below(url: str) -> list[str]:
    """Names of all files below a folder, which may be absent. What storage says of them is known afterwards.

    Raises:
        ConfigError, DataError: as of `content_of`.
    """

    def find(files: Any, path: str) -> tuple[str, Mapping[str, Any]]:
        return path.rstrip("/") + "/", files.find(path, detail=True)

    url = url.rstrip("/") + "/"
    for known in [known for known in _known if known.startswith(url)]:
        _known.pop(known, None)
    try:
        start, found = _ask(url, find)
    except FileNotFoundError:
        return []
    names = []
    for place, about in found.items():
        if not place.startswith(start) or place.endswith("/"):
            continue
        name = unquote(place[len(start) :]) if _is_http(url) else place[len(start) :]
        names.append(name)
        if about.get("size") is not None:
            _known[url + (quote(name, safe=SAFE) if _is_http(url) else name)] = _status(about)
    return names


def content_of(url: str, size: int | None = None) -> bytes:
    """All bytes of a file.

    Args:
        url: the file.
        size: its length in bytes, if that is known; else storage is asked for it first.

    Raises:
        FileNotFoundError: there is no such file.
        ConfigError: a package is missing, or fsspec does not know the protocol.
        DataError: storage cannot be reached or refuses, also after repetitions; or the file is larger than
            `hdgan.files.limits` allows.
    """
    key = (_times_forgotten, url)
    if getattr(_latest, "key", None) != key:
        if size is None:
            size = status_of(url).st_size
        require_bounded(url, size or 0, f"a file of {size} bytes")
        _latest.content, _latest.key = _ask(url, lambda files, path: files.cat_file(path)), key
    content: bytes = _latest.content
    return content


def range_of(url: str, start: int, end: int, size: int) -> bytes:
    """The bytes of a file from `start` to before `end`; fewer where it is shorter.

    Args:
        url: the file.
        start: the first byte.
        end: the byte after the last.
        size: the length of the file in bytes, by which an answer of a server without ranges is recognised.

    Raises:
        FileNotFoundError, ConfigError, DataError: as of `content_of`.
    """
    content: bytes = _ask(url, lambda files, path: files.cat_file(path, start=start, end=min(end, size)))
    return content[start:end] if len(content) == size and end - start < size else content


def copy_of(url: str) -> Path:
    """A copy of a file in the folder `remote` of hdgan's cache, which is made if it is not there.

    A file whose size or time has changed is another one. Several processes may make a copy at the same time.

    Raises:
        FileNotFoundError, ConfigError, DataError: as of `content_of`.
        HdganError: the cache cannot be written.
    """
    about = status_of(url)
    key = hashlib.sha256(f"{url} {about.st_size} {about.st_mtime_ns}".encode()).hexdigest()[:40]
    path = default_cache() / "remote" / key[:2] / f"{key[2:]}{PurePosixPath(url).suffix}"
    if not path.is_file():
        content = content_of(url, about.st_size)
        with atomic_file(path) as temporary:
            temporary.write_bytes(content)
    return path


def _ask(url: str, request: Callable[[Any, str], T]) -> T:
    """The answer to a request, which is a function of a file system and of the path that the URL has on it."""
    import fsspec  # which only data elsewhere need

    _forget_threads_after_forks()
    for pause in (*PAUSES, None):
        try:
            return request(*fsspec.url_to_fs(url, **_options(url)))
        except HdganError:
            raise
        except Exception as problem:  # of whichever library: nothing but the request is tried here
            cause = _cause(problem)
            final = _final(url, cause)
            if final is not None:
                raise final from problem
            if pause is None:
                raise DataError(
                    f"{url} cannot be read ({_reason(cause)}, {len(PAUSES) + 1} tries); check the network and the "
                    "server, then repeat"
                ) from problem
            time.sleep(pause)
    raise AssertionError


@functools.cache
def _forget_threads_after_forks() -> None:
    """Let a forked data worker start a thread of its own for requests. Not all versions of fsspec do this."""
    if hasattr(os, "register_at_fork"):
        from fsspec.asyn import reset_lock

        os.register_at_fork(after_in_child=reset_lock)


def _final(url: str, problem: Exception) -> Exception | None:
    """The error for a problem that a repetition would not solve; None for any other."""
    protocol = url.partition(":")[0]
    if isinstance(problem, FileNotFoundError):
        return FileNotFoundError(2, "No such file", url)
    if isinstance(problem, ImportError):
        package = _PACKAGES.get(protocol, f"the package of fsspec for {protocol}")
        return ConfigError(f"{url} needs a package that is not installed: pip install {package}")
    if isinstance(problem, ValueError) and "Protocol not known" in str(problem):
        return ConfigError(f"{url}: fsspec does not know {protocol}: check the URL")
    if _is_refusal(problem):
        return DataError(
            f"{url}: access is refused ({_reason(problem)}); check the credentials, which the environment or fsspec's "
            "configuration provides"
        )
    return None


def _options(url: str) -> dict[str, Any]:
    """Options of fsspec's file system. A user's own, in fsspec's configuration, take their place."""
    if not _is_http(url):
        return {}
    import fsspec

    if "client_kwargs" in fsspec.config.conf.get(url.partition(":")[0], {}):
        return {}
    try:
        from aiohttp import ClientTimeout
    except ImportError:  # fsspec then says what it needs
        return {}
    return {"client_kwargs": {"timeout": ClientTimeout(total=None, sock_connect=_SILENCE, sock_read=_SILENCE)}}


def _is_http(url: str) -> bool:
    return url.startswith(("http://", "https://"))


def _cause(error: Exception) -> Exception:
    """What has happened. fsspec's file system for HTTP calls every failure to learn about a file its absence."""
    cause = error.__cause__
    if not isinstance(error, FileNotFoundError) or not isinstance(cause, Exception):
        return error
    of_network = isinstance(cause, (ConnectionError, TimeoutError, asyncio.TimeoutError))
    of_network |= type(cause).__module__.partition(".")[0] == "aiohttp" and _code(cause) not in (404, 410)
    return cause if of_network else error


def _code(error: Exception) -> Any:
    """The status with which a server has answered, where the error has it."""
    return error.status if hasattr(error, "status") else getattr(error, "code", None)


def _is_refusal(error: Exception) -> bool:
    """Whether a repetition would be refused in the same way."""
    missing = type(error).__name__ in ("NoCredentialsError", "PartialCredentialsError", "DefaultCredentialsError")
    return isinstance(error, PermissionError) or _code(error) in (401, 403) or missing


def _reason(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__


def _status(about: Mapping[str, Any]) -> StoredFile:
    mode = stat.S_IFDIR if about.get("type") == "directory" else stat.S_IFREG
    size = about.get("size")
    return StoredFile(mode, None if size is None else int(size), _version(about))


def _version(about: Mapping[str, Any]) -> int:
    """The time of the last change in nanoseconds; else a number that changes with the content; 0 without either."""
    for name in _TIMES:
        value = about.get(name)
        if isinstance(value, str):
            try:
                value = datetime.fromisoformat(value.replace("Z", "+00:00"))
            except ValueError:
                continue
        if isinstance(value, datetime):
            return round(value.timestamp() * 1e6) * 1000
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            return round(value * 1e9)
    tag = next((about[name] for name in _TAGS if about.get(name)), "")
    return int.from_bytes(hashlib.sha256(str(tag).encode()).digest()[:7], "big") if tag else 0
