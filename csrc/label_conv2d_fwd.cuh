// label_conv2d forward. A window of one class copies one row of the table summed over the taps. Any other is a sum over
// the rows of the kernel and, in each, over its runs of one class. The table is summed beforehand over the first and
// the last taps of each row, so that a run costs one row of it, and so do all boundaries among eight taps.
#pragma once

#include "label_conv2d.cuh"

namespace hd::cuda {
namespace {

// The sums of one row of the kernel by slots: over the first 1 ... side taps, over the last side - 1 ... 1, and each
// tap between the first and the last.
__host__ __device__ constexpr int slots_of(int side) { return side == 1 ? 1 : 3 * side - 3; }
// The slot of the taps [begin, end), which begin or end the row, or are one.
__device__ __forceinline__ int slot_of(int begin, int end, int side) {
  const int slot = end == side ? side + begin - 1 : 2 * side - 2 + begin;
  return begin == 0 ? end - 1 : slot;
}
// The sets of taps of which some are on a boundary, in a group of them.
__host__ __device__ constexpr int edge_sets(int side) { return 1 << (side < kEdgeBits ? side : kEdgeBits); }

// Channels are padded to multiples of so many, for 16-byte accesses.
constexpr int kChannelPack = 8;

// Sums of the table, made by a kernel of their own. Class n_labels, which is none, has rows of zeros.
struct Sums {
  float* slots;   // [side, slots, n_labels + 1, padded]
  float* edges;   // [side, edge_groups, edge_sets, padded]
  void* windows;  // [n_labels + 1, padded] in the dtype of the result: over all taps
  int padded;
  DType dtype;  // of the result

  __host__ __device__ int64_t in_slots(const Conv& conv) const {
    return static_cast<int64_t>(conv.side) * (conv.n_labels + 1) * padded;  // threads; one makes all slots
  }
  __host__ __device__ int64_t in_edges(const Conv& conv) const {
    return static_cast<int64_t>(conv.side) * edge_groups(conv.side) * edge_sets(conv.side) * padded;
  }
  __host__ __device__ int64_t in_windows(const Conv& conv) const {
    return static_cast<int64_t>(conv.n_labels + 1) * padded;
  }
};

// One channel of the table: [side * side, rows] at a stride.
struct Column {
  const float* values;  // null for a channel that is padding
  int64_t tap, row;     // strides

