"""Runs side by side: each makes pictures from the same held-out label maps, and all are scored alike."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from torch import Tensor

from hdgan.config.bounds import Count, Positive
from hdgan.config.options import option
from hdgan.config.serialization import check_value
from hdgan.data import DataConfig, PairedDataset, Sample, SizeConfig
from hdgan.data.config import LayoutName
from hdgan.data.inspection import quick_check
from hdgan.data.spec import DatasetSpec
from hdgan.devices import choose_device, enough_memory
from hdgan.errors import ConfigError
from hdgan.evaluation.independence import about_runs, about_scorer
from hdgan.evaluation.page import Facts, Gallery, write_results
from hdgan.evaluation.split import held_out_pairs
from hdgan.evaluation.suitability import common_classes, require_suitable
from hdgan.families.saving import read_metadata
from hdgan.inference.pipeline import Pipeline, load
from hdgan.metrics.evaluator import Judge
from hdgan.metrics.feature_networks import FeatureNetworks
from hdgan.metrics.scorer import Scorer, ScorerRange, load_scorer, out_of_memory
from hdgan.metrics.scores import IMAGE_METRICS, METRICS, ORACLE, SEGMENTATION, RunScores
from hdgan.progress import showing_progress
from hdgan.scenes import spec_of, with_scenes
from hdgan.training.run_folder import training_of


@dataclass(frozen=True)
class Contest:
    """Opened runs, and the pictures that they are compared on."""

    names: tuple[str, ...]
    pipelines: tuple[Pipeline, ...]
    data: DataConfig
    """With its root, of the first run."""
    phase: str
    dataset: PairedDataset
    count: int
    """Pictures that are used, the first of the dataset."""
    shown: int
    """Of these, those that evaluation.html shows."""
    device: torch.device
    spec: DatasetSpec | None
    """Names and colours of the classes, where the data has them."""
    warnings: tuple[str, ...]
    """What makes the scores say less than they seem to, as it was printed."""
    scorer: Scorer | None = None

    @property
    def palette(self) -> np.ndarray | None:
        return None if self.spec is None else self.spec.palette

    @cached_property
    def first_photo(self) -> Tensor:
        """[1, 3, H, W] in [0, 1]."""
        return photo_of(self.dataset[0], self.device)

    @property
    def n_labels(self) -> int:
        """Classes of the label maps, 0 for A->B pairs."""
        return self.dataset.n_labels

    @property
    def runs(self) -> dict[str, Pipeline]:
        """By name."""
        return dict(zip(self.names, self.pipelines, strict=True))

    def scored_by(self, scorer: Path, scorer_range: ScorerRange, console: Console) -> Contest:
        """The same with a scorer, which is tried on the first photo; see `evaluate`."""
        if not self.n_labels:
            raise ConfigError(
                f"{option('scorer')} {scorer} needs label maps, which A->B runs do not have: leave it out"
            )
        network = load_scorer(scorer, self.n_labels, self.device, scorer_range)
        network(self.first_photo * 2 - 1)
        warnings = about_scorer(scorer, self.runs, self.data, self.phase)
        _say(console, warnings)
        return replace(self, scorer=network, warnings=(*self.warnings, *warnings))


def evaluate(
    runs: Sequence[Path],
    *,
    scorer: Path | None = None,
    scorer_range: ScorerRange = "signed",
    root: Path | None = None,
    layout: LayoutName | None = None,
    phase: str | None = None,
    size: SizeConfig | None = None,
    max_images: int | None = None,
    checkpoint: str = "latest",
    device: str = "auto",
    ema: bool = True,
    out: Path | None = None,
    pictures: int = 8,
    console: Console | None = None,
) -> list[RunScores]:
    """Score runs on the pictures of one phase, by default the validation phase, which no training learns from.

    Every run makes its pictures from the same label maps (or inputs) at the same size; a model with features gives each
    class its mean style, so that no photo is looked at. Pictures are scored as 8 bits, as they are saved. The scorer
    recognises classes in each, and in the photos: that row is the oracle, by which the others are to be read. It is no
    upper bound, since a generator may paint classes more alike than they are. Where a run was trained on the very
    pictures or against the very scorer, or the scorer on the pictures, console and page say so.

    Args:
        runs: run folders, checkpoint folders or .safetensors files.
        scorer: hdgan's own (`train_scorer`), TorchScript or .pt2; without it there is no segmentation score.
        scorer_range: what pictures a foreign scorer takes.
        root: dataset, where it is not the first run's own.
        layout: folder structure of `root`; None detects it, or takes the run's for its own dataset.
        phase: of the dataset; None takes the validation phase.
        size: of the pictures; None takes that of the first run's training, without crops.
        max_images: use the first so many pictures only.
        checkpoint: of runs: latest, best, or a step.
        device: auto, cpu, cuda or cuda:N.
        ema: use the averaged weights.
        out: folder to write scores.csv, classes.csv and evaluation.html to; None writes nothing.
        pictures: samples that evaluation.html shows.
        console: where progress goes.

    Returns:
        The oracle, then one row for each run, in the order given.

    Raises:
        ConfigError: the runs, or runs and scorer, have different classes, a run cannot be scored on these pictures, a
            scorer is given without label maps, or memory does not suffice.
        CheckpointError: a run has no checkpoint, or a file is damaged.
        DataError: the split is missing, empty or without photos.
    """
    console, runs = console or Console(quiet=True), [Path(run) for run in runs]
    contest = open_contest(
        runs, root=root, layout=layout, phase=phase, size=size, max_images=max_images, pictures=pictures,
        checkpoint=checkpoint, device=device, ema=ema, console=console,
    )  # fmt: skip
    if scorer is not None:
        contest = contest.scored_by(scorer, scorer_range, console)
    return score(contest, out, console)


def open_contest(
    runs: Sequence[Path],
    *,
    root: Path | None,
    layout: LayoutName | None,
    phase: str | None,
    size: SizeConfig | None,
    max_images: int | None,
    pictures: int,
    checkpoint: str,
    device: str,
    ema: bool,
    console: Console,
) -> Contest:
    """Load the runs, find the pictures and check both; see `evaluate`."""
    check_value(Count, pictures, "pictures")
    check_value(Positive | None, max_images, "max_images")
    if not runs:
        raise ConfigError("no run is named: give the folder of a training run")
    chosen = choose_device(device)
    pipelines = tuple(load(run, checkpoint=checkpoint, device=str(chosen), ema=ema) for run in runs)
    n_labels = common_classes(runs, pipelines)
    data, trained_size = data_of(pipelines[0], root)
    data = data if layout is None else replace(data, layout=layout)
    spec = spec_of(data)
    data = with_scenes(data, n_labels, console)
    listing = held_out_pairs(data, n_labels, phase)
    dataset = PairedDataset(listing.pairs, data, size or trained_size, n_labels)
    count = min(max_images or len(dataset), len(dataset))
    used = replace(listing, pairs=listing.pairs[:count])
    report = quick_check(used, data, n_labels)
    report.require_size(dataset.size)
    require_suitable(runs, pipelines, dataset)
    names = tuple(_names(runs))
    warnings = tuple(about_runs(dict(zip(names, pipelines, strict=True)), data, listing.phase))
    _say(console, (*report.warnings, *warnings))
    return Contest(names, pipelines, data, listing.phase, dataset, count, pictures, chosen, spec, warnings)


def _say(console: Console, warnings: Iterable[str]) -> None:
    for warning in warnings:
        console.print(warning, markup=False, highlight=False, soft_wrap=True)


def data_of(pipeline: Pipeline, root: Path | None = None) -> tuple[DataConfig, SizeConfig]:
    """The data that a run was trained on, or that under `root`, and the size of its pictures.

    Raises:
        ConfigError: the model's file does not name the data, and `root` is not given.
    """
    assert pipeline.file is not None
    config, size = training_of(pipeline.file, read_metadata(pipeline.file), pipeline.config, root)
    return config.data, size


def score(contest: Contest, out: Path | None, console: Console) -> list[RunScores]:
    """Make and score all pictures and, with a folder, write the results to it; see `evaluate`."""
    gallery = Gallery((ORACLE, *contest.names), contest.palette, contest.shown if out is not None else 0)
    rows = measure(contest, gallery, console)
    if out is not None:
        write_results(out, rows, gallery, _facts(contest))
    return rows


def measure(contest: Contest, gallery: Gallery, console: Console) -> list[RunScores]:
    """Make and score all pictures, one label map at a time.

    Args:
        contest: opened runs.
        gallery: gets the first pictures.
        console: where progress goes.
    """
    judges = _judges(contest)
    task, done, total = "making and scoring pictures", 0, contest.count * len(contest.pipelines)
    with showing_progress(console) as progress:
        progress(task, done, total)
        for index in range(contest.count):
            sample = contest.dataset[index]
            photo = photo_of(sample, contest.device)
            pictures, size = [photo], f"{photo.shape[3]}x{photo.shape[2]}"
            for name, pipeline in contest.runs.items():
                with enough_memory(out_of_memory(f"the run {name}", size)):
                    pictures.append(make_picture(pipeline, sample, seed=index))
                done += 1
                progress(task, done, total)
            label = sample["label"][None].to(contest.device) if "label" in sample else None
            with enough_memory(out_of_memory("scoring", size)):
                seen = [judge.add(picture, photo, label) for judge, picture in zip(judges, pictures, strict=True)]
            gallery.add(sample, pictures, seen)
    rows = [judge.scores(name) for judge, name in zip(judges, (ORACLE, *contest.names), strict=True)]
    rows[0].notes.update(dict.fromkeys(IMAGE_METRICS, "the photos are what pictures are compared with"))
    return rows


def photo_of(sample: Sample, device: torch.device) -> Tensor:
    """[1, 3, H, W] in [0, 1]."""
    return sample["photo"][None].to(device).float() / 255


def make_picture(pipeline: Pipeline, sample: Sample, seed: int) -> Tensor:
    """The picture of one sample: [1, 3, H, W] in [0, 1], rounded as it would be saved; the seed repeats its noise."""
    source = sample["label"] if "label" in sample else sample["input"]
    return as_saved(pipeline(source[None], sample["ids"][None] if "ids" in sample else None, seed=seed))


def as_saved(image: Tensor) -> Tensor:
    """Round a picture in [0, 1] to 8 bits."""
    return (image * 255).round() / 255


def _judges(contest: Contest) -> list[Judge]:
    """One for the photos, of which only recognition is scored, and one for each run."""
    networks = FeatureNetworks(contest.scorer.segmenter if contest.scorer is not None else None, contest.device)
    return [
        Judge(
            scored,
            count=contest.count,
            scorer=contest.scorer,
            n_labels=contest.n_labels,
            dontcare=contest.data.dontcare,
            networks=networks,
        )
        for scored in (SEGMENTATION, *[METRICS] * len(contest.names))
    ]


def _facts(contest: Contest) -> Facts:
    height, width = contest.first_photo.shape[2:]
    scorer = contest.scorer.name if contest.scorer else "none"
    lines = {
        "data": str(contest.data.root),
        "phase": contest.phase,
        "pictures": f"{contest.count} of {len(contest.dataset)}, {width}x{height}",
        "scorer": scorer,
    }
    lines |= {name: str(pipeline.file) for name, pipeline in contest.runs.items()}
    remarks = list(contest.warnings)
    if contest.scorer is not None:
        remarks.append(
            "Mean IoU and pixel accuracy: what the scorer recognises in a picture against the label map it was made "
            "from, over all pixels of the split; pixels of no class do not count, and a class that neither label maps "
            "nor recognition have does not enter the mean. The photos' row is no upper bound: classes that are painted "
            "alike are easier to recognise."
        )
    if contest.scorer is not None and contest.scorer.segmenter is not None:
        dimensions = sum(contest.scorer.segmenter.feature_channels)
        remarks.append(
            f"Scorer FID: Fréchet's distance of the scorer's {dimensions} features over {contest.count} pictures, a "
            "stand-in for FID. It compares the rows of this table, and no others."
        )
    columns = {"scorer": scorer, "phase": contest.phase, "pictures": contest.count}
    return Facts(lines, tuple(remarks), () if contest.spec is None else contest.spec.classes, columns)


def _names(runs: Sequence[Path]) -> list[str]:
    """A short name for each run that tells it from the others: its folder's, or as much of the path as that takes."""
    paths = [run.resolve() for run in runs]
    for depth in range(1, max(len(path.parts) for path in paths)):
        names = ["/".join(path.parts[-depth:]) for path in paths]
        if len(set(names)) == len(names):
            return names
    raise ConfigError(f"a run is named twice: {', '.join(map(str, runs))}")
