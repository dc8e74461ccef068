"""TIFFs of any size, of which tifffile decodes those tiles or strips that a window needs."""

from __future__ import annotations

from contextlib import ExitStack
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from hdgan.data.headers import Header
from hdgan.data.opening import UNREADABLE, damaged
from hdgan.data.scan import MOST_TILES, require_few_parts
from hdgan.data.tiles import Read, StoredImage, TiledImage
from hdgan.errors import DataError, HdganError
from hdgan.files.limits import require_bounded
from hdgan.files.slides import slides
from hdgan.wording import count

_LOSSLESS = {1: "none", 5: "LZW", 8: "deflate", 32773: "PackBits", 32946: "deflate", 34925: "LZMA", 50000: "zstd"}
_LOSSY = {7: "JPEG", 33005: "JPEG 2000", 34712: "JPEG 2000", 50001: "WEBP"}
_CHANNELS = "YXSCIQ"
"""Axes, in tifffile's letters, that are no planes of their own: rows, columns, samples, channels, and pages that the
file says nothing about."""
_BLACK_IS_ZERO, _RGB, _PALETTE, _YCBCR, _JPEG = 1, 2, 3, 6, 7
_OVERHEAD = 2**16
"""Bytes that a compressed tile may have beyond twice those of its pixels."""


class NotByWindows(Exception):
    """Why a TIFF is not read by windows, with what can be done. Pillow may read it whole."""


def open_tiff(path: Path, *, fits: bool) -> StoredImage:
    """Open the first image of a TIFF at its full resolution.

    Args:
        path: a TIFF of any kind.
        fits: whether Pillow can read it whole, which is not read by windows then unless it has tiles or is a BigTIFF.

    Raises:
        ConfigError: tifffile is not installed.
        DataError: several planes, tiles that take more memory than `hdgan.files.limits` allows, or damage.
        NotByWindows: it fits, or has a kind of pixels that are read whole only.
    """
    tifffile = slides("tifffile", f"reading {path} by windows")
    with ExitStack() as stack:
        try:
            require_few_parts(path, MOST_TILES)
            # Other files that the metadata name are not opened.
            file = stack.enter_context(tifffile.TiffFile(path, _multifile=False))
            if fits and not (file.is_bigtiff or file.pages.first.is_tiled):
                raise NotByWindows("it can be read whole")
            pages = _pages(path, file)
            _require_known(pages)
            read = _read_mapped(path, pages) if all(page.is_final for page in pages) else _tiles(path, file, pages).read
            stored = StoredImage(_header(pages), _dtype(pages[0]), read, file.close, _colors(pages[0]))
        except HdganError:
            raise
        except UNREADABLE as error:
            if fits:  # Pillow may read it all the same, and tells otherwise what is wrong
                raise NotByWindows(str(error)) from error
            raise damaged(path, error) from error
        stack.pop_all()
        return stored


def _pages(path: Path, file: Any) -> list[Any]:
    """The pages of the first image at its full resolution, which all are of one kind."""
    level = file.series[0].levels[0]
    planes = {axis: n for axis, n in zip(level.axes, level.shape, strict=True) if axis not in _CHANNELS and n > 1}
    if planes:
        found = " and ".join(f"{n} along {axis}" for axis, n in planes.items())
        raise DataError(f"{path} has several planes, {found}: save the one that is meant as a file of its own")
    if any(page is None for page in level.pages):
        raise NotByWindows("some of its planes are in other files; save them in one")
    pages = [page.aspage() for page in level.pages]
    if 0 in pages[0].shaped:
        raise ValueError("it has no pixels")
    if any(page.hash != pages[0].hash or page.is_subifd for page in pages):
        raise NotByWindows("its pages differ in kind; save pages of one kind")
    return pages


def _require_known(pages: list[Any]) -> None:
    """Raise NotByWindows for pixels that tifffile may not decode to the numbers of `read_map` and `read_input`."""
    page = pages[0]
    compression, photometric, bits = int(page.compression), int(page.photometric), page.bitspersample
    known = (_BLACK_IS_ZERO, _RGB, _PALETTE, *([_YCBCR] if compression == _JPEG and page.samplesperpixel == 3 else []))
    problem = ""
    if compression not in _LOSSLESS and compression not in _LOSSY:
        problem = f"its compression is {getattr(page.compression, 'name', compression)}; save it with deflate"
    elif photometric == 0:
        problem = "it stores white as 0 (PhotometricInterpretation 0); save it as BlackIsZero"
    elif photometric not in known or (photometric == _PALETTE and not _is_indexed(pages)):
        name = getattr(page.photometric, "name", photometric)
        problem = f"its colours are of kind {name} (PhotometricInterpretation {photometric}); save it as RGB or grey"
    elif _tag(page, 274, 1) != 1:
        problem = f"it has TIFF orientation {_tag(page, 274, 1)}; save it without one"
    elif page.dtype is None or not isinstance(bits, int) or page.imagedepth > 1 or _tag(page, 32998, 1) > 1:
        problem = f"a pixel has the bits {bits}, or it is a volume; save 8 or 16 bits, or float32"
    elif any(not all(each.databytecounts) for each in pages):
        problem = "some of its tiles have no pixels; save it with all of them"
    if problem:
        raise NotByWindows(problem)


