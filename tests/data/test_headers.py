"""What headers tell agrees with what decoding gives."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from hdgan.data import read_input, read_map, read_photo
from hdgan.data.headers import read_header, require_input, require_photo
from hdgan.errors import DataError

GREY = np.arange(6, dtype=np.uint8).reshape(2, 3)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16", "F"])
def test_channels_of_an_input(tmp_path, mode):
    path = tmp_path / ("a.tif" if mode in ("CMYK", "F") else "a.png")
    Image.fromarray(GREY).convert(mode).save(path)
    assert read_header(path).input_channels == read_input(path).shape[2]


def test_channels_of_pages_and_arrays(tmp_path, save):
    page = Image.fromarray(GREY)
    page.save(tmp_path / "a.tif", save_all=True, append_images=[page, page])
    assert read_header(tmp_path / "a.tif").input_channels == read_input(tmp_path / "a.tif").shape[2] == 3
    assert read_header(save("a.npy", np.zeros((2, 3, 11), np.float32))).input_channels == 11


@pytest.mark.parametrize(
    ("require", "read", "name", "array"),
    [
        (require_photo, read_photo, "a.npy", GREY),
        (require_photo, read_photo, "a.tif", GREY.astype(np.float32)),
        (require_photo, read_photo, "a.tif", GREY.astype(np.int32)),
        (require_input, read_input, "a.npy", GREY.astype(np.int64)),
        (require_input, read_input, "a.tif", GREY.astype(np.int32)),
    ],
)
def test_headers_refuse_what_decoding_refuses(save, require, read, name, array):
    path = save(name, array)
    with pytest.raises(DataError) as decoded:
        read(path)
    with pytest.raises(DataError) as told:
        require(path, read_header(path))
    assert str(told.value) == str(decoded.value)


@pytest.mark.parametrize(("most", "ids"), [(255, GREY), (65535, GREY.astype(np.uint16) * 10_000)])
def test_map_in_pgm_is_exact(tmp_path, most, ids):
    (tmp_path / "a.pgm").write_bytes(b"P5 3 2 %d\n" % most + ids.astype(ids.dtype.newbyteorder(">")).tobytes())
    assert (read_map(tmp_path / "a.pgm") == ids).all()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"P2 3 1 255\n0 1 34\n", "a text PGM"),
        (b"P4 8 1\n\x0f", "a PBM, which is read inverted"),
        (b"P6 1 1 255\n\x00\x01\x02", "mode RGB with 3 channel"),
    ],
)
def test_map_in_pnm_that_is_not_read_as_stored_is_refused(tmp_path, content, message):
    (tmp_path / "a.pgm").write_bytes(content)
    with pytest.raises(DataError, match=message):
        read_map(tmp_path / "a.pgm")


def test_map_in_jpeg_compressed_tiff_is_refused(save):
    with pytest.raises(DataError, match="does not keep ids exactly"):
        read_map(save("a.tif", GREY, compression="jpeg"))
