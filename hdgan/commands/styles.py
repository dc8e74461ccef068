"""`hdgan styles`: encode, cluster and show the styles of a run."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

import tyro
from rich.console import Console
from rich.table import Table
from rich.text import Text

from hdgan.checkpoints import output_beside
from hdgan.config.bounds import Positive
from hdgan.config.options import typed_as
from hdgan.config.serialization import check_value
from hdgan.data import SizeConfig
from hdgan.data.spec import class_name
from hdgan.errors import ConfigError
from hdgan.evaluation.style_agreement import Agreement, Change, measure_agreement, measure_changes
from hdgan.evaluation.style_sheet import write_sheet
from hdgan.inference import encoding
from hdgan.inference.encoding import TrainedModel, new_bank_file, open_trained_model
from hdgan.inference.pipeline import Pipeline, load
from hdgan.interop.nvidia import clusters as nvidia_clusters
from hdgan.progress import print_lines, showing_progress
from hdgan.sharding.world import join_shards
from hdgan.styles.bank import StyleBank, with_thumbnails
from hdgan.styles.cluster import MIN_AREA
from hdgan.styles.cluster import cluster as find_clusters
from hdgan.styles.crops import Cropper
from hdgan.styles.remedies import how_to_encode
from hdgan.styles.table import FeatureTable, Origin


@dataclass(frozen=True)
class ModelOptions:
    """The model of a command, and which of its weights to use."""

    run: Annotated[Path, tyro.conf.Positional]
    """Run folder, checkpoint folder or .safetensors file; demo, the model that comes with hdgan; or hf:OWNER/NAME, a
    model on the Hugging Face Hub."""
    checkpoint: str = "latest"
    """Checkpoint of a run: latest, best, or a step."""
    ema: bool = True
    """Use the averaged weights. All commands that share a file of features or clusters need the same choice."""

    def open(self, *, device: str = "cpu", **options: Any) -> TrainedModel:
        """The model with its training images; options as of `open_trained_model`."""
        return open_trained_model(self.run, checkpoint=self.checkpoint, ema=self.ema, device=device, **options)

    def load(self) -> Pipeline:
        return load(self.run, checkpoint=self.checkpoint, device="cpu", ema=self.ema)


@dataclass(frozen=True)
class ClusterFileOptions(ModelOptions):
    """The same options with a second positional argument."""

    file: Annotated[Path, tyro.conf.Positional] = field(kw_only=True)
    """NVIDIA's clusters, made with the E of this model; usually features_clustered_010.npy."""


Model = Annotated[ModelOptions, tyro.conf.arg(name="")]
_TYPED = {"data.root": "--root"}
ModelAndFile = Annotated[ClusterFileOptions, tyro.conf.arg(name="")]


@typed_as(_TYPED)
def encode(model: Model, root: Path | None = None, width: int | None = None, device: str = "auto") -> int:
    """Encode every instance of the training images with E. An interrupted encoding is continued.

    Writes features.npz next to the checkpoint: picture, id, class, area, box and mean feature of each instance.

    `torchrun --nproc-per-node N -m hdgan styles encode ...` shares the images among N processes, one for each
    GPU or several on CPUs, and writes the same file.

    Args:
        root: Dataset, a folder or a URL, if it has moved since training.
        width: Width of the images; by default that of training.
        device: auto, cpu, cuda or cuda:N.
    """
    console = Console(stderr=True)
    with join_shards(device) as world:
        trained = model.open(root=root, width=width, device=device, console=console, world=world)
        with showing_progress(console) as progress:
            table = encoding.encode(trained, lambda done, total: progress("encoding", done, total), world)
    print_lines(console, f"{len(table)} instances of {len(table.stem)} images: {trained.table_file}")
    return 0


@typed_as(_TYPED)
def cluster(model: Model, k: int = 10, min_area: float = MIN_AREA, seed: int = 0, root: Path | None = None) -> int:
    """Find the styles of each class: K-means over the features that `hdgan styles encode` wrote.

    Writes styles.safetensors next to the checkpoint. A class with fewer distinct instances has fewer clusters.

    Args:
        k: Number of clusters per class.
        min_area: Leave out instances that cover a smaller share of their image (NVIDIA's code: 1/64).
        seed: Seed of K-means; the same seed gives the same clusters.
        root: Dataset, if it has moved since training.
    """
    trained = model.open(root=root, console=Console(stderr=True))
    target = trained.bank_file
    bank = find_clusters(
        _read_table(trained), k, min_area=min_area, seed=seed, dontcare=trained.pipeline.config.dontcare
    )
    first = [entry.examples[0] for clusters in bank.clusters.values() for entry in clusters]
    bank = with_thumbnails(bank, _cropper(trained).crops(first))
    bank.save(target)
    console = Console(stderr=True)
    without = sorted(bank.means.keys() - bank.clusters.keys())
    if without:
        names = ", ".join(class_name(trained.classes, label) for label in without)
        print_lines(
            console, f"classes without a large enough instance, which keep the mean style of the class: {names}"
        )
    print_lines(console, f"{_count(bank)}: {target}")
    return 0


