"""`hdgan data convert` and `hdgan data palette`: datasets of other arrangements and programs to hdgan's folders."""

from __future__ import annotations

import os
import shlex
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

from annotated_types import Interval
from rich.console import Console
from rich.table import Table
from rich.text import Text

from hdgan.config.options import typed_as
from hdgan.config.serialization import check_value
from hdgan.data.class_file import write_classes
from hdgan.data.conversion import (
    ConversionOptions,
    ConversionReport,
    ConversionSummary,
    FormatName,
    convert_dataset,
    count_colors,
)
from hdgan.data.conversion.converting import INEXACT
from hdgan.data.spec import DatasetSpec
from hdgan.errors import ConfigError, DataError
from hdgan.progress import print_lines, showing_progress
from hdgan.wording import count

_Top = Annotated[int, Interval(ge=1, le=65536)]
_FEW, _SMALL = 500, 512
"""Training samples, and pixels of width, below which a preset with small networks is suggested."""
_LARGE_WIDTH, _SMALL_WIDTH = 1024, 256
"""The widths to which the suggested presets for label maps scale."""
_SPARSE = 4
"""At least one of so many labels should occur."""
_MOST_ROWS = 64
"""Classes that are shown even if they do not occur."""


def convert(
    source: Path,
    /,
    *,
    out: Path,
    format: FormatName | Literal["auto"] = "auto",
    photos: Path | None = None,
    classes: Path | None = None,
    dontcare: str | None = None,
    nearest: int | None = None,
    background: str | None = None,
    stuff: tuple[str, ...] = (),
    line_width: int | None = None,
    labels_in: Literal["A", "B"] | None = None,
    skip_unpaired: bool = False,
    val_fraction: float | None = None,
    val_list: Path | None = None,
    link: bool = False,
) -> int:
    """Convert a dataset to the folders train_label, train_inst, train_img and val_*, which training reads.

    Photos are copied as they are. Label maps become PNGs of 8 or 16 bits and instance maps PNGs of 16 bits or TIFFs of
    32 bits. The classes are written to classes.csv. OUT appears when all of it is there. Until then samples are written
    to OUT.partial, where a repeat of the command continues.

    Args:
        source: Folder of the dataset, or its annotation file.
        out: Folder to write.
        format: Of the source; auto recognises it. colors: a folder of photos (images) and one of label maps (labels)
            whose colours are classes, of which `hdgan data palette` makes the list; images-labels: the same with label
            maps whose pixels are labels, and perhaps instance maps (instances); coco-panoptic: panoptic_*.json and its
            PNGs; labelme: a JSON file of LabelMe for each photo; cvat: annotations.xml of CVAT for images 1.1;
            train-ab: trainA and trainB, paired by name, which become train_A and train_B.
        photos: Folder of the photos, if it is not in SOURCE.
        classes: classes.csv with the columns label, name and color; for colors it says which colour is which class.
        dontcare: Name or label of a class whose pixels belong to no class.
        nearest: Accept colours at most so far from that of a class, as a distance in RGB; by default all must be exact.
        background: Name of label 0, which is what no shape covers; by default background, for COCO unlabeled.
        stuff: Classes without instances, whose shapes are joined.
        line_width: Width in pixels of lines and points, which have no area; 0 leaves them out.
        labels_in: Side of A-to-B pairs that is label maps rather than images.
        skip_unpaired: Leave out files without a partner instead of refusing them.
        val_fraction: Share of the samples that is kept for validation, by the hashes of their names; by default 0.1. It
            applies to sources without folders for train and val.
        val_list: Text file with the names of the samples for validation, instead of a share.
        link: Make hard links to the photos instead of copies.

    Returns:
        Exit status 0.
    """
    console = Console(stderr=True)
    with typed_as(), showing_progress(console) as progress:
        options = ConversionOptions(
            source, photos, classes, dontcare, nearest, background, stuff, line_width, labels_in, skip_unpaired,
            val_fraction, val_list,
        )  # fmt: skip
        chosen = None if format == "auto" else format
        say = partial(print_lines, console)
        report = convert_dataset(options, out, chosen, link=link, say=say, progress=progress)
    _print_report(report, Console())
    return 0


