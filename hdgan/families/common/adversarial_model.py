"""Models with a PatchGAN, or several, that see the condition and the image."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from hdgan.families.common.model import ImageModel, require_channels
from hdgan.models.discriminator import MultiscaleDiscriminator


class AdversarialModel(ImageModel):
    """A model whose discriminator takes the condition, then the image."""

    discriminator: MultiscaleDiscriminator | None

    def context(self, condition: Tensor) -> list[Tensor]:
        """D's share of the work that depends on the condition alone, for several images to `discriminate`."""
        assert self.discriminator is not None
        require_channels(self, "condition", condition, self.config.discriminator_channels - self.config.image_channels)
        return self.discriminator.context(condition)

    def discriminate(self, context: Sequence[Tensor], image: Tensor) -> list[list[Tensor]]:
        """D(condition, image): per scale, finest first, the features of every layer and last the score."""
        assert self.discriminator is not None
        require_channels(self, "image", image, self.config.image_channels)
        return self.discriminator(image.to(context[0].dtype), context)
