"""Street scenes as a dataset on disk, rendered once and kept in a cache."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
from PIL import Image
from rich.console import Console

from hdgan.config.options import option
from hdgan.data.class_file import CLASS_FILE, classes_text, find_classes
from hdgan.data.config import DataConfig, ScenesConfig
from hdgan.data.pairs import Pair
from hdgan.data.spec import DatasetSpec
from hdgan.errors import ConfigError, HdganError
from hdgan.files.cache import default_cache
from hdgan.progress import showing_progress
from hdgan.scenes.scene import Scene, render_scene
from hdgan.scenes.styles import SPEC

VERSION = 7
"""Part of the key of the cache: increase it whenever the same configuration gives other images (a test compares
some)."""


def spec_of(data: DataConfig, n_labels: int, *, trained: bool = False) -> DatasetSpec | None:
    """The classes of a dataset, if their names and colours are known.

    Args:
        data: Where the dataset is. It need not be there.
        n_labels: Number of classes of the model; 0 for A-to-B pairs.
        trained: Whether the model is already trained, for the message.

    Returns:
        Those of the built-in scenes, or of classes.csv in the dataset's folder; None if there is no such file.

    Raises:
        DataError: classes.csv cannot be used, or has another number of classes.
    """
    return SPEC if data.root is None else find_classes(data.root, n_labels, trained=trained)


def with_scenes(data: DataConfig, n_labels: int, console: Console) -> DataConfig:
    """Data with a root: that of the built-in scenes if it has none. Scenes that are missing are rendered.

    Args:
        data: Of a run.
        n_labels: Classes of its model.
        console: Where progress is shown.

    Raises:
        ConfigError: the scenes have another number of classes.
        HdganError: the cache cannot be written.
    """
    if not data.uses_scenes:
        return data
    if n_labels != SPEC.n_labels:
        raise ConfigError(
            f"the built-in scenes have {SPEC.n_labels} classes, but the model has {n_labels} "
            f"({option('model.n_labels')}): give a dataset with {option('data.root')}, or use a model with "
            f"{SPEC.n_labels} classes"
        )
    with showing_progress(console) as progress:
        task = "rendering street scenes (only once; they are cached)"
        root = ensure_scenes(data.scenes, progress=lambda done, total: progress(task, done, total))
    return replace(data, root=root, layout="nvidia")


def ensure_scenes(
    config: ScenesConfig, cache: Path | None = None, progress: Callable[[int, int], None] | None = None
) -> Path:
    """Return the folder of the scenes of `config`, rendering them on first use.

    The folder has NVIDIA's layout: train_label, train_inst, train_img and the same for test, with equal stems
    (scene_000000.png, ...), and also train_style and test_style with one JSON file per scene: the true style of every
    instance. classes.csv has the names and colours of the classes.

    Args:
        config: Size, number and seed of the scenes; the same gives the same pixels with the same numpy and Pillow.
        cache: Where the folder is kept; None uses the variable HDGAN_CACHE, else the user's cache folder.
        progress: Called with the number of scenes drawn and their total after each scene.

    Raises:
        HdganError: the cache cannot be written.
    """
    folder = scenes_folder(config, cache)
    if folder.is_dir():
        return folder
    try:
        # Not synced to disk: what a power cut spoils can be drawn again.
        _write_new(config, folder, progress)
    except OSError as error:
        if folder.is_dir():  # another process was first, with the same scenes
            return folder
        reason = error.strerror or str(error)
        raise HdganError(
            f"cannot store the street scenes in {folder.parent}: {reason}; set HDGAN_CACHE to a writable folder with "
            "enough space"
        ) from error
    return folder


def write_scenes(config: ScenesConfig, folder: Path, progress: Callable[[int, int], None] | None = None) -> None:
    """Render all scenes of `config` into a new folder with the files that `ensure_scenes` describes.

    Args:
        config: Size, number and seed of the scenes.
        folder: It must not exist. It is there with all its files, or not at all.
        progress: Called with the number of scenes drawn and their total after each scene.

    Raises:
        ConfigError: the folder exists.
        HdganError: it cannot be written.
    """
    if folder.exists():
        raise ConfigError(f"{folder} already exists: give the name of a new folder, or delete it")
    try:
        _write_new(config, folder, progress)
    except OSError as error:
        raise HdganError(
            f"cannot write the scenes into {folder}: {error.strerror or error}; free space or choose another folder, "
            "then repeat"
        ) from error


def _write_new(config: ScenesConfig, folder: Path, progress: Callable[[int, int], None] | None) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}.", dir=folder.parent) as scratch:
        made = Path(scratch) / folder.name
        _write(config, made, {"train": config.train, "test": config.test}, progress)
        made.rename(folder)


def scenes_folder(config: ScenesConfig, cache: Path | None = None) -> Path:
    """The folder in which `ensure_scenes` keeps the scenes of `config`, whether they exist or not."""
    key = hashlib.sha256(json.dumps([VERSION, asdict(config)], sort_keys=True).encode()).hexdigest()[:12]
    return (cache if cache is not None else default_cache()) / "scenes" / f"{config.width}x{config.height}-{key}"


def held_out_only(data: DataConfig) -> DataConfig:
    """The data of a run for a command that looks only at its held-out scenes.

    Returns:
        The same data. Built-in scenes that are not in the cache get a single training scene, so that rendering them
        takes less time.
    """
    if not data.uses_scenes or scenes_folder(data.scenes).is_dir():
        return data
    return replace(data, scenes=replace(data.scenes, train=1))


def held_out_pairs(config: ScenesConfig, folder: Path) -> list[Pair]:
    """The label and instance maps that `write_held_out` writes."""
    stems = map(_stem, range(config.test))
    labels, ids = folder / "test_label", folder / "test_inst"
    return [Pair(stem, label=labels / f"{stem}.png", ids=ids / f"{stem}.png") for stem in stems]


def write_held_out(config: ScenesConfig, folder: Path, progress: Callable[[int, int], None] | None = None) -> None:
    """Render the held-out scenes of `config` into a folder, in NVIDIA's layout. Files of the same names are replaced.

    Args:
        config: Size, number and seed of the scenes; its number of training scenes is not used.
        folder: Made if it does not exist.
        progress: Called with the number of scenes drawn and their total after each scene.

    Raises:
        HdganError: the folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".", dir=folder) as scratch:  # so that no file is ever half written
            _write(config, Path(scratch), {"test": config.test}, progress)
            for file in sorted(path for path in Path(scratch).rglob("*") if path.is_file()):
                target = folder / file.relative_to(scratch)
                target.parent.mkdir(exist_ok=True)
                file.replace(target)
    except OSError as error:
        raise HdganError(
            f"cannot write the scenes into {folder}: {error.strerror or error}; free space or choose another "
            f"{option('out')}, then repeat"
        ) from error


