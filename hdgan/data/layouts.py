"""Finding the pairs of a dataset: known folder structures, files matched by name, orphans reported."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from hdgan.config.options import option
from hdgan.data.config import DataConfig
from hdgan.data.folders import is_text, name_of, pictures_in, subfolders_of
from hdgan.data.headers import EXTENSIONS
from hdgan.data.packed_index import INDEX, PackedSample, is_packed, read_index
from hdgan.errors import ConfigError, DataError


@dataclass(frozen=True)
class Pair:
    """The files of one sample; None where the dataset has no such part.

    `stem` is the name they share: subfolder and file name without the suffixes that tell the parts apart. It is always
    text (see `name_of` of folders.py), so that it can be the name of an output and stand in any file.
    A picture that holds A and B side by side is both `input` and `photo`; the file of a packed sample is all its parts.
    """

    stem: str
    label: Path | None = None
    input: Path | None = None
    ids: Path | None = None
    photo: Path | None = None
    packed: PackedSample | None = field(default=None, kw_only=True)

    @staticmethod
    def of(stem: str, files: Mapping[str, Path], packed: PackedSample | None = None) -> Pair:
        """A pair of files by part."""
        return Pair(stem, *map(files.get, _NAMES), packed=packed)

    @property
    def side_by_side(self) -> bool:
        """Whether the left half of one picture is the input and the right half the photo."""
        return self.packed is None and self.input is not None and self.input == self.photo

    @property
    def files(self) -> dict[str, Path]:
        """The files by part, in the order label, input, ids, photo."""
        parts = {part: getattr(self, part) for part in _NAMES}
        return {part: path for part, path in parts.items() if path is not None}


@dataclass(frozen=True)
class Orphan:
    """Files without all their partners: never used, always reported.

    `missing` has what they lack: the part's name, the folder where it was looked for, and a file there whose name
    differs in upper and lower case only, if there is one.
    """

    stem: str
    files: tuple[Path, ...]
    missing: tuple[tuple[str, Path, Path | None], ...]

    def __str__(self) -> str:
        files = ", ".join(map(str, self.files))
        lacks = " and ".join(f"no {part} named {self.stem} in {folder}" for part, folder, _ in self.missing)
        alike = " and ".join(str(path) for _, _, path in self.missing if path)
        if alike:
            return f"{files}: {lacks}; {alike} differs only in upper and lower case: rename one of them"
        return f"{files}: {lacks}; add it or remove the file"


@dataclass(frozen=True)
class Listing:
    """The pairs of one phase, sorted by stem, and the files that belong to none."""

    layout: str
    phase: str
    pairs: tuple[Pair, ...]
    orphans: tuple[Orphan, ...] = ()


@dataclass(frozen=True)
class _Part:
    """One kind of file of a layout: where it lies, and the suffixes of its names."""

    name: str
    folder: str
    suffixes: tuple[str, ...]
    # A tree that mixes kinds of files in one folder (Cityscapes) keeps only names with the first suffix that any has.
    strict: bool = False


_NAMES = {"label": "label map", "input": "input (A)", "ids": "instance map", "photo": "photo"}
_LABEL = ("_gtFine_labelIds", "_gtFine_labelTrainIds", "_labelIds", "_labelTrainIds", "_labels", "_label")
_IDS = ("_gtFine_instanceIds", "_instanceIds", "_instance", "_inst")
_PHOTO = ("_leftImg8bit", "_image", "_photo", "_img")

# The first part of each layout is the one that every sample needs.
_LAYOUTS: dict[str, tuple[_Part, ...]] = {
    "cityscapes": (
        _Part("label", "gtFine/{}", ("_gtFine_labelIds", "_gtFine_labelTrainIds"), strict=True),
        _Part("ids", "gtFine/{}", ("_gtFine_instanceIds",), strict=True),
        _Part("photo", "leftImg8bit/{}", ("_leftImg8bit",), strict=True),
    ),
    "nvidia": (_Part("label", "{}_label", _LABEL), _Part("ids", "{}_inst", _IDS), _Part("photo", "{}_img", _PHOTO)),
    "ab": (
        _Part("input", "{}_A", ("_A", "_input")),
        _Part("ids", "{}_inst", _IDS),
        _Part("photo", "{}_B", ("_B", "_output", *_PHOTO)),
    ),
    "side-by-side": (_Part("input", "{}", ()),),
}
_LABELLED = ("cityscapes", "nvidia")
_PACKED = "packed"

# Folders by which other programs tell the halves of pairs apart, and what they are called here.
_FOREIGN = (
    (
        ("images", "image", "imgs", "img", "photos", "photo"),
        ("labels", "label", "masks", "mask", "annotations", "segmentation", "segmentations"),
        "_img",
        "_label",
    ),
    (("a", "input", "inputs", "source"), ("b", "output", "outputs", "target", "targets"), "_A", "_B"),
)


def find_pairs(config: DataConfig, phase: str, labels: bool | None = None) -> Listing:
    """List the pairs of one phase.

    Folders are searched with their subfolders, and a subfolder is part of the name. Files belong together if their
    names are equal, or equal once the suffix of their part (_gtFine_labelIds, _label, _inst, _img, _A, _B, ...) is
    taken off; names that Unicode calls equal, though composed or decomposed, are. Photos and instance maps may be
    absent from a phase as a whole; a single absent one makes an orphan.

    Args:
        config: `root` and `layout` are used.
        phase: For example "train".
        labels: Whether label maps are wanted (n_labels > 0) or an A-to-B input; None takes what is there.

    Raises:
        DataError: a folder is missing or empty, the phase does not exist, two files of a folder share a name, or no
            file has a partner.
        ConfigError: no root, or a layout without label maps where they are wanted, or the reverse.
    """
    root = _root(config)
    layout = _layout(config, labels)
    if layout == _PACKED:
        return _packed_pairs(root, phase)
    if config.layout == "auto" and layout == "side-by-side" and (foreign := _foreign(root)):
        raise DataError(foreign)
    parts = _LAYOUTS[layout]
    phases = _phases(root, layout)
    if phase not in phases:
        looked_for = root / parts[0].folder.format(phase)
        raise DataError(f"{looked_for} does not exist; the phases of {root} ({layout}) are: {', '.join(phases)}")
    folders = {part.name: root / part.folder.format(phase) for part in parts}
    found = {part.name: _files(folders[part.name], part) for part in parts}
    required = parts[0]
    if not found[required.name]:
        kinds = ", ".join(sorted(EXTENSIONS))
        wanted = f"*{required.suffixes[0]}.png" if required.strict else f"pictures ({kinds})"
        raise DataError(f"{folders[required.name]} holds no {wanted}; put the {phase} files there")
    present = {name: files for name, files in found.items() if files}
    return _match(parts, folders, layout, phase, present)


def match_folders(folders: Mapping[str, Path]) -> Listing:
    """Pair the files of folders that belong together, outside any layout, by the same rules as `find_pairs`.

    Args:
        folders: By part: "label" or "input", "ids", "photo".

    Raises:
        DataError: a folder holds no pictures, two files of one folder share a name, or no file has a partner.
    """
    layout = "ab" if "input" in folders else "nvidia"
    parts = tuple(part for part in _LAYOUTS[layout] if part.name in folders)
    found = {part.name: _files(folders[part.name], part) for part in parts}
    for name, files in found.items():
        if not files:
            raise DataError(f"{folders[name]} holds no pictures ({', '.join(sorted(EXTENSIONS))}); put the files there")
    return _match(parts, folders, "", "", found)


def find_phases(config: DataConfig, labels: bool | None = None) -> tuple[str, ...]:
    """Names of the phases under `config.root`, sorted.

    Raises:
        DataError: the folder is missing or has no known structure.
        ConfigError: as in `find_pairs`.
    """
    return _phases(_root(config), _layout(config, labels))


def validation_phase(config: DataConfig, labels: bool | None = None) -> str:
    """Phase for samples and for choosing the best checkpoint: `val_phase`, else val, else test, else `train_phase`."""
    if config.val_phase is not None:
        return config.val_phase
    phases = find_phases(config, labels)
    return next((phase for phase in ("val", "test") if phase in phases), config.train_phase)


def _root(config: DataConfig) -> Path:
    if config.root is None:
        raise ConfigError(f"no dataset folder is set; set {option('data.root')} to the folder that holds the phases")
    if not config.root.is_dir():
        raise DataError(f"{config.root} is not a folder; set {option('data.root')} to the folder that holds the phases")
    return config.root


def _layout(config: DataConfig, labels: bool | None) -> str:
    """The layout that was chosen, or the only one that fits what lies under the root."""
    root = _root(config)
    if config.layout == _PACKED or (config.layout == "auto" and is_packed(root)):
        if not is_packed(root):
            raise DataError(f"{root} has no {INDEX}; make a packed dataset with: hdgan data pack FOLDER --out {root}")
        if labels is not None and labels != _has_labels(root, _PACKED):
            raise ConfigError(_mismatch(root, _PACKED))
        return _PACKED
    if config.layout != "auto":
        if labels is not None and labels != _has_labels(root, config.layout):
            raise ConfigError(_mismatch(root, config.layout))
        if not _phases(root, config.layout):
            raise DataError(
                f"{root} has no folder {_LAYOUTS[config.layout][0].folder.format('<phase>')}; {_expected()}"
            )
        return config.layout
    # Every folder of pictures looks like side-by-side, so the named structures go first.
    fits = [layout for layout in _LAYOUTS if layout != "side-by-side" and _phases(root, layout)]
    fits = fits or (["side-by-side"] if _phases(root, "side-by-side") else [])
    if not fits:
        raise DataError(f"{root} has no known structure; {_expected()}")
    wanted = [layout for layout in fits if labels is None or labels == _has_labels(root, layout)]
    if not wanted:
        raise ConfigError(_mismatch(root, fits[0]))
    if len(wanted) > 1:
        raise DataError(
            f"{root} fits the layouts {' and '.join(wanted)}; set {option('data.layout')} to the one that is meant"
        )
    return wanted[0]


def _has_labels(root: Path, layout: str) -> bool:
    if layout == _PACKED:
        return any("label" in phase.parts for phase in read_index(root).values())
    return layout in _LABELLED


def _mismatch(root: Path, layout: str) -> str:
    n_labels = option("model.n_labels")
    if _has_labels(root, layout):
        return f"{root} holds label maps (layout {layout}); set {n_labels} to their number of classes"
    if layout == "side-by-side" and (foreign := _foreign(root)):
        return foreign
    return f"{root} holds A-to-B pictures (layout {layout}), no label maps; set {n_labels} to 0, or add <phase>_label"


def _foreign(root: Path) -> str | None:
    """What is wrong with the folders of a dataset that is arranged for another program, or None."""
    phases = _phases(root, "side-by-side")
    for phase in phases:
        if phase.endswith("A") and f"{phase[:-1]}B" in phases:
            return _renaming(root, phase, f"{phase[:-1]}B", "_A", "_B")
    for parent in (root, *(root / phase for phase in phases)):
        names = {name.casefold(): name for name in subfolders_of(parent)}
        for firsts, seconds, *called in _FOREIGN:
            first, second = (
                next((names[name] for name in wanted if name in names), "") for wanted in (firsts, seconds)
            )
            if first and second:
                return _renaming(parent, first, second, *called)
    return None


def _renaming(parent: Path, first: str, second: str, *called: str) -> str:
    one, other = (f"train{suffix}" for suffix in called)
    pictures = "; for an A-to-B model, train_A and train_B" if other == "train_label" else ""
    return (
        f"{parent} holds {first} and {second}, which hdgan does not take for pairs: call the folders of a phase {one} "
        f"and {other} (or <phase>{called[0]} and <phase>{called[1]}){pictures}, with one name for both files of a pair"
    )


def _expected() -> str:
    return "expected " + ", or ".join(
        f"{parts[0].folder.format('<phase>')}/ ({name})" for name, parts in _LAYOUTS.items()
    )


def _phases(root: Path, layout: str) -> tuple[str, ...]:
    """Phases that have the folder of the layout's first part, or that were packed."""
    if layout == _PACKED:
        return tuple(sorted(read_index(root)))
    before, after = _LAYOUTS[layout][0].folder.split("{}")
    folder = root / before
    names = subfolders_of(folder)
    if layout == "side-by-side":
        # A folder that cannot be read is no phase here; as part of a phase it is an error.
        walks = {name: pictures_in(folder / name, on_error=None) for name in names if not _of_another_layout(name)}
        names = [name for name, pictures in walks.items() if any(pictures)]
    else:
        names = [name for name in names if name.endswith(after) and name != after]
    for name in names:
        if not is_text(name):
            raise DataError(f"{folder / name}: the name of a phase must be UTF-8; rename the folder")
    return tuple(name.removesuffix(after) for name in names)


