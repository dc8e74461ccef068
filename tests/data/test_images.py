from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from hdgan.data.headers import read_header
from hdgan.data.images import (
    class_of,
    from_unit_range,
    read_input,
    read_map,
    read_photo,
    read_stored_photo,
    to_photo,
    to_unit_range,
)
from hdgan.errors import DataError
from hdgan.files.images import image_ending, save_image

from . import writers

IDS8 = np.array([[0, 1, 200], [7, 33, 255]], dtype=np.uint8)
IDS16 = np.array([[0, 26004, 65535], [7, 33000, 256]], dtype=np.uint16)
IDS32 = np.array([[0, 65536, 2**31 - 1], [7, 70001, 1_000_003]], dtype=np.int32)


@pytest.mark.parametrize(
    ("name", "ids"),
    [
        ("png8.png", IDS8),
        ("png16.png", IDS16),
        ("tiff8.tif", IDS8),
        ("tiff16.tiff", IDS16),
        ("tiff32.tif", IDS32),
        ("bmp.bmp", IDS8),
        ("array64.npy", IDS32.astype(np.int64)),
        ("array16.npy", IDS16),
        ("column.npy", IDS32[..., None]),
    ],
)
def test_map_is_exact(save, name, ids):
    values = read_map(save(name, ids))
    assert values.shape == (2, 3)
    assert (values.astype(np.int64) == ids.reshape(2, 3)).all()


def test_bool_is_an_image_of_one_bit(save, tmp_path):
    bits = np.eye(3, dtype=bool)[:2]
    np.save(tmp_path / "a.npy", bits)
    forms = [save("a.png", bits), tmp_path / "a.npy", Image.fromarray(bits), bits, bits[..., None]]
    for form in forms:
        for kind in ("label map", "instance map"):
            values = read_map(form, kind)
            assert values.dtype == np.uint8
            assert (values == bits).all()
        stretched = [read_input(form), read_stored_photo(form)]
        if form is not forms[1]:  # a photo is an image, not .npy
            stretched.append(np.asarray(read_photo(form)))
        for values in stretched:
            assert values.dtype == np.uint8
            assert (values == 255 * bits[..., None]).all()


@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_the_colours_of_an_instance_map_are_no_classes(tmp_path, mode):
    path = tmp_path / "a.png"
    Image.new(mode, (3, 2)).save(path)
    with pytest.raises(DataError) as error:
        read_map(path, "instance map")
    said = str(error.value)
    assert f"this instance map has mode {mode}" in said
    assert "R + 256 * G + 65536 * B, as in COCO panoptic, which `hdgan data convert` reads; save one channel" in said
    assert said.endswith("or train without instance maps (model.instances=False)")
    assert "class" not in said
    with pytest.raises(
        DataError, match=r"if each colour is a class, `hdgan data convert` writes .* or train without la"
    ):
        read_map(path)


@pytest.mark.parametrize("compression", ["tiff_lzw", "tiff_adobe_deflate", "packbits"])
def test_map_in_compressed_tiff_is_exact(save, compression):
    assert (read_map(save("a.tif", IDS32, compression=compression)) == IDS32).all()


