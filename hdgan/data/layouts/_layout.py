"""What a layout of datasets does, and the usual kind: a folder for each part of the samples."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

from hdgan.data.config import PartName
from hdgan.data.folders import images_in, name_of, no_images, only_others, subfolders_of
from hdgan.data.pairs import PARTS, Listing, Orphan, Pair
from hdgan.errors import DataError
from hdgan.wording import is_text


class Layout(ABC):
    """How one kind of dataset is arranged below its root. A phase is a split, such as "train"."""

    name: str
    """The name by which users choose it: that of its file, with hyphens."""
    rank: ClassVar[int] = 1
    """If a root fits several layouts, those of the lowest rank hide the others."""
    pattern: str
    """What a root of this layout contains, such as "<phase>_A/"."""

    @abstractmethod
    def phases(self, root: Path) -> tuple[str, ...]:
        """Names of the phases, sorted; none where the root has another layout."""

    @abstractmethod
    def has_labels(self, root: Path) -> bool:
        """Whether the samples have label maps rather than an A-to-B input."""

    @abstractmethod
    def list_pairs(self, root: Path, phase: str) -> Listing:
        """The pairs of a phase.

        Raises:
            DataError: the phase does not exist or has no pairs, or two files of a folder share a name.
        """

    def fits(self, root: Path) -> bool:
        """Whether a dataset of this layout lies at the root."""
        return bool(self.phases(root))

    def claims(self, folder: str) -> bool:
        """Whether a folder of this name below a root would belong to this layout."""
        return False

    def foreign(self, root: Path) -> str | None:
        """What is wrong with a root that fits, but is arranged for another program; None if it is not."""
        return None


@dataclass(frozen=True)
class Part:
    """One kind of file of a layout: where it lies below the root, with {} for the phase, and suffixes of its names."""

    name: PartName
    folder: str
    suffixes: tuple[str, ...] = ()
    strict: bool = False
    """Whether the folder also contains other kinds of files. Then only names with the first suffix that occurs are
    used."""

    def files(self, folder: Path) -> list[tuple[str, Path]]:
        """The files of this part in a folder, with their names below it."""
        files = sorted(images_in(folder))
        if self.strict:
            kinds = ([path for path in files if path.stem.endswith(suffix)] for suffix in self.suffixes)
            files = next(filter(None, kinds), [])
        return [(name_of(path.relative_to(folder)), path) for path in files]

    def by_stem(self, files: Sequence[tuple[str, Path]], shared: set[str]) -> dict[str, Path]:
        """Files by stem: the name itself where every part has it, else without a suffix of this part."""
        by_stem: dict[str, Path] = {}
        for name, path in files:
            suffix = next((suffix for suffix in self.suffixes if name.endswith(suffix)), "")
            stem = name if name in shared else name.removesuffix(suffix)
            if stem in by_stem:
                raise DataError(f"{by_stem[stem]} and {path} have the same name, {stem}; rename or remove one of them")
            by_stem[stem] = path
        return by_stem


LABEL = Part(
    "label",
    "{}_label",
    ("_gtFine_labelIds", "_gtFine_labelTrainIds", "_labelIds", "_labelTrainIds", "_labels", "_label"),
)
IDS = Part("ids", "{}_inst", ("_gtFine_instanceIds", "_instanceIds", "_instance", "_inst"))
PHOTO = Part("photo", "{}_img", ("_leftImg8bit", "_image", "_photo", "_img"))


class FolderLayout(Layout):
    """A layout with a folder for each part; every sample needs the first part.

    Args:
        name: As in `Layout`.
        parts: Photos and instance maps may be absent from a phase as a whole.
    """

    def __init__(self, name: str, *parts: Part) -> None:
        self.name, self.parts = name, parts
        self.pattern = f"{parts[0].folder.format('<phase>')}/"
        self._parent, self._suffix = parts[0].folder.split("{}")

    def phases(self, root: Path) -> tuple[str, ...]:
        suffix = self._suffix
        names = [name for name in self._subfolders(root / self._parent) if name.endswith(suffix) and name != suffix]
        for name in names:
            if not is_text(name):
                raise DataError(f"{root / self._parent / name}: the name of a phase must be UTF-8; rename the folder")
        return tuple(name.removesuffix(suffix) for name in names)

    def _subfolders(self, folder: Path) -> list[str]:
        """Folders that can be a phase."""
        return subfolders_of(folder)

    def has_labels(self, root: Path) -> bool:
        return self.parts[0].name == "label"

    def claims(self, folder: str) -> bool:
        folders = [part.folder for part in self.parts]
        return any(folder == name.split("/")[0] if "/" in name else folder.endswith(name[2:]) for name in folders)

    def list_pairs(self, root: Path, phase: str) -> Listing:
        required = self.parts[0]
        folders = {part.name: root / part.folder.format(phase) for part in self.parts}
        phases = self.phases(root)
        if phase not in phases:
            raise DataError(
                f"{folders[required.name]} does not exist; the phases of {root} ({self.name}) are: {', '.join(phases)}"
            )
        found = {part: part.files(folders[part.name]) for part in self.parts}
        if not found[required]:
            remedy = f"put the {phase} files there"
            if required.strict:
                raise DataError(f"{folders[required.name]} contains no *{required.suffixes[0]}.png; {remedy}")
            raise no_images(folders[required.name], remedy)
        present = {part: files for part, files in found.items() if files}
        empty = {part.name: folders[part.name] for part in found if part not in present}
        ignored = {name: only_others(folder) for name, folder in empty.items() if not any(images_in(folder))}
        others = ((name, f"{folders[name]} contains no images{text}") for name, text in ignored.items() if text)
        return replace(match(present, folders, self.name, phase), others=tuple(others))


def match(
    found: Mapping[Part, list[tuple[str, Path]]],
    folders: Mapping[PartName, Path],
    layout: str = "",
    phase: str = "",
) -> Listing:
    """Pair files by name.

    Args:
        found: For each part its files, with their names below its folder.
        folders: The folder of each part, by its name.
        layout: For the listing.
        phase: For the listing and for messages.

    Raises:
        DataError: two files of one part share a name, or no file has a partner.
    """
    shared = set.intersection(*({name for name, _ in files} for files in found.values()))
    stems = {part.name: part.by_stem(files, shared) for part, files in found.items()}
    folded = {name: {stem.casefold(): path for stem, path in by_stem.items()} for name, by_stem in stems.items()}
    pairs, orphans = [], []
    for stem in sorted(set().union(*stems.values())):
        files: dict[str, Any] = {name: by_stem[stem] for name, by_stem in stems.items() if stem in by_stem}
        if len(files) == len(stems):
            pairs.append(Pair(stem, **files))
            continue
        missing = tuple(
            (PARTS[name], folders[name], folded[name].get(stem.casefold())) for name in stems if name not in files
        )
        orphans.append(Orphan(stem, tuple(files.values()), missing))
    if not pairs:
        first, other = (next(iter(by_stem.values())) for by_stem in list(stems.values())[:2])
        where = f" of phase {phase}" if phase else ""
        unpaired = ", since unpaired images (CycleGAN's) cannot be trained on" if "input" in stems else ""
        raise DataError(
            f"no two files{where} share a name, for example {first} and {other}; give partners the same name{unpaired}"
        )
    return Listing(layout, phase, tuple(pairs), tuple(orphans))
