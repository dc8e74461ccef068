"""The network whose features the perceptual losses of all rows compare: a twin of the scorer, or one that is given."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import nn

from hdgan.config.options import option
from hdgan.errors import ConfigError
from hdgan.families.common.perceptual import PerceptualLossConfig, n_features_of
from hdgan.families.pix2pixhd.losses import Pix2PixHDLoss
from hdgan.losses import LAYER_WEIGHTS
from hdgan.reproduce.plan import Options
from hdgan.reproduce.record import DIGITS
from hdgan.reproduce.scales import Scale
from hdgan.weights.modules import digest_of_tensors
from hdgan.wording import count

TWIN = "twin"
"""The name of the network that is trained as the scorer is, with another seed."""


@dataclass(frozen=True)
class PerceptualNetwork:
    """What a folder and its rows know about the network."""

    name: str = TWIN
    """TWIN, vgg19, timm:NAME, random, or the name of the file of a scorer or program."""
    digest: str = ""
    """Start of the SHA-256 of its weights or its program; empty for the twin, which each folder trains for itself."""
    options: Options = field(default_factory=dict, compare=False)
    """The options of `hdgan train` that choose it; none for the twin, whose file is in the folder."""
    n_features: int = field(default=len(LAYER_WEIGHTS), compare=False)

    @property
    def is_twin(self) -> bool:
        return self.name == TWIN

    def __str__(self) -> str:
        return "a twin of the scorer" if self.is_twin else f"{self.name} ({self.digest})"


TWIN_NETWORK = PerceptualNetwork()


def choose_network(network: str | None, weights: Path | None, scale: Scale) -> PerceptualNetwork:
    """Load the network that the user has chosen, as training does, and try it on the sizes of the training images.

    Args:
        network: as `loss.network` of a run; None is the twin of the scorer.
        weights: file of the weights of vgg19 or timm's network; None takes the cache, or downloads them.
        scale: of the runs.

    Raises:
        ConfigError, CheckpointError: it cannot be loaded, or cannot take such images.
    """
    if network is None:
        if weights is not None:
            raise ConfigError(
                f"{option('network_weights')} {weights} has no effect without {option('network')}: give "
                f"{option('network')} vgg19 or timm:NAME, or leave it out"
            )
        return TWIN_NETWORK
    given: dict[str, Any] = {"network": network, **({} if weights is None else {"network_weights": weights})}
    loss = Pix2PixHDLoss(**given)
    found = _loaded(loss, scale)
    program, described = loss.network_file, loss.described(found)
    if program is not None:
        given["network"] = program
    assert isinstance(described, PerceptualLossConfig)
    return PerceptualNetwork(
        name=network if program is None else program.name,
        digest=(described.network_digest or digest_of_tensors(found.state_dict()))[:DIGITS],
        options={f"loss.{name}": _absolute(value) for name, value in given.items()},
        n_features=n_features_of(found),
    )


def _absolute(value: str | Path) -> str | Path:
    """A file as a later call from another folder would find it."""
    return value.resolve() if isinstance(value, Path) else value


def _loaded(loss: Pix2PixHDLoss, scale: Scale) -> nn.Module:
    height, width = scale.height // 2, scale.width // 2  # of the first stage
    if min(height, width) < loss.least_side:
        raise ConfigError(
            f"{option('loss.network')} {loss.network} needs images of {count(loss.least_side, 'pixel')} on each side, "
            f"but size {scale.name} begins training at {width}x{height}: choose another network or size"
        )
    network = loss.load_perceptual([(scale.batch_size, height, width), (scale.batch_size, scale.height, scale.width)])
    assert network is not None
    return network
