"""Writing a model as a program: traced, written, read again and compared with the pipeline before it gets its name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch.export import Dim, ExportedProgram

from hdgan import ops
from hdgan.checkpoints import STYLES_FILE, beside
from hdgan.config.bounds import Depth
from hdgan.config.options import option
from hdgan.data import SizeConfig
from hdgan.data.spec import DatasetSpec
from hdgan.errors import ConfigError, HdganError
from hdgan.export.checking import Difference, differences, make_example
from hdgan.export.formats import FORMATS, FormatName
from hdgan.export.metadata import metadata_of
from hdgan.export.programs import BATCH, HEIGHT, WIDTH, EncoderProgram, ModelProgram, PictureProgram
from hdgan.families.saving import read_metadata
from hdgan.files.atomic import new_files
from hdgan.files.json import write_json
from hdgan.inference import Pipeline
from hdgan.training.run_folder import training_of
from hdgan.wording import count

Part = Literal["picture", "encoder"]
StyleSource = Literal["mean", "input"]
_TRACED = (2, 42, 64)
"""Batch of the example that is traced, and by how much it is higher and wider than the smallest maps. Its sizes are
unlike all others in a network."""


@dataclass(frozen=True)
class Exported:
    """What was written, and how it compares with the pipeline."""

    files: tuple[Path, ...]
    program: ModelProgram
    differences: tuple[Difference, ...]


def export_program(
    pipeline: Pipeline,
    out: Path,
    format: FormatName = "onnx",
    *,
    part: Part = "picture",
    styles: StyleSource = "mean",
    input_depth: Depth | None = None,
    variant: int = 0,
) -> Exported:
    """Write a model as a program for other runtimes, which takes maps of any size from `least_side` of its format.

    Programs of PyTorch are called with the names of `Exported.program.inputs` as keywords, such as
    `torch.export.load(path).module()(label=label, instance=instance)`.

    The file is complete or absent. It gets its name after it was read by its runtime and made what the pipeline makes,
    but for rounding.

    Args:
        pipeline: the model, on the device for which a .pt2 file is made, and in its precision.
        out: the file; *.onnx or *.pt2. It must not exist.
        format: onnx, pt2 (`torch.export.save`), or aoti, compiled by AOTInductor for the kind of this machine.
        part: the generator, or the encoder.
        styles: with "mean" each instance has the mean style of its class. With "input" the program takes features,
            and a JSON file beside it has the mean styles and the clusters.
        input_depth: of the image that an A->B model takes, "uint8" unless given.
        variant: which of the images of a model that makes several at once.

    Raises:
        ConfigError: an option cannot be used with this model, format or machine, or the file exists.
        CheckpointError: the model's styles are damaged.
        HdganError: the program does not make what the pipeline makes, or the file cannot be written.
    """
    _check_out(out, format)
    if (require := FORMATS[format].require) is not None:
        require(pipeline.device, pipeline.precision)
    program = _make(pipeline, part, styles, input_depth, variant)
    styles_file = out.with_suffix(".styles.json") if part == "picture" and styles == "input" else None
    if styles_file is not None:
        _require_new(styles_file)
    size, classes = _training(pipeline)
    least = FORMATS[format].least_side(program.multiple)
    program.checked_side = least if FORMATS[format].checks_sides else None
    metadata = metadata_of(program, pipeline.config, pipeline.precision, least, size, classes)
    traced = trace(program, pipeline, least)
    with new_files(out.parent.absolute(), last=out.name) as folder:
        file = folder / out.name
        FORMATS[format].write(traced, file, metadata, program)
        run, described = FORMATS[format].read(file)
        if described != dict(metadata):
            raise HdganError(f"{out} is not written: its description differs when it is read: give another --format")
        found = tuple(differences(run, program, pipeline))
        _require_same(found, out)
        if styles_file is not None:
            write_json(folder / styles_file.name, _styles(pipeline))
    return Exported((out,) if styles_file is None else (out, styles_file), program, found)


def trace(program: ModelProgram, pipeline: Pipeline, least: int) -> ExportedProgram:
    """The program as operators of PyTorch alone, for maps of any size.

    Args:
        program: on the device of the pipeline after this.
        pipeline: of its model.
        least: pixels a side of the smallest maps.
    """
    program.to(pipeline.device)
    free = {BATCH: Dim(BATCH, min=1), HEIGHT: Dim(HEIGHT, min=least), WIDTH: Dim(WIDTH, min=least)}
    sizes = {
        spec.name: {dim: free[name] for dim, name in enumerate(spec.shape) if isinstance(name, str)}
        for spec in program.inputs
    }
    batch, higher, wider = _TRACED
    inputs = make_example(program, pipeline, (batch, least + higher, least + wider)).inputs
    with ops.backend("eager"), torch.no_grad():
        # The padded size is a maximum of two expressions, of which nothing can be proved for all sizes.
        return torch.export.export(
            program, (), inputs, dynamic_shapes=sizes, prefer_deferred_runtime_asserts_over_guards=True
        )


def _check_out(out: Path, format: FormatName) -> None:
    suffix = FORMATS[format].suffix
    if out.suffix != suffix:
        raise ConfigError(f"{option('out')} {out} must end in {suffix} for {option('format')} {format}")
    _require_new(out)


def _require_new(file: Path) -> None:
    if file.exists():
        raise ConfigError(f"{file} already exists: choose another {option('out')}, or delete it")


def _make(
    pipeline: Pipeline, part: Part, styles: StyleSource, input_depth: Depth | None, variant: int
) -> PictureProgram | EncoderProgram:
    """The program of a part of the model.

    Raises:
        ConfigError: the model has no such part, or an option has no effect on it.
    """
    config, dtype = pipeline.config, getattr(torch, pipeline.precision)
    if part == "encoder":
        _refuse_unused({"styles": styles != "mean", "input_depth": input_depth is not None, "variant": variant != 0})
        if pipeline.model.encoder is None:
            raise ConfigError(f"the model has no encoder: leave {option('part')} encoder out")
        return EncoderProgram(pipeline.model, dtype)
    if styles == "input" and not config.feature_channels:
        raise ConfigError(f"the model was trained without features: leave {option('styles')} input out")
    if input_depth is not None and config.n_labels:
        raise ConfigError(f"the model takes label maps, not images: leave {option('input_depth')} out")
    pipeline.require_variant(variant)
    if variant and config.variants is None:
        raise ConfigError(f"the exported model takes a seed for each picture: leave {option('variant')} out")
    means = None
    if config.feature_channels and styles == "mean":
        means = pipeline.class_features
        if means is None:
            raise ConfigError(
                "the checkpoint does not contain the mean styles of its classes: give "
                f"{option('styles')} input for a program that takes features"
            )
    return PictureProgram(pipeline.model, dtype, means, input_depth or "uint8", variant)


def _refuse_unused(given: dict[str, bool]) -> None:
    for name, is_given in given.items():
        if is_given:
            raise ConfigError(f"{option(name)} has no effect with {option('part')} encoder: leave it out")


def _training(pipeline: Pipeline) -> tuple[SizeConfig | None, DatasetSpec | None]:
    """The size of the training images and the classes of the dataset, where they are known."""
    if pipeline.file is None or "train" not in (metadata := read_metadata(pipeline.file)):
        return None, pipeline.classes
    _, size = training_of(pipeline.file, metadata, pipeline.config)
    return size, pipeline.classes


def _require_same(found: Sequence[Difference], out: Path) -> None:
    for difference in found:
        if not difference.acceptable:
            batch, height, width = difference.shape
            raise HdganError(
                f"{out} is not written: for {count(batch, 'map')} of {width}x{height} the program is "
                f"{difference.mean:.3g} 8-bit levels off on average and {difference.most:.3g} at most: give another "
                f"{option('format')} or {option('precision')}"
            )


def _styles(pipeline: Pipeline) -> dict[str, object]:
    """The mean styles of the classes, and where they were made the clusters of each class, as plain values."""
    means = pipeline.class_features
    banked = pipeline.file is not None and beside(pipeline.file, STYLES_FILE).exists()
    clusters = pipeline.bank.clusters if banked else {}
    return {
        "means": [] if means is None else means.cpu().tolist(),
        "clusters": {str(label): [cluster.centre.tolist() for cluster in own] for label, own in clusters.items()},
    }
