"""The maps, inputs and photos that commands take, compared with what a model needs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console

from hdgan.commands.scene_choice import scenes_of
from hdgan.config.serialization import from_plain
from hdgan.data import Pair, SizeConfig, match_folders
from hdgan.data.zarr_windows import is_zarr
from hdgan.errors import ConfigError, DataError
from hdgan.families.saving import read_metadata
from hdgan.inference.maps import Maps
from hdgan.inference.pipeline import Pipeline
from hdgan.progress import print_lines

OPTIONS = {"label": "--label", "input": "--input", "ids": "--instance", "photo": "--photo"}
"""The command-line option for each part of a `Pair`."""
_FAR = 1.5
"""By what factor an image may be larger or smaller than in training without a note."""


def check_sources(run: Path, pipeline: Pipeline, sources: Mapping[str, Path], or_scenes: bool = True) -> None:
    """Refuse sources that the model does not use, and require the one that it needs.

    Args:
        run: the model, as it was given.
        pipeline: the same, loaded.
        sources: files or folders by the part of a `Pair` that they are.
        or_scenes: whether the command can draw built-in scenes instead.

    Raises:
        ConfigError: one of them has no effect, or one is missing.
    """
    model = pipeline.config
    needed = "label" if model.n_labels else "input"
    if needed not in sources:
        others = ", or --scenes 8 for maps of built-in scenes" if or_scenes and scenes_of(pipeline) else ""
        raise ConfigError(f"{run} generates images from {needed} files: give --{needed}{others}")
    unused = ["input"] if model.n_labels else ["label"]
    if not (model.instances or model.feature_channels):
        unused.append("ids")
    for part in unused:
        if part in sources:
            raise ConfigError(f"{OPTIONS[part]} {sources[part]} has no effect on the images of {run}: leave it out")


def find_sources(sources: dict[str, Path], console: Console) -> list[Pair]:
    """Turn the given files or folders into pairs.

    Raises:
        DataError: a path does not exist, files and folders are mixed, or a file has no partner.
    """
    for part, path in sources.items():
        if not path.exists():
            raise DataError(f"{OPTIONS[part]} {path} does not exist: check the path")
    folders = [path for path in sources.values() if path.is_dir() and not is_zarr(path)]
    if not folders:
        files: dict[str, Any] = dict(sources)
        return [Pair(next(iter(sources.values())).stem, **files)]
    if len(folders) < len(sources):
        file = next(path for path in sources.values() if not path.is_dir())
        raise DataError(f"{folders[0]} is a folder but {file} is a file: give only files or only folders")
    listing = match_folders(sources)
    print_lines(console, *(f"left out: {orphan}" for orphan in listing.orphans))
    return list(listing.pairs)


def trained_size(file: Path) -> SizeConfig | None:
    """The size to which the images of a checkpoint's stage were scaled; None if its file does not say."""
    metadata = read_metadata(file)
    size: Any = metadata
    for key in ("train", "stages", metadata.get("stage"), "size"):
        size = size.get(key) if isinstance(size, Mapping) and isinstance(key, str) else None
    return None if size is None else from_plain(SizeConfig, size, f"{file}, train")


class SizeNote:
    """Prints a note, once, if maps differ much in size from the training images."""

    def __init__(self, trained: SizeConfig, console: Console) -> None:
        self._trained = trained
        self._console = console
        self._printed = False

    def compare(self, maps: Maps) -> None:
        _, height, width = maps.size
        sides = (("wide", self._trained.width, width), ("high", self._trained.height, height))
        far = [f"{usual} pixels {side}" for side, usual, n in sides if usual and not usual / _FAR <= n <= usual * _FAR]
        if far and not self._printed:
            self._printed = True
            print_lines(
                self._console,
                f"{maps.name} is {width}x{height}, but the model was trained on images {far[0]}: the result may look "
                "worse; scale the maps to about that size",
            )
