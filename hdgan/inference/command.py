"""`hdgan generate`: pictures from files and folders."""

from __future__ import annotations

import time
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Literal

import torch
import tyro
from rich.console import Console
from rich.progress import track

from hdgan.data import Pair, match_folders
from hdgan.data.colors import to_image
from hdgan.errors import ConfigError, DataError
from hdgan.files import save_png
from hdgan.inference.pipeline import Pipeline, load


def generate(
    run: Annotated[Path, tyro.conf.Positional],
    /,
    out: Path,
    label: Path | None = None,
    instance: Path | None = None,
    input: Path | None = None,
    photo: Path | None = None,
    checkpoint: str = "latest",
    device: str = "auto",
    precision: Literal["float32", "bfloat16"] = "float32",
    ema: bool = True,
) -> int:
    """Make a PNG of the same size for every label map.

    Args:
        run: run folder, checkpoint folder or .safetensors file.
        out: folder for the pictures, or a .png file for a single one.
        label: label map, or a folder of them.
        instance: instance map, or a folder of them, paired by name.
        input: input picture, or a folder of them, for a model trained on A->B pairs.
        photo: photo, or a folder of them, that gives each instance its style; without it each class has its mean style.
        checkpoint: of a run: latest, best, or a step.
        device: auto, cpu, cuda or cuda:N.
        precision: bfloat16 runs the networks under autocast.
        ema: use the averaged weights.
    """
    console = Console(stderr=True)
    sources = {"label": label, "input": input, "ids": instance, "photo": photo}
    pipeline = load(run, checkpoint=checkpoint, device=device, precision=precision, ema=ema)
    wanted = "label" if pipeline.config.n_labels else "input"
    if sources[wanted] is None:
        raise ConfigError(f"{run} makes pictures from {wanted} files: give --{wanted}")
    pairs = find_sources({part: path for part, path in sources.items() if path is not None}, console)
    targets = name_targets(pairs, out)
    _protect_sources(pairs, targets)
    began = time.monotonic()
    steps: Iterable[tuple[Pair, Path]] = zip(pairs, targets, strict=True)
    for pair, target in track(steps, "generating", len(pairs), console=console, disable=not console.is_terminal):
        save_png(to_image(run_pair(pipeline, pair) * 2 - 1), target)
    seconds = time.monotonic() - began
    console.print(f"{len(pairs)} pictures in {seconds:.1f} s: {out}", markup=False, highlight=False, soft_wrap=True)
    return 0


def run_pair(pipeline: Pipeline, pair: Pair) -> torch.Tensor:
    """Make the picture of one pair: [3, H, W] in [0, 1]."""
    source = pair.label if pipeline.config.n_labels else pair.input
    assert source is not None
    return pipeline(source, pair.ids, photo=pair.photo)


def find_sources(sources: dict[str, Path], console: Console) -> list[Pair]:
    """Turn the given files or folders into pairs.

    Raises:
        DataError: a path does not exist, files and folders are mixed, or a file has no partner.
    """
    for part, path in sources.items():
        if not path.exists():
            raise DataError(f"{path} ({part}) does not exist: check the path")
    folders = [path for path in sources.values() if path.is_dir()]
    if not folders:
        return [Pair.of(next(iter(sources.values())).stem, sources)]
    if len(folders) < len(sources):
        file = next(path for path in sources.values() if not path.is_dir())
        raise DataError(f"{folders[0]} is a folder and {file} is a file: give all files or all folders")
    listing = match_folders(sources)
    for orphan in listing.orphans:
        console.print(f"left out: {orphan}", markup=False, highlight=False, soft_wrap=True)
    return list(listing.pairs)


def name_targets(pairs: list[Pair], out: Path) -> list[Path]:
    """The file that each pair's picture is written to.

    Raises:
        ConfigError: `out` cannot hold them.
    """
    if out.suffix.lower() == ".png":
        if len(pairs) > 1:
            raise ConfigError(f"--out {out} is one file, but there are {len(pairs)} label maps: give a folder")
        return [out]
    if out.is_file():
        raise ConfigError(f"--out {out} is a file that is no .png: give a folder, or a file that ends in .png")
    return [out / f"{pair.stem}.png" for pair in pairs]


def _protect_sources(pairs: list[Pair], targets: list[Path]) -> None:
    sources = {path.resolve() for pair in pairs for path in pair.files.values()}
    for target in targets:
        if target.resolve() in sources:
            raise ConfigError(f"{target} would be overwritten by the picture made from it: choose another --out")
