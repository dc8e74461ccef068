"""Documents as files. A saved document that is opened again gives the same image.

FOLDER/label.png       label map, 8 or 16 bits (label.npy, 32 bits, if a label does not fit)
       instance.png    instance map, 16 bits (instance.npy, 32 bits, if an id does not fit)
       styles.json     style of each instance
       picture.png     the generated image
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
from PIL import Image

from hdgan.data import Pair
from hdgan.data.headers import read_header
from hdgan.editor.document import Document
from hdgan.errors import ConfigError, DataError
from hdgan.files import atomic_folder
from hdgan.inference import Pipeline
from hdgan.styles import Styles

_FILES = ("label.png", "label.npy", "instance.png", "instance.npy", "styles.json", "picture.png")
_FILE_MANAGER_FILES = (".ds_store", "thumbs.db", "desktop.ini")  # file managers write them again when they are deleted
_NAME = re.compile(r"\w([\w .-]*[\w-])?")
_RESERVED = re.compile(r"(con|prn|aux|nul|(com|lpt)[0-9¹²³]) *(\..*)?", re.IGNORECASE)  # on Windows, with any suffix
_MAX_NAME_BYTES = 200  # file systems take 255, and a temporary name needs some of them
Fingerprint = tuple[tuple[int, int, int], ...]
"""Inode, size and time of each file of a saved document."""


def save_document(document: Document, image: np.ndarray, folder: Path) -> None:
    """Write a document and its image, replacing an older document in the same folder.

    Args:
        document: the document.
        image: [H, W, 3] uint8.
        folder: the folder to create.

    Raises:
        ConfigError: the folder contains files of other programs, which would be deleted.
        HdganError: the folder cannot be written.
    """
    names = (file.name for file in folder.glob("*"))
    foreign = sorted(name for name in names if name not in _FILES and name.lower() not in _FILE_MANAGER_FILES)
    if foreign:
        raise ConfigError(
            f"{folder} contains {foreign[0]!r}, which the editor did not write and would delete: move it elsewhere, or "
            "choose another name"
        )
    with atomic_folder(folder) as temporary:
        narrow = np.uint8 if document.label.max() <= np.iinfo(np.uint8).max else np.uint16
        _save_map(document.label, temporary / "label.png", narrow)
        _save_map(document.ids, temporary / "instance.png", np.uint16)
        document.styles.save(temporary / "styles.json")
        Image.fromarray(image).save(temporary / "picture.png")


def fingerprint(folder: Path) -> Fingerprint:
    """Changes whenever the files of a saved document are written again."""
    files = [folder / name for name in _FILES]
    stats = [file.stat() for file in files if file.is_file()]
    return tuple((stat.st_ino, stat.st_size, stat.st_mtime_ns) for stat in stats)


def saved_names(folder: Path) -> list[str]:
    """Names of the documents that are saved in a folder, sorted."""
    found = {file.parent.name for file in folder.glob("*/label.*") if file.name in _FILES}
    return sorted(name for name in found if not name.startswith("."))


def document_folder(parent: Path, name: str) -> Path:
    """The folder for a document name that a user typed.

    Raises:
        ConfigError: the name leads to another folder, or is not valid on every file system.
    """
    name = name.strip()
    if not _NAME.fullmatch(name):
        raise ConfigError(f"{name!r} is not a valid name: use letters, digits, spaces, '-', '_' and '.'")
    if _RESERVED.fullmatch(name):
        raise ConfigError(f"{name!r} is not a valid name, because Windows reserves it for a device: choose another")
    if len(name.encode()) > _MAX_NAME_BYTES:
        raise ConfigError(f"{name[:20]!r}... is not a valid name: use at most {_MAX_NAME_BYTES} bytes")
    return parent / name


def load_document(folder: Path, pipeline: Pipeline, max_pixels: int) -> Document:
    """Read a document that `save_document` wrote.

    Raises:
        DataError, ConfigError, CheckpointError: as in `read_document`.
    """
    maps = ((folder / f"{part}.npy", folder / f"{part}.png") for part in ("label", "instance"))
    label, instance = (wide if wide.is_file() else png for wide, png in maps)
    return read_document(pipeline, max_pixels, label, instance, folder / "styles.json")


def read_document(
    pipeline: Pipeline, max_pixels: int, label: Path, instance: Path | None = None, appearance: Path | None = None
) -> Document:
    """Read a document from files.

    Args:
        pipeline: the model that will render it.
        max_pixels: largest allowed size.
        label: label map.
        instance: instance map.
        appearance: where the styles of the instances come from: a styles file (.json), or a photo to encode.

    Raises:
        DataError: a file cannot be used or is too large, or a label is out of range.
        ConfigError: the model needs an instance map, takes no styles, or the styles are of other instances.
        CheckpointError: the styles file is damaged, or from another encoder.
    """
    config = pipeline.config
    styles = appearance if appearance is not None and appearance.suffix.lower() == ".json" else None
    files = {"label": label, "ids": instance, "photo": appearance if styles is None else None}
    pair = Pair(label.stem, **files, stored=not config.is_rgb)
    for path in pair.files.values():
        width, height = read_header(path).size
        if width * height > max_pixels:
            raise DataError(
                f"{path} is {width}x{height}, more than the limit of {max_pixels} pixels: scale it down, or start the "
                f"editor with --max-pixels {width * height}"
            )
    arrays = pair.read()
    pair.check_labels(arrays["label"], config.n_labels, config.dontcare, trained=True)
    if instance is None and config.instances:
        raise ConfigError(f"the model was trained with instance maps: give one for {label}")
    document = Document.of(arrays["label"], arrays.get("ids"), divisor=config.instance_divisor)
    if styles is not None:
        given = Styles.load_for(styles, document.classes, str(instance or label))
        given.require(pipeline.encoder_id)
        if given.instances and not config.feature_channels:
            raise ConfigError(f"{styles} contains styles, but the model was trained without features: leave it out")
        return document.restyled(given)
    if "photo" in arrays:
        return document.restyled(pipeline.encode(np.asarray(arrays["photo"]), document.label, document.ids))
    return document


def _save_map(values: np.ndarray, png: Path, dtype: type[np.unsignedinteger]) -> None:
    """Write a map as PNG, or as .npy if its values do not fit."""
    if values.min() >= 0 and values.max() <= np.iinfo(dtype).max:
        Image.fromarray(values.astype(dtype)).save(png)
    else:
        np.save(png.with_suffix(".npy"), values)
