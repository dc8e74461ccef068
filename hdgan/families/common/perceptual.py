"""Losses that compare the features of a network: VGG19, a scorer, a network of timm, or a program."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, cast

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
from hdgan.models.vgg import WEIGHTS_URL, Convolution, Pooling, VGG19Features, missing_weights

VGG19 = "vgg19"
RANDOM = "random"
"""The values of `loss.network` for VGG19, and for a scorer that was not trained."""
_TIMM = "timm:"
_TRIED = ((1, 256, 256),)


@dataclass(frozen=True)
class PerceptualLossConfig(LossConfig):
    """The losses of a family that compares the features of one network."""

    NEEDS: ClassVar[Needs] = {"imagenet_normalisation": {"network": VGG19}}
    CONVOLUTION: ClassVar[Convolution] = 1
    """Of the features of VGG19, as in `VGG19Features`."""
    POOLING: ClassVar[Pooling] = "max"
    """Likewise."""

    network: str = VGG19
    """Network whose features are compared: vgg19; timm:NAME; random, a scorer that was not trained; the .safetensors of
    a scorer (hdgan evaluate --train-scorer); or the file of a program (.pt2 of torch.export, or TorchScript; give only
    files that you trust) that maps images in [-1, 1] to one or more features."""
    network_weights: Path | None = None
    """File of torchvision's VGG19 weights (.pth or .safetensors), or of the weights of timm's network; None takes the
    cache of torch.hub or timm, or downloads them."""
    imagenet_normalisation: bool = False
    """Normalise VGG19's input as VGG19 was trained; on in the original of CRN, off in that of pix2pixHD."""
    network_digest: Suppress[str | None] = None
    """SHA-256 of the network of timm or the program that the run began with."""

    @classmethod
    def upgraded(cls, plain: Mapping[str, Any]) -> dict[str, Any]:
        """Earlier versions had options of their own for scorers and for the weights of VGG19."""
        plain = dict(plain)
        for old, new in (("scorer", "network"), ("vgg_weights", "network_weights")):
            value = plain.pop(old, None)
            plain |= {} if value is None else {new: value}
        return plain

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.network_weights is not None and not (self.is_vgg19 or self._timm_name):
            raise ConfigError(
                f"{option('loss.network_weights')} {self.network_weights} applies only to vgg19 or a network of timm: "
                f"give {option('loss.network')} vgg19 or timm:NAME, or set it to None"
            )

    def load_perceptual(self, shapes: Shapes = (), on_missing: OnMissing | None = None) -> nn.Module | None:
        if not self.compares_features:
            return None
        if self.is_vgg19:
            return self._vgg19(on_missing)
        if self.is_scorer:
            return SegmenterFeatures(random_segmenter() if self.network == RANDOM else load_segmenter(self._file()))
        shapes = shapes or _TRIED
        return self._timm(shapes, on_missing) if self._timm_name else ProgramFeatures(self._file(), shapes)

    def described(self, perceptual: nn.Module | None) -> LossConfig:
        if isinstance(perceptual, TimmFeatures | ProgramFeatures):
            return replace(self, network_digest=perceptual.digest)
        return self

    def defaults_for(self, network: str) -> dict[str, Any]:
        # `described` records the digest of the new one.
        return {} if network == self.network else {"network_weights": None, "network_digest": None}

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
        return self.network == VGG19

    @property
    def is_scorer(self) -> bool:
        """Whether the network is one of hdgan's scorers, trained or not."""
        return _is_scorer(self.network)

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
        return None if self.network in (VGG19, RANDOM) or self._timm_name else Path(self.network)

    @property
    def _timm_name(self) -> str:
        """The name of timm's network, if the loss compares the features of one; else empty."""
        return self.network.removeprefix(_TIMM) if self.network.startswith(_TIMM) else ""

    def _file(self) -> Path:
        """The file of the scorer or program."""
        file = Path(self.network)
        if not file.exists():
            raise ConfigError(
                f"{option('loss.network')} {file} does not exist: give vgg19, timm:NAME, random, or the file of a "
                "scorer or a program"
            )
        return file

    def _vgg19(self, on_missing: OnMissing | None) -> VGG19Features:
        typed = option("loss.network")
        remedy = (
            f"download {WEIGHTS_URL} on a machine with internet access and pass it as "
            f"{option('loss.network_weights')} FILE, or compare the features of another network: {typed} FILE, or "
            f"{typed} random for one that was not trained"
        )
        missing = missing_weights(self.network_weights, remedy) if on_missing is not None else ""
        if on_missing is not None and missing:
            on_missing(missing)
            return VGG19Features(self.CONVOLUTION, self.POOLING).eval().requires_grad_(False)
        return load_vgg19(self.network_weights, self.CONVOLUTION, self.POOLING, remedy)

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


def same_features(one: str, other: str) -> bool:
    """Whether weights of the features of one network suit those of another, by their names as `loss.network`.

    VGG19 and scorers have five features of the same sizes. A file of a program may be a copy of another.
    """
    return _features(one) == _features(other)


def _features(network: str) -> str:
    if network == VGG19 or _is_scorer(network):
        return VGG19
    return network if network.startswith(_TIMM) else "program"


def _is_scorer(network: str) -> bool:
    return network == RANDOM or (not network.startswith(_TIMM) and Path(network).suffix == ".safetensors")


def n_features_of(network: nn.Module) -> int:
    """How many features a network returns: five, as VGG19 and scorers, unless it says otherwise."""
    return cast(int, getattr(network, "n_features", len(LAYER_WEIGHTS)))
