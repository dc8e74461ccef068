"""VGG19's convolutions (Simonyan and Zisserman 2014) for the perceptual loss, under torchvision's key names."""

from __future__ import annotations

import hashlib
import pickle
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from hdgan.errors import ConfigError
from hdgan.models.blocks import recomputed

WEIGHTS_URL = "https://download.pytorch.org/models/vgg19-dcbb9e9d.pth"
"""torchvision's ImageNet weights; the name ends in the first eight digits of the file's SHA-256."""
_WIDTHS = (64, 64, 0, 128, 128, 0, 256, 256, 256, 256, 0, 512, 512, 512, 512, 0, 512)
"""Convolutions up to conv5_1; 0 is a max pooling."""
_TAPS = (1, 6, 11, 20, 29)
"""Positions of relu1_1, relu2_1, relu3_1, relu4_1, relu5_1."""


class VGG19Features(nn.Module):
    """VGG19 up to relu5_1, without weights until they are loaded; keys as torchvision's (`features.0.weight`, …)."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels = 3
        for width in _WIDTHS:
            if width == 0:
                layers.append(nn.MaxPool2d(2))
                continue
            layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU(inplace=True)]
            channels = width
        self.features = nn.Sequential(*layers)
        # In lists, which keep these modules from being registered again: from one tap to the next, layer by layer, a
        # pooling together with the convolution after it.
        self._parts = [
            list(_parts(layers[begin + 1 : end + 1])) for begin, end in zip((-1, *_TAPS), _TAPS, strict=False)
        ]

    def forward(self, x: Tensor) -> list[Tensor]:
        """Map images [B, 3, H, W] to the features relu1_1 … relu5_1, [B, C, H / 2^k, W / 2^k] for k = 0 … 4."""
        taps = []
        for parts in self._parts:
            for part in parts:
                # A pooling is made again in the backward pass: it would keep positions of 64 bits.
                x = recomputed(part, x) if isinstance(part, nn.Sequential) else part(x)
            taps.append(x)
        return taps


def _parts(layers: Sequence[nn.Module]) -> Iterator[nn.Module]:
    pool: nn.Module | None = None
    for layer in layers:
        if isinstance(layer, nn.MaxPool2d):
            pool = layer
        else:
            yield layer if pool is None else nn.Sequential(pool, layer)
            pool = None


def load_vgg19(weights: Path | None) -> VGG19Features:
    """Return VGG19 with its ImageNet weights, frozen.

    Args:
        weights: a file of torchvision's state dict (.pth or .safetensors; the classifier's keys are ignored); None
            takes torch.hub's cache, or downloads the file there and checks its hash.

    Raises:
        ConfigError: the weights cannot be had, or are not VGG19's. Never falls back to random weights.
    """
    state = _downloaded() if weights is None else _read(weights)
    features = {key: value for key, value in state.items() if not key.startswith("classifier.")}
    network = VGG19Features()
    wanted = network.state_dict()
    shapes_differ = [k for k in wanted if k in features and features[k].shape != wanted[k].shape]
    missing = [k for k in wanted if k not in features]
    if missing or shapes_differ:
        raise ConfigError(
            f"{weights or WEIGHTS_URL} does not hold torchvision's VGG19: missing {missing[:3]}, "
            f"of another shape {shapes_differ[:3]}; {_HOW_TO_GET}"
        )
    network.load_state_dict({key: features[key] for key in wanted})
    return network.eval().requires_grad_(False)


_HOW_TO_GET = (
    f"download {WEIGHTS_URL} on a machine with internet access and pass it as --loss.vgg-weights FILE, or train "
    "without the VGG loss: --loss.vgg 0"
)


def _downloaded() -> dict[str, Tensor]:
    try:
        return torch.hub.load_state_dict_from_url(WEIGHTS_URL, map_location="cpu", check_hash=True, weights_only=True)
    except (OSError, RuntimeError, pickle.UnpicklingError, EOFError) as error:
        raise ConfigError(f"the VGG19 weights cannot be downloaded ({error}): {_HOW_TO_GET}") from error


def _read(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise ConfigError(f"the VGG19 weights {path} do not exist: {_HOW_TO_GET}")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        size = path.stat().st_size
        digest = hashlib.sha256(path.read_bytes()).hexdigest()[:8]
        raise ConfigError(
            f"{path} ({size} bytes, SHA-256 {digest}…) is not a readable weights file: {_HOW_TO_GET}"
        ) from error
