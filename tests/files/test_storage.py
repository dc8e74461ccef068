"""Requests to storage: repeated when the network fails, refused in one line, kept in the cache where that is wished."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from hdgan.errors import DataError
from hdgan.files import storage
from hdgan.files.remote import RemotePath, located

Put = Callable[[Path], Path]


@pytest.fixture
def file(in_memory: Put, tmp_path: Path) -> RemotePath:
    """A file of 7 bytes in memory."""
    (tmp_path / "a.txt").write_text("content")
    return RemotePath(located(in_memory(tmp_path), "") / "a.txt")


def failing(monkeypatch: pytest.MonkeyPatch, *errors: Exception) -> list[Exception]:
    """Let the next requests for contents fail; returns the errors that are still to come."""
    left, read = list(errors), MemoryFileSystem.cat_file

    def cat_file(self: Any, *args: Any, **options: Any) -> bytes:
        if left:
            raise left.pop(0)
        return read(self, *args, **options)

    monkeypatch.setattr(MemoryFileSystem, "cat_file", cat_file)
    return left


def test_a_request_is_repeated(file: RemotePath, monkeypatch: pytest.MonkeyPatch) -> None:
    left = failing(monkeypatch, ConnectionError("reset"), TimeoutError())
    assert file.read_bytes() == b"content"
    assert left == []


def test_a_server_that_is_gone_is_one_error(file: RemotePath, monkeypatch: pytest.MonkeyPatch) -> None:
    failing(monkeypatch, *[ConnectionError("connection reset")] * 9)
    says = rf"^{file} cannot be read \(connection reset, 3 tries\); check the network and the server, then repeat$"
    with pytest.raises(DataError, match=says):
        file.read_bytes()


def test_a_refusal_is_not_repeated(file: RemotePath, monkeypatch: pytest.MonkeyPatch) -> None:
    left = failing(monkeypatch, PermissionError("Forbidden"), ValueError("not reached"))
    with pytest.raises(DataError, match=r"access is refused \(Forbidden\); check the credentials"):
        file.read_bytes()
    assert len(left) == 1


def test_a_file_beyond_the_limit_is_not_fetched(file: RemotePath, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HDGAN_MAX_GIB", "1e-9")
    with pytest.raises(DataError, match=r"a\.txt is a file of 7 bytes, which takes .* more than the limit"):
        file.read_bytes()


def test_the_file_that_was_read_last_is_not_fetched_again(file: RemotePath, monkeypatch: pytest.MonkeyPatch) -> None:
    assert file.read_bytes() == b"content"
    failing(monkeypatch, *[ConnectionError()] * 9)
    assert file.read_bytes() == b"content"
    file.forget()
    with pytest.raises(DataError, match="ConnectionError, 3 tries"):
        file.read_bytes()


@pytest.mark.parametrize("prefix", ["simplecache::", "filecache::"])
def test_the_cache_serves_a_file_until_it_changes(
    file: RemotePath, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, prefix: str
) -> None:
    monkeypatch.setenv("HDGAN_CACHE", str(tmp_path / "cache"))
    cached = located(Path(f"{prefix}{file}"), "")
    assert isinstance(cached, RemotePath)
    assert cached.read_bytes() == b"content"
    (copy,) = (tmp_path / "cache" / "remote").glob("*/*")
    assert (cached.copy_here(), copy.suffix, copy.read_bytes()) == (copy, ".txt", b"content")
    file.forget()
    failing(monkeypatch, *[ConnectionError()] * 9)
    assert cached.read_bytes() == b"content"
    monkeypatch.undo()
    monkeypatch.setenv("HDGAN_CACHE", str(tmp_path / "cache"))
    fsspec.filesystem("memory").pipe_file(str(file), b"other")
    cached.forget()
    assert cached.read_bytes() == b"other"


@pytest.mark.parametrize(
    ("about", "version"),
    [
        ({"LastModified": "1970-01-01T00:00:02Z", "ETag": "a"}, 2_000_000_000),
        ({"mtime": 1.5}, 1_500_000_000),
        ({"updated": "no date", "created": 3}, 3_000_000_000),
        ({}, 0),
    ],
)
def test_the_version_of_a_file(about: dict[str, Any], version: int) -> None:
    assert storage._version(about) == version
    assert storage._version({"ETag": "a"}) == storage._version({"ETag": "a"}) != storage._version({"ETag": "b"})


@pytest.mark.remote
def test_web_servers(tmp_path: Path, serve: Callable[[Path], str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Folders are pages with links, names are quoted, and this server answers a range with the whole file."""
    monkeypatch.setattr(storage, "PAUSES", ())
    (tmp_path / "100% #1" / "ä").mkdir(parents=True)
    (tmp_path / "100% #1" / "ä" / "a?b.txt").write_text("content")
    (tmp_path / "index").write_text("no folder")
    root = RemotePath(located(Path(serve(tmp_path)), ""))
    assert root.folder_names() == ["100% #1"]
    (file,) = (root / "100% #1").files_below()
    assert file == root / "100% #1" / "ä" / "a?b.txt"
    assert str(file).endswith("/100%25%20%231/%C3%A4/a%3Fb.txt")
    assert (file.read_text(), file.read_range(3, 5, 7), file.stat().st_size) == ("content", b"te", 7)
    assert (root.is_dir(), file.parent.is_dir(), file.is_dir(), (root / "index").is_dir()) == (True, True, False, False)
    assert [(root / "no").exists(), (root / "no").is_dir(), (root / "no").files_below()] == [False, False, []]


@pytest.mark.remote
def test_a_server_that_is_down_is_no_missing_file(
    serve: Callable[[Path], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from http.server import HTTPServer, SimpleHTTPRequestHandler

    monkeypatch.setattr(storage, "PAUSES", (0.0,))
    with HTTPServer(("127.0.0.1", 0), SimpleHTTPRequestHandler) as server:
        port = server.server_port
    path = located(Path(f"http://127.0.0.1:{port}/set"), "")
    for ask in (path.exists, path.is_dir, path.read_bytes):
        with pytest.raises(DataError, match=rf"^http://127.0.0.1:{port}/set cannot be read \(.*, 2 tries\)"):
            ask()
