"""What the inspection of a dataset finds: the report on one phase, and on the dataset as a whole."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from operator import iadd
from pathlib import Path

from hdgan.config.bounds import BatchSize, Depth
from hdgan.config.options import option
from hdgan.config.serialization import check_value, check_values
from hdgan.data.config import PhotoMode, Size, SizeConfig
from hdgan.data.faults import FaultKind, kind_of
from hdgan.data.image_kind import RGB, ImageKind, photos_differ
from hdgan.data.pairs import Orphan, Pair, is_far_above
from hdgan.data.spec import DatasetSpec
from hdgan.data.transforms import Filter, same_size_remedy, sample_geometry
from hdgan.errors import DataError
from hdgan.wording import count

_MOST_NOTES = 20  # labels that get a note of their own
_SUMS = (
    "faults", "sizes", "label_maps", "class_pixels", "class_images", "ids", "compared", "agreeing", "foreign",
    "channels", "inputs", "photos", "peaks", "turned",
)  # fmt: skip
"""Fields of a phase's report that are sums of those of its pairs."""


@dataclass(frozen=True)
class Requirements:
    """What a model and its training require of a dataset.

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
    """What one phase, or one of its pairs, holds, and what is wrong with it.

    After an inspection of the headers only what these say is known.
    """

    phase: str
    layout: str = "unknown"
    pairs: int = 0
    """Number of pairs."""
    photo: PhotoMode = "rgb"
    """How photos are read."""
    photo_filter: Filter = "bicubic"
    """The filter with which images will be scaled."""
    orphans: tuple[Orphan, ...] = ()
    """Files without all their partners."""
    faults: list[str] = field(default_factory=list)
    """One line each, with file, value and remedy."""
    sizes: Counter[Size] = field(default_factory=Counter)
    """(width, height) in pixels -> number of pairs."""
    examples: dict[Size, Pair] = field(default_factory=dict)
    """Each size that samples are scaled from -> the first pair of this size. Packed pairs have that of their source."""
    label_maps: int = 0
    """Number of label maps that could be read."""
    class_pixels: Counter[int] = field(default_factory=Counter)
    """Label -> its pixels in all label maps."""
    class_images: Counter[int] = field(default_factory=Counter)
    """Label -> number of label maps that contain it."""
    ids: list[int] = field(default_factory=list)
    """Number of different instance ids of each instance map."""
    compared: int = 0
    """Number of pixels that have a label and an instance id."""
    agreeing: int = 0
    """Number of those whose instance belongs to the class of their label."""
    foreign: list[str] = field(default_factory=list)
    """For each instance map with an id whose class is neither a label nor dontcare: file, id, class and remedy."""
    channels: Counter[int] = field(default_factory=Counter)
    """Channels of the A-to-B input -> number of pairs."""
    inputs: Counter[Depth] = field(default_factory=Counter)
    """Type of the numbers of the A-to-B input -> number of pairs."""
    photos: Counter[ImageKind] = field(default_factory=Counter)
    """Channels and type of photos as they are stored -> number of pairs."""
    peaks: list[int] = field(default_factory=list)
    """The greatest number in each 16-bit photo that was read as stored."""
    turned: list[Path] = field(default_factory=list)
    """Photos that an EXIF orientation turns upright."""
    kinds: dict[str, FaultKind] = field(default_factory=dict)
    """Fault -> its kind, for the faults of single files."""
    lacks_instances: bool = False
    """Whether there are label maps to train on, but no instance maps, and none are required."""
    instead_of_instances: str = ""
    """What the note on that adds about other files in their folder."""

    @property
    def mean_size(self) -> tuple[float, float]:
        """Mean (width, height) in pixels of the pairs that could be read; (0, 0) without any."""
        total = max(1, self.sizes.total())
        width, height = (sum(size[axis] * number for size, number in self.sizes.items()) / total for axis in (0, 1))
        return width, height

    @property
    def input_channels(self) -> int:
        """Channels of the A-to-B inputs, which are the same for all in a phase without faults; 0 without inputs."""
        return next(iter(self.channels), 0)

    @property
    def input_depth(self) -> Depth | None:
        """The widest type of the numbers of the A-to-B inputs, which may differ; None without inputs."""
        widest: tuple[Depth, ...] = ("float32", "uint16", "uint8")
        return next((depth for depth in widest if depth in self.inputs), None)

    @property
    def photo_kind(self) -> ImageKind:
        """Channels and type of the photos as they are read, the same for all in a phase without faults."""
        return next(iter(self.photos), RGB) if self.photo == "stored" else RGB

    @property
    def agreement(self) -> float | None:
        """Share of pixels whose instance belongs to the class of their label; None without both maps."""
        return self.agreeing / self.compared if self.compared else None

    @property
    def warnings(self) -> list[str]:
        """What training prints before it begins, one line each."""
        lines = []
        if self.orphans:
            names, lack = count(len(self.orphans), "name"), "lacks" if len(self.orphans) == 1 else "lack"
            lines.append(
                f"{names} of {self.phase} {lack} a partner and will not be used, for example {self.orphans[0]}"
            )
        if self.turned:
            photos = f"{count(len(self.turned), 'photo')} of {self.phase}"
            lines.append(f"{photos} will be turned upright by the EXIF orientation, for example {self.turned[0]}")
        return lines

    @property
    def notes(self) -> list[str]:
        """What deserves attention but is not a fault, one line each."""
        notes = []
        if self.foreign:
            # Such ids still separate instances; only their class is wrong.
            have = "has" if len(self.foreign) == 1 else "have"
            notes.append(f"{self.foreign[0]} ({count(len(self.foreign), 'image')} {have} such ids)")
        if self.agreement is not None and self.agreement < 0.5:
            notes.append(
                f"the class of the instance id differs from the label at {100 * (1 - self.agreement):.0f} % of pixels; "
                f"set {option('data.instance_divisor')} to the divisor of the ids if they encode a class"
            )
        if len(self.channels) == 1 and self.input_channels != 3:
            inputs = f"inputs have {count(self.input_channels, 'channel')}"
            notes.append(f"{inputs}: train with --model.input-channels {self.input_channels}")
        stored = next(iter(self.photos), RGB)
        # Two and four channels of 8 bits are nearly always grey or colours with opacity.
        reduced = stored.depth != RGB.depth or stored.channels not in (2, 3, 4)
        if self.photo == "rgb" and len(self.photos) == 1 and reduced:
            notes.append(
                f"photos have {stored} and are read as 8-bit RGB: train with --data.photo stored to keep them as they "
                "are"
            )
        if self.peaks and (peak := max(self.peaks)) < 2**14:
            notes.append(
                f"photos use numbers up to {peak} of 65535, so to the networks all of them are nearly black: scale "
                "them to the whole range"
            )
        if self.lacks_instances:
            notes.append(f"there are no instance maps{self.instead_of_instances}: train with --no-instances")
        return notes

    @contextmanager
    def noting(self) -> Iterator[None]:
        """Record a DataError as a fault and continue."""
        try:
            yield
        except DataError as error:
            self.faults.append(str(error))

    def add(self, pair: Pair, found: PhaseReport) -> None:
        """Add the content of one pair."""
        if self.channels and not found.channels.keys() <= self.channels.keys():
            channels, others = count(found.input_channels, "channel"), self.input_channels
            found.faults.append(
                f"{pair.input} has {channels}, but others have {others}; save all inputs with the "
                "same number of channels"
            )
        if self.photo == "stored" and self.photos and not found.photos.keys() <= self.photos.keys():
            error = photos_differ(pair.photo, next(iter(found.photos)), "another photo", self.photo_kind)
            found.faults.append(str(error))
        self.kinds |= {fault: kind_of(fault, pair.files.values()) for fault in found.faults}
        for name in _SUMS:
            setattr(self, name, iadd(getattr(self, name), getattr(found, name)))
        for size in found.examples:
            self.examples.setdefault(size, pair)

    def note_orphans(self) -> None:
        """Make the files without all their partners the first faults."""
        self.faults[:0] = map(str, self.orphans)
        self.kinds |= {str(orphan): kind_of(str(orphan), orphan.named, orphan.stem) for orphan in self.orphans}

    def require_size(self, size: SizeConfig, batch: int = 1) -> None:
        """Check that samples can be made in one size.

        Args:
            size: The crop must fit every image.
            batch: With more than one sample a batch, all samples must have the same size.

        Raises:
            DataError: the crop or the batch does not fit, or a pair is packed in other sizes.
            ConfigError: a pair is packed with another filter.
        """
        outcomes: dict[Size, Pair] = {}
        for source, pair in self.examples.items():
            try:
                outcomes.setdefault(sample_geometry(source, size).size, pair)
            except DataError as error:
                raise DataError(f"{pair.first_file}: {error}") from None
            pair.stored_size(size, self.photo_filter)
        if batch > 1 and len(outcomes) > 1:
            (first, one), (second, other) = list(outcomes.items())[:2]
            raise DataError(
                f"{one.stem} is {first[0]}x{first[1]} and {other.stem} is {second[0]}x{second[1]} in the same batch; "
                f"{same_size_remedy()}"
            )


@dataclass(frozen=True)
class CheckReport:
    """The phases of a dataset; `absent` names the phase to train on, if the dataset lacks it."""

    root: Path
    phases: tuple[PhaseReport, ...]
    dontcare: int | None = None
    requirements: Requirements = Requirements()
    absent: str = ""
    classes: DatasetSpec | None = None
    """Names and colours of the classes, from classes.csv in the dataset's folder."""
    class_fault: str = ""
    """What is wrong with classes.csv."""

    @property
    def faults(self) -> list[str]:
        """All faults: of classes.csv, then phase by phase."""
        own = [self.class_fault] if self.class_fault else []
        return own + [fault for phase in self.phases for fault in phase.faults]

    @property
    def labels(self) -> list[int]:
        """All labels found but `dontcare`, sorted."""
        return sorted({label for phase in self.phases for label in phase.class_pixels} - {self.dontcare})

    @property
    def stray(self) -> list[int]:
        """Labels that are not classes: those outside `n_labels` or classes.csv or, if both are unknown, those below 0
        or far above the others."""
        labels = self.labels
        n_labels = self.requirements.n_labels
        if n_labels is None and self.classes is not None:
            n_labels = self.classes.n_labels
        if n_labels is not None:
            return [label for label in labels if not 0 <= label < n_labels]
        far = labels[-1:] if len(labels) > 1 and is_far_above(*reversed(labels[-2:])) else []
        return [label for label in labels if label < 0] + far

    @property
    def notes(self) -> list[str]:
        """What deserves attention in the dataset as a whole, one line each, mainly how common each stray label is."""
        notes = []
        if self.absent:
            notes.append(f"there is no phase {self.absent}: give the phase to train on with --data.train-phase")
        maps = sum(phase.label_maps for phase in self.phases)
        pixels = sum(phase.class_pixels.total() for phase in self.phases)
        stray = self.stray
        for label in stray[:_MOST_NOTES]:
            images = sum(phase.class_images[label] for phase in self.phases)
            share = sum(phase.class_pixels[label] for phase in self.phases) / pixels
            notes.append(f"label {label} is in {images} of {count(maps, 'label map')}, {100 * share:.3g} % of pixels")
        if len(stray) > _MOST_NOTES:
            notes.append(f"{len(stray) - _MOST_NOTES} more labels are outside the classes")
        if len(stray) == 1 and self.dontcare is None:
            here, training = option("data.dontcare"), "--dontcare"
            where = "here and in training" if here == training else f"here, and in training {training} {stray[0]}"
            notes[-1] += f"; if it belongs to no class, set {here} {stray[0]} {where}"
        return notes
