// instance_norm_act on the GPU: which kernels run, and on how many blocks.
//
// Splits of large planes are many enough to fill the GPU, few enough that merging their partial results, which every
// block of the second kernel does anew, is a small part of its reads.
#include <algorithm>

#include "instance_norm_act_nchw.cuh"
#include "instance_norm_act_nhwc.cuh"

namespace hd::cuda {
namespace {

constexpr int64_t kPart =
    16384;  // elements of one block's part of a large NCHW plane, unless that leaves too few blocks
constexpr int64_t kLeastPart = 2048;  // and at least
constexpr int64_t kBlocks = 1024;     // enough of those to fill a GPU

int multiprocessors() {
  int device = 0, count = 0;
  check_cuda(cudaGetDevice(&device), "cudaGetDevice");
  check_cuda(cudaDeviceGetAttribute(&count, cudaDevAttrMultiProcessorCount, device), "cudaDeviceGetAttribute");
  return count;
}

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

// Without padding and gaps the rows of a plane are one, in which no unit crosses an edge.
void flatten(Norm& n) {
  if (n.pad != 0 || n.pixels() > 0x7fff0000) return;
  n.width = static_cast<int>(n.pixels());
  n.height = 1;
}

constexpr int64_t kAside = 4096;  // bytes of shared memory kept for reductions

// Bytes of shared memory that a block may have: a plane and a reduction, or what the GPU offers.
int64_t most_shared() {
  int device = 0, most = 0;
  check_cuda(cudaGetDevice(&device), "cudaGetDevice");
  check_cuda(cudaDeviceGetAttribute(&most, cudaDevAttrMaxSharedMemoryPerBlockOptin, device), "cudaDeviceGetAttribute");
  return std::min<int64_t>(most, kSmallPlane + kAside);
}

// More than 48 KiB must be asked for: always the most, so that no launch takes from another.
template <typename Kernel>
void allow_shared(Kernel kernel, int64_t most) {
  check_cuda(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(most)),
             "cudaFuncSetAttribute");
}

// The power of two from 32 to kThreads at which a thread does about two of the `tasks`.
int threads_for(int64_t tasks) {
  int threads = 32;
  while (threads < kThreads && threads * 2 < tasks) threads *= 2;
  return threads;
}

void split_nchw(Norm& n, int64_t pack) {
  const int64_t pixels = n.pixels();
  split(n, std::max(ceil_div(pixels, kPart), std::min(ceil_div(kBlocks, n.planes), ceil_div(pixels, kLeastPart))),
        pack);
}

// How channels_last images are divided: groups of channels of a block, and blocks.
struct Tiling {
  int lanes = 1;
  int64_t tiles = 0;  // blocks without splits

