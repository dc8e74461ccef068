"""The losses of CRN (Chen and Koltun 2017, arXiv 1707.09405, section 3): a balanced perceptual loss, no GAN loss."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn
from tyro.conf import Suppress

from hdgan.config.bounds import Shift
from hdgan.config.needs import Needs
from hdgan.families.common.alignment import aligned, shift_names
from hdgan.families.common.augmentation import Augmentation
from hdgan.families.common.batch import Batch, Objectives
from hdgan.families.common.losses import LossConfig, Penalty
from hdgan.families.common.perceptual import (
    VGG19,
    OnMissing,
    Shapes,
    check_network,
    digest_of,
    least_side,
    load_network,
    n_features_of,
    network_name,
    require_rgb,
)
from hdgan.families.common.pool import FakePool
from hdgan.families.crn.model import CRN
from hdgan.losses import BalancedPerceptualLoss
from hdgan.models.inputs import LabelInput, NetworkInput
from hdgan.ops import LabelPlanes


@dataclass(frozen=True)
class CRNLoss(LossConfig):
    """The network whose features are compared; their weights follow from their distances."""

    NEEDS: ClassVar[Needs] = {"imagenet_normalisation": {"network": VGG19, "scorer": None}}

    family: Suppress[Literal["crn"]] = "crn"
    vgg_weights: Path | None = None
    """File of torchvision's VGG19 weights (.pth or .safetensors); None downloads them."""
    scorer: Path | None = None
    """File of a scorer (hdgan evaluate --train-scorer) whose features replace VGG19's; "random" is an untrained one."""
    imagenet_normalisation: bool = True
    """Normalise VGG's input as VGG was trained, as the original does. A scorer always takes images unchanged."""
    network: str = VGG19
    """Network whose features are compared: vgg19, timm:NAME, or the file of a program (.pt2 of torch.export, or
    TorchScript; give only files that you trust) that maps images in [-1, 1] to one or more features."""
    network_weights: Path | None = None
    """File of the weights of timm's network; None takes timm's cache, or downloads them."""
    network_digest: Suppress[str | None] = None
    """SHA-256 of what the run began with, as `digest_of` gives it."""
    max_shift: Shift = 0
    """For photos that are a few pixels off their label maps: every loss sees each photo shifted by up to this many
    pixels, in both directions, to where it is nearest to the generated image, or to the mean of several."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_network(self)

    def criterion(self, perceptual: nn.Module | None, pool: FakePool, augmentation: Augmentation) -> CRNCriterion:
        return CRNCriterion(self, perceptual)

    def load_perceptual(self, shapes: Shapes = (), on_missing: OnMissing | None = None) -> nn.Module:
        """VGG19 as in the authors' code, relu1_2 … relu5_2 with average pooling, or another; see `load_network`."""
        return load_network(self, convolution=2, pooling="avg", shapes=shapes, on_missing=on_missing)

    def described(self, perceptual: nn.Module | None) -> CRNLoss:
        return replace(self, network_digest=digest_of(perceptual) or self.network_digest)

    def check_photos(self, channels: int) -> None:
        require_rgb(channels, "train a model of another family")

    @property
    def least_side(self) -> int:
        return least_side(self)

    @property
    def network_name(self) -> str:
        return network_name(self)


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
        of_vgg = config.network == VGG19 and config.scorer is None
        self.loss = BalancedPerceptualLoss(perceptual, config.imagenet_normalisation and of_vgg)

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