def _header(pages: list[Any]) -> Header:
    page = pages[0]
    size, compression = (page.imagewidth, page.imagelength), int(page.compression)
    return Header(
        size,
        size,
        "TIFF",
        "P" if page.photometric == _PALETTE else _dtype(page).name,
        page.samplesperpixel,
        frames=len(pages),
        white=2**page.bitspersample - 1 if page.dtype.kind in "bu" and page.bitspersample <= 16 else None,
        inexact=f"{_LOSSY[compression]} in TIFF, which does not keep ids exactly" if compression in _LOSSY else "",
        partial="colours that are multiplied by their opacity" if 1 in page.extrasamples else "",
    )


def _dtype(page: Any) -> np.dtype:
    """The type of the decoded numbers; tifffile's for a single bit is bool."""
    return np.dtype(np.uint8) if page.dtype == bool else page.dtype


def _is_indexed(pages: list[Any]) -> bool:
    """Whether it is a single page of indices of up to 8 bits into its palette."""
    return len(pages) == pages[0].samplesperpixel == 1 and pages[0].dtype == np.uint8


def _colors(page: Any) -> np.ndarray | None:
    """The palette [N, 3] uint8 of a page that has one; like Pillow, of the high bytes."""
    return (np.array(page.colormap) >> 8).astype(np.uint8).T if page.photometric == _PALETTE else None


def _read_mapped(path: Path, pages: list[Any]) -> Read:
    """A reader of pixels that lie in the file row by row as they are."""
    page = pages[0]
    dtype = page.dtype.newbyteorder(page.parent.byteorder)
    height, width, samples, planar = page.imagelength, page.imagewidth, page.samplesperpixel, page.planarconfig == 2
    shape = (samples, height, width) if planar else (height, width, samples)
    arrays = [np.memmap(path, dtype, "r", each.dataoffsets[0], shape) for each in pages]
    arrays = [np.moveaxis(array, 0, 2) if planar else array for array in arrays]

    def read(top: int, bottom: int, left: int, right: int) -> np.ndarray:
        return np.concatenate([array[top:bottom, left:right] for array in arrays], axis=2)

    return read


def _tiles(path: Path, file: Any, pages: list[Any]) -> TiledImage:
    page = pages[0]
    height = page.tilelength if page.is_tiled else min(page.rowsperstrip, page.imagelength)
    width = page.tilewidth if page.is_tiled else page.imagewidth
    channels = page.samplesperpixel * len(pages)
    what = f"a TIFF in {'tiles' if page.is_tiled else 'strips'} of {width}x{height} pixels"
    require_bounded(path, height * width * channels * page.dtype.itemsize, what)
    planes = page.samplesperpixel if page.planarconfig == 2 else 1
    down, across = -(-page.imagelength // height), -(-page.imagewidth // width)
    for each in pages:
        if len(each.dataoffsets) != len(each.databytecounts) or len(each.dataoffsets) != planes * down * across:
            raise ValueError(f"it has {count(len(each.dataoffsets), 'tile')} instead of {planes * down * across}")
        if max(map(sum, zip(each.dataoffsets, each.databytecounts, strict=True))) > file.filehandle.size:
            raise ValueError("it ends before its last tile")
    most = 2 * height * width * channels * page.dtype.itemsize + _OVERHEAD

    def decode(row: int, column: int) -> np.ndarray:
        indices = [(plane * down + row) * across + column for plane in range(planes)]
        parts = [_decoded(file, page, each, index, most) for each in pages for index in indices]
        return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=2)

    return TiledImage((page.imagelength, page.imagewidth, channels), (height, width), _dtype(page), decode)


def _decoded(file: Any, first: Any, page: Any, index: int, most: int) -> np.ndarray:
    """One tile or strip [h, w, C] of a page, decoded as of the first page."""
    offset, length = page.dataoffsets[index], page.databytecounts[index]
    if length > most:
        raise ValueError(f"tile {index} has {length} bytes, more than its pixels can take")
    file.filehandle.seek(offset)
    content = file.filehandle.read(length)
    if len(content) < length:
        raise ValueError(f"tile {index} is truncated")
    if int(first.compression) in _LOSSY and page.jpegheader is None:  # a header of its own takes the size of the tile
        _require_small(content, first, index)
    tile, _, _ = first.decode(content, index, jpegtables=page.jpegtables, jpegheader=page.jpegheader)
    return np.asarray(tile[0])


def _require_small(content: bytes, page: Any, index: int) -> None:
    """Refuse a JPEG or the like that says it is larger than its tile, since it would be decoded at that size."""
    most = (page.tilewidth, page.tilelength) if page.is_tiled else (page.imagewidth, page.rowsperstrip)
    try:
        with Image.open(BytesIO(content), formats=("JPEG", "JPEG2000", "WEBP")) as image:
            size = image.size
    except Image.DecompressionBombError as error:
        raise ValueError(f"tile {index} is larger than its place") from error
    if size[0] > most[0] or size[1] > most[1]:
        raise ValueError(f"tile {index} is larger than its place")


def _tag(page: Any, code: int, default: int) -> int:
    return int(page.tags.valueof(code, default))
