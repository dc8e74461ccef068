"""Augmentation of everything that D sees: DiffAugment (Zhao et al. 2020), with ADA's control (Karras et al. 2020).

    D(T(condition), T(photo))        D(T(condition), T(G(condition)))

With few photos D learns them by heart, and G learns no more from it. Here D never sees a photo unchanged. T is random,
and applies to photos and generated images alike, so G is not taught to generate augmented images; its gradient goes
through T. In one call of D, all that belongs to an image has the same T: condition, photo and generated image. Feature
matching therefore compares features of the same place.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
from annotated_types import Interval
from torch import Tensor

from hdgan.config.bounds import Positive, Share
from hdgan.config.needs import ON, Needs
from hdgan.config.options import option
from hdgan.config.serialization import check_values
from hdgan.errors import ConfigError
from hdgan.losses import GanMode, Outputs
from hdgan.models.inputs import LabelInput, NetworkInput
from hdgan.ops import LabelPlanes, memory_format_of

Kind = Literal["color", "translation", "cutout"]
Sign = Annotated[float, Interval(ge=-1, le=1)]

FARTHEST = 0.125
"""Longest translation, as a fraction of the image's side."""
HOLE = 0.5
"""Side of the rectangle that is cut out, as a fraction of the image's side."""
WINDOW = 256
"""Images over which the sign statistic is averaged: as many as ADA sees between two changes of its probability."""
_DRAWS = 10
"""Random numbers of an image: whether each of the three kinds applies, three for the colour, two for each other."""


@dataclass(frozen=True)
class AugmentConfig:
    """Augmentation of the images and conditions that D sees, for few training images (Zhao et al. 2020)."""

    NEEDS: ClassVar[Needs] = {
        "probability": {"policy": ON},
        "adaptive": {"policy": ON},
        "target": {"adaptive": True},
        "speed": {"adaptive": True},
    }

    policy: tuple[Kind, ...] = ()
    """Kinds: color (brightness, saturation and contrast of the images), translation (by up to 1/8 of a side) and cutout
    (of a rectangle of half the sides); conditions are translated and cut out alike. An empty list turns it off."""
    probability: Share | None = None
    """Probability of each kind for each image, or with adaptive the one to start from; None means 1, or with adaptive
    0."""
    adaptive: bool = False
    """Raise the probability while D overfits, and lower it while it does not (ADA, Karras et al. 2020)."""
    target: Sign = 0.15
    """Sign statistic that adaptive aims at (0.6 in ADA): 1 if D recognises every patch of the photos as real, 0 if it
    recognises half of them, -1 if none. Above the target D overfits; a lower target augments more."""
    speed: Positive = 5000
    """Number of images in which adaptive raises the probability from 0 to 1 (500000 in ADA, whose runs are longer)."""

    def __post_init__(self) -> None:
        check_values(self, "augment")
        place = option("augment.policy")
        repeated = [kind for kind in dict.fromkeys(self.policy) if self.policy.count(kind) > 1]
        if repeated:
            raise ConfigError(f"{place} contains {repeated[0]} more than once: give each kind once")

    @property
    def start(self) -> float:
        """The probability at the start."""
        return (0.0 if self.adaptive else 1.0) if self.probability is None else self.probability


