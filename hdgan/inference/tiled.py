"""Images of any size, generated tile by tile: the same image as of the whole maps, in bounded memory."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal, cast

import numpy as np
import torch
from torch import Tensor

from hdgan.config.bounds import Depth
from hdgan.config.options import option
from hdgan.data.headers import WHITES
from hdgan.data.images import from_unit_range
from hdgan.errors import ConfigError, DataError
from hdgan.inference.large import (
    InUnitRange,
    LargeMaps,
    WindowSource,
    check_same_size,
    find_areas,
    image_tensor,
    large_maps,
    node_of,
)
from hdgan.inference.maps import Maps
from hdgan.inference.memory import resident_bytes
from hdgan.inference.pipeline import Pipeline
from hdgan.models.draws import drawing_from
from hdgan.models.encoder import FeatureEncoder
from hdgan.regions import Box, Node, RegionRun, RegionStorage, Statistics
from hdgan.regions.draws import RegionDraws
from hdgan.regions.nodes import Pointwise
from hdgan.seeding import seeded
from hdgan.styles.sample import Styles, styles_of
from hdgan.wording import count, memory_size

LEAST = 256 * 2**20
"""Bytes that are needed for images, besides what the program takes itself."""
_DTYPES: dict[Depth, torch.dtype] = {"uint8": torch.uint8, "uint16": torch.uint16, "float32": torch.float32}

Progress = Callable[[str, float], None]
"""Called with what is done and the share of it that is complete, from 0 to 1."""


@dataclass(frozen=True)
class TileOptions:
    """How an image is generated in tiles.

    Args:
        tile: side of a tile in pixels; by default as large as the memory allows, and at most 1024.
        max_memory: bytes that the process may take; what does not fit goes to scratch files.
        scratch: folder of these files; by default that of temporary files.
        statistics: of the instance norms. "exact" gives the image of the whole maps. "thumbnail" takes those of a
            small version of the maps: without scratch files, and with other colours and contrasts.
        thumbnail: longest side of that version in pixels.
    """

    tile: int | None = None
    max_memory: int = 4 * 10**9
    scratch: Path | None = None
    statistics: Literal["exact", "thumbnail"] = "exact"
    thumbnail: int = 1024


class LargeImage:
    """A generated image that is read by rows. Memory or a scratch file keeps it for as long as the object lives.

    Attributes:
        height, width, channels: its size.
        depth: of its numbers: uint8, uint16, or float32 in [-1, 1].
        styles: those that it was made with, if they were chosen.
    """

    def __init__(self, node: Node, depth: Depth, styles: Styles | None) -> None:
        _, self.channels, self.height, self.width = node.shape
        self.depth, self.styles = depth, styles
        self._node = node

    def rows(self, top: int, bottom: int) -> np.ndarray:
        """Rows [top, bottom), 0 <= top < bottom <= height, as [n, width, channels] of `depth`.

        Raises:
            HdganError: the scratch file cannot be read.
        """
        assert self._node.held is not None
        pixels = self._node.held.read(Box(top, bottom, 0, self.width))
        return pixels[0].movedim(0, 2).cpu().numpy()


class TiledGenerator:
    """Generates images of any size with a model.

    Every instance norm of the model is a pass over the image, tile by tile, which finds the statistics of the whole;
    between the passes, features lie in memory or in scratch files. The result differs from that of the whole maps at
    once by rounding.

    Args:
        pipeline: the model.
        tiling: how.
        progress: told how far each call is.

    Raises:
        ConfigError: `max_memory` is less than the program itself takes.
    """

    def __init__(
        self, pipeline: Pipeline, tiling: TileOptions = TileOptions(), progress: Progress = lambda what, share: None
    ) -> None:
        self.pipeline, self.tiling, self._progress = pipeline, tiling, progress
        self._folder = tiling.scratch or Path(tempfile.gettempdir())
        taken = resident_bytes()
        self._room = tiling.max_memory - taken
        if self._room < LEAST:
            raise ConfigError(
                f"{option('max_memory')} of {memory_size(tiling.max_memory)} does not suffice: the program and the "
                f"model take {memory_size(taken)} already; give {memory_size(taken + LEAST)} or more"
            )

    def read(self, source: WindowSource, instance: WindowSource | None = None) -> LargeMaps:
        """Look at all of the input once: check the labels, and find the instances and their classes.

        Args:
            source: label map, or for a model trained on A->B pairs the input image.
            instance: instance map of the same size; needed if the model was trained with instances.

        Returns:
            The input of several calls.

        Raises:
            DataError: a label is not one of the model's, or sizes differ. That the floats of an image are out of range
                shows only in a call, when they are read.
            ConfigError: the model needs an instance map.
        """
        config = self.pipeline.config
        given = [source] if instance is None else [source, instance]
        check_same_size(given)
        if config.instances and instance is None:
            raise ConfigError(f"the model was trained with instance maps: give one for {source.name}")
        if not config.n_labels and self.pipeline.input_depth in WHITES:
            source = InUnitRange(source, "input")
        label = source if config.n_labels else None
        areas = None
        if label is not None or instance is not None:
            areas = find_areas(label, instance, config, self._shares("reading the maps", source.height * source.width))
        return large_maps(source, instance, areas, config, self._run())

    @torch.no_grad()
    def __call__(
        self,
        maps: LargeMaps,
        *,
        photo: WindowSource | None = None,
        styles: Styles | Callable[[Maps], Styles | None] | None = None,
        seed: int | None = None,
        variant: int = 0,
    ) -> LargeImage:
        """Generate an image of the size of its input.

        Args:
            maps: from `read`.
            photo: gives each instance its style.
            styles: as of a call of the pipeline, or a function of the maps. Where that returns None, the photo, or else
                the mean of each class, gives the styles.
            seed, variant: as of a call of the pipeline.

        Raises:
            DataError, ConfigError, CheckpointError: as of a call of the pipeline. ConfigError also if the model has an
                operation that cannot be computed in tiles, or the scratch folder has too little space.
        """
        self.pipeline.check(seed, variant)
        if photo is not None:
            if isinstance(styles, Styles):
                raise ConfigError("both a photo and styles are given: give only one of them")
            maps = self._with_photo(maps, photo)
        chosen = styles(maps) if callable(styles) else styles
        wanted = _Wanted(chosen if chosen is not None else maps.encoded, seed, variant)
        if self.tiling.statistics == "thumbnail":
            small = self._run()
            self._pixels(maps.thinned(self.tiling.thumbnail, small), wanted)
            given: Sequence[Statistics] | None = small.statistics
        else:
            given = None
        run = self._rehearsed(lambda run: self._pixels(maps.for_run(run), wanted), "generating", given)
        return LargeImage(self._pixels(maps.for_run(run), wanted), self.pipeline.config.image_depth, chosen)

    def _with_photo(self, maps: LargeMaps, photo: WindowSource) -> LargeMaps:
        """The maps with the style of every instance of a photo."""
        pipeline = self.pipeline
        encoder = cast(FeatureEncoder, pipeline.require_encoder())
        check_same_size([maps.source, photo])
        channels = pipeline.config.image_channels
        if photo.channels != channels:
            raise DataError(f"{photo.name} has {count(photo.channels, 'channel')}: give a photo with {channels}")
        areas = maps.found
        shown = InUnitRange(photo, "photo")

        def rows(run: RegionRun) -> Tensor:
            with pipeline.autocast():
                return maps.for_run(run).reduced(encoder.pixel_features(image_tensor(shown, run)))

        features = rows(self._rehearsed(rows, "encoding the photo")).cpu().numpy()
        classes = dict(zip(areas.ids.tolist(), areas.classes, strict=True))
        return replace(maps, encoded=styles_of(classes, features, pipeline.encoder_id))

    def _pixels(self, maps: LargeMaps, wanted: _Wanted) -> Node:
        """The image as it is saved, [1, C, H, W], which the storage of the run holds."""
        pipeline, depth = self.pipeline, self.pipeline.config.image_depth
        chosen = 0 if pipeline.config.variants is None else wanted.variant
        noise = nullcontext() if wanted.seed is None else seeded(pipeline.device, wanted.seed, wanted.variant)
        with pipeline.autocast(), noise, drawing_from(RegionDraws(maps.run)):
            image = node_of(pipeline.image(*pipeline.given(maps, None, wanted.styles), variant=chosen))
            pixels = Pointwise(partial(_as_saved, depth=depth), [image], dtype=_DTYPES[depth])
            maps.run.hold(pixels)
        return pixels

    def _run(self, given: Sequence[Statistics] | None = None, rehearsal: bool = False) -> RegionRun:
        storage = RegionStorage(self._room // 2, self._folder, rehearsal, self.pipeline.device)
        return RegionRun(storage, self.pipeline.device, self.tiling.tile, self._room // 6, given, rehearsal)

    def _rehearsed(
        self, function: Callable[[RegionRun], object], what: str, given: Sequence[Statistics] | None = None
    ) -> RegionRun:
        """A run for a function, after its work and the space that it takes on the disk were counted."""
        total = 0

        def count(work: int) -> None:
            nonlocal total
            total += work

        rehearsal = self._run(given, rehearsal=True)
        rehearsal.progress = count
        function(rehearsal)
        needed, free = rehearsal.storage.most_on_disk, shutil.disk_usage(self._folder).free
        if needed > free:
            raise ConfigError(
                f"{memory_size(needed)} of scratch files would be written to {self._folder}, which has "
                f"{memory_size(free)} left: choose another folder, or give more memory"
            )
        run = self._run(given)
        run.progress = self._shares(what, total)
        return run

    def _shares(self, what: str, total: int) -> Callable[[int], None]:
        """A function that is told of each part of the work that is done."""
        done = 0

        def progress(work: int) -> None:
            nonlocal done
            done += work
            self._progress(what, done / total)

        return progress


@dataclass(frozen=True)
class _Wanted:
    """What an image is made of besides the maps."""

    styles: Styles | None
    seed: int | None
    variant: int


def _as_saved(image: Tensor, depth: Depth) -> Tensor:
    """[1, C, H, W] in [0, 1] as numbers of a depth."""
    values = from_unit_range(image[0] * 2 - 1, depth)  # [H, W, C]
    return torch.from_numpy(values).movedim(2, 0)[None]
