"""Videos: their colours, sizes and times, and parts that are joined."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from hdgan.errors import ConfigError, HdganError
from hdgan.files.video import Encoding, count_frames, encoding_video, has_video, join_videos, require_encoder

RATE = Fraction(25)


def smooth(height: int, width: int, number: int = 0) -> np.ndarray:
    """An image [H, W, 3] uint8 of strong colours, whose loss at half the resolution is small."""
    y, x = np.mgrid[:height, :width] / 60
    waves = (np.sin(x + number / 3), np.cos(y + 1), np.sin(x - y))
    return np.stack([128 + 110 * wave for wave in waves], axis=2).astype(np.uint8)


def write(path: Path, frames: list[np.ndarray], rate: Fraction = RATE, crf: int = 12) -> Path:
    height, width, _ = frames[0].shape
    with encoding_video(path, Encoding(width, height, rate, crf)) as add:
        for frame in frames:
            add(frame)
    return path


def decoded(planes: np.ndarray, red: float, blue: float) -> np.ndarray:
    """4:2:0 of limited range [H * 3/2, W] as RGB [H, W, 3], by the definition of a matrix with these two weights."""
    height, width = len(planes) * 2 // 3, planes.shape[1]
    luma = (planes[:height] - 16.0) / 219
    chroma = planes[height:].reshape(2, height // 2, width // 2)
    b, r = ((plane.repeat(2, 0).repeat(2, 1) - 128.0) / 224 for plane in chroma)
    r, b = luma + 2 * (1 - red) * r, luma + 2 * (1 - blue) * b
    green = (luma - red * r - blue * b) / (1 - red - blue)
    return np.stack([r, green, b], axis=2).clip(0, 1) * 255


@pytest.mark.video
@pytest.mark.parametrize(
    ("size", "matrix", "weights"), [((64, 96), 6, (0.299, 0.114)), ((720, 64), 1, (0.2126, 0.0722))]
)
def test_colours_are_those_that_the_tags_say(size, matrix, weights, tmp_path):
    import av

    images = [smooth(*size, number) for number in range(3)]
    with av.open(str(write(tmp_path / "x.mp4", images))) as container:
        context = container.streams.video[0].codec_context
        assert (context.name, context.pix_fmt) == ("h264", "yuv420p")
        assert (int(context.colorspace), int(context.color_range)) == (matrix, 1)
        assert (int(context.color_primaries), int(context.color_trc)) == (1, 13)
        frames = [frame.to_ndarray() for frame in container.decode(video=0)]
    for frame, image in zip(frames, images, strict=True):
        assert np.abs(decoded(frame, *weights) - image).mean() < 2
        other = (0.2126, 0.0722) if matrix == 6 else (0.299, 0.114)
        assert np.abs(decoded(frame, *other) - image).mean() > 4


@pytest.mark.video
def test_odd_sides_repeat_the_last_row_and_column(tmp_path):
    import av

    image = smooth(33, 47)
    with av.open(str(write(tmp_path / "x.mp4", [image], crf=4))) as container:
        (frame,) = container.decode(video=0)
        made = frame.to_ndarray(format="rgb24").astype(int)
    assert made.shape == (34, 48, 3)
    np.testing.assert_allclose(made[:33, :47], image, atol=14)
    np.testing.assert_allclose(made[33, :47], image[32], atol=14)
    np.testing.assert_allclose(made[:33, 47], image[:, 46], atol=14)


@pytest.mark.video
@pytest.mark.parametrize("rate", [Fraction(25), Fraction(30000, 1001), Fraction(1, 2), Fraction(2997, 125)])
@pytest.mark.parametrize("lengths", [(1,), (5,), (4, 1, 2, 7), (1, 1, 1)])
def test_joined_parts_have_all_frames_at_their_times(lengths, rate, tmp_path):
    import av

    images = [smooth(16, 32, 4 * number) for number in range(sum(lengths))]
    parts, rest = [], list(images)
    for number, length in enumerate(lengths):
        parts.append(write(tmp_path / f"{number}.mp4", rest[:length], rate))
        assert count_frames(parts[-1]) == length
        rest = rest[length:]
    join_videos(parts, tmp_path / "x.mp4", rate)
    with av.open(str(tmp_path / "x.mp4")) as container:
        stream = container.streams.video[0]
        assert (stream.average_rate, stream.frames) == (rate, len(images))
        assert stream.duration * stream.time_base == len(images) / rate
        times, frames = zip(
            *((frame.pts * frame.time_base, frame.to_ndarray(format="rgb24")) for frame in container.decode(stream)),
            strict=True,
        )
    assert times == tuple(k / rate for k in range(len(images)))
    for frame, image in zip(frames, images, strict=True):
        assert np.abs(frame.astype(int) - image).mean() < 4
    content = (tmp_path / "x.mp4").read_bytes()
    assert content.index(b"moov") < content.index(b"mdat")  # which a player needs first


@pytest.mark.video
def test_a_frame_of_another_size_is_a_bug(tmp_path):
    with (
        encoding_video(tmp_path / "x.mp4", Encoding(32, 16, RATE, 20)) as add,
        pytest.raises(ValueError, match="a frame of shape"),
    ):
        add(smooth(16, 16))


@pytest.mark.video
def test_a_damaged_part_is_named(tmp_path):
    (tmp_path / "x.mp4").write_bytes(b"half a video")
    with pytest.raises(HdganError, match=r"x\.mp4 is damaged \(.*\): delete it, so that it is made again"):
        count_frames(tmp_path / "x.mp4")


@pytest.mark.video
def test_a_full_disk_is_an_error_of_the_system(tmp_path):
    with pytest.raises(OSError, match="No space left"):
        write(Path("/dev/full"), [smooth(16, 32)])


@pytest.mark.video
def test_pyav_without_x264(monkeypatch):
    import av

    require_encoder()
    monkeypatch.setattr(av, "codecs_available", {"h264"})
    with pytest.raises(ConfigError, match="this PyAV has no libx264"):
        require_encoder()


def test_without_pyav_the_command_that_installs_it_is_named(monkeypatch):
    monkeypatch.setattr("hdgan.files.video.find_spec", lambda name: None)
    assert not has_video()
    with pytest.raises(ConfigError, match=r'^writing a video needs PyAV: .*`pip install -e "\.\[video\]"`'):
        require_encoder()
