"""`hdgan evaluate`: scores of runs on held-out pictures, and the training of the scorer."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console
from rich.table import Table

from hdgan.config.bounds import Side
from hdgan.config.options import typed_as
from hdgan.config.serialization import check_value
from hdgan.data import DataConfig, SizeConfig
from hdgan.data.config import LayoutName
from hdgan.errors import ConfigError
from hdgan.evaluation.comparison import open_contest, score
from hdgan.evaluation.page import PAGE
from hdgan.evaluation.scorer_training import ScorerTraining
from hdgan.evaluation.scorer_training import train_scorer as train
from hdgan.files import require_no_file
from hdgan.metrics.scorer import ScorerRange
from hdgan.metrics.scores import HIGHER_IS_BETTER, METRICS, TITLES, RunScores, notes_of, shown
from hdgan.scenes import SPEC

SCORER = "scorer.safetensors"
_PICTURES, _CHECKPOINT = 8, "latest"
_NO_RUN = "without a run: a scorer is trained, and no picture made"
_TYPED = {
    "data.root": "--root",
    "data.layout": "--layout",
    "data.dontcare": "--dontcare",
    "model.n_labels": "--n-labels",
}


@typed_as(_TYPED)
def evaluate(
    runs: Annotated[tuple[Path, ...], tyro.conf.Positional],
    /,
    out: Path = Path("evaluation"),
    scorer: Path | None = None,
    scorer_range: ScorerRange = "signed",
    train_scorer: bool = False,
    scorer_training: ScorerTraining = ScorerTraining(),
    root: Path | None = None,
    layout: LayoutName | None = None,
    phase: str | None = None,
    width: int | None = None,
    height: int | None = None,
    n_labels: int | None = None,
    dontcare: int | None = None,
    max_images: int | None = None,
    pictures: int = _PICTURES,
    checkpoint: str = _CHECKPOINT,
    device: str = "auto",
    ema: bool = True,
) -> int:
    """Score runs on held-out pictures: segmentation score, PSNR, SSIM, LPIPS, FID, KID; side by side in a web page.

    Writes scores.csv, classes.csv and evaluation.html. The segmentation score needs a scorer, which recognises classes
    in pictures: --train-scorer trains one on the real training pictures of the first run (without a run: of --root, or
    of the built-in scenes), --scorer names one.

    Args:
        runs: run folders, checkpoint folders or .safetensors files; their label maps must have the same classes.
        out: folder for what is written.
        scorer: hdgan's .safetensors, TorchScript, or a .pt2 of torch.export; left out, scorer.safetensors in the folder
            of --out, if it is there. Foreign ones return logits [B, classes, H, W]; name only files that you trust.
        scorer_range: what pictures a foreign scorer takes: signed is [-1, 1], unit [0, 1], imagenet is unit normalised
            by ImageNet's mean and deviation.
        train_scorer: train the scorer first, and write it where --scorer says.
        scorer_training: how the scorer is trained.
        root: dataset, if it is not the first run's.
        layout: folder structure of --root; left out, it is detected.
        phase: of the dataset to evaluate on; left out, val, else test.
        width: of the pictures; left out, that of the first run's training.
        height: of the pictures; left out, from the width or the first run's training.
        n_labels: classes, where a scorer is trained without a run, which would say; left out, those of the scenes.
        dontcare: label of no class, where a scorer is trained without a run.
        max_images: evaluate on the first so many pictures only.
        pictures: how many of them the page shows.
        checkpoint: of runs: latest, best, or a step.
        device: auto, cpu, cuda or cuda:N.
        ema: use the averaged weights.
    """
    console = Console(stderr=True)
    require_no_file(out, "out")
    for name, side in (("width", width), ("height", height)):
        check_value(Side | None, side, name)
    size = None if width is None and height is None else SizeConfig(width=width, height=height)
    file = scorer or out / SCORER
    if not (runs or train_scorer):
        raise ConfigError("no run is named: give the folder of a training run, or --train-scorer")
    scoring = bool(runs)
    _refuse_idle(
        ("layout", layout is not None, root is not None, "without --root"),
        ("phase", phase is not None, scoring, _NO_RUN),
        ("max-images", max_images is not None, scoring, _NO_RUN),
        ("pictures", pictures != _PICTURES, scoring, _NO_RUN),
        ("checkpoint", checkpoint != _CHECKPOINT, scoring, _NO_RUN),
        ("no-ema", not ema, scoring, _NO_RUN),
        ("n-labels", n_labels is not None, not scoring, "with a run, which says it"),
        ("dontcare", dontcare is not None, not scoring, "with a run, which says it"),
        ("scorer-training", scorer_training != ScorerTraining(), train_scorer, "without --train-scorer"),
        ("scorer-range", scorer_range != "signed", scorer and not train_scorer, "but for a --scorer of your own"),
    )
    if not runs:
        data = DataConfig(root=root, layout=layout or "auto", dontcare=dontcare)
        n_labels = SPEC.n_labels if n_labels is None else n_labels
        train(data, n_labels, size or SizeConfig(), file, **asdict(scorer_training), device=device, console=console)
        return 0
    contest = open_contest(
        runs, root=root, layout=layout, phase=phase, size=size, max_images=max_images, pictures=pictures,
        checkpoint=checkpoint, device=device, ema=ema, console=console,
    )  # fmt: skip
    if train_scorer:
        data, size = contest.data, contest.dataset.size
        train(data, contest.n_labels, size, file, **asdict(scorer_training), device=device, console=console)
    if scorer or (contest.n_labels and file.is_file()):
        contest = contest.scored_by(file, scorer_range, console)
    rows = score(contest, out, console)
    _print(rows)
    print((out / PAGE).resolve())
    return 0


def _refuse_idle(*options: tuple[str, bool, object, str]) -> None:
    """Refuse an option that would be ignored: its name, whether it is given, has a meaning, and where it has none."""
    for name, given, has_meaning, where in options:
        if given and not has_meaning:
            raise ConfigError(f"--{name} has no meaning {where}; leave it out")


def _print(rows: list[RunScores]) -> None:
    """The table, without the columns that no run has."""
    names = [name for name in METRICS if any(row.metrics[name] is not None for row in rows)]
    table = Table("run")
    for name in names:
        table.add_column(f"{TITLES[name]} {'↑' if name in HIGHER_IS_BETTER else '↓'}", justify="right")
    for row in rows:
        table.add_row(row.name, *(shown(name, row.metrics[name]) for name in names))
    console = Console()
    console.print(table, markup=False)
    for titles, note in notes_of(rows).items():
        console.print(f"{titles}: {note}", markup=False, highlight=False, soft_wrap=True)
