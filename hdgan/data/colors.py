"""Label maps, instance maps and tensors as images that people can look at."""

from __future__ import annotations

import numpy as np
from PIL import Image
from torch import Tensor

from hdgan.data.images import from_unit_range
from hdgan.data.spec import DatasetSpec, class_name
from hdgan.errors import DataError
from hdgan.wording import count

_CITYSCAPES: dict[str, tuple[int, int, int]] = {
    "unlabeled": (0, 0, 0),
    "ego vehicle": (0, 0, 0),
    "rectification border": (0, 0, 0),
    "out of roi": (0, 0, 0),
    "static": (0, 0, 0),
    "dynamic": (111, 74, 0),
    "ground": (81, 0, 81),
    "road": (128, 64, 128),
    "sidewalk": (244, 35, 232),
    "parking": (250, 170, 160),
    "rail track": (230, 150, 140),
    "building": (70, 70, 70),
    "wall": (102, 102, 156),
    "fence": (190, 153, 153),
    "guard rail": (180, 165, 180),
    "bridge": (150, 100, 100),
    "tunnel": (150, 120, 90),
    "pole": (153, 153, 153),
    "polegroup": (153, 153, 153),
    "traffic light": (250, 170, 30),
    "traffic sign": (220, 220, 0),
    "vegetation": (107, 142, 35),
    "terrain": (152, 251, 152),
    "sky": (70, 130, 180),
    "person": (220, 20, 60),
    "rider": (255, 0, 0),
    "car": (0, 0, 142),
    "truck": (0, 0, 70),
    "bus": (0, 60, 100),
    "caravan": (0, 0, 90),
    "trailer": (0, 0, 110),
    "train": (0, 80, 100),
    "motorcycle": (0, 0, 230),
    "bicycle": (119, 11, 32),
    "license plate": (0, 0, 142),
}
CITYSCAPES = DatasetSpec(tuple(_CITYSCAPES), np.array(list(_CITYSCAPES.values()), np.uint8))
"""Cityscapes' classes by label id. NVIDIA's recipe has 35 of them: the license plate, -1 in Cityscapes, is 34."""

_SOFT = (np.arange(256) * 0.75 + 48).astype(np.uint8)


def label_palette(n: int) -> np.ndarray:
    """Colours of n labels, [n, 3] uint8: PASCAL VOC's colour map, with the bits of a label spread over channels."""
    labels = np.arange(n)
    palette = np.zeros((n, 3), np.uint8)
    for bit in range(8):
        for channel in range(3):
            palette[:, channel] |= (((labels >> (3 * bit + channel)) & 1) << (7 - bit)).astype(np.uint8)
    return palette


def numbered_classes(n: int) -> DatasetSpec:
    """Classes named class 0, class 1, ... in the colours of `label_palette`, for labels without names."""
    return DatasetSpec(tuple(class_name(None, label) for label in range(n)), label_palette(n))


def colorize_labels(label: np.ndarray, palette: np.ndarray | None = None) -> Image.Image:
    """Colour a label map [H, W] of integers.

    Args:
        label: the map.
        palette: colours of the classes, [n_classes, 3] uint8; other labels become black. None takes a general one, in
            which every label has a colour.
    """
    if palette is None:
        return Image.fromarray(label_palette(256)[label.astype(np.int64) % 256])
    known = (label >= 0) & (label < len(palette))
    return Image.fromarray(palette[label.astype(np.int64) * known] * known[..., None].astype(np.uint8))


def colorize_ids(ids: np.ndarray) -> Image.Image:
    """Colour an instance map [H, W]: an id has the same colour in every image."""
    # Knuth's multiplicative hash spreads neighbouring ids over the colours; its unsigned products wrap at 32 bits.
    hashed = ids.astype(np.int64).astype(np.uint32) * np.uint32(2654435761)
    channels = np.stack([hashed >> shift for shift in (24, 16, 8)], axis=-1).astype(np.uint8)
    return Image.fromarray(_SOFT[channels])


def to_image(tensor: Tensor) -> Image.Image:
    """Turn a tensor [C, H, W] in [-1, 1] into a Pillow image with all its channels.

    One channel is grey, two are grey and opacity, three RGB, four RGB and opacity.

    Raises:
        DataError: it has more channels.
    """
    if len(tensor) > 4:
        raise DataError(f"an image of {count(len(tensor), 'channel')} cannot be shown: give one of at most 4")
    array = from_unit_range(tensor, "uint8")
    return Image.fromarray(array[..., 0] if len(tensor) == 1 else array)


def preview(tensor: Tensor) -> tuple[Image.Image, str]:
    """Show at most three channels of an image [C, H, W] in [-1, 1], in 8 bits.

    Returns:
        The image, RGB or grey, and the channels that it shows, such as "channels 1 to 3 of 11"; empty for all.
    """
    channels = len(tensor)
    shown = 3 if channels >= 3 else 1
    if shown == channels:
        return to_image(tensor), ""
    return to_image(tensor[:shown]), ("channels 1 to 3" if shown == 3 else "channel 1") + f" of {channels}"
