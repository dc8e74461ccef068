"""Writing the files of a sample as the layouts nvidia and ab have them."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from hdgan.config.options import option
from hdgan.data.conversion.source import EmbeddedPhoto, RawSample, SampleMaps
from hdgan.data.conversion.staging import WrittenSample
from hdgan.data.headers import read_header, require_input, shown_size
from hdgan.errors import ConfigError, DataError, HdganError
from hdgan.files import atomic_file, save_png
from hdgan.files.images import save_image

_BYTE, _WORD = np.iinfo(np.uint8).max, np.iinfo(np.uint16).max
_INT32 = np.iinfo(np.int32)


@dataclass(frozen=True)
class SampleWriter:
    """Writes samples.

    Args:
        folder: Of the dataset.
        settings: What else than their files decides on the content of samples.
        link: Hard links to photos instead of copies.
    """

    folder: Path
    settings: str
    link: bool = False

    def digest(self, sample: RawSample) -> str:
        """What changes when a file of the sample, its phase or the settings change."""
        stats = [(str(file.absolute()), *_stat(file)) for file in sample.files]
        return hashlib.sha256(json.dumps([self.settings, sample.phase, sample.stem, stats]).encode()).hexdigest()

    def write(self, sample: RawSample) -> WrittenSample:
        """Write all files of a sample.

        Raises:
            DataError: a file of the source cannot be used, or its files differ in size.
            ConfigError: photos are to be linked, which the file systems do not allow.
            HdganError: the folder is not writable, or the disk is full.
        """
        digest = self.digest(sample)
        if sample.read is None:
            return self._write_images(sample, digest)
        maps = sample.read()
        height, width = maps.label.shape
        _require_size(sample, (width, height))
        names = [_save_labels(self.folder, f"{sample.phase}_label/{sample.stem}", maps.label)]
        if maps.ids is not None:
            names.append(_save_ids(self.folder, f"{sample.phase}_inst/{sample.stem}", maps.ids, sample))
        if sample.photo is not None:
            names.append(self._place(sample.photo, f"{sample.phase}_img/{sample.stem}"))
        return _written(sample, digest, names, (width, height), maps)

    def _write_images(self, sample: RawSample, digest: str) -> WrittenSample:
        assert sample.input is not None
        assert isinstance(sample.photo, Path)
        first, second = read_header(sample.input), read_header(sample.photo)
        require_input(sample.input, first)
        if first.upright != second.upright:
            raise DataError(
                f"{sample.input} is {'x'.join(map(str, first.upright))}, but {sample.photo} is "
                f"{'x'.join(map(str, second.upright))}: make them the same size, or remove the pair"
            )
        names = [self._place(sample.input, f"{sample.phase}_A/{sample.stem}")]
        names.append(self._place(sample.photo, f"{sample.phase}_B/{sample.stem}"))
        return _written(sample, digest, names, first.upright, None)

    def _place(self, photo: Path | EmbeddedPhoto, name: str) -> str:
        """Copy or link a photo, whose bytes stay as they are; returns its name below the folder."""
        name += photo.suffix.lower()
        target = self.folder / name
        if isinstance(photo, EmbeddedPhoto):
            with atomic_file(target) as temporary:
                temporary.write_bytes(photo.content())
            return name
        if not self.link:
            with atomic_file(target) as temporary:
                shutil.copyfile(photo, temporary)
            return name
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            target.unlink(missing_ok=True)
            os.link(photo.resolve(), target)
        except OSError as error:
            if error.errno not in (errno.EXDEV, errno.EPERM, errno.EMLINK, errno.ENOTSUP):
                raise HdganError(
                    f"cannot link {photo} to {target}: {error.strerror}; free space, then repeat"
                ) from error
            raise ConfigError(
                f"{photo} cannot be linked to {target} ({error.strerror}): leave {option('link')} out, which copies "
                "photos"
            ) from error
        return name


def _stat(file: Path) -> tuple[int, int]:
    try:
        stat = file.stat()
    except OSError:  # whoever reads the file tells more
        return -1, -1
    return stat.st_size, stat.st_mtime_ns


def _written(
    sample: RawSample, digest: str, names: list[str], size: tuple[int, int], maps: SampleMaps | None
) -> WrittenSample:
    labels: dict[str, int] = {}
    if maps is not None:
        values, counts = np.unique(maps.label, return_counts=True)
        labels = dict(zip(map(str, values.tolist()), counts.tolist(), strict=True))
    inexact, instances = (0, False) if maps is None else (maps.inexact, maps.ids is not None)
    return WrittenSample(sample.phase, sample.stem, digest, tuple(names), size, labels, inexact, instances)


def _require_size(sample: RawSample, size: tuple[int, int]) -> None:
    """Raise DataError unless the photo has the size of the maps, turned upright or as stored."""
    if sample.photo is None:
        return
    photo = sample.photo
    shown = photo.size if isinstance(photo, EmbeddedPhoto) else shown_size(read_header(photo), size)
    if shown != size:
        raise DataError(
            f"{sample.files[0]} is {size[0]}x{size[1]}, but {sample.photo} is {shown[0]}x{shown[1]}: make them the "
            "same size, or remove the sample"
        )


def _save_labels(folder: Path, name: str, label: np.ndarray) -> str:
    """Write a label map as PNG of 8 bits, or of 16 if a label needs them; returns its name below the folder."""
    name += ".png"
    if label.max() <= _BYTE:
        save_png(Image.fromarray(label.astype(np.uint8)), folder / name)
    else:
        save_image(label.astype(np.uint16)[..., None], folder / name)
    return name


def _save_ids(folder: Path, name: str, ids: np.ndarray, sample: RawSample) -> str:
    """Write an instance map as PNG of 16 bits, or as TIFF of 32 if an id needs them; returns its name."""
    low, high = int(ids.min()), int(ids.max())
    if low < _INT32.min or high > _INT32.max:
        raise DataError(
            f"{sample.files[0]} needs instance ids up to {high}, but they end at 2^31 - 1: use fewer classes"
        )
    if low >= 0 and high <= _WORD:
        name += ".png"
        save_image(ids.astype(np.uint16)[..., None], folder / name)
        return name
    name += ".tif"
    with atomic_file(folder / name) as temporary:
        Image.fromarray(ids.astype(np.int32)).save(temporary, "TIFF", compression="tiff_adobe_deflate")
    return name
