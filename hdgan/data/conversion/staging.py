"""The folder in which a dataset is converted: what is finished there, and its move to its own place.

Samples are written to OUT.partial, file by file. Only when all are there does the folder become OUT, so OUT is complete
or absent. A repeat keeps what is finished in OUT.partial and made from the same files with the same options.
"""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from hdgan.config.options import option
from hdgan.config.serialization import from_plain, to_plain
from hdgan.errors import ConfigError, DataError, HdganError
from hdgan.files import create_empty, remove_dead, remove_dead_below, rename_folder, require_no_file, write_text
from hdgan.files.json import parse_json, read_bytes, read_json, write_json

RECORD, _JOURNAL = "conversion.json", "conversion.jsonl"
_KIND, _VERSION = "hdgan conversion", 1
_GROWTH = 8
"""Bytes of memory for each byte of the journal."""


@dataclass(frozen=True)
class WrittenSample:
    """A sample that is in the folder: a line of the journal."""

    phase: str
    stem: str
    digest: str
    """Of the files that it was made of, and the options."""
    files: tuple[str, ...]
    """Its own files, below the folder."""
    size: tuple[int, int]
    """(width, height) in pixels."""
    labels: dict[str, int]
    """Pixels of each label; empty for A-to-B pairs."""
    inexact: int = 0
    """Pixels whose colour was not exactly that of their class."""
    instances: bool = False
    """Whether it has an instance map."""


@dataclass(frozen=True)
class ConversionSummary:
    """What a converted dataset contains."""

    samples: dict[str, int] = field(default_factory=dict)
    """Samples of each phase."""
    pixels: dict[str, int] = field(default_factory=dict)
    """Pixels of each label; empty for A-to-B pairs."""
    images: dict[str, int] = field(default_factory=dict)
    """Label maps that contain each label."""
    width: int = 0
    """The most frequent width of an image."""
    n_labels: int = 0
    """Number of classes; 0 for A-to-B pairs."""
    dontcare: int | None = None
    """Label whose pixels belong to no class."""
    divisor: int = 1000
    """Of instance ids."""
    instances: bool = False
    """Whether there are instance maps."""
    inexact: int = 0
    """Pixels whose colour was not exactly that of their class."""


@dataclass(frozen=True)
class ConversionRecord:
    """What `conversion.json` says about a folder."""

    kind: str = _KIND
    version: int = _VERSION
    digest: str = ""
    """Of all samples and classes; empty until the conversion is finished."""
    summary: ConversionSummary = ConversionSummary()


class Staging:
    """The folder OUT.partial, which `staging` opens.

    Args:
        out: The folder OUT.
    """

    def __init__(self, out: Path) -> None:
        self.out = out
        self.folder = out.with_name(f"{out.name}.partial")
        self._journal = self.folder / _JOURNAL

    def written(self) -> dict[tuple[str, str], WrittenSample]:
        """The finished samples by phase and stem. A last line that was not written completely is ignored.

        Raises:
            DataError: the journal is damaged.
        """
        found: dict[tuple[str, str], WrittenSample] = {}
        lines = read_bytes(self._journal, _GROWTH, "a journal", DataError) if self._journal.exists() else b""
        where = str(self._journal)
        for line in lines.split(b"\n")[:-1]:
            table = parse_json(line, where, f"delete {self.folder}", DataError)
            sample = from_plain(WrittenSample, table, where, DataError)
            if all((self.folder / name).is_file() for name in sample.files):
                found[sample.phase, sample.stem] = sample
        return found

    def begin(self, kept: Iterable[WrittenSample]) -> None:
        """Claim the folder, and begin the journal with the samples that are kept.

        Raises:
            HdganError: the folder is not writable, or the disk is full.
        """
        write_json(self.folder / RECORD, ConversionRecord())
        write_text(self._journal, "".join(map(_line, kept)))

    def note(self, sample: WrittenSample) -> None:
        """Add a finished sample to the journal.

        Raises:
            HdganError: the folder is not writable, or the disk is full.
        """
        with _writing(self.folder), self._journal.open("a", encoding="utf-8") as file:
            file.write(_line(sample))

    def finish(self, samples: Iterable[WrittenSample], others: Iterable[str], record: ConversionRecord) -> None:
        """Remove what belongs to no sample, also folders that nothing is in, and give the folder its own name.

        Args:
            samples: All samples of the dataset.
            others: Names of the other files in it.
            record: Its record.

        Raises:
            HdganError: the folder is not writable, or the disk is full.
        """
        expected = {self.folder / name for sample in samples for name in sample.files}
        expected |= {self.folder / name for name in (RECORD, *others)}
        remove_dead_below(self.folder, lambda target: False)
        with _writing(self.folder):
            for path in sorted(self.folder.rglob("*"), reverse=True):  # what is in a folder comes before the folder
                if not path.is_dir():
                    if path not in expected:
                        path.unlink()
                elif not any(path.iterdir()):
                    path.rmdir()
        write_json(self.folder / RECORD, record)
        if self.out.is_dir():
            with _writing(self.out):
                self.out.rmdir()  # it is empty
        rename_folder(self.folder, self.out.name)


