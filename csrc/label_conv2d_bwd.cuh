// The gradient of label_conv2d's table. No two threads add to the same number, and the partial results of the blocks
// are added in the order of the blocks, so results are the same in every run.
//
// Where all pixels under a tile are of one class and none is on a boundary, the gradient is summed by class, which
// counts for all taps at once. The other tiles are left to label_conv2d_bwd_mixed.cuh.
#pragma once

#include "label_conv2d.cuh"

namespace hd::cuda {
namespace {

constexpr int kSlice = 64;  // channels of a block, at most

struct Gradient {
  const void* dy;
  DType dtype;     // of dy
  float* uniform;  // [uniform_parts, n_labels, C]: sums over tiles of one class
  float* sums;     // [n_labels, C]: the same of all parts
  float* taps;     // [mixed_parts, side * side, rows, C]: sums over the other tiles
  int* mixed;      // [tiles] whether a tile is one of the others
  int uniform_parts, mixed_parts;
};

// Sums of a channels_last gradient: a thread adds V channels of every few pixels.
template <int V>
struct PixelSums {
  static constexpr int kShared = kThreads * V;
  float sum[V];
  int channels, lanes, group, groups;

  __device__ __forceinline__ explicit PixelSums(int channels)
      : sum{}, channels(channels), lanes(channels / V), group(threadIdx.x / lanes), groups(kThreads / lanes) {}
  template <typename T>
  __device__ __forceinline__ void add(const Conv& conv, const T* tile, const Extent& extent) {
    constexpr int kAtOnce = 4;
    if (group >= groups) return;
    const T* source = tile + (static_cast<int>(threadIdx.x) - group * lanes) * V;
    const unsigned pitch = conv.channels * sizeof(T);
    for (int first = group; first < kTile; first += kAtOnce * groups) {
      Pack<T, V> packs[kAtOnce];
#pragma unroll
      for (int k = 0; k < kAtOnce; ++k) {
        const int pixel = first + k * groups, row = pixel >> conv.tile_bits, column = pixel & (conv.tile_width() - 1);
        packs[k] = row < extent.height && column < extent.width
                       ? load_pack<V>(nth(source, row * conv.out_width + column, pitch))
                       : Pack<T, V>{};
      }
#pragma unroll
      for (int k = 0; k < kAtOnce; ++k)
#pragma unroll
        for (int v = 0; v < V; ++v) sum[v] += to_float(packs[k].at[v]);
    }
  }
  // Add to target [channels] and begin anew.
  __device__ __forceinline__ void flush(float* shared, float* target) {
    if (group < groups)
#pragma unroll
      for (int v = 0; v < V; ++v) shared[threadIdx.x * V + v] = sum[v];
    __syncthreads();
    const int channel = static_cast<int>(threadIdx.x);
    if (channel < channels) {
      float total = 0.f;
      for (int k = 0; k < groups; ++k) total += shared[k * channels + channel];
      target[channel] += total;
    }
    __syncthreads();
#pragma unroll
    for (int v = 0; v < V; ++v) sum[v] = 0.f;
  }
};

// Sums of a contiguous gradient: a warp owns every eighth channel, its lanes add pixels.
struct PlaneSums {
  static constexpr int kWarps = kThreads / 32, kEach = kSlice / kWarps, kShared = 1;
  float sum[kEach];
  int channels;

