// instance_mean: sums over instances, and values of instances to their pixels. Rows and offsets are of an
// instance_index: image b owns the rows offsets[b] to offsets[b + 1].
#pragma once

#include "cpu.h"

// x [B, C, H, W] dense, rows [B, H, W] int32, offsets [B + 1] int64 -> sums [N, C] float32; on a GPU they are added to
// what is there, in any order.
HD_CPU_KERNEL(instance_mean_reduce, Tensor x, Tensor rows, Tensor offsets, Tensor sums, int threads)
// table [N, C] float32, rows [B, H, W] int32, counts [N] int64 or missing -> y [B, C, H, W] dense: the table's row of
// each pixel, divided by its count.
HD_CPU_KERNEL(instance_mean_broadcast, Tensor table, Tensor rows, Tensor counts, Tensor y, int threads)

namespace hd::cuda {
void instance_mean_reduce(Tensor x, Tensor rows, Tensor offsets, Tensor sums, uintptr_t stream);
// The same in a fixed order: order [B * H * W] int64 the pixels sorted by instance, starts [N + 1] int64 where each
// begins in it -> partial [pieces, N, C] float32, whose sum over the pieces are the sums.
void instance_mean_reduce_sorted(Tensor x, Tensor order, Tensor starts, Tensor partial, uintptr_t stream);
void instance_mean_broadcast(Tensor table, Tensor rows, Tensor counts, Tensor y, uintptr_t stream);
}  // namespace hd::cuda