def test_palette_map_gives_indices(tmp_path):
    picture = Image.fromarray(IDS8)
    picture.putpalette([255 - v // 3 for v in range(768)])
    picture.save(tmp_path / "p.png")
    assert read_header(tmp_path / "p.png").mode == "P"
    assert (read_map(tmp_path / "p.png") == IDS8).all()


def test_map_ignores_exif_orientation(save):
    exif = Image.Exif()
    exif[274] = 6
    assert (read_map(save("a.png", IDS8, exif=exif)) == IDS8).all()


def test_map_with_tiff_orientation_is_refused(save):
    path = save("a.tif", IDS8, tiffinfo={274: 6})
    with pytest.raises(DataError, match=r"a\.tif: this label map has TIFF orientation 6; save it without"):
        read_map(path)


@pytest.mark.parametrize(
    ("name", "array", "message"),
    [
        ("rgb.png", np.zeros((2, 3, 3), np.uint8), "mode RGB with 3 channel.*save one channel of integers"),
        ("rgba.png", np.zeros((2, 3, 4), np.uint8), "mode RGBA with 4 channel"),
        ("lossy.jpg", IDS8, "JPEG, which does not keep ids exactly; create it again as PNG"),
        ("lossy.webp", np.zeros((2, 3, 3), np.uint8), "WEBP, which may be lossy; create it again as PNG"),
        ("float.tif", np.zeros((2, 3), np.float32), "mode F with 1 channel"),
        ("float.npy", np.zeros((2, 3), np.float32), "mode float32 with 1 channel"),
        ("two.npy", np.zeros((2, 3, 2), np.uint8), "mode uint8 with 2 channel"),
        ("line.npy", np.zeros(4, np.uint8), r"shape \(4,\); save \[H, W\]"),
        ("wide.npy", np.array([[2**31]]), "ids from 2147483648 to 2147483648 do not fit"),
    ],
)
def test_map_that_cannot_hold_ids_is_refused(save, name, array, message):
    path = save(name, array)
    with pytest.raises(DataError, match=message) as error:
        read_map(path, "instance map")
    assert str(path) in str(error.value)


@pytest.mark.parametrize("ids", [IDS8, IDS16], ids=["8 bits", "16 bits"])
def test_map_in_tiff_that_stores_white_as_zero_is_refused(tmp_path, ids):
    path = tmp_path / "a.tif"
    path.write_bytes(writers.tiff(ids, ids.itemsize * 8, photometric=0))
    with pytest.raises(DataError, match=r"a\.tif: this label map .*inverted; save it as BlackIsZero or PNG"):
        read_map(path)


@pytest.mark.parametrize("read", [read_photo, read_input])
def test_picture_in_tiff_that_stores_white_as_zero_is_no_negative(tmp_path, read):
    path = tmp_path / "a.tif"
    path.write_bytes(writers.tiff(IDS16, 16, photometric=0))
    with pytest.raises(
        DataError, match=r"a\.tif: this \w+ is a TIFF of mode I;16 that stores white as 0 .*negative; save"
    ):
        read(path)
    path.write_bytes(writers.tiff(IDS8, 8, photometric=0))
    assert (np.asarray(read(path))[..., 0] == 255 - IDS8).all()


def test_map_is_not_copied_after_decoding(save):
    assert not read_map(save("a.png", IDS8)).flags.owndata


def test_unsigned_ids_beyond_int32_are_refused(tmp_path):
    path = tmp_path / "a.tif"
    path.write_bytes(writers.tiff(np.array([[3_000_000_000]]), 32))
    with pytest.raises(DataError, match="3000000000 do not fit into signed 32-bit integers"):
        read_map(path)


@pytest.mark.parametrize("read", [read_map, read_input, read_photo])
@pytest.mark.parametrize("tags", [{32997: 5}, {32998: 5}, {270: "ImageJ=1.54f\nimages=5\nslices=5\n"}])
def test_a_volume_is_refused(tmp_path, read, tags):
    """Pillow reads its first plane."""
    Image.fromarray(np.zeros((4, 6), np.uint8)).save(tmp_path / "a.tif", tiffinfo=tags)
    with pytest.raises(DataError, match=r"a\.tif is a TIFF of 5 planes behind each other, which cannot be read"):
        read(tmp_path / "a.tif")


def test_a_stack_of_imagej_with_all_its_pages_is_an_input(tmp_path):
    pages = [Image.fromarray(np.full((4, 6), k, np.uint8)) for k in range(3)]
    about = {270: "ImageJ=1.54f\nimages=3\n"}
    pages[0].save(tmp_path / "a.tif", save_all=True, append_images=pages[1:], tiffinfo=about)
    assert read_input(tmp_path / "a.tif")[0, 0].tolist() == [0, 1, 2]


def test_map_with_pages_is_refused(tmp_path):
    page = Image.fromarray(IDS8)
    page.save(tmp_path / "a.tif", save_all=True, append_images=[page])
    with pytest.raises(DataError, match="1 channel and 2 pages"):
        read_map(tmp_path / "a.tif")


@pytest.mark.parametrize("read", [read_map, read_photo, read_input, read_header])
@pytest.mark.parametrize("name", ["a.png", "a.npy"])
def test_missing_file_is_named(tmp_path, read, name):
    if name == "a.npy" and read is read_photo:
        name = "a.tif"
    with pytest.raises(DataError, match=r"does not exist"):
        read(tmp_path / name)


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.tif", "a.webp", "a.npy"])
@pytest.mark.parametrize("keep", [0.0, 0.02, 0.6])
def test_truncated_file_is_named_with_remedy(save, name, keep):
    path = save(name, np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8))
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * keep)])
    with pytest.raises(DataError, match=r"cannot be read .*restore it from its source") as error:
        read_input(path)
    assert str(error.value).count(str(path)) == 1
    assert "\n" not in str(error.value)


