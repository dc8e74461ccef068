"""The demo model's image of a street scene: all of it, with its features kept, and what a small edit changes."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from hdgan.benchmarks.runner import TOLERANCE, Benchmark, CheckFailed, Context, Cost, Trial, Where
from hdgan.data import DataConfig, ScenesConfig, find_pairs
from hdgan.inference import load
from hdgan.inference.preview import Preview, Region
from hdgan.scenes import ensure_scenes

WIDTH, HEIGHT = 1024, 512
SIDE = 102
"""Pixels of the edited square, 2 % of the image."""
LABEL, NEW_ID = 5, 10**6
WHOLE, RECORDED, EDITED = (f"{WIDTH}x{HEIGHT}, {what}" for what in ("whole", "whole, recorded", "edit of 2 %"))
CASES: dict[str, Where] = dict.fromkeys((WHOLE, RECORDED, EDITED), "anywhere")


def setup(case: str, context: Context) -> Iterator[Trial]:
    if context.dtype != torch.float32:
        raise CheckFailed("the preview is measured in float32")
    pipeline = load("demo", device=str(context.device))
    label, ids = _scene()
    top, left = (HEIGHT - SIDE) // 2, (WIDTH - SIDE) // 2
    edited = label.clone(), ids.clone()
    for values, new in zip(edited, (LABEL, NEW_ID), strict=True):
        values[top : top + SIDE, left : left + SIDE] = new
    preview, of_all = Preview(pipeline), Preview(pipeline, margin=WIDTH)
    if case == EDITED:
        preview.record(label, ids, seed=0)
        of_all.record(label, ids, seed=0)

    def regions(preview: Preview) -> list[Region]:
        edit = preview.edit(*edited)
        assert edit is not None
        return edit.regions()

    def call() -> list[Tensor]:
        if case == EDITED:
            return [region.pixels for region in regions(preview)]
        return [(pipeline if case == WHOLE else preview.record)(label, ids, seed=0)]

    def truth() -> list[Tensor]:
        if case != EDITED:
            return [pipeline(label, ids, seed=0)]
        (whole,) = regions(of_all)  # with the same statistics
        return [whole.pixels[:, slice(*box.rows), slice(*box.columns)] for box, _ in regions(preview)]

    yield Trial("hdgan", "forward", call, truth, Cost(0, 0), TOLERANCE[torch.float32])


def _scene() -> tuple[Tensor, Tensor]:
    """Label and instance map, [H, W] int64."""
    with tempfile.TemporaryDirectory() as cache:
        root = ensure_scenes(ScenesConfig(width=WIDTH, height=HEIGHT, train=1, test=1), Path(cache))
        arrays = find_pairs(DataConfig(root=root), "train", True).pairs[0].read()
    return torch.tensor(arrays["label"]).long(), torch.tensor(arrays["ids"]).long()


BENCHMARK = Benchmark("preview", CASES, setup, ("hdgan",), layouts=False, dtypes=False, clock="call")
