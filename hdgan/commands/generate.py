"""`hdgan generate`: pictures from files and folders."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
from PIL import Image
from rich.console import Console

from hdgan.commands.style_choice import StyleChoice
from hdgan.config.serialization import from_plain
from hdgan.data import Pair, SizeConfig, match_folders
from hdgan.data.colors import require_shown, to_image
from hdgan.errors import ConfigError, DataError
from hdgan.families import ModelConfig
from hdgan.families.saving import read_metadata
from hdgan.files import require_no_file, save_png
from hdgan.inference.maps import Maps
from hdgan.inference.pipeline import Pipeline, load
from hdgan.progress import showing_progress

_FAR = 2
"""How many times larger or smaller than in training a picture may be without a note."""


def generate(
    run: Annotated[Path, tyro.conf.Positional],
    /,
    out: Path,
    label: Path | None = None,
    instance: Path | None = None,
    input: Path | None = None,
    photo: Path | None = None,
    styles: str = "mean",
    styles_to: Path | None = None,
    variants: int = 1,
    seed: int = 0,
    clusters: dict[int, int] | None = None,
    save_styles: bool = False,
    checkpoint: str = "latest",
    device: str = "auto",
    precision: Literal["float32", "bfloat16"] = "float32",
    ema: bool = True,
) -> int:
    """Make a PNG of the same size for every label map, or several in different styles.

    Args:
        run: run folder, checkpoint folder or .safetensors file.
        out: folder for the pictures, or a .png file for a single one.
        label: label map, or a folder of them.
        instance: instance map, or a folder of them, paired by name.
        input: input picture, or a folder of them, for a model trained on A->B pairs.
        photo: photo, or a folder of them, that gives each instance its style.
        styles: without a photo: mean (of each class), random (a cluster for each instance), random-class (a cluster for
            all instances of a class), or a .json file that --save-styles wrote.
        styles_to: a second file of styles; the variants go from the first to it.
        variants: pictures of each label map, named x_1.png, x_2.png, …: in random styles, between two files of styles,
            or what a model makes by itself (several images at once, or noise).
        seed: of random styles, and of the noise of models with dropout; the same gives the same.
        clusters: instances and the cluster that each has in its class, as in --clusters 26001 3 26002 5.
        save_styles: write the styles of each picture beside it, as x.json.
        checkpoint: of a run: latest, best, or a step.
        device: auto, cpu, cuda or cuda:N.
        precision: bfloat16 runs the networks under autocast.
        ema: use the averaged weights.
    """
    console = Console(stderr=True)
    sources = {"label": label, "input": input, "ids": instance, "photo": photo}
    pipeline = load(run, checkpoint=checkpoint, device=device, precision=precision, ema=ema)
    require_shown(pipeline.config.image_channels)
    wanted = "label" if pipeline.config.n_labels else "input"
    if sources[wanted] is None:
        raise ConfigError(f"{run} makes pictures from {wanted} files: give --{wanted}")
    _refuse_idle(run, pipeline.config, sources)
    choice = StyleChoice(styles, styles_to, variants, seed, clusters or {}, save_styles)
    choice.check(pipeline.config.variants, with_photo=photo is not None)
    pairs = find_sources({part: path for part, path in sources.items() if path is not None}, console)
    targets = name_targets(pairs, out, variants)
    _protect_sources(pairs, targets, choice)
    began = time.monotonic()
    with showing_progress(console) as progress:
        progress("generating", 0, len(targets))
        jobs = zip(_noting_sizes(_jobs(pipeline, pairs, variants), pipeline, console), targets, strict=True)
        for done, (job, target) in enumerate(jobs, start=1):
            make(pipeline, job, target, choice)
            progress("generating", done, len(targets))
    seconds = time.monotonic() - began
    console.print(f"{len(targets)} pictures in {seconds:.1f} s: {out}", markup=False, highlight=False, soft_wrap=True)
    return 0


@dataclass(frozen=True)
class Job:
    """One picture to make."""

    maps: Maps
    photo: Path | None
    variant: int


def _jobs(pipeline: Pipeline, pairs: list[Pair], variants: int) -> Iterator[Job]:
    """All variants of the first pair, whose maps are read once, then of the second, and so on."""
    for pair in pairs:
        source = pair.label if pipeline.config.n_labels else pair.input
        assert source is not None
        maps = pipeline.read(source, pair.ids)
        for variant in range(variants):
            yield Job(maps, pair.photo, variant)


def _noting_sizes(jobs: Iterator[Job], pipeline: Pipeline, console: Console) -> Iterator[Job]:
    """The same jobs; before the first that is far from the size of training, a note."""
    trained = None if pipeline.file is None else trained_size(pipeline.file)
    usual = {} if trained is None else {"wide": trained.width, "high": trained.height}
    for job in jobs:
        _, height, width = job.maps.size
        given = {"wide": width, "high": height}
        far = [side for side, n in usual.items() if n and not n / _FAR <= given[side] <= n * _FAR]
        if far:
            console.print(
                f"{job.maps.name} is {width}x{height}, but the model was trained on pictures {usual[far[0]]} pixels "
                f"{far[0]}: what it makes may look worse; scale the maps to about that size",
                markup=False, highlight=False, soft_wrap=True,
            )  # fmt: skip
            usual = {}
        yield job


def trained_size(file: Path) -> SizeConfig | None:
    """The size that the pictures of a checkpoint's stage were scaled to; None where it does not tell."""
    metadata = read_metadata(file)
    size: Any = metadata
    for key in ("train", "stages", metadata.get("stage"), "size"):
        size = size.get(key) if isinstance(size, Mapping) and isinstance(key, str) else None
    return None if size is None else from_plain(SizeConfig, size, f"{file}, train")


