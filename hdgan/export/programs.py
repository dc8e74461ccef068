"""What is exported: a model from integer maps to pixels, and its encoder from pixels to features.

Inside, everything is an operator of PyTorch, without a branch on the size of the maps. Every tensor that a caller sees
has its channels last, as images have in NumPy and Pillow.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from hdgan.config.bounds import Depth
from hdgan.data.headers import WHITES
from hdgan.families import ImageModel
from hdgan.models.draws import Draws, SeededDraws, drawing_from
from hdgan.models.encoder import FeatureEncoder
from hdgan.models.inputs import LabelInput

BATCH, HEIGHT, WIDTH = "batch", "height", "width"
"""Names of the sizes that a caller chooses."""


@dataclass(frozen=True)
class TensorSpec:
    """An input or output of a program."""

    name: str
    dtype: str
    """NumPy's name of it."""
    shape: tuple[str | int, ...]
    """Sizes, or names of sizes that are free."""
    meaning: str

    @property
    def torch_dtype(self) -> torch.dtype:
        """The dtype as PyTorch's."""
        return cast(torch.dtype, getattr(torch, self.dtype))


class ModelProgram(nn.Module):
    """A network with the conversions around it. Its forward takes its inputs by their names.

    Attributes:
        inputs: what it takes.
        output: what it returns.
        multiple: of which the network pads height and width to a multiple.
        variant: which of several images it makes.
        checked_side: pixels a side of the smallest maps, where the program itself has to refuse smaller ones.
    """

    inputs: tuple[TensorSpec, ...]
    output: TensorSpec
    multiple: int
    variant: int = 0
    checked_side: int | None = None

    def check_sides(self, maps: Tensor) -> None:
        """Refuse maps [B, H, W, …] with sides below `checked_side`.

        The numbers are tensors, since compilers drop what they take for known of sizes.
        """
        if self.checked_side is not None:
            for side in maps.shape[1:3]:
                last = torch.arange(side, device=maps.device).amax()
                torch._assert_async(last >= self.checked_side - 1, f"a side has fewer than {self.checked_side} pixels")


class PictureProgram(ModelProgram):
    """From the input of a generator to a picture of the depth that the model was trained for.

    Args:
        model: the networks. They are copied.
        dtype: of the weights and of what is computed with them, but for statistics, which are float32.
        means: [n_classes, feature_channels], the style of each class; None takes the features as an input.
        input_depth: type of the numbers of the input image of an A->B model.
        variant: which of the images of a model that makes several at once.
    """

    means: Tensor | None

    def __init__(
        self,
        model: ImageModel,
        dtype: torch.dtype,
        means: Tensor | None = None,
        input_depth: Depth = "uint8",
        variant: int = 0,
    ) -> None:
        super().__init__()
        self.config = model.config
        self.generator = _frozen(model, dtype, ("discriminator", "encoder"))
        self.register_buffer("means", None if means is None else _with_overall(means))
        self.dtype, self.variant = dtype, variant
        self.multiple = cast(int, self.generator.generator.multiple)
        self.inputs = tuple(self._inputs(input_depth))
        depth, channels = self.config.image_depth, self.config.image_channels
        self.output = _image_spec("picture", depth, channels, "the generated picture")

    def forward(
        self,
        label: Tensor | None = None,
        instance: Tensor | None = None,
        image: Tensor | None = None,
        features: Tensor | None = None,
        seed: Tensor | None = None,
    ) -> Tensor:
        """Map the tensors that `inputs` lists to what `output` says."""
        self.check_sides(cast(Tensor, image if label is None else label))
        source = None if image is None else from_pixels(image).to(self.dtype)
        condition = self.generator.condition(label, instance, source)
        if isinstance(condition, LabelInput):
            condition = condition.dense(self.dtype)
        if self.means is not None:
            features = self._mean_features(self.means, condition, label, instance)
        if features is not None:
            features = features.permute(0, 3, 1, 2)
        with drawing_from(Draws() if seed is None else SeededDraws(seed)):
            picture = self.generator.generate(condition, features, self.variant)
        return _to_pixels(picture, self.config.image_depth)

    def _inputs(self, input_depth: Depth) -> Iterable[TensorSpec]:
        config = self.config
        if config.n_labels:
            yield _map_spec("label", f"class of each pixel, 0 to {config.n_labels - 1}")
        if config.instances:
            yield _map_spec("instance", "instance of each pixel: any integers, which differ where instances meet")
        if not config.n_labels:
            yield _image_spec("image", input_depth, config.input_channels, "the input")
        if config.feature_channels and self.means is None:
            shape = (BATCH, HEIGHT, WIDTH, config.feature_channels)
            yield TensorSpec(
                "features", "float32", shape, "style of each pixel, the same for all pixels of an instance"
            )
        if config.variants is None:
            yield TensorSpec("seed", "int64", (BATCH,), "any number for each picture; it determines the noise")

    def _mean_features(self, means: Tensor, condition: Tensor, label: Tensor | None, instance: Tensor | None) -> Tensor:
        """The mean style of the class of each pixel's instance, [B, H, W, feature_channels]; A->B has one class."""
        others = len(means) - 1
        if label is None:
            batch, _, height, width = condition.shape
            return means[0].expand(batch, height, width, -1)
        if instance is not None:
            label = area_labels(label, instance, others)
        return means[torch.where((label >= 0) & (label < others), label, others).long()]


