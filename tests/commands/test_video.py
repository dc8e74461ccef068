"""`hdgan video`: frames with lasting styles, interrupted and repeated commands, and what is refused."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from hdgan.commands import video as module
from hdgan.commands.main import main
from hdgan.commands.video import rate_of
from hdgan.data import read_map
from hdgan.errors import ConfigError
from hdgan.families import GeneratorConfig, Pix2PixConfig, Pix2PixHD, Pix2PixHDConfig, UNetConfig
from hdgan.families.pix2pix.model import Pix2Pix
from hdgan.families.saving import save_model
from hdgan.files import segments
from hdgan.inference import Pipeline, load
from hdgan.styles import Styles
from tests.data.test_map_video import write_maps

Capture = pytest.CaptureFixture[str]
LENGTH, WIDTH, HEIGHT = 10, 64, 32


def video(*arguments: object) -> int:
    return main(["video", *map(str, arguments), "--device", "cpu"])


def refused(capsys: Capture, *arguments: object) -> str:
    """The one line that the command fails with."""
    capsys.readouterr()
    assert video(*arguments) == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line.removeprefix("hdgan: error: ")


def write_frames(root: Path, length: int = LENGTH) -> tuple[np.ndarray, np.ndarray]:
    """A ground, a sky, a box that moves by four pixels a frame, and from the fifth frame on a second one."""
    labels = np.zeros((length, HEIGHT, WIDTH), np.uint8)
    labels[:, HEIGHT // 2 :] = 1
    ids = labels.astype(np.uint16)
    for k in range(length):
        boxes = [(2, np.s_[4:12, 4 * k : 4 * k + 10])] + [(3, np.s_[18:28, 40:60])] * (k >= 5)
        for of, box in boxes:
            labels[k][box], ids[k][box] = of, 1000 * of
        for name, values in (("label", labels), ("ids", ids)):
            (root / name).mkdir(parents=True, exist_ok=True)
            Image.fromarray(values[k]).save(root / name / f"f{k}.png")
    return labels, ids


@pytest.fixture(scope="module")
def maps(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders of label and instance maps, which no test may change."""
    root = tmp_path_factory.mktemp("maps")
    write_frames(root)
    return root


@pytest.fixture(scope="module")
def sources(maps: Path) -> tuple[object, ...]:
    return "--label", maps / "label", "--instance", maps / "ids"


@pytest.fixture(scope="module")
def pipeline(styled: Path) -> Pipeline:
    return load(styled, device="cpu")


def frames_of(path: Path) -> list[np.ndarray]:
    """The frames of a video, [H, W, 3] float64 from 0 to 255."""
    import av

    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="rgb24").astype(float) for frame in container.decode(video=0)]


def image_of(pipeline: Pipeline, maps: Path, number: int, styles: Styles | None = None) -> np.ndarray:
    made = pipeline(*files_of(maps, number), styles=styles, seed=0)
    return (made.permute(1, 2, 0) * 255).double().numpy()


def files_of(maps: Path, number: int) -> tuple[Path, Path]:
    return maps / "label" / f"f{number}.png", maps / "ids" / f"f{number}.png"


def assert_same(path: Path, other: Path) -> None:
    """Compare the frames of two videos. x264 does not give the same bits every time for frames as narrow as these."""
    for one, two in zip(frames_of(path), frames_of(other), strict=True):
        assert distance(one, two) < 2


