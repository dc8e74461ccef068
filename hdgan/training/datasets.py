"""The datasets of a run: where its pairs are, and what is checked before the first step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import cast

import numpy as np
from rich.console import Console

from hdgan.config.options import option
from hdgan.data import (
    DataConfig,
    Listing,
    Pair,
    PairedDataset,
    SizeConfig,
    draw_geometry,
    find_pairs,
    validation_phase,
)
from hdgan.data.quick_check import QuickReport, quick_check
from hdgan.errors import ConfigError, DataError
from hdgan.families import AnyModelConfig
from hdgan.progress import showing_progress
from hdgan.scenes import PALETTE, with_scenes
from hdgan.training.config import TrainConfig
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
    """(width, height) of the training pictures' files, each once."""
    palette: np.ndarray | None = None
    """Colours of the classes, where the dataset has its own."""

    def training(self, size: SizeConfig, seed: int) -> PairedDataset:
        """Training pairs at a stage's size, cropped and mirrored at random."""
        return PairedDataset(self.train_pairs, self.config, size, self.n_labels, train=True, seed=seed)

    def validation(self, size: SizeConfig) -> PairedDataset:
        """Validation pairs at a stage's size."""
        return PairedDataset(self.val_pairs, self.config, size, self.n_labels)

    def reference(self, size: SizeConfig) -> PairedDataset:
        """Training pairs as they are, for statistics over them."""
        return PairedDataset(self.train_pairs, self.config, size, self.n_labels)


def open_data(config: TrainConfig, console: Console, processes: int = 1) -> RunData:
    """Find the pairs of a run and check what is cheap to check; without a root the built-in scenes are rendered.

    Args:
        config: of the run.
        console: where warnings go.
        processes: that share each batch.

    Raises:
        ConfigError: the model does not suit the data.
        DataError: the data cannot be used, naming the file.
    """
    n_labels = config.model.n_labels
    data = with_scenes(config.data, n_labels, console)
    if config.data.root is None:
        console.print(f"street scenes: {data.root}", markup=False, highlight=False, soft_wrap=True)
    labels = n_labels > 0
    listing = find_pairs(data, data.train_phase, labels)
    if listing.pairs[0].photo is None:
        raise DataError(f"{data.root} has no photos for phase {data.train_phase}: training needs pairs with photos")
    if config.model.instances and listing.pairs[0].ids is None:
        raise ConfigError(
            f"{data.root} has no instance maps for phase {data.train_phase}: train without "
            "(--model.no-instances; in Python instances=False)"
        )
    phase = validation_phase(data, labels)
    held_out = listing if phase == data.train_phase else find_pairs(data, phase, labels)
    first = held_out.pairs[0]
    lacks = "photos" if first.photo is None else "instance maps" if config.model.instances and first.ids is None else ""
    if lacks:
        console.print(f"phase {phase} has no {lacks}: samples show training pictures", markup=False, highlight=False)
        phase, held_out = data.train_phase, listing
    with showing_progress(console) as progress:
        reports = [
            (found, quick_check(found, data, n_labels, progress=progress))
            for found in dict.fromkeys((listing, held_out))
        ]
    for _, report in reports:
        for warning in report.warnings:
            console.print(warning, markup=False, highlight=False, soft_wrap=True)
    for stage in config.stages.values():
        for found, report in reports:
            report.require_size(stage.size)  # samples and statistics take pictures one by one
            if found is listing:
                report.require_size(stage.size.training, stage.batch_size // processes)
    _check_channels(config, reports)
    palette = PALETTE if config.data.root is None else None
    sizes = tuple(reports[0][1].sizes)
    return RunData(data, n_labels, listing.pairs, held_out.pairs, phase, sizes, palette)


def resolved(config: TrainConfig, data: RunData) -> TrainConfig:
    """The config with what follows from the sizes of the training pictures in all stages filled into the model's."""
    sides = [
        side
        for stage in config.stages.values()
        for size in data.train_sizes
        for side in draw_geometry(size, stage.size).size
    ]
    return replace(config, model=cast(AnyModelConfig, config.model.sized(sides)))


def _check_channels(config: TrainConfig, reports: Sequence[tuple[Listing, QuickReport]]) -> None:
    if config.model.image_channels != 3:
        raise ConfigError(
            f"{option('model.image_channels')} is {config.model.image_channels}, but photos are read as RGB: set 3"
        )
    for listing, report in reports:
        if not config.model.n_labels and report.channels != config.model.input_channels:
            raise ConfigError(
                f"{listing.pairs[0].input} has {count(report.channels, 'channel')}, but "
                f"{option('model.input_channels')} is {config.model.input_channels}: set it to {report.channels}"
            )
