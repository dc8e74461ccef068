"""Files and folders that are complete or absent, whatever happens while they are written."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from hdgan.errors import HdganError
from hdgan.files import atomic, atomic_file, atomic_folder, remove_dead, remove_folder, save_png


def content(folder: Path) -> dict[str, str]:
    return {str(p.relative_to(folder)): p.read_text() for p in sorted(folder.rglob("*")) if p.is_file()}


def write_and_fail(path: Path, error: BaseException) -> None:
    with atomic_file(path) as temporary:
        temporary.write_text("half")
        raise error


def test_file_appears_with_parents(tmp_path):
    with atomic_file(tmp_path / "a" / "b.txt") as temporary:
        temporary.write_text("new")
        assert not (tmp_path / "a" / "b.txt").exists()
        assert temporary.parent == tmp_path / "a"
    assert content(tmp_path) == {"a/b.txt": "new"}


def test_file_is_replaced(tmp_path):
    path = tmp_path / "a"
    path.write_text("old")
    with atomic_file(str(path)) as temporary:
        temporary.write_text("new")
        assert path.read_text() == "old"
    assert content(tmp_path) == {"a": "new"}


@pytest.fixture
def mask(monkeypatch) -> Iterator[None]:
    """A umask of 027, which belongs to all threads: whoever sets it to read it takes it from the others."""
    umask = os.umask
    before = umask(0o027)
    monkeypatch.setattr(os, "umask", lambda mask: pytest.fail(f"umask is set to {mask}"))
    yield
    umask(before)


@pytest.mark.usefixtures("mask")
def test_files_and_folders_have_ordinary_permissions(tmp_path):
    with atomic_file(tmp_path / "a") as temporary:
        temporary.unlink()
        temporary.touch(0o600)  # as libraries do that write atomically themselves
    with atomic_folder(tmp_path / "b"):
        pass
    assert [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in "ab"] == [0o640, 0o750]


def test_a_folder_is_removed_by_way_of_a_name_of_ours(tmp_path, monkeypatch):
    (tmp_path / "step").mkdir()
    monkeypatch.setattr("shutil.rmtree", lambda *_, **__: None)  # killed in the middle
    remove_folder(tmp_path / "step")
    monkeypatch.undo()
    assert not (tmp_path / "step").exists()
    assert len(list(tmp_path.iterdir())) == 1
    remove_dead(tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("error", [RuntimeError("stop"), KeyboardInterrupt()])
def test_failure_leaves_the_old_file(tmp_path, error):
    path = tmp_path / "a"
    path.write_text("old")
    with pytest.raises(type(error)):
        write_and_fail(path, error)
    assert content(tmp_path) == {"a": "old"}


def test_full_disk_names_the_file(tmp_path):
    path = tmp_path / "a"
    path.write_text("old")
    with pytest.raises(HdganError, match=f"cannot write {path}: No space left on device; free space"):
        write_and_fail(path, OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))
    assert content(tmp_path) == {"a": "old"}


@pytest.mark.parametrize("words", ["[enforce fail at inline_container.cc] . unexpected pos 8 vs 7", "iostream error"])
def test_a_write_that_pytorch_reports_in_its_own_words(tmp_path, words):
    with pytest.raises(HdganError, match=r"cannot write .*a: it could not be written completely; free space"):
        write_and_fail(tmp_path / "a", RuntimeError(words))


def test_a_file_size_limit_names_the_file(tmp_path):
    """Of writers in other languages too, which do not raise OSError."""
    resource = pytest.importorskip("resource")
    tensors = {"x": torch.zeros(10_000)}
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    for write in (lambda path: torch.save(tensors, path), partial(save_file, tensors)):
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
        try:
            with (
                pytest.raises(HdganError, match=r"cannot write .*a: .*; free space"),
                atomic_file(tmp_path / "a") as path,
            ):
                write(path)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_disk_that_fails_at_the_end(tmp_path, monkeypatch, call):
    def fail(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    path = tmp_path / "a"
    path.write_text("old")
    if call == "fsync":
        monkeypatch.setattr(os, "fsync", fail)
    else:
        monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(HdganError, match="No space left"), atomic_file(path) as temporary:
        temporary.write_text("new")
    assert content(tmp_path) == {"a": "old"}


def test_everything_is_synced_before_it_is_renamed(tmp_path, monkeypatch):
    events = []
    fsync, replace = os.fsync, Path.replace
    monkeypatch.setattr(os, "fsync", lambda handle: (events.append("sync"), fsync(handle)))
    monkeypatch.setattr(Path, "replace", lambda self, to: (events.append("rename"), replace(self, to))[1])
    with atomic_file(tmp_path / "a") as temporary:
        temporary.write_text("new")
    assert events == ["sync", "rename", "sync"]
    events.clear()
    with atomic_folder(tmp_path / "b") as temporary:
        (temporary / "file").write_text("new")
    assert events == ["sync", "sync", "rename", "sync"]  # the folder, what is in it, and the folder of both


def test_parent_that_is_a_file(tmp_path):
    (tmp_path / "a").write_text("old")
    with pytest.raises(HdganError, match="cannot write"), atomic_file(tmp_path / "a" / "b"):
        pass
    assert content(tmp_path) == {"a": "old"}


def test_unwritable_folder(tmp_path, monkeypatch):
    def deny(*_, **__):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(Path, "touch", deny)
    with pytest.raises(HdganError, match="Permission denied"), atomic_file(tmp_path / "a"):
        pass


def test_folder_appears_whole(tmp_path):
    with atomic_folder(tmp_path / "x" / "run") as temporary:
        (temporary / "sub").mkdir()
        (temporary / "sub" / "a").write_text("1")
        (temporary / "b").write_text("2")
        assert not (tmp_path / "x" / "run").exists()
    assert content(tmp_path) == {"x/run/b": "2", "x/run/sub/a": "1"}
    assert os.listdir(tmp_path / "x") == ["run"]  # noqa: PTH208


@pytest.mark.parametrize("exchange", [True, False])
def test_folder_is_replaced_whole(tmp_path, monkeypatch, exchange):
    if not exchange:
        monkeypatch.setattr(atomic, "_exchange", lambda *_: False)
    path = tmp_path / "run"
    path.mkdir()
    (path / "old").write_text("1")
    with atomic_folder(path) as temporary:
        (temporary / "new").write_text("2")
        assert content(path) == {"old": "1"}
    assert content(tmp_path) == {"run/new": "2"}
    assert [p.name for p in tmp_path.iterdir()] == ["run"]


def test_folders_change_places_in_one_step_or_stay(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / name).write_text(name)
    done = atomic._exchange(tmp_path / "a", tmp_path / "b")
    assert content(tmp_path) == ({"a/b": "b", "b/a": "a"} if done else {"a/a": "a", "b/b": "b"})
    assert not atomic._exchange(tmp_path / "a", tmp_path / "absent")


def test_failure_leaves_the_old_folder(tmp_path):
    path = tmp_path / "run"
    path.mkdir()
    (path / "old").write_text("1")
    with pytest.raises(HdganError), atomic_folder(path) as temporary:
        (temporary / "absent" / "new").write_text("2")
    assert content(tmp_path) == {"run/old": "1"}
    assert [p.name for p in tmp_path.iterdir()] == ["run"]


def test_folder_that_cannot_be_renamed_keeps_the_old_content(tmp_path, monkeypatch):
    path = tmp_path / "run"
    path.mkdir()
    (path / "old").write_text("1")
    replace = Path.replace

    def fail_into_place(self, to):
        if Path(to) == path and not self.name.endswith(".old"):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return replace(self, to)

    monkeypatch.setattr(atomic, "_exchange", lambda *_: False)
    monkeypatch.setattr(Path, "replace", fail_into_place)
    with pytest.raises(HdganError, match="Input/output error"), atomic_folder(path) as temporary:
        (temporary / "new").write_text("2")
    assert content(tmp_path) == {"run/old": "1"}


def test_png_whatever_the_name(tmp_path):
    picture = Image.new("I;16", (3, 2), 40000)
    save_png(picture, tmp_path / "a" / "picture.jpg")
    with Image.open(tmp_path / "a" / "picture.jpg") as found:
        assert found.format == "PNG"
        assert found.getpixel((2, 1)) == 40000
