// How blocks share the work on channels_last images, and the launches.
#pragma once

#include <algorithm>

#include "device.cuh"
#include "instance_norm_act_nhwc_bwd.cuh"
#include "instance_norm_act_nhwc_fwd.cuh"

namespace hd::cuda {
namespace {

constexpr int kResident = 2;          // blocks of a multiprocessor
constexpr int kLeastThreads = 64;     // of a block: the channels of a tile of 16-byte lanes are fewer
constexpr int64_t kLeastPixels = 64;  // pixels
constexpr int kWideTile = 256;        // bytes of a pixel where lanes are single elements, which may straddle sectors

// The lanes of a tile: at least so many, and less than twice as many, in tiles of about equal width.
int lanes_of(int64_t groups, int64_t least) {
  const int64_t tiles = std::max<int64_t>(groups / least, 1);
  return static_cast<int>(ceil_div(groups, tiles));
}

template <typename T, int V>
int lanes_of(const Norm& n) {
  return lanes_of(n.channels / V, V == 1 ? kWideTile / static_cast<int64_t>(sizeof(T)) : 4);
}

struct PixelLaunch {
  Tiling tiling;
  int threads;
  int64_t shared;  // bytes
  int64_t blocks() const { return static_cast<int64_t>(tiling.at_once) * tiling.parts; }
};

// How many units the grid takes at once, and how many blocks each of them has: a unit has as many as hold half of it in
// shared memory or, if there are units enough for all blocks, as few.
void divide(Tiling& t, int64_t pixels, int64_t pixels_held, int64_t grid) {
  const int64_t least = ceil_div(pixels, 2 * pixels_held);
  int64_t at_once = std::clamp<int64_t>(grid / least, 1, t.units);
  at_once = ceil_div(t.units, ceil_div(t.units, at_once));  // so that each round has about as many
  t.at_once = static_cast<int>(at_once);
  t.parts = static_cast<int>(std::min(grid / at_once, ceil_div(pixels, kLeastPixels)));
}

// Plan for a kernel that keeps so many arrays in shared memory.
template <typename T, int V, typename Kernel>
PixelLaunch plan(Kernel* kernel, const Norm& n, int arrays, bool flat, const Tensor& scratch) {
  const Device& device = current_device();
  const int64_t budget = std::min(device.shared_block, device.shared_multiprocessor / kResident - kReserved);
  PixelLaunch launch{};
  Tiling& t = launch.tiling;
  t.lanes = lanes_of<T, V>(n);
  t.tiles = static_cast<int>(ceil_div(n.channels / V, t.lanes));
  t.units = static_cast<int>(n.planes / n.channels * t.tiles);
  const int64_t grid =
      std::min(resident_blocks(kernel, kPixelThreads, budget), int64_t{kResident} * device.multiprocessors);
  const auto held_at = [&](int threads) {  // steps
    const int64_t step = static_cast<int64_t>(sizeof(T)) * arrays * V * t.lanes * (threads / t.lanes);
    return (budget - Shared<T, V>::aside(threads, t.lanes)) / step;
  };
  divide(t, n.pixels(), held_at(kPixelThreads) * (kPixelThreads / t.lanes), grid);

  t.part = ceil_div(n.pixels(), t.parts);
  launch.threads = kPixelThreads;
  while (launch.threads / 2 >= std::max(kLeastThreads, t.lanes) && launch.threads / 2 / t.lanes * kSteps<V> >= t.part)
    launch.threads /= 2;
  t.rows = launch.threads / t.lanes;
  const int64_t batch = static_cast<int64_t>(t.rows) * kSteps<V>, unit = t.part >= 8 * batch ? batch : t.rows;
  t.part = ceil_div(t.part, unit) * unit;
  t.parts = static_cast<int>(ceil_div(n.pixels(), t.part));
  t.held = static_cast<int>(std::min(held_at(launch.threads), ceil_div(t.part, t.rows)));
  launch.shared = Shared<T, V>::aside(launch.threads, t.lanes) +
                  static_cast<int64_t>(sizeof(T)) * arrays * V * t.lanes * t.rows * t.held;
  const int64_t resident = resident_blocks(kernel, launch.threads, launch.shared);
  if (t.parts == 1) t.at_once = static_cast<int>(std::min<int64_t>(t.units, resident));

  t.relu = n.slope == 0.f;
  t.leaky = n.slope != 0.f && n.slope != 1.f;
  t.pixel_bytes = n.channels * static_cast<int>(sizeof(T));
  t.flat = flat;
  t.reach = n.pad == 0 || n.pad_mode == PadMode::zero ? -1 : n.pad;
  t.inside = {std::max(n.height - 2 * t.reach - 2, 0), std::max(n.width - 2 * t.reach - 2, 0)};
  t.width = Divider(n.width);
  const int tile = t.lanes * V;
  t.merged = tile;
  while (t.merged > 1 && ceil_div(t.parts, launch.threads / t.merged) > kMerged) --t.merged;
  t.partial = scratch.as<SumPair>();
  t.totals = t.partial + 2 * launch.blocks() * tile;
  t.counters = reinterpret_cast<unsigned*>(t.totals + int64_t{2} * t.at_once * tile);
  return launch;
}

// For each block two rounds of two numbers for each channel of a tile, as many for the unit, and two counters.
int64_t scratch_nhwc(const Tensor& x) {
  const int64_t blocks = int64_t{kResident} * current_device().multiprocessors;
  const int64_t channels = std::min<int64_t>(x.shape[1], kPixelThreads);
  return blocks * (2 * 2 * 2 * channels + 2);
}

// Call fn(V) with how many channels a thread may own: 16 bytes of them, or one.
template <typename T, typename F>
void with_channels(bool is_whole, const F& fn) {
  if (is_whole) return fn(std::integral_constant<int, kPack<T>>{});
  fn(std::integral_constant<int, 1>{});
}

template <typename T>
void fwd_nhwc(const Norm& n, const Tensor& x, const Tensor& residual, const Tensor& y, const Tensor& scratch,
              uintptr_t stream) {
  const int64_t* stride = residual.stride;
  const auto is_whole = [](int64_t elements) { return elements % kPack<T> == 0; };
  const bool whole = is_whole(n.channels) && is_aligned(x, 16) && is_aligned(residual, 16) && is_aligned(y, 16) &&
                     is_whole(stride[0]) && is_whole(stride[2]) && is_whole(stride[3]);
  const bool dense = !residual || (stride[3] == n.channels && stride[2] == int64_t{n.width} * n.channels);
  with_channels<T>(whole, [&](auto channels) {
    constexpr int V = decltype(channels)::value;
    const auto kernel = instance_norm_act_fwd_nhwc_kernel<T, V>;
    const PixelLaunch launch = plan<T, V>(kernel, n, 1, n.pad == 0 && dense, scratch);
    const PixelResidual<T> added{residual.as<T>(), stride[0], stride[2], stride[3]};
    HD_LAUNCH_COOPERATIVE(kernel, launch.blocks(), launch.threads, launch.shared, stream, x.as<const T>(), added,
                          y.as<T>(), n, launch.tiling);
  });
}

template <typename T>
void bwd_nhwc(const Norm& n, const Tensor& dy, const Tensor& x, const Tensor& dx, const Tensor& dresidual,
              const Tensor& scratch, uintptr_t stream) {
  const bool whole = n.channels % kPack<T> == 0 && is_aligned(x, 16) && is_aligned(dy, 16) && is_aligned(dx, 16) &&
                     is_aligned(dresidual, 16);
  with_channels<T>(whole, [&](auto channels) {
    constexpr int V = decltype(channels)::value;
    const auto kernel = instance_norm_act_bwd_nhwc_kernel<T, V>;
    const PixelLaunch launch = plan<T, V>(kernel, n, 2, n.pad == 0, scratch);
    HD_LAUNCH_COOPERATIVE(kernel, launch.blocks(), launch.threads, launch.shared, stream, dy.as<const T>(),
                          x.as<const T>(), dx.as<T>(), dresidual.as<T>(), n, launch.tiling);
  });
}

}  // namespace
}  // namespace hd::cuda
