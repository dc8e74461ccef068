"""The losses of pix2pixHD (paper sections 3.1, 3.2; NVIDIA/pix2pixHD's formulation).

    min_G  sum_k ( L_GAN(G, D_k) + lambda L_FM(G, D_k) ) + lambda L_VGG(G)        max_D  sum_k L_GAN(G, D_k)

D is run once on the fake (`hdgan.families.common.adversarial`). The step is the same as the original's, which runs D
twice.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from torch import nn
from tyro.conf import Suppress

from hdgan.config.bounds import Weight
from hdgan.config.options import option
from hdgan.errors import ConfigError
from hdgan.families.common.adversarial import adversarial_objectives, run_discriminator
from hdgan.families.common.batch import Batch, Objectives
from hdgan.families.common.losses import LossConfig
from hdgan.families.common.perceptual import OnMissing, check_network, least_side, load_network
from hdgan.families.common.pool import FakePool
from hdgan.families.pix2pixhd.config import Pix2PixHDConfig
from hdgan.families.pix2pixhd.model import Pix2PixHD
from hdgan.losses import LAYER_WEIGHTS, GanMode, PerceptualLoss, feature_matching_loss


@dataclass(frozen=True)
class Pix2PixHDLoss(LossConfig):
    """Losses and their weights (paper section 3.2)."""

    family: Suppress[Literal["pix2pixhd"]] = "pix2pixhd"
    gan: GanMode = "lsgan"
    """Least squares, or the cross entropy of the original GAN."""
    feature_matching: Weight = 10.0
    """Weight of the discriminators' feature matching; 0 leaves it out."""
    vgg: Weight = 10.0
    """Weight of the VGG loss; 0 leaves it out."""
    vgg_layers: tuple[Weight, Weight, Weight, Weight, Weight] = LAYER_WEIGHTS
    """Weights of the five features in it, fine to coarse."""
    vgg_weights: Path | None = None
    """File of torchvision's VGG19 weights (.pth or .safetensors); None downloads them."""
    scorer: Path | None = None
    """File of a scorer (hdgan evaluate --train-scorer) whose features replace VGG19's; "random" is an untrained one."""
    imagenet_normalisation: bool = False
    """Normalise VGG's input as VGG was trained; off in the original."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_network(self.vgg_weights, self.scorer, self.vgg)
        layers, off = tuple(self.vgg_layers), f"has no effect with {option('loss.vgg')} 0: leave it out"
        if not any(layers):
            raise ConfigError(f"{option('loss.vgg_layers')} is {layers}: at least one weight must not be 0")
        if self.imagenet_normalisation and not self.vgg:
            raise ConfigError(f"{option('loss.imagenet_normalisation')} {off}")
        if layers != LAYER_WEIGHTS and not self.vgg:
            raise ConfigError(f"{option('loss.vgg_layers')} {off}")
        if self.scorer is not None and self.imagenet_normalisation:
            raise ConfigError(
                f"{option('loss.scorer')} takes images in [-1, 1]: turn {option('loss.imagenet_normalisation')} off"
            )

    def criterion(self, perceptual: nn.Module | None, pool: FakePool) -> Pix2PixHDCriterion:
        return Pix2PixHDCriterion(self, perceptual, pool)

    def load_perceptual(self, on_missing: OnMissing | None = None) -> nn.Module | None:
        """The network whose features the VGG loss compares, None without this loss; see `load_network`."""
        return load_network(self.vgg_weights, self.scorer, on_missing=on_missing) if self.vgg else None

    def check(self, model: Pix2PixHDConfig) -> None:
        if self.feature_matching and not model.discriminator.intermediate_features:
            raise ConfigError(
                "feature matching needs the discriminators' features: turn "
                f"{option('model.discriminator.intermediate_features')} on, or set {option('loss.feature_matching')} 0"
            )

    @property
    def least_side(self) -> int:
        return least_side(self.scorer) if self.vgg else 1


class Pix2PixHDCriterion:
    """The losses of a run with their weights.

    Args:
        config: the weights.
        perceptual: image -> features, for the VGG loss; None without it.
        pool: of earlier fakes.
    """

    def __init__(self, config: Pix2PixHDLoss, perceptual: nn.Module | None, pool: FakePool) -> None:
        self.config = config
        self.perceptual = perceptual
        self.vgg = (
            None if perceptual is None else PerceptualLoss(perceptual, config.imagenet_normalisation, config.vgg_layers)
        )
        self.pool = pool
        left_out = {"g_feature_matching": not config.feature_matching, "g_vgg": perceptual is None}
        names = ("g_gan", "g_feature_matching", "g_vgg", "d_real", "d_fake")
        self.names = tuple(name for name in names if not left_out.get(name))

    def __call__(self, model: Pix2PixHD, batch: Batch) -> Objectives:
        """Run the networks on a micro batch and return both objectives; D's objective contains its losses halved."""
        condition = model.condition(batch.label, batch.ids, batch.source)
        features = model.encode(batch.photo, batch.instances()) if model.encoder is not None else None
        fake = model.generate(condition, features)
        outputs = run_discriminator(model, condition, fake, batch.photo, self.pool)

        terms = []
        if self.config.feature_matching:
            terms.append(self.config.feature_matching * feature_matching_loss(outputs.fake, outputs.real))
        if self.vgg is not None:
            terms.append(self.config.vgg * self.vgg(fake, batch.photo))
        return adversarial_objectives(outputs, self.config.gan, fake, terms)
