"""R1: what keeps D's scores flat around real images, taken in every n-th step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from hdgan.config.bounds import Positive, Weight
from hdgan.config.needs import ON, Needs
from hdgan.families.common.adversarial import AdversarialModel
from hdgan.families.common.augmentation import Augmentation
from hdgan.families.common.batch import Batch
from hdgan.families.common.losses import LossConfig
from hdgan.losses import r1_penalty


class R1Penalty:
    """R1 on real images (Mescheder et al. 2018) at intervals, as StyleGAN2 takes it (Karras et al. 2020).

    Adds gamma / 2 times the squared gradient to D's objective. A penalty of every n-th step counts n times as much.
    StyleGAN2 steps its optimizer once more for that and therefore changes Adam's betas; here the gradients are part of
    the step's own.

    Args:
        gamma: the weight.
        every: steps from one penalty to the next.
        augmentation: of what D sees; the gradient goes through it.
    """

    name = "d_r1"
    """Of the squared gradient, before its weight, in metrics.jsonl."""

    def __init__(self, gamma: float, every: int, augmentation: Augmentation) -> None:
        self.every = every
        self.augmentation = augmentation
        self.weight = gamma / 2 * every

    def due(self, step: int) -> bool:
        """Whether the step that follows `step` steps of the stage takes the penalty; the first one does."""
        return step % self.every == 0

    def __call__(self, model: AdversarialModel, batch: Batch) -> Tensor:
        """The squared gradient for the photos of a micro batch, a scalar float32 that reaches D's weights.

        Behind batch norms, the scores of a photo depend on the other photos of the micro batch, and so do gradients.
        """
        photo = batch.photo.detach().requires_grad_()
        transform = self.augmentation.draw(photo)
        context = model.context(transform.condition(model.condition(batch.label, batch.ids, batch.source)))
        return r1_penalty(model.discriminate(context, transform.image(photo)), photo)


@dataclass(frozen=True)
class R1LossConfig(LossConfig):
    """The losses of a family with D, to which R1 can be added."""

    NEEDS: ClassVar[Needs] = {"r1_every": {"r1": ON}}

    r1: Weight = 0.0
    """Weight gamma of R1, which keeps D's scores flat around real images: gamma / 2 times their squared gradient; 0
    leaves it out. One value suits all image sizes; begin with 1 or less, since 10 may keep D from learning."""
    r1_every: Positive = 16
    """Steps from one R1 penalty to the next, 16 in StyleGAN2. The weight is multiplied by this number; 1 takes R1 in
    every step."""

    def penalty(self, augmentation: Augmentation) -> R1Penalty | None:
        """R1, if it has a weight."""
        return R1Penalty(self.r1, self.r1_every, augmentation) if self.r1 else None
