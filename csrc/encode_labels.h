// encode_labels: label and instance maps -> one-hot planes and the plane of instance boundaries, written once.
#pragma once

#include "cpu.h"

// label [B, H, W] and, unless it is missing, ids [B, H, W], of any integer dtypes and contiguous -> y [B, n (+ 1), H,
// W], dense, of zeros and ones: a plane for each of n classes, and with ids the boundary plane. A label outside 0 ... n
// - 1 sets no plane, nor does `dontcare`.
HD_CPU_KERNEL(encode_labels_fwd, Tensor label, Tensor ids, Tensor y, int64_t dontcare, int threads)

namespace hd::cuda {
void encode_labels_fwd(Tensor label, Tensor ids, Tensor y, int64_t dontcare, uintptr_t stream);
}  // namespace hd::cuda
