// label_conv2d forward. A window of one code copies one row of the table summed over the taps. Any other is a sum over
// the rows of the kernel and, in each, over its runs of one class: sums of the table over the first, the last and
// single taps of a row are made beforehand, so that a run costs one or two rows of them.
#pragma once

#include "label_conv2d.cuh"

namespace hd::cuda {
namespace {

// The sums of one row of the kernel by slots: the first 1 ... side taps, the last side - 1 ... 1, each of those
// between.
__host__ __device__ constexpr int slots_of(int side) { return side == 1 ? 1 : 3 * side - 3; }
// The slot of the taps [begin, end), or -1 if there is none.
__device__ __forceinline__ int slot_of(int begin, int end, int side) {
  if (begin == 0) return end - 1;
  if (end == side) return side + begin - 1;
  return end - begin == 1 ? 2 * side - 2 + begin : -1;
}

// Channels are padded to multiples of so many, for 16-byte accesses.
constexpr int kChannelPack = 8;
inline int64_t padded_channels(int64_t channels) { return ceil_div(channels, kChannelPack) * kChannelPack; }

struct Sums {
  float* slots;   // [side, slots, rows, padded]
  void* windows;  // [codes, padded] in the dtype of the result: over all taps
  int padded;
};

// A thread for each row of the kernel, row of the table and channel, and then for each code and channel.
template <typename T>
__global__ void __launch_bounds__(kThreads)
    label_conv2d_sums_kernel(Conv conv, const float* __restrict__ table, Sums sums) {
  const int side = conv.side;
  const int64_t width = sums.padded, plane = conv.rows * width, in_slots = side * plane;
  int64_t at = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  const int channel = static_cast<int>(at % width);
  const bool real = channel < conv.channels;
  const int64_t tap = static_cast<int64_t>(conv.rows) * conv.channels;  // from one to the next in the table
  if (at < in_slots) {
    const int64_t i = at / plane, row = (at - i * plane) / width;
    const float* source = table + i * side * tap + row * conv.channels + channel;
    float* target = sums.slots + i * slots_of(side) * plane + row * width + channel;
    float sum = 0.f;
    for (int j = 0; j < side; ++j) {
      const float value = real ? source[j * tap] : 0.f;
      target[slot_of(0, j + 1, side) * plane] = sum += value;
      if (j > 0 && j + 1 < side) target[(2 * side - 2 + j) * plane] = value;
    }
    sum = 0.f;
    for (int j = side - 1; j > 0; --j) target[slot_of(j, side, side) * plane] = sum += real ? source[j * tap] : 0.f;
    return;
  }
  at -= in_slots;
  if (at >= conv.codes() * width) return;
  const int code = static_cast<int>(at / width), row = conv.class_of(code);
  float sum = 0.f;
  for (int t = 0; t < side * side && real; ++t) {
    const float* source = table + t * tap + channel;
    if (row < conv.n_labels) sum += source[static_cast<int64_t>(row) * conv.channels];
    if (conv.on_edge(code)) sum += source[static_cast<int64_t>(conv.n_labels) * conv.channels];
  }
  static_cast<T*>(sums.windows)[at] = from_float<T>(sum);
}

template <int V>
__device__ __forceinline__ void add_row(const float* row, float weight, float (&sum)[V]) {
  constexpr int kWide = V % 4 == 0 ? 4 : 1;
#pragma unroll
  for (int v = 0; v < V; v += kWide) {
    const Pack<float, kWide> pack = load_pack<kWide>(row + v);
#pragma unroll
    for (int k = 0; k < kWide; ++k) sum[v + k] += weight * pack.at[k];
  }
}

// Sums of the table for one row of the kernel, from some channel on.
struct RowSums {
  const float* slots;
  int rows, padded, side;

