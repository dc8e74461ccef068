"""Segmentation networks that score images: hdgan's own, or any that was saved as TorchScript or by torch.export."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from hdgan.devices import enough_memory
from hdgan.errors import ConfigError
from hdgan.losses import IMAGENET_MEAN, IMAGENET_STD, as_rgb, rgb_obstacle
from hdgan.models.programs import read_program, run_program
from hdgan.models.segmenter import Segmenter, load_segmenter

ScorerRange = Literal["signed", "unit", "imagenet"]
"""The values of a scorer's input: [-1, 1], [0, 1], or [0, 1] normalised by ImageNet's mean and standard deviation."""


class Scorer:
    """Recognises classes in images.

    Args:
        network: image [B, 3, H, W] -> logits [B, n_labels, h, w], or a mapping with the logits as "out".
        n_labels: required number of classes.
        name: its name in messages.
        range: of the values that the network takes.
    """

    def __init__(
        self, network: Callable[[Tensor], Any], n_labels: int, name: str, range: ScorerRange = "signed"
    ) -> None:
        self.network, self.n_labels, self.name, self.range = network, n_labels, name, range

    @property
    def segmenter(self) -> Segmenter | None:
        """The network if it is hdgan's own, which has features; else None."""
        return self.network if isinstance(self.network, Segmenter) else None

    @torch.no_grad()
    def __call__(self, image: Tensor) -> Tensor:
        """The class of every pixel.

        Args:
            image: [B, 3, H, W] float in [-1, 1]. Grey images [B, 1, H, W] are repeated.

        Returns:
            [B, H, W] int64 in [0, n_labels).

        Raises:
            ConfigError: the network cannot take the image, knows another number of classes, or runs out of memory.
        """
        if obstacle := rgb_obstacle(image.shape[1]):
            raise ConfigError(f"the scorer {self.name} {obstacle}: leave it out")
        image = as_rgb(image)
        size = f"{image.shape[3]}x{image.shape[2]}"
        with enough_memory(out_of_memory(f"the scorer {self.name}", size)):
            logits = self._logits(image)
        if isinstance(logits, Mapping):
            logits = logits.get("out")
        if not isinstance(logits, Tensor) or logits.dim() != 4:
            found = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
            raise ConfigError(f"the scorer {self.name} returns {found}: it must return logits [B, classes, H, W]")
        _require_classes(self.name, logits.shape[1], self.n_labels)
        if logits.shape[2:] != image.shape[2:]:
            logits = F.interpolate(logits.float(), image.shape[2:], mode="bilinear", align_corners=False)
        return logits.argmax(1)

    def _logits(self, image: Tensor) -> Any:
        """The output of the network."""
        if self.segmenter is not None:
            return self.network(self._prepared(image))
        return run_program(self.network, self._prepared(image), f"the scorer {self.name}")

    def _prepared(self, image: Tensor) -> Tensor:
        if self.range == "signed":
            return image
        image = (image + 1) / 2
        if self.range == "unit":
            return image
        mean, std = (image.new_tensor(values).view(1, 3, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_STD))
        return (image - mean) / std


def out_of_memory(what: str, size: str) -> str:
    """The message if there is not enough memory for `what` with an image of a size."""
    return f"out of memory: {what} with an image of {size}; use a smaller --width, or --device cpu"


def load_scorer(path: Path, n_labels: int, device: torch.device, range: ScorerRange = "signed") -> Scorer:
    """Read a scorer: *.safetensors is hdgan's own, *.pt2 an exported program, anything else TorchScript.

    Read only files that you trust: TorchScript and exported programs are programs.

    Args:
        path: the file.
        n_labels: required number of classes. Scorers that are not hdgan's are checked with their first image.
        device: on which it runs.
        range: of the values that a foreign scorer takes; hdgan's takes [-1, 1].

    Raises:
        CheckpointError: the file is missing, cannot be read, unpacks to more than the limit, or holds a tensor that is
            not finite.
        ConfigError: hdgan's scorer knows another number of classes, or another range is given for it.
    """
    path = Path(path)
    if path.suffix == ".safetensors":
        network = load_segmenter(path, device)
        _require_classes(str(path), network.config.n_labels, n_labels)
        if range != "signed":
            raise ConfigError(
                f"--scorer-range {range} applies only to a scorer of your own: {path} takes images in [-1, 1]"
            )
        return Scorer(network, n_labels, str(path))
    foreign = read_program(path, device, "a scorer", "hdgan's .safetensors, ")
    return Scorer(foreign, n_labels, str(path), range)


def _require_classes(name: str, found: int, expected: int) -> None:
    if found != expected:
        raise ConfigError(
            f"the scorer {name} has {found} classes, but the label maps have {expected}: give a scorer with {expected} "
            "classes, or train one with --train-scorer"
        )
