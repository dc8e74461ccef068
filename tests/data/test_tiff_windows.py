"""TIFFs that tifffile has written: what is read by windows, how often it is decoded, and what is refused."""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from PIL import Image

from hdgan.data import read_input, read_map, tiff_windows
from hdgan.data.windows import open_image, open_map
from hdgan.errors import DataError

from . import writers
from .test_windows import HEIGHT, RNG, SMALL_LIMIT, WIDTH, check

pytestmark = pytest.mark.slides

Write = Callable[..., Path]

TILE = {"tile": (16, 16), "compression": "adobe_deflate"}
IDS = RNG.integers(0, 256, (HEIGHT, WIDTH)).astype(np.uint8)
COLORS = np.add.outer(np.arange(HEIGHT) * 3, np.arange(WIDTH))[..., None] * [1, 2, 3] % 256
"""Smooth, as photos are."""


PALETTE = RNG.integers(0, 2**16, (3, 256), dtype=np.uint16)


def integers(dtype: str, *channels: int) -> np.ndarray:
    most = min(int(np.iinfo(dtype).max), 2**31 - 1)
    return RNG.integers(np.iinfo(dtype).min, most, (HEIGHT, WIDTH, *channels), dtype=dtype)


@pytest.fixture
def tifffile() -> ModuleType:
    import tifffile

    return tifffile


@pytest.fixture
def write(tifffile: ModuleType, tmp_path: Path) -> Write:
    """Write one image, or several of them, into a TIFF."""

    def to_file(image: np.ndarray, **options: Any) -> Path:
        tifffile.imwrite(tmp_path / "a.tif", image, **options)
        return tmp_path / "a.tif"

    return to_file


