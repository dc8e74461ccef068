// instance_norm_act: y = pad(act(weight * (x - mean) / sqrt(variance + eps) + bias) + residual), each plane by its own mean
// and biased variance. activation: 0 none, 1 relu, 2 leaky_relu; pad_mode: 0 reflect, 1 zero, 2 replicate.
#pragma once

#include "cpu.h"

namespace hd::cuda {

// x, dense -> y [B, C, H + 2 pad, W + 2 pad], dense, in its format, and mean and rstd [B, C] float32, which the backward
// pass needs. weight and bias [C] float32 or none. residual [B, C, H, W] or none: its innermost dimension has stride 1.
// scratch: float32, 3 (B C + 32768) elements.
void instance_norm_act_fwd(Tensor x, Tensor weight, Tensor bias, Tensor residual, Tensor y, Tensor mean, Tensor rstd,
                           Tensor scratch, int activation, float negative_slope, float eps, int pad, int pad_mode,
                           uintptr_t stream);
// dy, like y -> dx and, unless it is missing, dresidual, like x; sums [2, B, C] float32: over each plane of dz and of
// dz * xhat, where z is what the activation gets and xhat the normalised x.
void instance_norm_act_bwd(Tensor dy, Tensor x, Tensor weight, Tensor bias, Tensor mean, Tensor rstd, Tensor dx,
                           Tensor dresidual, Tensor sums, Tensor scratch, int activation, float negative_slope, int pad,
                           int pad_mode, uintptr_t stream);

}  // namespace hd::cuda
