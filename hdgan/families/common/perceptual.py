"""The network whose features a perceptual loss compares: VGG19, a scorer, a network of timm, or a program."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol, cast

import torch
from torch import nn

from hdgan.config.options import option
from hdgan.errors import ConfigError
from hdgan.losses import LAYER_WEIGHTS, RGB_CHANNELS
from hdgan.models import load_vgg19
from hdgan.models.programs import ProgramFeatures
from hdgan.models.segmenter import SegmenterFeatures, load_segmenter, random_segmenter
from hdgan.models.timm_features import TimmFeatures, least_side_of, load_timm, untrained_timm
from hdgan.models.vgg import Convolution, Pooling, VGG19Features, missing_weights
from hdgan.wording import count

OnMissing = Callable[[str], None]
Shapes = Sequence[tuple[int, int, int]]
"""Batch, height and width of the images of some stages."""
RANDOM = Path("random")
"""The value of the option for a scorer that was not trained."""
VGG19 = "vgg19"
"""The value of `loss.network` for VGG19, or for a scorer in its place."""
_TIMM = "timm:"
_TRIED = ((1, 256, 256),)


class NetworkOptions(Protocol):
    """The options of a loss that choose its network."""

    @property
    def vgg_weights(self) -> Path | None: ...
    @property
    def scorer(self) -> Path | None: ...
    @property
    def network(self) -> str: ...
    @property
    def network_weights(self) -> Path | None: ...


def check_network(loss: NetworkOptions) -> None:
    """Make sure that the options give at most one network.

    Raises:
        ConfigError: they give more, or weights of no network.
    """
    given = [f"{option(f'loss.{name}')} {value}" for name, value in _given(loss).items()]
    if len(given) > 1:
        raise ConfigError(f"{' and '.join(given)}: the loss compares the features of only one network; leave one out")
    if loss.network_weights is not None and not timm_name(loss):
        raise ConfigError(
            f"{option('loss.network_weights')} {loss.network_weights} applies only to a network of timm: give "
            f"{option('loss.network')} timm:NAME, or leave it out"
        )


def timm_name(loss: NetworkOptions) -> str:
    """The name of timm's network, if the loss compares the features of one; else empty."""
    return loss.network.removeprefix(_TIMM) if loss.network.startswith(_TIMM) else ""


def network_file(loss: Any) -> Path | None:
    """The file of a scorer or program whose features a loss of any family compares; None without one."""
    network: str = getattr(loss, "network", VGG19)
    if network == VGG19:
        return getattr(loss, "scorer", None)
    return None if timm_name(loss) else Path(network)


def network_name(loss: NetworkOptions) -> str:
    """The name of the network in messages about the size of images."""
    return f"timm's {timm_name(loss)}" if timm_name(loss) else "VGG19"


def n_features_of(network: nn.Module) -> int:
    """How many features a network returns: five, as VGG19 and scorers, unless it says otherwise."""
    return cast(int, getattr(network, "n_features", len(LAYER_WEIGHTS)))


def least_side(loss: NetworkOptions) -> int:
    """Pixels that images need on each side. A scorer takes any size, and a program is tried on the images' shapes."""
    if timm_name(loss):
        return least_side_of(timm_name(loss))
    return VGG19Features.LEAST_SIDE if loss.scorer is None and loss.network == VGG19 else 1


def layer_weights(loss: NetworkOptions, given: Sequence[float], n_features: int) -> tuple[float, ...]:
    """The weights of the features of a network.

    Args:
        loss: its options.
        given: the weights in the options. If they are the usual ones, which are for five features, a network with fewer
            takes the last of them, and one with more halves the first of them for each further feature.
        n_features: of the network.

    Raises:
        ConfigError: they are not the usual ones, and of another number.
    """
    if tuple(given) == LAYER_WEIGHTS:
        finer = [LAYER_WEIGHTS[0] / 2**k for k in range(n_features - len(LAYER_WEIGHTS), 0, -1)]
        return (*finer, *LAYER_WEIGHTS[-n_features:])
    if len(given) != n_features:
        raise ConfigError(
            f"{option('loss.vgg_layers')} is {tuple(given)}, but {option('loss.network')} {loss.network} has "
            f"{n_features} features: give as many weights"
        )
    return tuple(given)


