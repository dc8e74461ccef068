"""What an image file says about itself before its pixels are decoded, and whether it suits its purpose."""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image

from hdgan.config.bounds import Depth
from hdgan.config.options import option, option_off
from hdgan.data.arrays import load_array
from hdgan.data.image_kind import ImageKind
from hdgan.data.opening import UNREADABLE, ImageSource, first_tile, is_halved, named, opened, raw_mode, tiles_of
from hdgan.data.scan import MOST_PAGES
from hdgan.errors import DataError
from hdgan.files.limits import require_bounded
from hdgan.wording import count

Kind = Literal["label map", "instance map", "input", "photo"]

EXTENSIONS = frozenset({".png", ".jpg", ".jpeg", ".tif", ".tiff", ".webp", ".bmp", ".pgm", ".ppm", ".npy"})
"""Endings, in lower case, of the files that count as images; a folder's other files are ignored."""

TURNED_TO_RGB = frozenset({"P", "PA", "CMYK", "YCbCr", "HSV", "RGBX"})
"""The Pillow modes that are converted to RGB for an A-to-B input."""

WIDE_MODES = frozenset({"I;16", "I;16L", "I;16B", "I;16N"})
_EXACT_FORMATS = frozenset({"PNG", "TIFF", "BMP", "PPM", "NPY", ""})
_BYTES = {"1": 1, "L": 1, "P": 1} | dict.fromkeys(WIDE_MODES, 2)
_INTEGERS = frozenset(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64))
_MAP_MODES = WIDE_MODES | {"1", "L", "P", "I"} | _INTEGERS
_MOST_TEXT = 4096
"""Characters of a description in which the number of images is looked for; it is near the start."""
WHITES = {"uint8": 255, "uint16": 65535}
"""The numbers that mean full brightness, by the depths that have one."""
_DEPTHS, _DESCRIPTION = (32997, 32998), 270
"""The tags ImageDepth and TileDepth of a volume, and that of the text in which ImageJ gives its number of images."""
_BITS, _PHOTOMETRIC, _ORIENTATION, _SAMPLES, _PLANAR, SAMPLE_FORMAT = 258, 262, 274, 277, 284, 339
_TILE_WIDTH, _TILE_LENGTH, _EXTRA = 322, 323, 338


@dataclass(frozen=True)
class Header:
    """What a file says about itself before its pixels are decoded.

    Sizes are (width, height) in pixels.
    """

    size: tuple[int, int]
    upright: tuple[int, int]
    """Differs from `size` if an EXIF orientation swaps the sides."""
    format: str
    mode: str
    """Pillow's name for the kind of pixels, or NumPy's for the type of the numbers if Pillow does not read them."""
    channels: int
    orientation: int = 1
    frames: int = 1
    photometric: int = 1
    """The TIFF tag, which is 0 if white is stored as 0."""
    white: int | None = 255
    """The stored number that means full brightness; None for floats, signed integers and more than 16 bits."""
    inexact: str = ""
    """Why the pixels may differ from the numbers that were saved; empty if they do not."""
    partial: str = ""
    """Why not all channels or bits can be read as an input; empty if they can."""
    in_text: bool = False
    """Whether it is a PGM or PPM whose numbers are written as text."""

    @property
    def input_channels(self) -> int:
        """Channels of the array that `read_input` returns: palettes become colours, pages are stacked."""
        return (3 if self.mode in TURNED_TO_RGB else self.channels) * self.frames

    @property
    def kind(self) -> ImageKind:
        """Channels and type of the array that `read_input` returns, if it accepts the image."""
        depth: Depth = "float32" if self.white is None else "uint8" if 255 % self.white == 0 else "uint16"
        return ImageKind(self.input_channels, depth)


def read_header(path: Path) -> Header:
    """Read size and mode of an image or .npy array without decoding it.

    Raises:
        DataError: the file is missing, damaged, not an image, or larger than `hdgan.files.limits` allows.
    """
    if path.suffix.lower() == ".npy":
        return header_of_array(load_array(path))
    with opened(path) as image:
        return header_of(image, path)


def verify_checksums(path: Path) -> None:
    """Compare a PNG with its checksums, which decoding ignores: damaged pixels can decode without an error.

    Raises:
        DataError: the file is damaged.
    """
    if path.suffix.lower() != ".png":
        return
    with opened(path) as image:
        image.verify()