def distance(frame: np.ndarray, image: np.ndarray) -> float:
    """The mean difference at a quarter of the resolution, which the colours of a video have more than once."""
    small = (values.reshape(HEIGHT // 4, 4, WIDTH // 4, 4, 3).mean((1, 3)) for values in (frame, image))
    return float(np.abs(next(small) - next(small)).mean())


@pytest.mark.video
def test_frames_are_the_images_of_the_maps_in_their_order(
    run: Path, maps: Path, sources: tuple[object, ...], tmp_path: Path, capsys: Capture
) -> None:
    import av

    assert video(run, *sources, "--out", tmp_path / "x.mp4", "--crf", 4) == 0
    assert "10 frames in " in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["x.mp4"]
    pipeline, frames = load(run, device="cpu"), frames_of(tmp_path / "x.mp4")
    assert len(frames) == LENGTH
    for number, frame in enumerate(frames):
        assert frame.shape == (HEIGHT, WIDTH, 3)
        assert distance(frame, image_of(pipeline, maps, number)) < 2
    with av.open(str(tmp_path / "x.mp4")) as container:
        assert container.streams.video[0].average_rate == 25


@pytest.mark.video
def test_videos_of_maps_give_the_same_video(run: Path, maps: Path, sources: tuple[object, ...], tmp_path: Path) -> None:
    import av

    every = ([read_map(files_of(maps, k)[part]) for k in range(LENGTH)] for part in (0, 1))
    labels, ids = (write_maps(tmp_path / f"{k}.mkv", np.stack(part), rate=10) for k, part in enumerate(every))
    given = ("--label", labels, "--instance", ids, "--out")
    assert video(run, *given, tmp_path / "x.mp4") == 0
    assert video(run, *sources, "--out", tmp_path / "y.mp4", "--fps", 10) == 0
    assert_same(tmp_path / "x.mp4", tmp_path / "y.mp4")
    assert video(run, *given, tmp_path / "z.mp4", "--fps", "30000/1001") == 0
    with av.open(str(tmp_path / "z.mp4")) as container:
        assert container.streams.video[0].average_rate == Fraction(30000, 1001)


@pytest.mark.video
def test_random_styles_belong_to_the_id_in_all_frames(
    styled: Path, pipeline: Pipeline, maps: Path, sources: tuple[object, ...], tmp_path: Path
) -> None:
    assert video(styled, *sources, "--out", tmp_path / "x.mp4", "--styles", "random", "--seed", 3, "--crf", 4) == 0
    last = pipeline.instances(*files_of(maps, LENGTH - 1))
    styles = pipeline.bank.sample(last, 3)
    for number, frame in enumerate(frames_of(tmp_path / "x.mp4")):
        assert distance(frame, image_of(pipeline, maps, number, styles)) < 2


@pytest.mark.video
@pytest.mark.parametrize("given", ["file", "photo of frame 0", "photo of frame 7"])
def test_styles_of_a_file_or_photo_last(
    given: str, styled: Path, pipeline: Pipeline, maps: Path, sources: tuple[object, ...], tmp_path: Path
) -> None:
    number = 7 if given.endswith("7") else 0
    photo = tmp_path / "photo.png"
    values = np.random.default_rng(0).integers(0, 255, (HEIGHT // 8, WIDTH // 8, 3)).astype(np.uint8)
    Image.fromarray(values.repeat(8, 0).repeat(8, 1)).save(photo)
    styles = pipeline.encode(photo, *files_of(maps, number))
    assert (3000 in styles.instances) == (number == 7)
    styles.save(tmp_path / "styles.json")
    options = ("--styles", tmp_path / "styles.json") if given == "file" else ("--photo", photo)
    more = ("--photo-frame", number) if number else ()
    assert video(styled, *sources, "--out", tmp_path / "x.mp4", *options, *more, "--crf", 4) == 0
    for k, frame in enumerate(frames_of(tmp_path / "x.mp4")):
        own = Styles(
            {id: styles.instances[id] for id in pipeline.instances(*files_of(maps, k)) if id in styles.instances}
        )
        assert distance(frame, image_of(pipeline, maps, k, own)) < 2


@pytest.mark.video
def test_styles_of_other_instances_are_noted(
    styled: Path, sources: tuple[object, ...], tmp_path: Path, capsys: Capture
) -> None:
    content = {"format": 1, "encoder": "", "instances": {"3000": {"label": 3, "feature": [0.5, 0.5], "cluster": None}}}
    (tmp_path / "styles.json").write_text(json.dumps(content))
    assert video(styled, *sources, "--out", tmp_path / "x.mp4", "--styles", tmp_path / "styles.json") == 0
    said = capsys.readouterr().err
    assert "styles.json has styles of instances 3000, of which " in said
    assert "f0.png has none" in said


@pytest.mark.video
def test_noise_is_the_same_in_all_frames(maps: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    unet = UNetConfig(ngf=4, dropout_levels=(0, 1))
    model = Pix2Pix(Pix2PixConfig(n_labels=4, instances=False, norm="instance", generator=unet))
    save_model(tmp_path / "model.safetensors", model)
    still = tmp_path / "still"
    still.mkdir()
    for k in range(3):
        shutil.copy(maps / "label" / "f0.png", still / f"f{k}.png")
    for seed in (0, 1):
        given = (tmp_path / "model.safetensors", "--label", still, "--seed", seed, "--crf", 1)
        assert video(*given, "--out", tmp_path / f"{seed}.mp4") == 0
    one, other = (frames_of(tmp_path / f"{seed}.mp4") for seed in (0, 1))
    still_in_time = max(np.abs(frame - one[0]).max() for frame in one)
    assert np.abs(one[0] - other[0]).max() > 3 * still_in_time


@pytest.mark.video
def test_a_model_of_pairs_takes_a_folder_of_inputs(tmp_path: Path, capsys: Capture) -> None:
    torch.manual_seed(0)
    config = Pix2PixHDConfig(n_labels=0, instances=False, generator=GeneratorConfig(ngf=4, n_downsample=1, n_blocks=1))
    save_model(tmp_path / "model.safetensors", Pix2PixHD(config))
    (tmp_path / "in").mkdir()
    for k in range(3):
        Image.fromarray(np.full((17, 33, 3), 60 * k, np.uint8)).save(tmp_path / "in" / f"{k}.png")
    given = (tmp_path / "model.safetensors", "--input", tmp_path / "in", "--out", tmp_path / "x.mp4")
    assert video(*given) == 0
    assert "frames of 33x17 become 34x18, since H.264 needs even sides" in capsys.readouterr().err
    assert [frame.shape for frame in frames_of(tmp_path / "x.mp4")] == [(18, 34, 3)] * 3
    assert "generates images from input files: give --input" in refused(
        capsys, tmp_path / "model.safetensors", "--label", tmp_path / "in", "--out", tmp_path / "x.mp4"
    )


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Lets segments have four frames, and counts the images that are computed; a KeyboardInterrupt comes before the
    image whose number is set at index 0, counted from 1."""
    state = [0, 0]
    monkeypatch.setattr(module, "SPAN", 4)
    pixels = module._Work._pixels

    def counted(work: module._Work, image: object) -> np.ndarray:
        state[1] += 1
        return pixels(work, image)  # type: ignore[arg-type]

    images = module._Work.images

    def interrupted(work: module._Work, spans: object) -> Iterator[np.ndarray]:
        for number, image in enumerate(images(work, spans), 1):  # type: ignore[arg-type]
            if number == state[0]:
                raise KeyboardInterrupt
            yield image

    monkeypatch.setattr(module._Work, "_pixels", counted)
    monkeypatch.setattr(module._Work, "images", interrupted)
    return state


@pytest.mark.video
def test_a_repeated_command_goes_on(
    run: Path, sources: tuple[object, ...], tmp_path: Path, made: list[int], capsys: Capture
) -> None:
    given = (run, *sources, "--out", tmp_path / "x.mp4", "--crf", 4)
    made[0] = 7
    assert video(*given) == 130
    said = capsys.readouterr().err
    assert f"stopped with 6 of 10 frames, which are kept in {tmp_path / 'x.mp4.parts'}: repeat the command" in said
    assert [path.name for path in tmp_path.iterdir()] == ["x.mp4.parts"]
    line = refused(capsys, *given[:-1], 5)
    assert "x.mp4.parts were made with another --crf, 4 instead of 5: repeat the command as it was" in line
    line = refused(capsys, *given, "--no-ema")
    assert "another --ema, True instead of False" in line
    made[:] = [0, 0]
    assert video(*given) == 0
    assert made[1] == 4
    assert "going on with 6 frames of an interrupted command" in capsys.readouterr().err
    assert video(*given[:-3], tmp_path / "whole.mp4", "--crf", 4) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["whole.mp4", "x.mp4"]
    assert_same(tmp_path / "x.mp4", tmp_path / "whole.mp4")


@pytest.mark.video
def test_a_killed_command_loses_no_segment(
    run: Path, sources: tuple[object, ...], tmp_path: Path, made: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    given = (run, *sources, "--out", tmp_path / "x.mp4")
    assert video(*given) == 0
    (tmp_path / "x.mp4").rename(tmp_path / "whole.mp4")

    def stop(*_: object) -> None:
        raise SystemExit(9)

    with monkeypatch.context() as patch:
        patch.setattr(segments.Segments, "join", stop)
        with pytest.raises(SystemExit):
            video(*given)
    (tmp_path / "x.mp4.parts" / "00000004.mp4").unlink()
    (tmp_path / "x.mp4.parts" / ".00000004.mp4.0123abcd.hdtmp").touch()
    made[1] = 0
    assert video(*given) == 0
    assert made[1] == 4
    assert_same(tmp_path / "x.mp4", tmp_path / "whole.mp4")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["whole.mp4", "x.mp4"]


@pytest.mark.video
def test_a_bad_frame_ends_the_video_and_keeps_those_before(
    run: Path, tmp_path: Path, made: list[int], capsys: Capture
) -> None:
    write_frames(tmp_path)
    given = (run, "--label", tmp_path / "label", "--instance", tmp_path / "ids", "--out", tmp_path / "x.mp4")
    for part in ("label", "ids"):
        Image.fromarray(np.zeros((16, 32), np.uint8)).save(tmp_path / part / "f6.png")
    assert video(*given) == 2
    stopped, line = capsys.readouterr().err.splitlines()[-2:]
    assert "stopped with 6 of 10 frames" in stopped
    assert "f6.png is 32x16, but the first frame is 64x32: make all frames of a video the same size" in line
    write_frames(tmp_path)
    assert "another set of frames" in refused(capsys, *given)


@pytest.mark.video
def test_labels_of_a_video_are_named_by_their_frame(run: Path, maps: Path, tmp_path: Path, capsys: Capture) -> None:
    labels, ids = (np.stack([read_map(files_of(maps, k)[part]) for k in range(LENGTH)]) for part in (0, 1))
    labels[3, 5] = 77
    given = ("--label", write_maps(tmp_path / "l.mkv", labels), "--instance", write_maps(tmp_path / "i.mkv", ids))
    assert video(run, *given, "--out", tmp_path / "x.mp4") == 2
    assert f"{tmp_path / 'l.mkv'}, frame 3 contains label 77" in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.video
@pytest.mark.slow
def test_processes_share_the_frames(run: Path, sources: tuple[object, ...], tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "import os, sys\n"
        "from hdgan.commands import main, video\n"
        "video.SPAN, write = 4, video.Segments.write\n"
        "def noted(segments, spans, frames):\n"
        "    write(segments, spans, frames)\n"
        f"    open(os.path.join({str(tmp_path)!r}, 'spans' + os.environ['RANK']), 'w').write(repr(spans))\n"
        "video.Segments.write = noted\n"
        "sys.exit(main.main(sys.argv[1:]))\n"
    )
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(script)]
    given = [*map(str, ("video", run, *sources, "--out", tmp_path / "x.mp4", "--device", "cpu"))]
    root = str(Path(module.__file__).parents[2])
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": root}
    ended = subprocess.run([*torchrun, *given], env=environment, capture_output=True, text=True, timeout=100)
    assert ended.returncode == 0, ended.stderr
    assert ended.stderr.count("10 frames in ") == 1
    assert [(tmp_path / f"spans{rank}").read_text() for rank in (0, 1)] == ["[(0, 4), (8, 10)]", "[(4, 8)]"]
    assert video(run, *sources, "--out", tmp_path / "y.mp4") == 0
    assert_same(tmp_path / "x.mp4", tmp_path / "y.mp4")
    assert not (tmp_path / "x.mp4.parts").exists()


@pytest.mark.video
@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--out", "x"), "--out x: a video is an .mp4 file; give a name that ends in .mp4"),
        (("--out", "x.avi"), "a video is an .mp4 file"),
        (("--fps", "0"), "--fps is 0: give a number up to 1000, such as 25, 23.976 or 30000/1001"),
        (("--crf", "52"), "crf"),
        (("--photo-frame", "2"), "--photo-frame 2 says which frame a photo shows: give --photo, or leave it out"),
        (("--photo", "PHOTO", "--photo-frame", "10"), "--photo-frame is 10, but there are frames 0 to 9"),
        (("--photo", "PHOTO", "--styles", "random"), "--photo already sets the styles"),
        (("--photo", "PHOTO"), "photo.png is 8x8"),
        (("--styles", "some"), "--styles is some: give mean, random, random-class or a .json file"),
        (("--styles", "random"), "does not exist: create it with `hdgan styles encode "),
        (("--styles", "no.json"), "no.json"),
        (("--label", "LABEL/f0.png"), "f0.png is a single file: give a folder"),
        (("--label", "no"), "--label no does not exist"),
        (("--input", "LABEL"), "has no effect on the images of"),
    ],
)
def test_options_that_cannot_be(
    options: tuple[str, ...], message: str, run: Path, maps: Path, sources: tuple[object, ...], tmp_path: Path,
    capsys: Capture, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(tmp_path / "photo.png")
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    out = () if "--out" in options else ("--out", "x.mp4")
    put = {"PHOTO": str(tmp_path / "photo.png")}
    given = [put.get(option, option.replace("LABEL", str(maps / "label"))) for option in options]
    assert message in refused(capsys, run, *sources, *out, *given)
    assert list(Path().iterdir()) == []


@pytest.mark.video
def test_a_source_is_never_overwritten(run: Path, maps: Path, tmp_path: Path, capsys: Capture) -> None:
    labels = write_maps(tmp_path / "l.mov", np.stack([read_map(files_of(maps, k)[0]) for k in range(2)]), "png", "gray")
    (tmp_path / "l.mp4").hardlink_to(labels)
    line = refused(capsys, run, "--label", tmp_path / "l.mp4", "--out", tmp_path / "l.mp4")
    assert "l.mp4 is an input and would be overwritten: choose another --out" in line


@pytest.mark.video
def test_images_that_are_no_frames(
    stored_run: Path, maps: Path, sources: tuple[object, ...], tmp_path: Path, capsys: Capture
) -> None:
    channels = load(stored_run, device="cpu").config.image_channels
    given = (stored_run, *sources, "--out", tmp_path / "x.mp4")
    if channels in (1, 3):
        assert video(*given) == 0
        grey = frames_of(tmp_path / "x.mp4")
        assert max(np.ptp(frame, axis=2).max() for frame in grey) <= 2
        return
    assert f"have {channels} channels, but a video has 1 or 3" in refused(capsys, *given)


def test_without_pyav_nothing_is_loaded(
    run: Path, sources: tuple[object, ...], tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hdgan.files.video.find_spec", lambda name: None)
    monkeypatch.setattr(module, "load", None)
    line = refused(capsys, run, *sources, "--out", tmp_path / "x.mp4")
    assert line.startswith('writing a video needs PyAV: install PyAV with `pip install -e ".[video]"`')


def test_generate_names_the_command(run: Path, sources: tuple[object, ...], capsys: Capture) -> None:
    assert main(["generate", *map(str, (run, *sources, "--out", "x.mp4", "--device", "cpu"))]) == 2
    assert "--out x.mp4: `hdgan video` writes videos; give a folder for images" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "rate"), [("25", Fraction(25)), ("23.976", Fraction(2997, 125)), ("30000/1001", Fraction(30000, 1001))]
)
def test_rates_are_numbers_or_fractions(text: str, rate: Fraction) -> None:
    assert rate_of(text) == rate


@pytest.mark.parametrize("text", ["", "fast", "-1", "1/0", "1001", "nan", "inf", "23.97602397602", "1e-9"])
def test_rates_that_no_video_has(text: str) -> None:
    with pytest.raises(ConfigError, match="--fps is "):
        rate_of(text)