def require_rgb(channels: int, remedy: str) -> None:
    """Make sure that the network, which takes RGB images, can compare the photos; one channel is repeated.

    Raises:
        ConfigError: they have other channels; the message ends with the remedy.
    """
    if channels not in RGB_CHANNELS:
        raise ConfigError(
            f"the photos have {count(channels, 'channel')}, but the perceptual loss compares features of RGB or "
            f"grey images: {remedy}"
        )


def load_network(
    loss: NetworkOptions,
    convolution: Convolution = 1,
    pooling: Pooling = "max",
    shapes: Shapes = (),
    on_missing: OnMissing | None = None,
) -> nn.Module:
    """The network of the loss, which maps images [B, 3, H, W] in [-1, 1] to features [B, C, h, w], fine to coarse.

    Args:
        loss: its options.
        convolution, pooling: as of `VGG19Features`.
        shapes: of the training images, on which programs and networks of timm are tried; 256x256 if empty.
        on_missing: for a dry run: called with what VGG19 or timm's network lacks, which then keeps its random initial
            weights.

    Raises:
        ConfigError, CheckpointError: its weights cannot be loaded, or it cannot take such images.
    """
    if loss.scorer is not None:
        return SegmenterFeatures(random_segmenter() if loss.scorer == RANDOM else load_segmenter(loss.scorer))
    if loss.network == VGG19:
        missing = missing_weights(loss.vgg_weights) if on_missing is not None else ""
        if on_missing is not None and missing:
            on_missing(missing)
            return VGG19Features(convolution, pooling).eval().requires_grad_(False)
        return load_vgg19(loss.vgg_weights, convolution, pooling)
    name = timm_name(loss)
    if name and on_missing is not None and not (loss.network_weights and loss.network_weights.is_file()):
        file = loss.network_weights
        cached = f"a run first downloads timm's weights of {name}, unless they are in its cache"
        on_missing(cached if file is None else f"the weights {file} of timm's {name} do not exist")
        return untrained_timm(name)
    return _timm(loss, shapes) if name else _program(Path(loss.network), shapes)


def digest_of(network: nn.Module | None) -> str | None:
    """What `loss.network_digest` records of a network; None for VGG19 and scorers."""
    return network.digest if isinstance(network, TimmFeatures | ProgramFeatures) else None


def _given(loss: NetworkOptions) -> dict[str, Path | str]:
    """The options that choose a network, by their names."""
    network = None if loss.network == VGG19 else loss.network
    values = {"vgg_weights": loss.vgg_weights, "scorer": loss.scorer, "network": network}
    return {name: value for name, value in values.items() if value is not None}


def _timm(loss: NetworkOptions, shapes: Shapes) -> TimmFeatures:
    name = timm_name(loss)
    network = load_timm(name, loss.network_weights)
    for height, width in {shape[1:] for shape in shapes}:
        try:
            with torch.no_grad():
                network(torch.zeros(1, 3, height, width))
        except (RuntimeError, AssertionError, ValueError) as error:
            raise ConfigError(
                f"{option('loss.network')} timm:{name} cannot take an image of {width}x{height} "
                f"({str(error).strip()}): choose a convolutional network, which takes any size"
            ) from error
    return network


def _program(file: Path, shapes: Shapes) -> ProgramFeatures:
    if not file.exists():
        raise ConfigError(f"{option('loss.network')} {file}: give vgg19, timm:NAME, or the file of a program")
    return ProgramFeatures(file, shapes or _TRIED)
