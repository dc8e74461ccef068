"""instance_norm_act: instance norm, activation, residual add and padding for the next convolution.

Where planes are small or many, one program does all for its planes. Where they are few and large, programs share a
plane in chunks: partial results go to scratch, are merged in a fixed order, and another launch makes the output.

The kernels are in the modules of the same name beside this one. How their programs go through an image, `PLACES`, is

- flat: without padding, a plane is one row of pixels.
- rows: channels_last images, row by row, because the channels of a pixel are adjacent whatever its place.
- wide: contiguous images with large rows, which padding moves off the places that 16 bytes can be read from. Whole
  groups of 16 bytes are made of two; what is left at both ends of the rows is made pixel by pixel.
- gather: other contiguous images, pixel by pixel.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any

import torch
import triton
from torch import Tensor

from hdgan.kernels import common
from hdgan.kernels._instance_norm_act_bwd import instance_norm_act_bwd_kernel
from hdgan.kernels._instance_norm_act_fwd import (
    instance_norm_act_fwd_kernel,
    instance_norm_act_merge_stats_kernel,
    instance_norm_act_stats_kernel,
)

LOADS_FORWARD = 4  # of 16 bytes by a thread from one image at a time
LOADS_BACKWARD = 2
CHANNELS = 64  # of a tile at most, in channels_last images
HELD = 2**16  # bytes of 16 channels of bfloat16 at most, for one program to do all in channels_last images
CHUNKS = 1024  # of a plane at most
SPARE_CHUNKS = 49152  # of all planes together at most, beyond one for each
PROGRAMS = 8  # of a multiprocessor
MERGED = 2048  # partial results of one program at most
WIDE = 128  # elements of a row at least, to be read by groups
GROUPS = 256  # of 16 bytes at a time
GATHERED = 512  # pixels at a time, at the ends of rows or in small planes
LARGE = 1024  # pixels of a plane at least that has a tile for itself
STREAMED = 2**25  # bytes of an image at least, of which the second cache holds but a part

Layout = tuple[torch.Size, tuple[int, ...], torch.dtype, int]
Launch = tuple[tuple[int], tuple[Any, ...], dict[str, Any]]  # grid, numbers, constants


@dataclass(frozen=True)
class _Tiles:
    """How the planes of an image are shared out."""

    batch: int
    channels: int
    height: int
    width: int
    channels_last: bool
    itemsize: int
    processors: int
    loads: int  # of 16 bytes by a thread from one image at a time

    @property
    def planes(self) -> int:
        return self.batch * self.channels

    @property
    def pixels(self) -> int:
        return self.height * self.width

    @property
    def pixel_stride(self) -> int:
        """Elements from one pixel to the next."""
        return self.channels if self.channels_last else 1

    @property
    def vector(self) -> int:
        """Elements of 16 bytes."""
        return 16 // self.itemsize

    @property
    def held(self) -> bool:
        """Whether the planes of channels_last images are so small that one program does all for a few of them."""
        return self.channels_last and self.pixels * 32 <= HELD

    @property
    def warps(self) -> int:
        return 8 if self.held else 4

    @cached_property
    def tile(self) -> dict[str, Any]:
        """What the kernels know of a tile."""
        elements = self.warps * 32 * self.vector * self.loads
        if self.channels_last:
            block_planes = common.block_of(self.channels, self.vector if self.held else CHANNELS)
            block_pixels = common.block_of(self.pixels, elements // block_planes)
            whole = self.channels % block_planes == 0
        else:
            block_pixels = common.block_of(self.pixels, elements)
            # Planes that share a tile begin anywhere: few accesses are wide, and many at once take registers.
            most = 1 if self.pixels >= LARGE else elements // self.loads // block_pixels
            block_planes = common.block_of(self.planes, max(most, 1))
            whole = self.planes % block_planes == 0
        leads = not self.channels_last and block_planes == 1 and self.pixels % 8 > 0
        fold = min(max(block_pixels * block_planes * self.loads // elements, 1), block_pixels)
        return {
            "CHANNELS_LAST": self.channels_last, "WHOLE": whole, "LEADS": leads, "BLOCK_PIXELS": block_pixels,
            "BLOCK_PLANES": block_planes, "FOLD": fold, "num_warps": self.warps, **common.OPTIONS,
        }  # fmt: skip

    @cached_property
    def groups(self) -> int:
        """Of as many planes as a tile has."""
        if self.channels_last:
            return self.batch * common.parts(self.channels, self.tile["BLOCK_PLANES"])
        return common.parts(self.planes, self.tile["BLOCK_PLANES"])

    @property
    def flat(self) -> int:
        """Tiles of planes as rows of pixels; a plane that is alone in its tile may begin in the middle of one."""
        return common.parts(self.pixels + 7 * self.tile["LEADS"], self.tile["BLOCK_PIXELS"])

    @property
    def alone(self) -> bool:
        """Whether one program does all for its planes."""
        return self.held or self.flat <= 2 or self.groups > 3 * self.processors

    def share(self, units: int, most: int = 2**31) -> tuple[int, int]:
        """Chunks of so many units of every group, and the units of a chunk."""
        if self.alone:
            return 1, units
        each = common.parts(units, max(1, min(units, most, PROGRAMS * self.processors // self.groups)))
        return common.parts(units, each), each

    def is_wide(self, pad: int) -> bool:
        """Whether padded rows may be read by groups of 16 bytes, if the images begin at a multiple of them."""
        size = self.planes * self.pixels, self.planes * (self.height + 2 * pad) * (self.width + 2 * pad)
        alone = not self.channels_last and self.tile["BLOCK_PLANES"] == 1
        return alone and self.width >= max(WIDE, 4 * (pad + 8)) and size[0] % 8 == 0 and size[1] % 8 == 0

    def fills_rows(self, pad: int) -> bool:
        """Whether rows, padded or not, have little less pixels than the tiles that they are made of."""
        block = self.tile["BLOCK_PIXELS"]
        return all(width * 5 >= common.parts(width, block) * block * 4 for width in (self.width, self.width + 2 * pad))

    def units(self, places: str, pad: int) -> tuple[int, int]:
        """Tiles of the image padded by `pad`, or its rows where they are wide; and tiles of a row."""
        height, width = self.height + 2 * pad, self.width + 2 * pad
        if places == "flat":
            return self.flat, 1
        if places == "wide":
            return height, 1
        if places == "rows":
            across = common.parts(width, self.tile["BLOCK_PIXELS"])
            return across * height, across
        return common.parts(height * width, self.gathered), 1

    @property
    def gathered(self) -> int:
        """Pixels that are gathered at a time."""
        most = GATHERED
        if self.channels_last:  # 16 bytes by each thread
            most = self.warps * 32 * self.vector // self.tile["BLOCK_PLANES"]
        return min(self.tile["BLOCK_PIXELS"], most)

    def places(self, pad: int, residual: tuple[int, ...] | None = None) -> dict[str, Any]:
        """What kernels must know of padded places, and of a residual with these strides."""
        elements = (self.height + 2 * pad) * (self.width + 2 * pad) * self.pixel_stride
        if residual is not None:
            elements = max(elements, self.height * residual[2] + self.width * residual[3])
        return {
            "BLOCK_GROUPS": common.block_of(max(self.width // self.vector, 1), GROUPS),
            "BLOCK_EDGE": self.gathered, "LARGE": elements >= 2**31,
        }  # fmt: skip


@cache
def _tiling(layout: Layout, loads: int) -> _Tiles:
    (batch, channels, height, width), stride, dtype, processors = layout
    channels_last = common.is_channels_last_of(layout[0], stride)
    return _Tiles(batch, channels, height, width, channels_last, dtype.itemsize, processors, loads)


def _layout(x: Tensor) -> Layout:
    """What plans depend on."""
    return x.shape, x.stride(), x.dtype, common.processors(x)


def _most_chunks(planes: int) -> int:
    return min(CHUNKS, 1 + SPARE_CHUNKS // planes)


def _options(slope: float, pad: int, pad_mode: str) -> dict[str, Any]:
    activation = "none" if slope == 1 else "relu" if slope == 0 else "leaky_relu"
    return {"ACTIVATION": activation, "PAD_MODE": pad_mode if pad else "none"}


def _places(tiling: _Tiles, pad: int, dense: bool, aligned: bool) -> str:
    """How programs go through the image, given whether the residual lies as x does and all begin at 16 bytes."""
    if pad == 0 and dense:
        return "flat"
    if tiling.channels_last:
        return "rows" if tiling.fills_rows(pad) else "gather"
    return "wide" if dense and aligned and tiling.is_wide(pad) else "gather"


@dataclass(frozen=True)
class _Forward:
    """The launches of the forward pass."""

    make: Launch
    chunks: int
    stats: Launch | None
    merge: Launch | None


@cache
def _forward(
    layout: Layout, residual: tuple[int, ...] | None, aligned: bool, slope: float, eps: float, pad: int, pad_mode: str
) -> _Forward:
    """The plan for an x, with the strides of the residual."""
    t = _tiling(layout, LOADS_FORWARD)
    places = _places(t, pad, residual is None or residual == layout[1], aligned)
    units, across = t.units(places, pad)
    programs, tiles = t.share(units)
    streamed = not t.alone and t.planes * t.pixels * t.itemsize >= STREAMED
    numbers = (
        t.planes, t.channels, t.height, t.width, t.pixel_stride, *(residual or (0, 0, 0, 0)), t.groups, tiles, across,
        slope, eps, pad,
    )  # fmt: skip
    constants = {
        "STATISTICS": t.alone, "PLACES": places, "CACHE": ".cs" if streamed else "", **_options(slope, pad, pad_mode),
        **t.tile, **t.places(pad, residual),
    }  # fmt: skip
    if t.held:
        constants["maxnreg"] = 128  # Few programs are there at a time, but ptxas would spill on sm_120.
    if t.tile["BLOCK_PLANES"] > 1 and not t.channels_last:
        constants["maxnreg"] = 64  # Unasked, ptxas of Triton 3.7 spills on sm_100 rather than use more than 56.
    make = (t.groups * programs,), numbers, constants
    if t.alone:
        return _Forward(make, 1, None, None)
    chunks, tiles = t.share(t.flat, _most_chunks(t.planes))
    numbers = t.planes, t.channels, t.pixels, t.pixel_stride
    stats = (t.groups * chunks,), (*numbers, t.groups, chunks, tiles), t.tile
    block_chunks = triton.next_power_of_2(chunks)
    block_planes = common.block_of(t.planes, max(MERGED // block_chunks, 1))
    constants = {"CHANNELS_LAST": t.channels_last, "BLOCK_CHUNKS": block_chunks, "BLOCK_PLANES": block_planes}
    merge = (
        (common.parts(t.planes, block_planes),),
        (*numbers, chunks, tiles * t.tile["BLOCK_PIXELS"], eps),
        constants | common.OPTIONS,
    )
    return _Forward(make, chunks, stats, merge)


@dataclass(frozen=True)
class _Backward:
    """The launches of the backward pass: `make` does all where there are no sums."""

    make: Launch
    chunks: int
    sums: Launch | None


@cache
def _backward(layout: Layout, aligned: bool, slope: float, pad: int, pad_mode: str) -> _Backward:
    """The plan for an x."""
    t = _tiling(layout, LOADS_BACKWARD)
    places = _places(t, pad, True, aligned)
    (sum_units, sum_across), (units, across) = t.units(places, pad), t.units(places, 0)
    chunks, sum_tiles = t.share(sum_units, _most_chunks(t.planes))
    programs, tiles = t.share(units)
    sizes = t.planes, t.channels, t.height, t.width, t.pixel_stride, t.groups
    shares = sum_tiles, sum_across, tiles, across, slope, pad
    constants = {"PLACES": places, **_options(slope, pad, pad_mode), **t.tile, **t.places(pad)}
    if places == "rows":
        constants["maxnreg"] = 128  # Unasked, ptxas spills on sm_80 rather than use more than 80 registers,
    if places == "flat" and t.tile["LEADS"]:
        constants["maxnreg"] = 96  # and on sm_90 rather than use more than 56.
    make = (t.groups * programs,), (*sizes, 1, *shares), constants | {"SUMS": t.alone, "GRADIENT": True}
    if t.alone:
        return _Backward(make, 1, None)
    sums = (t.groups * chunks,), (*sizes, chunks, *shares), constants | {"SUMS": True, "GRADIENT": False}
    return _Backward(make, chunks, sums)


def instance_norm_act_scratch(x: Tensor) -> int:
    """Elements of scratch that either direction needs at most: two numbers of each chunk."""
    planes = x.shape[0] * x.shape[1]
    return 2 * planes * _most_chunks(planes)


def instance_norm_act_fwd(
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    residual: Tensor | None,
    y: Tensor,
    mean: Tensor,
    rstd: Tensor,
    scratch: Tensor,
    slope: float,
    eps: float,
    pad: int,
    pad_mode: str,
) -> None:
    """x [B, C, H, W] -> y [B, C, H + 2 pad, W + 2 pad], mean and rstd [B, C]."""
    strides = None if residual is None else residual.stride()
    aligned = (x.data_ptr() | (0 if residual is None else residual.data_ptr())) % 16 == 0
    plan = _forward(_layout(x), strides, aligned, slope, eps, pad, pad_mode)
    if plan.stats is not None and plan.merge is not None:
        grid, numbers, constants = plan.stats
        instance_norm_act_stats_kernel[grid](x, scratch, *numbers, **constants)
        grid, numbers, constants = plan.merge
        instance_norm_act_merge_stats_kernel[grid](x, scratch, mean, rstd, *numbers, **constants)
    grid, numbers, constants = plan.make
    instance_norm_act_fwd_kernel[grid](x, weight, bias, residual, y, mean, rstd, *numbers, **constants)


def instance_norm_act_bwd(
    dy: Tensor,
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    mean: Tensor,
    rstd: Tensor,
    dx: Tensor,
    dresidual: Tensor | None,
    sums: Tensor,
    scratch: Tensor,
    slope: float,
    pad: int,
    pad_mode: str,
) -> None:
    """dy [B, C, H + 2 pad, W + 2 pad] -> dx and dresidual [B, C, H, W], sums [2, B, C] of dz and of dz xhat."""
    plan = _backward(_layout(x), (x.data_ptr() | dy.data_ptr()) % 16 == 0, slope, pad, pad_mode)
    if plan.sums is not None:
        grid, numbers, constants = plan.sums
        partial = scratch[: plan.chunks * sums.numel()]
        instance_norm_act_bwd_kernel[grid](dy, x, weight, bias, mean, rstd, None, None, partial, *numbers, **constants)
        torch.sum(partial.view(2, plan.chunks, -1), 1, out=sums.view(2, -1))
    grid, numbers, constants = plan.make
    instance_norm_act_bwd_kernel[grid](dy, x, weight, bias, mean, rstd, dx, dresidual, sums, *numbers, **constants)
