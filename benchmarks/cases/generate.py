"""Images of a folder of maps by the model `demo`, from files to files: one call after the other, and the engine."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from hdgan.benchmarks.runner import Benchmark, Context, Cost, Trial, Where
from hdgan.data import Pair, ScenesConfig
from hdgan.data.images import from_unit_range
from hdgan.files.images import save_image
from hdgan.inference import ImageRequest, load
from hdgan.scenes import held_out_pairs, write_held_out

CALLS, ENGINE, BATCHES = "calls", "engine", "engine, batches of 8"
IMAGES = {"64x32": 64, "256x128": 32, "1024x512": 4}
CASES: dict[str, Where] = {f"{size}, {way}": "anywhere" for size in IMAGES for way in (CALLS, ENGINE, BATCHES)}
ROUNDED = 0.02
"""Most that images of batches may differ by rounding, which is relative to their norm."""


def setup(case: str, context: Context) -> Iterator[Trial]:
    size, way = case.split(", ", 1)
    width, height = (int(side) for side in size.split("x"))
    config = ScenesConfig(width=width, height=height, test=IMAGES[size])
    pipeline = load("demo", device=str(context.device))
    with tempfile.TemporaryDirectory() as folder:
        write_held_out(config, Path(folder))
        pairs = held_out_pairs(config, Path(folder))

        def write(image: Tensor, number: int) -> None:
            save_image(from_unit_range(image * 2 - 1, "uint8"), Path(folder) / f"{number}.png")

        def one_by_one() -> list[Tensor]:
            for number, pair in enumerate(pairs):
                write(pipeline(*_maps(pair), seed=0), number)
            return []

        def streamed() -> list[Tensor]:
            requests = (ImageRequest(*_maps(pair), seed=0) for pair in pairs)
            for number, made in enumerate(pipeline.stream(requests, batch_size=8 if way == BATCHES else 1)):
                write(made.image, number)
            return []

        def written() -> list[Tensor]:
            call()
            paths = (Path(folder) / f"{number}.png" for number in range(len(pairs)))
            return [torch.from_numpy(np.array(Image.open(path))).permute(2, 0, 1) / 255 for path in paths]

        def truth() -> list[Tensor]:
            return [(pipeline(*_maps(pair), seed=0).cpu() * 255).round() / 255 for pair in pairs]

        call = one_by_one if way == CALLS else streamed
        read = sum(path.stat().st_size for pair in pairs for path in pair.files.values())
        yield Trial("hdgan", "forward", call, truth, Cost(read, 0), ROUNDED, per_call=len(pairs), found=written)


def _maps(pair: Pair) -> tuple[Path, Path]:
    assert pair.label is not None
    assert pair.ids is not None
    return pair.label, pair.ids


BENCHMARK = Benchmark("generate", CASES, setup, ("hdgan",), layouts=False, dtypes=False, clock="call")