def _write(
    config: ScenesConfig, folder: Path, splits: Mapping[str, int], progress: Callable[[int, int], None] | None
) -> None:
    """Write the classes and the first scenes of each split; `splits` has their numbers by the names of the splits."""
    done = 0
    for split, count in splits.items():
        for kind in ("label", "inst", "img", "style"):
            (folder / f"{split}_{kind}").mkdir(parents=True)
        for index in range(count):
            scene = render_scene(config.seed, split, index, config.width, config.height)
            _write_scene(scene, folder, config.seed, split, index)
            done += 1
            if progress is not None:
                progress(done, sum(splits.values()))
    (folder / CLASS_FILE).write_text(classes_text(SPEC), encoding="utf-8")


def _stem(index: int) -> str:
    return f"scene_{index:06d}"


def _write_scene(scene: Scene, folder: Path, seed: int, split: str, index: int) -> None:
    """Write one scene into the four folders of its split."""
    stem = _stem(index)
    Image.fromarray(scene.label).save(folder / f"{split}_label" / f"{stem}.png")
    Image.fromarray(scene.ids.astype(np.uint16)).save(folder / f"{split}_inst" / f"{stem}.png")
    # Noise hardly compresses; a higher level would only take longer.
    Image.fromarray(scene.photo).save(folder / f"{split}_img" / f"{stem}.png", compress_level=2)
    height, width = scene.label.shape
    record = {
        "seed": seed,
        "split": split,
        "index": index,
        "size": [width, height],
        "classes": list(SPEC.classes),
        "instances": [{"id": instance.id, "class": instance.name, **asdict(instance)} for instance in scene.instances],
    }
    (folder / f"{split}_style" / f"{stem}.json").write_text(json.dumps(record, indent=1), encoding="utf-8")
