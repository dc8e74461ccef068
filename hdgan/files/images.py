"""Writing images of any number of channels and any depth, so that every number can be read back."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
from PIL import Image

from hdgan.config.bounds import Depth
from hdgan.files.atomic import atomic_file

_PNG_COLORS = {1: 0, 2: 4, 3: 2, 4: 6}
"""PNG's colour type by the number of channels: grey, grey and opacity, RGB, RGB and opacity."""


def image_ending(channels: int, depth: Depth) -> str:
    """The ending of the files that `save_image` writes.

    Returns:
        .png for up to four channels of 8 or 16 bits, else .tif.
    """
    return ".png" if channels in _PNG_COLORS and depth != "float32" else ".tif"


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
    channels = [Image.fromarray(np.ascontiguousarray(values[..., channel])) for channel in range(values.shape[2])]
    depth: Depth = values.dtype.name
    with atomic_file(path) as temporary:
        if image_ending(len(channels), depth) == ".tif":
            first, *others = channels
            first.save(temporary, "TIFF", save_all=True, append_images=others, compression="tiff_adobe_deflate")
        elif depth == "uint16":
            temporary.write_bytes(_png_of_16_bits(values))
        else:
            (channels[0] if len(channels) == 1 else Image.fromarray(values)).save(temporary, "PNG")


def _png_of_16_bits(values: np.ndarray) -> bytes:
    """A PNG file, which Pillow writes with 16 bits only for one channel; values as of `save_image`."""
    height, width, channels = values.shape
    rows = values.astype(">u2").reshape(height, -1).view(np.uint8)
    filtered = np.insert(rows, 0, 2, axis=1)  # each row begins with its filter: 2 is the difference to the row above
    filtered[1:, 1:] -= rows[:-1]
    header = struct.pack(">2I5B", width, height, 16, _PNG_COLORS[channels], 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(filtered.tobytes())), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))
        for name, content in chunks
    )
