"""Reading, cropping and batching images from disk: the built-in scenes, which are first written as PNG files."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from hdgan.benchmarks.runner import Benchmark, Context, Cost, Trial, Where
from hdgan.data import DataConfig, PairedDataset, ScenesConfig, SizeConfig, find_pairs, make_loader
from hdgan.scenes import SPEC, ensure_scenes

PICTURES = 8
CASES: dict[str, Where] = {
    f"{size}, {workers} workers": "anywhere" for size in ("512x256", "1024x512") for workers in (0, 2)
}


def setup(case: str, context: Context) -> Iterator[Trial]:
    size, workers = case.split(", ")
    width, height = (int(side) for side in size.split("x"))
    with tempfile.TemporaryDirectory() as cache:
        root = ensure_scenes(ScenesConfig(width=width, height=height, train=PICTURES, test=1), Path(cache))
        config = DataConfig(root=root)
        pairs = find_pairs(config, "train", True).pairs
        dataset = PairedDataset(pairs, config, SizeConfig(width=width), SPEC.n_labels)
        # All images in order, several times, so that the start of the workers is spread over many of them.
        passes = 4 if workers.startswith("0") else 8

        def load() -> list[Tensor]:
            loader = make_loader(dataset, stop=passes * PICTURES, shuffle=False, workers=int(workers.split()[0]))
            return [batch["photo"][0] for batch in loader]

        def truth() -> list[Tensor]:
            photos = []
            for pair in pairs:
                assert pair.photo is not None
                with Image.open(pair.photo) as image:
                    photos.append(torch.from_numpy(np.array(image)).permute(2, 0, 1))
            return photos * passes

        read = sum(path.stat().st_size for pair in pairs for path in pair.files.values())
        yield Trial("hdgan", "forward", load, truth, Cost(read * passes, 0), 0.0, per_call=passes * PICTURES)


BENCHMARK = Benchmark("data_loading", CASES, setup, ("hdgan",), layouts=False, dtypes=False, clock="call")
