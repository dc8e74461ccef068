"""Writing images of any number of channels and any depth, so that every number can be read back."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from hdgan.config.bounds import Depth
from hdgan.files.atomic import atomic_file, save_png
from hdgan.files.png import COLOR_TYPES, write_png


def image_ending(channels: int, depth: Depth) -> str:
    """The ending of the files that `save_image` writes.

    Returns:
        .png for up to four channels of 8 or 16 bits, else .tif.
    """
    return ".png" if channels in COLOR_TYPES and depth != "float32" else ".tif"


def names_an_image(path: Path) -> bool:
    """Whether a path that is no folder has the ending of a kind of image, be it one that `save_image` writes or not."""
    return bool(path.suffix) and path.suffix.lower() in Image.registered_extensions() and not path.is_dir()


def save_image(values: np.ndarray, path: Path) -> None:
    """Write an image atomically, as PNG or as a TIFF with one page for each channel, as `image_ending` says.

    Args:
        values: [H, W, C] uint8, uint16 or float32.
        path: its ending is not looked at.

    Raises:
        HdganError: as `atomic_file`.
    """
    (height, width, channels), depth = values.shape, values.dtype.name
    if image_ending(channels, depth) == ".tif":
        first, *others = map(_grey, np.moveaxis(values, 2, 0))
        with atomic_file(path) as temporary:
            first.save(temporary, "TIFF", save_all=True, append_images=others, compression="tiff_adobe_deflate")
    elif depth == "uint16":  # which Pillow writes for one channel only
        write_png(path, [values], height, width, channels, "uint16")
    else:
        save_png(_grey(values[..., 0]) if channels == 1 else Image.fromarray(values), path)


def _grey(channel: np.ndarray) -> Image.Image:
    return Image.fromarray(np.ascontiguousarray(channel))
