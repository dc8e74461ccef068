"""Images of many maps: maps are read ahead in threads, and on a CPU several images are computed side by side.

Small images leave a second core little to do, and threads that share an image wait for each other in each of its
layers. So each image is computed by as few cores as the memory allows, and the others compute other images.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar, cast

import torch
from torch import Tensor

from hdgan.errors import DataError
from hdgan.inference.maps import ImageSource, Maps, read_maps
from hdgan.inference.ordered import Cores, in_order, runs
from hdgan.models.draws import ImageDraws, drawing_from
from hdgan.seeding import seeded, seeded_generator
from hdgan.styles.sample import Styles

if TYPE_CHECKING:
    from hdgan.inference.pipeline import Pipeline

SIDE_BY_SIDE = 2**20
"""Pixels of the images that a CPU computes at the same time, if it computes more than one: as many as two of 1024x512
have. This bounds the memory of the layers."""
_READERS = 2
_SHARED = 16
"""Images of one map that are made of what was read once."""


@dataclass(frozen=True)
class ImageRequest:
    """An image to generate: what a call of `Pipeline` takes, but of one map instead of a batch.

    `Generated.request` is the object that was given, so a subclass can hold what the image is for, such as its file.

    Attributes:
        styles: as in a call; or a function of the maps, which is called in a thread. Where it returns None, the photo,
            or else the mean of each class, gives the styles.
    """

    source: ImageSource | Maps
    instance: ImageSource | None = None
    photo: ImageSource | None = None
    styles: Styles | Callable[[Maps], Styles | None] | None = None
    seed: int | None = None
    variant: int = 0


AnyRequest = TypeVar("AnyRequest", bound=ImageRequest)


@dataclass(frozen=True)
class Generated(Generic[AnyRequest]):
    """The image of a request."""

    request: AnyRequest
    maps: Maps
    styles: Styles | None
    """Those that the request gave, or that its function returned."""
    image: Tensor
    """[image_channels, H, W] float32 in [0, 1], on the pipeline's device."""


Work = tuple[ImageRequest, Maps]


class Engine:
    """What `Pipeline.stream` runs.

    Args:
        pipeline: generates the images.
        batch_size: most images of a batch.

    Raises:
        ConfigError: as `Pipeline.stream`.
    """

    def __init__(self, pipeline: Pipeline, batch_size: int) -> None:
        pipeline.require_batch(batch_size)
        self._pipeline = pipeline
        self._batch_size = batch_size
        self._on_cpu = pipeline.device.type == "cpu"
        self._cores = Cores(torch.get_num_threads() if self._on_cpu else 1)

    def run(self, requests: Iterable[AnyRequest]) -> Generator[Generated[AnyRequest], None, None]:
        """Yield the images of requests in their order."""
        same_maps = runs(self._checked(requests), lambda request: (id(request.source), id(request.instance)), _SHARED)
        read = in_order(self._read, same_maps, _READERS, 2 * _READERS)
        numbered = enumerate(work for several in read for work in several)
        batches = runs(numbered, self._alike, self._batch_size)
        try:
            for images in in_order(self._compute, batches, self._cores.number, self._cores.number + 2):
                yield from cast("list[Generated[AnyRequest]]", images)
        finally:
            if self._on_cpu:
                torch.set_num_threads(self._cores.number)  # new threads would get the number that was set last

    def _checked(self, requests: Iterable[ImageRequest]) -> Iterator[ImageRequest]:
        for request in requests:
            self._pipeline.check(request.seed, request.variant)
            yield request

    @torch.no_grad()
    def _read(self, requests: Sequence[ImageRequest]) -> list[Work]:
        """Read the maps that requests share, on the CPU, where their checks wait for no GPU."""
        first, pipeline = requests[0], self._pipeline
        maps = read_maps(first.source, first.instance, pipeline.config, torch.device("cpu"), pipeline.input_depth)
        if maps.size[0] > 1:
            raise DataError(f"{maps.name} is a batch of {maps.size[0]}: give a request for each map")
        if pipeline.config.feature_channels:
            _ = maps.index, maps.classes  # found on the CPU, and kept
        return [(request, maps) for request in requests]

    def _alike(self, numbered: tuple[int, Work]) -> object:
        """What the requests of a batch have in common.

        The first batch_size of all requests may share a batch, then the next, and so on. Processes that share such
        blocks therefore form the batches that one process forms.
        """
        number, (request, maps) = numbered
        shapes = [None if part is None else (part.shape, part.dtype) for part in (maps.label, maps.image, maps.ids)]
        variant = 0 if self._pipeline.config.variants is None else request.variant
        return number // self._batch_size, shapes, request.seed is None, variant

    def _compute(self, numbered: Sequence[tuple[int, Work]]) -> list[Generated]:
        """The images of a batch, on its share of the cores."""
        batch = [work for _, work in numbered]
        if not self._on_cpu:
            torch.cuda.set_device(self._pipeline.device)
            return self._images(batch)
        threads = threads_for(sum(maps.pixels for _, maps in batch), self._cores.number)
        with self._cores.taken(threads):
            if torch.get_num_threads() != threads:
                torch.set_num_threads(threads)  # of this thread
            return self._images(batch)

    @torch.no_grad()
    def _images(self, batch: Sequence[Work]) -> list[Generated]:
        pipeline, found, given = self._pipeline, [], []
        with pipeline.autocast(), self._noise([request for request, _ in batch]):
            for request, read in batch:
                maps = read.on(pipeline.device)
                styles = request.styles(maps) if callable(request.styles) else request.styles
                replaced = callable(request.styles) and styles is not None
                given.append(pipeline.given(maps, None if replaced else request.photo, styles))
                found.append((request, maps, styles))
            images = pipeline.image_of(_joined(given), batch[0][0].variant)
        return [Generated(*one, image) for one, image in zip(found, images, strict=True)]

    def _noise(self, requests: Sequence[ImageRequest]) -> AbstractContextManager[None]:
        """Draw for each request what a call draws for it."""
        keys = [(request.seed, request.variant) for request in requests if request.seed is not None]
        if not keys:
            return nullcontext()
        device = self._pipeline.device
        if not self._on_cpu and len(keys) == 1:
            return seeded(device, *keys[0])  # PyTorch's own generator, which CUDA graphs know
        return drawing_from(ImageDraws([seeded_generator(device, *key) for key in keys]))


def threads_for(pixels: int, cores: int) -> int:
    """How many cores of a CPU compute a batch, so that at most `SIDE_BY_SIDE` pixels are computed at once.

    Args:
        pixels: of all images of the batch.
        cores: of the CPU.
    """
    return cores // max(1, min(cores, SIDE_BY_SIDE // pixels))


def _joined(given: Sequence[tuple[Tensor | None, ...]]) -> tuple[Tensor | None, ...]:
    """The tensors of single maps as those of a batch."""
    if len(given) == 1:
        return given[0]
    columns = ([part for part in parts if part is not None] for parts in zip(*given, strict=True))
    return tuple(torch.cat(parts) if parts else None for parts in columns)
