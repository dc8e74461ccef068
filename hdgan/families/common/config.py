"""The part of a model's config that all families share: its input and its image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from tyro.conf import Suppress

from hdgan.config.bounds import Channels, Depth, Divisor, Label, Labels
from hdgan.config.serialization import check_values


@dataclass(frozen=True)
class ModelConfig:
    """The architecture of a model: input and image here, the networks in the subclass of each family.

    In files `family` says which subclass a table is.
    """

    has_discriminator: ClassVar[bool] = True

    family: Suppress[str]
    n_labels: Labels = 35
    """Classes of the label maps; 0 for A->B training, whose input is an image."""
    input_channels: Channels = 3
    """Channels of the input image of A->B training (n_labels 0)."""
    image_channels: Suppress[Channels] = 3
    """Channels of the photo. A run whose photos are read as stored takes them from the data."""
    image_depth: Suppress[Depth] = "uint8"
    """Type of the photo's numbers, in which generated images are written. Networks compute with floats in [-1, 1]."""
    instances: bool = True
    """Feed the instance boundary map to the networks."""
    dontcare: Suppress[Label | None] = None
    """Label whose pixels belong to no class."""
    instance_divisor: Suppress[Divisor] = 1000
    """Class of an instance id: id // instance_divisor where id >= instance_divisor, else id itself."""

    def __post_init__(self) -> None:
        check_values(self, "model")

    @property
    def feature_channels(self) -> int:
        """Channels of E's features; 0 for a family without encoder."""
        return 0

    @property
    def is_rgb(self) -> bool:
        """Whether photos are 8-bit RGB images, as which any photo can be read."""
        return (self.image_channels, self.image_depth) == (3, "uint8")

    @property
    def condition_channels(self) -> int:
        """Channels of the condition that G and D see: classes (or the input image) and boundary map."""
        return (self.n_labels or self.input_channels) + int(self.instances)

    @property
    def generator_channels(self) -> int:
        """Input channels of G: the condition and E's features."""
        return self.condition_channels + self.feature_channels

    @property
    def discriminator_channels(self) -> int:
        """Input channels of D: the condition and the image, never features."""
        return self.condition_channels + self.image_channels

    @property
    def variants(self) -> int | None:
        """Number of different images that a model generates of one input; None if its noise allows any number."""
        return 1

    @property
    def batchable(self) -> bool:
        """Whether the image of an input does not depend on what else is in its batch, up to rounding."""
        return True

    @property
    def growth(self) -> dict[str, int]:
        """The number of each kind of part that a run may add from stage to stage, by its singular name."""
        return {}

    def resolved(self, sides: Sequence[int]) -> ModelConfig:
        """The config, completed with the values that follow from the widths and heights of the training images in
        pixels."""
        return self

    @classmethod
    def upgraded(cls, plain: Mapping[str, Any]) -> dict[str, Any]:
        """Convert a table that an older version wrote to today's options; see `from_plain`."""
        return dict(plain)


def without_unused(plain: Mapping[str, Any], **unused: Sequence[Any]) -> dict[str, Any]:
    """Leave out options that older versions wrote for every family but that this family did not use.

    Args:
        plain: the options.
        unused: the values without effect, by the name of the option. With any other value the option stays, and is
            rejected as unknown.
    """
    return {name: value for name, value in plain.items() if value not in unused.get(name, ())}


def renamed(plain: Mapping[str, Any], **names: str) -> dict[str, Any]:
    """Give options that an older version wrote their names of today, by their old name.

    An option that is there by both names keeps the old one, and is refused as unknown.
    """
    return {names[name] if names.get(name, name) not in plain else name: value for name, value in plain.items()}
