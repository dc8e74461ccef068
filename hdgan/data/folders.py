"""What counts in the folders of a dataset: images and subfolders, but not the files of systems and servers."""

from __future__ import annotations

import os
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NoReturn

from hdgan.data.headers import EXTENSIONS
from hdgan.errors import DataError
from hdgan.files.remote import RemotePath

# What servers and systems put beside images: thumbnails, deleted files, halves of files.
_SYSTEM = frozenset(
    ("@eadir", "__macosx", "lost+found", "#recycle", "@recycle", "$recycle.bin", "system volume information")
)

PHOTO_FOLDERS = ("images", "image", "imgs", "img", "photos", "photo", "jpegimages", "rgb")
LABEL_FOLDERS = (
    "labels", "label", "masks", "mask", "annotations", "annotation", "segmentations", "segmentation", "label_maps",
    "segmentationclass",
)  # fmt: skip
INSTANCE_FOLDERS = ("instances", "instance", "inst", "instance_maps", "segmentationobject")
"""Names, in lower case, that other programs give to the folders of a dataset's parts."""

IMAGES = f"images ({', '.join(sorted(EXTENSIONS))})"
"""The name in messages for the files that count."""
_ENDING = re.compile(r"\.[0-9a-z_-]{1,12}")
"""An ending that messages can name."""


def _refuse(error: OSError) -> NoReturn:
    raise DataError(f"{error.filename} cannot be read ({error.strerror}); make it readable, or move it away") from error


def name_of(path: Path) -> str:
    """The sample name that follows from a file, as text: without the ending, and in Unicode's composed form NFC.

    Bytes that are not UTF-8 are written as in a URL, caf%E9, since no JSON, CSV or page could hold them.

    Args:
        path: The file, below the folder of its part.
    """
    return as_text(unicodedata.normalize("NFC", path.with_suffix("").as_posix()))


def as_text(name: str) -> str:
    """A path in which bytes that are not UTF-8, for which Python uses surrogates, are written as in a URL."""
    return re.sub("[\udc80-\udcff]", lambda byte: f"%{ord(byte[0]) - 0xDC00:02X}", name)


def subfolders_of(folder: Path) -> list[str]:
    """Names of the folders in a folder, which may be absent, sorted."""
    if isinstance(folder, RemotePath):
        return sorted(name for name in folder.folder_names() if not _hidden(name))
    if not folder.is_dir():
        return []
    try:
        return sorted(entry.name for entry in folder.iterdir() if entry.is_dir() and not _hidden(entry.name))
    except OSError as error:
        _refuse(error)


def images_in(folder: Path, on_error: Callable[[OSError], None] | None = _refuse) -> Iterable[Path]:
    """Image files and arrays under a folder, which may be absent.

    Links to folders are followed unless they lead back to a folder above them. Hidden files, other kinds of files, and
    the folders of servers and systems are left out.
    """
    return (file for file in _files_in(folder, on_error) if file.suffix.lower() in EXTENSIONS)


def other_endings(folder: Path) -> list[str]:
    """Endings of the files under a folder that are no images, in lower case, the three most frequent ones first."""
    endings = Counter(file.suffix.lower() for file in _files_in(folder, _refuse))
    known = (ending for ending in endings if _ENDING.fullmatch(ending) and ending not in EXTENSIONS)
    return sorted(known, key=lambda ending: (-endings[ending], ending))[:3]


def only_others(folder: Path) -> str:
    """What a message adds about a folder without images: which other files it has, as in ", only .gif files"."""
    endings = other_endings(folder)
    return f", only {' and '.join(filter(None, (', '.join(endings[:-1]), endings[-1])))} files" if endings else ""


def no_images(folder: Path, remedy: str = "put the files there") -> DataError:
    """The error that a folder contains no images, which names the files that it has instead."""
    others = only_others(folder)
    return DataError(f"{folder} contains no {IMAGES}{others}; {remedy}{', or save these as PNG' if others else ''}")


def _files_in(folder: Path, on_error: Callable[[OSError], None] | None) -> Iterator[Path]:
    """All files under a folder that `images_in` does not hide."""
    if isinstance(folder, RemotePath):
        yield from (file for file in folder.files_below() if not any(map(_hidden, file.relative_to(folder).parts)))
        return
    if not folder.is_dir():
        return
    for parent, subfolders, names in os.walk(folder, onerror=on_error, followlinks=True):
        subfolders[:] = [name for name in subfolders if not _hidden(name) and not _leads_back(Path(parent, name))]
        yield from (Path(parent, name) for name in names if not _hidden(name))


def _leads_back(folder: Path) -> bool:
    """Whether a folder is a link to one of its parent folders."""
    return folder.is_symlink() and folder.resolve() in (above.resolve() for above in folder.absolute().parents)


def _hidden(name: str) -> bool:
    return name.startswith(".") or name.casefold() in _SYSTEM