@dataclass(frozen=True)
class Transform:
    """A drawn T for each image of a batch; the same for everything that it is applied to.

    Without colours, or without places that are hidden, that part of T changes nothing.
    """

    color: tuple[Tensor, Tensor, Tensor] | None = None
    """Brightness to add, factors of saturation and contrast: [B, 1, 1, 1] each."""
    source: Tensor | None = None
    """[B, H * W] int64: the number of the pixel that appears in each place."""
    hidden: Tensor | None = None
    """[B, 1, H, W] bool: the places in which there is nothing."""

    def image(self, image: Tensor) -> Tensor:
        """T of images [B, C, H, W] in [-1, 1], in float32 or more if a colour changes; nothing is 0, a medium grey."""
        if self.color is not None:
            image = _recolored(image, *self.color)
        return self._moved(image, 0)

    def condition(self, condition: NetworkInput) -> NetworkInput:
        """T of a condition, without colours: where there is nothing, a label map has neither class nor boundary.

        Raises:
            ValueError: it is a coarser level of a pyramid.
        """
        if self.hidden is None:
            return condition
        if isinstance(condition, Tensor):
            return self._moved(condition, 0)
        condition.require_full_resolution()
        codes, n_labels, edges = condition.planes
        codes = self._moved(codes.unsqueeze(1), n_labels).squeeze(1)
        features = None if condition.features is None else self._moved(condition.features, 0)
        return LabelInput(LabelPlanes(codes, n_labels, edges), features)

    def _moved(self, x: Tensor, nothing: int) -> Tensor:
        """x [B, C, H, W] with its pixels in other places, in its memory format."""
        if self.hidden is None:
            return x
        memory_format = memory_format_of(x)
        if self.source is not None:
            x = x.flatten(2).gather(2, self.source.unsqueeze(1).expand(-1, x.shape[1], -1)).view(x.shape)
        return x.masked_fill(self.hidden, nothing).contiguous(memory_format=memory_format)


class Augmentation:
    """Draws a T for each image, and adapts its probability to how far D overfits.

    Draws from the generator of the images' device, which the training loop seeds for each step. Nothing waits for a
    GPU, and a CUDA graph that has captured a draw repeats it with the numbers and the probability of its own step.

    Args:
        config: the kinds and their probability; None for no augmentation.
        device: of the images; None for the CPU.

    Attributes:
        probability: of each kind; a float64 scalar on the device that changes in place.
        signs: the average of the sign statistic, likewise.
        names: of what `report` returns.
    """

    def __init__(self, config: AugmentConfig | None = None, device: torch.device | None = None) -> None:
        self.config = config = config or AugmentConfig()
        self.names: tuple[str, ...] = ()
        if not config.policy:
            return
        self.names = ("d_sign", "augment_p") if config.adaptive else ("d_sign",)
        self.probability = torch.tensor(config.start, dtype=torch.float64, device=device)
        self.signs = torch.zeros((), dtype=torch.float64, device=device)

    def draw(self, images: Tensor) -> Transform:
        """A new T for each of the images [B, C, H, W], of which only shape and device matter."""
        policy = self.config.policy
        if not policy:
            return Transform()
        batch, _, height, width = images.shape
        numbers = torch.rand(_DRAWS, batch, device=images.device)
        applied = numbers[:3] < self.probability  # [3, B]
        source, hidden = None, None
        if "translation" in policy:
            source, hidden = _translation(applied[1], numbers[6:8], height, width)
        if "cutout" in policy:
            hole = _hole(applied[2], numbers[8:], height, width)
            hidden = hole if hidden is None else hidden | hole
        return Transform(_colors(applied[0], numbers[3:6]) if "color" in policy else None, source, hidden)

    def report(self, real: Outputs, mode: GanMode) -> list[Tensor]:
        """What the log says, by `names`: the sign statistic of D's outputs on photos, and the probability."""
        if not self.names:
            return []
        signs = sign_statistic(real, mode)
        return [signs, self.probability.float()] if self.config.adaptive else [signs]

    def adapt(self, signs: Tensor, images: int, held_back: Tensor) -> None:
        """Change the probability after a step, by the sign of how far the averaged statistic is from its target.

        Args:
            signs: the statistic of the step, a scalar.
            images: of the step, in all processes.
            held_back: 1 where the step is not taken, since a loss is not finite; then nothing changes.
        """
        average = self.signs.lerp(signs.to(self.signs.dtype), min(images / WINDOW, 1.0))
        change = (average - self.config.target).sign() * (images / self.config.speed)
        held = held_back.bool()
        self.probability.copy_(self.probability.where(held, (self.probability + change).clamp(0, 1)))
        self.signs.copy_(self.signs.where(held, average))

    def state(self) -> dict[str, tuple[float, float]]:
        """What a resume needs: the probability and the average; nothing if they do not change."""
        return {"augmentation": (self.probability.item(), self.signs.item())} if self.config.adaptive else {}

    def load(self, saved: tuple[float, float]) -> None:
        """Go on from a state. A probability that does not adapt stays that of the config."""
        if self.config.adaptive:
            for mine, value in zip((self.probability, self.signs), saved, strict=True):
                mine.fill_(value)


