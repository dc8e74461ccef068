"""The losses of pix2pixHD (paper sections 3.1, 3.2; NVIDIA/pix2pixHD's formulation).

    min_G  sum_k ( L_GAN(G, D_k) + lambda L_FM(G, D_k) ) + lambda L_VGG(G)        max_D  sum_k L_GAN(G, D_k)

D is run once on the fake (`hdgan.families.common.adversarial`). The step is the same as the original's, which runs D
twice.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from torch import nn
from tyro.conf import Suppress

from hdgan.config.bounds import Weight
from hdgan.config.needs import ON, Needs
from hdgan.config.options import option
from hdgan.errors import ConfigError
from hdgan.families.common.adversarial import adversarial_objectives, run_discriminator
from hdgan.families.common.alignment import aligned, shift_names
from hdgan.families.common.augmentation import Augmentation
from hdgan.families.common.batch import Batch, Objectives
from hdgan.families.common.losses import OnMissing, Penalty, Shapes
from hdgan.families.common.penalty import R1LossConfig
from hdgan.families.common.perceptual import PerceptualLossConfig, n_features_of, same_features
from hdgan.families.common.pool import FakePool
from hdgan.families.pix2pixhd.config import Pix2PixHDConfig
from hdgan.families.pix2pixhd.model import Pix2PixHD
from hdgan.losses import LAYER_WEIGHTS, GanMode, PerceptualLoss, feature_matching_loss


@dataclass(frozen=True)
class Pix2PixHDLoss(PerceptualLossConfig, R1LossConfig):
    """Losses and their weights (paper section 3.2)."""

    NEEDS: ClassVar[Needs] = {
        name: {"vgg": ON} for name in ("vgg_layers", "network", "network_weights", "imagenet_normalisation")
    }

    family: Suppress[Literal["pix2pixhd"]] = "pix2pixhd"
    gan: GanMode = "lsgan"
    """Least squares, the cross entropy of the original GAN, or hinge."""
    feature_matching: Weight = 10.0
    """Weight of the discriminators' feature matching; 0 leaves it out."""
    vgg: Weight = 10.0
    """Weight of the VGG loss; 0 leaves it out. Distances of features other than VGG19's and a scorer's are relative to
    the size of the photo's."""
    vgg_layers: tuple[Weight, ...] = LAYER_WEIGHTS
    """Weights of the features in it, fine to coarse; VGG19 and scorers have five."""

    def __post_init__(self) -> None:
        super().__post_init__()
        layers = tuple(self.vgg_layers)
        if (self.is_vgg19 or self.is_scorer) and len(layers) != len(LAYER_WEIGHTS):
            raise ConfigError(f"{option('loss.vgg_layers')} is {layers}: give a list of {len(LAYER_WEIGHTS)}")
        if not any(layers):
            raise ConfigError(f"{option('loss.vgg_layers')} is {layers}: at least one weight must not be 0")

    def criterion(self, perceptual: nn.Module | None, pool: FakePool, augmentation: Augmentation) -> Pix2PixHDCriterion:
        return Pix2PixHDCriterion(self, perceptual, pool, augmentation)

    def load_perceptual(self, shapes: Shapes = (), on_missing: OnMissing | None = None) -> nn.Module | None:
        network = super().load_perceptual(shapes, on_missing)
        if network is not None:
            self.layer_weights(n_features_of(network))
        return network

    def defaults_for(self, network: str) -> dict[str, Any]:
        weights = {} if same_features(network, self.network) else {"vgg_layers": LAYER_WEIGHTS}
        return super().defaults_for(network) | weights

    def layer_weights(self, n_features: int) -> tuple[float, ...]:
        """The weights of the features of a network.

        The usual ones are for five features: a network with fewer takes the last of them, and one with more halves the
        first of them for each further feature.

        Raises:
            ConfigError: they are not the usual ones, and of another number.
        """
        given = tuple(self.vgg_layers)
        if given == LAYER_WEIGHTS:
            finer = [LAYER_WEIGHTS[0] / 2**k for k in range(n_features - len(LAYER_WEIGHTS), 0, -1)]
            return (*finer, *LAYER_WEIGHTS[-n_features:])
        if len(given) != n_features:
            raise ConfigError(
                f"{option('loss.vgg_layers')} is {given}, but {option('loss.network')} {self.network} has {n_features} "
                "features: give as many weights"
            )
        return given

    def check(self, model: Pix2PixHDConfig) -> None:
        if self.feature_matching and not model.discriminator.intermediate_features:
            raise ConfigError(
                "feature matching needs the discriminators' features: turn "
                f"{option('model.discriminator.intermediate_features')} on, or set {option('loss.feature_matching')} 0"
            )

    @property
    def compares_features(self) -> bool:
        return bool(self.vgg)

    @property
    def without_features(self) -> str:
        return f"set {option('loss.vgg')} 0"


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
            weights = config.layer_weights(n_features_of(perceptual))
            relative = not (config.is_vgg19 or config.is_scorer)
            self.vgg = PerceptualLoss(perceptual, config.imagenet_normalisation and config.is_vgg19, weights, relative)
        self.pool = pool
        self.augmentation = augmentation
        self.penalty: Penalty | None = config.penalty(augmentation)
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
