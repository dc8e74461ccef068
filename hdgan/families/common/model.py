"""The base class of the models of all families: what training and inference need from each of them."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from hdgan.families.common.config import ModelConfig
from hdgan.models.inputs import LabelInput, NetworkInput, compute_dtype, first_weight
from hdgan.ops import InstanceIndex, boundary_map, label_planes


class ImageModel(nn.Module, ABC):
    """The networks of one family, which generate an image from a condition.

    Attributes:
        config: the architecture.
        generator: takes the condition, then the features if there are any.
        discriminator: None where left out, or for a family without.
        encoder: None without features.
    """

    config: ModelConfig
    generator: nn.Module
    discriminator: nn.Module | None
    encoder: nn.Module | None

    @abstractmethod
    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config

    def condition(
        self,
        label: Tensor | None = None,
        ids: Tensor | None = None,
        source: Tensor | None = None,
    ) -> NetworkInput:
        """Encode what G and D are conditioned on: [B, condition_channels, H, W].

        Label maps become one plane per class, source images (A->B) stay as they are; the instances' boundaries follow.

        Args:
            label: [B, H, W] integer, or None for a source image.
            ids: [B, H, W] integer, of a model with instances.
            source: [B, input_channels, H, W] in [-1, 1], of a model without label maps.

        Returns:
            Of a label map the planes that the networks look up, whose `dense` makes the tensor; of a source image the
            tensor.
        """
        ids = ids if self.config.instances else None
        if label is not None:
            return LabelInput(label_planes(label, ids, self.config.n_labels, dontcare=self.config.dontcare))
        assert source is not None
        if ids is None:
            return source
        return torch.cat([source, boundary_map(ids).unsqueeze(1).to(source.dtype)], dim=1)

    def encode(self, photo: Tensor, instances: Tensor | InstanceIndex) -> Tensor | None:
        """E(photo), averaged per instance: [B, feature_channels, H, W]; None for a model without features."""
        return None if self.encoder is None else self.encoder(photo, instances)

    def generate(self, condition: NetworkInput, features: Tensor | None = None, variant: int = 0) -> Tensor:
        """G(condition, features): an image [B, image_channels, H, W] in [-1, 1].

        Args:
            condition: [B, condition_channels, H, W], a tensor or what `condition` makes of a label map.
            features: [B, feature_channels, H, W], for a model with an encoder.
            variant: which image, from 0, of a model that generates several at once.
        """
        if features is None:
            return self.generator(condition)
        if isinstance(condition, LabelInput):
            features = features.to(compute_dtype(first_weight(self.generator)))
            return self.generator(condition._replace(features=features))
        return self.generator(torch.cat([condition, features.to(condition.dtype)], dim=1))

    def copy_from(self, smaller: ImageModel) -> None:
        """Take over the weights of a model of the same family with the same parts or, if the family grows, fewer.

        Raises:
            RuntimeError: the shapes differ.
        """
        for name, network in self.named_children():
            theirs = getattr(smaller, name)
            if theirs is not None:
                network.load_state_dict(theirs.state_dict())


def require_channels(model: ImageModel, name: str, x: NetworkInput, channels: int) -> None:
    """Check an input of a model's network.

    Raises:
        ValueError: it has another number of channels.
    """
    if x.shape[1] != channels:
        raise ValueError(f"{type(model).__name__}: expected {name} with {channels} channels, got {x.shape[1]}")
