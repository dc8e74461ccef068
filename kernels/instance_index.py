"""instance_index: ids are counted in a table of all ids that an image may hold, ranked, and looked up by every pixel.

Maps are long runs of equal ids: a run [p, q) adds q to its count where it ends and subtracts p where it begins, so that
only the ends of runs touch the table.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from hdgan.kernels import common

PIXELS = 1024  # of one program
ENTRIES = 4096  # of the table, of one program; divides its size


@triton.jit
def instance_index_count_kernel(
    ids,  # [B, H, W] int32 or int64
    table,  # [B, T] int32 zeros
    outside,  # [1] int32 becomes 1 if an id is not in the table
    pixels,  # H * W
    blocks,  # programs of an image
    first_id,  # of the first entry
    entries,  # T
    BLOCK_PIXELS: tl.constexpr,
):
    program = tl.program_id(0)
    image = (program // blocks).to(tl.int64)
    p = (program % blocks).to(tl.int64) * BLOCK_PIXELS + tl.arange(0, BLOCK_PIXELS)
    valid = p < pixels
    own = tl.load(ids + image * pixels + p, mask=valid, other=0).to(tl.int64)
    before = tl.load(ids + image * pixels + p - 1, mask=valid & (p > 0), other=0).to(tl.int64)
    after = tl.load(ids + image * pixels + p + 1, mask=p + 1 < pixels, other=0).to(tl.int64)
    begins = (p == 0) | (own != before)
    ends = (p + 1 == pixels) | (own != after)
    entry = own - first_id
    inside = (entry >= 0) & (entry < entries)
    amount = tl.where(ends, p + 1, 0) - tl.where(begins, p, 0)  # of either sign; their sum is right
    tl.atomic_add(
        table + image * entries + entry, amount.to(tl.int32), mask=valid & inside & (begins | ends), sem="relaxed"
    )
    tl.store(outside + tl.zeros([BLOCK_PIXELS], tl.int32), 1, mask=valid & ~inside)


@triton.jit
def instance_index_rows_kernel(
    ids,  # [B, H, W] int32 or int64
    ranks,  # [B, T] int32: how many entries up to this one occur, in the whole batch
    outside,  # [1] int32
    rows,  # [B, H, W] int32 out
    pixels,  # H * W
    blocks,  # programs of an image
    first_id,  # of the first entry
    entries,  # T
    BLOCK_PIXELS: tl.constexpr,
):
    program = tl.program_id(0)
    image = (program // blocks).to(tl.int64)
    p = (program % blocks).to(tl.int64) * BLOCK_PIXELS + tl.arange(0, BLOCK_PIXELS)
    valid = p < tl.where(tl.load(outside) == 0, pixels, 0)
    entry = tl.load(ids + image * pixels + p, mask=valid, other=0).to(tl.int64) - first_id
    rank = tl.load(ranks + image * entries + entry, mask=valid, other=0)
    tl.store(rows + image * pixels + p, rank - 1, mask=valid)


@triton.jit
def instance_index_lists_kernel(
    table,  # [B, T] int32
    ranks,  # [B, T] int32: how many entries up to this one occur, in the whole batch
    outside,  # [1] int32
    offsets,  # [B + 1] int64 out, -1 at the end if an id is outside
    unique,  # [N] like the ids, out
    counts,  # [N] int64 out
    first_id,  # of the first entry
    entries,  # T
    batch,  # B
    BLOCK_ENTRIES: tl.constexpr,
):
    blocks = entries // BLOCK_ENTRIES
    image, block = tl.program_id(0) // blocks, tl.program_id(0) % blocks
    entry = block * BLOCK_ENTRIES + tl.arange(0, BLOCK_ENTRIES)
    at = image.to(tl.int64) * entries + entry
    bad = tl.load(outside) != 0
    count = tl.where(bad, 0, tl.load(table + at))
    rank = tl.load(ranks + at)
    occurs = count != 0
    tl.store(unique + rank - 1, (entry + first_id).to(unique.dtype.element_ty), mask=occurs)
    tl.store(counts + rank - 1, count.to(tl.int64), mask=occurs)
    if block == blocks - 1:
        last = tl.load(ranks + (image.to(tl.int64) + 1) * entries - 1).to(tl.int64)
        tl.store(offsets + image + 1, tl.where(bad, -1, last))
    if tl.program_id(0) == 0:
        tl.store(offsets, 0)


def instance_index_fwd(
    ids: Tensor,  # [B, H, W]
    rows: Tensor,  # [B, H, W]
    offsets: Tensor,  # [B + 1]
    unique: Tensor,  # [N] or more
    counts: Tensor,  # [N] or more
    table: Tensor,  # [B, T]
    ranks: Tensor,  # [B, T]
    sizes: Tensor,  # [B + 1]
    first_id: int,
) -> None:
    batch, pixels, entries = ids.shape[0], ids[0].numel(), table.shape[1]
    outside = sizes[batch:]
    block_pixels = common.block_of(pixels, PIXELS)
    blocks = common.parts(pixels, block_pixels)
    instance_index_count_kernel[(batch * blocks,)](
        ids, table, outside, pixels, blocks, first_id, entries, BLOCK_PIXELS=block_pixels, **common.OPTIONS
    )
    torch.cumsum((table != 0).view(-1), 0, dtype=torch.int32, out=ranks.view(-1))
    instance_index_rows_kernel[(batch * blocks,)](
        ids, ranks, outside, rows, pixels, blocks, first_id, entries, BLOCK_PIXELS=block_pixels, **common.OPTIONS
    )
    instance_index_lists_kernel[(batch * entries // ENTRIES,)](
        table,
        ranks,
        outside,
        offsets,
        unique,
        counts,
        first_id,
        entries,
        batch,
        BLOCK_ENTRIES=ENTRIES,
        **common.OPTIONS,
    )