def sign_statistic(real: Outputs, mode: GanMode) -> Tensor:
    """How far D overfits: the mean over scales and patches of the sign of its scores of photos (ADA's r_t).

    Args:
        real: D's outputs on photos.
        mode: of the GAN loss; the sign is that of the distance to the middle between its two targets.

    Returns:
        Scalar float32 in [-1, 1], without gradient: 0 where D cannot tell, 1 where it recognises every patch.
    """
    middle = 0.5 if mode == "lsgan" else 0.0
    return torch.stack([(scale[-1].detach().float() - middle).sign().mean() for scale in real]).mean()


def _colors(applied: Tensor, numbers: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Brightness in -0.5 … 0.5, saturation in 0 … 2, contrast in 0.5 … 1.5; without effect where not applied."""
    brightness, saturation, contrast = (numbers - 0.5) * applied
    shape = (-1, 1, 1, 1)
    return brightness.view(shape), (1 + 2 * saturation).view(shape), (1 + contrast).view(shape)


def _recolored(image: Tensor, brightness: Tensor, saturation: Tensor, contrast: Tensor) -> Tensor:
    """Images with other brightness, then saturation, then contrast.

    Saturation scales the distance of each channel to their mean, and contrast the distance to the image's mean. The
    three steps are one affine function of the channel and both means.
    """
    image = image.to(torch.promote_types(image.dtype, torch.float32))
    grey = image.mean(1, keepdim=True)
    mean = grey.mean((2, 3), keepdim=True)
    return (contrast * saturation) * image + (contrast * (1 - saturation) * grey + (1 - contrast) * mean + brightness)


def _translation(applied: Tensor, numbers: Tensor, height: int, width: int) -> tuple[Tensor, Tensor]:
    """Which pixel appears in each place, [B, H * W], and the places that no pixel has moved to, [B, 1, H, W]."""
    (rows, no_row), (columns, no_column) = (
        _translated(applied, number, side) for number, side in zip(numbers, (height, width), strict=True)
    )
    source = rows.unsqueeze(2) * width + columns.unsqueeze(1)
    return source.flatten(1), (no_row.unsqueeze(2) | no_column.unsqueeze(1)).unsqueeze(1)


def _translated(applied: Tensor, number: Tensor, side: int) -> tuple[Tensor, Tensor]:
    """The index [B, side] of what moves to each place along one axis, and whether it is outside."""
    farthest = int(side * FARTHEST + 0.5)
    shift = ((number * (2 * farthest + 1)).long() - farthest) * applied
    index = torch.arange(side, device=number.device) - shift.unsqueeze(1)
    return index.clamp(0, side - 1), (index < 0) | (index >= side)


def _hole(applied: Tensor, numbers: Tensor, height: int, width: int) -> Tensor:
    """The places [B, 1, H, W] inside a rectangle, whose centre is anywhere in the image."""
    rows, columns = (_cut(number, side) for number, side in zip(numbers, (height, width), strict=True))
    return (rows.unsqueeze(2) & columns.unsqueeze(1) & applied.view(-1, 1, 1)).unsqueeze(1)


def _cut(number: Tensor, side: int) -> Tensor:
    """The places [B, side] that are cut out along one axis."""
    length = int(side * HOLE + 0.5)
    first = (number * (side + 1 - length % 2)).long() - length // 2
    place = torch.arange(side, device=number.device) - first.unsqueeze(1)
    return (place >= 0) & (place < length)
