"""A small segmentation network: scores images by what can be recognised in them, and compares their features.

Its files are safetensors that carry its architecture, as those of the models do (`hdgan.families.saving`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any

import torch
import torch.nn.functional as F
from annotated_types import Interval
from torch import Tensor, nn

from hdgan.config.bounds import Width
from hdgan.config.serialization import check_values, from_plain, to_plain
from hdgan.errors import CheckpointError
from hdgan.models.blocks import as_function
from hdgan.models.inputs import pad_to_multiple, run_at_multiple
from hdgan.ops import instance_norm_act
from hdgan.seeding import seeded
from hdgan.weights import open_safetensors
from hdgan.weights.modules import (
    build_described,
    load_tensors,
    metadata_of,
    require_fitting,
    save_described,
    shapes_of,
    tensor_shapes,
)

_STEPS = (1, 2, 4, 8, 8)
"""Channels of each level as multiples of the width; each level has half the resolution of the one before."""
_COARSEST = 2 ** (len(_STEPS) - 1)


@dataclass(frozen=True)
class SegmenterConfig:
    """The built-in scorer's architecture."""

    n_labels: Annotated[int, Interval(ge=1, le=65536)]
    """Classes."""
    width: Width = 16
    """Channels of the finest level; the coarsest has eight times as many."""

    def __post_init__(self) -> None:
        check_values(self, "scorer_training")


class Segmenter(nn.Module):
    """An encoder and decoder of five levels with skips (after Ronneberger et al. 2015), normalised by instance.

    The finest level is not normalised: through its skip the decoder sees absolute brightness and colour, and its
    features, as a perceptual loss, too.
    """

    def __init__(self, config: SegmenterConfig) -> None:
        super().__init__()
        self.config = config
        channels = [config.width * step for step in _STEPS]
        self.stem = nn.Conv2d(3, channels[0], 3, padding=1)
        finer_coarser = list(pairwise(channels))
        self.down = nn.ModuleList(nn.Conv2d(fine, coarse, 3, 2, padding=1) for fine, coarse in finer_coarser)
        self.encode = nn.ModuleList(nn.Conv2d(coarse, coarse, 3, padding=1) for _, coarse in finer_coarser)
        self.decode = nn.ModuleList(nn.Conv2d(coarse + fine, fine, 3, padding=1) for fine, coarse in finer_coarser)
        self.head = nn.Conv2d(channels[0], config.n_labels, 1)

    @property
    def feature_channels(self) -> tuple[int, ...]:
        """Channels of the five feature maps."""
        return tuple(self.config.width * step for step in _STEPS)

    def forward(self, image: Tensor) -> Tensor:
        """Map images [B, 3, H, W] in [-1, 1], of any size, to the logits of the classes, [B, n_labels, H, W]."""
        return run_at_multiple(self._segment, image, _COARSEST)

    def features(self, image: Tensor) -> list[Tensor]:
        """Feature maps, fine to coarse: what a perceptual loss compares instead of VGG19's.

        Args:
            image: [B, 3, H, W] in [-1, 1], padded by its edge to a multiple of 16.

        Returns:
            [B, feature_channels[k], H / 2^k, W / 2^k] for k = 0 … 4, after their activation.
        """
        return self._encode(pad_to_multiple(image, _COARSEST))

    def pooled_features(self, image: Tensor) -> Tensor:
        """All feature maps, averaged over the image, [B, sum of feature_channels]: what the scorer FID compares."""
        return torch.cat([features.mean((2, 3)) for features in self.features(image)], dim=1)

    def _encode(self, x: Tensor) -> list[Tensor]:
        maps = [self.stem(x).relu()]
        for down, encode in zip(self.down, self.encode, strict=True):
            maps.append(_normalised(encode, _normalised(down, maps[-1])))
        return maps

    def _segment(self, image: Tensor) -> Tensor:
        *skips, x = self._encode(image)
        for skip, decode in zip(reversed(skips), reversed(self.decode), strict=True):
            x = F.interpolate(x, scale_factor=2.0, mode="nearest")
            x = _normalised(decode, torch.cat([x, skip], dim=1))
        return self.head(x)


class SegmenterFeatures(nn.Module):
    """A scorer as the network of a perceptual loss."""

    def __init__(self, segmenter: Segmenter) -> None:
        super().__init__()
        self.segmenter = segmenter

    def forward(self, image: Tensor) -> list[Tensor]:
        """`Segmenter.features`."""
        return self.segmenter.features(image)


def random_segmenter() -> Segmenter:
    """A scorer that was not trained, for a perceptual loss: its weights are drawn after He et al. (2015).

    Random filters that are rectified tell colours and textures apart (Ustyuzhaninov et al. 2016).
    They are the same every time.
    """
    with seeded(torch.device("cpu"), 0):
        segmenter = Segmenter(SegmenterConfig(n_labels=1))
        for module in segmenter.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight)
                assert module.bias is not None
                nn.init.zeros_(module.bias)
    return segmenter


def _normalised(conv: nn.Module, x: Tensor) -> Tensor:
    return instance_norm_act(as_function(conv)(x), activation="relu")


def save_segmenter(path: Path, network: Segmenter, extra: Mapping[str, Any] | None = None) -> None:
    """Write a scorer so that a crash leaves the old file or the new one.

    Args:
        path: usually *.safetensors.
        network: its architecture and weights.
        extra: further metadata that JSON can hold, such as what it was trained on.

    Raises:
        HdganError: the file cannot be written.
    """
    save_described(path, network.state_dict(), {**(extra or {}), "segmenter": to_plain(network.config)})


def load_segmenter(path: Path, device: str | torch.device = "cpu") -> Segmenter:
    """Build the scorer that a file describes and load it strictly, frozen and in evaluation mode.

    Args:
        path: written by `save_segmenter`.
        device: where the network goes.

    Raises:
        CheckpointError: the file is missing, damaged, newer than this hdgan, holds no scorer, its tensors do not fit
            the architecture it names, or one of them is not finite.
    """
    path = Path(path)
    if not path.exists():
        raise CheckpointError(f"the scorer {path} does not exist; train one with `hdgan evaluate --train-scorer`")
    with open_safetensors(path) as file:
        return _load(path, file, device).to(device).eval().requires_grad_(False)


def _load(path: Path, file: Any, device: str | torch.device) -> Segmenter:
    metadata = metadata_of(path, file)
    if "segmenter" not in metadata:
        raise CheckpointError(f"{path} does not contain a scorer; train one with `hdgan evaluate --train-scorer`")
    config = from_plain(SegmenterConfig, metadata["segmenter"], f"{path}, segmenter")
    found = shapes_of(file)
    network = build_described(path, lambda: Segmenter(config), len(found))
    require_fitting(path, tensor_shapes(network.state_dict()), found, "train it again")
    load_tensors(path, file, network, {key: key for key in found}, device)
    return network