def _packed_pairs(root: Path, phase: str) -> Listing:
    phases = read_index(root)
    if phase not in phases:
        raise DataError(f"{root} was packed without phase {phase}; it holds: {', '.join(sorted(phases))}")
    found = phases[phase]
    pairs = [Pair.of(stem, dict.fromkeys(found.parts, sample.path), sample) for stem, sample in found.samples.items()]
    return Listing(_PACKED, phase, tuple(pairs))


def _of_another_layout(name: str) -> bool:
    folders = [part.folder for layout, parts in _LAYOUTS.items() if layout != "side-by-side" for part in parts]
    return any(name == folder.split("/")[0] if "/" in folder else name.endswith(folder[2:]) for folder in folders)


def _files(folder: Path, part: _Part) -> list[tuple[str, Path]]:
    """Files of one part with their names below the folder."""
    files = sorted(pictures_in(folder))
    if part.strict:
        kinds = ([path for path in files if path.stem.endswith(suffix)] for suffix in part.suffixes)
        files = next(filter(None, kinds), [])
    return [(name_of(path.relative_to(folder)), path) for path in files]


def _by_stem(files: list[tuple[str, Path]], suffixes: tuple[str, ...], shared: set[str]) -> dict[str, Path]:
    """Files of one part by stem: the name itself where every part has it, else without the part's suffix."""
    by_stem: dict[str, Path] = {}
    for name, path in files:
        suffix = next((suffix for suffix in suffixes if name.endswith(suffix)), "")
        stem = name if name in shared else name.removesuffix(suffix)
        if stem in by_stem:
            raise DataError(f"{by_stem[stem]} and {path} are both named {stem}; rename or remove one of them")
        by_stem[stem] = path
    return by_stem