def require_map(name: Path | str, header: Header, kind: Kind) -> None:
    """Raise DataError unless an image with this header can hold the ids of a label or instance map."""
    if header.inexact:
        raise DataError(
            f"{name}: this {kind} is {header.inexact}; create it again as PNG, from the source rather than from this "
            "file"
        )
    if header.orientation != 1 and header.format == "TIFF":
        raise DataError(
            f"{name}: this {kind} has TIFF orientation {header.orientation}; save it without one, so that its rows "
            "are stored from top to bottom"
        )
    if header.photometric == 0:
        # Pillow inverts some of these but not others, so neither its numbers nor their complement can be trusted.
        raise DataError(
            f"{name}: this {kind} is a TIFF that stores white as 0 (PhotometricInterpretation 0), so its ids would be "
            "inverted; save it as BlackIsZero or PNG"
        )
    if header.mode not in _MAP_MODES or header.channels != 1 or header.frames != 1:
        found = f"mode {header.mode} with {count(header.channels, 'channel')} and {count(header.frames, 'page')}"
        without = (
            f"train without instance maps ({option_off('model.instances')})"
            if kind == "instance map"
            else f"train without labels ({option('model.n_labels')} 0) if its colours are the input"
        )
        raise DataError(
            f"{name}: this {kind} has {found}; {_colours_remedy(header, kind)}"
            f"save one channel of integers (8- or 16-bit grey or palette PNG, 32-bit TIFF, integer .npy), or {without}"
        )


def _colours_remedy(header: Header, kind: Kind) -> str:
    """What to do about a map in which classes or objects may be colours."""
    if header.mode not in ("RGB", "RGBA"):
        return ""
    if kind == "instance map":
        return (
            "if each object has a colour, its number can be R + 256 * G + 65536 * B, as in COCO panoptic, which "
            "`hdgan data convert` reads; "
        )
    return "if each colour is a class, `hdgan data convert` writes label maps of it; otherwise "


def _require_black_as_zero(name: Path | str, header: Header, kind: Kind) -> None:
    """Where white is stored as 0, Pillow inverts bitmaps and 8-bit grey, but reads other modes as a negative."""
    if header.photometric == 0 and header.mode not in ("1", "L"):
        raise DataError(
            f"{name}: this {kind} is a TIFF of mode {header.mode} that stores white as 0 (PhotometricInterpretation "
            "0), which is read as a negative; save it as BlackIsZero or PNG"
        )


def require_photo(name: Path | str, header: Header) -> None:
    """Raise DataError unless an image with this header can be read as an 8-bit RGB photo."""
    if header.in_text:
        raise DataError(f"{name}: this photo stores numbers as text; save it as PNG")
    stored = f"or set {option('data.photo')} stored to train on its values as they are"
    if header.format == "NPY":
        raise DataError(f"{name}: a photo must be an image, not .npy; save it as PNG, {stored}")
    if header.white is None:
        signed = " of numbers with a sign" if header.mode == "L" else ""
        wide = f", {stored}" if header.mode == "F" else ""
        raise DataError(
            f"{name}: this photo has mode {header.mode}{signed}; save it with 8 or 16 bits per channel{wide}"
        )
    _require_black_as_zero(name, header, "photo")


def require_input(name: Path | str, header: Header, kind: Kind = "input") -> None:
    """Raise DataError unless all channels of an image with this header can be read as they are stored."""
    if header.partial:
        raise DataError(f"{name}: this {kind} has {header.partial}; save its array [H, W, C] as .npy")
    if header.white is None and header.mode != "F" and "float" not in header.mode:
        dtype = {"I": "int32", "L": "int8"}.get(header.mode, header.mode)
        raise DataError(f"{name}: {kind} of type {dtype}; save uint8, uint16, or float32 scaled to [-1, 1]")
    _require_black_as_zero(name, header, kind)


def shown_size(header: Header, size: tuple[int, int] | None) -> tuple[int, int]:
    """Size of a photo that belongs to a map of `size`: upright, unless only the stored size equals the map's."""
    return header.size if size is not None and size == header.size != header.upright else header.upright


def header_of_array(array: np.ndarray) -> Header:
    """Header of an array [H, W, C]."""
    height, width, channels = array.shape
    mode, white = mode_of_numbers(array.dtype)
    return Header((width, height), (width, height), "NPY", mode, channels, white=white)


