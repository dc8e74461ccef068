"""CRN as one module: a cascade of refinement modules, no discriminator."""

from __future__ import annotations

from torch import Tensor

from hdgan.families.common.model import ImageModel
from hdgan.families.crn.config import CRNConfig
from hdgan.models.crn import CascadedRefinement
from hdgan.models.inputs import NetworkInput


class CRN(ImageModel):
    """The cascade as a model.

    Args:
        config: the architecture.
    """

    config: CRNConfig
    generator: CascadedRefinement
    discriminator: None
    encoder: None

    def __init__(self, config: CRNConfig) -> None:
        super().__init__(config)
        out_channels = config.n_images * config.image_channels
        self.generator = CascadedRefinement(config.generator_channels, out_channels, config.widths)
        self.discriminator = self.encoder = None

    def images(self, condition: NetworkInput) -> Tensor:
        """All images of a condition, [B, n_images, image_channels, H, W], around [-1, 1] but not bounded."""
        return self.generator(condition).unflatten(1, (self.config.n_images, self.config.image_channels))

    def generate(self, condition: NetworkInput, features: Tensor | None = None, variant: int = 0) -> Tensor:
        """Generate one of the images of a condition.

        Args:
            condition: [B, condition_channels, H, W].
            features: None, since CRN has none.
            variant: number of the image, from 0 to n_images - 1.

        Returns:
            [B, image_channels, H, W] in [-1, 1].
        """
        channels = self.config.image_channels
        return self.generator(condition)[:, variant * channels : (variant + 1) * channels].clamp(-1, 1)

    def copy_from(self, smaller: ImageModel) -> None:
        """Take over the weights of a model with as many or fewer modules; a grown one keeps its last convolution.

        Raises:
            RuntimeError: the shapes differ.
        """
        assert isinstance(smaller, CRN)
        self.generator.copy_coarse_from(smaller.generator)
