// avg_pyramid: 3x3 average pooling with stride 2 and padding 1 that leaves the padding out of its count; two levels at
// once.
#pragma once

#include "cpu.h"

// x [B, C, H, W] -> half [B, C, ceil(H/2), ceil(W/2)] and, unless it is missing, quarter: the half of half, rounded
// to the dtype in between or not. All of one dtype and memory format.
HD_CPU_KERNEL(avg_pyramid_fwd, Tensor x, Tensor half, Tensor quarter, int threads)
// The gradients of both, of which either may be missing -> dx, of one dtype and memory format.
HD_CPU_KERNEL(avg_pyramid_bwd, Tensor dhalf, Tensor dquarter, Tensor dx, int threads)

namespace hd::cuda {
void avg_pyramid_fwd(Tensor x, Tensor half, Tensor quarter, uintptr_t stream);
void avg_pyramid_bwd(Tensor dhalf, Tensor dquarter, Tensor dx, uintptr_t stream);
}  // namespace hd::cuda