  __device__ __forceinline__ Column(const Conv& conv, const float* table, int channel)
      : values(channel < conv.channels ? table + channel : nullptr),
        tap(static_cast<int64_t>(conv.rows) * conv.channels),
        row(conv.channels) {}
  __device__ __forceinline__ float at(int t, int64_t r) const {
    return values == nullptr ? 0.f : values[t * tap + r * row];
  }
};

__device__ __forceinline__ void sum_slots(const Conv& conv, const Column& column, int i, int64_t label, int64_t step,
                                          float* target) {
  const int side = conv.side;
  const bool known = label < conv.n_labels;
  float sum = 0.f;
  for (int j = 0; j < side; ++j) {
    const float value = known ? column.at(i * side + j, label) : 0.f;
    target[j * step] = sum += value;
    if (j > 0 && j + 1 < side) target[slot_of(j, j + 1, side) * step] = value;
  }
  sum = 0.f;
  for (int j = side - 1; j > 0; --j)
    target[slot_of(j, side, side) * step] = sum += known ? column.at(i * side + j, label) : 0.f;
}

// A thread for each channel of each row of the slots, but the slots themselves, of the edges and of the windows.
__global__ void __launch_bounds__(kThreads)
    label_conv2d_sums_kernel(Conv conv, const float* __restrict__ table, Sums sums) {
  const int side = conv.side;
  const int64_t plane = sums.in_windows(conv);
  int64_t at = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  const int channel = static_cast<int>(at % sums.padded);
  const Column column(conv, table, channel);
  if (at < sums.in_slots(conv)) {
    const int64_t i = at / plane, in_plane = at - i * plane;
    return sum_slots(conv, column, static_cast<int>(i), in_plane / sums.padded, plane,
                     sums.slots + i * slots_of(side) * plane + in_plane);
  }
  at -= sums.in_slots(conv);
  float sum = 0.f;
  if (at < sums.in_edges(conv)) {
    const int64_t set = at / sums.padded, group = set / edge_sets(side);
    const int i = static_cast<int>(group / edge_groups(side)), first = static_cast<int>(group % edge_groups(side));
    for (int k = 0; k < kEdgeBits && conv.edges(); ++k) {
      const int j = first * kEdgeBits + k;
      if ((set % edge_sets(side) >> k & 1) != 0 && j < side) sum += column.at(i * side + j, conv.n_labels);
    }
    sums.edges[at] = sum;
    return;
  }
  at -= sums.in_edges(conv);
  if (at >= plane) return;
  const int64_t label = at / sums.padded;
  for (int t = 0; t < side * side && label < conv.n_labels; ++t) sum += column.at(t, label);
  with_one_of<float, bf16, f16>(sums.dtype, [&](auto type) {
    using T = decltype(type);
    static_cast<T*>(sums.windows)[at] = from_float<T>(sum);
  });
}

// An element of either 16-bit type. Nearly all elements of the result are copied, whichever it is.
struct Half {
  uint16_t bits;
};

// Sums as elements of the result.
template <typename T, int V>
__device__ __forceinline__ Pack<T, V> rounded(const float (&sum)[V], DType dtype) {
  Pack<T, V> pack;
  const auto round = [&](auto type) {
#pragma unroll
    for (int v = 0; v < V; ++v) pack.at[v] = bit_cast<T>(from_float<decltype(type)>(sum[v]));
  };
  if constexpr (std::is_same_v<T, Half>)
    with_one_of<bf16, f16>(dtype, round);
  else
    round(T{});
  return pack;
}

template <int V>
__device__ __forceinline__ void add_row(const float* row, float weight, float (&sum)[V]) {
  if constexpr (V % 4 == 0) {
#pragma unroll
    for (int v = 0; v < V; v += 4) {
      const float4 pack = __ldg(reinterpret_cast<const float4*>(row + v));
      sum[v] += weight * pack.x;
      sum[v + 1] += weight * pack.y;
      sum[v + 2] += weight * pack.z;
      sum[v + 3] += weight * pack.w;
    }
  } else {
#pragma unroll
    for (int v = 0; v < V; ++v) sum[v] += weight * __ldg(row + v);
  }
}

// Add the parts of a mixed pixel at tap j of a row of the kernel, whose sums are given.
template <int V>
__device__ __forceinline__ void add_parts(const Conv& conv, int64_t image, int code, int j, const float* slots,
                                          const float* edges, unsigned pitch, float (&sum)[V]) {
  const unsigned slot = static_cast<unsigned>(slot_of(j, j + 1, conv.side)) * (conv.n_labels + 1);
  const unsigned set = j / kEdgeBits * edge_sets(conv.side) + (1u << j % kEdgeBits);
  for_each_part<true>(conv.planes, image, code, [&](int part, float weight) {
    add_row(nth(slots, slot + conv.class_of(part), pitch), weight, sum);
    if (conv.on_edge(part)) add_row(nth(edges, set, pitch), weight, sum);
  });
}

// The V channels of the result, from `channel` on, at the window whose first pixel is given.
template <bool kPooled, int V>
__device__ __forceinline__ void sum_window(const Conv& conv, const Sums& sums, const Pixel* first, int64_t image,
                                           int channel, float (&sum)[V]) {
  const int side = conv.side, sets = edge_sets(side), groups = edge_groups(side);
  const unsigned labels = static_cast<unsigned>(conv.n_labels) + 1, pitch = sums.padded * sizeof(float);
  const unsigned nearest = edge_bits(side, 0);
  const float *slots = sums.slots + channel, *edges = sums.edges + channel;
#pragma unroll 1
  for (int i = 0; i < side; ++i, first += conv.under_width()) {
    const unsigned set = first->edges() & nearest;
    if (set != 0) add_row(nth(edges, set, pitch), 1.f, sum);
#pragma unroll 1
    for (int k = 1; k < groups; ++k)
      add_row(nth(edges, k * sets + (first[k * kEdgeBits].edges() & edge_bits(side, k)), pitch), 1.f, sum);
#pragma unroll 1
    for (int begin = 0, end; begin < side; begin = end) {
      const Pixel pixel = first[begin];
      end = min(begin + pixel.run(), side);
      if (begin > 0 && end < side) end = begin + 1;  // there are no sums of several taps amid the row
      if (kPooled && pixel.label < 0)
        add_parts(conv, image, pixel.label, begin, slots, edges, pitch, sum);
      else
        add_row(nth(slots, slot_of(begin, end, side) * labels + pixel.label, pitch), 1.f, sum);
    }
    slots = nth(slots, slots_of(side) * labels, pitch);
    edges = nth(edges, groups * sets, pitch);
  }
}

// What the pixels of a tile see, in shared memory: their classes, and the list of those that see several codes.
struct Windows {
  int label[kTile];
  uint16_t several[kTile];
  int count;
};

// A thread for each pixel; `same` is what load_codes has returned.
__device__ __forceinline__ void find_windows(const Conv& conv, const TileAt& tile, Pixel* under, bool same,
                                             Windows& windows) {
  if (threadIdx.x == 0) windows.count = 0;
  if (!same) look_ahead(conv, under);  // with a barrier
  const int pixel = static_cast<int>(threadIdx.x), y = pixel >> conv.tile_bits, x = pixel & (conv.tile_width() - 1);
  const Extent extent(conv, tile);
  int label = kOutside;
  if (y < extent.height && x < extent.width)
    label = same ? under[0].label : class_of_window(conv, under + (y * conv.under_width() + x) * conv.stride);
  const unsigned several = __ballot_sync(kAll, label == kMany), lane = threadIdx.x % 32;
  int start = 0;
  if (lane == 0 && several != 0) start = atomicAdd(&windows.count, __popc(several));
  start = __shfl_sync(kAll, start, 0);
  if (label == kMany)
    windows.several[start + __popc(several & ((1u << lane) - 1))] = static_cast<uint16_t>(threadIdx.x);
  windows.label[threadIdx.x] = label;
  __syncthreads();
}

// Copy V adjacent elements by one instruction.
template <int V, typename T>
__device__ __forceinline__ void copy_pack(T* target, const T* source) {
  if constexpr (V * sizeof(T) == 16)
    *reinterpret_cast<uint4*>(target) = __ldg(reinterpret_cast<const uint4*>(source));
  else
    store_pack(target, load_pack<V>(source));
}

// Write the same V channels to every pixel of a tile, whose first is given, in steps of `groups`.
template <int V, typename T>
__device__ __forceinline__ void fill_tile(const Conv& conv, const Extent& extent, const Pack<T, V>& pack, T* first,
                                          int group, int groups) {
  const unsigned pitch = conv.channels * sizeof(T);
#pragma unroll 4
  for (int pixel = group; pixel < kTile; pixel += groups) {
    const int y = pixel >> conv.tile_bits, x = pixel & (conv.tile_width() - 1);
    if (y < extent.height && x < extent.width) store_pack(nth(first, y * conv.out_width + x, pitch), pack);
  }
}

// Channels are adjacent: groups of threads write the V channels each of whole pixels.
template <typename T, int V, bool kPooled>
__global__ void __launch_bounds__(kThreads, kPooled ? 2 : 4)
    label_conv2d_pixels_kernel(Conv conv, Sums sums, T* __restrict__ y) {
  HD_SHARED(Pixel, under);
  __shared__ Windows windows;
  const TileAt tile(conv, blockIdx.x);
  const bool same = load_codes(conv, tile, under);
  if (!same) find_windows(conv, tile, under, same, windows);

  const int packs = conv.channels / V, thread = static_cast<int>(threadIdx.x), mask = conv.tile_width() - 1;
  const int lanes = min(packs, kThreads), group = thread / lanes, groups = kThreads / lanes;
  if (group >= groups) return;
  const unsigned pitch = conv.channels * sizeof(T), row_pitch = sums.padded * sizeof(T);
  y += ((static_cast<int64_t>(tile.image) * conv.out_height + tile.y) * conv.out_width + tile.x) * conv.channels;
  for (int channel = (thread - group * lanes) * V; channel < conv.channels; channel += lanes * V) {
    T* const own = y + channel;
    const auto target = [&](int pixel) {
      return nth(own, (pixel >> conv.tile_bits) * conv.out_width + (pixel & mask), pitch);
    };
    const T* rows = static_cast<const T*>(sums.windows) + channel;
    if (same) {
      fill_tile<V>(conv, Extent(conv, tile), load_pack<V>(nth(rows, under[0].label, row_pitch)), own, group, groups);
      continue;
    }
#pragma unroll 4
    for (int pixel = group; pixel < kTile; pixel += groups) {
      const int label = windows.label[pixel];
      if (label >= 0) copy_pack<V>(target(pixel), nth(rows, label, row_pitch));
    }
    for (int k = group; k < windows.count; k += groups) {
      const int pixel = windows.several[k];
      const int first = ((pixel >> conv.tile_bits) * conv.under_width() + (pixel & mask)) * conv.stride;
      float sum[V] = {};
      sum_window<kPooled>(conv, sums, under + first, tile.image, channel, sum);
      store_pack(target(pixel), rounded<T>(sum, sums.dtype));
    }
  }
}

// Channels are planes: kBand of them at a time are made in shared memory and then written row by row.
template <typename T, bool kPooled>
__global__ void __launch_bounds__(kThreads, kPooled ? 2 : 4)
    label_conv2d_planes_kernel(Conv conv, Sums sums, T* __restrict__ y, bool packed) {
  constexpr int V = 16 / sizeof(T), kPacks = 4, kBand = kPacks * V, kRow = kTile + V;
  HD_SHARED(Pixel, under);
  __shared__ Windows windows;
  __shared__ __align__(16) T made[kBand * kRow];
  const TileAt tile(conv, blockIdx.x);
  find_windows(conv, tile, under, load_codes(conv, tile, under), windows);

  const int thread = static_cast<int>(threadIdx.x), label = windows.label[thread], mask = conv.tile_width() - 1;
  const int64_t plane = static_cast<int64_t>(conv.out_height) * conv.out_width;
  y += tile.image * conv.channels * plane + static_cast<int64_t>(tile.y) * conv.out_width + tile.x;
  for (int begin = 0; begin < conv.channels; begin += kBand, y += kBand * plane) {
    const int band = min(kBand, conv.channels - begin), packs = (band + V - 1) / V;
    const T* rows = static_cast<const T*>(sums.windows) + begin;
    for (int k = 0; label >= 0 && k < packs; ++k) {
      const Pack<T, V> pack = load_pack<V>(rows + static_cast<int64_t>(label) * sums.padded + k * V);
#pragma unroll
      for (int v = 0; v < V; ++v) made[(k * V + v) * kRow + thread] = pack.at[v];
    }
    const int pack = thread % kPacks;
    for (int k = thread / kPacks; k < windows.count && pack < packs; k += kThreads / kPacks) {
      const int pixel = windows.several[k];
      const int first = ((pixel >> conv.tile_bits) * conv.under_width() + (pixel & mask)) * conv.stride;
      float sum[V] = {};
      sum_window<kPooled>(conv, sums, under + first, tile.image, begin + pack * V, sum);
      const Pack<T, V> own = rounded<T>(sum, sums.dtype);
#pragma unroll
      for (int v = 0; v < V; ++v) made[(pack * V + v) * kRow + pixel] = own.at[v];
    }
    __syncthreads();
    const int step = packed ? V : 1;
    for (int at = thread * step; at < band * kTile; at += kThreads * step) {
      const int c = at / kTile, pixel = at % kTile;
      if (windows.label[pixel] == kOutside) continue;  // packed: all pixels of a pack are, or none
      T* target = y + c * plane + ((pixel >> conv.tile_bits) * conv.out_width + (pixel & mask));
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
