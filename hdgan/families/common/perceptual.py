"""Losses that compare the features of a network: VGG19, a scorer, a network of timm, or a program."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar, Literal, cast

from torch import nn
from tyro.conf import Suppress

from hdgan.config.needs import Needs
from hdgan.config.options import option
from hdgan.errors import ConfigError
from hdgan.families.common.losses import LossConfig, OnMissing, Shapes
from hdgan.losses import LAYER_WEIGHTS, rgb_obstacle
from hdgan.models import load_vgg19
from hdgan.models.programs import ProgramFeatures, count_features, run_program
from hdgan.models.segmenter import SegmenterFeatures, load_segmenter, random_segmenter
from hdgan.models.timm_features import TimmFeatures, least_side_of, load_timm, untrained_timm
from hdgan.models.vgg import Convolution, Pooling, VGG19Features, missing_weights

VGG19 = "vgg19"
"""The value of `loss.network` for VGG19, or for a scorer in its place."""
_TIMM = "timm:"
_TRIED = ((1, 256, 256),)


@dataclass(frozen=True)
class PerceptualLossConfig(LossConfig):
    """The losses of a family that compares the features of one network."""

    NEEDS: ClassVar[Needs] = {"imagenet_normalisation": {"network": VGG19, "scorer": None}}
    CONVOLUTION: ClassVar[Convolution] = 1
    """Of the features of VGG19, as in `VGG19Features`."""
    POOLING: ClassVar[Pooling] = "max"
    """Likewise."""

    vgg_weights: Path | None = None
    """File of torchvision's VGG19 weights (.pth or .safetensors); None downloads them."""
    scorer: Literal["random"] | Path | None = None
    """File of a scorer (hdgan evaluate --train-scorer) whose features replace VGG19's; "random" is an untrained one."""
    imagenet_normalisation: bool = False
    """Normalise VGG19's input as VGG19 was trained; on in the original of CRN, off in that of pix2pixHD."""
    network: str = VGG19
    """Network whose features are compared: vgg19, timm:NAME, or the file of a program (.pt2 of torch.export, or
    TorchScript; give only files that you trust) that maps images in [-1, 1] to one or more features."""
    network_weights: Path | None = None
    """File of the weights of timm's network; None takes timm's cache, or downloads them."""
    network_digest: Suppress[str | None] = None
    """SHA-256 of the network of timm or the program that the run began with."""

    def __post_init__(self) -> None:
        super().__post_init__()
        network = None if self.network == VGG19 else self.network
        networks = {"vgg_weights": self.vgg_weights, "scorer": self.scorer, "network": network}
        given = [f"{option(f'loss.{name}')} {value}" for name, value in networks.items() if value is not None]
        if len(given) > 1:
            raise ConfigError(
                f"{' and '.join(given)}: the loss compares the features of only one network; leave one out"
            )
        if self.scorer == Path("random"):  # a saved config could not tell it from the word
            raise ConfigError(
                f"{option('loss.scorer')} is a file named random, but this word means an untrained scorer: rename the "
                'file, or give the text "random"'
            )
        if self.network_weights is not None and not self._timm_name:
            raise ConfigError(
                f"{option('loss.network_weights')} {self.network_weights} applies only to a network of timm: give "
                f"{option('loss.network')} timm:NAME, or leave it out"
            )

    def load_perceptual(self, shapes: Shapes = (), on_missing: OnMissing | None = None) -> nn.Module | None:
        if not self.compares_features:
            return None
        if self.scorer is not None:
            return SegmenterFeatures(random_segmenter() if self.scorer == "random" else load_segmenter(self.scorer))
        if self.network == VGG19:
            return self._vgg19(on_missing)
        shapes = shapes or _TRIED
        return self._timm(shapes, on_missing) if self._timm_name else self._program(shapes)

    def described(self, perceptual: nn.Module | None) -> LossConfig:
        if isinstance(perceptual, TimmFeatures | ProgramFeatures):
            return replace(self, network_digest=perceptual.digest)
        return self

    def check_photos(self, channels: int) -> None:
        obstacle = rgb_obstacle(channels, "the photos")
        if self.compares_features and obstacle:
            raise ConfigError(f"the perceptual loss {obstacle}: {self.without_features}")

    @property
    def compares_features(self) -> bool:
        """Whether the loss has its perceptual part."""
        return True

    @property
    def without_features(self) -> str:
        """What a user can do to train without comparing features."""
        return "train a model of another family"

    @property
    def is_vgg19(self) -> bool:
        """Whether the network is VGG19."""
        return self.network == VGG19 and self.scorer is None

    @property
    def least_side(self) -> int:
        """As in the base class. A scorer takes any size, and a program is tried on the images' shapes."""
        if not self.compares_features:
            return 1
        if self._timm_name:
            return least_side_of(self._timm_name)
        return VGG19Features.LEAST_SIDE if self.is_vgg19 else 1

    @property
    def network_name(self) -> str:
        return f"timm's {self._timm_name}" if self._timm_name else "VGG19"

    @property
    def network_file(self) -> Path | None:
        if self.network == VGG19:
            return None if self.scorer == "random" else self.scorer
        return None if self._timm_name else Path(self.network)

    @property
    def _timm_name(self) -> str:
        """The name of timm's network, if the loss compares the features of one; else empty."""
        return self.network.removeprefix(_TIMM) if self.network.startswith(_TIMM) else ""

    def _vgg19(self, on_missing: OnMissing | None) -> VGG19Features:
        missing = missing_weights(self.vgg_weights) if on_missing is not None else ""
        if on_missing is not None and missing:
            on_missing(missing)
            return VGG19Features(self.CONVOLUTION, self.POOLING).eval().requires_grad_(False)
        return load_vgg19(self.vgg_weights, self.CONVOLUTION, self.POOLING)

    def _timm(self, shapes: Shapes, on_missing: OnMissing | None) -> TimmFeatures:
        name, file = self._timm_name, self.network_weights
        if on_missing is not None and not (file and file.is_file()):
            download = f"a run first downloads timm's weights of {name}, unless they are in its cache"
            on_missing(download if file is None else f"the weights {file} of timm's {name} do not exist")
            network = untrained_timm(name)
        else:
            network = load_timm(name, file)
        typed, remedy = f"{option('loss.network')} timm:{name}", "choose a convolutional network, which takes any size"
        sizes = dict.fromkeys((1, height, width) for _, height, width in shapes)
        count_features(lambda images: run_program(network, images, typed, remedy), sizes, typed)
        return network

    def _program(self, shapes: Shapes) -> ProgramFeatures:
        file = Path(self.network)
        if not file.exists():
            raise ConfigError(
                f"{option('loss.network')} {file} does not exist: give vgg19, timm:NAME, or the file of a program"
            )
        return ProgramFeatures(file, shapes)


def n_features_of(network: nn.Module) -> int:
    """How many features a network returns: five, as VGG19 and scorers, unless it says otherwise."""
    return cast(int, getattr(network, "n_features", len(LAYER_WEIGHTS)))
