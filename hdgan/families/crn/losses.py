"""The losses of CRN (Chen and Koltun 2017, arXiv 1707.09405, section 3): a balanced perceptual loss, no GAN loss."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn
from tyro.conf import Suppress

from hdgan.families.common.batch import Batch, Objectives
from hdgan.families.common.losses import LossConfig
from hdgan.families.common.perceptual import OnMissing, check_network, least_side, load_network
from hdgan.families.common.pool import FakePool
from hdgan.families.crn.model import CRN
from hdgan.losses import BalancedPerceptualLoss
from hdgan.models.inputs import LabelInput, NetworkInput
from hdgan.ops import LabelPlanes


@dataclass(frozen=True)
class CRNLoss(LossConfig):
    """The network whose features are compared; their weights follow from their distances."""

    family: Suppress[Literal["crn"]] = "crn"
    vgg_weights: Path | None = None
    """File of torchvision's VGG19 weights (.pth or .safetensors); None downloads them."""
    scorer: Path | None = None
    """File of a scorer (hdgan evaluate --train-scorer) whose features replace VGG19's; "random" is an untrained one."""
    imagenet_normalisation: bool = True
    """Normalise VGG's input as VGG was trained, as the original does. A scorer always takes images unchanged."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_network(self.vgg_weights, self.scorer)

    def criterion(self, perceptual: nn.Module | None, pool: FakePool) -> CRNCriterion:
        return CRNCriterion(self, perceptual)

    def load_perceptual(self, on_missing: OnMissing | None = None) -> nn.Module:
        """VGG19 as in the authors' code, relu1_2 … relu5_2 with average pooling, or a scorer; see `load_network`."""
        return load_network(self.vgg_weights, self.scorer, convolution=2, pooling="avg", on_missing=on_missing)

    @property
    def least_side(self) -> int:
        return least_side(self.scorer)


class CRNCriterion:
    """The loss of a run.

    Args:
        config: of the loss.
        perceptual: image -> five features.
    """

    names: tuple[str, ...] = ("g_perceptual", "l1_image", *(f"l1_feature_{i}" for i in range(1, 6)))
    """The loss, and the distances in it before they are balanced."""

    def __init__(self, config: CRNLoss, perceptual: nn.Module | None) -> None:
        assert perceptual is not None
        self.perceptual: nn.Module | None = perceptual
        self.loss = BalancedPerceptualLoss(perceptual, config.imagenet_normalisation and config.scorer is None)

    def __call__(self, model: CRN, batch: Batch) -> Objectives:
        """Run G on a micro batch and return its objective."""
        condition = model.condition(batch.label, batch.ids, batch.source)
        images = model.images(condition)
        loss, distances = self.loss(images, batch.photo, _class_masks(model, condition))
        parts = torch.cat([loss.detach()[None], distances])
        return Objectives(generator=loss, discriminator=None, parts=parts, fake=images.detach())


def _class_masks(model: CRN, condition: NetworkInput) -> Tensor | None:
    """The pixels of each class and of none, [B, n_labels + 1, H, W], for several images of one label map."""
    if model.config.n_images == 1 or not isinstance(condition, LabelInput):
        return None
    codes, n_labels, _ = condition.planes
    kinds = n_labels + 1  # no class is one as well
    return LabelPlanes(codes % kinds, kinds, edges=False).dense()
