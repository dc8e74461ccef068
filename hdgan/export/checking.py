"""Whether a program that was read from its file makes what the pipeline makes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from hdgan.data.headers import WHITES
from hdgan.export.formats import Run
from hdgan.export.programs import EncoderProgram, ModelProgram, TensorSpec, from_pixels
from hdgan.inference import Pipeline
from hdgan.models.draws import Draws, SeededDraws, drawing_from
from hdgan.ops import instance_broadcast, instance_index
from hdgan.styles.sample import Styles, styles_of

_BLOCK = 8
"""Pixels between the possible borders of the areas in made-up maps."""
_LEAST_SIDE = 16


@dataclass(frozen=True)
class Difference:
    """Between a program and the pipeline in float32, in 8-bit levels, whatever the output is."""

    shape: tuple[int, int, int]
    """B, H, W."""
    most: float
    mean: float
    usual: float
    """The mean difference of the pipeline in the program's precision; 0 for float32."""

    @property
    def acceptable(self) -> bool:
        """Whether rounding explains it.

        In float32 a number close to the middle between two levels may be rounded to the other one. In other precisions
        the program may be as far from float32 as the pipeline is, or twice as far.
        """
        return self.mean <= 2 * self.usual + 0.05 if self.usual else self.most <= 1.001


@dataclass(frozen=True)
class ExampleInput:
    """Made-up input for a program, and the same for the pipeline."""

    inputs: dict[str, Tensor]
    """By the names of the program's inputs."""
    source: Tensor
    """Label maps or images for the pipeline."""
    instance: Tensor | None
    styles: Sequence[Styles] | None
    """Of each image, where the program takes features."""


def shapes_to_check(multiple: int) -> tuple[tuple[int, int, int], ...]:
    """Batch, height and width of maps: a size that the network's multiple divides, and a batch of an odd one."""
    side = max(multiple, _LEAST_SIDE)
    return (1, 2 * side, 3 * side), (2, 2 * side + 5, side + side // 2 + 3)


def differences(run: Run, program: ModelProgram, pipeline: Pipeline) -> Iterator[Difference]:
    """Run a program and the pipeline on made-up maps of several sizes.

    Args:
        run: the program as it was read from its file.
        program: what the file was made of.
        pipeline: of the same model, in the same precision.
    """
    exact = Pipeline(pipeline.model, pipeline.class_features, pipeline.device, cuda_graphs=False)
    for shape in shapes_to_check(program.multiple):
        example = make_example(program, pipeline, shape)
        wanted = _expected(program, exact, example)
        off = (_levels(run(example.inputs), program.output) - wanted).abs()
        usual = 0.0
        if pipeline.precision != "float32":
            usual = float((_expected(program, pipeline, example) - wanted).abs().mean())
        yield Difference(shape, float(off.max()), float(off.mean()), usual)


def make_example(program: ModelProgram, pipeline: Pipeline, shape: tuple[int, int, int]) -> ExampleInput:
    """Make maps of rectangles, each in one of two instances of its class, and pixels without a pattern.

    One pixel of seven has another label than its instance, as in maps that were resized or drawn by hand.

    Args:
        program: says what it takes.
        pipeline: of its model.
        shape: B, H, W.
    """
    config, batch = pipeline.config, shape[0]
    generator = torch.Generator().manual_seed(0)
    label = _rectangles(shape, max(config.n_labels, 1), generator)
    ids = label * config.instance_divisor + _rectangles(shape, 2, generator)
    areas = ids if config.instances else label
    if config.instances and config.n_labels:
        strays = torch.randint(config.n_labels, shape, generator=generator)
        label = torch.where(torch.rand(shape, generator=generator) < 1 / 7, strays, label)
    made = {"label": label, "instance": areas, "seed": torch.arange(batch) + 7}
    for spec in program.inputs:
        if spec.name in ("image", "photo"):
            made[spec.name] = _pixels(spec, shape, generator)
    source = label
    if not config.n_labels:
        source = (
            from_pixels(made["image"]) if "image" in made else torch.zeros(batch, config.input_channels, *shape[1:])
        )
    instance = ids if config.instances else None
    styles = None
    if any(spec.name == "features" for spec in program.inputs):
        made["features"], styles = _features(pipeline, source, instance, areas, generator)
    inputs = {spec.name: made[spec.name].to(pipeline.device, spec.torch_dtype).contiguous() for spec in program.inputs}
    return ExampleInput(inputs, source, instance, styles)


def _rectangles(shape: tuple[int, int, int], values: int, generator: torch.Generator) -> Tensor:
    batch, height, width = shape
    coarse = torch.randint(values, (batch, -(-height // _BLOCK), -(-width // _BLOCK)), generator=generator)
    return coarse.repeat_interleave(_BLOCK, 1).repeat_interleave(_BLOCK, 2)[:, :height, :width]


def _pixels(spec: TensorSpec, shape: tuple[int, int, int], generator: torch.Generator) -> Tensor:
    """[B, H, W, C] of the depth of an input."""
    channels = spec.shape[-1]
    assert isinstance(channels, int)
    values, white = torch.rand(*shape, channels, generator=generator), WHITES.get(spec.dtype)
    return values * 2 - 1 if white is None else (values * white).round().to(spec.torch_dtype)


def _features(
    pipeline: Pipeline, source: Tensor, instance: Tensor | None, areas: Tensor, generator: torch.Generator
) -> tuple[Tensor, list[Styles]]:
    """Random features [B, H, W, F] of the instances of a batch, and the same as styles."""
    features, styles = [], []
    for b in range(len(areas)):
        of_one = slice(b, b + 1)
        index = instance_index(areas[of_one])
        rows = torch.rand(len(index.ids), pipeline.config.feature_channels, generator=generator) * 2 - 1
        features.append(instance_broadcast(rows, index))
        classes = pipeline.instances(source[of_one], None if instance is None else instance[of_one])
        styles.append(styles_of(classes, rows.numpy(), pipeline.encoder_id))
    return torch.cat(features).permute(0, 2, 3, 1), styles


@torch.no_grad()
def _expected(program: ModelProgram, pipeline: Pipeline, example: ExampleInput) -> Tensor:
    """What the pipeline makes, in levels."""
    if isinstance(program, EncoderProgram):
        return _levels(_encoded(pipeline, example), program.output)
    seed = example.inputs.get("seed")
    with drawing_from(Draws() if seed is None else SeededDraws(seed)):
        image = pipeline(example.source, example.instance, styles=example.styles, variant=program.variant)
    pixels = (image * 2 - 1).permute(0, 2, 3, 1).cpu()
    white = WHITES.get(program.output.dtype)
    return _levels(pixels if white is None else ((pixels + 1) * (white / 2)).round(), program.output)


def _encoded(pipeline: Pipeline, example: ExampleInput) -> Tensor:
    """The features of every pixel, [B, H, W, F]."""
    found = []
    photos = from_pixels(example.inputs["photo"])
    for b, photo in enumerate(photos):
        maps = pipeline.read(example.source[b], None if example.instance is None else example.instance[b])
        styles = pipeline.encode(photo, maps).instances
        rows = torch.tensor([styles[id].feature for id in maps.index.ids.tolist()], device=maps.index.rows.device)
        found.append(instance_broadcast(rows, maps.index))
    return torch.cat(found).permute(0, 2, 3, 1).cpu()


def _levels(values: Tensor, spec: TensorSpec) -> Tensor:
    return values.cpu().double() * _level(spec)


def _level(spec: TensorSpec) -> float:
    """8-bit levels in a difference of one."""
    white = WHITES.get(spec.dtype)
    return 255 / 2 if white is None else 255 / white
