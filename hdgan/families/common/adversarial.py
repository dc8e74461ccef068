"""Models with a PatchGAN, or several, that see the condition and the image; and both objectives of a GAN step.

One forward pass of D over the fake serves both objectives. Its graph is walked once towards D, stopping before G, and
once towards G, skipping the gradients of D's weights. So both gradients are those of one and the same D.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from hdgan.families.common.augmentation import Augmentation
from hdgan.families.common.batch import Objectives
from hdgan.families.common.model import ImageModel, require_channels
from hdgan.families.common.pool import FakePool
from hdgan.losses import GanMode, Outputs, gan_loss
from hdgan.models.discriminator import MultiscaleDiscriminator
from hdgan.models.inputs import NetworkInput


class AdversarialModel(ImageModel):
    """A model whose discriminator takes the condition, then the image."""

    discriminator: MultiscaleDiscriminator | None

    def context(self, condition: NetworkInput) -> list[Tensor]:
        """D's share of the work that depends on the condition alone, for several images to `discriminate`."""
        assert self.discriminator is not None
        require_channels(self, "condition", condition, self.config.discriminator_channels - self.config.image_channels)
        return self.discriminator.context(condition)

    def discriminate(self, context: Sequence[Tensor], image: Tensor) -> list[list[Tensor]]:
        """Run D on a condition and an image.

        Args:
            context: of the condition, from `context`.
            image: [B, image_channels, H, W] in [-1, 1].

        Returns:
            For each scale, finest first, the features [B, C, h, w] of every layer and last the score [B, 1, h, w].
        """
        assert self.discriminator is not None
        require_channels(self, "image", image, self.config.image_channels)
        return self.discriminator(image.to(context[0].dtype), context)


@dataclass(frozen=True)
class DiscriminatorOutputs:
    """D's outputs on a micro batch."""

    image: Tensor
    """What G has made."""
    real: Outputs
    fake: Outputs
    """For G's objective."""
    fake_for_d: Outputs
    """For D's own objective: those on the same fakes, or on fakes from the pool."""


def run_discriminator(
    model: AdversarialModel,
    condition: NetworkInput,
    fake: Tensor,
    photo: Tensor,
    pool: FakePool,
    augmentation: Augmentation,
) -> DiscriminatorOutputs:
    """Run D on the fake that G made of a condition, on the photo, and on the fakes of the pool if it has a size.

    D sees each of them through a transform of the augmentation. The pool keeps them as they are, and they are
    transformed anew whenever they are shown.
    """
    transform = augmentation.draw(photo)
    context = model.context(transform.condition(condition))
    on_fake = model.discriminate(context, transform.image(fake))
    on_real = model.discriminate(context, transform.image(photo))
    if not pool.size:
        return DiscriminatorOutputs(fake, on_real, on_fake, on_fake)
    old_condition, old_fake = pool.exchange(condition, fake)
    transform = augmentation.draw(old_fake)
    old_context = model.context(transform.condition(old_condition))
    return DiscriminatorOutputs(fake, on_real, on_fake, model.discriminate(old_context, transform.image(old_fake)))


def adversarial_objectives(
    outputs: DiscriminatorOutputs, mode: GanMode, terms: Sequence[Tensor], augmentation: Augmentation
) -> Objectives:
    """The objectives of G and D.

        min_G  L_GAN(G, D) + further terms        max_D  L_GAN(G, D) / 2

    Args:
        outputs: of D.
        mode: of the GAN loss.
        terms: of G's objective besides the GAN loss, with their weights.
        augmentation: what the outputs were made with.

    Returns:
        The objectives; their parts are g_gan, the terms, d_real and d_fake, these two before they are halved, and what
        the augmentation reports.
    """
    g_losses = [gan_loss(outputs.fake, real=True, mode=mode, of_generator=True), *terms]
    d_losses = [gan_loss(outputs.real, real=True, mode=mode), gan_loss(outputs.fake_for_d, real=False, mode=mode)]
    return Objectives(
        generator=sum(g_losses[1:], g_losses[0]),
        discriminator=(d_losses[0] + d_losses[1]) / 2,
        parts=torch.stack([*g_losses, *d_losses, *augmentation.report(outputs.real, mode)]).detach(),
        fake=outputs.image.detach(),
    )
