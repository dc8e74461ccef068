"""`hdgan generate`: images from files and folders."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, TypeAlias

import tyro
from rich.console import Console

from hdgan.commands.joint_input import InputHas, check_choice, check_inputs, with_left_halves
from hdgan.commands.scene_choice import choose_scenes
from hdgan.commands.sources import OPTIONS, SizeNote, check_sources, find_sources, trained_size
from hdgan.commands.style_choice import StyleChoice
from hdgan.commands.tile_choice import Progress, TileChoice, generate_in_tiles, write_tiled
from hdgan.config.bounds import BatchSize, Precision
from hdgan.config.serialization import check_value
from hdgan.data import Pair, SizeConfig
from hdgan.data.map_video import VIDEO_ENDINGS
from hdgan.data.zarr_windows import is_zarr
from hdgan.errors import ConfigError, HdganError
from hdgan.files import require_no_file
from hdgan.files.images import image_ending, names_an_image
from hdgan.files.remote import is_remote, located
from hdgan.inference.engine import Generated, ImageRequest
from hdgan.inference.maps import Maps
from hdgan.inference.ordered import in_order
from hdgan.inference.pipeline import Pipeline, load
from hdgan.progress import print_lines, showing_progress
from hdgan.scenes import held_out_pairs, write_held_out
from hdgan.sharding.world import World, join_shards
from hdgan.wording import count

WRITERS = 2
"""Threads that write images, mostly waiting for the disk."""
SCENES = "scenes"
"""The folder beside the images into which --scenes writes their maps."""
_Renderer: TypeAlias = Callable[[Callable[[int, int], None]], None]
"""Renders scenes, and calls back with how many are done, of how many."""


def generate(
    run: Annotated[Path, tyro.conf.Positional],
    /,
    out: Path,
    choice: Annotated[StyleChoice, tyro.conf.arg(name="")],
    tiles: Annotated[TileChoice, tyro.conf.arg(name="")],
    label: Path | None = None,
    instance: Path | None = None,
    input: Path | None = None,
    input_has: InputHas | None = None,
    photo: Path | None = None,
    scenes: int | None = None,
    checkpoint: str = "latest",
    device: str = "auto",
    precision: Precision = "float32",
    ema: bool = True,
    batch_size: BatchSize = 1,
    skip_existing: bool = False,
) -> int:
    """Make an image of the same size for every label map, or several in different styles.

    `torchrun --nproc-per-node N -m hdgan generate ...` shares the images among N processes, one for each
    GPU or several on CPUs, and writes the same files.

    Images have the channels and bits of the photos that the model was trained on: PNG for up to four channels of 8 or
    16 bits; else TIFF with one page for each channel.

    Args:
        run: Run folder, checkpoint folder or .safetensors file; demo, the model that comes with hdgan; or
            hf:OWNER/NAME, a model on the Hugging Face Hub.
        out: Folder for the images, or a .png file (.tif where images are TIFF) for a single one.
        label: Label map, or a folder of them. This and the next three options also take a URL, such as
            s3://bucket/labels.
        instance: Instance map, or a folder of them, paired by name.
        input: Input image, or a folder of them, for a model trained on A->B pairs.
        input_has: AB if each --input file has A and B side by side, of which the left half, A, is taken; A if all of
            it is the input. It is asked for where a model was trained on such files and an input may be one.
        photo: Photo, or a folder of them, that gives each instance its style.
        scenes: Number of held-out built-in scenes whose maps are used instead of your own, for a model that was trained
            on such scenes. Their maps and rendered photos are written into the folder scenes beside the images.
        checkpoint: Which one of a run: latest, best, or a step.
        device: auto, cpu, cuda or cuda:N.
        precision: With bfloat16 or float16 the networks run under autocast. float16 is more exact, and slow on most
            CPUs.
        ema: Use the averaged weights.
        batch_size: Images that the networks compute at once, of maps of one size that follow each other. More than 1
            can be faster for small maps, and changes images by rounding. On a CPU, several images are computed side by
            side in any case: one for each core, as long as all together have at most a million pixels.
        skip_existing: Leave out images that are already there, such as those of an interrupted command. They are not
            compared with the options.
    """
    check_value(BatchSize, batch_size, "batch_size")
    tiles.check()
    check_choice(input_has, input is not None, tiles.is_used)
    if tiles.is_used and batch_size > 1:
        raise ConfigError(f"--batch-size {batch_size} has no effect on images that are made in tiles: leave it out")
    console = Console(stderr=True)
    sources = _readable({"label": label, "input": input, "ids": instance, "photo": photo}, tiles)
    with join_shards(device) as world:
        pipeline = load(run, checkpoint=checkpoint, device=str(world.device), precision=precision, ema=ema)
        pipeline.require_batch(batch_size)
        choice.check(pipeline.config.variants, with_photo=photo is not None)
        render: _Renderer | None = None
        if scenes is None:
            check_sources(run, pipeline, sources)
            pairs = find_sources(sources, console)
            if input is not None and input_has is None:
                assert pipeline.file is not None
                remedy = "add --input-has AB if it has both, or --input-has A if all of it is A"
                check_inputs(run, pipeline.file, pairs, console, remedy, "add --input-has AB if it has both")
        else:
            chosen = choose_scenes(run, pipeline, scenes, out, [OPTIONS[part] for part in sources])
            pairs, render = held_out_pairs(chosen, out / SCENES), partial(write_held_out, chosen, out / SCENES)
        ending = tiles.ending or image_ending(pipeline.config.image_channels, pipeline.config.image_depth)
        if tiles.is_used and ending == ".tif":
            raise ConfigError(f"images of {run} are no PNG, and tiles give PNG or pyramids: add --pyramid")
        targets = name_targets(pairs, out, choice.variants, ending)
        _protect_sources(pairs, targets, choice)
        images = _share(list(_requests(pipeline, pairs, targets, choice)), batch_size, world)
        missing = [image for image in images if not (skip_existing and image.is_complete(choice.save_styles))]
        if render is not None and any(world.any(bool(missing))):
            _render_scenes(render, world, console)
        began = time.monotonic()
        _generate_all(pipeline, missing, batch_size, tiles, choice.save_styles, console, halved=input_has == "AB")
        skipped = sum(world.rendezvous.all_gather(len(images) - len(missing)))
    there = f"; {count(skipped, 'image')} left out, which were there" if skipped else ""
    made = count(len(targets) - skipped, "image")
    print_lines(console, f"{made} in {time.monotonic() - began:.1f} s: {out}{there}")
    return 0


def _readable(given: Mapping[str, Path | None], tiles: TileChoice) -> dict[str, Path]:
    """The paths that are given, each of which can be read as whole maps or in tiles, whichever is asked for."""
    sources = {part: located(path, OPTIONS[part]) for part, path in given.items() if path is not None}
    for part, path in sources.items():
        if is_remote(path) and tiles.is_used:
            raise ConfigError(
                f"{OPTIONS[part]} {path} is not on this machine, and tiles are read from local files: copy it to a "
                "folder here"
            )
        if is_zarr(path) and not tiles.is_used:
            raise ConfigError(f"{OPTIONS[part]} {path} is zarr, which is only read in tiles: add --max-memory 4GB")
    return sources


def _render_scenes(render: _Renderer, world: World, console: Console) -> None:
    """Render the scenes, once on each machine."""
    with world.local_main_first(), showing_progress(console) as progress:
        if not world.local_rank:
            render(lambda done, total: progress("rendering scenes", done, total))


@dataclass(frozen=True, kw_only=True)
class _RequestedFile(ImageRequest):
    """An image and the file that it goes to."""

    target: Path

    def is_complete(self, with_styles: bool) -> bool:
        """Whether its files are there. They are written whole or not at all."""
        return self.target.is_file() and not (with_styles and not _styles_beside(self.target).is_file())


def _requests(
    pipeline: Pipeline, pairs: Iterable[Pair], targets: Sequence[Path], choice: StyleChoice
) -> Iterator[_RequestedFile]:
    """All variants of the first pair, then of the second, and so on."""
    names = iter(targets)
    for pair in pairs:
        source = pair.label if pipeline.config.n_labels else pair.input
        assert source is not None
        for variant in range(choice.variants):
            yield _RequestedFile(
                source,
                pair.ids,
                photo=pair.photo,
                styles=partial(choice.styles_for, pipeline, photo=pair.photo, variant=variant),
                seed=choice.seed,
                variant=0 if choice.by_styles else variant,
                target=next(names),
            )


def _share(images: Sequence[_RequestedFile], batch_size: int, world: World) -> list[_RequestedFile]:
    """The images of this process, in blocks of which the pipeline makes the batches that it would make of all."""
    blocks = [images[start : start + batch_size] for start in range(0, len(images), batch_size)]
    return [image for block in world.share(blocks) for image in block]


def _generate_all(
    pipeline: Pipeline,
    images: Sequence[_RequestedFile],
    batch_size: int,
    tiles: TileChoice,
    save_styles: bool,
    console: Console,
    *,
    halved: bool,
) -> None:
    """Generate images and write each as soon as it is there."""
    assert pipeline.file is not None
    size_note = SizeNote(trained_size(pipeline.file) or SizeConfig(), console)
    written: list[Path] = []
    try:
        with showing_progress(console) as progress:
            if tiles.is_used:
                made = _in_tiles(pipeline, images, tiles, save_styles, progress, written)
            else:
                progress("generating", 0, len(images))
                asked = with_left_halves(images) if halved else images
                made = _at_once(pipeline, asked, batch_size, save_styles, written)
            with closing(made):  # Images that are being written when the loop is left count as well.
                for maps in made:
                    size_note.compare(maps)
                    if not tiles.is_used:
                        progress("generating", len(written), len(images))
    except (HdganError, KeyboardInterrupt):
        if written:
            print_lines(
                console,
                f"stopped after {len(written)} of {count(len(images), 'image')}, which are complete: repeat the "
                "command with --skip-existing for the others",
            )
        raise


def _at_once(
    pipeline: Pipeline, images: Iterable[_RequestedFile], batch_size: int, save_styles: bool, written: list[Path]
) -> Generator[Maps, None, None]:
    """Generate whole images, add each file to `written` once it is complete, and yield its maps."""

    def write(made: Generated[_RequestedFile]) -> Maps:
        target = made.request.target
        if save_styles and made.styles is not None:
            made.styles.save(_styles_beside(target))
        pipeline.save_image(made.image, target)
        written.append(target)
        return made.maps

    return in_order(write, pipeline.stream(images, batch_size=batch_size), WRITERS, 2 * WRITERS)


def _in_tiles(
    pipeline: Pipeline,
    images: Sequence[_RequestedFile],
    tiles: TileChoice,
    save_styles: bool,
    progress: Progress,
    written: list[Path],
) -> Generator[Maps, None, None]:
    """Generate images in tiles, add each file to `written` once it is complete, and yield its maps."""
    for number, maps, made in generate_in_tiles(pipeline, images, tiles, progress):
        target = images[number].target
        if save_styles and made.styles is not None:
            made.styles.save(_styles_beside(target))
        write_tiled(made, target, tiles.pyramid)
        written.append(target)
        yield maps


def name_targets(pairs: list[Pair], out: Path, variants: int = 1, ending: str = ".png") -> list[Path]:
    """The files of the images: all variants of the first pair, then of the second, and so on.

    Args:
        pairs: the maps or inputs.
        out: folder, or a file with the ending.
        variants: images of each.
        ending: from `image_ending`.

    Raises:
        ConfigError: `out` cannot hold them.
    """
    targets = _name_pairs(pairs, out, ending)
    if variants == 1:
        return targets
    return [_numbered(path, k) for path in targets for k in range(1, variants + 1)]


def _numbered(path: Path, k: int) -> Path:
    ending = _ending(path)
    return path.with_name(f"{path.name.removesuffix(ending)}_{k}{ending}")


def _ending(path: Path) -> str:
    return ".ome.tif" if path.name.endswith(".ome.tif") else path.suffix


def _name_pairs(pairs: list[Pair], out: Path, ending: str) -> list[Path]:
    kind = "PNG" if ending == ".png" else "TIFF"
    if out.suffix.lower() in ((".png",) if ending == ".png" else (".tif", ".tiff")):
        if len(pairs) > 1:
            raise ConfigError(f"--out {out} is one file, but there are {len(pairs)} label maps: give a folder")
        return [out]
    if out.suffix.lower() in VIDEO_ENDINGS and not out.is_dir():
        raise ConfigError(f"--out {out}: `hdgan video` writes videos; give a folder for images")
    if names_an_image(out):
        raise ConfigError(f"--out {out}: images are written as {kind}; give a file that ends in {ending}, or a folder")
    if out.is_file():
        raise ConfigError(
            f"--out {out} is a file, but not a {ending} file: give a folder, or a file that ends in {ending}"
        )
    require_no_file(out)
    return [out / f"{pair.stem}{ending}" for pair in pairs]


def _styles_beside(target: Path) -> Path:
    """The file in which --save-styles writes the styles of an image."""
    return target.with_name(f"{target.name.removesuffix(_ending(target))}.json")


def _protect_sources(pairs: list[Pair], targets: list[Path], choice: StyleChoice) -> None:
    """Refuse to overwrite a source, even through another path."""
    local = (path for pair in pairs for path in pair.files.values() if not is_remote(path))
    sources = set(map(os.path.realpath, local))
    sources |= {os.path.realpath(path) for path in choice.files}
    written = [*targets, *(_styles_beside(target) for target in targets if choice.save_styles)]
    for target in written:
        if os.path.realpath(target) in sources:
            raise ConfigError(f"{target} is an input and would be overwritten: choose another --out")
