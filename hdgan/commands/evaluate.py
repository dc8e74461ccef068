"""`hdgan evaluate`: scores of runs on held-out samples, and the training of the scorer."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

from hdgan.config.bounds import Count, Side
from hdgan.config.options import typed_as
from hdgan.config.serialization import check_value
from hdgan.data import DataConfig, SizeConfig
from hdgan.data.config import LayoutName
from hdgan.errors import ConfigError
from hdgan.evaluation.comparison import open_comparison
from hdgan.evaluation.compatibility import EvaluatedStyles
from hdgan.evaluation.page import PAGE
from hdgan.evaluation.scorer_training import ScorerTraining, train_scorer
from hdgan.evaluation.scoring import score
from hdgan.files import require_no_file
from hdgan.metrics.scorer import ScorerRange
from hdgan.metrics.scores import HIGHER_IS_BETTER, METRICS, TITLES, RunScores, notes_of, shown
from hdgan.progress import print_lines
from hdgan.scenes import SPEC
from hdgan.sharding.world import World, join_shards

SCORER = "scorer.safetensors"
_TYPED = {
    "data.root": "--root",
    "data.layout": "--layout",
    "data.dontcare": "--dontcare",
    "model.n_labels": "--n-labels",
}


@dataclass(frozen=True)
class EvaluateOptions:
    """The options of the command."""

    runs: Annotated[tuple[Path, ...], tyro.conf.Positional] = ()
    """Run folders, checkpoint folders or .safetensors files; demo, the model that comes with hdgan; or hf:OWNER/NAME, a
    model on the Hugging Face Hub. Their label maps must have the same classes."""
    out: Path = Path("evaluation")
    """Folder for the results."""
    scorer: Path | None = None
    """hdgan's .safetensors, TorchScript, or a .pt2 of torch.export; by default scorer.safetensors in the folder of
    --out, if it exists. A scorer that is not hdgan's returns logits [B, classes, H, W]; give only files that you
    trust."""
    scorer_range: ScorerRange = "signed"
    """Range of the photos that a scorer of your own takes: signed is [-1, 1], unit is [0, 1], imagenet is unit
    normalised by ImageNet's mean and standard deviation."""
    train_scorer: bool = False
    """Train the scorer first, and write it to the file of --scorer."""
    scorer_training: ScorerTraining = ScorerTraining()
    root: Path | None = None
    """Dataset, if it is not the first run's: a folder, or a URL such as s3://bucket/set."""
    layout: LayoutName | None = None
    """Folder structure of --root; detected by default."""
    phase: str | None = None
    """Phase of the dataset to evaluate on; by default val, else test."""
    width: int | None = None
    """Width of the images; by default that of the first run's training."""
    height: int | None = None
    """Height of the images; by default it follows from the width or the first run's training."""
    n_labels: int | None = None
    """Number of classes, if a scorer is trained without a run; by default that of the scenes."""
    dontcare: int | None = None
    """Label of pixels that have no class, if a scorer is trained without a run."""
    max_images: int | None = None
    """Evaluate on at most this many images, the first ones."""
    pictures: int = 8
    """Number of samples that the page shows."""
    checkpoint: str = "latest"
    """Checkpoint of each run: latest, best, or a step."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N."""
    ema: bool = True
    """Use the averaged weights."""
    styles: EvaluatedStyles = "mean"
    """Of runs with features: the mean style of each class, or a random cluster for each instance, which needs hdgan
    styles cluster."""

    @property
    def size(self) -> SizeConfig | None:
        """None if neither width nor height is given."""
        return SizeConfig(self.width, self.height) if self.width or self.height else None

    @property
    def scorer_file(self) -> Path:
        return self.scorer or self.out / SCORER


