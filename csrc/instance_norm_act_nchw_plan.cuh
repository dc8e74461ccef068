// How blocks share the work on contiguous images, and the launches.
#pragma once

#include <algorithm>

#include "device.cuh"
#include "instance_norm_act_nchw_bwd.cuh"
#include "instance_norm_act_nchw_fwd.cuh"

namespace hd::cuda {
namespace {

constexpr int64_t kLeastUnits = 512;    // of a part of a contiguous plane, if that leaves enough parts: 8 KiB
constexpr int64_t kSpareParts = 32768;  // beyond one part for each plane there are at most so many more

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

// The power of two from 32 to kPlaneThreads at which a thread has about four of these units.
int threads_for(int64_t units) {
  int threads = 32;
  while (threads < kPlaneThreads && threads * 4 < units) threads *= 2;
  return threads;
}

// The threads that work on a row of so many units: few, so that each has several, but neighbours in memory.
int lanes_for(int64_t units) {
  int lanes = 8;
  while (lanes < kPlaneThreads && lanes * 8 <= units) lanes *= 2;
  return lanes;
}

// Shared memory in units of 16 bytes: what goes with so many of x, and how many fit.
struct Room {
  int64_t width, padded_width, ends;  // in pixels; units at ends of rows
  bool padded;                        // the padded plane is held beside x

  int64_t padded_units(int64_t units) const { return padded ? ceil_div(units * padded_width, width) + ends : 0; }
  int64_t fitting(int64_t available) const {
    if (!padded) return available;
    return std::max<int64_t>((available - ends - 1) * width / (width + padded_width), 0);
  }
};

// Into how many parts to divide a plane of so many units if a block holds `most` of them at a time, or `half` and those
// of its next part, and the GPU `resident` blocks.
int64_t count_parts(int64_t units, int64_t planes, int64_t most, int64_t half, int64_t resident) {
  if (units <= most && (planes >= resident / 2 || units <= 2 * kLeastUnits)) return 1;
  int64_t count = std::max(ceil_div(units, most), std::min(ceil_div(resident, planes), units / kLeastUnits));
  if (planes * count > resident && half > 0 && ceil_div(units, half) <= resident) {
    // From the least number on, that at which blocks have the least to do: the last of their turns may not be for all.
    int64_t best = count = std::max(count, ceil_div(units, half));
    for (const int64_t end = std::min(2 * count, resident); count <= end; ++count)
      if (ceil_div(planes * count, resident) * best < ceil_div(planes * best, resident) * count) best = count;
    count = best;
  }
  return std::min({count, resident, (planes + kSpareParts) / planes});
}

// How one kernel is launched.
struct PlaneLaunch {
  Parts parts;
  int64_t blocks, shared;
  int threads;
};

// Divide planes among the blocks of a kernel that holds units of the padded plane beside those of x, or does not.
template <typename T, typename Kernel>
PlaneLaunch plan_nchw(const Norm& n, Kernel* kernel, bool aligned, bool padded) {
  constexpr int64_t V = kPack<T>;
  const Device& device = current_device();
  const int64_t reduction = kReduction * static_cast<int64_t>(sizeof(float));
  const int64_t bytes = shared_of_one(device, kPlaneBlocks);
  const int64_t available = (bytes - reduction) / 16, resident = resident_blocks(kernel, kPlaneThreads, bytes);
  const Room room{n.width, n.padded_width(), 3 * n.pad / V + 4, padded};
  const int64_t most = room.fitting(available), half = room.fitting(available / 2);
  if (most < 1)
    throw Error(
        "instance_norm_act: a row padded by %d does not fit this GPU's shared memory; pad less, or the result with "
        "pad2d",
        n.pad);
  const int64_t units = ceil_div(n.pixels() + (aligned ? 0 : V - 1), V);
  PlaneLaunch launch{};
  Parts& parts = launch.parts;
  parts.units = static_cast<int>(ceil_div(units, count_parts(units, n.planes, most, half, resident)));
  parts.count = static_cast<int>(ceil_div(units, parts.units));
  parts.items = static_cast<unsigned>(n.planes * parts.count);
  launch.threads = parts.count == 1 ? threads_for(units) : kPlaneThreads;
  launch.blocks = launch.threads < kPlaneThreads ? n.planes : std::min<int64_t>(parts.items, resident);
  parts.lanes = std::min(lanes_for(n.width / V), launch.threads);
  parts.buffers = launch.blocks < parts.items && parts.units <= half ? 2 : 1;
  parts.held = static_cast<int>(std::min<int64_t>(parts.units, most));
  parts.chunks = static_cast<int>(ceil_div(parts.units, parts.held));
  parts.padded_held = static_cast<int>(room.padded_units(parts.held));
  parts.pixels = n.pixels();
  parts.padded_pixels = n.padded_pixels();
  parts.counters = reinterpret_cast<unsigned*>(n.scratch + 2 * (n.planes + kSpareParts));
  launch.shared = reduction + 16 * parts.buffers * (parts.held + parts.padded_held);
  return launch;
}

// Blocks that share planes wait for each other, which takes a cooperative launch.
template <typename Kernel, typename... Arguments>
void run_nchw(Kernel* kernel, const PlaneLaunch& launch, uintptr_t stream, Arguments... arguments) {
  if (launch.parts.count > 1)
    HD_LAUNCH_COOPERATIVE(kernel, launch.blocks, launch.threads, launch.shared, stream, arguments..., launch.parts);
  else
    HD_LAUNCH(kernel, launch.blocks, launch.threads, launch.shared, stream, arguments..., launch.parts);
}

// Two numbers of every part of every plane, and a counter for each plane.
int64_t scratch_nchw(const Tensor& x) {
  const int64_t planes = x.shape[0] * x.shape[1];
  return 2 * (planes + kSpareParts) + planes;
}

template <typename T>
void fwd_nchw(Norm n, const Tensor& x, const Tensor& residual, const Tensor& y, uintptr_t stream) {
  const int64_t* stride = residual.stride;
  if (!residual || stride[2] == n.width || n.height == 1) flatten(n);
  const Residual<T> added{residual.as<T>(), stride[0], stride[1], stride[2]};
  const auto kernel = instance_norm_act_fwd_nchw_kernel<T>;
  run_nchw(kernel, plan_nchw<T>(n, kernel, are_aligned(x, n), false), stream, x.as<const T>(), added, y.as<T>(), n);
}

template <typename T>
void bwd_nchw(Norm n, const Tensor& dy, const Tensor& x, const Tensor& dx, const Tensor& dresidual, uintptr_t stream) {
  flatten(n);
  const auto kernel = instance_norm_act_bwd_nchw_kernel<T>;
  run_nchw(kernel, plan_nchw<T>(n, kernel, are_aligned(x, n), true), stream, dy.as<const T>(), x.as<const T>(),
           dx.as<T>(), dresidual.as<T>(), n);
}

}  // namespace
}  // namespace hd::cuda
