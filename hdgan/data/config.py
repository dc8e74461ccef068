"""The description of a dataset and the size of its images, as plain data that is saved with every run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from annotated_types import Interval

from hdgan.config.bounds import Divisor, Label, Seed, Side, Workers
from hdgan.config.options import option
from hdgan.config.serialization import check_values
from hdgan.errors import ConfigError
from hdgan.files.remote import located

SceneSide = Annotated[int, Interval(ge=16, le=4096)]
"""Pixels of a scene's width or height."""
Scenes = Annotated[int, Interval(ge=1, le=10**6)]

PartName = Literal["label", "input", "ids", "photo"]
"""The parts of a sample: label map, input of an A-to-B model, instance map, photo."""
Size = tuple[Side, Side]
"""(width, height) in pixels."""
PhotoMode = Literal["rgb", "stored"]
"""How photos are read; see `DataConfig.photo`."""

LAYOUTS = tuple(
    sorted(file.stem.replace("_", "-") for file in Path(__file__).parent.glob("layouts/*.py") if file.name[0] != "_")
)
"""Names of the layouts, one for each module of hdgan/data/layouts."""
_CHOICES = ("auto", *LAYOUTS)
_UNPACKED = tuple(name for name in _CHOICES if name != "packed")
if TYPE_CHECKING:
    LayoutName = str
    UnpackedLayout = str
else:
    LayoutName = Literal[_CHOICES]
    UnpackedLayout = Literal[_UNPACKED]


@dataclass(frozen=True)
class ScenesConfig:
    """The built-in procedural street scenes, rendered into a cache on first use."""

    width: SceneSide = 256
    """Width in pixels."""
    height: SceneSide = 128
    """Height in pixels."""
    train: Scenes = 200
    """Training scenes."""
    test: Scenes = 20
    """Held-out scenes."""
    seed: Seed = 0
    """The same seed and size give the same scenes (to the pixel with the same numpy and Pillow)."""

    def __post_init__(self) -> None:
        check_values(self, "data.scenes")


@dataclass(frozen=True)
class DataConfig:
    """The place of the pairs, and the meaning of their values."""

    root: Path | None = None
    """Folder of the dataset, or its URL on object storage or a server, such as s3://bucket/set; classes.csv in it may
    name the classes. None trains on the built-in scenes."""
    scenes: ScenesConfig = ScenesConfig()
    """The built-in scenes, used where root is None."""
    layout: LayoutName = "auto"
    """Folder structure. auto detects it; the error for a folder of no known structure describes them all."""
    train_phase: str = "train"
    """Split to train on."""
    val_phase: str | None = None
    """Split for samples and for choosing the best checkpoint; None uses val, else test, else training images."""
    dontcare: Label | None = None
    """Label whose pixels belong to no class (their one-hot vector is zero), for example 255."""
    instance_divisor: Divisor = 1000
    """Class of an instance id: id // instance_divisor where id >= instance_divisor, else the id (Cityscapes' rule)."""
    photo: PhotoMode = "rgb"
    """rgb reads photos (B of A-to-B pairs) as 8-bit RGB: grey is repeated, opacity dropped, and 16 bits are reduced.
    stored keeps all their channels and bits, and the model generates such images: 8 bits, 16 bits, or float32 in
    [-1, 1]."""
    flip: bool = True
    """Mirror half of the training images."""
    rotate: Annotated[float, Interval(ge=0, le=180)] = 0.0
    """Rotate training images by a random angle of at most so many degrees either way. What lies outside of an image is
    its mirror image."""
    color_jitter: Annotated[float, Interval(ge=0, lt=1)] = 0.0
    """Multiply brightness, contrast and saturation of training photos by random factors that differ from 1 by at
    most this much. An A-to-B input changes with its photo, which suits pairs of two photos. Floats are refused, since
    they are measurements."""
    photo_filter: Literal["bicubic", "lanczos"] = "bicubic"
    """Resampling filter of photos; labels and ids always use the nearest pixel."""
    workers: Workers | None = None
    """Data worker processes; 0 reads images in the training process; None chooses up to 4, depending on the cores."""

    def __post_init__(self) -> None:
        if isinstance(self.root, Path):
            object.__setattr__(self, "root", located(self.root, option("data.root")))
        check_values(self, "data")

    @property
    def uses_scenes(self) -> bool:
        """Whether the data are the built-in scenes rather than a user's own."""
        return self.root is None


@dataclass(frozen=True)
class SizeConfig:
    """How images are brought to the size of training: scaled first, then cropped.

    No size needs to be divisible by anything: the networks pad their input and crop their output.
    """

    width: Side | None = None
    """Scale to this width; None keeps the aspect ratio if height is set, else the size of the file."""
    height: Side | None = None
    """Scale to this height; None keeps the aspect ratio."""
    crop_width: Side | None = None
    """Width of a random crop (centred outside training); None uses crop_height or, without one, the whole image."""
    crop_height: Side | None = None
    """Height of a random crop; None uses crop_width."""
    jitter: Annotated[int, Interval(ge=0, le=65536)] = 0
    """Scale training images to a width and height this many pixels larger, and crop width x height of them at random
    (pix2pix: 30 at 256x256); other images are scaled to width x height. Needs both, and no other crop."""

    def __post_init__(self) -> None:
        if self.jitter and (self.width is None or self.height is None or self.crop_width or self.crop_height):
            raise ConfigError(
                f"{option('size.jitter')} is {self.jitter}, which needs a width and height and excludes a crop: set "
                "both without a crop, or set jitter 0"
            )

    @property
    def training(self) -> SizeConfig:
        """The size of training images, with jitter expressed as a crop."""
        if self.width is None or self.height is None or not self.jitter:
            return self
        return SizeConfig(self.width + self.jitter, self.height + self.jitter, self.width, self.height)

    @property
    def whole(self) -> SizeConfig:
        """The size to which whole images are scaled."""
        return SizeConfig(self.width, self.height)
