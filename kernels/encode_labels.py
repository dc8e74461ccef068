"""encode_labels: a program writes a block of the result, all planes of its pixels; see hdgan/ops/encode_labels.py."""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

BLOCK_PIXELS = 1024
BLOCK_ELEMENTS = 4096


@triton.jit
def _class_of(label, pixel, mask, n_labels, dontcare):
    """The plane of a pixel's label, -1 for none."""
    value = tl.load(label + pixel, mask=mask, other=0).to(tl.int64)  # a uint64 beyond int64 is no label, rightly
    known = (value >= 0) & (value < n_labels) & (value != dontcare)
    return tl.where(known, value, -1).to(tl.int32)


@triton.jit
def _on_boundary(ids, pixel, mask, height, width):
    """Whether a pixel's id differs from one of its four neighbours."""
    column = pixel % width
    row = (pixel // width) % height
    own = tl.load(ids + pixel, mask=mask, other=0)
    left = tl.load(ids + pixel - 1, mask=mask & (column > 0), other=0)
    right = tl.load(ids + pixel + 1, mask=mask & (column + 1 < width), other=0)
    above = tl.load(ids + pixel - width, mask=mask & (row > 0), other=0)
    below = tl.load(ids + pixel + width, mask=mask & (row + 1 < height), other=0)
    across = ((column > 0) & (left != own)) | ((column + 1 < width) & (right != own))
    return across | ((row > 0) & (above != own)) | ((row + 1 < height) & (below != own))


@triton.jit
def encode_labels_planes_kernel(
    label,  # [B, H, W] integer
    ids,  # [B, H, W] integer, or None
    y,  # [B, N (+ 1), H, W]
    dontcare,  # a label of no class, or -1
    height,  # H
    width,  # W
    n_labels: tl.constexpr,  # N
    has_ids: tl.constexpr,  # whether there is a boundary plane
    block: tl.constexpr,  # pixels of a program
):
    pixels = tl.cast(height, tl.int64) * width
    blocks = tl.cdiv(pixels, block)  # of an image
    image = tl.program_id(0) // blocks
    local = tl.program_id(0) % blocks * block + tl.arange(0, block)  # [block]
    mask = local < pixels
    pixel = image * pixels + local
    plane = _class_of(label, pixel, mask, n_labels, dontcare)
    target = y + image * (n_labels + has_ids) * pixels + local
    for c in range(n_labels):
        tl.store(target + c * pixels, (plane == c).to(y.dtype.element_ty), mask=mask)
    if has_ids:
        edge = _on_boundary(ids, pixel, mask, height, width)
        tl.store(target + n_labels * pixels, edge.to(y.dtype.element_ty), mask=mask)


@triton.jit
def encode_labels_pixels_kernel(
    label,  # [B, H, W] integer
    ids,  # [B, H, W] integer, or None
    y,  # [B, H, W, N (+ 1)]
    dontcare,  # a label of no class, or -1
    batch,  # B
    height,  # H
    width,  # W
    n_labels: tl.constexpr,  # N
    has_ids: tl.constexpr,  # whether there is a boundary plane
    block: tl.constexpr,  # elements of a program
):
    channels: tl.constexpr = n_labels + has_ids
    begin = tl.program_id(0).to(tl.int64) * block
    first = begin // channels  # the pixel that the block begins in
    inside = (begin - first * channels).to(tl.int32) + tl.arange(0, block)  # [block] elements since its first channel
    pixel = first + inside // channels
    channel = inside % channels
    mask = pixel < tl.cast(batch, tl.int64) * height * width
    plane = _class_of(label, pixel, mask, n_labels, dontcare)
    hit = plane == channel
    if has_ids:
        # Only one lane in `channels` looks at ids.
        hit |= _on_boundary(ids, pixel, mask & (channel == n_labels), height, width) & (channel == n_labels)
    tl.store(y + begin + tl.arange(0, block), hit.to(y.dtype.element_ty), mask=mask)


def encode_labels_fwd(
    label: Tensor,  # [B, H, W]
    ids: Tensor | None,  # [B, H, W]
    y: Tensor,  # [B, N (+ 1), H, W]
    dontcare: int,
) -> None:
    batch, channels, height, width = y.shape
    has_ids = ids is not None
    n_labels = channels - has_ids
    if y.is_contiguous():
        grid = (triton.cdiv(height * width, BLOCK_PIXELS) * batch,)
        encode_labels_planes_kernel[grid](label, ids, y, dontcare, height, width, n_labels, has_ids, BLOCK_PIXELS)
    else:
        grid = (triton.cdiv(y.numel(), BLOCK_ELEMENTS),)
        encode_labels_pixels_kernel[grid](label, ids, y, dontcare, batch, height, width, n_labels, has_ids, BLOCK_ELEMENTS)
