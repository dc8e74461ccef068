"""Scores of runs: every run generates an image from each held-out input, and all images are scored in the same way."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from rich.console import Console
from torch import Tensor

from hdgan.checkpoints import STYLES_FILE, beside
from hdgan.config.bounds import Count
from hdgan.config.serialization import check_value
from hdgan.data import Sample, SizeConfig
from hdgan.data.agreement import require_same_pairs
from hdgan.data.config import LayoutName
from hdgan.data.headers import WHITES
from hdgan.data.image_kind import RGB
from hdgan.devices import enough_memory
from hdgan.errors import called
from hdgan.evaluation.comparison import Comparison, open_comparison, photo_of
from hdgan.evaluation.compatibility import EvaluatedStyles
from hdgan.evaluation.page import Facts, Gallery, ShownSample, write_results
from hdgan.inference.pipeline import Pipeline
from hdgan.metrics.evaluator import Evaluator, Measures
from hdgan.metrics.feature_networks import FeatureNetworks
from hdgan.metrics.scorer import ScorerRange, out_of_memory
from hdgan.metrics.scores import METRICS, OF_PHOTOS, ORACLE, SEGMENTATION, TITLES, RunScores
from hdgan.progress import showing_progress
from hdgan.sharding.world import ALONE, World
from hdgan.training.consistency import content_of
from hdgan.wording import count

_ROUND = 4
"""Samples that each process scores before all exchange what they have measured."""
_STYLES: dict[EvaluatedStyles, str] = {
    "mean": "mean (of each class)",
    "random": "random (a cluster for each instance)",
}


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
    styles: EvaluatedStyles = "mean",
    out: Path | None = None,
    pictures: int = 8,
    console: Console | None = None,
    world: World = ALONE,
) -> list[RunScores]:
    """Score runs on the samples of one phase, by default the validation phase, from which training does not learn.

    Every run generates images from the same label maps (or inputs) at the same size, and no run sees the photo. Images
    are scored with the bits that they are saved with. The scorer recognises classes in each of them, and in the photos.
    The row of the photos, the oracle, is the reference for the others. It is not an upper bound, since a generator may
    paint classes more uniformly than they are. The console and the page warn if a run was trained on the same samples
    or with the same scorer, or the scorer on the samples.

    Args:
        runs: run folders, checkpoint folders or .safetensors files.
        scorer: hdgan's own (`train_scorer`), TorchScript or .pt2. Without one there is no segmentation score.
        scorer_range: which values of photos a foreign scorer takes.
        root: dataset, if it is not the first run's own.
        layout: folder structure of `root`. None detects it, or uses the run's for its own dataset.
        phase: of the dataset. None uses the validation phase.
        size: of the images. None uses that of the first run's training, without crops.
        max_images: use at most this many samples, the first ones.
        checkpoint: which one of each run: latest, best, or a step.
        device: auto, cpu, cuda or cuda:N.
        ema: use the averaged weights.
        styles: of models with features: "mean" gives each class its mean style, "random" each instance a random cluster
            of its class. Mean styles are recognised best, but vary less than photos do, which FID and KID punish.
        out: folder to write scores.csv, class_scores.csv and evaluation.html to. None writes nothing.
        pictures: number of samples that evaluation.html shows.
        console: for progress and warnings.
        world: the processes that share the samples; the first one writes the files. Their number changes no result.

    Returns:
        The oracle, then one row for each run, in the order given.

    Raises:
        ConfigError: the runs, or runs and scorer, have different classes, a run cannot be scored on these samples, a
            scorer is given without label maps, random styles without features, or there is not enough memory.
        CheckpointError: a run has no checkpoint, or no clusters for random styles, or a file is damaged.
        DataError: the phase is missing, empty or without photos.
    """
    console = console or Console(quiet=True)
    check_value(Count, pictures, "pictures")
    comparison = open_comparison(
        [Path(run) for run in runs], root=root, layout=layout, phase=phase, size=size, max_images=max_images,
        checkpoint=checkpoint, device=device, ema=ema, styles=styles, console=console, world=world,
    )  # fmt: skip
    if scorer is not None:
        comparison = comparison.with_scorer(scorer, scorer_range, console)
    return score(comparison, out, pictures, console, world)


def score(
    comparison: Comparison, out: Path | None, shown: int, console: Console, world: World = ALONE
) -> list[RunScores]:
    """Generate and score all images and, with a folder, write the results to it.

    Args:
        comparison: opened runs, the same in all processes.
        out: as in `evaluate`.
        shown: number of samples that evaluation.html shows.
        console: for progress.
        world: as in `evaluate`.

    Returns:
        As of `evaluate`.

    Raises:
        ConfigError: the processes do not have the same runs, samples or networks.
    """
    gallery = Gallery((ORACLE, *comparison.runs), comparison.palette, shown if out is not None else 0)
    evaluators = _evaluators(comparison)
    _require_equal(comparison, evaluators, world)
    _score_all(comparison, evaluators, gallery, console, world)
    rows = world.from_main(lambda: [one.scores(name) for one, name in zip(evaluators, gallery.names, strict=True)])
    rows[0].notes.update(dict.fromkeys(OF_PHOTOS, "the photos are the reference"))
    if out is not None and world.is_main:
        write_results(out, rows, gallery, _facts(comparison))
    return rows


@dataclass(frozen=True)
class _ScoredSample:
    """What one process has found of a sample."""

    measures: list[Measures]
    """Of each row."""
    shown: ShownSample | None


def _score_all(
    comparison: Comparison, evaluators: Sequence[Evaluator], gallery: Gallery, console: Console, world: World
) -> None:
    """Add all samples to the evaluators and to the gallery."""
    task, total = "generating and scoring images", comparison.count
    own = (_score(comparison, evaluators, gallery, index) for index in world.share(range(total)))
    with showing_progress(console) as progress:
        progress(task, 0, total)
        for done, scored in enumerate(world.in_order(own, total, _ROUND), start=1):
            for evaluator, measures in zip(evaluators, scored.measures, strict=True):
                evaluator.add(measures)
            if scored.shown is not None:
                gallery.samples.append(scored.shown)
            progress(task, done, total)


def _score(comparison: Comparison, evaluators: Sequence[Evaluator], gallery: Gallery, index: int) -> _ScoredSample:
    """Generate the images of one sample and measure them."""
    sample = comparison.dataset[index]
    photo = photo_of(sample, comparison.device)
    images, size = [photo], f"{photo.shape[3]}x{photo.shape[2]}"
    for name, pipeline in comparison.runs.items():
        with enough_memory(out_of_memory(f"the run {name}", size)):
            images.append(_generate(pipeline, sample, comparison.styles, seed=index))
    label = sample["label"][None].to(comparison.device) if "label" in sample else None
    ids = sample["ids"][None].to(comparison.device) if "ids" in sample else None
    with enough_memory(out_of_memory("scoring", size)):
        measured = [one.measure(image, photo, label, ids) for one, image in zip(evaluators, images, strict=True)]
    shown = gallery.embed(index, sample, images, [recognised for _, recognised in measured])
    return _ScoredSample([measures for measures, _ in measured], shown)


def _require_equal(comparison: Comparison, evaluators: Sequence[Evaluator], world: World) -> None:
    """Make sure that all processes score the same runs on the same samples by the same metrics."""
    if world.size == 1:
        return
    require_same_pairs(world.rendezvous, comparison.dataset.pairs[: comparison.count], "sample")
    files = {f"the run {name}": pipeline.file for name, pipeline in comparison.runs.items()}
    if comparison.styles == "random":
        files |= {
            f"the clusters of {name}": beside(pipeline.file, STYLES_FILE)
            for name, pipeline in comparison.styled.items()
            if pipeline.file
        }
    files["the scorer"] = Path(comparison.scorer.name) if comparison.scorer is not None else None
    facts = {name: "none" if file is None else content_of(file) for name, file in files.items()}
    facts |= {f"the metric {TITLES[name]}": evaluators[-1].notes.get(name, "available") for name in METRICS}
    world.rendezvous.require_equal(facts)


def _generate(pipeline: Pipeline, sample: Sample, styles: EvaluatedStyles, seed: int) -> Tensor:
    """The image of a sample, [1, C, H, W] in [0, 1], rounded as it would be saved."""
    maps = pipeline.read(sample["label"] if "label" in sample else sample["input"], sample.get("ids"))
    drawn = None
    if styles == "random" and pipeline.config.feature_channels:
        drawn = pipeline.bank.sample(pipeline.instances(maps), seed)
    image = pipeline(maps, styles=drawn, seed=seed)[None]
    white = WHITES.get(pipeline.config.image_depth)
    return image if white is None else torch.round(image * white) / white


def _evaluators(comparison: Comparison) -> list[Evaluator]:
    """One evaluator for the photos, which only scores recognition, and one for each run."""
    scorer = comparison.scorer
    networks = FeatureNetworks(scorer.segmenter if scorer is not None else None, comparison.device)
    return [
        Evaluator(
            metrics,
            count=comparison.count,
            scorer=scorer,
            n_labels=comparison.n_labels,
            dontcare=comparison.data.dontcare,
            networks=networks,
            channels=comparison.dataset.photo_kind.channels,
        )
        for metrics in (SEGMENTATION, *[METRICS] * len(comparison.runs))
    ]


def _facts(comparison: Comparison) -> Facts:
    height, width = comparison.first_photo.shape[2:]
    scorer = comparison.scorer.name if comparison.scorer else "none"
    lines = {
        "data": str(comparison.data.root),
        "phase": comparison.phase,
        "images": f"{comparison.count} of {len(comparison.dataset)}, {width}x{height}",
        "scorer": scorer,
    }
    if comparison.dataset.photo_kind != RGB:
        lines["photos"] = str(comparison.dataset.photo_kind)
    if comparison.styled:
        lines["styles"] = _STYLES[comparison.styles]
    lines |= {name: called(pipeline.file or "") for name, pipeline in comparison.runs.items()}
    remarks = list(comparison.warnings)
    if comparison.scorer is not None:
        remarks.append(
            "The row of the photos is no upper bound of mean IoU and pixel accuracy: classes that are painted "
            "uniformly are easier to recognise."
        )
    if comparison.scorer is not None and comparison.scorer.segmenter is not None:
        dimensions = sum(comparison.scorer.segmenter.feature_channels)
        remarks.append(f"Scorer FID compares {dimensions} features of {count(comparison.count, 'image')}.")
    remarks.append(
        "Two sets of photos also differ in spectrum and pattern, more so if they are small: 0 is out of reach."
    )
    columns = {"scorer": scorer, "phase": comparison.phase, "pictures": comparison.count}
    columns["styles"] = comparison.styles if comparison.styled else ""
    return Facts(lines, tuple(remarks), comparison.n_labels > 0, comparison.spec, columns)
