// instance_index: sparse instance ids -> rows of a dense table, ordered by image, then by id.
#pragma once

#include "cpu.h"

// ids [B, H, W] dense, of any integer dtype; on a GPU int32 or int64
// -> rows [B, H, W] int32, offsets [B + 1] int64 (on a GPU -1 at the end if an id is outside the table, and then
// nothing else counts), unique [at least N] like ids, counts [at least N] int64. table [B, T] int32 zeros, ranks [B, T]
// int32 scratch, sizes [B + 1] int32 zeros: on a GPU, for the ids low to low + T; T is a multiple of 4096.
HD_CPU_KERNEL(instance_index_fwd, Tensor ids, Tensor rows, Tensor offsets, Tensor unique, Tensor counts, Tensor table,
              Tensor ranks, Tensor sizes, int64_t low, int threads)

namespace hd::cuda {
void instance_index_fwd(Tensor ids, Tensor rows, Tensor offsets, Tensor unique, Tensor counts, Tensor table,
                        Tensor ranks, Tensor sizes, int64_t low, uintptr_t stream);
}  // namespace hd::cuda