def mode_of_numbers(dtype: np.dtype) -> tuple[str, int | None]:
    """The mode and the white of a header for an array's numbers: of bool those of an image of one bit."""
    return ("1", 1) if dtype.kind == "b" else (dtype.name, WHITES.get(dtype.name))


def header_of(image: Image.Image, source: ImageSource) -> Header:
    """Header of an image that `opened` yields, before its pixels are decoded.

    Raises:
        DataError: it takes more memory than `hdgan.files.limits` allows, or Pillow would not read the stored numbers.
    """
    size, tiff = image.size, image.format == "TIFF"
    # Only the pages of a TIFF count: a phone's MPO is a JPEG followed by previews. Where the caller has turned a Pillow
    # image to another page, that page alone is meant.
    frames = _pages(image, source) if tiff and not image.tell() else 1
    orientation = _orientation(image)
    header = Header(
        size,
        # Pillow itself turns a TIFF upright, and reports its upright size.
        (size[1], size[0]) if orientation in (5, 6, 7, 8) and not tiff else size,
        image.format or "",
        image.mode,
        2 if raw_mode(image) == "LA;16B" else len(image.getbands()),  # Pillow has no grey and opacity of 16 bits
        orientation,
        frames,
        tiff_tag(image, _PHOTOMETRIC, 1),
        _white(image),
        _why_inexact(image),
        _why_partial(image),
        first_tile(image)[0] == "ppm_plain",
    )
    if raw_mode(image):
        _require_bounded(image, named(source), frames)
    _require_understood(image, named(source), frames)
    return header


def _pages(image: Image.Image, source: ImageSource) -> int:
    pages = 1
    try:
        while pages <= MOST_PAGES:
            image.seek(pages)
            pages += 1
        raise DataError(f"{named(source)} has more than {MOST_PAGES} pages; save its array [H, W, C] as .npy")
    except EOFError:
        image.seek(0)
    return pages


def _orientation(image: Image.Image) -> int:
    """The EXIF orientation from 1 to 8; 1 where it is undefined or damaged, which does not affect the pixels."""
    # Pillow would decode a PNG to look for EXIF behind its pixels; EXIF before them is in `info`.
    if image.format == "PNG" and raw_mode(image) and "exif" not in image.info:
        return 1
    try:
        orientation = image.getexif().get(_ORIENTATION, 1)
    except UNREADABLE:
        return 1
    return orientation if isinstance(orientation, int) and 1 <= orientation <= 8 else 1


def _white(image: Image.Image) -> int | None:
    raw = raw_mode(image)
    if image.format == "PPM" and raw and image.mode not in ("1", "F"):
        return pnm_white(image)
    if image.mode in ("I", "F") or tiff_tag(image, SAMPLE_FORMAT, 1) != 1:
        return None
    if image.mode == "1":
        return 1
    if image.mode not in ("L", *WIDE_MODES):
        return 65535 if is_halved(image) else 255
    bits = {"L;2": 2, "L;4": 4}.get(raw, 8 if image.mode == "L" else 16)
    return 2 ** tiff_tag(image, _BITS, bits) - 1


def pnm_white(image: Image.Image) -> int:
    """The greatest number that a PGM or PPM declares."""
    codec, _, _, args = first_tile(image)
    if codec != "raw":
        return int(args[1])
    return 65535 if image.mode == "I" else 255


def _why_inexact(image: Image.Image) -> str:
    compression = image.info.get("compression")
    if image.format == "WEBP" or compression == "webp":
        return "WEBP, which may be lossy"
    if (image.format or "") not in _EXACT_FORMATS or compression in ("jpeg", "tiff_jpeg"):
        return f"{image.format if image.format != 'TIFF' else 'JPEG in TIFF'}, which does not keep ids exactly"
    # Pillow inverts bitmaps and stretches numbers stored as text.
    if image.format == "PPM" and image.mode == "1":
        return "a PBM, which is read inverted"
    return "a text PGM, which is not read as stored" if first_tile(image)[0] == "ppm_plain" else ""


def _why_partial(image: Image.Image) -> str:
    """Why not all channels or bits of the pixels can be read; empty if they can."""
    raw, samples = raw_mode(image), tiff_tag(image, _SAMPLES, 1)
    if image.format == "TIFF" and samples != len(image.getbands()) and image.info.get("compression") != "jpeg":
        return f"{count(samples, 'channel')} in a TIFF page, not all of which can be read"
    if tiff_tag(image, _EXTRA, 0) == 1 or image.mode in ("RGBa", "La"):
        return "colours that are multiplied by their opacity"
    if raw.startswith("CMYK;16") or raw in ("BGR;15", "BGR;16"):
        return "colours of which not all bits are read"
    if image.mode == "LAB":
        return "colours of CIELAB"
    return "numbers stored as text" if first_tile(image)[0] == "ppm_plain" else ""