def make(pipeline: Pipeline, job: Job, target: Path, choice: StyleChoice) -> None:
    """Make one picture and write it."""
    styles = choice.styles_for(pipeline, job.maps, job.photo, job.variant)
    photo = job.photo if styles is None else None
    own = 0 if choice.by_styles else job.variant
    picture = pipeline(job.maps, photo=photo, styles=styles, seed=choice.seed, variant=own)
    save_png(to_image(picture * 2 - 1), target)
    if choice.save and styles is not None:
        styles.save(_styles_beside(target))


def _refuse_idle(run: Path, model: ModelConfig, sources: dict[str, Path | None]) -> None:
    """Refuse files that would change nothing."""
    of_ids = model.instances or model.feature_channels
    idle = {"input": bool(model.n_labels), "label": not model.n_labels, "ids": not of_ids}
    for part, without_use in idle.items():
        if without_use and sources[part] is not None:
            option = "instance" if part == "ids" else part
            raise ConfigError(f"--{option} {sources[part]} has no effect on the pictures of {run}: leave it out")


def find_sources(sources: dict[str, Path], console: Console) -> list[Pair]:
    """Turn the given files or folders into pairs.

    Raises:
        DataError: a path does not exist, files and folders are mixed, or a file has no partner.
    """
    for part, path in sources.items():
        if not path.exists():
            raise DataError(f"--{'instance' if part == 'ids' else part} {path} does not exist: check the path")
    folders = [path for path in sources.values() if path.is_dir()]
    if not folders:
        return [Pair(next(iter(sources.values())).stem, **sources)]
    if len(folders) < len(sources):
        file = next(path for path in sources.values() if not path.is_dir())
        raise DataError(f"{folders[0]} is a folder and {file} is a file: give all files or all folders")
    listing = match_folders(sources)
    for orphan in listing.orphans:
        console.print(f"left out: {orphan}", markup=False, highlight=False, soft_wrap=True)
    return list(listing.pairs)


def name_targets(pairs: list[Pair], out: Path, variants: int = 1) -> list[Path]:
    """The files that the pictures are written to: all variants of the first pair, then of the second, and so on.

    Raises:
        ConfigError: `out` cannot hold them.
    """
    targets = _name_pairs(pairs, out)
    if variants == 1:
        return targets
    return [path.with_name(f"{path.stem}_{k}.png") for path in targets for k in range(1, variants + 1)]


def _name_pairs(pairs: list[Pair], out: Path) -> list[Path]:
    if out.suffix.lower() == ".png":
        if len(pairs) > 1:
            raise ConfigError(f"--out {out} is one file, but there are {len(pairs)} label maps: give a folder")
        return [out]
    if out.suffix.lower() in Image.registered_extensions() and not out.is_dir():
        raise ConfigError(f"--out {out}: pictures are written as PNG; give a file that ends in .png, or a folder")
    if out.is_file():
        raise ConfigError(f"--out {out} is a file that is no .png: give a folder, or a file that ends in .png")
    require_no_file(out, "out")
    return [out / f"{pair.stem}.png" for pair in pairs]


def _styles_beside(target: Path) -> Path:
    """Where --save-styles writes the styles of a picture."""
    return target.with_suffix(".json")


def _protect_sources(pairs: list[Pair], targets: list[Path], choice: StyleChoice) -> None:
    sources = {os.path.realpath(path) for pair in pairs for path in pair.files.values()}
    sources |= {os.path.realpath(path) for path in choice.files}
    written = [*targets, *(_styles_beside(target) for target in targets if choice.save)]
    for target in written:
        if os.path.realpath(target) in sources:
            raise ConfigError(f"{target} would be overwritten by what is made from it: choose another --out")