def require_place(out: Path) -> None:
    """Make sure that a folder can get the name OUT, before any work is done.

    Raises:
        ConfigError: it is the current folder, a root, a file, below a file, or a link to a folder that is not yet
            converted.
    """
    require_no_file(out)
    if out.name in ("", ".."):
        raise ConfigError(
            f"{option('out')} {out} cannot be replaced by the converted folder: give a new folder in it, such as "
            f"{out / 'dataset'}"
        )
    if out.is_symlink() and not _in_use(out):
        raise ConfigError(
            f"{option('out')} {out} is a link, which the converted folder cannot replace: give the folder that it "
            f"leads to, {os.path.realpath(out)}"
        )


def _line(sample: WrittenSample) -> str:
    return json.dumps(to_plain(sample)) + "\n"


def finished(out: Path) -> ConversionRecord | None:
    """The record of a folder that an earlier conversion has finished; None if nothing is there.

    Raises:
        ConfigError: something else is there.
        DataError: the record is damaged.
    """
    if not _in_use(out):
        return None
    _require_ours(out)
    return read_json(out / RECORD, ConversionRecord, "delete the folder, and convert again", DataError)


@contextmanager
def staging(out: Path) -> Iterator[Staging]:
    """Open OUT.partial, which only one process may use at a time.

    Raises:
        ConfigError: something else has this name, or another process is converting to OUT.
        HdganError: the folder that OUT lies in is not writable.
    """
    from filelock import FileLock, Timeout  # not needed by those who only read what is in the folder

    stage = Staging(out)
    lock = FileLock(out.with_name(f".{out.name}.partial.lock"))
    try:
        create_empty(Path(lock.lock_file))
        lock.acquire(timeout=0)
    except Timeout:
        raise ConfigError(f"another process is converting to {out}: wait for it, or end it") from None
    except OSError as error:
        raise _unwritable(out, error) from error
    try:
        if stage.folder.is_dir():
            remove_dead(stage.folder)  # before its record was written, a killed process may have left nothing else
        if _in_use(stage.folder):
            _require_ours(stage.folder)
        yield stage
    finally:
        lock.release()
        Path(lock.lock_file).unlink(missing_ok=True)


@contextmanager
def _writing(folder: Path) -> Iterator[None]:
    """Explain what the system refuses in a folder."""
    try:
        yield
    except OSError as error:
        raise _unwritable(folder, error) from error


def _unwritable(folder: Path, error: OSError) -> HdganError:
    remedy = "free space, or choose" if error.errno in (errno.ENOSPC, errno.EDQUOT) else "choose"
    return HdganError(f"cannot write {folder}: {error.strerror or error}; {remedy} another {option('out')}")


def _in_use(folder: Path) -> bool:
    return os.path.lexists(folder) and not (folder.is_dir() and not any(folder.iterdir()))


def _require_ours(folder: Path) -> None:
    """Raise ConfigError unless a conversion has written a folder."""
    table: dict[str, object] = {}
    if (folder / RECORD).is_file():
        table = read_json(folder / RECORD, dict, "delete the folder, and convert again", DataError)
    if table.get("kind") != _KIND:
        raise ConfigError(
            f"{folder} exists and was not written by `hdgan data convert`: choose another {option('out')}, or remove it"
        )
