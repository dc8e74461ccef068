"""The losses of pix2pixHD (paper sections 3.1, 3.2; NVIDIA/pix2pixHD's formulation).

    min_G  sum_k ( L_GAN(G, D_k) + lambda L_FM(G, D_k) ) + lambda L_VGG(G)        max_D  sum_k L_GAN(G, D_k)

D is run once on the fake (`hdgan.families.common.adversarial`). The step is the same as the original's, which runs D
twice.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar, Literal

from torch import nn
from tyro.conf import Suppress

from hdgan.config.bounds import Positive, Shift, Weight
from hdgan.config.needs import ON, Needs
from hdgan.config.options import option
from hdgan.errors import ConfigError
from hdgan.families.common.adversarial import adversarial_objectives, run_discriminator
from hdgan.families.common.alignment import aligned, shift_names
from hdgan.families.common.augmentation import Augmentation
from hdgan.families.common.batch import Batch, Objectives
from hdgan.families.common.losses import LossConfig, Penalty
from hdgan.families.common.penalty import R1_EVERY, R1Penalty
from hdgan.families.common.perceptual import (
    VGG19,
    OnMissing,
    Shapes,
    check_network,
    digest_of,
    layer_weights,
    least_side,
    load_network,
    n_features_of,
    network_name,
    require_rgb,
)
from hdgan.families.common.pool import FakePool
from hdgan.families.pix2pixhd.config import Pix2PixHDConfig
from hdgan.families.pix2pixhd.model import Pix2PixHD
from hdgan.losses import LAYER_WEIGHTS, GanMode, PerceptualLoss, feature_matching_loss


@dataclass(frozen=True)
class Pix2PixHDLoss(LossConfig):
    """Losses and their weights (paper section 3.2)."""

    NEEDS: ClassVar[Needs] = {
        **{name: {"vgg": ON} for name in ("vgg_layers", "vgg_weights", "scorer", "network", "network_weights")},
        "imagenet_normalisation": {"vgg": ON, "network": VGG19, "scorer": None},
        "r1_every": {"r1": ON},
    }

    family: Suppress[Literal["pix2pixhd"]] = "pix2pixhd"
    gan: GanMode = "lsgan"
    """Least squares, the cross entropy of the original GAN, or hinge."""
    feature_matching: Weight = 10.0
    """Weight of the discriminators' feature matching; 0 leaves it out."""
    vgg: Weight = 10.0
    """Weight of the VGG loss; 0 leaves it out."""
    vgg_layers: tuple[Weight, ...] = LAYER_WEIGHTS
    """Weights of the features in it, fine to coarse; VGG19 and scorers have five."""
    vgg_weights: Path | None = None
    """File of torchvision's VGG19 weights (.pth or .safetensors); None downloads them."""
    scorer: Path | None = None
    """File of a scorer (hdgan evaluate --train-scorer) whose features replace VGG19's; "random" is an untrained one."""
    imagenet_normalisation: bool = False
    """Normalise VGG's input as VGG was trained; off in the original."""
    network: str = VGG19
    """Network whose features the VGG loss compares: vgg19, timm:NAME, or the file of a program (.pt2 of torch.export,
    or TorchScript; give only files that you trust) that maps images in [-1, 1] to one or more features. Distances of
    features other than VGG19's and a scorer's are relative to the size of the photo's."""
    network_weights: Path | None = None
    """File of the weights of timm's network; None takes timm's cache, or downloads them."""
    network_digest: Suppress[str | None] = None
    """SHA-256 of what the run began with, as `digest_of` gives it."""
    max_shift: Shift = 0
    """For photos that are a few pixels off their label maps: every loss sees each photo shifted by up to this many
    pixels, in both directions, to where it is nearest to the generated image."""
    r1: Weight = 0.0
    """Weight gamma of R1, which keeps D's scores flat around real images: gamma / 2 times their squared gradient; 0
    leaves it out. One value suits all image sizes; begin with 1 or less, since 10 may keep D from learning."""
    r1_every: Positive = R1_EVERY
    """Steps from one R1 penalty to the next. The weight is multiplied by this number; 1 takes R1 in every step."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_network(self)
        layers = tuple(self.vgg_layers)
        if self.network == VGG19 and len(layers) != len(LAYER_WEIGHTS):
            raise ConfigError(f"{option('loss.vgg_layers')} is {layers}: give a list of {len(LAYER_WEIGHTS)}")
        if not any(layers):
            raise ConfigError(f"{option('loss.vgg_layers')} is {layers}: at least one weight must not be 0")

    def criterion(self, perceptual: nn.Module | None, pool: FakePool, augmentation: Augmentation) -> Pix2PixHDCriterion:
        return Pix2PixHDCriterion(self, perceptual, pool, augmentation)

    def load_perceptual(self, shapes: Shapes = (), on_missing: OnMissing | None = None) -> nn.Module | None:
        """The network whose features the VGG loss compares, None without this loss; see `load_network`."""
        if not self.vgg:
            return None
        network = load_network(self, shapes=shapes, on_missing=on_missing)
        layer_weights(self, self.vgg_layers, n_features_of(network))
        return network

    def described(self, perceptual: nn.Module | None) -> Pix2PixHDLoss:
        return replace(self, network_digest=digest_of(perceptual) or self.network_digest)

    def check(self, model: Pix2PixHDConfig) -> None:
        if self.feature_matching and not model.discriminator.intermediate_features:
            raise ConfigError(
                "feature matching needs the discriminators' features: turn "
                f"{option('model.discriminator.intermediate_features')} on, or set {option('loss.feature_matching')} 0"
            )

    def check_photos(self, channels: int) -> None:
        if self.vgg:
            require_rgb(channels, f"set {option('loss.vgg')} 0")

    @property
    def least_side(self) -> int:
        return least_side(self) if self.vgg else 1

    @property
    def network_name(self) -> str:
        return network_name(self)


class Pix2PixHDCriterion:
    """The losses of a run with their weights.

    Args:
        config: the weights.
        perceptual: image -> features, for the VGG loss; None without it.
        pool: of earlier fakes.
        augmentation: of what D sees.
    """

    def __init__(
        self, config: Pix2PixHDLoss, perceptual: nn.Module | None, pool: FakePool, augmentation: Augmentation
    ) -> None:
        self.config = config
        self.perceptual = perceptual
        self.vgg: PerceptualLoss | None = None
        if perceptual is not None:
            weights = layer_weights(config, config.vgg_layers, n_features_of(perceptual))
            relative = config.network != VGG19
            self.vgg = PerceptualLoss(perceptual, config.imagenet_normalisation, weights, relative)
        self.pool = pool
        self.augmentation = augmentation
        self.penalty: Penalty | None = R1Penalty(config.r1, config.r1_every, augmentation) if config.r1 else None
        left_out = {"g_feature_matching": not config.feature_matching, "g_vgg": perceptual is None}
        names = ("g_gan", "g_feature_matching", "g_vgg", "d_real", "d_fake", *augmentation.names)
        names += shift_names(config.max_shift)
        self.names = tuple(name for name in names if not left_out.get(name))

    def __call__(self, model: Pix2PixHD, batch: Batch) -> Objectives:
        """Run the networks on a micro batch and return both objectives; D's objective contains its losses halved."""
        condition = model.condition(batch.label, batch.ids, batch.source)
        features = model.encode(batch.photo, batch.instances()) if model.encoder is not None else None
        fake = model.generate(condition, features)
        photo, shift = aligned(batch.photo, fake, self.config.max_shift)
        outputs = run_discriminator(model, condition, fake, photo, self.pool, self.augmentation)

        terms = []
        if self.config.feature_matching:
            terms.append(self.config.feature_matching * feature_matching_loss(outputs.fake, outputs.real))
        if self.vgg is not None:
            terms.append(self.config.vgg * self.vgg(fake, photo))
        objectives = adversarial_objectives(outputs, self.config.gan, terms, self.augmentation)
        return objectives.with_parts(shift)
