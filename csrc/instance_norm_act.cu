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

constexpr int64_t kLeastUnits = 512;  // of a part of a contiguous plane, if that leaves enough parts: 8 KiB

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

// Whether every plane begins at a multiple of 16 bytes.
bool are_aligned(const Tensor& x, const Norm& n) {
  const int64_t size = x.dtype == DType::float32 ? 4 : 2;
  return is_aligned(x, 16) && n.pixels() * size % 16 == 0;
}

// The power of two from 32 to kThreads at which a thread does about two of the `tasks`.
int threads_for(int64_t tasks) {
  int threads = 32;
  while (threads < kThreads && threads * 2 < tasks) threads *= 2;
  return threads;
}

// The threads that work on a row of so many units: few, so that each has several, but neighbours in memory.
int lanes_for(int64_t units) {
  int lanes = 8;
  while (lanes < kPlaneThreads && lanes * 8 <= units) lanes *= 2;
  return lanes;
}

// The number of parts, from `least` to twice as many, at which the blocks have the least to do: the GPU works on
// `resident` parts at a time, and the last of these turns may have few.
int64_t balanced(int64_t least, int64_t planes, int64_t resident) {
  int64_t best = least;
  for (int64_t count = least; count <= std::min(2 * least, resident); ++count)
    if (ceil_div(planes * count, resident) * best < ceil_div(planes * best, resident) * count) best = count;
  return best;
}

// How one kernel for contiguous images is launched.
struct PlanePlan {
  Parts parts;
  int64_t blocks, shared;
  int threads;
};

// Divide planes among the blocks of a kernel that holds `padded` units of the padded plane beside those of x, or not.
template <typename T, typename Kernel>
PlanePlan plan_nchw(const Norm& n, Kernel* kernel, bool aligned, bool padded) {
  constexpr int64_t V = kPack<T>;
  const Device& device = current_device();
  const int64_t reduction = kReduction * static_cast<int64_t>(sizeof(float));
  const int64_t room =
      std::min(device.shared_block, device.shared_multiprocessor / kPlaneBlocks - kReserved) - reduction;
  const int64_t resident = resident_blocks(kernel, kPlaneThreads, room + reduction);
  const int64_t slack = 3 * n.pad / V + 4, width = n.width, padded_width = n.padded_width();  // units at ends of rows
  const auto padded_units = [&](int64_t units) { return padded ? ceil_div(units * padded_width, width) + slack : 0; };
  const auto bytes = [&](int64_t units) { return 16 * (units + padded_units(units)); };
  const auto fitting = [&](int64_t available) {  // units
    if (!padded) return available / 16;
    return std::max<int64_t>((available / 16 - slack - 1) * width / (width + padded_width), 0);
  };
  const int64_t units = ceil_div(n.pixels() + (aligned ? 0 : V - 1), V);
  const int64_t most = fitting(room), half = fitting(room / 2);
  int64_t count = 1;
  if (units > most || (n.planes < resident / 2 && units > 2 * kLeastUnits)) {
    count = std::max(ceil_div(units, std::max<int64_t>(most, 1)),
                     std::min(ceil_div(resident, n.planes), units / kLeastUnits));
    if (n.planes * count > resident && ceil_div(units, std::max<int64_t>(half, 1)) <= resident)
      count = balanced(std::max(count, ceil_div(units, half)), n.planes, resident);
    count = std::min({count, resident, (n.planes + kSpareParts) / n.planes});
  }
  PlanePlan plan{};
  plan.parts.units = static_cast<int>(ceil_div(units, count));
  plan.parts.count = static_cast<int>(ceil_div(units, plan.parts.units));
  plan.parts.items = static_cast<unsigned>(n.planes * plan.parts.count);
  plan.threads = std::min(threads_for(plan.parts.units / 2), kPlaneThreads);
  plan.parts.lanes = std::min(lanes_for(width / V), plan.threads);
  plan.blocks =
      plan.parts.count == 1 && plan.threads < kPlaneThreads ? n.planes : std::min<int64_t>(plan.parts.items, resident);
  plan.parts.buffers = plan.blocks < plan.parts.items && plan.parts.units <= half ? 2 : 1;
  plan.parts.held = static_cast<int>(std::min<int64_t>(plan.parts.units, most));
  plan.parts.chunks = static_cast<int>(ceil_div(plan.parts.units, plan.parts.held));
  plan.parts.padded_held = static_cast<int>(padded_units(plan.parts.held));
  plan.parts.pixels = n.pixels();
  plan.parts.padded_pixels = n.padded_pixels();
  plan.parts.counters = reinterpret_cast<unsigned*>(n.scratch + 2 * (n.planes + kSpareParts));
  plan.shared = reduction + plan.parts.buffers * bytes(plan.parts.held);
  return plan;
}

// Blocks that share planes wait for each other, which takes a cooperative launch.
template <typename Kernel, typename... Arguments>
void run_nchw(Kernel* kernel, const PlanePlan& plan, uintptr_t stream, Arguments... arguments) {
  if (plan.parts.count > 1)
    HD_LAUNCH_COOPERATIVE(kernel, plan.blocks, plan.threads, plan.shared, stream, arguments..., plan.parts);
  else
    HD_LAUNCH(kernel, plan.blocks, plan.threads, plan.shared, stream, arguments..., plan.parts);
}

}  // namespace

// Two numbers of every part of every plane, and a counter for each plane.
int64_t instance_norm_act_scratch(Tensor x) {
  if (is_channels_last(x)) return scratch_nhwc(x);
  const int64_t planes = x.shape[0] * x.shape[1];
  return 2 * (planes + kSpareParts) + planes;
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
    const auto kernel = instance_norm_act_fwd_nchw_kernel<T>;
    run_nchw(kernel, plan_nchw<T>(n, kernel, are_aligned(x, n), false), stream, x.as<const T>(), added, y.as<T>(), n);
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
    const auto kernel = instance_norm_act_bwd_nchw_kernel<T>;
    run_nchw(kernel, plan_nchw<T>(n, kernel, are_aligned(x, n), true), stream, dy.as<const T>(), x.as<const T>(),
             dx.as<T>(), dresidual.as<T>(), n);
  });
}

}  // namespace hd::cuda
