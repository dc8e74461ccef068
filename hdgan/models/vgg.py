"""VGG19's convolutions (Simonyan and Zisserman 2014) for the perceptual loss, under torchvision's key names."""

from __future__ import annotations

import hashlib
import pickle
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from hdgan.errors import CheckpointError, ConfigError
from hdgan.files import require_file
from hdgan.models.blocks import Casts, as_function, recomputed, reusing
from hdgan.weights import plain_names, read_weights, require_finite
from hdgan.weights.modules import describe_differences, tensor_shapes

WEIGHTS_URL = "https://download.pytorch.org/models/vgg19-dcbb9e9d.pth"
"""torchvision's ImageNet weights; the name ends in the first eight digits of the file's SHA-256."""
Convolution = Literal[1, 2]
Pooling = Literal["max", "avg"]
_WIDTHS = (64, 64, 0, 128, 128, 0, 256, 256, 256, 256, 0, 512, 512, 512, 512, 0, 512, 512)
"""Convolutions up to conv5_2; 0 is a pooling."""
_TAPS: dict[Convolution, tuple[int, ...]] = {1: (1, 6, 11, 20, 29), 2: (3, 8, 13, 22, 31)}
"""Positions of relu1_1 … relu5_1 and of relu1_2 … relu5_2."""


class VGG19Features(nn.Module):
    """VGG19 up to relu5_1 or relu5_2, without weights until they are loaded; keys as torchvision's.

    Args:
        convolution: 1 gives relu1_1 … relu5_1, as pix2pixHD compares, 2 relu1_2 … relu5_2, as CRN does.
        pooling: "max", or "avg" as in CRN's code.
    """

    LEAST_SIDE = 16
    """Pixels that images need on each side, since each of the four poolings halves them."""

    def __init__(self, convolution: Convolution = 1, pooling: Pooling = "max") -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels = 3
        taps = _TAPS[convolution]
        for width in _WIDTHS:
            if width == 0:
                layers.append(nn.MaxPool2d(2) if pooling == "max" else nn.AvgPool2d(2))
                continue
            layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU(inplace=True)]
            channels = width
        layers = layers[: taps[-1] + 1]
        self.features = nn.Sequential(*layers)
        # In lists, which keep these modules from being registered again: from one tap to the next, layer by layer, a
        # pooling together with the convolution after it.
        self._parts = [list(_parts(layers[begin + 1 : end + 1])) for begin, end in zip((-1, *taps), taps, strict=False)]
        self._casts = Casts()

    def forward(self, x: Tensor) -> list[Tensor]:
        """Map images [B, 3, H, W] to five features, [B, C, H / 2^k, W / 2^k] for k = 0 … 4."""
        taps = []
        with nullcontext() if torch.compiler.is_compiling() else reusing(self._casts):
            for parts in self._parts:
                for part in parts:
                    x = _run(part, x)
                taps.append(x)
        return taps


def _run(part: nn.Module, x: Tensor) -> Tensor:
    if isinstance(part, nn.Sequential):
        pool, conv = part
        convolve = as_function(conv, bias=True)
        # A pooling is made again in the backward pass: it would keep positions of 64 bits.
        return recomputed(lambda x: convolve(pool(x)), x, through=part)
    return as_function(part, bias=True)(x) if isinstance(part, nn.Conv2d) else part(x)


def _parts(layers: Sequence[nn.Module]) -> Iterator[nn.Module]:
    pool: nn.Module | None = None
    for layer in layers:
        if isinstance(layer, (nn.MaxPool2d, nn.AvgPool2d)):
            pool = layer
        else:
            yield layer if pool is None else nn.Sequential(pool, layer)
            pool = None


def missing_weights(weights: Path | None, remedy: str) -> str:
    """What a run still needs to load VGG19, as a sentence; empty if the file exists. Downloads nothing.

    Args:
        weights, remedy: as of `load_vgg19`.
    """
    if weights is not None:
        return "" if weights.is_file() else f"the VGG19 weights {weights} do not exist: {remedy}"
    cached = Path(torch.hub.get_dir()) / "checkpoints" / Path(WEIGHTS_URL).name
    return "" if cached.is_file() else f"a run downloads VGG19's weights (548 MiB) first; if it cannot: {remedy}"


REMEDY = f"download {WEIGHTS_URL} on a machine with internet access and give the file"


def load_vgg19(
    weights: Path | None, convolution: Convolution = 1, pooling: Pooling = "max", remedy: str = REMEDY
) -> VGG19Features:
    """Return VGG19 with its ImageNet weights, frozen.

    Args:
        weights: a file of torchvision's state dict (as torch.save or safetensors wrote it; the classifier's keys are
            ignored); None takes torch.hub's cache, or downloads the file there and checks its hash.
        convolution, pooling: of `VGG19Features`.
        remedy: what errors tell the user to do.

    Raises:
        ConfigError: the weights cannot be read or downloaded, are not VGG19's, or are not finite. Never falls back to
            random weights.
    """
    where = str(weights or WEIGHTS_URL)
    state = _downloaded(remedy) if weights is None else _read(weights, remedy)
    with torch.device("meta"):
        network = VGG19Features(convolution, pooling)
    expected = tensor_shapes(network.state_dict())
    chosen = {key: value for key, value in state.items() if key in expected}
    if differences := describe_differences(expected, tensor_shapes(chosen)):
        raise ConfigError(f"{where} does not hold torchvision's VGG19 ({differences}); {remedy}")
    try:
        require_finite(chosen, where)
    except CheckpointError as error:
        raise ConfigError(f"{error}; {remedy}") from error
    network.to_empty(device="cpu").load_state_dict(chosen)
    return network.eval().requires_grad_(False)


def _downloaded(remedy: str) -> dict[str, Tensor]:
    try:
        return torch.hub.load_state_dict_from_url(WEIGHTS_URL, map_location="cpu", check_hash=True, weights_only=True)
    except (OSError, RuntimeError, ValueError, LookupError, pickle.UnpicklingError, EOFError) as error:
        raise ConfigError(f"the VGG19 weights cannot be downloaded ({error}): {remedy}") from error


def _read(path: Path, remedy: str) -> dict[str, Tensor]:
    if not path.exists():
        raise ConfigError(f"the VGG19 weights {path} do not exist: {remedy}")
    require_file(path, ConfigError)
    try:
        weights = read_weights(path)
        return plain_names({str(key): value for key, value in weights.items() if isinstance(value, Tensor)}, str(path))
    except CheckpointError as error:
        digest = hashlib.sha256()
        with path.open("rb") as file:
            for part in iter(lambda: file.read(2**20), b""):
                digest.update(part)
        raise ConfigError(
            f"{path} ({path.stat().st_size} bytes, SHA-256 {digest.hexdigest()[:8]}…) is not a readable weights file "
            f"({error}): {remedy}"
        ) from error
