"""Documents as files: what was saved and opened again gives the same picture.

FOLDER/label.png       label map, 8 or 16 bits (label.npy, 32 bits, where labels go beyond)
       instance.png    instance map, 16 bits (instance.npy, 32 bits, where ids go beyond)
       styles.json     style of each instance
       picture.png     the picture
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
from PIL import Image

from hdgan.data import Pair
from hdgan.data.headers import read_header
from hdgan.data.labels import check_labels
from hdgan.editor.document import Document
from hdgan.errors import ConfigError, DataError
from hdgan.files import atomic_folder
from hdgan.inference import Pipeline
from hdgan.styles import Styles

LABEL, WIDE_LABEL = "label.png", "label.npy"
INSTANCE, WIDE_INSTANCE = "instance.png", "instance.npy"
STYLES, PICTURE = "styles.json", "picture.png"
_NAME = re.compile(r"\w([\w .-]*[\w-])?")
_RESERVED = re.compile(r"(con|prn|aux|nul|(com|lpt)[0-9¹²³]) *(\..*)?", re.IGNORECASE)  # by Windows, with any ending
_LONGEST = 200  # bytes; file systems take 255, of which a temporary name needs some
_FILES = (LABEL, WIDE_LABEL, INSTANCE, WIDE_INSTANCE, STYLES, PICTURE)
_OF_FILE_MANAGERS = (".ds_store", "thumbs.db", "desktop.ini")  # which write them wherever they look, and again
State = tuple[tuple[int, int, int], ...]
"""Of the files of a saved document: inode, size and time of each."""


def save_document(document: Document, picture: np.ndarray, folder: Path) -> None:
    """Write a document and its picture; an older one in this folder is replaced.

    Args:
        document: to write.
        picture: [H, W, 3] uint8.
        folder: to make.

    Raises:
        ConfigError: the folder holds something else, which would be lost.
        HdganError: it cannot be written.
    """
    names = (file.name for file in folder.glob("*"))
    foreign = sorted(name for name in names if name not in _FILES and name.lower() not in _OF_FILE_MANAGERS)
    if foreign:
        raise ConfigError(
            f"{folder} holds {foreign[0]!r}, which the editor did not write and would delete: move it elsewhere, or "
            "choose another name"
        )
    with atomic_folder(folder) as temporary:
        narrow = np.uint8 if document.label.max() <= np.iinfo(np.uint8).max else np.uint16
        _save_map(document.label, temporary / LABEL, narrow)
        _save_map(document.ids, temporary / INSTANCE, np.uint16)
        document.styles.save(temporary / STYLES)
        Image.fromarray(picture).save(temporary / PICTURE)


def state_of(folder: Path) -> State:
    """What tells whether the files of a document were written anew."""
    files = [folder / name for name in _FILES]
    stats = [file.stat() for file in files if file.is_file()]
    return tuple((stat.st_ino, stat.st_size, stat.st_mtime_ns) for stat in stats)


def saved_names(folder: Path) -> list[str]:
    """Names of the documents in a folder, in order."""
    found = {file.parent.name for name in (LABEL, WIDE_LABEL) for file in folder.glob(f"*/{name}")}
    return sorted(name for name in found if not name.startswith("."))


def folder_named(parent: Path, name: str) -> Path:
    """The folder of a document that a user has named.

    Raises:
        ConfigError: the name could lead elsewhere, or some file system does not take it.
    """
    name = name.strip()
    if not _NAME.fullmatch(name):
        raise ConfigError(f"{name!r} is no name for a picture: give letters, digits, spaces, '-', '_' or '.'")
    if _RESERVED.fullmatch(name):
        raise ConfigError(f"{name!r} is no name for a picture, since Windows keeps it for devices: choose another")
    if len(name.encode()) > _LONGEST:
        raise ConfigError(f"{name[:20]!r}... is no name for a picture: give {_LONGEST} bytes at most")
    return parent / name


def open_saved(folder: Path, pipeline: Pipeline, max_pixels: int) -> Document:
    """Read what `save_document` wrote.

    Raises:
        DataError, ConfigError, CheckpointError: as `open_files`.
    """
    wide_label, wide_instance = folder / WIDE_LABEL, folder / WIDE_INSTANCE
    label = wide_label if wide_label.is_file() else folder / LABEL
    instance = wide_instance if wide_instance.is_file() else folder / INSTANCE
    return open_files(pipeline, max_pixels, label, instance, folder / STYLES)


def open_files(
    pipeline: Pipeline, max_pixels: int, label: Path, instance: Path | None = None, look: Path | None = None
) -> Document:
    """Read a document.

    Args:
        pipeline: that will render it.
        max_pixels: that it may have.
        label: label map.
        instance: instance map.
        look: what the instances look like: styles (.json), or a photo.

    Raises:
        DataError: a file cannot be used or is too large, or a label is out of range.
        ConfigError: the model needs an instance map, or cannot take styles, or they are of other instances.
        CheckpointError: the styles are damaged, or of another encoder.
    """
    config = pipeline.config
    styles = look if look is not None and look.suffix.lower() == ".json" else None
    files = {"label": label, "ids": instance, "photo": look if styles is None else None}
    pair = Pair(label.stem, **files)
    for path in pair.files.values():
        _require_size(path, max_pixels)
    arrays = pair.read()
    assert arrays.label is not None
    check_labels(label, arrays.label, config.n_labels, config.dontcare)
    if instance is None and config.instances:
        raise ConfigError(f"the model was trained with instance maps: give one for {label}")
    document = Document.of(arrays.label, arrays.ids, divisor=config.instance_divisor)
    if styles is not None:
        given = Styles.load_for(styles, document.classes, str(instance or label))
        given.require(pipeline.encoder_id)
        if given.instances and not config.feature_channels:
            raise ConfigError(f"{styles} holds styles, but the model was trained without features: leave it out")
        return document.restyled(given)
    if arrays.photo is not None:
        return document.restyled(pipeline.encode(np.asarray(arrays.photo), document.label, document.ids))
    return document


def _save_map(values: np.ndarray, png: Path, dtype: type[np.unsignedinteger]) -> None:
    """As PNG, or beside it as .npy where the values do not fit."""
    if values.min() >= 0 and values.max() <= np.iinfo(dtype).max:
        Image.fromarray(values.astype(dtype)).save(png)
    else:
        np.save(png.with_suffix(".npy"), values)


def _require_size(path: Path, max_pixels: int) -> None:
    width, height = read_header(path).size
    if width * height > max_pixels:
        raise DataError(
            f"{path} is {width}x{height}, more than the {max_pixels} pixels that the editor takes: scale it down, or "
            f"start the editor with --max-pixels {width * height}"
        )
