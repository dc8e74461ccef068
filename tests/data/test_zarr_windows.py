"""Zarr arrays and OME-zarr images by windows."""

from __future__ import annotations

import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hdgan.data import zarr_windows
from hdgan.data.windows import open_image, open_map
from hdgan.errors import DataError

from .test_windows import HEIGHT, IDS8, IDS32, RGB, RNG, WIDTH, check

pytestmark = pytest.mark.slides

Make = Callable[..., Path]
AXES = [{"name": name} for name in "tczyx"]


@pytest.fixture(params=[2, 3], ids=["v2", "v3"])
def version(request: pytest.FixtureRequest) -> int:
    if request.param not in formats():
        pytest.skip("zarr 2 has no format 3")
    return int(request.param)


def formats() -> dict[int, dict[str, int]]:
    """The options that ask zarr for a format of its own and of earlier versions."""
    zarr = pytest.importorskip("zarr")
    return {2: {}} if zarr.__version__ < "3" else {number: {"zarr_format": number} for number in (2, 3)}


@pytest.fixture
def make(tmp_path: Path, version: int) -> Make:
    """Write an array."""
    import zarr

    def to_folder(array: np.ndarray, chunks: tuple[int, ...], name: str = "a.zarr", **options: Any) -> Path:
        path = tmp_path / name
        options |= formats()[version] | {"shape": array.shape, "chunks": chunks, "dtype": array.dtype}
        shutil.rmtree(path, ignore_errors=True)
        stored = (zarr.create_array if hasattr(zarr, "create_array") else zarr.open)(str(path), **options)
        stored[:] = array
        return path

    return to_folder


@pytest.fixture
def make_ome(tmp_path: Path, make: Make, version: int) -> Make:
    """Write an OME-zarr image of one level, after the current or the last version of the format."""
    import zarr

    def to_folder(array: np.ndarray, axes: object = None, **described: Any) -> Path:
        group = zarr.open_group(str(tmp_path / "a.zarr"), mode="w", **formats()[version])
        images = [{"datasets": [{"path": "0"}], **({"axes": axes} if axes else {}), **described}]
        group.attrs.update({"multiscales": images} if version == 2 else {"ome": {"multiscales": images}})
        make(array, (1,) * (array.ndim - 2) + (8, 16), "a.zarr/0")
        return tmp_path / "a.zarr"

    return to_folder


@pytest.mark.parametrize(
    "array", [IDS8, IDS8.astype(">u2") * 257, IDS32, IDS32.astype(np.int64)], ids=lambda array: str(array.dtype)
)
def test_maps(make, array):
    check(open_map(make(array, (8, 16))), array.astype(array.dtype.name if array.dtype.kind == "u" else np.int32))


@pytest.mark.parametrize("chunks", [(8, 16, 3), (8, 16, 1), (100, 7, 2)])
@pytest.mark.parametrize("image", [RGB, RNG.random((HEIGHT, WIDTH, 5), dtype=np.float32)], ids=["uint8", "float32"])
def test_images(make, image, chunks):
    check(open_image(make(image, chunks)), image)


def test_bool_is_one_bit(make):
    bits = IDS8 % 2 == 0
    check(open_map(make(bits, (8, 16))), bits.astype(np.uint8))
    check(open_image(make(bits, (8, 16), "image.zarr")), 255 * bits[..., None].astype(np.uint8))


def test_a_folder_without_the_ending(make):
    check(open_map(make(IDS8, (8, 16), "plain")), IDS8)


def test_named_dimensions(make, version):
    if version == 2:
        pytest.skip("arrays of format 2 have no names of dimensions")
    check(open_image(make(np.moveaxis(RGB, 2, 0), (1, 8, 16), dimension_names=("c", "y", "x"))), RGB)
    check(open_map(make(IDS8, (8, 16), dimension_names=("row", "column"))), IDS8)


@pytest.mark.parametrize("axes", [AXES, list("tczyx"), None], ids=["0.4", "0.3", "0.1"])
def test_an_ome_image(make_ome, axes):
    image = RNG.integers(0, 2**16, (1, 4, 1, HEIGHT, WIDTH), dtype=np.uint16)
    check(open_image(make_ome(image, axes)), np.moveaxis(image[0, :, 0], 0, 2))


def test_an_ome_map(make_ome):
    check(open_map(make_ome(IDS8[None], [{"name": "z"}, {"name": "y"}, {"name": "x"}])), IDS8)


def test_only_the_chunks_of_a_window_are_decoded_and_only_once(make, monkeypatch):
    decoded = []

    class Counting(zarr_windows.TiledImage):
        def _tile(self, row: int, column: int, most: int) -> np.ndarray:
            if (row, column) not in self._decoded:
                decoded.append((row, column))
            return super()._tile(row, column, most)

    monkeypatch.setattr(zarr_windows, "TiledImage", Counting)
    with open_map(make(IDS8, (8, 16))) as windows:
        for left in range(0, 30, 5):
            windows.read(7, 9, left, left + 8)
    assert sorted(decoded) == [(row, column) for row in (0, 1) for column in (0, 1, 2)]


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((2, 1, 3, 4, 4), np.uint8), "has several planes, 2 along t and 3 along z: save the one"),
        (np.zeros((1, 2, 1, 4, 4), np.uint8), "this label map has mode uint8 with 2 channels"),
        (np.zeros((4, 4), np.uint8), r"array of shape \(4, 4\); save"),
    ],
)
def test_ome_images_that_are_no_map(make_ome, array, message):
    with pytest.raises(DataError, match=rf"a\.zarr.*{message}"):
        open_map(make_ome(array, AXES))


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((4, 4), np.float32), "this label map has mode float32"),
        (np.zeros((4, 4, 2), np.uint8), "this label map has mode uint8 with 2 channels"),
        (np.zeros((4, 4, 4, 4), np.uint8), r"array of shape \(4, 4, 4, 4\); save \[H, W\]"),
        (np.zeros(4, np.uint8), r"array of shape \(4,\); save \[H, W\]"),
    ],
)
def test_arrays_that_are_no_map(make, array, message):
    with pytest.raises(DataError, match=rf"a\.zarr: {message}"):
        open_map(make(array, (2,) * array.ndim))


