// instance_norm_act: y = pad(act(weight * (x - mean) * rstd + bias) + residual), statistics over each plane.
#pragma once

#include "cpu.h"

namespace hd {
enum Activation { kNone, kRelu, kLeakyRelu };
enum PadMode { kReflect, kZero, kReplicate };
}  // namespace hd

// x [B, C, H, W] dense; weight, bias [C] float32 or missing; residual [B, C, H, W] or missing, of any strides but for
// its innermost of one; y [B, C, H + 2 pad, W + 2 pad] in the format of x; mean, rstd [B, C] float32. scratch: 3 (B C +
// 32768) float32, for the kernels that split planes over blocks.
HD_CPU_KERNEL(instance_norm_act_fwd, Tensor x, Tensor weight, Tensor bias, Tensor residual, Tensor y, Tensor mean,
              Tensor rstd, Tensor scratch, int activation, float negative_slope, float eps, int pad, int pad_mode,
              int threads)
// dy as y; dx, dresidual as x, the latter may be missing; sums [2, B, C] float32: of dz, and of dz times the normalised
// x.
HD_CPU_KERNEL(instance_norm_act_bwd, Tensor dy, Tensor x, Tensor weight, Tensor bias, Tensor mean, Tensor rstd,
              Tensor dx, Tensor dresidual, Tensor sums, Tensor scratch, int activation, float negative_slope, int pad,
              int pad_mode, int threads)

namespace hd::cuda {
void instance_norm_act_fwd(Tensor x, Tensor weight, Tensor bias, Tensor residual, Tensor y, Tensor mean, Tensor rstd,
                           Tensor scratch, int activation, float negative_slope, float eps, int pad, int pad_mode,
                           uintptr_t stream);
void instance_norm_act_bwd(Tensor dy, Tensor x, Tensor weight, Tensor bias, Tensor mean, Tensor rstd, Tensor dx,
                           Tensor dresidual, Tensor sums, Tensor scratch, int activation, float negative_slope, int pad,
                           int pad_mode, uintptr_t stream);
}  // namespace hd::cuda
