"""Damaged TIFFs and zarr arrays by windows: they are read, or refused in one of hdgan's own errors."""

from __future__ import annotations

import io
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hdgan.data.windows import Windows, open_image, open_map
from tests.fuzz import damage
from tests.fuzz.test_files import require_read_or_refused, tries

pytestmark = pytest.mark.slides

RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 256, (40, 50), dtype=np.uint8)
_HEAD = 400
"""Bytes in which a TIFF says what it contains."""
TILE: dict[str, Any] = {"tile": (16, 16), "compression": "adobe_deflate"}


@pytest.fixture(autouse=True)
def _silent() -> Iterator[None]:
    """tifffile logs what is damaged."""
    logging.getLogger("tifffile").setLevel(logging.CRITICAL + 1)
    yield
    logging.getLogger("tifffile").setLevel(logging.NOTSET)


def tiffs() -> dict[str, bytes]:
    import tifffile

    def written(image: np.ndarray, **options: Any) -> bytes:
        buffer = io.BytesIO()
        tifffile.imwrite(buffer, image, **options)
        return buffer.getvalue()

    pyramid = io.BytesIO()
    with tifffile.TiffWriter(pyramid, bigtiff=True, ome=True) as file:
        file.write(np.stack([GREY] * 3, axis=2), subifds=1, photometric="rgb", metadata={"axes": "YXS"}, **TILE)
        file.write(np.stack([GREY[::2, ::2]] * 3, axis=2), subfiletype=1, photometric="rgb", metadata=None, **TILE)
    return {
        "tiles": written(GREY, **TILE),
        "raw": written(GREY.astype(np.uint16), bigtiff=True, byteorder=">"),
        "strips": written(GREY, bigtiff=True, rowsperstrip=4, compression="lzw", predictor=True),
        "jpeg": written(GREY, tile=(16, 16), compression="jpeg"),
        "pages": written(np.stack([GREY] * 3), photometric="minisblack", bigtiff=True, **TILE),
        "pyramid": pyramid.getvalue(),
    }


def corners(opener: Callable[[Path], Windows]) -> Callable[[Path], None]:
    """A reader of the first and the last pixels of a file."""

    def read(path: Path) -> None:
        with opener(path) as windows:
            height, width = windows.height, windows.width
            windows.read(0, min(height, 32), 0, min(width, 32))
            windows.read(max(height - 32, 0), height, max(width - 32, 0), width)

    return read


@pytest.mark.parametrize("name", ["tiles", "raw", "strips", "jpeg", "pages", "pyramid"])
def test_tiffs(name: str, tmp_path: Path) -> None:
    content = tiffs()[name]
    heads = damage.damaged_bytes(content[:_HEAD]).map(lambda head: head + content[_HEAD:])

    @tries(50)
    @given(st.one_of(heads, damage.damaged_bytes(content)))
    def holds(content: bytes) -> None:
        for opener in (open_map, open_image):
            require_read_or_refused(corners(opener), tmp_path / "a.tif", content)

    holds()


@pytest.mark.parametrize("name", [".zarray", "zarr.json"])
def test_metadata_of_zarr(name: str, tmp_path: Path) -> None:
    zarr = pytest.importorskip("zarr")
    if name == "zarr.json" and zarr.__version__ < "3":
        pytest.skip("zarr 2 has no format 3")
    options = {} if zarr.__version__ < "3" else {"zarr_format": 2 if name == ".zarray" else 3}
    folder = tmp_path / "a.zarr"
    zarr.open(str(folder), mode="w", shape=GREY.shape, chunks=(16, 16), dtype="u1", **options)[:] = GREY
    content = (folder / name).read_bytes()

    @tries(50)
    @given(st.one_of(damage.damaged_json(content), damage.damaged_bytes(content)))
    def holds(content: bytes) -> None:
        for opener in (open_map, open_image):
            require_read_or_refused(lambda _, opener=opener: corners(opener)(folder), folder / name, content)

    holds()