@typed_as(_TYPED)
def show(model: Model, out: Path | None = None, examples: int = 8, root: Path | None = None) -> int:
    """Show the clusters of each class with the instances nearest to their centres, on one sheet.

    Args:
        out: .html or .png file; by default styles.html next to the checkpoint.
        examples: Largest number of examples of each cluster; the file of clusters contains 12.
        root: Dataset, if it has moved since training.
    """
    check_value(Positive, examples, "examples")
    trained = model.open(root=root, console=Console(stderr=True))
    target = out or output_beside(trained.file, "styles.html")
    write_sheet(trained.pipeline.bank, _cropper(trained), target, trained.classes, examples)
    print(target.resolve())
    return 0


def import_nvidia(model: ModelAndFile) -> int:
    """Use NVIDIA's clusters as those of a model. No code in the file is run."""
    pipeline = model.load()
    assert pipeline.file is not None
    bank = nvidia_clusters.read_nvidia(model.file)
    bank.require("", pipeline.config.feature_channels, str(pipeline.file))
    target = new_bank_file(pipeline.file)
    replace(bank, origin=Origin(pipeline.encoder_id, model.file.name)).save(target)
    print(f"{_count(bank)}: {target}")
    return 0


def export_nvidia(model: ModelAndFile) -> int:
    """Write the clusters of a model for NVIDIA's code."""
    nvidia_clusters.write_nvidia(model.load().bank, model.file)
    print(f"wrote {model.file}")
    return 0


def measure(model: Model, min_area: float = MIN_AREA, switches: int = 20, seed: int = 0, device: str = "auto") -> int:
    """Measure the styles of a run on the built-in scenes, whose true styles are known.

    Prints for each class the normalised mutual information (NMI) of clusters and true styles: of as many clusters of
    E's features as there are true styles, of as many clusters of mean colours, and of the clusters of `hdgan styles
    cluster`. Then how much a held-out image changes, in levels of 8 bits, on and outside of an instance whose cluster
    is switched.

    Args:
        min_area: Leave out instances that cover a smaller share of their image.
        switches: Number of switches per class.
        seed: Seed of K-means and of the switches.
        device: auto, cpu, cuda or cuda:N.
    """
    trained = model.open(device=device, console=Console(stderr=True))
    agreements = measure_agreement(trained, _read_table(trained), trained.pipeline.bank, min_area, seed)
    changes = measure_changes(trained.pipeline, trained.data.validation(trained.size), switches, min_area, seed)
    _print_measures(trained, agreements, changes)
    return 0


def _read_table(trained: TrainedModel) -> FeatureTable:
    table = FeatureTable.load(trained.table_file)
    if table.origin.encoder != trained.origin.encoder:
        raise ConfigError(
            f"{trained.table_file} was made with {table.origin.checkpoint} (encoder {table.origin.encoder}), not with "
            f"encoder {trained.origin.encoder}: {how_to_encode(trained.table_file)}, with the same choice of --ema or "
            "--no-ema"
        )
    return table


def _cropper(trained: TrainedModel) -> Cropper:
    return Cropper(trained.data.reference(SizeConfig()))


def _count(bank: StyleBank) -> str:
    return f"{sum(map(len, bank.clusters.values()))} clusters of {len(bank.clusters)} classes"


def _print_measures(trained: TrainedModel, agreements: list[Agreement], changes: list[Change]) -> None:
    by_label = {change.label: change for change in changes}
    heads = ("class", "instances", "styles", "NMI", "by colour", "of clusters", "switches", "inside", "outside")
    table = Table(*heads)
    for row in agreements:
        change = by_label.get(row.label)
        moved = (str(change.switches), f"{change.inside:.1f}", f"{change.outside:.2f}") if change else ("0", "", "")
        table.add_row(
            Text(class_name(trained.classes, row.label)),
            str(row.instances),
            str(row.styles),
            *(f"{score:.3f}" for score in (row.matched, row.colours, row.clustered)),
            *moved,
        )
    Console().print(table)
