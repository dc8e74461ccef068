"""What an archive of arrays or tensors unpacks to, found out before anything is unpacked.

A zip archive says how large its members are, and readers give no more than that. PyTorch's files also hold programs for
its unpickler; these are walked through without being run, since a few bytes of one can ask for any amount of memory.
"""

from __future__ import annotations

import pickletools
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from hdgan.errors import HdganError
from hdgan.files import require_file
from hdgan.limits import max_bytes, require_bounded

_GROWTH = 64
"""An entry of a zip's directory takes up to about this many times its bytes in Python."""
_MOST_STEPS = 1_000_000
"""Of a program; that of a model with a thousand tensors and their two moments has some 75,000."""
_PROGRAMS = 5
"""In files of before PyTorch 1.6: one after the other, and the tensors behind them."""
_GROWERS = {"builtins bytearray", "__builtin__ bytearray", "_codecs encode"}
"""What PyTorch lets a program call, tensors do not need, and returns as much as one asks for."""


def require_bounded_archive(path: Path, error: type[HdganError]) -> None:
    """Refuse a zip archive that unpacks to more memory than the limit, unless the file itself is as large.

    Args:
        path: of the archive, such as an .npz.
        error: what is raised.

    Raises:
        HdganError: of the given class, if the archive is too large, or the file is missing, damaged or none.
    """
    with _opened(path, error) as file:
        _require_bounded_members(path, file, error)


def require_bounded_tensors(path: Path, error: type[HdganError]) -> None:
    """The same for a file that `torch.save` wrote, whose programs must be of bounded length, too.

    What a program may name beyond that is left to `torch.load(weights_only=True)`.

    Args:
        path: of the file.
        error: what is raised.

    Raises:
        HdganError: of the given class, as above.
    """
    with _opened(path, error) as file:
        if not zipfile.is_zipfile(file):
            file.seek(0)
            for _ in range(_PROGRAMS):
                _walk(file)
            return
        _require_bounded_members(path, file, error)
        with zipfile.ZipFile(file) as archive:
            for member in archive.infolist():
                if member.filename.endswith(".pkl"):
                    with archive.open(member) as program:
                        _walk(program)


@contextmanager
def _opened(path: Path, error: type[HdganError]) -> Iterator[IO[bytes]]:
    """The file; what its damage raises becomes an error for the user."""
    require_file(path, error)
    try:
        with path.open("rb") as file:
            yield file
    except HdganError:
        raise
    except OSError as problem:
        raise error(f"{path} cannot be read ({problem.strerror or problem}): make it readable") from problem
    except Exception as problem:  # a damaged archive can raise anything, and nothing of it has run
        size = path.stat().st_size
        raise error(f"{path} ({size} bytes) is cut off or of another kind ({problem}): copy it again") from problem


def _require_bounded_members(path: Path, file: IO[bytes], error: type[HdganError]) -> None:
    end = zipfile._EndRecData(file)  # type: ignore[attr-defined]  # nothing public tells it without reading it all
    if end is None:
        raise ValueError("it is no zip archive")
    directory = end[5]
    require_bounded(path, directory * _GROWTH, f"an archive with a directory of {directory} bytes", error)
    size = path.stat().st_size
    with zipfile.ZipFile(file) as archive:
        members = archive.infolist()
    unpacked = sum(member.file_size for member in members)
    if unpacked > max(size, max_bytes()):
        require_bounded(path, unpacked, f"an archive of {size} bytes that unpacks to {unpacked}", error)
    for member in members:
        # Python unpacks other kinds in steps of any size.
        if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise ValueError(f"{member.filename[:60]!r} is compressed in an unusual way")


def _walk(program: IO[bytes]) -> None:
    """Read one program of an unpickler to its end, and leave the file behind it."""
    for step, (code, argument, _) in enumerate(pickletools.genops(program)):
        if step == 0 and code.name != "PROTO":
            raise ValueError("it does not begin as PyTorch's files do")
        if step > _MOST_STEPS:
            raise ValueError(f"a program of more than {_MOST_STEPS} steps")
        if code.name == "GLOBAL" and argument in _GROWERS:
            raise ValueError(f"it calls {argument}, which no tensor needs")
