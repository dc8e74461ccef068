// instance_norm_act on the GPU: which kernels run, and on how many blocks.
//
// A large plane is split into enough parts to fill the GPU, but so few that merging their partial results, which every
// block of the second kernel does for itself, is a small part of its reads.
#include <algorithm>

#include "device.cuh"
#include "instance_norm_act_nchw.cuh"
#include "instance_norm_act_nhwc_plan.cuh"

namespace hd::cuda {
namespace {

constexpr int64_t kPart =
    16384;  // elements of one block's part of a large NCHW plane, unless that leaves too few blocks
constexpr int64_t kLeastPart = 2048;  // at least so many
constexpr int64_t kBlocks = 1024;     // enough of those to fill a GPU

// Divide planes into at most so many parts, each a multiple of `unit` pixels.
void split(Norm& n, int64_t wanted, int64_t unit) {
  n.splits = static_cast<int>(std::min(wanted, (n.planes + kSpareParts) / n.planes));
  n.part = ceil_div(ceil_div(n.pixels(), n.splits), unit) * unit;
  n.padded_part = ceil_div(ceil_div(n.padded_pixels(), n.splits), unit) * unit;
}

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
  split(n, 1, 1);
  n.slope = slope;
  return n;
}

// Without padding and gaps the rows of a plane are treated as one row, in which no unit crosses an edge.
void flatten(Norm& n) {
  if (n.pad != 0 || n.pixels() > 0x7fff0000) return;
  n.width = static_cast<int>(n.pixels());
  n.height = 1;
}

constexpr int64_t kAside = 4096;  // bytes of shared memory kept for reductions

// Bytes of shared memory that a block may have: a plane and a reduction, or what the GPU offers.
int64_t most_shared() { return std::min<int64_t>(shared_offered(), kSmallPlane + kAside); }

// More than 48 KiB must be asked for. It is always the most, so that no launch lowers the limit of another.
template <typename Kernel>
void allow_shared(Kernel kernel) {
  const int most = static_cast<int>(most_shared());
  check_cuda(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, most), "cudaFuncSetAttribute");
}

// The power of two from 32 to kThreads at which a thread does about two of the `tasks`.
int threads_for(int64_t tasks) {
  int threads = 32;
  while (threads < kThreads && threads * 2 < tasks) threads *= 2;
  return threads;
}

// What both kernels are launched with.
struct Launch {
  int64_t blocks;
  int threads;
  int64_t shared;  // bytes
};

// A block holds a plane if so many arrays of it fit in shared memory. Otherwise several blocks share it.
template <typename T>
Launch plan_nchw(Norm& n, int arrays) {
  const int64_t units = ceil_div(n.pixels() + kPack<T>, kPack<T>), bytes = 16 * arrays * units;
  const int64_t reduction = kReduction * sizeof(float), pixels = n.pixels();
  n.held = bytes <= most_shared() - kAside;
  if (n.held) return {n.planes, threads_for(units), bytes + reduction};
  split(n, std::max(ceil_div(pixels, kPart), std::min(ceil_div(kBlocks, n.planes), ceil_div(pixels, kLeastPart))),
        kPack<T>);
  return {n.planes * n.splits, kThreads, reduction};
}

// Launch the first kernel and, unless its blocks hold whole planes, the second.
template <typename First, typename Second, typename... Arguments>
void run(First first, Second second, const Launch& launch, const Norm& n, uintptr_t stream, Arguments... arguments) {
  if (n.held) allow_shared(first);
  HD_LAUNCH(first, launch.blocks, launch.threads, launch.shared, stream, arguments..., n);
  if (!n.held) HD_LAUNCH(second, launch.blocks, launch.threads, launch.shared, stream, arguments..., n);
}

}  // namespace

// Two numbers of every part of every plane.
int64_t instance_norm_act_scratch(Tensor x) {
  if (is_channels_last(x)) return scratch_nhwc(x);
  return 2 * (x.shape[0] * x.shape[1] + kSpareParts);
}

void instance_norm_act_fwd(Tensor x, Tensor weight, Tensor bias, Tensor residual, Tensor y, Tensor mean, Tensor rstd,
                           Tensor scratch, float slope, float eps, int pad, PadMode pad_mode, uintptr_t stream) {
  Norm n = norm_of(x, weight, bias, mean, rstd, scratch, slope, pad, pad_mode);
  n.eps = eps;
  with_floating(x.dtype, [&](auto type) {
    using T = decltype(type);
    const int64_t* stride = residual.stride;
    if (is_channels_last(x)) return fwd_nhwc<T>(n, x, residual, y, scratch, stream);
    if (!residual || stride[2] == n.width || n.height == 1) flatten(n);
    const Residual<T> added{residual.as<T>(), stride[0], stride[1], stride[2]};
    const Launch launch = plan_nchw<T>(n, 1);
    run(instance_norm_act_fwd_nchw_kernel<T>, instance_norm_act_fwd_apply_nchw_kernel<T>, launch, n, stream,
        x.as<const T>(), added, y.as<T>());
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
    flatten(n);
    const Launch launch = plan_nchw<T>(n, 2);
    run(instance_norm_act_bwd_nchw_kernel<T>, instance_norm_act_bwd_apply_nchw_kernel<T>, launch, n, stream,
        dy.as<const T>(), x.as<const T>(), dx.as<T>(), dresidual.as<T>());
  });
}

}  // namespace hd::cuda
