"""The losses of CRN (Chen and Koltun 2017, arXiv 1707.09405, section 3): a balanced perceptual loss, no GAN loss."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn
from tyro.conf import Suppress

from hdgan.families.common.alignment import aligned, shift_names
from hdgan.families.common.augmentation import Augmentation
from hdgan.families.common.batch import Batch, Objectives
from hdgan.families.common.losses import Penalty
from hdgan.families.common.perceptual import PerceptualLossConfig, n_features_of
from hdgan.families.common.pool import FakePool
from hdgan.families.crn.model import CRN
from hdgan.losses import BalancedPerceptualLoss
from hdgan.models.inputs import LabelInput, NetworkInput
from hdgan.models.vgg import Convolution, Pooling
from hdgan.ops import LabelPlanes


@dataclass(frozen=True)
class CRNLoss(PerceptualLossConfig):
    """The network whose features are compared, by default VGG19 as in the authors' code: relu1_2 … relu5_2 with average
    pooling, and its input normalised. The weights of the features follow from their distances."""

    CONVOLUTION: ClassVar[Convolution] = 2
    POOLING: ClassVar[Pooling] = "avg"

    family: Suppress[Literal["crn"]] = "crn"
    imagenet_normalisation: bool = True

    def criterion(self, perceptual: nn.Module | None, pool: FakePool, augmentation: Augmentation) -> CRNCriterion:
        return CRNCriterion(self, perceptual)


class CRNCriterion:
    """The loss of a run.

    Args:
        config: of the loss.
        perceptual: image -> features.

    Attributes:
        names: of the loss, and of the distances in it before they are balanced.
    """

    penalty: Penalty | None = None

    def __init__(self, config: CRNLoss, perceptual: nn.Module | None) -> None:
        assert perceptual is not None
        self.perceptual: nn.Module | None = perceptual
        self.max_shift = config.max_shift
        of_features = (f"l1_feature_{i}" for i in range(1, n_features_of(perceptual) + 1))
        self.names: tuple[str, ...] = ("g_perceptual", "l1_image", *of_features, *shift_names(config.max_shift))
        self.loss = BalancedPerceptualLoss(perceptual, config.imagenet_normalisation and config.is_vgg19)

    def __call__(self, model: CRN, batch: Batch) -> Objectives:
        """Run G on a micro batch and return its objective."""
        condition = model.condition(batch.label, batch.ids, batch.source)
        images = model.images(condition)
        photo, shift = aligned(batch.photo, images.mean(1), self.max_shift)
        loss, distances = self.loss(images, photo, _class_masks(model, condition))
        parts = torch.cat([loss.detach()[None], distances])
        return Objectives(loss, discriminator=None, parts=parts, fake=images.detach()).with_parts(shift)


def _class_masks(model: CRN, condition: NetworkInput) -> Tensor | None:
    """The pixels of each class and of none, [B, n_labels + 1, H, W], for several images of one label map."""
    if model.config.n_images == 1 or not isinstance(condition, LabelInput):
        return None
    codes, n_labels, _ = condition.planes
    kinds = n_labels + 1  # no class is one as well
    return LabelPlanes(codes % kinds, kinds, edges=False).dense()