@pytest.fixture
def tiny_limit(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Less memory than the images here take, but more than their tiles."""
    return lambda: monkeypatch.setenv("HDGAN_MAX_GIB", SMALL_LIMIT)


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> Counter[int]:
    """Counts which tiles or strips of a page are decoded."""
    counts: Counter[int] = Counter()
    original = tiff_windows._decoded

    def counting(file: Any, first: Any, page: Any, index: int, most: int) -> np.ndarray:
        counts[index] += 1
        return original(file, first, page, index, most)

    monkeypatch.setattr(tiff_windows, "_decoded", counting)
    return counts


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int8", "int16", "int32"])
@pytest.mark.parametrize("compression", [None, "adobe_deflate", "lzw", "packbits", "zstd", "lzma"])
@pytest.mark.parametrize("byteorder", ["<", ">"])
def test_maps_are_exact(write, dtype, compression, byteorder):
    ids = integers(dtype)
    path = write(ids, tile=(16, 32), compression=compression, predictor=compression == "lzw", byteorder=byteorder)
    check(open_map(path), ids.astype(dtype if dtype.startswith("u") else np.int32))


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
@pytest.mark.parametrize("planar", ["contig", "separate"])
def test_images_are_exact(write, channels, dtype, planar):
    image = integers(dtype, channels) if "int" in dtype else RNG.random((HEIGHT, WIDTH, channels), dtype=np.float32)
    stored = image[..., 0] if channels == 1 else np.moveaxis(image, 2, 0) if planar == "separate" else image
    options = {} if channels == 1 else {"planarconfig": planar}
    colours = channels in (3, 4) and "int" in dtype
    check(open_image(write(stored, photometric="rgb" if colours else "minisblack", **TILE, **options)), image)


@pytest.mark.parametrize(
    ("image", "options"),
    [
        pytest.param(COLORS, {"photometric": "rgb", "compression": "jpeg"}, id="jpeg"),
        pytest.param(COLORS, {"photometric": "rgb", "compression": "jpeg", "subsampling": (2, 2)}, id="jpeg 2x2"),
        pytest.param(COLORS, {"photometric": "ycbcr", "compression": "jpeg"}, id="YCbCr"),
        pytest.param(COLORS[..., 0], {"compression": "jpeg"}, id="grey jpeg"),
        pytest.param(IDS, {"photometric": "palette", "colormap": PALETTE}, id="palette"),
        pytest.param(IDS, {"photometric": "miniswhite"}, id="white is zero"),
        pytest.param(IDS, {"extratags": [(274, 3, 1, 6, True)]}, id="orientation"),
        pytest.param(IDS > 99, {}, id="1 bit"),
        pytest.param(integers("uint8", 4), {"photometric": "separated"}, id="CMYK"),
        pytest.param(np.stack([IDS, IDS // 2, IDS // 3]), {"photometric": "minisblack"}, id="pages"),
    ],
)
def test_small_ones_give_the_numbers_of_pillow(write, image, options):
    """Those that are not read by windows are read whole."""
    image = image.astype(np.uint8) if image.dtype == np.int64 else image
    path = write(image, **{"tile": (16, 32), **options})
    check(open_image(path), read_input(path))


@pytest.mark.parametrize("bits", [2, 4, 12])
def test_few_bits_give_the_numbers_of_pillow(tmp_path, bits):
    ids = (IDS.astype(np.uint16) * 16)[:32, :48] % 2**bits
    (tmp_path / "a.tif").write_bytes(writers.tiff(ids, bits, tile=True))
    check(open_map(tmp_path / "a.tif"), ids.astype(np.uint16 if bits == 12 else np.uint8))
    check(open_image(tmp_path / "a.tif"), read_input(tmp_path / "a.tif"))


@pytest.mark.parametrize(("image", "limit"), [(COLORS.astype(np.uint8), 4000), (IDS, 2000)], ids=["colours", "grey"])
def test_jpegs_that_share_their_tables(tmp_path, monkeypatch, image, limit):
    """As libtiff writes them."""
    Image.fromarray(image).save(tmp_path / "a.tif", compression="jpeg", tiffinfo={278: 16})
    whole = read_input(tmp_path / "a.tif")
    monkeypatch.setenv("HDGAN_MAX_GIB", str(limit / 2**30))
    check(open_image(tmp_path / "a.tif"), whole)


@pytest.mark.parametrize("compression", ["jpeg2000", "webp"])
def test_images_in_compressions_that_pillow_does_not_read(tifffile, write, compression):
    path = write(COLORS.astype(np.uint8), photometric="rgb", tile=(16, 32), compression=compression)
    check(open_image(path), tifffile.imread(path))


@pytest.mark.parametrize("subifds", [True, False])
def test_a_pyramid_is_read_at_its_full_resolution(tifffile, tmp_path, subifds):
    path = tmp_path / "a.tif"
    with tifffile.TiffWriter(path, bigtiff=True) as file:
        file.write(IDS, **TILE, **({"subifds": 2} if subifds else {}))
        for step in (2, 4):
            file.write(IDS[::step, ::step], subfiletype=1, **TILE)
    check(open_map(path), IDS)


@pytest.mark.parametrize("ome", [True, False])
def test_channels_of_pages(write, ome):
    stack = np.stack([IDS, IDS // 2, IDS // 3, IDS // 5])
    path = write(stack, ome=ome, metadata={"axes": "CYX"}, photometric="minisblack", **TILE)
    check(open_image(path), np.moveaxis(stack, 0, 2))


@pytest.mark.parametrize("axes", ["ZYX", "TYX"])
def test_several_planes_are_refused(write, axes):
    path = write(np.stack([IDS] * 3), ome=True, metadata={"axes": axes}, photometric="minisblack", **TILE)
    for read in (open_map, open_image):
        with pytest.raises(DataError, match=rf"a\.tif has several planes, 3 along {axes[0]}: save the one"):
            read(path)


def test_other_files_that_the_metadata_name_are_not_opened(tifffile, tmp_path):
    tifffile.imwrite(tmp_path / "b.tif", IDS, **TILE)
    xml = tifffile.OmeXml()
    xml.addimage("uint8", (2, HEIGHT, WIDTH), (2, 1, 1, HEIGHT, WIDTH, 1), axes="CYX")
    described = xml.tostring().replace(
        "<TiffData", '<TiffData FirstC="1"><UUID FileName="b.tif">urn:uuid:b</UUID></TiffData><TiffData', 1
    )
    tifffile.imwrite(tmp_path / "a.tif", IDS, description=described, metadata=None, **TILE)
    check(open_image(tmp_path / "a.tif"), IDS[..., None])


@pytest.mark.parametrize("compression", ["jpeg", "jpeg2000", "webp"])
def test_maps_in_lossy_compressions_are_refused(write, tiny_limit, compression):
    image = IDS if compression == "jpeg" else COLORS.astype(np.uint8)
    path = write(image, tile=(16, 32), compression=compression, photometric=None if image is IDS else "rgb")
    tiny_limit()
    with pytest.raises(DataError, match=r"a\.tif: this label map is (JPEG|WEBP).* in TIFF, which does not keep ids"):
        open_map(path)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (integers("uint8", 3), "this label map has mode uint8 with 3 channels and 1 page"),
        (np.stack([IDS, IDS]), "this label map has mode uint8 with 1 channel and 2 pages"),
        (RNG.random((HEIGHT, WIDTH), dtype=np.float32), "this label map has mode float32"),
        (IDS.astype(np.complex64), "this label map has mode complex64"),
    ],
)
def test_what_cannot_be_a_map(write, tiny_limit, image, message):
    path = write(image, photometric="rgb" if image.shape[-1] == 3 else "minisblack", **TILE)
    tiny_limit()
    with pytest.raises(DataError, match=rf"a\.tif: {message}"):
        open_map(path)


def test_an_image_multiplied_by_its_opacity_is_refused(write):
    path = write(integers("uint8", 4), photometric="rgb", extrasamples=["assocalpha"], **TILE)
    with pytest.raises(DataError, match="colours that are multiplied by their opacity"):
        open_image(path)


@pytest.mark.parametrize(
    ("image", "options", "message"),
    [
        (IDS, {"photometric": "miniswhite"}, r"stores white as 0 \(PhotometricInterpretation 0\); save it as Black"),
        (IDS, {"extratags": [(274, 3, 1, 6, True)]}, "has TIFF orientation 6; save it without one"),
        (integers("uint8", 4), {"photometric": "separated"}, "its colours are of kind SEPARATED .*; save it as RGB"),
        (IDS, {"compression": "lerc"}, "its compression is LERC; save it with deflate"),
    ],
)
def test_large_ones_that_only_pillow_could_read(write, tiny_limit, image, options, message):
    path = write(image, **{**TILE, **options})
    tiny_limit()
    with pytest.raises(DataError, match=rf"a\.tif cannot be read by windows: .*{message}"):
        open_image(path)


@pytest.mark.parametrize("options", [{"rowsperstrip": 5, "compression": "lzw"}, {"rowsperstrip": 5}, TILE, {}], ids=str)
def test_files_beyond_the_limit(write, tiny_limit, options):
    check(open_map(write(IDS, **options)), IDS)
    tiny_limit()
    with pytest.raises(DataError, match="more than the limit"):
        read_map(write(IDS, **options))
    check(open_map(write(IDS, **options)), IDS)


@pytest.mark.parametrize("planar", ["contig", "separate"])
@pytest.mark.parametrize("byteorder", ["<", ">"])
def test_uncompressed_rows_are_mapped(write, decoded, planar, byteorder):
    image = integers("uint16", 3)
    stored = np.moveaxis(image, 2, 0) if planar == "separate" else image
    path = write(stored, photometric="rgb", planarconfig=planar, bigtiff=True, byteorder=byteorder)
    check(open_image(path), image)
    assert not decoded


def test_a_strip_beyond_the_limit(write, tiny_limit):
    path = write(IDS, rowsperstrip=HEIGHT, compression="lzw")
    tiny_limit()
    with pytest.raises(DataError, match=r"a\.tif is a TIFF in strips of 67x45 pixels, .* more than the limit"):
        open_map(path)


def test_only_the_tiles_of_a_window_are_decoded(write, decoded):
    with open_map(write(IDS, **TILE)) as windows:
        assert not decoded
        windows.read(3, 17, 33, 35)
    assert decoded == {2: 1, 7: 1}  # five tiles are in a row


def test_strips_are_decoded_once_for_a_row_of_windows(write, decoded, tiny_limit):
    path = write(IDS, rowsperstrip=2, compression="adobe_deflate")
    tiny_limit()
    with open_map(path) as windows:
        for left in range(0, WIDTH - 6, 3):
            windows.read(4, 14, left, left + 6)
    assert decoded == dict.fromkeys(range(2, 7), 1)


@pytest.mark.parametrize("keep", [0.02, 0.3, 0.7, 0.99])
@pytest.mark.parametrize("big", [True, False])
def test_truncation_is_found_before_anything_is_read(write, keep, big):
    path = write(RNG.integers(0, 256, (200, 300), dtype=np.uint8), bigtiff=big, **TILE)
    path.write_bytes(path.read_bytes()[: int(keep * path.stat().st_size)])
    with pytest.raises(DataError, match=r"a\.tif cannot be read .*restore it from its source"):
        open_map(path)


def test_a_damaged_tile_is_named(tifffile, write):
    path = write(IDS, **TILE)
    with tifffile.TiffFile(path) as file:
        offset = file.pages[0].dataoffsets[7]
    content = bytearray(path.read_bytes())
    content[offset : offset + 8] = bytes(8)
    path.write_bytes(content)
    with open_map(path) as windows:
        assert np.array_equal(windows.read(0, 16, 0, WIDTH), IDS[:16])
        with pytest.raises(DataError, match=r"a\.tif cannot be read .*restore it from its source"):
            windows.read(16, 32, 0, WIDTH)


def test_a_tile_that_claims_to_be_huge_is_not_read(tifffile, write):
    path = write(IDS, **TILE)
    path.write_bytes(path.read_bytes() + bytes(2**18))
    with tifffile.TiffFile(path, mode="r+") as file:
        file.pages[0].tags[325].overwrite([2**17] * 15, dtype=4)
    with open_map(path) as windows, pytest.raises(DataError, match="tile 0 has 131072 bytes, more than its pixels"):
        windows.read(0, 1, 0, 1)


def test_a_tile_that_unpacks_to_more_than_its_pixels(tifffile, write):
    path = write(np.zeros((16, 16), np.uint8), **TILE)
    bomb = zlib.compress(bytes(2**24))
    offset = path.stat().st_size
    path.write_bytes(path.read_bytes() + bomb)
    with tifffile.TiffFile(path, mode="r+") as file:
        file.pages[0].tags[324].overwrite([offset])
        file.pages[0].tags[325].overwrite([len(bomb)])
    with open_map(path) as windows, pytest.raises(DataError, match=r"a\.tif cannot be read .*restore it"):
        windows.read(0, 1, 0, 1)


@pytest.mark.parametrize("side", [b"\0\x20", b"\x7f\xff", b"\xff\xff"])
def test_a_jpeg_that_is_larger_than_its_tile_is_not_decoded(write, side):
    path = write(IDS, tile=(16, 16), compression="jpeg")
    content = path.read_bytes()
    sizes = b"\xff\xc0\0\x0b\x08"  # precede the sides in a JPEG of grey
    assert sizes + b"\0\x10\0\x10" in content
    path.write_bytes(content.replace(sizes + b"\0\x10\0\x10", sizes + side * 2))
    with open_image(path) as windows, pytest.raises(DataError, match="tile 0 is larger than its place"):
        windows.read(0, 1, 0, 1)


def test_an_image_without_pixels(tifffile, write):
    path = write(IDS, bigtiff=True)
    with tifffile.TiffFile(path, mode="r+") as file:
        file.pages[0].tags[256].overwrite(0)
    with pytest.raises(DataError, match=r"a\.tif cannot be read"):
        open_map(path)
