"""`hdgan video`: a video from the label maps of its frames."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Annotated

import numpy as np
import tyro
from annotated_types import Interval
from rich.console import Console

from hdgan.commands.joint_input import note_joint_frames
from hdgan.commands.sources import OPTIONS, SizeNote, check_sources, trained_size
from hdgan.commands.style_choice import StyleChoice
from hdgan.config.bounds import BatchSize, Count, Precision
from hdgan.config.serialization import check_value
from hdgan.data import SizeConfig
from hdgan.data.frames import Frames, open_frames
from hdgan.data.images import from_unit_range
from hdgan.errors import ConfigError, DataError, HdganError
from hdgan.files.segments import Segments, Span
from hdgan.files.video import Encoding, require_encoder
from hdgan.inference.engine import Generated, ImageRequest
from hdgan.inference.lasting import lasting_styles
from hdgan.inference.maps import Maps
from hdgan.inference.ordered import in_order
from hdgan.inference.pipeline import Pipeline, load
from hdgan.progress import print_lines, showing_progress
from hdgan.sharding.world import World, join_shards
from hdgan.styles import Styles
from hdgan.styles.sample import some
from hdgan.wording import count

Crf = Annotated[int, Interval(ge=1, le=51)]
SPAN = 50
"""Frames of a segment, the most that a killed process can lose: two seconds of 25 frames, the usual distance of the
frames that players can jump to."""
_USUAL_RATE = Fraction(25)
_FASTEST, _FINEST = 1000, 10**6
"""The highest frame rate, and the largest numerator of one."""
_CONVERTERS = 2
"""Threads that turn images into frames."""


def video(
    run: Annotated[Path, tyro.conf.Positional],
    /,
    out: Path,
    label: Path | None = None,
    instance: Path | None = None,
    input: Path | None = None,
    styles: str = "mean",
    photo: Path | None = None,
    photo_frame: Count = 0,
    seed: int = 0,
    fps: str | None = None,
    crf: Crf = 18,
    checkpoint: str = "latest",
    device: str = "auto",
    precision: Precision = "float32",
    ema: bool = True,
    batch_size: BatchSize = 1,
) -> int:
    """Make a video in which every instance keeps its style, from a label map for each frame.

    Frames are the files of a folder in the order of their names, in which numbers count as such: frame_9 comes before
    frame_10. Or they are those of a video that keeps numbers exactly: grey of 8 or 16 bits as FFV1, PNG or
    uncompressed. `ffmpeg -framerate 25 -i maps/%04d.png -c:v ffv1 -pix_fmt gray maps.mkv` writes one. All frames have
    one size.

    The video is H.264 with 4:2:0 colours. If a side is odd, it gets a copy of its last row or column. Frames that are
    done are kept in the folder OUT.parts until the video is complete: an interrupted command that is repeated goes on
    with them.

    `torchrun --nproc-per-node N -m hdgan video ...` shares the frames among N processes, one for each
    GPU or several on CPUs.

    Args:
        run: Run folder, checkpoint folder or .safetensors file; demo, the model that comes with hdgan; or
            hf:OWNER/NAME, a model on the Hugging Face Hub.
        out: The video, an .mp4 file.
        label: Folder of label maps, or a video of them.
        instance: Folder of instance maps, paired by name, or a video of them.
        input: Folder of input images, for a model trained on A->B pairs.
        styles: mean (of each class), random (a cluster for each instance id, drawn once for the whole video),
            random-class (a cluster for all instances of a class), or a .json file that `hdgan generate --save-styles`
            wrote. Instances without a style in the file get the mean of their class.
        photo: Photo of one frame, whose instances keep their styles from it in all frames. Instances that it does not
            show get the mean of their class.
        photo_frame: The frame that the photo belongs to, counted from 0.
        seed: Seed of random styles, and of the noise of models that draw any, which is the same in every frame.
        fps: Frames per second, as a number or a fraction such as 30000/1001. By default that of a video of label maps,
            or 25.
        crf: Quality, from 1 for the best to 51 for the smallest file; x264's constant rate factor.
        checkpoint: Which one of a run: latest, best, or a step.
        device: auto, cpu, cuda or cuda:N.
        precision: With bfloat16 or float16 the networks run under autocast. float16 is more exact, and slow on most
            CPUs.
        ema: Use the averaged weights.
        batch_size: Frames that the networks compute at once. More than 1 can be faster for small maps. A CPU computes
            several frames side by side in any case.
    """
    check_value(BatchSize, batch_size, "batch_size")
    check_value(Crf, crf, "crf")
    check_value(Count, photo_frame, "photo_frame")
    rate = None if fps is None else rate_of(fps)
    wanted = _WantedStyles(StyleChoice(styles=styles, seed=seed), photo, photo_frame)
    every = {"label": label, "input": input, "ids": instance}
    sources = {part: path for part, path in every.items() if path is not None}
    _check_out(out, [*sources.values(), *wanted.files])
    wanted.check()
    require_encoder()
    console, began = Console(stderr=True), time.monotonic()
    with join_shards(device) as world:
        pipeline = load(run, checkpoint=checkpoint, device=str(world.device), precision=precision, ema=ema)
        pipeline.require_batch(batch_size)
        wanted.choice.check(pipeline.config.variants, with_photo=photo is not None)
        _check_model(run, pipeline)
        check_sources(run, pipeline, sources, or_scenes=False)
        frames = open_frames(sources)
        wanted.check_frame(frames)
        first = _maps(pipeline, frames, 0)
        encoding = _encoding(first, rate or (frames.rate or _USUAL_RATE).limit_denominator(1001), crf)
        work = _Work(pipeline, frames, encoding, seed, batch_size, wanted.of(pipeline, frames, first, console))
        options = {"seed": seed, "fps": encoding.rate, "crf": crf}
        options |= {"precision": precision, "ema": ema, "batch-size": batch_size}
        made_of = {
            **_about_sources(pipeline, frames, sources),
            **wanted.about(),
            **{f"--{name}": str(value) for name, value in options.items()},
        }
        _make_missing(work, out, made_of, first, world, console)
    print_lines(console, f"{count(frames.length, 'frame')} in {time.monotonic() - began:.1f} s: {out}")
    return 0


def rate_of(text: str) -> Fraction:
    """The frames per second of --fps.

    Raises:
        ConfigError: it is no number or fraction above 0, or not one that a video can have.
    """
    try:
        rate = Fraction(text)
    except (ValueError, ZeroDivisionError):
        rate = Fraction(0)
    if not 0 < rate <= _FASTEST or max(rate.numerator, rate.denominator) > _FINEST:
        raise ConfigError(f"--fps is {text:.60}: give a number up to {_FASTEST}, such as 25, 23.976 or 30000/1001")
    return rate


@dataclass(frozen=True)
class _WantedStyles:
    """The options that say where the styles of the instances come from."""

    choice: StyleChoice
    photo: Path | None
    photo_frame: int

    @property
    def files(self) -> list[Path]:
        """The files that are read."""
        return [*self.choice.files, *([] if self.photo is None else [self.photo])]

    def check(self) -> None:
        """Refuse options of which one has no effect."""
        if self.photo is None and self.photo_frame:
            raise ConfigError(
                f"--photo-frame {self.photo_frame} says which frame a photo shows: give --photo, or leave it out"
            )

    def check_frame(self, frames: Frames) -> None:
        """Refuse a frame that is not there."""
        if self.photo_frame >= frames.length:
            raise ConfigError(f"--photo-frame is {self.photo_frame}, but there are frames 0 to {frames.length - 1}")

    def of(
        self, pipeline: Pipeline, frames: Frames, first: Maps, console: Console
    ) -> Callable[[Maps], Styles | None] | None:
        """The styles of the instances of each frame; None for the mean of each class."""
        if self.photo is not None:
            shown = _maps(pipeline, frames, self.photo_frame) if self.photo_frame else first
            return lasting_styles(pipeline, pipeline.encode(self.photo, shown))
        if self.choice.files:
            return _styles_in(self.choice.files[0], pipeline, first, console)
        if self.choice.styles == "mean":
            return None
        _ = pipeline.bank  # whose file is read, or missed, before any work
        return partial(self.choice.styles_for, pipeline, photo=None, variant=0)

    def about(self) -> dict[str, str]:
        """The options and their values, which the frames depend on."""
        return {
            "--styles": _about(self.choice.files[0]) if self.choice.files else self.choice.styles,
            "--photo": _about(self.photo),
            "--photo-frame": str(self.photo_frame),
        }


def _styles_in(file: Path, pipeline: Pipeline, first: Maps, console: Console) -> Callable[[Maps], Styles]:
    """The styles that a file gives the instances of each frame."""
    styles = Styles.load(file)
    lasting = lasting_styles(pipeline, styles)
    pipeline.complete(lasting(first), first)  # which refuses styles that the model cannot take
    if not lasting(first).instances:
        print_lines(console, f"{file} has styles of instances {some(styles.instances)}, of which {first.name} has none")
    return lasting


@dataclass(frozen=True)
class _Work:
    """What frames are made of."""

    pipeline: Pipeline
    frames: Frames
    encoding: Encoding
    seed: int
    batch_size: int
    styles: Callable[[Maps], Styles | None] | None

    def images(self, spans: Sequence[Span]) -> Iterator[np.ndarray]:
        """The frames of spans, [H, W, 3] uint8."""
        wanted = [number for span in spans for number in range(*span)]
        requests = (
            ImageRequest(source, ids, styles=self.styles, seed=self.seed) for source, ids in self.frames.read(wanted)
        )
        made = self.pipeline.stream(requests, batch_size=self.batch_size)
        return in_order(self._pixels, made, _CONVERTERS, 2 * _CONVERTERS)

    def _pixels(self, made: Generated) -> np.ndarray:
        _, height, width = made.maps.size
        if (width, height) != (self.encoding.width, self.encoding.height):
            raise DataError(
                f"{made.maps.name} is {width}x{height}, but the first frame is {self.encoding.width}x"
                f"{self.encoding.height}: make all frames of a video the same size"
            )
        pixels = from_unit_range(made.image * 2 - 1, "uint8")
        return np.broadcast_to(pixels, (height, width, 3))


def _make_missing(
    work: _Work, out: Path, made_of: Mapping[str, str], first: Maps, world: World, console: Console
) -> None:
    """Make the frames that an interrupted command has not made, each process its share, and join all of them."""
    length, batch_size = work.frames.length, work.batch_size
    segments = Segments(out, length, work.encoding, -(-SPAN // batch_size) * batch_size)
    missing = [(start, stop) for start, stop in world.from_main(partial(segments.begin, made_of))]
    _note(work.pipeline, first, work.encoding, length - _number(missing), console)
    _make(work, segments, world.share(missing), console)
    world.barrier()
    if world.is_main:
        segments.join()


def _make(work: _Work, segments: Segments, spans: Sequence[Span], console: Console) -> None:
    """Make the frames of segments and write them."""
    total = _number(spans)
    if not total:
        return
    try:
        with showing_progress(console) as progress:

            def counted() -> Iterator[np.ndarray]:
                for done, image in enumerate(work.images(spans)):
                    progress("generating", done, total)
                    yield image

            segments.write(spans, counted())
    except (HdganError, KeyboardInterrupt):
        there = work.frames.length - _number(segments.missing())
        print_lines(
            console,
            f"stopped with {there} of {count(work.frames.length, 'frame')}, which are kept in {segments.folder}: "
            "repeat the command to go on with them",
        )
        raise


def _number(spans: Sequence[Span]) -> int:
    return sum(stop - start for start, stop in spans)


def _check_out(out: Path, given: Sequence[Path]) -> None:
    if out.suffix.lower() != ".mp4" or out.is_dir():
        raise ConfigError(f"--out {out}: a video is an .mp4 file; give a name that ends in .mp4")
    if os.path.realpath(out) in {os.path.realpath(path) for path in given}:
        raise ConfigError(f"{out} is an input and would be overwritten: choose another --out")


def _check_model(run: Path, pipeline: Pipeline) -> None:
    channels = pipeline.config.image_channels
    if channels not in (1, 3):
        raise ConfigError(
            f"images of {run} have {count(channels, 'channel')}, but a video has 1 or 3: `hdgan generate` writes each "
            "of them as a file"
        )


def _maps(pipeline: Pipeline, frames: Frames, number: int) -> Maps:
    """The maps of one frame."""
    return pipeline.read(*next(frames.read([number])))


def _encoding(first: Maps, rate: Fraction, crf: int) -> Encoding:
    """How frames of the size of the first are written."""
    _, height, width = first.size
    return Encoding(width, height, rate, crf)


def _note(pipeline: Pipeline, first: Maps, encoding: Encoding, there: int, console: Console) -> None:
    """Print what a user may not expect."""
    assert pipeline.file is not None
    SizeNote(trained_size(pipeline.file) or SizeConfig(), console).compare(first)
    size, even = (encoding.width, encoding.height), encoding.even_size
    note_joint_frames(pipeline.file, first.name, size, console)
    if even != size:
        print_lines(console, "frames of {}x{} become {}x{}, since H.264 needs even sides".format(*size, *even))
    if there:
        print_lines(console, f"going on with {count(there, 'frame')} of an interrupted command")


def _about_sources(pipeline: Pipeline, frames: Frames, sources: Mapping[str, Path]) -> dict[str, str]:
    """The model and the maps, which the frames depend on."""
    return {
        "RUN": _about(pipeline.file),
        **{OPTIONS[part]: str(path.resolve()) for part, path in sources.items()},
        "set of frames": f"{count(frames.length, 'frame')} ({frames.fingerprint()})",
    }


def _about(path: Path | None) -> str:
    """A file, and when it was written."""
    if path is None:
        return "none"
    stat = path.stat()
    return f"{path.resolve()} of {datetime.fromtimestamp(stat.st_mtime)} ({stat.st_size} bytes)"
