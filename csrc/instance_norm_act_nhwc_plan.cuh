// How blocks share the work on channels_last images, and the launches.
#pragma once

#include <algorithm>

#include "device.cuh"
#include "instance_norm_act_nhwc_bwd.cuh"
#include "instance_norm_act_nhwc_fwd.cuh"

namespace hd::cuda {
namespace {

constexpr int kResident = 2;          // blocks of a multiprocessor
constexpr int kLeastThreads = 64;     // of a block; at least as many as a tile of 16-byte lanes has channels
constexpr int64_t kLeastPixels = 64;  // of a part, if there is more than one
constexpr int kAhead = 64 << 10;      // bytes that a block prefetches
constexpr int kWideTile = 256;        // bytes of a tile of single elements, whose ends may share sectors with others

// The lanes of a tile: at least so many, and less than twice as many, in tiles of about equal width.
int lanes_of(int64_t groups, int64_t least) {
  const int64_t tiles = std::max<int64_t>(groups / least, 1);
  return static_cast<int>(ceil_div(groups, tiles));
}

template <typename T, int V>
int lanes_of(const Norm& n) {  // for 16-byte lanes 64 bytes or more
  return lanes_of(n.channels / V, V == 1 ? kWideTile / static_cast<int64_t>(sizeof(T)) : 4);
}

struct PixelLaunch {
  Tiling tiling;
  int threads;
  int64_t shared;  // bytes
  int64_t blocks() const { return static_cast<int64_t>(tiling.at_once) * tiling.parts; }
};

// How many units the grid takes at once, and how many blocks each of them has: so many that shared memory holds half of
// it or, if there are blocks enough, more.
void divide(Tiling& t, int64_t pixels, int64_t pixels_held, int64_t grid) {
  const int64_t least = ceil_div(pixels, 2 * std::max<int64_t>(pixels_held, 1));
  int64_t at_once = std::clamp<int64_t>(grid / least, 1, t.units);
  at_once = ceil_div(t.units, ceil_div(t.units, at_once));  // so that each round has about as many
  t.at_once = static_cast<int>(at_once);
  t.parts = static_cast<int>(std::min(grid / at_once, ceil_div(pixels, kLeastPixels)));
  t.part = ceil_div(pixels, t.parts);
}

// Threads of a block, at most so many, such that each has a whole batch of steps, and what follows from that. Parts are
// whole numbers of batches if that makes them little larger.
template <int V>
int set_rows(Tiling& t, int64_t pixels, int threads) {
  while (threads / 2 >= std::max(kLeastThreads, t.lanes) && threads / 2 / t.lanes * kSteps<V> >= t.part) threads /= 2;
  t.rows = threads / t.lanes;
  const int64_t batch = static_cast<int64_t>(t.rows) * kSteps<V>, unit = t.part >= 8 * batch ? batch : t.rows;
  t.part = ceil_div(t.part, unit) * unit;
  t.parts = static_cast<int>(ceil_div(pixels, t.part));
  t.merged = t.lanes * V;
  while (t.merged > 1 && ceil_div(t.parts, threads / t.merged) > kMerged) --t.merged;
  return threads;
}

void set_geometry(Tiling& t, const Norm& n, bool flat, int64_t element_bytes) {
  t.relu = n.slope == 0.f;
  t.leaky = n.slope != 0.f && n.slope != 1.f;
  t.pixel_bytes = n.channels * static_cast<int>(element_bytes);
  t.flat = flat;
  t.reach = n.pad == 0 || n.pad_mode == PadMode::zero ? -1 : n.pad;
  t.inside = {std::max(n.height - 2 * t.reach - 2, 0), std::max(n.width - 2 * t.reach - 2, 0)};
  t.width = Divider(n.width);
}

// Plan for a kernel that keeps so many arrays in shared memory.
template <typename T, int V, typename Kernel>
PixelLaunch plan_nhwc(Kernel* kernel, const Norm& n, int arrays, bool flat, const Tensor& scratch) {
  PixelLaunch launch{};
  Tiling& t = launch.tiling;
  set_geometry(t, n, flat, sizeof(T));
  t.lanes = lanes_of<T, V>(n);
  t.tiles = static_cast<int>(ceil_div(n.channels / V, t.lanes));
  t.units = static_cast<int>(n.planes / n.channels * t.tiles);
  const int64_t tile = t.lanes * V, bytes = tile * arrays * static_cast<int64_t>(sizeof(T));  // of a pixel in a tile
  const auto aside = [&](int threads) { return Shared<T, V>::aside(threads, t.lanes); };
  const Device& device = current_device();
  int64_t room = shared_of_one(device, kResident);
  int threads = kPixelThreads;
  while (aside(threads) > room && threads / 2 >= std::max(kLeastThreads, t.lanes)) threads /= 2;
  room = std::max(room, aside(threads));
  const auto fitting = [&](int threads) { return (room - aside(threads)) / (bytes * (threads / t.lanes)); };  // steps
  const int64_t grid = std::min(resident_blocks(kernel, threads, room), int64_t{kResident} * device.multiprocessors);
  divide(t, n.pixels(), fitting(threads) * (threads / t.lanes), grid);
  launch.threads = set_rows<V>(t, n.pixels(), threads);
  t.held = static_cast<int>(std::min(fitting(launch.threads), ceil_div(t.part, t.rows)));
  t.ahead = static_cast<int>(kAhead / bytes);
  launch.shared = aside(launch.threads) + bytes * t.rows * t.held;
  if (t.parts == 1)
    t.at_once = static_cast<int>(std::min<int64_t>(t.units, resident_blocks(kernel, launch.threads, launch.shared)));
  t.partial = scratch.as<SumPair>();
  t.totals = t.partial + 2 * launch.blocks() * tile;
  t.counters = reinterpret_cast<unsigned*>(t.totals + 2 * t.at_once * tile);
  return launch;
}

// Blocks that share a unit wait for each other, which takes a cooperative launch.
template <typename Kernel, typename... Arguments>
void run_nhwc(Kernel* kernel, const PixelLaunch& launch, uintptr_t stream, Arguments... arguments) {
  if (launch.tiling.parts > 1)
    HD_LAUNCH_COOPERATIVE(kernel, launch.blocks(), launch.threads, launch.shared, stream, arguments..., launch.tiling);
  else
    HD_LAUNCH(kernel, launch.blocks(), launch.threads, launch.shared, stream, arguments..., launch.tiling);
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
    const PixelResidual<T> added{residual.as<T>(), stride[0], stride[2], stride[3]};
    run_nhwc(kernel, plan_nhwc<T, V>(kernel, n, 1, n.pad == 0 && dense, scratch), stream, x.as<const T>(), added,
             y.as<T>(), n);
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
    run_nhwc(kernel, plan_nhwc<T, V>(kernel, n, 2, n.pad == 0, scratch), stream, dy.as<const T>(), x.as<const T>(),
             dx.as<T>(), dresidual.as<T>(), n);
  });
}

}  // namespace
}  // namespace hd::cuda
