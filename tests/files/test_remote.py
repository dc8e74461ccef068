"""Paths of files elsewhere: they behave as pathlib's, name themselves by their URL, and are only read."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from hdgan.config.serialization import from_plain, to_plain
from hdgan.data import DataConfig
from hdgan.errors import ConfigError, DataError, HdganError
from hdgan.files import write_text
from hdgan.files.remote import RemotePath, fetched, is_remote, located

URLS = (
    "s3://bucket/set",
    "memory://set",
    "abfs://container@account.dfs.core.windows.net/set",
    "https://host:8080/my%20set",
    "simplecache::s3://bucket/set",
    "filecache::file:///mnt/set",
)


@pytest.mark.parametrize("url", URLS)
def test_a_path_keeps_its_url(url: str) -> None:
    root = located(Path(url), "--root")
    assert isinstance(root, RemotePath)
    assert str(root) == root.as_posix() == url
    file = root / "train_label" / "a b.png"
    assert str(file) == f"{url}/train_label/a{'%20' if 'https' in url else ' '}b.png"
    assert (file.name, file.suffix, file.stem) == ("a b.png", ".png", "a b")
    assert file.parent.parent == root
    assert all(map(is_remote, (file, file.parent, file.with_suffix(".npy"))))
    assert file.relative_to(root).as_posix() == "train_label/a b.png"
    for again in (pickle.loads(pickle.dumps(file)), located(file, ""), located(Path(str(file)), "")):
        assert again == file
        assert str(again) == str(file)
        assert hash(again) == hash(file)
    assert sorted([file, root / "b", root / "a"]) == [root / "a", root / "b", file]
    assert root.resolve() == root.absolute() == root


@pytest.mark.parametrize("url", URLS)
def test_a_config_holds_the_url(url: str) -> None:
    config = DataConfig(root=Path(url))
    plain = to_plain(config)
    assert plain["root"] == url
    assert from_plain(DataConfig, plain, "config.json") == config


@pytest.mark.parametrize("url", ["file:///mnt/set", "local:///mnt/set", "/mnt/set"])
def test_local_paths_stay_local(url: str) -> None:
    assert located(Path(url), "--root") == Path("/mnt/set")
    assert not is_remote(located(Path(url), "--root"))


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("s3://key:hush@bucket/set", "^--root is a URL with a name or password: leave it out, .* environment"),
        ("https://me:hush@host/set", "password"),
        ("https://hush@host/set", "password"),
        ("zip::https://me:hush@host/set", "chain"),
        ("simplecache::ftp://me:hush@host/set", "password"),
        ("https://host/set?X-Amz-Signature=hush", "^--root is a URL with a query: leave out"),
        ("zip://::s3://bucket/set.zip", "chain"),
        ("blockcache::s3://bucket/set", "of URLs in a chain only those with simplecache:: or filecache:: are read"),
    ],
)
def test_credentials_and_other_chains_are_refused_and_not_repeated(url: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        located(Path(url), "--root")
    assert "hush" not in str(caught.value)


def test_a_protocol_or_package_that_is_not_there_is_named() -> None:
    with pytest.raises(ConfigError, match=r"^nonsense://a/b: fsspec does not know nonsense"):
        located(Path("nonsense://a/b"), "").exists()


def test_only_reading_is_possible(in_memory: Callable[[Path], Path], tmp_path: Path) -> None:
    root = located(in_memory(tmp_path), "--root")
    refused = r"^memory://\w+/set/a is not on this machine, and this needs a local file: copy it"
    for use in (
        os.fspath,
        open,
        np.memmap,
        Path.mkdir,
        RemotePath.mkdir,
        RemotePath.touch,
        lambda path: path.open("w"),
    ):
        with pytest.raises(HdganError, match=refused):
            use(root / "a")
    with pytest.raises(HdganError, match=r"is a URL, and files are only written on this machine"):
        write_text(Path("s3://bucket/file"), "text")
    assert not Path("s3:").exists()


def test_reading(in_memory: Callable[[Path], Path], tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "b.txt").write_text("content")
    root = located(in_memory(tmp_path), "--root")
    assert isinstance(root, RemotePath)
    file = root / "a" / "b.txt"
    assert (root.is_dir(), root.is_file(), file.is_dir(), file.is_file()) == (True, False, False, True)
    assert [(root / "c").exists(), (root / "c").is_dir(), (root / "c").is_file()] == [False] * 3
    assert (root.folder_names(), (root / "c").folder_names()) == (["a"], [])
    assert (root.files_below(), (root / "c").files_below()) == ([file], [])
    assert file.stat().st_size == 7
    assert file.stat().st_mtime_ns > 0
    assert (file.read_text(), file.read_bytes(), file.read_range(3, 5, 7)) == ("content", b"content", b"te")
    with file.open("rb") as opened:
        assert opened.read(3) == b"con"
    with pytest.raises(FileNotFoundError):
        (root / "c").stat()
    with pytest.raises(DataError, match=r"^memory://\w+/set/c does not exist: check the path"):
        fetched(RemotePath(root / "c"))
