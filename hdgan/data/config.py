"""What a dataset is and how its pictures are sized: plain data, saved with every run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from hdgan.errors import ConfigError

_MOST_SCENES = 1_000_000
_SCENE_SIDES = (16, 4096)  # least and most pixels of width and height

UnpackedLayout = Literal["auto", "nvidia", "ab", "side-by-side", "cityscapes"]
LayoutName = Literal[UnpackedLayout, "packed"]


@dataclass(frozen=True)
class ScenesConfig:
    """The built-in procedural street scenes, rendered into a cache on first use."""

    width: int = 256
    """Width in pixels."""
    height: int = 128
    """Height in pixels."""
    train: int = 200
    """Training scenes."""
    test: int = 20
    """Held-out scenes."""
    seed: int = 0
    """Same seed and size, same scenes (to the pixel with the same numpy and Pillow)."""

    def __post_init__(self) -> None:
        check_scene_size(self.width, self.height)
        for name in ("train", "test"):
            count = getattr(self, name)
            if not 1 <= count <= _MOST_SCENES:
                raise ConfigError(f"scenes.{name} = {count}: give a number from 1 to {_MOST_SCENES}")
        if self.seed < 0:
            raise ConfigError(f"scenes.seed = {self.seed}: give 0 or a positive number")


def check_scene_size(width: int, height: int) -> None:
    """Raise ConfigError unless scenes of this size, in pixels, can be drawn."""
    low, high = _SCENE_SIDES
    if not (low <= width <= high and low <= height <= high):
        raise ConfigError(f"scenes: size {width}x{height}: width and height must lie between {low} and {high} pixels")


@dataclass(frozen=True)
class DataConfig:
    """Where the pairs are and what their values mean."""

    root: Path | None = None
    """Folder of the dataset; None trains on the built-in scenes."""
    scenes: ScenesConfig = ScenesConfig()
    """The built-in scenes, used where root is None."""
    layout: LayoutName = "auto"
    """Folder structure: nvidia (<phase>_label, <phase>_inst, <phase>_img), ab (<phase>_A, <phase>_B),
    side-by-side (<phase>/ with A|B in one picture), cityscapes (gtFine/, leftImg8bit/), packed (what `hdgan data pack`
    writes), or auto to detect it."""
    train_phase: str = "train"
    """Split to train on."""
    val_phase: str | None = None
    """Split for samples and for choosing the best checkpoint; None takes val, else test, else training pictures."""
    dontcare: int | None = None
    """Label whose pixels belong to no class (their one-hot vector is zero), for example 255."""
    instance_divisor: int = 1000
    """Class of an instance id: id // instance_divisor where id >= instance_divisor, else the id (Cityscapes' rule)."""
    flip: bool = True
    """Mirror half of the training pictures."""
    photo_filter: Literal["bicubic", "lanczos"] = "bicubic"
    """Resampling of photos; labels and ids always take the nearest pixel."""
    workers: int = 2
    """Processes that read pictures; 0 reads in the training process."""

    def __post_init__(self) -> None:
        if self.instance_divisor < 1:
            raise ConfigError(f"instance_divisor is {self.instance_divisor}; it must be at least 1")
        if self.workers < 0:
            raise ConfigError(f"workers is {self.workers}; it must be 0 or more")


@dataclass(frozen=True)
class SizeConfig:
    """How pictures are brought to the size of training: scaled first, then cropped.

    No size needs to be divisible by anything: the networks pad their input and crop their output.
    """

    width: int | None = None
    """Scale to this width; None keeps the aspect ratio if height is set, else the size of the file."""
    height: int | None = None
    """Scale to this height; None keeps the aspect ratio."""
    crop_width: int | None = None
    """Width of a random crop (centred outside training); None takes crop_height, or the whole picture without one."""
    crop_height: int | None = None
    """Height of a random crop; None takes crop_width."""
    jitter: int = 0
    """Scale training pictures to a width and height this many pixels larger, and crop width x height of them at random
    (pix2pix: 30 at 256x256); others are scaled to width x height. Needs both, and no other crop."""

    def __post_init__(self) -> None:
        for name in ("width", "height", "crop_width", "crop_height"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"{name} is {value}; it must be at least 1 pixel")
        if self.jitter < 0:
            raise ConfigError(f"jitter is {self.jitter}; it must be 0 or more pixels")
        if self.jitter and (self.width is None or self.height is None or self.crop_width or self.crop_height):
            raise ConfigError(
                f"jitter is {self.jitter}; it needs width and height, and excludes a crop: set these, or jitter 0"
            )

    @property
    def training(self) -> SizeConfig:
        """What training pictures go through, with jitter as a crop."""
        if self.width is None or self.height is None or not self.jitter:
            return self
        return SizeConfig(self.width + self.jitter, self.height + self.jitter, self.width, self.height)

    @property
    def whole(self) -> SizeConfig:
        """What whole pictures are scaled to."""
        return SizeConfig(self.width, self.height)
