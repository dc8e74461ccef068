"""R1: what keeps D's scores flat around real images, taken in every n-th step."""

from __future__ import annotations

from torch import Tensor

from hdgan.families.common.adversarial import AdversarialModel
from hdgan.families.common.augmentation import Augmentation
from hdgan.families.common.batch import Batch
from hdgan.losses import r1_penalty

R1_EVERY = 16
"""Steps from one penalty to the next by default, as in StyleGAN2."""


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
