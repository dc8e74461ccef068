"""Maps and images of any size that are read by windows, with the same numbers as of `read_map` and `read_input`.

A .npy file is mapped into memory. Of a TIFF in tiles, a BigTIFF, a TIFF beyond the limit on memory and a zarr array
those tiles are decoded that a window needs. Everything else is read whole, within the limit.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from hdgan.data.arrays import mapped_array
from hdgan.data.headers import WHITES, Kind, header_of_array, read_header, require_input, require_map
from hdgan.data.images import as_ids, as_input, read_input, read_map, read_photo, read_stored_photo
from hdgan.data.opening import UNREADABLE, damaged
from hdgan.data.scan import TIFF_MARKS
from hdgan.data.tiff_windows import NotByWindows, open_tiff
from hdgan.data.tiles import StoredImage
from hdgan.data.zarr_windows import is_zarr, open_zarr
from hdgan.errors import ConfigError, DataError
from hdgan.files import require_file
from hdgan.files.remote import is_remote, located
from hdgan.files.slides import SLIDES_REMEDY, has_slides
from hdgan.wording import count

Reader = Callable[[Path], np.ndarray]
"""Reads a file at once, as [H, W, C]."""


class Windows:
    """A map or an image that is read by windows, by one thread at a time. It is a context manager that closes it.

    Args:
        path: of the file, for messages.
        kind: what it is.
        stored: its numbers as they are stored.

    Attributes:
        name: the path, for messages.
        height: pixels of a column.
        width: pixels of a row.
        channels: 1 for maps.
        dtype: of what `read` returns: uint8, uint16 or, for maps, int32, for images float32.

    Raises:
        DataError: the file cannot be such a map or image.
    """

    def __init__(self, path: Path, kind: Kind, stored: StoredImage) -> None:
        header = stored.header
        self.name, self._kind, self._stored = str(path), kind, stored
        self.width, self.height = header.size
        self._is_map = kind in ("label map", "instance map")
        if self._is_map:
            require_map(path, header, kind)
            self.channels = 1
            bits = "uint8" if stored.dtype == bool else stored.dtype.name
            self.dtype = np.dtype(bits if bits in WHITES else "int32")
        else:
            require_input(path, header, kind)
            self.channels, self.dtype = header.input_channels, np.dtype(header.kind.depth)

    def read(self, top: int, bottom: int, left: int, right: int) -> np.ndarray:
        """Read the rows from `top` to `bottom` and the columns from `left` to `right`, both without the end.

        Returns:
            [h, w] of a map, [h, w, C] of an image: a new array.

        Raises:
            DataError: the file is damaged, or has numbers there that no map or image can have.
            ValueError: the window is empty or leaves the image.
        """
        if not (0 <= top < bottom <= self.height and 0 <= left < right <= self.width):
            raise ValueError(f"{self.name}: no window {top}:{bottom}, {left}:{right} in {self.height}x{self.width}")
        try:
            values = self._stored.read(top, bottom, left, right)
        except UNREADABLE as error:
            raise damaged(self.name, error) from error
        if self._is_map:
            return np.array(as_ids(self.name, values[..., 0]), order="C")
        if self._stored.colors is not None:
            values = self._stored.colors[values].reshape(*values.shape[:2], -1)
        return np.array(as_input(self.name, values, self._stored.header.white, self._kind), order="C")

    def close(self) -> None:
        """Close the file."""
        self._stored.close()

    def __enter__(self) -> Windows:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def open_map(path: Path, kind: Kind = "label map") -> Windows:
    """Open a label or instance map of any size.

    Args:
        path: an image or .npy file as of `read_map`; a TIFF in tiles, an OME-TIFF or BigTIFF of one plane, compressed
            without loss; or the folder of a zarr array or an OME-zarr image.
        kind: "label map" or "instance map", for messages.

    Raises:
        ConfigError: a package that the file needs is not installed.
        DataError: not one channel of integers, a lossy format, or an unreadable file.
    """
    return _open(located(Path(path), "the path"), kind, lambda path: read_map(path, kind)[..., None])


def open_image(path: Path) -> Windows:
    """Open the input of an A-to-B model, of any size.

    Of a TIFF, the first image is read at its full resolution, its pages as channels.

    Args:
        path: as of `open_map`, but for any number of channels, and JPEG is allowed.

    Raises:
        ConfigError: a package that the file needs is not installed.
        DataError: integers of more than 16 bits, or an unreadable file.
    """
    return _open(located(Path(path), "the path"), "input", read_input)


def open_photo(path: Path, size: tuple[int, int], rgb: bool) -> Windows:
    """Open the photo of a map of any size.

    Args:
        path: as of `open_image`.
        size: (width, height) of the map, as for `read_photo`.
        rgb: read it as 8-bit RGB, as `read_photo` does; else as `read_stored_photo` does. What is read by windows is
            not converted.

    Raises:
        ConfigError: a package that the file needs is not installed.
        DataError: an unreadable file; or with `rgb`, one that is read by windows and is no 8-bit RGB.
    """

    def whole(path: Path) -> np.ndarray:
        return np.asarray(read_photo(path, size)) if rgb else read_stored_photo(path, size)

    windows = _open(located(Path(path), "the path"), "photo", whole)
    if rgb and (windows.channels, windows.dtype) != (3, np.uint8):
        windows.close()
        raise DataError(
            f"{path} has {count(windows.channels, 'channel')} of type {windows.dtype}, and a photo of this kind of "
            "file is not converted: save it as 8-bit RGB"
        )
    return windows


def _open(path: Path, kind: Kind, whole: Reader) -> Windows:
    if is_remote(path):
        raise DataError(f"{path} is not on this machine, and tiles are read from local files: copy it to a folder here")
    if path.suffix.lower() == ".npy":
        return _of_array(path, kind, mapped_array(path))
    if is_zarr(path):
        return _checked(path, kind, open_zarr(path))
    require_file(path, DataError)
    with path.open("rb") as file:
        tiff = file.read(4) in TIFF_MARKS
    return _open_tiff(path, kind, whole) if tiff else _of_array(path, kind, whole(path))


def _open_tiff(path: Path, kind: Kind, whole: Reader) -> Windows:
    """Open a TIFF by windows; but one that Pillow reads whole is read so where it has no tiles, or none that we know.

    Both give the same numbers.
    """
    problem = None
    try:
        read_header(path)
    except DataError as error:
        problem = error
    try:
        if has_slides("tifffile"):
            return _checked(path, kind, open_tiff(path, fits=problem is None))
    except NotByWindows as reason:
        if problem is not None:
            raise DataError(f"{path} cannot be read by windows: {reason}") from problem
    if problem is not None:
        raise ConfigError(f"{problem}; to read it by windows, {SLIDES_REMEDY}") from problem
    return _of_array(path, kind, whole(path))


def _checked(path: Path, kind: Kind, stored: StoredImage) -> Windows:
    try:
        return Windows(path, kind, stored)
    except DataError:
        stored.close()
        raise


def _of_array(path: Path, kind: Kind, array: np.ndarray) -> Windows:
    """Windows of an array; numbers that were read at once do not change when they are converted a second time."""

    def read(top: int, bottom: int, left: int, right: int) -> np.ndarray:
        return array[top:bottom, left:right]

    return Windows(path, kind, StoredImage(header_of_array(array), array.dtype, read, lambda: None))
