// instance_norm_act on the GPU. The files of a memory format, nchw or nhwc, plan how blocks share the work (_plan).
#include "instance_norm_act_nchw_plan.cuh"
#include "instance_norm_act_nhwc_plan.cuh"

namespace hd::cuda {
namespace {

Norm norm_of(const Tensor& x, const Tensor& weight, const Tensor& bias, const Tensor& mean, const Tensor& rstd,
             const Tensor& scratch, float slope, int pad, PadMode pad_mode) {
  Norm n{};
  n.channels = static_cast<int>(x.shape[1]);
  n.height = static_cast<int>(x.shape[2]);
  n.width = static_cast<int>(x.shape[3]);
  n.pad = pad;
  n.pad_mode = pad_mode;
  n.weight = weight.as<float>();
  n.bias = bias.as<float>();
  n.mean = mean.as<float>();
  n.rstd = rstd.as<float>();
  n.scratch = scratch.as<float>();
  n.planes = x.shape[0] * x.shape[1];
  n.per_pixel = 1.f / static_cast<float>(n.pixels());
  n.slope = slope;
  return n;
}

}  // namespace

int64_t instance_norm_act_scratch(Tensor x) { return is_channels_last(x) ? scratch_nhwc(x) : scratch_nchw(x); }

void instance_norm_act_fwd(Tensor x, Tensor weight, Tensor bias, Tensor residual, Tensor y, Tensor mean, Tensor rstd,
                           Tensor scratch, float slope, float eps, int pad, PadMode pad_mode, uintptr_t stream) {
  Norm n = norm_of(x, weight, bias, mean, rstd, scratch, slope, pad, pad_mode);
  n.eps = eps;
  with_floating(x.dtype, [&](auto type) {
    using T = decltype(type);
    if (is_channels_last(x)) return fwd_nhwc<T>(n, x, residual, y, scratch, stream);
    fwd_nchw<T>(n, x, residual, y, stream);
  });
}

void instance_norm_act_bwd(Tensor dy, Tensor x, Tensor weight, Tensor bias, Tensor mean, Tensor rstd, Tensor dx,
                           Tensor dresidual, Tensor sums, Tensor scratch, float slope, int pad, PadMode pad_mode,
                           uintptr_t stream) {
  Norm n = norm_of(x, weight, bias, mean, rstd, scratch, slope, pad, pad_mode);
  n.sums = sums.as<float>();
  with_floating(x.dtype, [&](auto type) {
    using T = decltype(type);
    if (is_channels_last(x)) return bwd_nhwc<T>(n, dy, x, dx, dresidual, scratch, stream);
    bwd_nchw<T>(n, dy, x, dx, dresidual, stream);
  });
}

}  // namespace hd::cuda
