"""Finding the pairs of a dataset: files are matched by name, and those without a partner are reported.

Every module here but `_layout` is a layout: its `LAYOUT` detects the structure, names its phases and lists their pairs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from importlib import import_module
from pathlib import Path

from hdgan.config.options import option
from hdgan.data.config import LAYOUTS, DataConfig
from hdgan.data.folders import IMAGES, images_in, no_images, only_others
from hdgan.data.layouts._layout import FolderLayout, Layout, match
from hdgan.data.packed_index import INDEX, is_packed
from hdgan.data.pairs import Listing
from hdgan.errors import ConfigError, DataError
from hdgan.files.remote import RemotePath


@cache
def layouts() -> dict[str, Layout]:
    """All layouts by name."""
    return {name: import_module(f"{__name__}.{name.replace('-', '_')}").LAYOUT for name in LAYOUTS}


def find_pairs(config: DataConfig, phase: str, labels: bool | None = None) -> Listing:
    """List the pairs of one phase.

    Folders are searched with their subfolders, and a subfolder is part of the name. Files belong together if their
    names are equal, or equal once the suffix of their part (_gtFine_labelIds, _label, _inst, _img, _A, _B, ...) is
    removed. Names that differ only in how Unicode composes their letters are equal. Photos and instance maps may be
    absent from a phase as a whole; where a single one is absent, its partners are orphans.

    Args:
        config: `root`, `layout` and `photo` are used.
        phase: For example "train".
        labels: Whether the model takes label maps (n_labels > 0) or an A-to-B input; None accepts both.

    Raises:
        DataError: a folder is missing or empty, the phase does not exist, two files of a folder share a name, or no
            file has a partner.
        ConfigError: no root is set, the dataset has label maps and the model takes an A-to-B input, or the reverse, or
            it was packed with photos of another kind.
    """
    root = _root(config, anew=True)
    layout = _layout(config, labels)
    if config.layout == "auto" and (foreign := layout.foreign(root)):
        raise DataError(foreign)
    return _reading(layout.list_pairs(root, phase), config)


def match_folders(folders: Mapping[str, Path]) -> Listing:
    """Pair the files of folders that belong together, outside any layout, by the same rules as `find_pairs`.

    Args:
        folders: By part: "label" or "input", "ids", "photo".

    Raises:
        DataError: a folder holds no images, two files of one folder share a name, or no file has a partner.
    """
    layout = layouts()["ab" if "input" in folders else "nvidia"]
    assert isinstance(layout, FolderLayout)
    found = {part: part.files(folders[part.name]) for part in layout.parts if part.name in folders}
    for part, files in found.items():
        if not files:
            raise no_images(folders[part.name])
    return match(found, {part.name: folders[part.name] for part in found})


def find_phases(config: DataConfig, labels: bool | None = None) -> tuple[str, ...]:
    """Names of the phases under `config.root`, sorted.

    Raises:
        DataError: the folder is missing or has no known structure.
        ConfigError: as in `find_pairs`.
    """
    root = _root(config, anew=True)
    return _layout(config, labels).phases(root)


def validation_phase(config: DataConfig, labels: bool | None = None) -> str:
    """Phase for samples and for choosing the best checkpoint: `val_phase`, else val, else test, else `train_phase`."""
    if config.val_phase is not None:
        return config.val_phase
    phases = find_phases(config, labels)
    return next((phase for phase in ("val", "test") if phase in phases), config.train_phase)


def _reading(listing: Listing, config: DataConfig) -> Listing:
    """The listing, with pairs that read their photos as the config says."""
    stored = config.photo == "stored"
    if listing.layout != "packed":
        pairs = tuple(replace(pair, stored=True) for pair in listing.pairs) if stored else listing.pairs
        return replace(listing, pairs=pairs)
    packed = "stored" if listing.pairs[0].stored else "rgb"
    if packed != config.photo:
        raise ConfigError(
            f"{config.root} was packed with photos as {packed}, not {config.photo}: set {option('data.photo')} "
            f"{packed}, or pack again"
        )
    return listing


def _root(config: DataConfig, anew: bool = False) -> Path:
    """The folder of the dataset; with `anew`, what is known of one elsewhere may have changed."""
    if config.root is None:
        raise ConfigError(f"no dataset folder is set; set {option('data.root')} to the folder that contains the phases")
    if isinstance(config.root, RemotePath):
        if anew:
            for path in (config.root, config.root / INDEX):
                path.forget()
        if not (is_packed(config.root) or config.root.is_dir()):
            raise DataError(
                f"{config.root} is no folder that the server lists; set {option('data.root')} to the folder that "
                "contains the phases, or to that of a packed dataset, which needs no listing"
            )
    elif not config.root.is_dir():
        raise DataError(
            f"{config.root} is not a folder; set {option('data.root')} to the folder that contains the phases"
        )
    return config.root


def _layout(config: DataConfig, labels: bool | None) -> Layout:
    """The chosen layout, or the only one that fits the folders under the root."""
    root = _root(config)
    if config.layout != "auto":
        fits = [layouts()[config.layout]]
        if not fits[0].fits(root):
            raise DataError(f"{root} has no {fits[0].pattern}; {_expected()}")
    else:
        fits = _fitting(root)
        if not fits:
            others = "" if any(images_in(root)) else only_others(root)
            raise DataError(
                f"{root} has no known structure; {_expected()}; `hdgan data convert` makes such folders of others"
                + (f". It contains no {IMAGES}{others}" if others else "")
            )
    suitable = [layout for layout in fits if labels is None or labels == layout.has_labels(root)]
    if not suitable:
        raise ConfigError(_mismatch(root, fits[0]))
    if len(suitable) > 1:
        names = " and ".join(layout.name for layout in suitable)
        raise DataError(f"{root} fits the layouts {names}; set {option('data.layout')} to the one that you mean")
    return suitable[0]


def _fitting(root: Path) -> list[Layout]:
    """The layouts of the lowest rank that fit a root."""
    for rank in sorted({layout.rank for layout in layouts().values()}):
        fits = [layout for layout in layouts().values() if layout.rank == rank and layout.fits(root)]
        if fits:
            return fits
    return []


def _mismatch(root: Path, layout: Layout) -> str:
    n_labels = option("model.n_labels")
    if layout.has_labels(root):
        return f"{root} contains label maps (layout {layout.name}); set {n_labels} to their number of classes"
    return layout.foreign(root) or (
        f"{root} contains A-to-B images (layout {layout.name}), no label maps; set {n_labels} to 0, or add "
        "<phase>_label"
    )


def _expected() -> str:
    return "expected " + ", or ".join(f"{layout.pattern} ({name})" for name, layout in layouts().items())