@typed_as(_TYPED)
def evaluate(options: Annotated[EvaluateOptions, tyro.conf.arg(name="")]) -> int:
    """Score runs on held-out images: segmentation score, PSNR, SSIM, LPIPS, FID, KID; side by side in a web page.

    Writes scores.csv, class_scores.csv and evaluation.html. The segmentation score needs a scorer, which recognises
    classes in images: --train-scorer trains one on the real training photos of the first run (without a run: of --root,
    or of the built-in scenes), and --scorer gives an existing one.

    `torchrun --nproc-per-node N -m hdgan evaluate ...` shares the images among N processes, one for each
    GPU or several on CPUs, and writes the same files. The scorer is trained by one of them.
    """
    _check(options)
    with join_shards(options.device) as world:
        return _evaluate(options, Console(stderr=True), world)


def _evaluate(options: EvaluateOptions, console: Console, world: World) -> int:
    if not options.runs:
        data = DataConfig(root=options.root, layout=options.layout or "auto", dontcare=options.dontcare)
        n_labels = SPEC.n_labels if options.n_labels is None else options.n_labels
        _train_scorer(options, data, n_labels, options.size or SizeConfig(), console, world)
        return 0
    comparison = open_comparison(
        options.runs, root=options.root, layout=options.layout, phase=options.phase, size=options.size,
        max_images=options.max_images, checkpoint=options.checkpoint, device=options.device, ema=options.ema,
        styles=options.styles, console=console, world=world,
    )  # fmt: skip
    if options.train_scorer:
        _train_scorer(options, comparison.data, comparison.n_labels, comparison.dataset.size, console, world)
    if options.scorer or (comparison.n_labels and options.scorer_file.is_file()):
        comparison = comparison.with_scorer(options.scorer_file, options.scorer_range, console)
    _print(score(comparison, options.out, options.pictures, console, world))
    print((options.out / PAGE).resolve())
    return 0


def _check(options: EvaluateOptions) -> None:
    """Refuse values that are out of range, and options that would be ignored."""
    require_no_file(options.out)
    check_value(Side | None, options.width, "width")
    check_value(Side | None, options.height, "height")
    check_value(Count, options.pictures, "pictures")
    if not (options.runs or options.train_scorer):
        raise ConfigError("no run is given: give the folder of a training run, or --train-scorer")
    idle = {"scorer_range": "except with a --scorer of your own"} if options.train_scorer or not options.scorer else {}
    if options.root is None:
        idle["layout"] = "without --root"
    if not options.train_scorer:
        idle["scorer_training"] = "without --train-scorer"
    if options.runs:
        idle |= dict.fromkeys(("n_labels", "dontcare"), "with a run, which defines its own")
    else:
        of_runs = ("phase", "max_images", "pictures", "checkpoint", "ema", "styles")
        idle |= dict.fromkeys(of_runs, "without a run, when only a scorer is trained")
    for name, where in idle.items():
        if getattr(options, name) != getattr(EvaluateOptions, name):
            typed = "no-ema" if name == "ema" else name.replace("_", "-")
            raise ConfigError(f"--{typed} has no effect {where}: leave it out")


def _train_scorer(
    options: EvaluateOptions, data: DataConfig, n_labels: int, size: SizeConfig, console: Console, world: World
) -> None:
    """Train the scorer in one process, while the others wait for its file."""
    file, training, device = options.scorer_file, options.scorer_training, options.device
    world.from_main(
        lambda: train_scorer(
            data, n_labels, size, file, training, device=device, for_run=bool(options.runs), console=console
        )
    )


def _print(rows: list[RunScores]) -> None:
    """Print the table, without the columns in which no run has a value."""
    names = [name for name in METRICS if any(row.metrics[name] is not None for row in rows)]
    # Lines between so many metrics would take room that terminals do not have. What has too little room is folded.
    table = Table(Column("run", overflow="fold"), box=None, padding=(0, 1, 0, 0), header_style="bold")
    for name in names:
        title = f"{TITLES[name]} {'↑' if name in HIGHER_IS_BETTER else '↓'}"
        table.add_column(title, justify="right", overflow="fold")
    for row in rows:
        table.add_row(Text(row.name), *(shown(name, row.metrics[name]) for name in names))
    console = Console()
    console.print(table)
    for titles, note in notes_of(rows).items():
        print_lines(console, f"{titles}: {note}")