  Tiling(const Norm& n, int pack, bool one_lane) {
    const int64_t groups = ceil_div(n.channels, pack);
    while (!one_lane && lanes < 32 && lanes < groups) lanes *= 2;
    tiles = n.planes / n.channels * ceil_div(groups, lanes);
  }
};

// As many blocks as the GPU holds at once, or twice as many.
void split_nhwc(Norm& n, const Tiling& tiling) {
  const int64_t least = kPixels * (kThreads / tiling.lanes);  // pixels of a part
  split(n, std::min(ceil_div(2 * multiprocessors(), tiling.tiles), ceil_div(n.pixels(), least)), 1);
}

template <typename T>
void fwd_nchw(const T* x, const Tensor& residual, T* y, Norm n, uintptr_t stream) {
  const Residual<T> added{residual.as<T>(), residual.stride[0], residual.stride[1], residual.stride[2]};
  if (!residual || residual.stride[2] == n.width || n.height == 1) flatten(n);
  const int64_t units = ceil_div(n.pixels() + kPack<T>, kPack<T>), reduction = kReduction * sizeof(float);
  const int64_t most = most_shared();
  n.held = 16 * units <= most - kAside;
  if (n.held) {
    const int64_t shared = 16 * units + reduction;
    allow_shared(instance_norm_act_fwd_nchw_kernel<T>, most);
    HD_LAUNCH(instance_norm_act_fwd_nchw_kernel<T>, n.planes, threads_for(units), shared, stream, x, added, y, n);
    return;
  }
  split_nchw(n, kPack<T>);
  HD_LAUNCH(instance_norm_act_fwd_nchw_kernel<T>, n.planes * n.splits, kThreads, reduction, stream, x, added, y, n);
  HD_LAUNCH(instance_norm_act_fwd_apply_nchw_kernel<T>, n.planes * n.splits, kThreads, reduction, stream, x, added, y,
            n);
}

template <typename T>
void fwd_nhwc(const T* x, const Tensor& residual, T* y, Norm n, uintptr_t stream) {
  using State = ChannelMoments<kPack<T>>;
  const PixelResidual<T> added{residual.as<T>(), residual.stride[0], residual.stride[2], residual.stride[3]};
  const int64_t bytes = 16 * n.pixels();
  const int64_t most = most_shared();
  n.held = bytes <= most - kAside;
  const Tiling tiling(n, kPack<T>, n.held);
  const int threads = n.held ? threads_for(n.pixels()) : kThreads;
  const int64_t reduction = merge_size<State>(tiling.lanes, threads) * sizeof(float);
  if (n.held) {
    const int64_t shared = bytes + reduction;
    allow_shared(instance_norm_act_fwd_nhwc_kernel<T>, most);
    HD_LAUNCH(instance_norm_act_fwd_nhwc_kernel<T>, tiling.tiles, threads, shared, stream, x, added, y, 1, n);
    return;
  }
  split_nhwc(n, tiling);
  const int64_t blocks = tiling.tiles * n.splits;
  HD_LAUNCH(instance_norm_act_fwd_nhwc_kernel<T>, blocks, threads, reduction, stream, x, added, y, tiling.lanes, n);
  HD_LAUNCH(instance_norm_act_fwd_apply_nhwc_kernel<T>, blocks, threads, reduction, stream, x, added, y, tiling.lanes,
            n);
}

template <typename T>
void bwd_nchw(const T* dy, const T* x, T* dx, T* dresidual, Norm n, uintptr_t stream) {
  flatten(n);
  const int64_t units = ceil_div(n.pixels() + kPack<T>, kPack<T>), reduction = kReduction * sizeof(float);
  const int64_t most = most_shared();
  n.held = 2 * 16 * units <= most - kAside;
  if (n.held) {
    const int64_t shared = 2 * 16 * units + reduction;
    allow_shared(instance_norm_act_bwd_nchw_kernel<T>, most);
    HD_LAUNCH(instance_norm_act_bwd_nchw_kernel<T>, n.planes, threads_for(units), shared, stream, dy, x, dx, dresidual,
              n);
    return;
  }
  split_nchw(n, kPack<T>);
  HD_LAUNCH(instance_norm_act_bwd_nchw_kernel<T>, n.planes * n.splits, kThreads, reduction, stream, dy, x, dx,
            dresidual, n);
  HD_LAUNCH(instance_norm_act_bwd_apply_nchw_kernel<T>, n.planes * n.splits, kThreads, reduction, stream, dy, x, dx,
            dresidual, n);
}

template <typename T>
void bwd_nhwc(const T* dy, const T* x, T* dx, T* dresidual, Norm n, uintptr_t stream) {
  using State = ChannelSums<kPack<T>>;
  const int64_t bytes = 2 * 16 * n.pixels();
  const int64_t most = most_shared();
  n.held = bytes <= most - kAside;
  const Tiling tiling(n, kPack<T>, n.held);
  const int threads = n.held ? threads_for(n.pixels()) : kThreads;
  const int64_t reduction = merge_size<State>(tiling.lanes, threads) * sizeof(float);
  if (n.held) {
    const int64_t shared = bytes + reduction;
    allow_shared(instance_norm_act_bwd_nhwc_kernel<T>, most);
    HD_LAUNCH(instance_norm_act_bwd_nhwc_kernel<T>, tiling.tiles, threads, shared, stream, dy, x, dx, dresidual, 1, n);
    return;
  }
  split_nhwc(n, tiling);
  const int64_t blocks = tiling.tiles * n.splits;
  HD_LAUNCH(instance_norm_act_bwd_nhwc_kernel<T>, blocks, threads, reduction, stream, dy, x, dx, dresidual,
            tiling.lanes, n);
  HD_LAUNCH(instance_norm_act_bwd_apply_nhwc_kernel<T>, blocks, threads, reduction, stream, dy, x, dx, dresidual,
            tiling.lanes, n);
}

}  // namespace

// Two numbers of every part of every plane.
int64_t instance_norm_act_scratch(Tensor x) { return 2 * (x.shape[0] * x.shape[1] + kSpareParts); }

void instance_norm_act_fwd(Tensor x, Tensor weight, Tensor bias, Tensor residual, Tensor y, Tensor mean, Tensor rstd,
                           Tensor scratch, float slope, float eps, int pad, PadMode pad_mode, uintptr_t stream) {
  Norm n = norm_of(x, weight, bias, mean, rstd, scratch, slope, pad, pad_mode);
  n.eps = eps;
  with_floating(x.dtype, [&](auto type) {
    using T = decltype(type);
    (is_channels_last(x) ? fwd_nhwc<T> : fwd_nchw<T>)(x.as<T>(), residual, y.as<T>(), n, stream);
  });
}

void instance_norm_act_bwd(Tensor dy, Tensor x, Tensor weight, Tensor bias, Tensor mean, Tensor rstd, Tensor dx,
                           Tensor dresidual, Tensor sums, Tensor scratch, float slope, int pad, PadMode pad_mode,
                           uintptr_t stream) {
  Norm n = norm_of(x, weight, bias, mean, rstd, scratch, slope, pad, pad_mode);
  n.sums = sums.as<float>();
  with_floating(x.dtype, [&](auto type) {
    using T = decltype(type);
    (is_channels_last(x) ? bwd_nhwc<T> : bwd_nchw<T>)(dy.as<T>(), x.as<T>(), dx.as<T>(), dresidual.as<T>(), n, stream);
  });
}

}  // namespace hd::cuda