def test_text_in_a_picture_file_is_refused(tmp_path):
    (tmp_path / "a.png").write_text("version https://git-lfs.github.com/spec/v1")
    with pytest.raises(DataError, match="cannot be read"):
        read_photo(tmp_path / "a.png")


@pytest.mark.parametrize(
    ("name", "array", "expected"),
    [
        ("grey.png", IDS8, np.stack([IDS8] * 3, axis=2)),
        ("deep.png", IDS16, np.stack([IDS16 // 257] * 3, axis=2)),
        ("rgba.png", np.dstack([IDS8, IDS8, IDS8, IDS8]), np.stack([IDS8] * 3, axis=2)),
        ("rgb.tif", np.dstack([IDS8, IDS8, IDS8]), np.stack([IDS8] * 3, axis=2)),
    ],
)
def test_photo_is_rgb(save, name, array, expected):
    assert (np.asarray(read_photo(save(name, array))) == expected).all()


def test_palette_photo_gives_colours(tmp_path):
    picture = Image.fromarray(np.array([[0, 1]], np.uint8))
    picture.putpalette([9, 8, 7, 200, 100, 50])
    picture.save(tmp_path / "p.png")
    assert np.asarray(read_photo(tmp_path / "p.png")).tolist() == [[[9, 8, 7], [200, 100, 50]]]


@pytest.mark.parametrize("name", ["a.tif", "a.npy"])
def test_float_photo_is_refused(save, name):
    with pytest.raises(DataError, match="photo"):
        read_photo(save(name, np.zeros((2, 3), np.float32)))


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.tif"])
def test_photo_is_turned_upright(save, name):
    exif = Image.Exif()
    exif[274] = 6
    picture = np.zeros((8, 16, 3), np.uint8)
    picture[:, 8:] = 255
    options = {"tiffinfo": {274: 6}} if name == "a.tif" else {"exif": exif}
    path = save(name, picture, **options)
    assert read_header(path).upright == (8, 16)
    for size in (None, (8, 16)):
        photo = np.asarray(read_photo(path, size))
        assert photo.shape == (16, 8, 3)
        assert photo[:7].max() < 10
        assert photo[9:].min() > 245


def test_photo_keeps_stored_pixels_where_only_those_have_the_size_of_the_map(save):
    exif = Image.Exif()
    exif[274] = 6
    picture = np.random.default_rng(0).integers(0, 255, (8, 16, 3), dtype=np.uint8)
    assert (np.asarray(read_photo(save("a.png", picture, exif=exif), (16, 8))) == picture).all()


@pytest.mark.parametrize(
    ("name", "array"),
    [
        ("grey.png", IDS8),
        ("deep.png", IDS16),
        ("rgb.png", np.dstack([IDS8, IDS8 // 2, IDS8 // 3])),
        ("rgba.png", np.dstack([IDS8, IDS8 // 2, IDS8 // 3, IDS8 // 4])),
        ("float.tif", IDS8.astype(np.float32) / 7),
        ("eleven.npy", np.arange(66, dtype=np.float32).reshape(2, 3, 11)),
        ("half.npy", np.arange(6, dtype=np.float16).reshape(2, 3)),
        ("deep.npy", np.dstack([IDS16, IDS16 // 2])),
    ],
)
def test_input_keeps_its_channels(save, name, array):
    values = read_input(save(name, array))
    assert values.ndim == 3
    assert values.dtype in (np.uint8, np.uint16, np.float32)
    assert (values == (array if array.ndim == 3 else array[..., None])).all()


def test_input_stacks_pages_as_channels(tmp_path):
    pages = [Image.fromarray(IDS16 // k) for k in (1, 2, 3)]
    pages[0].save(tmp_path / "a.tif", save_all=True, append_images=pages[1:])
    values = read_input(tmp_path / "a.tif")
    assert (values == np.dstack([IDS16, IDS16 // 2, IDS16 // 3])).all()


def test_input_with_pages_of_two_sizes_is_refused(tmp_path):
    Image.fromarray(IDS8).save(tmp_path / "a.tif", save_all=True, append_images=[Image.fromarray(IDS8[:1])])
    with pytest.raises(DataError, match="pages differ in size"):
        read_input(tmp_path / "a.tif")


def test_input_of_many_channels_in_one_page_is_refused(tmp_path):
    path = tmp_path / "a.tif"
    path.write_bytes(writers.tiff(np.zeros((2, 3, 5), np.uint8), 8, extra=(0, 0, 0, 0)))
    with pytest.raises(DataError, match=r"a\.tif"):
        read_input(path)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.array([[1.0, np.nan]], np.float32), "nan or inf"),
        (np.zeros((2, 3), np.int64), "type int64; save uint8, uint16, or float32"),
    ],
)
def test_input_that_cannot_be_used_is_refused(save, array, message):
    with pytest.raises(DataError, match=message):
        read_input(save("a.npy", array))


def test_unit_range():
    assert to_unit_range(np.array([0, 255], np.uint8)).tolist() == [-1, 1]
    assert to_unit_range(np.array([0, 65535], np.uint16)).tolist() == [-1, 1]
    assert to_unit_range(np.array([-3, 7.5], np.float32)).tolist() == [-3, 7.5]


def test_array_as_photo():
    deep = np.dstack([IDS16, IDS16, IDS16, IDS16])
    assert (np.asarray(to_photo(Path("a"), deep)) == deep[..., :3] >> 8).all()
    assert (np.asarray(to_photo(Path("a"), IDS8[..., None])) == IDS8[..., None]).all()
    with pytest.raises(DataError, match="type float32"):
        to_photo(Path("a.npy"), np.zeros((1, 1, 3), np.float32))


def test_large_picture_is_read_and_the_guard_restored(save, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 4)
    path = save("a.png", np.zeros((40, 40), np.uint8))
    assert read_map(path).shape == (40, 40)
    assert Image.MAX_IMAGE_PIXELS == 4


@pytest.mark.parametrize("make", [np.array, torch.tensor])
def test_class_of(make):
    ids = make([0, 7, 999, 1000, 26004, 33000, -1])
    assert class_of(ids, 1000).tolist() == [0, 7, 999, 1, 26, 33, -1]
    assert class_of(make([3, 25]), 10).tolist() == [3, 2]


def test_class_of_narrow_types():
    assert class_of(np.array([5, 255], np.uint8), 1000).tolist() == [5, 255]
    assert class_of(np.array([5, 65535], np.uint16), 1000).tolist() == [5, 65]
    assert class_of(torch.tensor([5, 255], dtype=torch.uint8), 1000).tolist() == [5, 255]


@pytest.mark.parametrize("dtype", ["uint16", "uint32", "uint64"])
def test_class_of_wide_unsigned_types(dtype):
    ids = np.array([5, 26004], dtype)
    for classes in (class_of(ids, 1000), class_of(torch.from_numpy(ids), 1000)):
        assert classes.tolist() == [5, 26]
        assert str(classes.dtype).removeprefix("torch.") == ("int32" if dtype == "uint16" else "int64")


DEEP = np.array([[[0, 1, 40000, 65535, 7]] * 3] * 2, np.uint16)


@pytest.mark.parametrize(
    ("name", "array"),
    [
        ("grey.png", IDS8[..., None]),
        ("deep.png", IDS16[..., None]),
        ("rgba.png", DEEP[..., :4].astype(np.uint8)),
        ("five.npy", DEEP),
        ("floats.npy", (DEEP / 32767.5 - 1).astype(np.float32)),
        ("floats.tif", np.array([[[-1.0], [0.25], [1.0]]] * 2, np.float32)),
    ],
)
def test_stored_photo_keeps_channels_and_bits(save, name, array):
    path = save(name, array if name.endswith("npy") or array.shape[2] > 1 else array[..., 0])
    values = read_stored_photo(path)
    assert values.dtype == array.dtype
    assert np.array_equal(values, array)
    kind = read_header(path).kind
    assert kind == (array.shape[2], array.dtype)
    assert str(kind).startswith(f"{array.shape[2]} channel")


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("depth", ["uint8", "uint16", "float32"])
def test_headers_of_written_images_say_what_is_read(tmp_path, channels, depth):
    """Pillow opens a PNG of grey and opacity of 16 bits as one of four channels."""
    path = tmp_path / f"photo{image_ending(channels, depth)}"
    save_image(np.zeros((2, 3, channels), depth), path)
    assert read_header(path).kind == (channels, depth)
    assert read_stored_photo(path).shape == (2, 3, channels)


def test_stored_photo_is_turned_like_any_photo(save):
    stored = np.arange(6, dtype=np.uint8).reshape(2, 3)
    exif = Image.Exif()
    exif[274] = 6
    path = save("turned.png", stored, exif=exif)
    for size in (None, (2, 3), (3, 2)):
        assert np.array_equal(read_stored_photo(path, size)[..., 0], np.asarray(read_photo(path, size))[..., 0])


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.array([[-1.0, 1.5]], np.float32), r"has values from -1 to 1\.5; scale them to \[-1, 1\]"),
        (np.array([[np.nan, 0]], np.float32), "photo contains nan or inf"),
        (IDS32, "photo of type int32; save uint8, uint16, or float32"),
    ],
)
def test_stored_photo_that_cannot_be_used_is_refused(save, array, message):
    path = save("photo.npy", array)
    with pytest.raises(DataError, match=rf"photo\.npy: .*{message}"):
        read_stored_photo(path)


def test_rgb_photo_of_floats_names_the_option(save):
    path = save("photo.tif", np.zeros((2, 3), np.float32))
    with pytest.raises(DataError, match=r"mode F; .* or set data\.photo stored"):
        read_photo(path)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_unit_range_and_back(dtype):
    values = np.linspace(-1, 1, 65536, dtype=np.float32) if dtype == "float32" else np.arange(np.iinfo(dtype).max + 1)
    values = values.astype(dtype).reshape(-1, 64, 2)
    unit = torch.from_numpy(to_unit_range(values).transpose(2, 0, 1).copy())
    assert (unit.min(), unit.max()) == (-1, 1)
    back = from_unit_range(unit, dtype)
    assert back.dtype == dtype
    assert np.array_equal(back, values)


def test_values_outside_of_the_range_are_limited():
    image = torch.tensor([-3.0, 3.0]).view(1, 1, 2)
    assert from_unit_range(image, "uint8").ravel().tolist() == [0, 255]
    assert from_unit_range(image, "uint16").ravel().tolist() == [0, 65535]
    assert from_unit_range(image, "float32").ravel().tolist() == [-1, 1]
