"""`hdgan data`: check a dataset, or pack it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from itertools import zip_longest
from pathlib import Path
from statistics import median

from rich.console import Console
from rich.filesize import decimal
from rich.table import Table
from rich.text import Text

from hdgan.config.bounds import Labels, Side
from hdgan.config.options import typed_as
from hdgan.config.serialization import check_value
from hdgan.data.class_file import CLASS_FILE
from hdgan.data.config import DataConfig, LayoutName, PhotoMode, SizeConfig, UnpackedLayout
from hdgan.data.faults import grouped
from hdgan.data.inspection import check_dataset
from hdgan.data.pack import pack_dataset
from hdgan.data.report import CheckReport, PhaseReport, Requirements
from hdgan.data.spec import DatasetSpec
from hdgan.data.transforms import Filter
from hdgan.errors import ConfigError
from hdgan.files import require_no_file
from hdgan.progress import print_lines, showing_progress
from hdgan.sharding.world import join_shards
from hdgan.wording import count

_TYPED = {
    "data.layout": "--layout",
    "data.dontcare": "--dontcare",
    "data.instance_divisor": "--instance-divisor",
    "data.photo": "--photo",
    "data.photo_filter": "--photo-filter",
    "model.n_labels": "--n-labels",
    "model.instances": "--instances",
    "stages.STAGE.batch_size": "--batch-size",
    "threads": "--workers",
    **{f"stages.STAGE.size.{name}": f"--size.{name.replace('_', '-')}" for name in vars(SizeConfig())},
}


def check(
    root: Path,
    /,
    *,
    layout: LayoutName = "auto",
    n_labels: int | None = None,
    dontcare: int | None = None,
    phase: tuple[str, ...] = (),
    instance_divisor: int = 1000,
    photo: PhotoMode = "rgb",
    photo_filter: Filter = "bicubic",
    instances: bool = False,
    size: SizeConfig = SizeConfig(),
    batch_size: int = 1,
    all_faults: bool = False,
) -> int:
    """Open every file of a dataset; print what it contains, and each fault with its remedy.

    A dataset with label maps may name its classes in a file classes.csv in ROOT, with the columns label, name and color
    (#rrggbb, may be missing). Training keeps the names in the model, and pages, tables and the editor show them.

    The last options describe the training. With them, whatever training would reject also counts as a fault.

    `torchrun --nproc-per-node N -m hdgan data check ...` shares the files among N processes.

    Args:
        root: Folder of the dataset, or its URL, such as s3://bucket/set.
        layout: Folder structure; auto detects it.
        n_labels: Number of classes; labels at or above it are faults, and so is a classes.csv with another number. 0
            for A-to-B images.
        dontcare: Label whose pixels belong to no class, for example 255.
        phase: Phases to check, for example train; all by default.
        instance_divisor: Class of an instance id: id // instance_divisor where id >= instance_divisor, else id itself.
        photo: How training will read photos: as 8-bit RGB, or as stored, with all their channels and bits.
        photo_filter: Resampling filter for photos, as in training.
        instances: Instance maps are required, as in training without --no-instances.
        size: Size of a stage, as in training.
        batch_size: Samples per batch and process, which must all have the same size.
        all_faults: Print each fault on a line of its own, also those that many files have alike.

    Returns:
        Exit status: 0 if the dataset is clean, 1 if it has faults.
    """
    with typed_as({**_TYPED, "data.root": "ROOT"}):
        config = DataConfig(
            root=root, layout=layout, dontcare=dontcare, instance_divisor=instance_divisor, photo=photo,
            photo_filter=photo_filter,
        )  # fmt: skip
        given = size if size != SizeConfig() or batch_size > 1 else None
        check_value(Labels | None, n_labels, "model.n_labels")
        requirements = Requirements(n_labels, instances, given, batch_size)
        with join_shards() as world, showing_progress(Console(stderr=True)) as progress:
            report = check_dataset(config, requirements, phase or None, progress, world)
        return print_report(report, all_faults=all_faults)


def pack(
    folder: Path,
    /,
    *,
    out: Path,
    width: tuple[int, ...] = (),
    height: tuple[int, ...] = (),
    layout: UnpackedLayout = "auto",
    n_labels: int | None = None,
    dontcare: int | None = None,
    phase: tuple[str, ...] = (),
    photo: PhotoMode = "rgb",
    photo_filter: Filter = "bicubic",
    workers: int | None = None,
) -> int:
    """Write a dataset in a form that is many times faster to read; train on it with --data.root OUT.

    Samples have the same pixels as those from FOLDER, and its classes.csv is copied. Repeat the command to continue
    after an interruption, or to renew what is damaged or has changed in FOLDER.

    `torchrun --nproc-per-node N -m hdgan data pack ...` shares the samples among N processes, which may run on several
    machines that share OUT.

    Args:
        folder: Folder of the dataset, or its URL, such as s3://bucket/set.
        out: Folder to write.
        width: Widths to scale to, those of the training stages; by default the size of the files is kept.
        height: Heights to scale to: one for each width, or heights alone, where widths follow from the aspect ratio.
        layout: Folder structure; auto detects it.
        n_labels: Number of classes; labels at or above it are rejected. 0 for A-to-B images.
        dontcare: Label whose pixels belong to no class, for example 255.
        phase: Phases to pack, for example train; all by default.
        photo: Store photos as 8-bit RGB, or as stored in FOLDER; training must read them in the same way.
        photo_filter: Resampling filter for photos; training must use the same one.
        workers: Threads that read and write; by default as many as CPU cores, but at most 8 in each process.

    Returns:
        Exit status 0.
    """
    console = Console(stderr=True)
    say = partial(print_lines, console)
    with typed_as({**_TYPED, "data.root": "FOLDER"}), join_shards() as world, showing_progress(console) as progress:
        config = DataConfig(root=folder, layout=layout, dontcare=dontcare, photo=photo, photo_filter=photo_filter)
        sizes = sizes_of(width, height)
        require_no_file(out)
        report = pack_dataset(
            config, out, sizes, n_labels, phase or None, workers, say=say, progress=progress, world=world
        )
    kept = f", {report.kept} of them already written" if report.kept else ""
    print(f"{out}: {count(report.samples, 'sample')}, {decimal(report.bytes)}{kept}; train with --data.root {out}")
    return 0


def sizes_of(widths: Sequence[int], heights: Sequence[int]) -> tuple[SizeConfig, ...]:
    """Sizes to store: pairs of widths and heights in order, or one of the two alone, keeping the files' aspect ratio.

    Raises:
        ConfigError: a side is out of its bounds, or widths and heights are both given, but differ in number.
    """
    if widths and heights and len(widths) != len(heights):
        raise ConfigError(
            f"{count(len(widths), 'width')}, but {count(len(heights), 'height')}: give a height for each width, or no "
            "heights"
        )
    for name, sides in (("width", widths), ("height", heights)):
        for side in sides:
            check_value(Side, side, name)
    if not (widths or heights):
        return (SizeConfig(),)
    return tuple(SizeConfig(width=width, height=height) for width, height in zip_longest(widths, heights))


def print_report(report: CheckReport, console: Console | None = None, *, all_faults: bool = False) -> int:
    """Print a report. Of many faults of one kind it has the first, and the names of some other files.

    Args:
        report: Of `check_dataset`.
        console: Where it is printed.
        all_faults: Print every fault on a line of its own.

    Returns:
        Exit status: 0 if the dataset is clean, 1 if it has faults.
    """
    console = console or Console()
    say = partial(print_lines, console)
    shortened = False
    for phase in report.phases:
        say(*_summary(phase))
        if phase.class_pixels:
            console.print(_class_table(phase, report.classes))
        shown = phase.faults if all_faults else list(grouped(phase.faults, phase.kinds, report.root))
        say(*(f"  note: {note}" for note in phase.notes), *(f"  fault: {fault}" for fault in shown))
        shortened |= len(shown) < len(phase.faults)
    faults = [f"fault: {report.class_fault}"] if report.class_fault else []
    faults += ["--all-faults prints a line for each file with a fault"] if shortened else []
    say(*(f"note: {note}" for note in report.notes), *faults, _verdict(report))
    return 1 if report.faults else 0


def _verdict(report: CheckReport) -> str:
    """The last line: how many faults, and the options that training needs for the labels."""
    verdict = f"{report.root}: {count(len(report.faults), 'fault') if report.faults else 'no faults'}"
    stray = report.stray
    if report.classes is not None and not report.class_fault:
        more = _but(stray, ", but the maps also contain")
        return f"{verdict}; train with --n-labels {report.classes.n_labels}, as {CLASS_FILE} says{more}"
    classes = [label for label in report.labels if label not in stray]
    if not classes:
        return verdict
    return f"{verdict}; --n-labels {classes[-1] + 1} or more covers every label{_but(stray, ' but')}"


def _but(stray: Sequence[int], but: str) -> str:
    """The labels that are no classes, the first five of them, after the words that introduce them."""
    return f"{but} {', '.join(map(str, stray[:5]))}{', ...' if len(stray) > 5 else ''}" if stray else ""


def _summary(report: PhaseReport) -> Iterator[str]:
    yield f"{report.phase} ({report.layout}): {count(report.pairs, 'pair')}"
    if report.sizes:
        width, height = report.mean_size
        small, large = min(report.sizes), max(report.sizes)
        spread = "all alike" if small == large else f"from {small[0]}x{small[1]} to {large[0]}x{large[1]}"
        yield f"  size: mean {width:.0f}x{height:.0f}, {spread}"
    if report.channels:
        yield f"  input channels: {', '.join(f'{channels}' for channels in report.channels)}"
    if report.photos:
        yield f"  photos: {', '.join(map(str, report.photos))}"
    if report.ids:
        yield f"  instance ids per image: min {min(report.ids)}, median {median(report.ids):g}, max {max(report.ids)}"
    if report.agreement is not None:
        yield f"  instance class equals label: {100 * report.agreement:.2f} % of pixels"
    if report.turned:
        yield f"  photos turned upright by their EXIF orientation: {len(report.turned)}"


def _class_table(report: PhaseReport, classes: DatasetSpec | None) -> Table:
    """The labels of a phase. Where classes have names, those that do not occur are listed as well."""
    table = Table("label", "pixels", "share %", "images", box=None)
    for column in table.columns:
        column.justify = "right"
    if classes is not None:
        table.add_column("name")
    total = report.class_pixels.total()
    for label in sorted({*report.class_pixels, *range(classes.n_labels if classes is not None else 0)}):
        pixels, images = report.class_pixels[label], report.class_images[label]
        name = [] if classes is None else [Text(classes.classes[label] if 0 <= label < classes.n_labels else "")]
        table.add_row(str(label), str(pixels), f"{100 * pixels / total:.3f}", str(images), *name)
    return table