def test_a_group_without_an_image(tmp_path, make_ome):
    path = make_ome(IDS8, list("yx"))
    for name in (".zattrs", "zarr.json"):
        file = path / name
        if file.is_file():
            file.write_text(json.dumps({"zarr_format": 3, "node_type": "group"} if name == "zarr.json" else {}))
    with pytest.raises(DataError, match="a zarr group without an OME-zarr image: give the folder of an array in it"):
        open_map(path)


def test_a_level_outside_of_the_folder(make, make_ome):
    make(IDS8, (8, 16), "secret")
    with pytest.raises(DataError, match=r"names an array '\.\./secret' outside of its folder"):
        open_map(make_ome(IDS8, list("yx"), datasets=[{"path": "../secret"}]))


def test_codecs_that_may_change_ids_are_refused(tmp_path, version):
    zarr, numcodecs = pytest.importorskip("zarr"), pytest.importorskip("numcodecs")
    if version == 3:
        pytest.skip("format 3 has no such codec of its own")
    zarr.open(
        str(tmp_path / "a.zarr"), mode="w", shape=(4, 4), chunks=(2, 2), dtype="u1", **formats()[2],
        filters=[numcodecs.FixedScaleOffset(0, 1, "u1", "u1")],
    )  # fmt: skip
    with pytest.raises(DataError, match="this label map is stored by the zarr codec fixedscaleoffset, which may not"):
        open_map(tmp_path / "a.zarr")
    check(open_image(tmp_path / "a.zarr"), np.zeros((4, 4, 1), np.uint8))


def test_shards(make, version):
    if version == 2:
        pytest.skip("format 2 has no shards")
    check(open_map(make(IDS8, (4, 8), shards=(16, 16))), IDS8)


def test_a_chunk_beyond_the_limit(make, monkeypatch):
    ids = np.tile(IDS8, (6, 6))
    path = make(ids, ids.shape)
    monkeypatch.setenv("HDGAN_MAX_GIB", str(50_000 / 2**30))
    with pytest.raises(DataError, match=r"a\.zarr is a zarr array in chunks of 270x402, .* more than the limit"):
        open_map(path)
    check(open_map(make(ids, (16, 16))), ids)


def test_damage(make, tmp_path, version):
    uncompressed = {"compressors" if "zarr_format" in formats()[version] else "compressor": None}
    path = make(IDS8, IDS8.shape, **uncompressed)
    chunk = max((file for file in path.rglob("*") if file.is_file()), key=lambda file: file.stat().st_size)
    chunk.write_bytes(chunk.read_bytes()[:50])
    with open_map(path) as windows, pytest.raises(DataError, match=r"a\.zarr cannot be read .*restore it"):
        windows.read(0, 1, 0, 1)
    for name in (".zarray", "zarr.json"):
        if (path / name).is_file():
            (path / name).write_text("{")
    with pytest.raises(DataError, match=r"a\.zarr/(\.zarray|zarr\.json) is damaged .*write it again"):
        open_map(path)
    for name in (".zarray", "zarr.json"):
        (path / name).write_text("{}")
    with pytest.raises(DataError, match=r"a\.zarr has metadata of two formats: write it again"):
        open_map(path)
    (tmp_path / "empty.zarr").mkdir()
    with pytest.raises(DataError, match=r"empty\.zarr has no metadata of an array: .*give the folder of a zarr array"):
        open_map(tmp_path / "empty.zarr")


class _Trap:
    """What runs code where it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.mark,)


@pytest.mark.parametrize("grouped", [False, True])
def test_code_in_an_array_is_not_run(tmp_path, version, grouped):
    """Neither if its own metadata name the codec that would run it, nor those that its group has consolidated."""
    if version == 3:
        pytest.skip("format 3 has no codec of pickles")
    zarr = pytest.importorskip("zarr")
    path, mark = tmp_path / "a.zarr", tmp_path / "mark"
    folder = path / "0" if grouped else path
    if grouped:
        group = zarr.open_group(str(path), mode="w", **formats()[2])
        group.attrs["multiscales"] = [{"datasets": [{"path": "0"}], "axes": ["y", "x"]}]
    zarr.open(str(folder), mode="w", shape=(4, 4), chunks=(4, 4), dtype="u1", compressor=None, **formats()[2])
    (folder / "0.0").write_bytes(pickle.dumps(_Trap(mark)))
    metadata = json.loads((folder / ".zarray").read_text())
    trapped = metadata | {"filters": [{"id": "pickle"}]}
    if grouped:
        entries = {
            ".zgroup": {"zarr_format": 2},
            ".zattrs": json.loads((path / ".zattrs").read_text()),
            "0/.zarray": trapped,
        }
        (path / ".zmetadata").write_text(json.dumps({"metadata": entries, "zarr_consolidated_format": 1}))
    else:
        (folder / ".zarray").write_text(json.dumps(trapped))
    for opener in (open_map, open_image):
        with pytest.raises(
            DataError, match=r"a\.zarr (is stored by the zarr codec 'pickle', which is not read|cannot be)"
        ):
            opener(path).read(0, 4, 0, 4)
    assert not mark.exists()
