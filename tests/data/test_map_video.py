"""Videos of maps: exact numbers, or one clear line."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from hdgan.data.map_video import MapVideo
from hdgan.errors import DataError

pytestmark = pytest.mark.video


def maps_of(dtype: str, length: int = 6, size: tuple[int, int] = (16, 32)) -> np.ndarray:
    """Maps [N, H, W] of random numbers."""
    return np.random.default_rng(0).integers(0, np.iinfo(dtype).max + 1, (length, *size)).astype(dtype)


def write_maps(path: Path, maps: np.ndarray, codec: str = "ffv1", pixels: str = "", rate: int = 25) -> Path:
    """Write maps [N, H, W] as a video."""
    import av

    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate)
        stream.height, stream.width = maps.shape[1:]
        stream.pix_fmt = pixels or {1: "gray", 2: "gray16le"}[maps.itemsize]
        for values in maps:
            kind = {1: "gray", 2: "gray16le"}[maps.itemsize]
            frame = av.VideoFrame.from_ndarray(values, format=kind)
            container.mux(stream.encode(frame.reformat(format=stream.pix_fmt)))
        container.mux(stream.encode(None))
    return path


@pytest.mark.parametrize(
    ("name", "codec", "pixels", "dtype"),
    [
        ("x.mkv", "ffv1", "gray", "uint8"),
        ("x.mkv", "ffv1", "gray16le", "uint16"),
        ("x.avi", "ffv1", "gray16le", "uint16"),
        ("x.mov", "png", "gray", "uint8"),
        ("x.mov", "png", "gray16be", "uint16"),
        ("x.avi", "rawvideo", "gray", "uint8"),
    ],
)
def test_numbers_are_those_that_were_stored(name, codec, pixels, dtype, tmp_path):
    maps = maps_of(dtype)
    video = MapVideo(write_maps(tmp_path / name, maps, codec, pixels, rate=30), "label map")
    assert (video.length, video.rate) == (6, Fraction(30))
    frames = list(video.frames(range(6)))
    np.testing.assert_array_equal(frames, maps)
    assert frames[0].dtype == dtype
    assert frames[3].name == f"{tmp_path / name}, frame 3"
    np.testing.assert_array_equal(list(video.frames([1, 4])), maps[[1, 4]])


@pytest.mark.parametrize(
    ("codec", "pixels", "message"),
    [
        ("libx264", "yuv420p", "of instance maps is stored by the codec h264, which does not keep numbers exactly; wr"),
        ("mpeg4", "yuv420p", "stored by the codec mpeg4"),
        ("ffv1", "yuv420p", "has pixels of the kind yuv420p, not gray or gray16le; write it again .*-c:v ffv1"),
    ],
)
def test_what_does_not_keep_numbers_is_refused(codec, pixels, message, tmp_path):
    path = write_maps(tmp_path / "x.mp4" if codec != "ffv1" else tmp_path / "x.mkv", maps_of("uint8"), codec, pixels)
    with pytest.raises(DataError, match=message) as error:
        MapVideo(path, "instance map")
    assert str(error.value).startswith(f"{path}: ")


def test_what_is_no_video_is_refused(tmp_path):
    maps = write_maps(tmp_path / "maps.mkv", maps_of("uint8"))
    (tmp_path / "text.mkv").write_text("hello")
    (tmp_path / "list.mkv").write_text("#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nmaps.mkv\n#EXT-X-ENDLIST\n")
    for name in ("text.mkv", "list.mkv"):
        with pytest.raises(DataError, match=rf"{name} cannot be read as a video \(Invalid .*write it again as FFV1"):
            MapVideo(tmp_path / name, "label map")
    with pytest.raises(DataError, match=r"no.mkv does not exist"):
        MapVideo(tmp_path / "no.mkv", "label map")
    with pytest.raises(DataError, match="is a folder, not a file"):
        MapVideo(tmp_path, "label map")
    assert MapVideo(maps, "label map").length == 6


def test_damage_is_an_error(tmp_path):
    content = bytearray(write_maps(tmp_path / "x.mov", maps_of("uint8"), "png").read_bytes())
    middle = content.index(b"IDAT", content.index(b"IDAT") + 1) + 60
    content[middle : middle + 40] = bytes(40)
    (tmp_path / "x.mov").write_bytes(content)
    video = MapVideo(tmp_path / "x.mov", "label map")
    with pytest.raises(DataError, match=r"x.mov"):
        list(video.frames(range(6)))
    whole = write_maps(tmp_path / "y.mkv", maps_of("uint8"))
    video = MapVideo(whole, "label map")
    whole.write_bytes(whole.read_bytes()[:1500])
    with pytest.raises(DataError, match=r"y.mkv is damaged, it ends before frame \d: write it again"):
        list(video.frames(range(6)))


@pytest.mark.parametrize(
    ("name", "codec", "pixels", "dtype"),
    [
        ("x.mkv", "ffv1", "gray", "uint8"),
        ("x.mov", "png", "gray16be", "uint16"),
        ("x.avi", "rawvideo", "gray", "uint8"),
    ],
)
def test_whatever_the_damage_there_are_maps_or_one_line(name, codec, pixels, dtype, tmp_path):
    content = write_maps(tmp_path / name, maps_of(dtype), codec, pixels).read_bytes()
    rng, refused = np.random.default_rng(1), []
    for k in range(150):
        damaged = bytearray(content[: rng.integers(len(content))] if k % 4 == 0 else content)
        for _ in range(k % 4):
            damaged[rng.integers(min(len(content), 600) if k % 2 else len(content))] = rng.integers(256)
        (tmp_path / name).write_bytes(damaged)
        try:
            video = MapVideo(tmp_path / name, "label map")
            assert all(frame.dtype == dtype for frame in video.frames(range(video.length)))
        except DataError as error:
            refused.append(str(error))
    assert 20 < len(refused) < 150
    assert all(str(tmp_path / name) in line and "\n" not in line for line in refused)


def test_sizes_beyond_the_limit_are_refused_before_they_are_decoded(tmp_path, monkeypatch):
    path = write_maps(tmp_path / "x.mkv", maps_of("uint16", 1, (256, 512)))
    monkeypatch.setenv("HDGAN_MAX_GIB", "0.0001")
    with pytest.raises(DataError, match=r"x.mkv is a video of 512x256 pixels, which takes"):
        MapVideo(path, "label map")