def palette(folder: Path, /, *, out: Path, top: int | None = None) -> int:
    """List the colours of label maps as a classes.csv, in which you then name the classes.

    The colours of all pixels are counted exactly. The most frequent one gets label 0. Edit the names, and the labels if
    their order matters, before `hdgan data convert` reads the file.

    Args:
        folder: Folder of a dataset, or of its label maps.
        out: CSV file to write, with the columns label, name and color.
        top: Keep so many of the most frequent colours, where blurred edges or JPEG have added others.

    Returns:
        Exit status 0.
    """
    console = Console(stderr=True)
    with typed_as(), showing_progress(console) as progress:
        if os.path.lexists(out):
            raise ConfigError(f"--out {out} exists: choose another, or remove it")
        check_value(_Top | None, top, "top")
        if not folder.is_dir():
            raise DataError(f"{folder} is not a folder: give the folder of the dataset or of its label maps")
        counted = count_colors(folder, top, progress)
        write_classes(out, counted.spec)
    total = sum(counted.pixels) + counted.left_out
    table = Table("label", "name", "color", "share %", box=None)
    for label, (name, color) in enumerate(zip(counted.spec.classes, counted.spec.css_colors, strict=True)):
        table.add_row(str(label), name, color, f"{100 * counted.pixels[label] / total:.3f}")
    console = Console()
    console.print(table)
    rest = f"; other colours have {100 * counted.left_out / total:.3f} % of the pixels" if counted.left_out else ""
    print_lines(
        console,
        f"{out}: {count(counted.spec.n_labels, 'colour')} of {count(counted.files, 'label map')}{rest}; name the "
        f"classes in it, then use it: hdgan data convert {shlex.quote(str(folder))} --classes {shlex.quote(str(out))} "
        "--out OUT",
    )
    return 0


def _print_report(report: ConversionReport, console: Console) -> None:
    """Print the classes and their shares, what was written, and the command that trains on it."""
    summary, say = report.summary, partial(print_lines, console)
    if report.spec is not None:
        console.print(_class_table(report.spec, summary))
    if len(summary.pixels) * _SPARSE < summary.n_labels:
        say(
            f"only {len(summary.pixels)} of {summary.n_labels} labels occur: if the label maps show classes by grey "
            "levels, convert them with --format colors"
        )
    if summary.inexact:
        say(
            f"{count(summary.inexact, 'pixel')} had a colour that was not exactly that of a class; {INEXACT} counts "
            "them by sample"
        )
    if summary.dontcare is not None and report.spec is not None and summary.dontcare >= report.spec.n_labels:
        say(f"label {summary.dontcare} is taken to belong to no class")
    kept = f", {report.kept} of them already converted" if report.kept else ""
    say(f"{report.out}: {' and '.join(f'{n} {phase}' for phase, n in summary.samples.items())} samples{kept}")
    if summary.samples.get("train"):
        say(f"train: {training_command(report)}")
    else:
        say("there are no training samples: convert a dataset for training into another folder")


def training_command(report: ConversionReport) -> str:
    """The command that trains on a converted dataset, with a preset for so many images of this size."""
    summary = report.summary
    small = summary.samples.get("train", 0) < _FEW or summary.width < _SMALL
    preset = ("demo" if small else "cityscapes-512p") if summary.n_labels else ("pairs-pix2pix" if small else "pairs")
    words = ["hdgan-train", preset, "--data.root", str(report.out)]
    if summary.n_labels:
        words += ["--out", f"runs/{report.out.name}"] if small else []
        words += ["--n-labels", str(summary.n_labels)]
        words += [] if summary.dontcare is None else ["--dontcare", str(summary.dontcare)]
        words += [] if summary.instances else ["--no-instances"]
        words += [] if summary.divisor == 1000 else ["--data.instance-divisor", str(summary.divisor)]
        # Its width alone: the preset demo would make all images twice as wide as high.
        scaled = _SMALL_WIDTH if small else _LARGE_WIDTH
        words += ["--size", str(min(summary.width, scaled))] if small or summary.width < scaled else []
    return shlex.join(words)


def _class_table(spec: DatasetSpec, summary: ConversionSummary) -> Table:
    table = Table("label", "name", "color", "share %", "images", box=None)
    total = sum(summary.pixels.values())
    named = dict(enumerate(zip(spec.classes, spec.css_colors, strict=True)))
    for label in sorted(named.keys() | set(map(int, summary.pixels))):
        name, color = named.get(label, ("", ""))
        name += " (no class)" if label == summary.dontcare else ""
        if str(label) not in summary.pixels and len(named) > _MOST_ROWS:
            continue
        pixels, images = summary.pixels.get(str(label), 0), summary.images.get(str(label), 0)
        table.add_row(str(label), Text(name.strip()), color, f"{100 * pixels / total:.3f}", str(images))
    for column in (table.columns[0], *table.columns[3:]):
        column.justify = "right"
    return table
