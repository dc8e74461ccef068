"""The watch on a run's health: what a step measures for it, and what the numbers of many steps say.

A step measures the norms of the gradients and four statistics of the images. They travel with the losses, so nothing
waits for the device, and all processes judge the same numbers. Every step is judged; what is logged is chosen by
`log.metrics_every`. A symptom has to last for some steps before it counts, since single steps of a GAN say little.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Annotated

import torch
from annotated_types import Interval
from torch import Tensor, nn

from hdgan.config.bounds import Count
from hdgan.config.options import option
from hdgan.families.common.train_config import TrainConfig
from hdgan.wording import count

IMAGE_STATISTICS = ("fake_saturated", "real_saturated", "fake_deviation", "real_deviation")
"""Names in metrics.jsonl. Saturated is the share of values beyond ±0.99; the deviation is that of a channel of an image
from its mean, averaged over channels and images."""

LASTING = {"spike": 1, "diverged": 10, "exploding": 20, "saturated": 50, "constant": 50, "d_strong": 150}
"""Steps in a row after which a symptom counts."""
SPIKE, EXPLODING = 50.0, 10.0
"""Gradient norm of a step, and of all lasting steps, as multiples of its usual value."""
SATURATED = 0.1
"""Share of G's values beyond ±0.99, above that of the photos."""
DIVERGED, CERTAIN = 20.0, 0.05
"""D's loss as a multiple of the loss of a D that only guesses: above the first it diverges, below the second it is
certain of every image."""
CONSTANT = 0.05
"""Deviation of G's images as a multiple of the photos'."""
SPOT = 0.25
"""`hdgan.training.spots.spot_share` above which feature maps have spots."""
_WARM_UP, _PACE = 20, 0.02
"""Steps after which a gradient norm has a usual value, and the weight of a step in it afterwards."""
_GUESSING = {"lsgan": 0.5, "vanilla": 2 * math.log(2), "hinge": 2.0}
"""Loss of a discriminator that cannot tell photos from images, d_real + d_fake, for one scale."""

Rate = Annotated[float, Interval(gt=0, le=1)]


def image_statistics(fake: Tensor, photo: Tensor) -> Tensor:
    """Measure the images of a micro batch.

    Args:
        fake: [B, ..., C, H, W], detached.
        photo: [B, C, H, W].

    Returns:
        [4] float32: IMAGE_STATISTICS.
    """
    saturated = [(images.abs() > 0.99).float().mean() for images in (fake, photo)]
    deviation = [images.float().std((-2, -1), correction=0).mean() for images in (fake, photo)]
    return torch.stack([*saturated, *deviation])


def gradient_norm(parameters: list[Tensor]) -> Tensor:
    """Norm of the gradients of some parameters together, scalar; those without a gradient do not count."""
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    return torch.nn.utils.get_total_norm(gradients)


@dataclass(frozen=True)
class Finding:
    """What the watch has found."""

    symptom: str
    """A key of LASTING."""
    problem: str
    """The figures and the likely cause."""
    remedy: str


@dataclass
class Health:
    """What the watch remembers from step to step. A checkpoint holds it, so that a resume judges alike.

    Attributes:
        rollbacks: of the run so far.
        rate_g, rate_d: factors of the learning rates, which rollbacks have lowered.
        good: step of the last checkpoint that was healthy when it was saved; None before the first.
        judged: steps of the stage that have been judged.
        lasting: steps in a row in which each symptom has been seen.
        usual: logarithm of the usual norm of G's gradient. That of D says nothing: it varies by orders of magnitude
            while D is certain of most images.
    """

    rollbacks: Count = 0
    rate_g: Rate = 1.0
    rate_d: Rate = 1.0
    good: Count | None = None
    judged: Count = 0
    lasting: dict[str, Count] = field(default_factory=dict)
    usual: float = 0.0

    @property
    def rates(self) -> dict[str, float]:
        """The factors by the names of the optimizers."""
        return {"g": self.rate_g, "d": self.rate_d}

    @property
    def is_good(self) -> bool:
        """Whether no symptom has been seen for half of the steps after which it counts."""
        return all(2 * steps < LASTING.get(symptom, 1) for symptom, steps in self.lasting.items())

    def for_next_stage(self) -> Health:
        """What the next stage starts from: losses and gradients have other usual values there."""
        return replace(self, judged=0, lasting={}, usual=0.0)

    def after_rollback(self, before: Health, symptom: str) -> Health:
        """The memory of the checkpoint that a run has gone back to, with lower rates than it has had before.

        Args:
            before: memory of the run when it failed.
            symptom: why it failed. If D was too strong, only its rate is halved.
        """
        rate_g = before.rate_g if symptom == "d_strong" else before.rate_g / 2
        return replace(self, rollbacks=before.rollbacks + 1, rate_g=rate_g, rate_d=before.rate_d / 2)

    def judge(self, values: Mapping[str, float], guessing: float, place: str) -> list[Finding]:
        """Judge the losses and statistics of the next step.

        Args:
            values: by their names in metrics.jsonl.
            guessing: the loss of a discriminator that cannot tell photos from images.
            place: of the stage in the config, such as `stages.global`, for the remedies.

        Returns:
            What has lasted long enough, once, and again whenever it has lasted twice as long.
        """
        found = _symptoms(values, self.usual if self.judged >= _WARM_UP else None, guessing, place)
        self.lasting = {finding.symptom: self.lasting.get(finding.symptom, 0) + 1 for finding in found}
        self._learn(values)
        return [finding for finding in found if self._counts(finding.symptom)]

    def _counts(self, symptom: str) -> bool:
        times, rest = divmod(self.lasting[symptom], LASTING[symptom])
        return rest == 0 and times & (times - 1) == 0

    def _learn(self, values: Mapping[str, float]) -> None:
        """Move the usual norm towards that of a step; an outlier moves it no further than a factor of three would."""
        away = math.log(max(values["grad_g"], 1e-30)) - self.usual
        if self.judged >= _WARM_UP:
            away = max(-math.log(3), min(math.log(3), away))
        self.usual += max(_PACE, 1 / (self.judged + 1)) * away
        self.judged += 1


