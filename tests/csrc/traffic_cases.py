"""The calls whose traffic is counted: every op, in every memory format, at shapes that stand for real ones."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from hdgan import ops

LAYOUTS = {"nchw": torch.contiguous_format, "nhwc": torch.channels_last}
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}  # float16 is moved like bfloat16


@dataclass(frozen=True)
class Case:
    """Calls of one op; `run` makes the forward and, if there is one, the backward call."""

    op: str
    variant: str
    layout: str
    dtype: str
    run: Callable[[], None]

    def __str__(self) -> str:
        return "-".join(part for part in (self.op, self.variant, self.layout, self.dtype) if part)


def image(layout: str, dtype: str, channels: int, height: int, width: int) -> Tensor:
    x = torch.randn(1, channels, height, width).to(DTYPES[dtype])
    return x.contiguous(memory_format=LAYOUTS[layout]).requires_grad_()


def street(height: int, width: int, regions: int) -> Tensor:
    """Ids [1, H, W] int32 of regions like those of a photo: each pixel is that of the nearest of some points."""
    points = torch.rand(regions, 2) * torch.tensor([height, width])
    grid = torch.stack(torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij"), -1).float()
    return torch.cdist(grid.view(1, -1, 2), points[None]).argmin(-1).view(1, height, width).int()


def norm(layout: str, dtype: str, channels: int, height: int, width: int, pad: int, residual: bool) -> None:
    x = image(layout, dtype, channels, height, width)
    added = image(layout, dtype, channels, height + 2, width + 2) if residual else None
    y = ops.instance_norm_act(x, residual=added, activation="relu", pad=pad, backend="cuda")
    y.backward(torch.randn_like(y))


def pyramid(layout: str, dtype: str, channels: int, height: int, width: int) -> None:
    _, half, quarter = ops.avg_pyramid(image(layout, dtype, channels, height, width), 2, backend="cuda")
    torch.autograd.backward([half, quarter], [torch.randn_like(half), torch.randn_like(quarter)])


def encode(layout: str, dtype: str) -> None:
    label, ids = torch.randint(0, 35, (1, 128, 256)).to(torch.uint8), street(128, 256, 40)
    ops.encode_labels(label, ids, 35, dtype=DTYPES[dtype], memory_format=LAYOUTS[layout], backend="cuda")


def codes() -> None:
    ops.label_planes(street(128, 256, 40) % 35, street(128, 256, 40), 35, backend="cuda")


def index() -> None:
    ops.instance_index(street(256, 256, 40), backend="cuda")


def mean(layout: str, dtype: str, regions: int, deterministic: bool) -> None:
    index = ops.instance_index(street(256, 512, regions), backend="eager")
    torch.use_deterministic_algorithms(deterministic)
    try:
        ops.instance_mean(image(layout, dtype, 3, 256, 512), index, backend="cuda").sum().backward()
    finally:
        torch.use_deterministic_algorithms(False)


def conv(layout: str, dtype: str, levels: int) -> None:
    ids = street(128, 256, 40)
    weight = torch.randn(32, 36, 7, 7).to(DTYPES[dtype]).contiguous(memory_format=LAYOUTS[layout]).requires_grad_()
    y = ops.label_conv2d(ids % 35, ids, weight, padding=3, levels=levels, backend="cuda")
    y.backward(torch.randn_like(y))


def distance(dtype: str) -> None:
    x, target = (image("nchw", dtype, 64, 128, 128) for _ in range(2))
    ops.l1_distance(x, target.detach(), backend="cuda").backward()


def norm_cases(layout: str, dtype: str) -> Iterator[tuple[str, Callable[[], None]]]:
    """Planes of 1/33 of the real height, but those that a block holds whole: of these there are fewer instead."""
    channels = 32 if layout == "nhwc" else 12
    yield "32x1024x2048", lambda: norm(layout, dtype, channels, 32, 2048, 0, False)
    yield "32x1024x2048-pad3", lambda: norm(layout, dtype, channels, 32, 2048, 3, False)
    yield "64x512x1024-pad1-residual", lambda: norm(layout, dtype, 2 * channels, 16, 1024, 1, True)
    yield "1024x32x64-pad1-residual", lambda: norm(layout, dtype, 2 * channels, 32, 64, 1, True)
    yield "64x513x1025", lambda: norm(layout, dtype, 2 * channels, 17, 1025, 0, False)


def cases() -> Iterator[Case]:
    for layout in LAYOUTS:
        for dtype in DTYPES:

            def of(op: str, variant: str, run: Callable[..., None], *arguments: object, at: tuple[str, str]) -> Case:
                return Case(op, variant, *at, lambda: run(*at, *arguments))

            here = layout, dtype
            for variant, run in norm_cases(*here):
                yield Case("instance_norm_act", variant, *here, run)
            channels = 39 if layout == "nhwc" else 8
            yield of("avg_pyramid", "39x1024x2048", pyramid, channels, 16, 2048, at=here)
            yield of("encode_labels", "36x1024x2048", encode, at=here)
            yield of("instance_mean", "3x1024x2048", mean, 60, False, at=here)
            yield of("instance_mean", "3x1024x2048-ordered", mean, 60, True, at=here)
            yield of("label_conv2d", "32x1024x2048", conv, 0, at=here)
            yield of("label_conv2d", "32x512x1024-pooled", conv, 1, at=here)
    yield Case("encode_labels", "codes", "", "", codes)
    yield Case("instance_index", "1024x2048", "", "", index)
    for dtype in DTYPES:
        yield Case("l1_distance", "", "", dtype, partial(distance, dtype))
