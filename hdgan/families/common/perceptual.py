"""The network whose features a perceptual loss compares: VGG19, a scorer, or one with random weights."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from torch import nn

from hdgan.config.options import option
from hdgan.errors import ConfigError
from hdgan.losses import RGB_CHANNELS
from hdgan.models import load_vgg19
from hdgan.models.segmenter import SegmenterFeatures, load_segmenter, random_segmenter
from hdgan.models.vgg import Convolution, Pooling, VGG19Features, missing_weights
from hdgan.wording import count

OnMissing = Callable[[str], None]
RANDOM = Path("random")
"""The value of the option for a scorer that was not trained."""


def check_network(vgg_weights: Path | None, scorer: Path | None, weight: float = 1.0) -> None:
    """Make sure that the options give at most one network, and none if the loss has no weight.

    Raises:
        ConfigError: one of them would have no effect.
    """
    files = {"loss.vgg_weights": vgg_weights, "loss.scorer": scorer}
    given = [f"{option(name)} {file}" for name, file in files.items() if file is not None]
    if len(given) > 1:
        raise ConfigError(f"{' and '.join(given)}: the loss compares the features of only one network; leave one out")
    if given and not weight:
        vgg = option("loss.vgg")
        raise ConfigError(f"{given[0]} has no effect with {vgg} 0; leave it out, or give {vgg} a weight")


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


def least_side(scorer: Path | None) -> int:
    """Pixels that images need on each side for VGG19, or for a scorer in its place, which takes any size."""
    return VGG19Features.LEAST_SIDE if scorer is None else 1


def load_network(
    vgg_weights: Path | None,
    scorer: Path | None,
    convolution: Convolution = 1,
    pooling: Pooling = "max",
    on_missing: OnMissing | None = None,
) -> nn.Module:
    """The scorer if there is one, trained or `RANDOM`, else VGG19.

    Args:
        vgg_weights, scorer: as of the options.
        convolution, pooling: as of `VGG19Features`.
        on_missing: for a dry run: called with what VGG19 lacks, which then keeps its random initial weights.

    Raises:
        ConfigError, CheckpointError: its weights cannot be loaded.
    """
    if scorer is not None:
        return SegmenterFeatures(random_segmenter() if scorer == RANDOM else load_segmenter(scorer))
    missing = missing_weights(vgg_weights) if on_missing is not None else ""
    if on_missing is not None and missing:
        on_missing(missing)
        return VGG19Features(convolution, pooling).eval().requires_grad_(False)
    return load_vgg19(vgg_weights, convolution, pooling)