def guessing_loss(config: TrainConfig, discriminator: nn.Module | None) -> float:
    """d_real + d_fake of a discriminator that cannot tell photos from images; 0 without one."""
    scales = getattr(discriminator, "scales", ())
    return _GUESSING[getattr(config.loss, "gan", "lsgan")] * len(scales)


def _symptoms(values: Mapping[str, float], usual: float | None, guessing: float, place: str) -> list[Finding]:
    """The symptoms of a step, each as it would be reported once it has lasted."""
    rate = f"lower {option(f'{place}.lr')}, or set {option('optim.clip')} 1"
    found = [*_of_gradients(values, usual, rate), *_of_images(values, rate)]
    return [*found, *_of_discriminator(values, guessing, place, rate)] if guessing and "d_real" in values else found


def _of_gradients(values: Mapping[str, float], usual: float | None, rate: str) -> Iterator[Finding]:
    if usual is None:
        return
    level = math.exp(usual)
    times = values["grad_g"] / level
    norm = f"the gradient of G is {times:.0f} times its usual norm of {level:.3g}"
    if times > SPIKE:
        clip = f"set {option('optim.clip')} {float(f'{level:.2g}'):g}, and look for images that are not like the others"
        yield Finding("spike", f"{norm}, probably because of one bad batch", clip)
    if times > EXPLODING:
        lasting = f"for {count(LASTING['exploding'], 'step')} more than {EXPLODING:.0f} times as large as usual"
        yield Finding("exploding", f"{norm}, {lasting}: the learning rate is probably too high", rate)


def _of_images(values: Mapping[str, float], rate: str) -> Iterator[Finding]:
    fake, real = values["fake_saturated"], values["real_saturated"]
    if fake - real > SATURATED:
        yield Finding(
            "saturated",
            f"{fake:.0%} of the values of G's images are beyond ±0.99, and {real:.0%} of the photos': the learning "
            "rate is probably too high",
            rate,
        )
    fake, real = values["fake_deviation"], values["real_deviation"]
    if fake < CONSTANT * real:
        yield Finding(
            "constant",
            f"G's images are almost of one colour (they deviate by {fake:.2g} from their mean, photos by {real:.2g}): "
            "the learning rate is probably too high, or G's losses say too little about the photo",
            rate,
        )


def _of_discriminator(values: Mapping[str, float], guessing: float, place: str, rate: str) -> Iterator[Finding]:
    loss = values["d_real"] + values["d_fake"]
    if loss > DIVERGED * guessing:
        yield Finding(
            "diverged",
            f"D's loss is {loss:.3g}, where one that only guesses has {guessing:.3g}: the learning rate is probably "
            "too high",
            rate,
        )
    if loss < CERTAIN * guessing:
        yield Finding(
            "d_strong",
            f"D has been certain of every image for {count(LASTING['d_strong'], 'step')} (its loss is {loss:.2g}, "
            f"where one that only guesses has {guessing:.3g}), and g_gan is {values['g_gan']:.3g}: D is too strong",
            f"set {option('loss.r1')}, augment what D sees with {option('augment.policy')}, or lower "
            f"{option(f'{place}.lr_d')}",
        )
