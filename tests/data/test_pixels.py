"""Pictures of every depth, byte order and colour that files have: read exactly, or refused, in every form alike."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hdgan.data import read_input, read_map, read_photo, to_unit_range
from hdgan.errors import DataError

from . import writers

RNG = np.random.default_rng(5)


def numbers(bits: int, channels: int = 0, sign: int = 0) -> np.ndarray:
    """Numbers of so many bits, the least and the greatest among them."""
    values = RNG.integers(0, 2**bits, (3, 5, channels) if channels else (3, 5))
    values.flat[:2] = 2**bits - 1, 0
    return values - (sign << (bits - 1))


def greys() -> Iterator[tuple[str, bytes, np.ndarray, int]]:
    """Grey pictures: name, content, what is stored, and which number is white (0 where none is)."""
    for bits in (1, 2, 4, 8, 16):
        yield f"{bits}.png", writers.png(values := numbers(bits), bits, 0), values, 2**bits - 1
    for white in (1, 34, 100, 255, 256, 1000, 65535):
        values = RNG.integers(0, white + 1, (3, 5))
        yield f"{white}.pgm", writers.pnm(values, white), values, white
    for order in "<>":
        for deflate in (False, True):
            name = f"{'deflated' if deflate else 'plain'}{'-big-endian' * (order == '>')}.tif"
            for bits in (1, 2, 4, 8, 12, 16):
                if bits != 12 or order == "<":
                    values = numbers(bits)
                    content = writers.tiff(values, bits, order, deflate=deflate)
                    yield f"{bits}-bits-{name}", content, values, 2**bits - 1
            for bits in (8, 16, 32):
                if order == "<" or bits == 8 or not deflate:
                    values = numbers(bits, sign=1)
                    content = writers.tiff(values, bits, order, sample_format=2, deflate=deflate)
                    yield f"{bits}-bits-signed-{name}", content, values, 0
    for bits in (1, 2, 4, 8, 16):
        values = numbers(bits)
        content = writers.packed(values, bits, "<")
        mirrored = bytes(int(f"{byte:08b}"[::-1], 2) for byte in content)
        yield f"{bits}-bits-mirrored.tif", writers.tiff(values, bits, content=mirrored, t266=2), values, 2**bits - 1
    values = numbers(16) << 15
    yield "unsigned-32-bits.tif", writers.tiff(values, 32), values, 0


def colours() -> Iterator[tuple[str, bytes, np.ndarray, int]]:
    """Pictures of several channels: name, content, what is stored, and which number is white."""
    for bits in (8, 16):
        for kind, channels in ((2, 3), (4, 2), (6, 4)):
            values = numbers(bits, channels)
            yield f"{bits}-bits-{channels}.png", writers.png(values, bits, kind), values, 2**bits - 1
        for order in "<>":
            for deflate in (False, True):
                for channels, extra in ((3, ()), (4, ()), (4, (2,))):
                    values = numbers(bits, channels)
                    content = writers.tiff(values, bits, order, photometric=2, extra=extra, deflate=deflate)
                    yield (
                        f"{bits}-bits-{channels}-{len(extra)}{order == '<'}{deflate}.tif",
                        content,
                        values,
                        2**bits - 1,
                    )
    for white in (34, 255, 1000, 65535):
        values = RNG.integers(0, white + 1, (3, 5, 3))
        yield f"{white}.ppm", writers.pnm(values, white), values, white
    values = numbers(8, 2)
    yield "grey-and-opacity.tif", writers.tiff(values, 8, extra=(2,)), values, 255


GREYS, COLOURS = list(greys()), list(colours())
TELLING = [pytest.param(*case, id=case[0]) for case in GREYS + COLOURS]


def same_of_all_forms(read: Callable[..., np.ndarray], path: Path) -> np.ndarray:
    """What a file gives, which a Pillow image that is opened from it gives as well, again and again."""
    expected = np.asarray(read(path))
    with Image.open(path) as given, Image.open(io.BytesIO(path.read_bytes())) as from_memory:
        for image in (given, given, from_memory):
            found = np.asarray(read(image))
            assert found.dtype == expected.dtype
            assert np.array_equal(found, expected)
    return expected


@pytest.mark.parametrize(("name", "content", "values", "white"), [pytest.param(*case, id=case[0]) for case in GREYS])
def test_maps_are_exact(tmp_path: Path, name: str, content: bytes, values: np.ndarray, white: int) -> None:
    (tmp_path / name).write_bytes(content)
    ids = same_of_all_forms(read_map, tmp_path / name)
    assert ids.dtype.isnative
    assert ids.tolist() == values.tolist()


@pytest.mark.parametrize(("name", "content", "values", "white"), TELLING)
def test_inputs_are_exact(tmp_path: Path, name: str, content: bytes, values: np.ndarray, white: int) -> None:
    (tmp_path / name).write_bytes(content)
    if not white:
        with pytest.raises(DataError, match="input of type int"):
            read_input(tmp_path / name)
        return
    unit = to_unit_range(same_of_all_forms(read_input, tmp_path / name))
    expected = values.reshape(*values.shape[:2], -1) / white * 2 - 1
    np.testing.assert_allclose(unit, expected, rtol=0, atol=1.6e-5)  # half a step of 16 bits


@pytest.mark.parametrize(("name", "content", "values", "white"), TELLING)
def test_photos_keep_their_brightness(
    tmp_path: Path, name: str, content: bytes, values: np.ndarray, white: int
) -> None:
    (tmp_path / name).write_bytes(content)
    if not white:
        with pytest.raises(DataError, match="save it with 8 or 16 bits per channel"):
            read_photo(tmp_path / name)
        return
    photo = same_of_all_forms(read_photo, tmp_path / name)
    expected = values.reshape(*values.shape[:2], -1) * 255 / white
    expected = expected[..., :3] if expected.shape[2] > 2 else expected[..., :1]
    assert photo.shape == (3, 5, 3)
    assert np.abs(photo - expected).max() <= 1


@pytest.mark.parametrize("depth", [np.uint8, np.uint16])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_arrays_equal_their_files(tmp_path: Path, depth: type, channels: int) -> None:
    bits = np.dtype(depth).itemsize * 8
    values = numbers(bits, channels).astype(depth)
    path = tmp_path / "a.png"
    path.write_bytes(writers.png(values, bits, {1: 0, 2: 4, 3: 2, 4: 6}[channels]))
    for swapped in (values, values.astype(values.dtype.newbyteorder()), np.asfortranarray(values)):
        assert np.array_equal(read_input(swapped), read_input(path))
        assert np.array_equal(np.asarray(read_photo(swapped)), np.asarray(read_photo(path)))
        if channels == 1:
            assert np.array_equal(read_map(swapped), read_map(path))


BW = np.array([[0, 0, 0], [255, 255, 255]])
INDEXED: dict[str, tuple[str, bytes, np.ndarray]] = {}
for _bits in (1, 2, 4, 8):
    _values = numbers(_bits)
    _palette = RNG.integers(0, 256, (2**_bits, 3))
    _transparent = writers.png_chunk(b"tRNS", bytes(range(2**_bits)))
    _content = writers.png(_values, _bits, 3, bytes(_palette.ravel().tolist()), _transparent)
    INDEXED[f"{_bits} bits, transparent"] = ("png", _content, _values)
    if _bits != 2:
        INDEXED[f"{_bits} bits of BMP"] = ("bmp", writers.bmp(_values, _bits, _palette), _values)
INDEXED["a palette in TIFF"] = ("tif", writers.tiff(_values, 8, photometric=3), _values)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("case", INDEXED)
def test_palettes_give_indices_or_colours(tmp_path: Path, case: str) -> None:
    ending, content, values = INDEXED[case]
    path = tmp_path / f"a.{ending}"
    path.write_bytes(content)
    assert same_of_all_forms(read_map, path).tolist() == values.tolist()
    with Image.open(path) as image:
        table = np.array(image.getpalette()).reshape(-1, 3)
    assert np.array_equal(same_of_all_forms(read_input, path), table[values])
    assert np.array_equal(same_of_all_forms(read_photo, path), table[values])


GREY, RGBA = numbers(8), numbers(8, 4)
STRIP = {"t257": 6}
UNREADABLE: dict[str, tuple[str, bytes, str]] = {
    "10 bits": ("tif", writers.tiff(numbers(10), 10), "not a PNG, JPEG, TIFF, .* known kind of pixels"),
    "12 bits of big-endian": ("tif", writers.tiff(numbers(12), 12, ">"), "known kind of pixels"),
    "half floats": ("tif", writers.tiff(np.ones((3, 5), "f2"), 16, sample_format=3), "known kind of pixels"),
    "two opacities": ("tif", writers.tiff(numbers(8, 3), 8, extra=(2, 2)), "known kind of pixels"),
    "palette of 16 bits": ("tif", writers.tiff(numbers(16), 16, photometric=3), "known kind of pixels"),
    "rows that are missing": ("tif", writers.tiff(GREY, 8, **STRIP, t278=3), "does not contain all of its pixels"),
    "planes of 16 bits": ("tif", writers.tiff(numbers(16, 3), 16, photometric=2, t284=2), "separate planes for "
                                                                                          "channels"),
    "plain YCbCr": ("tif", writers.tiff(numbers(8, 3), 8, photometric=6, deflate=True), "YCbCr without JPEG"),
    "swapped floats": (
        "tif", writers.tiff(np.ones((3, 5), "f4"), 32, ">", sample_format=3, deflate=True), "in the other byte order"
    ),
    "swapped signs": ("tif", writers.tiff(GREY, 16, ">", sample_format=2, deflate=True), "in the other byte order"),
    "grey palette of 4 bits": ("bmp", writers.bmp(numbers(4), 4, np.arange(16)[:, None].repeat(3, 1)), "few colours"),
    "8 bits of two colours": ("bmp", writers.bmp(numbers(1), 8, BW), "few colours"),
    "beyond its white": ("pgm", writers.pnm(np.array([[0, 35]]), 34), "up to 34, but contains 35"),
    "too short": ("pgm", writers.pnm(GREY, 255)[:-1], "truncated"),
    "a GIF": ("png", b"GIF89a\1\0\1\0\0\0\0,\0\0\0\0\1\0\1\0\0\2\1D\0;", "known kind of pixels"),
}  # fmt: skip


@pytest.mark.parametrize("read", [read_map, read_input])
@pytest.mark.parametrize("case", UNREADABLE)
def test_what_cannot_be_read_as_stored_is_refused(tmp_path: Path, read: Callable[..., object], case: str) -> None:
    ending, content, message = UNREADABLE[case]
    path = tmp_path / f"a.{ending}"
    path.write_bytes(content)
    with pytest.raises(DataError, match=message) as caught:
        read(path)
    assert str(caught.value).startswith(f"{path} ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (writers.tiff(RGBA, 8, photometric=2, extra=(0,)), "4 channels in a TIFF page, not all of which"),
        (writers.tiff(RGBA, 8, photometric=2, extra=(1,)), "multiplied by their opacity"),
        (writers.tiff(numbers(16, 4), 16, photometric=5), "not all bits are read"),
        (writers.tiff(numbers(8, 3), 8, photometric=8), "colours of CIELAB"),
        (b"P2 3 1 255\n0 1 34\n", "numbers stored as text"),
    ],
)
def test_inputs_that_would_lose_something_are_refused(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "a.tif").write_bytes(content)
    with pytest.raises(DataError, match=rf"a\.tif: this input has .*{message}.*; save its array \[H, W, C\] as \.npy"):
        read_input(tmp_path / "a.tif")


def test_pages_of_two_kinds_are_refused(tmp_path: Path) -> None:
    pages = [Image.fromarray(GREY.astype(np.uint8)), Image.fromarray(GREY.astype(np.uint16))]
    pages[0].save(tmp_path / "a.tif", save_all=True, append_images=pages[1:])
    with pytest.raises(DataError, match="its 2 pages differ in mode"):
        read_input(tmp_path / "a.tif")


def test_a_page_that_a_pillow_image_stands_at_is_read_alone(tmp_path: Path) -> None:
    pages = [Image.fromarray((GREY // k).astype(np.uint8)) for k in (1, 2)]
    pages[0].save(tmp_path / "a.tif", save_all=True, append_images=pages[1:])
    with Image.open(tmp_path / "a.tif") as image:
        for _ in range(2):
            assert np.array_equal(read_input(image), np.dstack([GREY, GREY // 2]))
        image.seek(1)
        assert np.array_equal(read_map(image), GREY // 2)
