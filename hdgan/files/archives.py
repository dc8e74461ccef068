"""Zip archives, such as .npz and .pth, whose size in memory is limited before anything is unpacked."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from io import FileIO
from pathlib import Path

from hdgan.errors import HdganError
from hdgan.files import require_file
from hdgan.files.limits import max_bytes, require_bounded

_DIRECTORY_BYTES = 2**24
"""Limit on the directory of an archive, whose entries become objects many times as large."""


@contextmanager
def open_archive(path: Path, error: type[HdganError]) -> Iterator[zipfile.ZipFile]:
    """Open a zip archive that takes no more memory than the limit, or than it takes on disk.

    An archive states the sizes of its members, and readers return no more than that.

    Args:
        path: the archive.
        error: the class of the error to raise if it is too large.

    Raises:
        HdganError: of the given class, if the archive is too large or no ordinary file.
        zipfile.BadZipFile, OSError, ValueError, NotImplementedError: it is damaged or of another kind.
    """
    require_file(path, error)
    with _Bounded(path) as file, zipfile.ZipFile(file) as archive:
        file.directory_read = True
        members = archive.infolist()
        if any(member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) for member in members):
            raise zipfile.BadZipFile("its compression cannot be unpacked piece by piece")
        size, unpacked = path.stat().st_size, sum(member.file_size for member in members)
        if unpacked > max(size, max_bytes()):
            require_bounded(path, unpacked, f"an archive of {size} bytes", error)
        yield archive


class _Bounded(FileIO):
    """A file that refuses to read an archive's directory into memory if it is far too large."""

    directory_read = False
    """Afterwards members are read, which may be larger."""

    def read(self, size: int | None = -1, /) -> bytes:
        if size is not None and size > _DIRECTORY_BYTES and not self.directory_read:
            raise zipfile.BadZipFile("its directory is too large")
        return super().read(size)
