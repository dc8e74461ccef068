"""label_conv2d: sums of rows of a table; see hdgan/ops/label_conv2d.py.

A program makes a tile of the result. Most tiles see one code and no other: their pixels are one row of the table's sum
over the taps. The others are made in one of two ways.

- Where the planes are convolved as they are, every tap of a pixel adds a row of the table. What this costs does not
  depend on the number of classes. A second look at the codes could spare the pixels of a tile that see one code their
  additions, but it would take as many instructions as it saves, so tiles are small instead.
- Where the planes are pooled first, and in the gradient of the table, the classes that a tile sees are taken one after
  the other; there are few. The values of one class under all taps of all pixels are a matrix. Its product with the
  table's rows of that class adds to the result, and its product with the gradient of the tile's pixels adds to the
  gradient of those rows. Tensor cores multiply in TF32: a number that TF32 does not hold is split in two, of whose
  products only that of both lower parts is left out, and sums are in float32.

A program owns one row of the gradient, for all taps, in one share of the tiles; the shares are added in a fixed order.

The kernels are in the modules of the same name beside this one.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
import triton
from torch import Tensor

from hdgan.kernels import common
from hdgan.kernels._label_conv2d_bwd import label_conv2d_bwd_kernel
from hdgan.kernels._label_conv2d_fwd import (
    label_conv2d_fwd_kernel,
    label_conv2d_fwd_pooled_kernel,
    label_conv2d_rows_kernel,
)
from hdgan.kernels._label_conv2d_tiles import label_conv2d_present_kernel

PIXELS = 32  # of a tile whose rows are added
TILE = 8  # pixels on each side of a tile whose matrices are multiplied
CHANNELS = 32  # of a program at most
TAPS = 64  # of a matrix at most
FLAGS = 32  # tiles whose gradients are added up together
PROGRAMS = 16  # for each multiprocessor


@dataclass(frozen=True)
class _Tiling:
    """How a convolution is shared out among programs whose tiles have TILE pixels on each side."""

    tiles: int  # of all images
    chunks: int  # shares of the tiles in the gradient
    programs: tuple[int, int]  # forward and backward
    tile: dict[str, Any]  # what kernels must know of a tile
    matrix: dict[str, Any]  # and what else of its matrices
    flags: int  # bytes: a row of the table in a tile

    @property
    def chunk_tiles(self) -> int:
        return common.parts(self.tiles, self.chunks)

    def split(self, scratch: Tensor, sums: int, programs: int) -> tuple[Tensor, Tensor, Tensor]:
        """Scratch as room for sums, for the window of each program, and for flags, which are cleared."""
        windows = sums + programs * 2 * self.matrix["BLOCK_WINDOW"]
        flags = scratch[windows:].view(torch.int8)[: self.flags]
        return scratch[:sums], scratch[sums:windows], flags.zero_()

    def scratch(self, sums: int, programs: int) -> int:
        """Elements of float32 that `split` takes."""
        return sums + programs * 2 * self.matrix["BLOCK_WINDOW"] + common.parts(self.flags, 4)


def _options(side: int, stride: int, padding: int, pad_mode: str) -> dict[str, Any]:
    """What all kernels are compiled for. Without padding the mode does not matter."""
    return {"SIDE": side, "STRIDE": stride, "PAD_MODE": pad_mode if padding else "replicate"}


def _side(taps: int) -> int:
    return int(taps**0.5 + 0.5)


def _strides(y: torch.Size, channels_last: bool) -> dict[str, int]:
    """Elements from one pixel to the next, and from one channel to the next."""
    if channels_last:
        return {"pixel_stride": y[1], "channel_stride": 1}
    return {"pixel_stride": 1, "channel_stride": y[2] * y[3]}


def _plan(
    codes: Tensor, table: Tensor, y: Tensor, pool_y: Tensor | None, pool_x: Tensor | None,
    n_labels: int, stride: int, padding: int, pad_mode: str,
) -> _Tiling:  # fmt: skip
    pools = None if pool_y is None or pool_x is None else (*pool_y.shape, pool_x.shape[0])
    options = n_labels, stride, padding, pad_mode
    return _tiling(codes.shape, table.shape, y.shape, common.is_channels_last(y), pools, common.processors(y), *options)


@cache
def _tiling(
    codes: torch.Size, table: torch.Size, y: torch.Size, channels_last: bool, pools: tuple[int, int, int] | None,
    processors: int, n_labels: int, stride: int, padding: int, pad_mode: str,
) -> _Tiling:  # fmt: skip
    """The plan for tensors of these shapes; `pools` are the height of the pooled planes, their span and their width."""
    (batch, channels, out_height, out_width), (_, height, width) = y, codes
    side, (taps, rows, _) = _side(table[0]), table
    down, across = common.parts(out_height, TILE), common.parts(out_width, TILE)
    tiles = batch * down * across
    plane_height, span, plane_width = pools or (height, 1, width)
    step, before = ((span + 1) // 2, (span - 1) // 2) if span % 2 else (span, 0)
    window = (TILE - 1) * stride + side
    tile = {
        "height": height, "width": width,
        "plane_height": plane_height, "plane_width": plane_width,
        "out_height": out_height, "out_width": out_width, "n_labels": n_labels, "padding": padding,
        "span": span, "step": step, "before": before, "down": down, "across": across,
        "TILE": TILE, **_options(side, stride, padding, pad_mode),
    }  # fmt: skip
    blocks = {
        "WINDOW": window,
        "BLOCK_WINDOW": triton.next_power_of_2(window * window),
        # Tensor cores multiply no fewer rows and columns than 16.
        "BLOCK_TAPS": max(16, common.block_of(taps, TAPS)),
        "BLOCK_CHANNELS": max(16, common.block_of(channels, CHANNELS)),
    }
    groups = common.parts(channels, blocks["BLOCK_CHANNELS"])
    parts = groups * common.parts(taps, blocks["BLOCK_TAPS"])
    workers = PROGRAMS * processors
    chunks = max(1, min(tiles, workers // (rows * parts)))
    matrix = {"n_rows": rows, "channels": channels, "groups": groups, **_strides(y, channels_last), **blocks}
    flags = rows * chunks * common.parts(tiles, chunks)
    return _Tiling(tiles, chunks, (min(tiles, workers) * groups, rows * chunks * parts), tile, matrix, flags)


def _mark_present(
    tiling: _Tiling, codes: Tensor, flags: Tensor, chunks: int, tile_stride: int, row_stride: int
) -> None:
    block = common.block_of((tiling.matrix["WINDOW"] - 1) * tiling.tile["step"] + tiling.tile["span"], 32)
    label_conv2d_present_kernel[(tiling.tiles,)](
        codes, flags, chunks=chunks, chunk_tiles=common.parts(tiling.tiles, chunks), tile_stride=tile_stride,
        row_stride=row_stride, BLOCK=block, **tiling.tile, num_warps=max(1, block * block // 256), **common.OPTIONS,
    )  # fmt: skip


def _codes(table: Tensor, n_labels: int) -> int:
    """How many codes there are: with and without boundary if the table has a row for it."""
    return (n_labels + 1) * (1 + table.shape[1] - n_labels)


def label_conv2d_fwd_scratch(
    codes: Tensor,
    table: Tensor,
    y: Tensor,
    pool_y: Tensor | None,
    pool_x: Tensor | None,
    n_labels: int,
    stride: int,
    padding: int,
    pad_mode: str,
) -> int:
    taps, rows, channels = table.shape
    if pool_y is None:
        return (taps + 1) * _codes(table, n_labels) * channels
    tiling = _plan(codes, table, y, pool_y, pool_x, n_labels, stride, padding, pad_mode)
    return tiling.scratch(rows * channels, tiling.programs[0])


def label_conv2d_bwd_scratch(
    codes: Tensor,
    dtable: Tensor,
    dy: Tensor,
    pool_y: Tensor | None,
    pool_x: Tensor | None,
    n_labels: int,
    stride: int,
    padding: int,
    pad_mode: str,
) -> int:
    tiling = _plan(codes, dtable, dy, pool_y, pool_x, n_labels, stride, padding, pad_mode)
    return tiling.scratch(tiling.chunks * dtable.numel(), tiling.programs[1])


def label_conv2d_fwd(
    codes: Tensor,  # [B, H, W]
    table: Tensor,  # [k * k, n (+ 1), C]
    y: Tensor,  # [B, C, H', W']
    pool_y: Tensor | None,  # [H / 2^levels, span]
    pool_x: Tensor | None,  # [W / 2^levels, span]
    scratch: Tensor,
    n_labels: int,
    stride: int,
    padding: int,
    pad_mode: str,
) -> None:
    if pool_y is None:
        _add_rows(codes, table, y, scratch, n_labels, stride, padding, pad_mode)
        return
    tiling = _plan(codes, table, y, pool_y, pool_x, n_labels, stride, padding, pad_mode)
    sums, windows, flags = tiling.split(scratch, table[0].numel(), tiling.programs[0])
    torch.sum(table, 0, out=sums.view(table.shape[1:]))
    _mark_present(tiling, codes, flags, 1, table.shape[1], 1)
    label_conv2d_fwd_pooled_kernel[(tiling.programs[0],)](
        codes, table, sums, flags, windows, pool_y, pool_x, y, tiles=tiling.tiles, **tiling.tile, **tiling.matrix,
        BLOCK_FLAGS=common.block_of(table.shape[1], 128), num_warps=8, **common.OPTIONS,
    )  # fmt: skip


def _add_rows(
    codes: Tensor, table: Tensor, y: Tensor, scratch: Tensor, n_labels: int, stride: int, padding: int, pad_mode: str
) -> None:
    """The result where the planes are convolved as they are."""
    (batch, channels, out_height, out_width), (_, height, width) = y.shape, codes.shape
    taps, rows, _ = table.shape
    n_codes = _codes(table, n_labels)
    block_channels = common.block_of(channels, CHANNELS)
    groups = common.parts(channels, block_channels)
    label_conv2d_rows_kernel[common.grid_of(n_codes, groups)](
        table,
        scratch,
        rows,
        n_labels,
        n_codes,
        channels,
        TAPS=taps,
        BLOCK_TAPS=16,
        BLOCK_CHANNELS=block_channels,
        **common.OPTIONS,
    )
    # A row of a tile's pixels has the 32 bytes that memory is written by, in one plane or in several.
    channels_last = common.is_channels_last(y)
    tile_width = 8 if channels_last else 32 // y.element_size()
    tile_height = PIXELS // tile_width * (1 if common.processors(y) > 1 else 4)  # fewer tiles in the interpreter
    down, across = common.parts(out_height, tile_height), common.parts(out_width, tile_width)
    label_conv2d_fwd_kernel[(batch * down * across * groups,)](
        codes, scratch, y, height, width, out_height, out_width, n_codes, channels, padding, down, across, groups,
        **_strides(y.shape, channels_last), **_options(_side(taps), stride, padding, pad_mode),
        TILE_HEIGHT=tile_height, TILE_WIDTH=tile_width, BLOCK=16, BLOCK_CHANNELS=block_channels,
        num_warps=1, **common.OPTIONS,
    )  # fmt: skip


def label_conv2d_bwd(
    codes: Tensor,  # [B, H, W]
    dtable: Tensor,  # [k * k, n (+ 1), C]
    dy: Tensor,  # [B, C, H', W']
    pool_y: Tensor | None,  # [H / 2^levels, span]
    pool_x: Tensor | None,  # [W / 2^levels, span]
    scratch: Tensor,
    n_labels: int,
    stride: int,
    padding: int,
    pad_mode: str,
) -> None:
    tiling = _plan(codes, dtable, dy, pool_y, pool_x, n_labels, stride, padding, pad_mode)
    partial, windows, flags = tiling.split(scratch, tiling.chunks * dtable.numel(), tiling.programs[1])
    _mark_present(tiling, codes, flags, tiling.chunks, 1, tiling.chunks * tiling.chunk_tiles)
    label_conv2d_bwd_kernel[(tiling.programs[1],)](
        codes, partial, dy, flags, windows, pool_y, pool_x, chunks=tiling.chunks, chunk_tiles=tiling.chunk_tiles,
        **tiling.tile, **tiling.matrix, BLOCK_FLAGS=FLAGS, num_warps=8, **common.OPTIONS,
    )  # fmt: skip
    torch.sum(partial.view(tiling.chunks, *dtable.shape), 0, out=dtable)
