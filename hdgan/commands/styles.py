"""`hdgan styles`: encode, cluster and show the styles of a run."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console
from rich.table import Table

from hdgan.checkpoints import beside
from hdgan.config.bounds import Positive
from hdgan.config.serialization import check_value
from hdgan.data import SizeConfig
from hdgan.errors import ConfigError
from hdgan.evaluation.style_agreement import Agreement, Change, measure_agreement, measure_changes
from hdgan.evaluation.style_sheet import write_sheet
from hdgan.inference.encoding import Source, open_source
from hdgan.inference.encoding import encode as encode_all
from hdgan.inference.pipeline import Pipeline, load
from hdgan.interop.nvidia import clusters as nvidia_file
from hdgan.progress import showing_progress
from hdgan.styles.bank import STYLES_FILE, StyleBank, with_thumbnails
from hdgan.styles.cluster import MIN_AREA
from hdgan.styles.cluster import cluster as find_clusters
from hdgan.styles.crops import Cropper
from hdgan.styles.table import FeatureTable, Origin

Run = Annotated[Path, tyro.conf.Positional]


def encode(
    run: Run,
    /,
    checkpoint: str = "latest",
    root: Path | None = None,
    width: int | None = None,
    device: str = "auto",
    ema: bool = True,
) -> int:
    """Encode every instance of the training pictures with E; one that was interrupted goes on.

    Writes features.npz beside the checkpoint: picture, id, class, area, box and mean feature of each instance.

    Args:
        run: run folder, checkpoint folder or .safetensors file.
        checkpoint: of a run: latest, best, or a step.
        root: dataset, if it is not where the run had it.
        width: of the pictures; left out, that of training.
        device: auto, cpu, cuda or cuda:N.
        ema: use the averaged weights.
    """
    console = Console(stderr=True)
    source = open_source(run, checkpoint=checkpoint, root=root, width=width, device=device, ema=ema, console=console)
    with showing_progress(console) as progress:
        table = encode_all(source, lambda done, total: progress("encoding", done, total))
    _say(console, f"{len(table)} instances of {len(table.stem)} pictures: {source.table_file}")
    return 0


def cluster(
    run: Run,
    /,
    k: int = 10,
    min_area: float = MIN_AREA,
    seed: int = 0,
    checkpoint: str = "latest",
    root: Path | None = None,
    ema: bool = True,
) -> int:
    """Find the styles of each class: K-means over the features that `hdgan styles encode` wrote.

    Writes styles.safetensors beside the checkpoint. A class with fewer different instances has fewer clusters.

    Args:
        run: run folder, checkpoint folder or .safetensors file.
        k: clusters of each class.
        min_area: instances that cover a smaller share of their picture are left out (NVIDIA's code: 1/64).
        seed: of K-means; the same gives the same clusters.
        checkpoint: of a run: latest, best, or a step.
        root: dataset, if it is not where the run had it.
        ema: use the averaged weights, as the features did.
    """
    console = Console(stderr=True)
    source = open_source(run, checkpoint=checkpoint, root=root, device="cpu", ema=ema)
    bank = find_clusters(_read_table(source), k, min_area=min_area, seed=seed, dontcare=source.model.config.dontcare)
    first = [entry.examples[0] for there in bank.clusters.values() for entry in there]
    bank = with_thumbnails(bank, _cropper(source).crops(first))
    bank.save(source.bank_file)
    without = sorted(bank.means.keys() - bank.clusters.keys())
    if without:
        names = ", ".join(_class_name(source, label) for label in without)
        _say(console, f"no instance is large enough, so the style is the mean of the class: {names}")
    _say(
        console, f"{sum(map(len, bank.clusters.values()))} clusters of {len(bank.clusters)} classes: {source.bank_file}"
    )
    return 0


def show(
    run: Run,
    /,
    out: Path | None = None,
    examples: int = 8,
    checkpoint: str = "latest",
    root: Path | None = None,
    ema: bool = True,
) -> int:
    """Show the clusters of each class with the instances nearest to their centres, on one sheet.

    Args:
        run: run folder, checkpoint folder or .safetensors file.
        out: .html or .png file; left out, styles.html beside the checkpoint.
        examples: of each cluster, at most; the file of clusters names 12.
        checkpoint: of a run: latest, best, or a step.
        root: dataset, if it is not where the run had it.
        ema: use the averaged weights, as the features did.
    """
    check_value(Positive, examples, "examples")
    source = open_source(run, checkpoint=checkpoint, root=root, device="cpu", ema=ema)
    target = out or beside(source.file, "styles.html")
    write_sheet(_read_bank(source), _cropper(source), target, source.class_names, examples)
    print(target.resolve())
    return 0


def import_nvidia(
    run: Run, file: Annotated[Path, tyro.conf.Positional], /, checkpoint: str = "latest", ema: bool = True
) -> int:
    """Take NVIDIA's clusters (features_clustered_010.npy) as those of a model; nothing in the file is run.

    Args:
        run: run folder, checkpoint folder or .safetensors file, of the E that the clusters were made with.
        file: NVIDIA's file.
        checkpoint: of a run: latest, best, or a step.
        ema: for the averaged weights.
    """
    model = load(run, checkpoint=checkpoint, device="cpu", ema=ema)
    assert model.file is not None
    bank = nvidia_file.read_nvidia(file)
    bank.require("", model.config.feature_channels, str(model.file))
    target = beside(model.file, STYLES_FILE)
    replace(bank, origin=Origin(model.encoder_id, file.name)).save(target)
    print(f"{sum(map(len, bank.clusters.values()))} clusters of {len(bank.clusters)} classes: {target}")
    return 0


def export_nvidia(
    run: Run, file: Annotated[Path, tyro.conf.Positional], /, checkpoint: str = "latest", ema: bool = True
) -> int:
    """Write the clusters of a model for NVIDIA's code.

    Args:
        run: run folder, checkpoint folder or .safetensors file.
        file: to write, usually named features_clustered_010.npy.
        checkpoint: of a run: latest, best, or a step.
        ema: of the averaged weights.
    """
    nvidia_file.write_nvidia(load(run, checkpoint=checkpoint, device="cpu", ema=ema).bank, file)
    print(f"wrote {file}")
    return 0


def measure(
    run: Run,
    /,
    min_area: float = MIN_AREA,
    switches: int = 20,
    seed: int = 0,
    checkpoint: str = "latest",
    device: str = "auto",
    ema: bool = True,
) -> int:
    """Measure the styles of a run on the built-in scenes, whose true styles are known.

    Prints for each class the normalised mutual information (NMI) of clusters and true styles: of as many clusters of
    E's features as there are true styles, of as many clusters of mean colours, and of the clusters of `hdgan styles
    cluster`. Then how much a held-out picture changes, in levels of 8 bits, on an instance whose cluster is switched
    and outside of it.

    Args:
        run: run folder, checkpoint folder or .safetensors file.
        min_area: instances that cover a smaller share of their picture are left out.
        switches: of each class.
        seed: of K-means and of the switches.
        checkpoint: of a run: latest, best, or a step.
        device: auto, cpu, cuda or cuda:N.
        ema: use the averaged weights.
    """
    console = Console(stderr=True)
    source = open_source(run, checkpoint=checkpoint, device=device, ema=ema, console=console)
    agreements = measure_agreement(source, _read_table(source), _read_bank(source), min_area, seed)
    pipeline = Pipeline(source.model, device=source.device, file=source.file)
    changes = measure_changes(pipeline, source.data.validation(source.size), switches, min_area, seed)
    _print_measures(source, agreements, changes)
    return 0


def _read_table(source: Source) -> FeatureTable:
    table = FeatureTable.load(source.table_file)
    if table.origin.encoder != source.origin.encoder:
        raise ConfigError(
            f"{source.table_file} was made with {table.origin.checkpoint} (encoder {table.origin.encoder}), not with "
            f"encoder {source.origin.encoder}: encode again with `hdgan styles encode`, with the same --ema"
        )
    return table


def _read_bank(source: Source) -> StyleBank:
    bank = StyleBank.load(source.bank_file)
    bank.require(source.origin.encoder, source.model.config.feature_channels, str(source.file))
    return bank


def _cropper(source: Source) -> Cropper:
    return Cropper(source.data.reference(SizeConfig()))


def _class_name(source: Source, label: int) -> str:
    return source.class_names[label] if label < len(source.class_names) else str(label)


def _print_measures(source: Source, agreements: list[Agreement], changes: list[Change]) -> None:
    by_label = {change.label: change for change in changes}
    heads = ("class", "instances", "styles", "NMI", "by colour", "of clusters", "switches", "inside", "outside")
    table = Table(*heads)
    for row in agreements:
        change = by_label.get(row.label)
        moved = (str(change.switches), f"{change.inside:.1f}", f"{change.outside:.2f}") if change else ("0", "", "")
        table.add_row(
            _class_name(source, row.label),
            str(row.instances),
            str(row.styles),
            *(f"{score:.3f}" for score in (row.matched, row.colours, row.clustered)),
            *moved,
        )
    Console().print(table)


def _say(console: Console, text: str) -> None:
    console.print(text, markup=False, highlight=False, soft_wrap=True)
