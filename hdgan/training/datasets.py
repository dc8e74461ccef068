"""The datasets of a run: where its pairs are, and what is checked before the first step."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from rich.console import Console

from hdgan.config.options import option
from hdgan.data import (
    DataConfig,
    Listing,
    Pair,
    PairedDataset,
    SizeConfig,
    find_pairs,
    sample_geometry,
    validation_phase,
)
from hdgan.data.image_kind import RGB, ImageKind, photos_differ
from hdgan.data.inspection import quick_check
from hdgan.data.report import PhaseReport
from hdgan.data.spec import DatasetSpec
from hdgan.errors import ConfigError, DataError
from hdgan.families.common.train_config import TrainConfig
from hdgan.families.stored_inputs import StoredInputs
from hdgan.progress import print_lines, showing_progress
from hdgan.scenes import spec_of, with_scenes
from hdgan.wording import count


@dataclass(frozen=True)
class RunData:
    """The pairs of a run, found and checked."""

    config: DataConfig
    n_labels: int
    train_pairs: tuple[Pair, ...]
    val_pairs: tuple[Pair, ...]
    val_phase: str
    train_sizes: tuple[tuple[int, int], ...]
    """(width, height) of the training images' files, each once."""
    photo_kind: ImageKind = RGB
    """Channels and type of the photos."""
    classes: DatasetSpec | None = None
    """Names and colours of the classes, where they are known."""
    inputs: StoredInputs | None = None
    """What the model's file says of its input images; None for label maps."""
    trained: bool = False
    """Whether the model's classes do not change any more, for messages."""

    @property
    def palette(self) -> np.ndarray | None:
        """Colours of the classes, [n_labels, 3] uint8, where they are known."""
        return None if self.classes is None else self.classes.palette

    def training(self, size: SizeConfig, seed: int) -> PairedDataset:
        """Training pairs at a stage's size, cropped and mirrored at random."""
        return PairedDataset(
            self.train_pairs, self.config, size, self.n_labels, train=True, seed=seed, trained=self.trained
        )

    def validation(self, size: SizeConfig) -> PairedDataset:
        """Validation pairs at a stage's size."""
        return PairedDataset(self.val_pairs, self.config, size, self.n_labels, trained=self.trained)

    def reference(self, size: SizeConfig) -> PairedDataset:
        """Training pairs as they are, for statistics over them."""
        return PairedDataset(self.train_pairs, self.config, size, self.n_labels, trained=self.trained)


def open_data(config: TrainConfig, console: Console, processes: int = 1, *, trained: bool = False) -> RunData:
    """Find the pairs of a run and do the cheap checks; without a root the built-in scenes are rendered.

    Args:
        config: of the run.
        console: where warnings go.
        processes: number of processes that share each batch.
        trained: whether the run has begun or ended, so that the model's options do not change any more.

    Raises:
        ConfigError: the model does not suit the data.
        DataError: the data cannot be used, naming the file.
    """
    n_labels = config.model.n_labels
    classes = spec_of(config.data, n_labels, trained=trained)
    data = with_scenes(config.data, n_labels, console)
    if config.data.uses_scenes:
        print_lines(console, f"street scenes: {data.root}")
    training = find_pairs(data, data.train_phase, n_labels > 0)
    for lack in training.lacks(data.root, config.model.instances):
        raise DataError(lack)
    validation = _validation_pairs(config, data, training, console)
    with showing_progress(console) as progress:
        reports = {
            listing: quick_check(listing, data, n_labels, trained=trained, progress=progress)
            for listing in dict.fromkeys((training, validation))
        }
    for report in reports.values():
        print_lines(console, *report.warnings)
    for stage in config.stages.values():
        for report in reports.values():
            report.require_size(stage.size)  # samples and statistics take images one by one
        reports[training].require_size(stage.size.training, stage.batch_size // processes)
    _check_photos(config, reports)
    _check_inputs(config, reports)
    return RunData(
        data,
        n_labels,
        training.pairs,
        validation.pairs,
        validation.phase,
        tuple(reports[training].sizes),
        reports[training].photo_kind,
        classes,
        None if n_labels else _inputs(training, reports[training]),
        trained,
    )


def _inputs(training: Listing, report: PhaseReport) -> StoredInputs:
    aspects = [width / height for width, height in report.sizes]
    return StoredInputs(report.input_depth, training.layout, (min(aspects), max(aspects)))


def _validation_pairs(config: TrainConfig, data: DataConfig, training: Listing, console: Console) -> Listing:
    """The pairs of the validation phase; the training pairs where those lack a part that the model takes."""
    labels = config.model.n_labels > 0
    phase = validation_phase(data, labels)
    if phase == training.phase:
        return training
    listing = find_pairs(data, phase, labels)
    first = listing.pairs[0]
    if first.photo is None:
        lacks = f"photos{listing.instead_of('photo')}"
    elif config.model.instances and first.ids is None:
        lacks = f"instance maps{listing.instead_of('ids')}"
    else:
        return listing
    print_lines(console, f"phase {phase} has no {lacks}: sample images are made from training images")
    return training


def resolved(config: TrainConfig, data: RunData) -> TrainConfig:
    """The config of a run, with the model's options that follow from the training images filled in."""
    sides = [
        side
        for stage in config.stages.values()
        for size in data.train_sizes
        for side in sample_geometry(size, stage.size).size
    ]
    channels, depth = data.photo_kind
    return replace(config, model=replace(config.model, image_channels=channels, image_depth=depth)).resolved(sides)


def training_shapes(config: TrainConfig, data: RunData, processes: int) -> list[tuple[int, int, int]]:
    """Batch, height and width of the smallest and of the largest images that a process trains on in each stage."""
    shapes = []
    for stage in config.stages.values():
        batch = stage.micro_batch or stage.batch_size // processes
        sizes = {sample_geometry(size, stage.size.training).size for size in data.train_sizes}
        by_area = sorted(sizes, key=lambda size: size[0] * size[1])
        shapes += [(batch, height, width) for width, height in dict.fromkeys(by_area[:1] + by_area[-1:])]
    return list(dict.fromkeys(shapes))


def _check_photos(config: TrainConfig, reports: Mapping[Listing, PhaseReport]) -> None:
    """Make sure that the photos of all phases are alike and suit a model whose channels are known already."""
    (photo, kind), *others = [(listing.pairs[0].photo, report.photo_kind) for listing, report in reports.items()]
    for other, found in others:
        if found != kind:
            raise photos_differ(other, found, photo, kind)
    channels = config.model.image_channels
    if config.data.photo == "rgb" and channels != kind.channels:
        raise ConfigError(
            f"{option('model.image_channels')} is {channels}, but photos are read as RGB: set it to 3, or set "
            f"{option('data.photo')} stored"
        )
    if channels not in (RGB.channels, kind.channels):
        raise ConfigError(
            f"{photo} has {kind}, but {option('model.image_channels')} is {channels}: give photos of "
            f"{count(channels, 'channel')}, or start a new run"
        )


def _check_inputs(config: TrainConfig, reports: Mapping[Listing, PhaseReport]) -> None:
    for listing, report in reports.items():
        if not config.model.n_labels and report.input_channels != config.model.input_channels:
            raise ConfigError(
                f"{listing.pairs[0].input} has {count(report.input_channels, 'channel')}, but "
                f"{option('model.input_channels')} is {config.model.input_channels}: set it to {report.input_channels}"
            )