def _require_bounded(image: Image.Image, name: str, frames: int) -> None:
    # Pillow decodes a run-length encoded BMP in Python, which takes far more memory.
    pixel = 16 if first_tile(image)[0] == "bmp_rle" else _BYTES.get(image.mode, 4)
    width, height = image.size
    what = f"an image of {width}x{height} pixels" + (f" and {frames} pages" if frames > 1 else "")
    require_bounded(name, width * height * pixel * frames, what)
    width, height = tiff_tag(image, _TILE_WIDTH, 1), tiff_tag(image, _TILE_LENGTH, 1)
    require_bounded(name, width * height * pixel, f"a TIFF in tiles of {width}x{height} pixels")


def _require_understood(image: Image.Image, name: str, frames: int) -> None:
    """Refuse files from which Pillow would silently read other numbers than those stored."""
    raw, codec = raw_mode(image), first_tile(image)[0]
    planes = len(image.getbands()) if tiff_tag(image, _PLANAR, 1) == 2 and codec != "libtiff" else 1
    bits = 1 if image.mode == "1" else 8
    reason = ""
    if (volume := _planes(image)) > frames:
        reason = f"a TIFF of {volume} planes behind each other"
    elif codec == "raw" and image.format == "BMP" and image.mode in ("1", "L") and _bits_of_bmp(image) != bits:
        reason = "a BMP with a grey palette of few colours"
    elif image.mode in ("I", "F") and image.info.get("compression") != "raw" and _is_swapped(image):
        reason = "a compressed TIFF of floats or signed numbers in the other byte order"
    elif tiff_tag(image, _PLANAR, 1) == 2 and tiff_tag(image, _SAMPLES, 1) > 1 and tiff_tag(image, _BITS, 8) != 8:
        reason = "a TIFF with separate planes for channels of more than 8 bits"
    elif (
        tiff_tag(image, _PHOTOMETRIC, 1) == 6 and "jpeg" not in str(image.info.get("compression")) and image.mode != "L"
    ):
        reason = "a TIFF of YCbCr without JPEG"
    elif raw and image.format == "TIFF" and _area(image) < image.width * image.height * planes:
        reason = "a TIFF that does not contain all of its pixels"
    if reason:
        raise DataError(f"{name} is {reason}, which cannot be read as stored; save it as PNG, or as .npy")


def _planes(image: Image.Image) -> int:
    """The planes of a TIFF that are behind each other without being pages, of which Pillow reads the first."""
    planes = max(tiff_tag(image, tag, 1) for tag in _DEPTHS)
    text = str(getattr(image, "tag_v2", {}).get(_DESCRIPTION, ""))[:_MOST_TEXT]
    images = re.search(r"^images=(\d{1,9})$", text, re.MULTILINE) if text.startswith("ImageJ=") else None
    return planes if images is None or image.tell() else max(planes, int(images[1]))


def _is_swapped(image: Image.Image) -> bool:
    """Whether a TIFF has the opposite byte order to the machine's."""
    order = getattr(getattr(image, "tag_v2", None), "prefix", b"")
    return order == (b"MM" if sys.byteorder == "little" else b"II")


def _area(image: Image.Image) -> int:
    """Number of pixels that the strips or tiles of a TIFF hold; Pillow leaves the others black."""
    return sum((right - left) * (bottom - top) for _, (left, top, right, bottom), *_ in tiles_of(image))


def _bits_of_bmp(image: Image.Image) -> int:
    """Bits of a pixel, from the 12-byte header of OS/2 or a newer one."""
    file: Any = image.fp  # type: ignore[attr-defined]
    file.seek(14)
    newer = int.from_bytes(file.read(4), "little") > 12
    file.seek(28 if newer else 24)
    return int.from_bytes(file.read(2), "little")


def tiff_tag(image: Image.Image, tag: int, default: int) -> int:
    """First value of a tag; `default` if the tag is absent or the image is not a TIFF."""
    value = getattr(image, "tag_v2", {}).get(tag, default)
    return int(value[0] if isinstance(value, tuple) else value)