def _match(
    parts: tuple[_Part, ...],
    folders: Mapping[str, Path],
    layout: str,
    phase: str,
    found: dict[str, list[tuple[str, Path]]],
) -> Listing:
    shared = set.intersection(*({name for name, _ in files} for files in found.values()))
    suffixes = {part.name: part.suffixes for part in parts}
    stems = {name: _by_stem(files, suffixes[name], shared) for name, files in found.items()}
    folded = {name: {stem.casefold(): path for stem, path in by_stem.items()} for name, by_stem in stems.items()}
    pairs, orphans = [], []
    for stem in sorted(set().union(*stems.values())):
        files = {name: by_stem[stem] for name, by_stem in stems.items() if stem in by_stem}
        if len(files) == len(stems):
            if layout == "side-by-side":
                files["photo"] = files["input"]
            pairs.append(Pair.of(stem, files))
        else:
            missing = tuple(
                (_NAMES[name], folders[name], folded[name].get(stem.casefold())) for name in stems if name not in files
            )
            orphans.append(Orphan(stem, tuple(files.values()), missing))
    if not pairs:
        first, other = (next(iter(by_stem.values())) for by_stem in list(stems.values())[:2])
        where = f" of phase {phase}" if phase else ""
        unpaired = ", since unpaired pictures (CycleGAN's) cannot be trained on" if "input" in stems else ""
        raise DataError(
            f"no two files{where} share a name, for example {first} and {other}; name partners alike{unpaired}"
        )
    return Listing(layout, phase, tuple(pairs), tuple(orphans))
