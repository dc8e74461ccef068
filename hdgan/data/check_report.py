"""What `hdgan data check` finds: the report on each phase, on the dataset as a whole, and how it is printed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from rich.console import Console
from rich.table import Table

from hdgan.config.bounds import BatchSize
from hdgan.config.options import option
from hdgan.config.serialization import check_value, check_values
from hdgan.data.config import SizeConfig
from hdgan.data.dataset import is_far_above
from hdgan.data.layouts import Pair
from hdgan.data.quick_check import different_channels
from hdgan.errors import DataError
from hdgan.wording import count

_MOST_NOTES = 20  # labels that are told of one by one


@dataclass(frozen=True)
class Wanted:
    """What the model and the training that are meant ask of a dataset.

    Attributes:
        n_labels: Number of classes; 0 for A-to-B pairs; None accepts any labels and only counts them.
        instances: Whether the model takes instance maps.
        size: The size of a stage; None where it is not known.
        batch_size: Samples that a process puts into one batch.
    """

    n_labels: int | None = None
    instances: bool = False
    size: SizeConfig | None = None
    batch_size: BatchSize = 1

    def __post_init__(self) -> None:
        check_value(BatchSize, self.batch_size, "stages.STAGE.batch_size")
        if self.size is not None:
            check_values(self.size, "stages.STAGE.size")


@dataclass
class PhaseReport:
    """What one phase holds, and what is wrong with it.

    Attributes:
        pairs: Number of pairs.
        faults: One line each, with file, value and remedy; orphans are among them.
        sizes: (width, height) in pixels -> number of pairs.
        class_pixels: Label -> its pixels in all label maps.
        class_pictures: Label -> number of label maps that hold it.
        ids: Number of distinct instance ids of each picture.
        agreeing, compared: Pixels whose instance belongs to the class of their label, of those with both.
        channels: Channels of the A-to-B input -> number of pairs.
        turned: Photos with an EXIF orientation, which are turned upright.
        foreign: Pictures with an instance id whose class is neither a label nor dontcare.
        foreign_example: The first of them: file, id and class, with the remedy.
        lacks_instances: Whether there are label maps to train on, but no instance maps, which were not asked for.
        label_maps: Number of label maps that could be read.
        examples: (width, height) in pixels -> the first pair of this size.
    """

    phase: str
    layout: str = "unknown"
    pairs: int = 0
    faults: list[str] = field(default_factory=list)
    sizes: Counter[tuple[int, int]] = field(default_factory=Counter)
    class_pixels: Counter[int] = field(default_factory=Counter)
    class_pictures: Counter[int] = field(default_factory=Counter)
    ids: list[int] = field(default_factory=list)
    agreeing: int = 0
    compared: int = 0
    channels: Counter[int] = field(default_factory=Counter)
    turned: int = 0
    foreign: int = 0
    foreign_example: str = ""
    lacks_instances: bool = False
    label_maps: int = 0
    examples: dict[tuple[int, int], Pair] = field(default_factory=dict)

    @property
    def mean_size(self) -> tuple[float, float]:
        """Mean (width, height) in pixels of the pairs that could be read; (0, 0) without any."""
        total = max(1, self.sizes.total())
        width, height = (sum(size[axis] * number for size, number in self.sizes.items()) / total for axis in (0, 1))
        return width, height

    @property
    def agreement(self) -> float | None:
        """Share of pixels whose instance belongs to the class of their label; None without both maps."""
        return self.agreeing / self.compared if self.compared else None

    @property
    def notes(self) -> list[str]:
        """What is worth a look but no fault, one line each: such ids still part instances, only their class is off."""
        notes = []
        if self.foreign:
            hold = "holds" if self.foreign == 1 else "hold"
            notes.append(f"{self.foreign_example} ({count(self.foreign, 'picture')} {hold} such ids)")
        if self.agreement is not None and self.agreement < 0.5:
            notes.append(
                f"the class of the instance id differs from the label at {100 * (1 - self.agreement):.0f} % of pixels; "
                f"set {option('data.instance_divisor')} to the divisor of the ids if they hold a class"
            )
        if len(self.channels) == 1 and (channels := next(iter(self.channels))) != 3:
            notes.append(f"inputs have {count(channels, 'channel')}: train with --model.input-channels {channels}")
        if self.lacks_instances:
            notes.append("there are no instance maps: train with --model.no-instances")
        return notes

    def add(self, pair: Pair, found: Found) -> None:
        """Take in what one pair holds."""
        self.faults += found.faults
        if found.size is not None:
            self.sizes[found.size] += 1
            self.examples.setdefault(found.size, pair)
        self.label_maps += bool(found.classes)
        self.class_pixels.update(found.classes)
        self.class_pictures.update(found.classes.keys())
        if found.ids is not None:
            self.ids.append(found.ids)
        self.agreeing += found.agreeing
        self.compared += found.compared
        self.turned += found.turned
        if found.foreign is not None:
            self.foreign += 1
            self.foreign_example = self.foreign_example or found.foreign
        if found.channels is not None:
            if self.channels and found.channels not in self.channels:
                self.faults.append(different_channels(pair, found.channels, next(iter(self.channels))))
            self.channels[found.channels] += 1


@dataclass(frozen=True)
class CheckReport:
    """The phases of a dataset as they were found; `absent` names the phase to train on, if there is none of it."""

    root: Path
    phases: tuple[PhaseReport, ...]
    dontcare: int | None = None
    wanted: Wanted = Wanted()
    absent: str = ""

    @property
    def faults(self) -> list[str]:
        """All faults, phase by phase."""
        return [fault for phase in self.phases for fault in phase.faults]

    @property
    def labels(self) -> list[int]:
        """All labels found but `dontcare`, sorted."""
        return sorted({label for phase in self.phases for label in phase.class_pixels} - {self.dontcare})

    @property
    def n_labels(self) -> int:
        """The least `n_labels` that covers every label found but `dontcare`; 0 without label maps."""
        return max((label + 1 for label in self.labels), default=0)

    @property
    def stray(self) -> list[int]:
        """Labels that are no classes: beyond those wanted, or, where this is not known, below 0 or far above others."""
        labels = self.labels
        if self.wanted.n_labels is not None:
            return [label for label in labels if not 0 <= label < self.wanted.n_labels]
        far = labels[-1:] if len(labels) > 1 and is_far_above(*reversed(labels[-2:])) else []
        return [label for label in labels if label < 0] + far

    @property
    def notes(self) -> list[str]:
        """What is worth a look in the dataset as a whole, one line each: above all how common each stray label is."""
        notes = []
        if self.absent:
            notes.append(f"there is no phase {self.absent}: name the one to train on with --data.train-phase")
        maps = sum(phase.label_maps for phase in self.phases)
        pixels = sum(phase.class_pixels.total() for phase in self.phases)
        stray = self.stray
        for label in stray[:_MOST_NOTES]:
            pictures = sum(phase.class_pictures[label] for phase in self.phases)
            share = sum(phase.class_pixels[label] for phase in self.phases) / pixels
            notes.append(f"label {label} is in {pictures} of {count(maps, 'label map')}, {100 * share:.3g} % of pixels")
        if len(stray) > _MOST_NOTES:
            notes.append(f"{len(stray) - _MOST_NOTES} more labels are beyond the classes")
        if len(stray) == 1 and self.dontcare is None:
            notes[-1] += (
                f"; if it belongs to no class, set {option('data.dontcare')} {stray[0]} here, and in training "
                f"--data.dontcare {stray[0]}"
            )
        return notes


@dataclass
class Found:
    """What one pair holds."""

    faults: list[str] = field(default_factory=list)
    size: tuple[int, int] | None = None
    classes: dict[int, int] = field(default_factory=dict)
    ids: int | None = None
    agreeing: int = 0
    compared: int = 0
    channels: int | None = None
    turned: bool = False
    foreign: str | None = None

    @contextmanager
    def noting(self) -> Iterator[None]:
        """Note a DataError as a fault and go on."""
        try:
            yield
        except DataError as error:
            self.faults.append(str(error))


def print_report(report: CheckReport, console: Console | None = None) -> int:
    """Print a report.

    Returns:
        Exit status: 0 if the dataset is clean, 1 if it has faults.
    """
    console = console or Console()
    for phase in report.phases:
        for line in _summary(phase):
            console.print(line, markup=False, highlight=False, soft_wrap=True)
        if phase.class_pixels:
            console.print(_class_table(phase))
        for note in phase.notes:
            console.print(f"  note: {note}", markup=False, highlight=False, soft_wrap=True)
        for fault in phase.faults:
            console.print(f"  fault: {fault}", markup=False, highlight=False, soft_wrap=True)
    for note in report.notes:
        console.print(f"note: {note}", markup=False, highlight=False, soft_wrap=True)
    console.print(_verdict(report), markup=False, highlight=False, soft_wrap=True)
    return 1 if report.faults else 0


def _verdict(report: CheckReport) -> str:
    """The last line: how many faults, and the options that training needs for the labels."""
    verdict = f"{report.root}: {count(len(report.faults), 'fault') if report.faults else 'no faults'}"
    stray = report.stray
    classes = [label for label in report.labels if label not in stray]
    if not classes:
        return verdict
    but = f" but {', '.join(map(str, stray[:5]))}{', ...' if len(stray) > 5 else ''}" if stray else ""
    return f"{verdict}; --model.n-labels {classes[-1] + 1} or more covers every label{but}"


def _summary(report: PhaseReport) -> Iterator[str]:
    yield f"{report.phase} ({report.layout}): {count(report.pairs, 'pair')}"
    if report.sizes:
        width, height = report.mean_size
        small, large = min(report.sizes), max(report.sizes)
        spread = "all alike" if small == large else f"from {small[0]}x{small[1]} to {large[0]}x{large[1]}"
        yield f"  size: mean {width:.0f}x{height:.0f}, {spread}"
    if report.channels:
        yield f"  input channels: {', '.join(f'{channels}' for channels in report.channels)}"
    if report.ids:
        yield f"  instance ids a picture: min {min(report.ids)}, median {median(report.ids):g}, max {max(report.ids)}"
    if report.agreement is not None:
        yield f"  instance class equals label: {100 * report.agreement:.2f} % of pixels"
    if report.turned:
        yield f"  photos turned upright by their EXIF orientation: {report.turned}"


def _class_table(report: PhaseReport) -> Table:
    table = Table("label", "pixels", "share %", "pictures", box=None)
    for column in table.columns:
        column.justify = "right"
    total = report.class_pixels.total()
    for label, pixels in sorted(report.class_pixels.items()):
        table.add_row(str(label), str(pixels), f"{100 * pixels / total:.3f}", str(report.class_pictures[label]))
    return table
