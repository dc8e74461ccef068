"""The options of `hdgan generate` for maps of any size, and what they do."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Annotated, Literal

from annotated_types import Interval

from hdgan.config.serialization import check_value
from hdgan.data.windows import open_image, open_map, open_photo
from hdgan.errors import ConfigError
from hdgan.files.png import write_png
from hdgan.files.pyramids import write_pyramid
from hdgan.inference.engine import ImageRequest
from hdgan.inference.maps import Maps
from hdgan.inference.pipeline import Pipeline
from hdgan.inference.tiled import LargeImage, TiledGenerator, TileOptions

TileSide = Annotated[int, Interval(ge=32, le=2**14)]
_SIZES = {"kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12, "kib": 2**10, "mib": 2**20, "gib": 2**30, "tib": 2**40}
_SIZE = re.compile(r"([0-9]+(?:\.[0-9]+)?) ?([kmgt]i?b)", re.IGNORECASE)
_BAND = 64
"""Rows that are written at once."""


@dataclass(frozen=True)
class TileChoice:
    """Maps that are too large to be generated at once. Any of these options makes images tile by tile."""

    tile: TileSide | None = None
    """Side of a tile in pixels; by default as large as the memory allows, and at most 1024. Each of --tile,
    --max-memory, --tile-statistics and --pyramid makes images in tiles."""
    max_memory: str | None = None
    """Memory that the program may take, such as 4GB, the default. What does not fit goes to scratch files. The image is
    that of the whole maps but for rounding, without seams."""
    scratch: Path | None = None
    """Folder of the scratch files; by default that of temporary files."""
    tile_statistics: Literal["exact", "thumbnail"] = "exact"
    """Of the instance norms: exact ones of the whole image, or with thumbnail those of a small version of the maps, at
    most 1024 pixels wide and high. That needs no scratch files, and changes colours and contrasts."""
    pyramid: bool = False
    """Write pyramids, which viewers of slides open: OME-TIFF with smaller copies of the image, x.ome.tif."""

    @property
    def is_used(self) -> bool:
        """Whether images are generated in tiles."""
        return self != TileChoice()

    @property
    def ending(self) -> str | None:
        """That of the files, where it is not the usual one."""
        return ".ome.tif" if self.pyramid else None

    def check(self) -> None:
        """Refuse values that are out of range.

        Raises:
            ConfigError: one is.
        """
        if self.tile is not None:
            check_value(TileSide, self.tile, "tile")
        self.bytes  # noqa: B018
        if self.scratch is not None and not self.scratch.is_dir():
            raise ConfigError(f"--scratch {self.scratch} is not a folder: give one that exists")

    @property
    def bytes(self) -> int:
        """Those of `max_memory`."""
        if self.max_memory is None:
            return TileOptions.max_memory
        text = self.max_memory
        found = _SIZE.fullmatch(text.strip())
        if found is None:
            raise ConfigError(f"--max-memory is {text}: give a number with its unit, such as 4GB or 800MiB")
        return int(float(found[1]) * _SIZES[found[2].lower()])


Progress = Callable[[str, int, int], None]
"""Called with what is done, how much of it, and how much there is."""


def generate_in_tiles(
    pipeline: Pipeline, requests: Sequence[ImageRequest], choice: TileChoice, progress: Progress
) -> Iterator[tuple[int, Maps, LargeImage]]:
    """Generate images of any size.

    Args:
        pipeline: the model.
        requests: their sources are paths.
        choice: the options.
        progress: called with the percentage of all images.

    Yields:
        The number of each request, its maps, and its image, which is to be written before the next one is asked for.

    Raises:
        ConfigError, DataError, CheckpointError: as of `TiledGenerator` and of opening the files.
    """
    done = 0
    generate = TiledGenerator(
        pipeline,
        TileOptions(choice.tile, choice.bytes, choice.scratch, choice.tile_statistics),
        lambda what, share: progress(what, int(100 * (done + share) / len(requests)), 100),
    )
    for paths, of_one in groupby(requests, key=lambda request: (request.source, request.instance, request.photo)):
        with ExitStack() as opened:
            source, instance, photo = (None if path is None else Path(str(path)) for path in paths)
            assert source is not None
            windows = opened.enter_context(open_map(source) if pipeline.config.n_labels else open_image(source))
            ids = None if instance is None else opened.enter_context(open_map(instance, "instance map"))
            shown = None
            if photo is not None:
                size = windows.width, windows.height
                shown = opened.enter_context(open_photo(photo, size, pipeline.config.is_rgb))
            maps = generate.read(windows, ids)
            for request in of_one:
                made = generate(maps, photo=shown, styles=request.styles, seed=request.seed, variant=request.variant)
                yield done, maps, made
                done += 1


def write_tiled(image: LargeImage, path: Path, pyramid: bool) -> None:
    """Write an image row by row, as PNG or as a pyramid.

    Args:
        image: with up to four channels of 8 or 16 bits, or any if it becomes a pyramid.
        path: of the file.
        pyramid: write an OME-TIFF with smaller levels.
    """
    height, width, channels = image.height, image.width, image.channels
    rows = (image.rows(top, min(top + _BAND, height)) for top in range(0, height, _BAND))
    if pyramid:
        write_pyramid(path, rows, height, width, channels, image.depth)
    else:
        assert image.depth != "float32"
        write_png(path, rows, height, width, channels, image.depth)