  __device__ __forceinline__ explicit PlaneSums(int channels) : sum{}, channels(channels) {}
  template <typename T>
  __device__ __forceinline__ void add(const Conv& conv, const T* tile, const Extent& extent) {
    const int lane = static_cast<int>(threadIdx.x) % 32, warp = static_cast<int>(threadIdx.x) / 32;
    const int64_t plane = static_cast<int64_t>(conv.out_height) * conv.out_width;
    for (int pixel = lane; pixel < kTile; pixel += 32) {
      const int row = pixel >> conv.tile_bits, column = pixel & (conv.tile_width() - 1);
      if (row >= extent.height || column >= extent.width) continue;
      const T* source = tile + warp * plane + (row * conv.out_width + column);
#pragma unroll
      for (int k = 0; k < kEach; ++k)
        if (warp + k * kWarps < channels) sum[k] += to_float(source[k * kWarps * plane]);
    }
  }
  __device__ __forceinline__ void flush(float*, float* target) {
    const int warp = static_cast<int>(threadIdx.x) / 32;
#pragma unroll
    for (int k = 0; k < kEach; ++k) {
      const float total = warp_sum(sum[k]);
      const int channel = warp + k * kWarps;
      if (channel < channels && threadIdx.x % 32 == 0) target[channel] += total;
      sum[k] = 0.f;
    }
  }
};

// A block sums a range of tiles for a slice of channels. The first slice also tells which tiles are left.
template <typename Adder, bool kLast, typename... Ts>
__global__ void __launch_bounds__(kThreads, 3) label_conv2d_uniform_kernel(Conv conv, Gradient gradient) {
  HD_SHARED(Pixel, under);
  __shared__ float partial[Adder::kShared];
  const int64_t from = static_cast<int64_t>(grid_row()) * kSlice;
  if (from >= conv.channels) return;
  const int begin = static_cast<int>(from), channels = min(kSlice, conv.channels - begin);
  float* target = gradient.uniform + static_cast<int64_t>(blockIdx.x) * conv.n_labels * conv.channels + begin;
  for (int label = static_cast<int>(threadIdx.x) / 32; label < conv.n_labels; label += kThreads / 32)
    for (int c = static_cast<int>(threadIdx.x) % 32; c < channels; c += 32)
      target[static_cast<int64_t>(label) * conv.channels + c] = 0.f;

  Adder adder(channels);
  int held = -1;  // the class of what the adder holds
  const int64_t tiles = conv.tiles, last = tiles * (blockIdx.x + 1) / gridDim.x;
  for (int64_t at = tiles * blockIdx.x / gridDim.x; at < last; ++at) {
    const TileAt tile(conv, static_cast<unsigned>(at));
    const bool same = load_codes(conv, tile, under);
    const int label = under[0].label;
    __syncthreads();
    if (begin == 0 && threadIdx.x == 0) gradient.mixed[at] = !same;
    if (!same || label == conv.n_labels) continue;  // a tile without a class counts for nothing
    if (held >= 0 && held != label) adder.flush(partial, target + static_cast<int64_t>(held) * conv.channels);
    held = label;
    const int64_t pixel = static_cast<int64_t>(tile.y) * conv.out_width + tile.x;
    const int64_t plane = static_cast<int64_t>(conv.out_height) * conv.out_width;
    const int64_t from = tile.image * conv.channels * plane;
    const int64_t first = from + (kLast ? pixel * conv.channels + begin : begin * plane + pixel);
    with_one_of<Ts...>(gradient.dtype, [&](auto type) {
      adder.add(conv, static_cast<const decltype(type)*>(gradient.dy) + first, Extent(conv, tile));
    });
  }
  if (held >= 0) adder.flush(partial, target + static_cast<int64_t>(held) * conv.channels);
}

constexpr int kSums = 16;  // threads that share one number

// parts [count, size] -> out [size]. Unless it is null, the sums of each class in `spread` are added for every tap.
__global__ void __launch_bounds__(32 * kSums)
    label_conv2d_merge_kernel(Conv conv, const float* __restrict__ parts, int count, int64_t size,
                              const float* __restrict__ spread, float* __restrict__ out) {
  __shared__ double sums[kSums][32];
  const int64_t at = static_cast<int64_t>(blockIdx.x) * 32 + threadIdx.x % 32;
  const int mine = static_cast<int>(threadIdx.x) / 32;
  double sum = 0;  // partial sums of millions of pixels are added here, and there are few of them
#pragma unroll 4
  for (int k = mine; k < count && at < size; k += kSums) sum += static_cast<double>(parts[k * size + at]);
  sums[mine][threadIdx.x % 32] = sum;
  __syncthreads();
  if (mine != 0 || at >= size) return;
  for (int k = 1; k < kSums; ++k) sum += sums[k][threadIdx.x];
  if (spread != nullptr) {
    const int64_t channel = at % conv.channels, row = at / conv.channels % conv.rows;
    if (row < conv.n_labels) sum += static_cast<double>(spread[row * conv.channels + channel]);
  }
  out[at] = static_cast<float>(sum);
}

}  // namespace
}  // namespace hd::cuda