class EncoderProgram(ModelProgram):
    """From a photo and its instance map to the features that E gives each instance.

    Args:
        model: the networks, with an encoder. They are copied.
        dtype: as of `PictureProgram`.
    """

    def __init__(self, model: ImageModel, dtype: torch.dtype) -> None:
        super().__init__()
        config = model.config
        self.encoder = cast(FeatureEncoder, _frozen(model, dtype, ("discriminator", "generator")).encoder)
        self.dtype = dtype
        self.multiple = self.encoder.multiple * 2**self.encoder.reduction
        areas = "instance" if config.instances or not config.n_labels else "label"
        self.inputs = (
            _image_spec("photo", config.image_depth, config.image_channels, "the photo"),
            _map_spec("instance", f"{areas} of each pixel: the features are averaged where it is the same"),
        )
        shape = (BATCH, HEIGHT, WIDTH, config.feature_channels)
        self.output = TensorSpec("features", "float32", shape, "style of each pixel, in [-1, 1]")

    def forward(self, photo: Tensor, instance: Tensor) -> Tensor:
        """Map a photo [B, H, W, C] and an instance map [B, H, W] to features [B, H, W, F]."""
        self.check_sides(instance)
        features = self.encoder.pixel_features(from_pixels(photo).to(self.dtype))
        return area_means(features.float(), instance).permute(0, 2, 3, 1).contiguous()


def area_means(x: Tensor, ids: Tensor) -> Tensor:
    """What `instance_mean` computes, without a tensor whose size depends on the number of instances.

    Args:
        x: [B, C, H, W] float32.
        ids: [B, H, W] integer, with any values.
    """
    rows = _runs(ids.flatten(1))
    values = x.flatten(2)
    index = rows.unsqueeze(1).expand_as(values)
    sums = torch.zeros_like(values).scatter_add(2, index, values)
    counts = torch.zeros_like(values[:, :1]).scatter_add(2, index[:, :1], torch.ones_like(values[:, :1]))
    return (sums / counts.clamp(min=1)).gather(2, index).unflatten(2, ids.shape[1:])


def area_labels(label: Tensor, ids: Tensor, n_labels: int) -> Tensor:
    """The label of most of the pixels of each pixel's area, the smallest of several, as `classes_of` finds it.

    Args:
        label: [B, H, W] integer. All that are below 0 count as -1, and all from `n_labels` as `n_labels`.
        ids: [B, H, W] integer, with any values.
        n_labels: number of classes.
    """
    choices = n_labels + 2
    labels = label.flatten(1).long().clamp(-1, n_labels) + 1
    areas = _runs(ids.flatten(1))
    pairs = _runs(areas * choices + labels)
    counts = torch.zeros_like(labels).scatter_add(1, pairs, torch.ones_like(labels)).gather(1, pairs)
    scores = counts * choices + (choices - 1 - labels)  # more pixels first, then the smaller label
    best = torch.zeros_like(labels).scatter_reduce(1, areas, scores, "amax").gather(1, areas)
    return (choices - 2 - best.fmod(choices)).unflatten(1, label.shape[1:])


def _runs(values: Tensor) -> Tensor:
    """Numbers from 0 that are the same where integers [B, N] are, and ordered as they are."""
    ordered, order = values.sort(dim=1)
    begins = (ordered[:, 1:] != ordered[:, :-1]).long()
    number = torch.cat([torch.zeros_like(order[:, :1]), begins.cumsum(1)], dim=1)
    return torch.zeros_like(order).scatter(1, order, number)


def from_pixels(pixels: Tensor) -> Tensor:
    """[B, H, W, C] of any `Depth` as [B, C, H, W] float32 in [-1, 1]."""
    white = WHITES.get(str(pixels.dtype).removeprefix("torch."))
    values = pixels.float().permute(0, 3, 1, 2)
    return values if white is None else values / (white / 2) - 1


def _frozen(model: ImageModel, dtype: torch.dtype, left_out: Sequence[str]) -> ImageModel:
    """A copy of a model in a dtype, without some of its networks."""
    kept = deepcopy(model).requires_grad_(False).eval().to(dtype)
    for name in left_out:
        setattr(kept, name, None)
    return kept


def _with_overall(means: Tensor) -> Tensor:
    """The means of the classes, and in the last row their own mean, for labels that have none."""
    return torch.cat([means, means.mean(0, keepdim=True)]).float()


def _map_spec(name: str, meaning: str) -> TensorSpec:
    return TensorSpec(name, "int32", (BATCH, HEIGHT, WIDTH), meaning)


def _image_spec(name: str, depth: Depth, channels: int, meaning: str) -> TensorSpec:
    end = " in [-1, 1]" if depth == "float32" else ""
    return TensorSpec(name, depth, (BATCH, HEIGHT, WIDTH, channels), meaning + end)


def _to_pixels(image: Tensor, depth: Depth) -> Tensor:
    """[B, C, H, W] as [B, H, W, C], by the rule of `from_unit_range`."""
    values = image.float().clamp(-1, 1).permute(0, 2, 3, 1)
    if depth in WHITES:
        values = ((values + 1) * (WHITES[depth] / 2)).round().to(getattr(torch, depth))
    return values.contiguous()
