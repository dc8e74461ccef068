"""A video in segments: what is missing, what is kept, and what is refused."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from hdgan.errors import ConfigError, DataError, HdganError
from hdgan.files.segments import Segments
from hdgan.files.video import Encoding, count_frames

pytestmark = pytest.mark.video
ENCODING = Encoding(32, 16, Fraction(25), 20)


def segments_of(folder: Path, length: int = 10, span: int = 4) -> Segments:
    return Segments(folder / "x.mp4", length, ENCODING, span)


def images(start: int, stop: int, error: BaseException | None = None) -> Iterator[np.ndarray]:
    """Frames whose brightness is their number, which may end by an error."""
    for number in range(start, stop):
        yield np.full((16, 32, 3), 20 * number, np.uint8)
    if error is not None:
        raise error


def brightness(path: Path) -> list[int]:
    """The numbers of the frames of a video."""
    import av

    with av.open(str(path)) as container:
        return [round(frame.to_ndarray(format="rgb24").mean() / 20) for frame in container.decode(video=0)]


def test_all_segments_become_the_video(tmp_path):
    segments = segments_of(tmp_path)
    spans = segments.begin({"--crf": "20"})
    assert spans == [(0, 4), (4, 8), (8, 10)]
    segments.write(spans, images(0, 10))
    assert segments.missing() == []
    segments.join()
    assert brightness(tmp_path / "x.mp4") == list(range(10))
    assert [path.name for path in tmp_path.iterdir()] == ["x.mp4"]


@pytest.mark.parametrize("error", [KeyboardInterrupt(), DataError("a frame is damaged")], ids=["ctrl-c", "data"])
def test_frames_before_an_interruption_are_kept(error, tmp_path):
    segments = segments_of(tmp_path)
    with pytest.raises(type(error)):
        segments.write(segments.begin({}), images(0, 7, error))
    assert segments.missing() == [(7, 8), (8, 10)]
    again = segments_of(tmp_path)
    again.write(again.begin({}), images(7, 10))
    again.join()
    assert brightness(tmp_path / "x.mp4") == list(range(10))


def test_an_interruption_at_the_first_frame_of_a_segment_leaves_no_file(tmp_path):
    segments = segments_of(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        segments.write(segments.begin({}), images(0, 4, KeyboardInterrupt()))
    assert sorted(path.name for path in segments.folder.iterdir()) == ["00000000.mp4", "made-of.json"]


def test_segments_can_be_written_in_any_order(tmp_path):
    segments = segments_of(tmp_path)
    spans = segments.begin({})
    segments.write(spans[1:], images(4, 10))
    assert segments.missing() == [(0, 4)]
    with pytest.raises(HdganError, match="has no frames 0 to 3: several processes need a folder"):
        segments.join()
    segments.write(segments.missing(), images(0, 4))
    segments.join()
    assert brightness(tmp_path / "x.mp4") == list(range(10))


def test_a_segment_that_was_killed_is_made_again(tmp_path):
    segments = segments_of(tmp_path)
    spans = segments.begin({})
    (segments.folder / ".00000000.mp4.0123abcd.hdtmp").write_bytes(b"half")
    assert segments.begin({}) == spans
    segments.write(spans[:1], images(0, 4))
    assert count_frames(segments.folder / "00000000.mp4") == 4


def test_other_options_are_named(tmp_path):
    segments = segments_of(tmp_path)
    segments.begin({"--crf": "20", "--seed": "0"})
    message = r"were made with another --crf, 20 instead of 22: .*delete this folder"
    with pytest.raises(ConfigError, match=message):
        segments.begin({"--crf": "22", "--seed": "0"})
    with pytest.raises(ConfigError, match="another --seed, 0 instead of not given"):
        segments.begin({"--crf": "20"})
    assert segments.begin({"--crf": "20", "--seed": "0"}) == segments.missing()


def test_a_folder_of_something_else_is_left_alone(tmp_path):
    segments = segments_of(tmp_path)
    segments.folder.mkdir()
    (segments.folder / ".made-of.json.0123abcd.hdtmp").write_bytes(b"")  # of a killed process
    (segments.folder / "notes.txt").write_text("mine")
    with pytest.raises(ConfigError, match="is no folder of an unfinished video"):
        segments.begin({})
    (segments.folder / "notes.txt").unlink()
    assert segments.begin({})
