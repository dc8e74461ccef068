"""What all families have, and what their configs share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from tyro.conf import Suppress

from hdgan.config.bounds import Channels, Divisor, Features, Label, Labels
from hdgan.config.options import option
from hdgan.config.serialization import check_values
from hdgan.errors import ConfigError
from hdgan.wording import count


@dataclass(frozen=True)
class ModelConfig:
    """What all families have: the input and the image. Each family is a subclass, told apart by `family`."""

    has_encoder: ClassVar[bool] = False
    has_discriminator: ClassVar[bool] = True

    family: Suppress[str]
    n_labels: Labels = 35
    """Classes of the label maps; 0 for A->B training, whose input is a picture."""
    input_channels: Channels = 3
    """Channels of the input picture of A->B training (n_labels 0)."""
    image_channels: Suppress[Channels] = 3
    """Channels of the photo."""
    instances: bool = True
    """Feed the instance boundary map."""
    feature_channels: Suppress[Features] = 0
    """Channels of E's features."""
    dontcare: Suppress[Label | None] = None
    """Label whose pixels belong to no class."""
    instance_divisor: Suppress[Divisor] = 1000
    """Class of an instance id: id // instance_divisor where id >= instance_divisor, else id itself."""

    def __post_init__(self) -> None:
        check_values(self, "model")
        if self.feature_channels and not self.has_encoder:
            raise ConfigError(
                f"{option('model.feature_channels')} is {self.feature_channels}, but the models of the family "
                f"{self.family} have no encoder: set it to 0"
            )

    @property
    def condition_channels(self) -> int:
        """Channels of the condition that G and D see: classes (or input picture) and boundary map."""
        return (self.n_labels or self.input_channels) + int(self.instances)

    @property
    def generator_channels(self) -> int:
        """Input channels of G: the condition and E's features."""
        return self.condition_channels + self.feature_channels

    @property
    def discriminator_channels(self) -> int:
        """Input channels of D: the condition and the image, never features."""
        return self.condition_channels + self.image_channels

    def trained(self, *, enhancer_only: bool, encoder: bool) -> list[str]:
        """The networks that a stage trains, as people name them; arguments as of `ImageModel.trained_modules`."""
        return ["G", "D"]

    @property
    def variants(self) -> int | None:
        """Pictures that a model makes of the same input by itself; None for as many as there are seeds of its noise."""
        return 1

    def sized(self, sides: Sequence[int]) -> ModelConfig:
        """With what follows from the widths and heights of the training pictures, in pixels, filled in."""
        return self

    @property
    def growth(self) -> dict[str, int]:
        """How many of the parts there are that a run may add from stage to stage, by their name."""
        return {}

    def grown(self, n_enhancers: int, n_scales: int) -> ModelConfig:
        """The architecture of a stage with these parts.

        Raises:
            ConfigError: the family cannot have them.
        """
        if n_enhancers:
            raise ConfigError(
                f"a stage has {count(n_enhancers, 'enhancer')}, but the models of the family {self.family} have none"
            )
        return self
