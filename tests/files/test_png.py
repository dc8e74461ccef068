"""PNG files that are written row by row hold every number."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator

import numpy as np
import pytest
from PIL import Image

from hdgan.data import read_input
from hdgan.data.headers import verify_checksums
from hdgan.errors import HdganError
from hdgan.files.png import write_png

RNG = np.random.default_rng(0)


def in_blocks(image: np.ndarray, *lengths: int) -> Iterator[np.ndarray]:
    """The rows of an image in blocks of these lengths, and a last one."""
    yield from np.split(image, np.cumsum(lengths))


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("lengths", [(), (1, 1, 20), (0, 7)])
def test_every_number_can_be_read_back(tmp_path, dtype, channels, lengths):
    image = RNG.integers(0, np.iinfo(dtype).max, (31, 17, channels), dtype=dtype, endpoint=True)
    write_png(tmp_path / "a.png", in_blocks(image, *lengths), 31, 17, channels, dtype)
    assert np.array_equal(read_input(tmp_path / "a.png"), image)
    verify_checksums(tmp_path / "a.png")


def test_many_chunks(tmp_path):
    image = RNG.integers(0, 256, (1100, 700, 3), dtype=np.uint8)
    write_png(tmp_path / "a.png", in_blocks(image, 1000), *image.shape, "uint8")
    assert (tmp_path / "a.png").read_bytes().count(b"IDAT") > 1
    assert np.array_equal(np.asarray(Image.open(tmp_path / "a.png")), image)


def test_memory_does_not_grow_with_the_image(tmp_path):
    row = RNG.integers(0, 256, (1, 1024, 3), dtype=np.uint8)
    peaks = []
    for height in (1024, 8192):
        tracemalloc.start()
        write_png(tmp_path / "a.png", (row for _ in range(height)), height, 1024, 3, "uint8")
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.2 * peaks[0] < 12 * 2**20


@pytest.mark.parametrize("n", [3, 5])
def test_a_wrong_number_of_rows_leaves_the_old_file(tmp_path, n):
    (tmp_path / "a.png").write_bytes(b"old")
    with pytest.raises(ValueError, match="rows for an image of 4"):
        write_png(tmp_path / "a.png", [np.zeros((n, 2, 1), np.uint8)], 4, 2, 1, "uint8")
    assert [file.name for file in tmp_path.iterdir()] == ["a.png"]
    assert (tmp_path / "a.png").read_bytes() == b"old"


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(HdganError, match="cannot write"):
        write_png(tmp_path / "file" / "a.png", [np.zeros((1, 1, 1), np.uint8)], 1, 1, 1, "uint8")
