"""The runs of a comparison, opened together with their common held-out samples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from torch import Tensor

from hdgan.config.bounds import Positive
from hdgan.config.options import option
from hdgan.config.serialization import check_value
from hdgan.data import DataConfig, PairedDataset, Sample, SizeConfig
from hdgan.data.config import LayoutName
from hdgan.data.inspection import quick_check
from hdgan.data.spec import DatasetSpec
from hdgan.devices import choose_device
from hdgan.errors import ConfigError
from hdgan.evaluation.compatibility import EvaluatedStyles, common_classes, require_compatible, require_styles
from hdgan.evaluation.leakage import runs_that_saw, scorer_leaks
from hdgan.evaluation.split import held_out_pairs
from hdgan.families.saving import read_metadata
from hdgan.families.stored_classes import stored_classes
from hdgan.inference.pipeline import Pipeline, load
from hdgan.metrics.scorer import Scorer, ScorerRange, load_scorer
from hdgan.progress import print_lines
from hdgan.scenes import spec_of, with_scenes
from hdgan.sharding.world import ALONE, World
from hdgan.training.known_classes import renamed_note
from hdgan.training.run_folder import training_of


@dataclass(frozen=True)
class Comparison:
    """Opened runs, and the samples on which they are compared."""

    runs: dict[str, Pipeline]
    """The runs by name, in the given order."""
    data: DataConfig
    """Data of the first run, with its root."""
    phase: str
    dataset: PairedDataset
    count: int
    """Number of samples that are used, the first ones of the dataset."""
    device: torch.device
    spec: DatasetSpec | None
    """Names and colours of the classes, where the data or a run has them."""
    warnings: tuple[str, ...]
    """Reasons why the scores mean less than they seem to. The console shows them as well."""
    styles: EvaluatedStyles = "mean"
    """Of runs with features."""
    scorer: Scorer | None = None

    @property
    def styled(self) -> dict[str, Pipeline]:
        """The runs with features, which have styles."""
        return {name: pipeline for name, pipeline in self.runs.items() if pipeline.config.feature_channels}

    @property
    def palette(self) -> np.ndarray | None:
        return None if self.spec is None else self.spec.palette

    @cached_property
    def first_photo(self) -> Tensor:
        """[1, C, H, W] in [0, 1]."""
        return photo_of(self.dataset[0], self.device)

    @property
    def n_labels(self) -> int:
        """Classes of the label maps, 0 for A->B pairs."""
        return self.dataset.n_labels

    def with_scorer(self, file: Path, scorer_range: ScorerRange, console: Console) -> Comparison:
        """The same comparison with a scorer, which is tried on the first photo.

        Args:
            file: of the scorer.
            scorer_range: which values of photos a foreign scorer takes.
            console: where warnings go.

        Raises:
            ConfigError: there are no label maps, or the scorer cannot be used with them.
            CheckpointError: the file cannot be read.
        """
        if not self.n_labels:
            raise ConfigError(f"{option('scorer')} {file} needs label maps, and A->B runs have none: leave it out")
        scorer = load_scorer(file, self.n_labels, self.device, scorer_range)
        scorer(self.first_photo * 2 - 1)
        warnings = scorer_leaks(file, self.runs, self.data, self.phase)
        print_lines(console, *warnings)
        return replace(self, scorer=scorer, warnings=(*self.warnings, *warnings))


def open_comparison(
    runs: Sequence[Path],
    *,
    root: Path | None = None,
    layout: LayoutName | None = None,
    phase: str | None = None,
    size: SizeConfig | None = None,
    max_images: int | None = None,
    checkpoint: str = "latest",
    device: str = "auto",
    ema: bool = True,
    styles: EvaluatedStyles = "mean",
    console: Console,
    world: World = ALONE,
) -> Comparison:
    """Load the runs, find the samples, and check that both fit; `hdgan.evaluation.evaluate` describes the arguments."""
    check_value(Positive | None, max_images, "max_images")
    if not runs:
        raise ConfigError("no run is given: give the folder of a training run")
    chosen = choose_device(device)
    pipelines = [load(run, checkpoint=checkpoint, device=str(chosen), ema=ema) for run in runs]
    n_labels = common_classes(runs, pipelines)
    require_styles(pipelines, styles)
    data, trained_size = data_of(pipelines[0], root)
    data = data if layout is None else replace(data, layout=layout)
    named = dict(zip(_names(runs), pipelines, strict=True))
    spec, notes = _classes(data, named)
    with world.local_main_first():
        data = with_scenes(data, n_labels, console)
    listing = held_out_pairs(data, n_labels, phase)
    dataset = PairedDataset(listing.pairs, data, size or trained_size, n_labels, trained=True)
    count = min(max_images or len(dataset), len(dataset))
    evaluated = replace(listing, pairs=listing.pairs[:count])
    report = quick_check(evaluated, data, n_labels, trained=True, world=world)
    report.require_size(dataset.size)
    require_compatible(runs, pipelines, dataset, styles)
    warnings = (*runs_that_saw(named, data, listing.phase), *notes)
    print_lines(console, *report.warnings, *warnings)
    return Comparison(named, data, listing.phase, dataset, count, chosen, spec, warnings, styles)


def _classes(data: DataConfig, runs: dict[str, Pipeline]) -> tuple[DatasetSpec | None, list[str]]:
    """The classes of a dataset, by the rule of `hdgan.training.known_classes`, and a note on each run that was trained
    with other names.
    """
    n_labels = next(iter(runs.values())).config.n_labels
    own, known, notes = spec_of(data, n_labels, trained=True), [], []
    for name, pipeline in runs.items():
        assert pipeline.file is not None
        kept = stored_classes(pipeline.file, read_metadata(pipeline.file), n_labels)
        notes.append(renamed_note(data, own, kept, f"the run {name}"))
        known.append(pipeline.classes if own is None else own)
    return next(filter(None, known), None), list(filter(None, notes))


def data_of(pipeline: Pipeline, root: Path | None = None) -> tuple[DataConfig, SizeConfig]:
    """The data that a run was trained on, or the data in `root`, and the size of its images.

    Raises:
        ConfigError: the model's file does not say where the data is, and `root` is not given.
    """
    assert pipeline.file is not None
    config, size = training_of(pipeline.file, read_metadata(pipeline.file), pipeline.config, root)
    return config.data, size


def photo_of(sample: Sample, device: torch.device) -> Tensor:
    """The photo of a sample as a batch, [1, C, H, W] float32 in [0, 1]."""
    photo = sample["photo"][None].to(device)
    return photo.float() / 255 if photo.dtype == torch.uint8 else (photo + 1) / 2


def _names(runs: Sequence[Path]) -> list[str]:
    """A short, unique name for each run: that of its folder, or as much of the end of its path as needed."""
    paths = [run.resolve() for run in runs]
    for depth in range(1, max(len(path.parts) for path in paths)):
        names = ["/".join(path.parts[-depth:]) for path in paths]
        if len(set(names)) == len(names):
            return names
    raise ConfigError(f"a run is given twice: {', '.join(map(str, runs))}")
