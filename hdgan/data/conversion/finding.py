"""Finding the folders of a source by their usual names, and its files by the names in annotations."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath, PureWindowsPath

from hdgan.config.options import option
from hdgan.data.conversion.source import RawSample, listed
from hdgan.data.folders import (
    IMAGES,
    INSTANCE_FOLDERS,
    LABEL_FOLDERS,
    PHOTO_FOLDERS,
    name_of,
    no_images,
    subfolders_of,
)
from hdgan.data.headers import EXTENSIONS
from hdgan.data.layouts._layout import IDS, LABEL, PHOTO, Part, match
from hdgan.data.pairs import Listing, Orphan
from hdgan.errors import DataError
from hdgan.files import leads_out
from hdgan.wording import count

PHASES = {
    "train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val", "test": "test",
    "testing": "test",
}  # fmt: skip
"""Phases by the usual names of their folders, in lower case."""
_PARTS = {
    "photo": Part("photo", "{}_img", (*PHOTO.suffixes, "_rgb", "_color")),
    "label": Part(
        "label", "{}_label", (*LABEL.suffixes, "_mask", "_masks", "_seg", "_segmentation", "_annotation", "_gt", "_L")
    ),
    "ids": Part("ids", "{}_inst", (*IDS.suffixes, "_instances")),
}  # fmt: skip
_FOLDERS = {"photo": PHOTO_FOLDERS, "label": LABEL_FOLDERS, "ids": INSTANCE_FOLDERS}


@dataclass(frozen=True)
class FoundFolders:
    """The folders of one phase by part: label, and perhaps photo and ids."""

    phase: str
    """Empty where the source does not divide its samples."""
    folders: dict[str, Path] = field(default_factory=dict)


def find_folders(root: Path, photos: Path | None = None) -> list[FoundFolders]:
    """The folders of label maps below a root, with those of photos and instance maps.

    Three arrangements are known: a folder for each part, which may have a folder for each phase; a folder for each
    phase with a folder for each part; and hdgan's own names such as train_label.

    Args:
        root: The folder.
        photos: A folder of photos, if it is not one below the root.

    Returns:
        The phases that have label maps; none if the arrangement is not known.
    """
    parts = _parts_of(root, photos)
    if "label" in parts:
        phases = {name: _phases_of(folder) for name, folder in parts.items()}
        if not phases["label"]:
            return [FoundFolders("", parts)]
        return [
            FoundFolders(phase, {name: phases[name][phase] for name in parts if phase in phases[name]})
            for phase in sorted(phases["label"])
        ]
    found = [FoundFolders(phase, _parts_of(folder)) for phase, folder in _phases_of(root).items()]
    found = [folders for folders in found if "label" in folders.folders]
    return found or _own_names(root)


def pair_files(found: FoundFolders) -> Listing:
    """Pair the files of one phase by their names.

    Args:
        found: The folders.

    Raises:
        DataError: a folder is missing or holds no images, two files share a name, or no file has a partner.
    """
    if "photo" not in found.folders:
        raise DataError(
            f"{found.folders['label']} has label maps, but there is no folder of photos beside it (known names: "
            f"{listed(PHOTO_FOLDERS, 9)}): rename the folder of photos, or give {option('photos')}"
        )
    names = [name for name in ("label", "ids", "photo") if name in found.folders]
    files = {_PARTS[name]: _PARTS[name].files(found.folders[name]) for name in names}
    for part, own in files.items():
        if not own:
            raise no_images(found.folders[part.name])
    return match(files, {_PARTS[name].name: found.folders[name] for name in names}, phase=found.phase)


def require_paired(orphans: Sequence[Orphan], skip: bool) -> tuple[str, ...]:
    """Refuse files without partners, or say how many are left out.

    Raises:
        DataError: there are some, and they are not to be skipped.
    """
    if not orphans:
        return ()
    if skip:
        return (f"{count(len(orphans), 'name')} without partners left out, the first: {orphans[0]}",)
    more = f" ({len(orphans) - 1} more files have no partner)" if len(orphans) > 1 else ""
    raise DataError(f"{orphans[0]}{more}; {option('skip_unpaired')} leaves out what has no partner")


class PhotoFinder:
    """Finds the photos that annotations name.

    Args:
        folders: Where to look, in this order.
    """

    def __init__(self, folders: Iterable[Path]) -> None:
        self.folders = list(dict.fromkeys(folder for folder in folders if folder.is_dir()))

    def find(self, name: str) -> Path | None:
        """The photo of a name, which may have folders and may be of Windows; None if there is none."""
        path = PurePosixPath(name.replace("\\", "/"))
        inner = not (path.is_absolute() or PureWindowsPath(name).anchor or "\0" in name)
        for relative in dict.fromkeys([path, PurePosixPath(path.name)] if inner else [PurePosixPath(path.name)]):
            for folder in self.folders:
                file = folder / relative
                if path.name and file.suffix.lower() in EXTENSIONS and file.is_file():
                    return file
        return None

    def missing(self, name: str, where: str) -> DataError:
        """The error that a photo was not found."""
        path = PurePosixPath(name.replace("\\", "/"))
        places = (folder / path.name for folder in self.folders if path.name)
        other = next((place for place in places if place.is_file()), None)
        if other is not None:
            return DataError(
                f"{where} names the photo {name!r:.200}, but only {IMAGES} are read: save {other} as PNG and correct "
                f"the name; {option('skip_unpaired')} leaves out what has no photo"
            )
        return DataError(
            f"{where} names the photo {name!r:.200}, which is not in {listed(self.folders) or 'any folder'}: give the "
            f"folder of the photos with {option('photos')}; {option('skip_unpaired')} leaves out what has no photo"
        )


def require_distinct(samples: Sequence[RawSample]) -> None:
    """Make sure that each sample has a photo of its own, and a name of its own with which files can be written, also on
    disks that do not distinguish upper and lower case.

    Raises:
        DataError: they do not.
    """
    seen: dict[tuple[str, str], RawSample] = {}
    photos: dict[Path, RawSample] = {}
    for sample in samples:
        file = sample.files[0]
        if leads_out(sample.stem):
            raise DataError(f"{file}: no file can be named {sample.stem!r}; rename it")
        other = seen.setdefault((sample.phase, sample.stem.casefold()), sample)
        if other is not sample:
            first, second = (each.photo or each.files[0] for each in (other, sample))
            same = f"have the same name, {sample.stem}"
            if other.stem != sample.stem:
                same = "have names that differ only in upper and lower case, which some disks do not distinguish"
            raise DataError(f"{first} and {second} {same}; rename one of them")
        if isinstance(sample.photo, Path):
            other = photos.setdefault(sample.photo, sample)
            if other is not sample:
                raise DataError(
                    f"{sample.photo} is the photo of both {other.stem} and {sample.stem}, according to {file}: keep "
                    "the folders that the annotations name, or remove one of the two"
                )


def phase_in(path: PurePosixPath | Path) -> tuple[str, str]:
    """The phase that the first folder of a relative path names, if any, and the name of the sample in it."""
    first, *rest = path.parts
    if rest and first.lower() in PHASES:
        return PHASES[first.lower()], name_of(Path(*rest))
    return "", name_of(Path(path))


def phase_named(name: str) -> str:
    """The phase that is part of the name of a file, such as "val" of panoptic_val2017; empty if there is none."""
    words = re.findall("[a-z]+", name.lower())
    return next((PHASES[word] for word in words if word in PHASES), "")


def _parts_of(folder: Path, photos: Path | None = None) -> dict[str, Path]:
    names: Mapping[str, str] = {name.casefold(): name for name in subfolders_of(folder)}
    found = {part: next((names[known] for known in usual if known in names), "") for part, usual in _FOLDERS.items()}
    parts = {part: folder / name for part, name in found.items() if name}
    return parts | ({"photo": photos} if photos is not None else {})


def _phases_of(folder: Path) -> dict[str, Path]:
    return {PHASES[name.lower()]: folder / name for name in subfolders_of(folder) if name.lower() in PHASES}


def _own_names(root: Path) -> list[FoundFolders]:
    """Folders such as train_label, train_inst and train_img."""
    names = subfolders_of(root)
    phases = [name.removesuffix("_label") for name in names if name.endswith("_label") and name != "_label"]
    return [
        FoundFolders(
            phase,
            {
                name: root / part.folder.format(phase)
                for name, part in _PARTS.items()
                if part.folder.format(phase) in names
            },
        )
        for phase in phases
    ]
