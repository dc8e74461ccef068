"""A history of generated images for the discriminator (Shrivastava et al. 2017), as NVIDIA/pix2pixHD has it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from hdgan.errors import CheckpointError
from hdgan.families.common.config import ModelConfig
from hdgan.models.inputs import LabelInput, NetworkInput


class FakePool:
    """Keeps `size` generated images with their conditions; half of D's fakes then come from the history.

    Draws from torch's CPU generator, which the training loop seeds for each step.

    Args:
        size: number of images; 0 for no history.

    Attributes:
        pairs: a condition and the image made of it, [C, H, W]. The condition of a label map is its codes, [H, W].
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self.pairs: list[tuple[Tensor, Tensor]] = []

    def exchange(self, condition: NetworkInput, fake: Tensor) -> tuple[NetworkInput, Tensor]:
        """Add this step's fakes [B, C, H, W] with their conditions; return fakes for D's own loss, without gradient."""
        if isinstance(condition, LabelInput):
            if condition.features is not None or condition.level:
                raise ValueError("FakePool: expected label planes alone, at the full resolution")
            codes, fakes = self.query(condition.planes.codes, fake.detach())
            return LabelInput(condition.planes._replace(codes=codes)), fakes
        return self.query(condition, fake.detach())

    def query(self, conditions: Tensor, images: Tensor) -> tuple[Tensor, Tensor]:
        """Add new pairs and return as many. Each is new or, once the pool is full, half of the time old."""
        returned = []
        for pair in zip(conditions, images, strict=True):
            if self.pairs and _shapes(self.pairs[0]) != _shapes(pair):
                self.pairs = []
            if len(self.pairs) < self.size:
                self.pairs.append(_kept(pair))
                returned.append(pair)
            elif torch.rand(()) < 0.5:
                returned.append(pair)
            else:
                slot = int(torch.randint(self.size, ()))
                returned.append(self.pairs[slot])
                self.pairs[slot] = _kept(pair)
        old_conditions, old_images = zip(*returned, strict=True)
        return torch.stack(old_conditions), torch.stack(old_images)

    def state(self) -> dict[str, list[Tensor]]:
        """The images and their conditions, in two lists of one order."""
        conditions, images = zip(*self.pairs, strict=True) if self.pairs else ((), ())
        return {"pool": [x.cpu() for x in images], "pool_conditions": [x.cpu() for x in conditions]}

    def load(
        self, images: Sequence[Tensor], conditions: Sequence[Tensor] | None, model: ModelConfig, device: torch.device
    ) -> None:
        """Go on from a state.

        Args:
            images, conditions: the lists of `state`. Without conditions, each image begins with the channels of its
                condition, as in checkpoints of versions that had no label planes.
            model: what the images were made by.
            device: where to keep them.

        Raises:
            CheckpointError: they are not of such a model.
        """
        if conditions is None:
            channels = model.condition_channels + model.image_channels
            pairs = [_divided(x, model) for x in images if x.dim() == 3 and len(x) == channels]
        else:
            pairs = list(zip(conditions, images, strict=False))
        complete = len(pairs) == len(images) == len(images if conditions is None else conditions)
        if not complete or not all(_fits(*pair, model) for pair in pairs):
            raise CheckpointError(
                "the pool of generated images in the checkpoint is not of a model with "
                f"{model.condition_channels} channels of the condition and {model.image_channels} of the image"
            )
        self.pairs = [(condition.to(device), image.to(device)) for condition, image in pairs]


def _divided(joined: Tensor, model: ModelConfig) -> tuple[Tensor, Tensor]:
    """The pair of a dense condition and the image behind it."""
    condition, image = joined[: model.condition_channels], joined[model.condition_channels :]
    return _kept((_codes(condition, model.n_labels) if model.n_labels else condition, image))


def _fits(condition: Tensor, image: Tensor, model: ModelConfig) -> bool:
    """Whether a pair of a file is one of the pool: kernels trust the codes."""
    if image.dim() != 3 or len(image) != model.image_channels:
        return False
    if not model.n_labels:
        return condition.shape == (model.condition_channels, *image.shape[1:])
    of_map = condition.shape == image.shape[1:] and condition.dtype == torch.int32
    known = (model.n_labels + 1) * (1 + int(model.instances))
    return of_map and bool(((condition >= 0) & (condition < known)).all())


def _codes(planes: Tensor, n_labels: int) -> Tensor:
    """The codes of `LabelPlanes` for dense planes [C, H, W]."""
    classes = planes[:n_labels] != 0
    codes = classes.int().argmax(0).where(classes.any(0), n_labels)
    if len(planes) > n_labels:
        codes = codes + (planes[n_labels] != 0) * (n_labels + 1)
    return codes.int()


def _kept(pair: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """Copies, since views would keep their whole batch."""
    return pair[0].clone(), pair[1].clone()


def _shapes(pair: tuple[Tensor, Tensor]) -> tuple[torch.Size, torch.Size]:
    return pair[0].shape, pair[1].shape
