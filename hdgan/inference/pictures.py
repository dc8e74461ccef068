"""Generated images as Pillow images and files."""

from __future__ import annotations

from pathlib import Path

from PIL import Image
from torch import Tensor

from hdgan.config.bounds import Depth
from hdgan.data.colors import to_image
from hdgan.data.images import from_unit_range
from hdgan.errors import ConfigError, DataError
from hdgan.files.images import image_ending, save_image


def to_pil(image: Tensor) -> Image.Image:
    """An image of a `Pipeline` as a Pillow image of 8 bits.

    Args:
        image: [C, H, W] in [0, 1], of one channel (grey), two (grey and opacity), three (RGB) or four (RGB and
            opacity), on any device.

    Raises:
        DataError: it has another shape or more channels.
    """
    _require_image(image)
    return to_image(image * 2 - 1)


def save_picture(image: Tensor, path: str | Path, depth: Depth) -> None:
    """Write an image of a `Pipeline` as `save_image` does, but only under an ending that fits.

    Args:
        image: [C, H, W] in [0, 1].
        path: the file. Its folder is made if it does not exist.
        depth: bits of each channel.

    Raises:
        ConfigError: the ending of the path is that of another kind of file.
        DataError: the image has another shape.
        HdganError: the file cannot be written.
    """
    _require_image(image)
    ending = image_ending(len(image), depth)
    if Path(path).suffix.lower() not in ((".png",) if ending == ".png" else (".tif", ".tiff")):
        raise ConfigError(
            f"{path} does not end in {ending}: images of {len(image)} channels and {depth} are written as "
            f"{ending.removeprefix('.').upper()}, so give a path that ends in {ending}"
        )
    save_image(from_unit_range(image * 2 - 1, depth), Path(path))


def _require_image(image: Tensor) -> None:
    if image.dim() != 3 or not image.is_floating_point():
        raise DataError(
            f"the image has shape {tuple(image.shape)} and type {image.dtype}: give one image of a pipeline, "
            "[C, H, W] in [0, 1]"
        )