  __device__ __forceinline__ const float* at(int slot, int row) const {
    return slots + (static_cast<int64_t>(slot) * rows + row) * padded;
  }
  // Add those of a row of the table over the taps [begin, end).
  template <int V>
  __device__ __forceinline__ void add(int row, int begin, int end, float (&sum)[V]) const {
    const int slot = slot_of(begin, end, side);
    if (slot < 0) add_row(at(begin - 1, row), -1.f, sum);
    add_row(at(slot < 0 ? end - 1 : slot, row), 1.f, sum);
  }
};

// The V channels of the result, from `channel` on, at the window whose first pixel is given.
template <bool kPooled, int V>
__device__ __forceinline__ void sum_window(const Conv& conv, const Sums& sums, const Under& under, int64_t image,
                                           int first, int channel, float (&sum)[V]) {
  const int side = conv.side, n_labels = conv.n_labels;
  const int64_t step = static_cast<int64_t>(slots_of(side)) * conv.rows * sums.padded;
  RowSums row = {sums.slots + channel, conv.rows, sums.padded, side};
#pragma unroll 1
  for (int i = 0; i < side; ++i, first += conv.under_width(), row.slots += step) {
#pragma unroll 1
    for (int begin = 0, end; begin < side; begin = end) {
      const int code = under.codes[first + begin];
      end = min(begin + (under.runs[first + begin] & 255), side);
      if (!kPooled || code >= 0) {
        const int label = conv.class_of(code);
        if (label < n_labels) row.add(label, begin, end, sum);
        continue;
      }
      for_each_part<kPooled>(conv.planes, image, code, [&](int part, float weight) {
        const int label = conv.class_of(part), slot = slot_of(begin, end, side);
        if (label < n_labels) add_row(row.at(slot, label), weight, sum);
        if (conv.on_edge(part)) add_row(row.at(slot, n_labels), weight, sum);
      });
    }
    if (!conv.edges()) continue;
#pragma unroll 1
    for (int begin = 0, end; begin < side; begin = end) {
      end = min(begin + (under.runs[first + begin] >> 8), side);
      if (conv.on_edge(under.codes[first + begin])) row.add(n_labels, begin, end, sum);
    }
  }
}

// What the pixels of a tile see, in shared memory: their codes, and the list of those that see several.
struct Windows {
  int code[kTile];
  uint16_t several[kTile];
  int count;
};

__device__ __forceinline__ void find_windows(const Conv& conv, const TileAt& tile, const Under& under,
                                             Windows& windows) {
  if (threadIdx.x == 0) windows.count = 0;
  const int code = classify(conv, tile, under);  // has a barrier
  const unsigned several = __ballot_sync(kAll, code == kMany), lane = threadIdx.x % 32;
  int start = 0;
  if (lane == 0 && several != 0) start = atomicAdd(&windows.count, __popc(several));
  start = __shfl_sync(kAll, start, 0);
  if (code == kMany) windows.several[start + __popc(several & ((1u << lane) - 1))] = static_cast<uint16_t>(threadIdx.x);
  windows.code[threadIdx.x] = code;
  __syncthreads();
}

// Channels are adjacent: groups of threads write the V channels each of whole pixels.
template <typename T, int V, bool kPooled>
__global__ void __launch_bounds__(kThreads, kPooled ? 2 : 4)
    label_conv2d_pixels_kernel(Conv conv, Sums sums, T* __restrict__ y) {
  HD_SHARED(int, shared);
  __shared__ Windows windows;
  const TileAt tile(conv, blockIdx.x);
  const Under under = under_in(shared, conv);
  find_windows(conv, tile, under, windows);

  const int packs = conv.channels / V, threads = static_cast<int>(threadIdx.x);
  const int lanes = min(packs, kThreads), group = threads / lanes, groups = kThreads / lanes;
  if (group >= groups) return;
  const int mask = conv.tile_width() - 1;
  y += ((static_cast<int64_t>(tile.image) * conv.out_height + tile.y) * conv.out_width + tile.x) * conv.channels;
  const auto target = [&](int pixel) {
    return y + (static_cast<int64_t>(pixel >> conv.tile_bits) * conv.out_width + (pixel & mask)) * conv.channels;
  };
  for (int channel = (threads - group * lanes) * V; channel < conv.channels; channel += lanes * V) {
    const T* rows = static_cast<const T*>(sums.windows) + channel;
#pragma unroll 4
    for (int pixel = group; pixel < kTile; pixel += groups) {
      const int code = windows.code[pixel];
      if (code < 0) continue;
      store_pack(target(pixel) + channel, load_pack<V>(rows + static_cast<int64_t>(code) * sums.padded));
    }
    for (int k = group; k < windows.count; k += groups) {
      const int pixel = windows.several[k];
      const int first = ((pixel >> conv.tile_bits) * conv.under_width() + (pixel & mask)) * conv.stride;
      float sum[V] = {};
      sum_window<kPooled>(conv, sums, under, tile.image, first, channel, sum);
      Pack<T, V> pack;
#pragma unroll
      for (int v = 0; v < V; ++v) pack.at[v] = from_float<T>(sum[v]);
      store_pack(target(pixel) + channel, pack);
    }
  }
}

// Channels are planes: a tile of kBand of them at a time is made in shared memory and then written row by row.
template <typename T, bool kPooled>
__global__ void __launch_bounds__(kThreads, kPooled ? 2 : 4)
    label_conv2d_planes_kernel(Conv conv, Sums sums, T* __restrict__ y, bool packed) {
  constexpr int V = 16 / sizeof(T), kBand = 4 * V, kRow = kTile + V, kPacks = kBand / V;
  HD_SHARED(int, shared);
  __shared__ Windows windows;
  __shared__ __align__(16) T made[kBand * kRow];
  const TileAt tile(conv, blockIdx.x);
  const Under under = under_in(shared, conv);
  find_windows(conv, tile, under, windows);

  const int thread = static_cast<int>(threadIdx.x), code = windows.code[thread], mask = conv.tile_width() - 1;
  const int64_t plane = static_cast<int64_t>(conv.out_height) * conv.out_width;
  y += tile.image * conv.channels * plane + static_cast<int64_t>(tile.y) * conv.out_width + tile.x;
  for (int begin = 0; begin < conv.channels; begin += kBand) {
    const int band = min(kBand, conv.channels - begin), packs = (band + V - 1) / V;
    if (code >= 0) {
      const T* row = static_cast<const T*>(sums.windows) + static_cast<int64_t>(code) * sums.padded + begin;
      for (int k = 0; k < packs; ++k) {
        const Pack<T, V> pack = load_pack<V>(row + k * V);
#pragma unroll
        for (int v = 0; v < V; ++v) made[(k * V + v) * kRow + thread] = pack.at[v];
      }
    }
    const int pack = thread % kPacks;
    for (int k = thread / kPacks; k < windows.count && pack < packs; k += kThreads / kPacks) {
      const int pixel = windows.several[k];
      const int first = ((pixel >> conv.tile_bits) * conv.under_width() + (pixel & mask)) * conv.stride;
      float sum[V] = {};
      sum_window<kPooled>(conv, sums, under, tile.image, first, begin + pack * V, sum);
#pragma unroll
      for (int v = 0; v < V; ++v) made[(pack * V + v) * kRow + pixel] = from_float<T>(sum[v]);
    }
    __syncthreads();
    const int step = packed ? V : 1;
    for (int at = thread * step; at < band * kTile; at += kThreads * step) {
      const int c = at / kTile, pixel = at % kTile;
      if (windows.code[pixel] == kOutside) continue;  // packed: all pixels of a pack are, or none
      T* target =
          y + (begin + c) * plane + static_cast<int64_t>(pixel >> conv.tile_bits) * conv.out_width + (pixel & mask);
      if (packed)
        store_pack(target, load_pack<V>(made + c * kRow + pixel));
      else
        *target = made[c * kRow + pixel];
    }
    __syncthreads();
  }
}

}  // namespace
}  // namespace hd::cuda
