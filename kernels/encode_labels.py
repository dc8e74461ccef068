"""encode_labels: a program reads a strip of pixels and writes all their planes; see hdgan/ops/encode_labels.py."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from hdgan.kernels import common

Launch = tuple[tuple[int], tuple[int, ...], dict[str, Any]]  # grid, numbers, constants

PIXELS = 1024  # of a program
GROUPS = 512  # of 16 bytes written at a time, in channels_last results


@triton.jit
def _class_of(label, pixel, mask, n_labels, dontcare):
    """The plane of a pixel's label, -1 for none."""
    value = tl.load(label + pixel, mask=mask, other=0).to(tl.int64)  # a uint64 beyond int64 is no label, rightly
    known = (value >= 0) & (value < n_labels) & (value != dontcare)
    return tl.where(known, value, -1).to(tl.int32)


@triton.jit
def _on_boundary(ids, first, pixel, mask, height, width, BLOCK_PIXELS: tl.constexpr):
    """Whether the ids of BLOCK_PIXELS pixels from `first` on differ from one of their four neighbours."""
    # Only where the strip begins is divided in 64 bits.
    first_row = tl.cast(first, tl.int64) // width
    across = (first - first_row * width).to(tl.int32) + tl.arange(0, BLOCK_PIXELS)  # [BLOCK_PIXELS]
    row = ((first_row % height).to(tl.int32) + across // width) % height
    column = across % width
    own = tl.load(ids + pixel, mask=mask, other=0)
    left = tl.load(ids + pixel - 1, mask=mask & (column > 0), other=0)
    right = tl.load(ids + pixel + 1, mask=mask & (column + 1 < width), other=0)
    above = tl.load(ids + pixel - width, mask=mask & (row > 0), other=0)
    below = tl.load(ids + pixel + width, mask=mask & (row + 1 < height), other=0)
    beside = ((column > 0) & (left != own)) | ((column + 1 < width) & (right != own))
    return beside | ((row > 0) & (above != own)) | ((row + 1 < height) & (below != own))


@triton.jit
def _store(address, set, mask):
    # By way of float32: Triton's interpreter casts no bool to bfloat16.
    tl.store(address, set.to(tl.float32).to(address.dtype.element_ty), mask=mask)


@triton.jit
def encode_labels_planes_kernel(
    label,  # [B, H, W] integer
    ids,  # [B, H, W] integer, or None
    y,  # [B, n (+ 1), H, W]
    dontcare,  # a label of no class, or -1
    height,  # H
    width,  # W
    n_labels,  # n
    blocks,  # strips of an image
    BLOCK_PIXELS: tl.constexpr,  # pixels of a strip
):
    pixels = tl.cast(height, tl.int64) * width
    image = (tl.program_id(0) // blocks).to(tl.int64)
    begin = (tl.program_id(0) % blocks).to(tl.int64) * BLOCK_PIXELS
    local = begin + tl.arange(0, BLOCK_PIXELS)  # [BLOCK_PIXELS]
    mask = local < pixels
    first, pixel = image * pixels + begin, image * pixels + local
    plane = _class_of(label, pixel, mask, n_labels, dontcare)
    target = y + image * (n_labels if ids is None else n_labels + 1) * pixels + local
    for c in range(n_labels):
        _store(target + c * pixels, plane == c, mask)
    if ids is not None:
        _store(target + n_labels * pixels, _on_boundary(ids, first, pixel, mask, height, width, BLOCK_PIXELS), mask)


@triton.jit
def _set_bits(offset, k, channel, CHANNELS: tl.constexpr, VECTOR: tl.constexpr):
    """The bit of element c - offset + k CHANNELS of a group of VECTOR elements, 0 if that is not in the group."""
    at = channel - offset + k * CHANNELS
    return tl.where((at >= 0) & (at < VECTOR), 1 << (at % VECTOR), 0)


@triton.jit
def _words_of(bits, dtype: tl.constexpr):
    """The words [groups, 4] of groups of zeros and ones of a dtype, from a bit for each element."""
    word = tl.arange(0, 4)[None, :]
    if dtype == tl.float32:
        return (bits[:, None] >> word & 1) * 0x3F800000
    else:
        # The bits of both elements of a word, 16 places apart; then what a one is in either place.
        pairs = bits[:, None] * 0x8001 >> 2 * word & 0x10001
        return pairs * (0x3F80 if dtype == tl.bfloat16 else 0x3C00)


@triton.jit
def encode_labels_pixels_kernel(
    label,  # [B, H, W] integer
    ids,  # [B, H, W] integer, or None
    y,  # [B, H, W, n (+ 1)]
    dontcare,  # a label of no class, or -1
    pixels,  # B * H * W
    height,  # H
    width,  # W
    n_labels,  # n
    CHANNELS: tl.constexpr,  # n, or n + 1 with ids
    SPAN: tl.constexpr,  # pixels that a group may hold elements of
    BLOCK_PIXELS: tl.constexpr,  # pixels of a strip
    BLOCK_GROUPS: tl.constexpr,  # groups of 16 bytes written at a time
):
    # Pixels of an odd number of channels begin anywhere, so y is written in groups of 16 bytes, whatever they hold.
    VECTOR: tl.constexpr = 128 // y.dtype.element_ty.primitive_bitwidth
    NONE: tl.constexpr = 1 << 28
    first = tl.program_id(0).to(tl.int64) * BLOCK_PIXELS
    pixel = first + tl.arange(0, BLOCK_PIXELS)  # [BLOCK_PIXELS]
    mask = pixel < pixels
    plane = _class_of(label, pixel, mask, n_labels, dontcare)
    codes = 2 * tl.where(plane < 0, NONE, plane)
    if ids is not None:
        codes += _on_boundary(ids, first, pixel, mask, height, width, BLOCK_PIXELS).to(tl.int32)
    left = tl.minimum((pixels - first) * CHANNELS, BLOCK_PIXELS * CHANNELS).to(tl.int32)
    for begin in range(0, BLOCK_PIXELS * CHANNELS // VECTOR, BLOCK_GROUPS):
        at = (begin + tl.arange(0, BLOCK_GROUPS)) * VECTOR
        offset = at % CHANNELS  # of the group in its first pixel
        bits = tl.zeros([BLOCK_GROUPS], tl.int32)
        for k in tl.static_range(SPAN):
            # Where this is beyond the strip, its elements are beyond the group.
            code = tl.gather(codes, tl.minimum(at // CHANNELS + k, BLOCK_PIXELS - 1), 0)
            bits |= _set_bits(offset, k, code >> 1, CHANNELS, VECTOR)
            if ids is not None:
                bits |= _set_bits(offset, k, tl.where(code % 2 == 1, n_labels, NONE), CHANNELS, VECTOR)
        inside = (at < BLOCK_PIXELS * CHANNELS)[:, None]
        if left == BLOCK_PIXELS * CHANNELS:
            words = (y + first * CHANNELS).to(tl.pointer_type(tl.int32), bitcast=True)
            word = at[:, None] * 4 // VECTOR + tl.arange(0, 4)[None, :]
            tl.store(words + word, _words_of(bits, y.dtype.element_ty), mask=inside)
        else:
            element = tl.arange(0, VECTOR)[None, :]
            _store(
                y + first * CHANNELS + at[:, None] + element,
                (bits[:, None] >> element) & 1,
                at[:, None] + element < left,
            )


@triton.jit
def encode_labels_codes_kernel(
    label,  # [B, H, W] integer
    ids,  # [B, H, W] integer, or None
    codes,  # [B, H, W] int32
    dontcare,  # a label of no class, or -1
    pixels,  # B * H * W
    height,  # H
    width,  # W
    n_labels,  # n
    BLOCK_PIXELS: tl.constexpr,  # pixels of a strip
):
    first = tl.program_id(0).to(tl.int64) * BLOCK_PIXELS
    pixel = first + tl.arange(0, BLOCK_PIXELS)  # [BLOCK_PIXELS]
    mask = pixel < pixels
    plane = _class_of(label, pixel, mask, n_labels, dontcare)
    code = tl.where(plane < 0, n_labels, plane)
    if ids is not None:
        edge = _on_boundary(ids, first, pixel, mask, height, width, BLOCK_PIXELS)
        code += tl.where(edge, n_labels + 1, 0)
    tl.store(codes + pixel, code, mask=mask)


@cache
def _plan(shape: torch.Size, channels_last: bool, itemsize: int, with_ids: bool, dontcare: int) -> Launch:
    """Grid, numbers and constants for a result [B, n (+ 1), H, W]."""
    batch, channels, height, width = shape
    n_labels, pixels = channels - with_ids, height * width
    if not channels_last:
        block = common.block_of(pixels, PIXELS)
        blocks = common.parts(pixels, block)
        numbers = dontcare, height, width, n_labels, blocks
        return (blocks * batch,), numbers, {"BLOCK_PIXELS": block, **common.OPTIONS}
    block = max(common.block_of(batch * pixels, PIXELS), 8)
    constants = {
        "CHANNELS": channels, "SPAN": (16 // itemsize + channels - 2) // channels + 1, "BLOCK_PIXELS": block,
        "BLOCK_GROUPS": GROUPS, **common.OPTIONS,
    }  # fmt: skip
    return (common.parts(batch * pixels, block),), (dontcare, batch * pixels, height, width, n_labels), constants


@cache
def _plan_of_codes(shape: torch.Size, n_labels: int, dontcare: int) -> Launch:
    """The same for codes [B, H, W]."""
    batch, height, width = shape
    pixels = batch * height * width
    block = common.block_of(pixels, PIXELS)
    numbers = dontcare, pixels, height, width, n_labels
    return (common.parts(pixels, block),), numbers, {"BLOCK_PIXELS": block, **common.OPTIONS}


def encode_labels_fwd(
    label: Tensor,  # [B, H, W]
    ids: Tensor | None,  # [B, H, W]
    y: Tensor,  # [B, n (+ 1), H, W]
    dontcare: int,
) -> None:
    channels_last = common.is_channels_last(y)
    grid, numbers, constants = _plan(y.shape, channels_last, y.element_size(), ids is not None, dontcare)
    kernel = encode_labels_pixels_kernel if channels_last else encode_labels_planes_kernel
    kernel[grid](label, ids, y, *numbers, **constants)


def encode_labels_codes(
    label: Tensor,  # [B, H, W]
    ids: Tensor | None,  # [B, H, W]
    codes: Tensor,  # [B, H, W]
    n_labels: int,
    dontcare: int,
) -> None:
    grid, numbers, constants = _plan_of_codes(label.shape, n_labels, dontcare)
    encode_labels_codes_kernel[grid](label, ids, codes, *numbers, **constants)
