// Sums over instances, by atomic additions of floats, which are few. As long as a warp sees one instance, its lanes add
// in registers; where it sees several, runs of equal rows are added up across its lanes, and each run is added once.
// That goes to a table of the image's instances in shared memory and from there to the sums, or to the sums at once
// where an image has many instances. Few channels of a channels_last image are read 16 bytes at a time through shared
// memory.
#pragma once

#include "instance_mean.cuh"

namespace hd::cuda {
namespace {

constexpr int kSteps = 4;        // of one thread of a reduction
constexpr int kTableRows = 512;  // instances of an image whose sums fit shared memory
constexpr unsigned kAll = 0xffffffffu;

// Where the sums of one image and group of channels go. Rows count from the image's first.
struct Sums {
  float* table;   // [rows, kChannels] in shared memory, null if there are too many
  float* global;  // [rows, C], from the group's first channel on
  unsigned rows;  // of the image; what other rows add is left out, since it has no place
  int stride;     // C
  int channels;   // of the group

  __device__ __forceinline__ void add(int row, int c, float value) const {
    if (static_cast<unsigned>(row) >= rows) return;
    if (table != nullptr)
      atomicAdd(&table[row * kChannels + c], value);
    else
      atomicAdd(&global[static_cast<int64_t>(row) * stride + c], value);
  }
};

// What the lanes of a warp have added up of one instance, the same for all of them.
struct Held {
  int row;  // -1: none
  float sum[kChannels];

  __device__ __forceinline__ void flush(const Sums& sums) {
    if (row < 0) return;
#pragma unroll
    for (int c = 0; c < kChannels; ++c) {
      if (c >= sums.channels) break;
      const float total = warp_sum(sum[c]);
      if (threadIdx.x % 32 == 0) sums.add(row, c, total);
      sum[c] = 0.f;
    }
  }
};

// Adjacent pixels of one thread, as those of its warp are.
struct Pixels {
  int row[kPixels];  // -1 where there is no pixel
  float value[kPixels][kChannels];
};

// Add up the pixels of a warp that sees several instances. A run of equal rows that crosses lanes is summed by a scan
// that begins anew with each run, and the last of its lanes adds it.
__device__ __forceinline__ void add_runs(const Pixels& pixels, const Sums& sums) {
  const int lane = static_cast<int>(threadIdx.x) % 32, first = pixels.row[0], last = pixels.row[kPixels - 1];
  float head[kChannels] = {}, tail[kChannels] = {};  // the lane's last run, and its first unless they are the same
  bool uniform = true;
#pragma unroll
  for (int v = kPixels - 1; v >= 0; --v) {
    uniform &= pixels.row[v] == last;
#pragma unroll
    for (int c = 0; c < kChannels; ++c)
      if (uniform) tail[c] += pixels.value[v][c];
  }
  bool leading = !uniform;
#pragma unroll
  for (int v = 0; v + 1 < kPixels; ++v) {
    leading &= pixels.row[v] == first;
    bool trailing = true;
#pragma unroll
    for (int after = v; after < kPixels; ++after) trailing &= pixels.row[after] == last;
    const bool between = v > 0 && !leading && !trailing && pixels.row[v] >= 0;
#pragma unroll
    for (int c = 0; c < kChannels; ++c) {
      if (leading) head[c] += pixels.value[v][c];
      if (between && c < sums.channels) sums.add(pixels.row[v], c, pixels.value[v][c]);
    }
  }
  const int before = __shfl_up_sync(kAll, last, 1), after = __shfl_down_sync(kAll, first, 1);
  const bool continues = lane > 0 && before == first, ends = lane == 31 || after != last;
  const unsigned begins = __ballot_sync(kAll, !continues || !uniform);
  const int begin = 31 - __clz(static_cast<int>(begins & (kAll >> (31 - lane))));
#pragma unroll
  for (int c = 0; c < kChannels; ++c) {
    if (c >= sums.channels) break;
#pragma unroll
    for (int offset = 1; offset < 32; offset *= 2) {
      const float other = __shfl_up_sync(kAll, tail[c], offset);
      if (lane - offset >= begin) tail[c] += other;
    }
    const float other = __shfl_up_sync(kAll, tail[c], 1);
    if (!uniform && first >= 0) sums.add(first, c, continues ? head[c] + other : head[c]);
    if (ends && last >= 0) sums.add(last, c, tail[c]);
  }
}

__device__ __forceinline__ void add_pixels(const Pixels& pixels, const Sums& sums, Held& held) {
  const int common = __shfl_sync(kAll, pixels.row[0], 0);
  bool same = common >= 0;
#pragma unroll
  for (int v = 0; v < kPixels; ++v) same &= pixels.row[v] == common;
  if (!__all_sync(kAll, same)) return add_runs(pixels, sums);
  if (common != held.row) {
    held.flush(sums);
    held.row = common;
  }
#pragma unroll
  for (int v = 0; v < kPixels; ++v)
#pragma unroll
    for (int c = 0; c < kChannels; ++c) held.sum[c] += pixels.value[v][c];
}

// Rows of this thread's pixels from p on. They count from the image's first.
__device__ __forceinline__ void load_rows(const int* rows, const Layout& layout, int64_t p, int first,
                                          int (&out)[kPixels]) {
#pragma unroll
  for (int v = 0; v < kPixels; ++v) out[v] = -1;
  if (layout.rows && p + kPixels <= layout.pixels) {
    const Pack<int, kPixels> pack = load_pack<kPixels>(rows + p);
#pragma unroll
    for (int v = 0; v < kPixels; ++v) out[v] = pack.at[v] - first;
    return;
  }
#pragma unroll
  for (int v = 0; v < kPixels; ++v)
    if (p + v < layout.pixels) out[v] = rows[p + v] - first;
}

// The values of these pixels, of the channels from `channel` on.
template <typename T>
__device__ __forceinline__ void load_values(const T* image, const Layout& layout, int64_t p, int channel, int channels,
                                            float (&out)[kPixels][kChannels]) {
#pragma unroll
  for (int c = 0; c < kChannels; ++c) {
    if (layout.last) {
#pragma unroll
      for (int v = 0; v < kPixels; ++v)
        out[v][c] =
            c < channels && p + v < layout.pixels ? to_float(image[(p + v) * layout.channels + channel + c]) : 0.f;
      continue;
    }
    const bool exists = c < channels && p < layout.pixels;
    const auto pack = exists ? load_pack<kPixels>(image + (channel + c) * layout.pixels + p) : Pack<T, kPixels>{};
#pragma unroll
    for (int v = 0; v < kPixels; ++v) out[v][c] = to_float(pack.at[v]);
  }
}

// The same through shared memory, where a warp copies its pixels from p on: of channels_last images all channels.
template <typename T>
__device__ __forceinline__ void load_staged(const T* image, const Layout& layout, int64_t p, int channel, int channels,
                                            T* tile, float (&out)[kPixels][kChannels]) {
  constexpr int V = 16 / sizeof(T), kOwn = 32 * kPixels;
  const int lane = static_cast<int>(threadIdx.x) % 32, count = static_cast<int>(min(layout.pixels - p, int64_t{kOwn}));
  const int copies = layout.last ? 1 : channels, elements = count * (layout.last ? layout.channels : 1);
  const T* source = image + (layout.last ? p * layout.channels : channel * layout.pixels + p);
  __syncwarp();  // what was there has been read
#pragma unroll 1
  for (int c = 0; c < copies; ++c, source += layout.pixels) {
    const int packed = layout.packed ? elements / V * V : 0;
#pragma unroll 3
    for (int i = lane * V; i < packed; i += 32 * V) store_pack(tile + i, load_pack<V>(source + i));
#pragma unroll 1
    for (int i = packed + lane; i < elements; i += 32) tile[c * kOwn + i] = source[i];
  }
  __syncwarp();
  const int pixel = layout.last ? layout.channels : 1, plane = layout.last ? 1 : kOwn;
  tile += lane * kPixels * pixel + (layout.last ? channel : 0);
#pragma unroll
  for (int v = 0; v < kPixels; ++v)
#pragma unroll
    for (int c = 0; c < kChannels; ++c)
      out[v][c] = c < channels && lane * kPixels + v < count ? to_float(tile[v * pixel + c * plane]) : 0.f;
}

template <typename T>
__global__ void __launch_bounds__(kThreads, 3)
    instance_mean_reduce_kernel(const T* __restrict__ x,              // [B, C, H, W]
                                const int* __restrict__ rows,         // [B, H, W]
                                const int64_t* __restrict__ offsets,  // [B + 1] first row of each image
                                float* __restrict__ out,              // [N, C], added to
                                int64_t all_rows,                     // N
                                Layout layout) {
  __shared__ float table[kTableRows * kChannels];
  HD_SHARED(T, tiles);  // pixels that are staged
  const int64_t b = blockIdx.x / layout.tiles, tile = blockIdx.x % layout.tiles;
  const int64_t from = static_cast<int64_t>(grid_row()) * kChannels;
  if (from >= layout.channels) return;
  const int channel = static_cast<int>(from), channels = layout.channels;
  // Within the table, also if the offsets of an index that was put together by hand are not.
  const int64_t first = min(max(offsets[b], int64_t{0}), all_rows);
  const int64_t n = max(min(offsets[b + 1], all_rows) - first, int64_t{0});
  const bool fits = n <= kTableRows;
  float* target = out + first * channels + channel;
  const Sums sums = {fits ? table : nullptr, target, static_cast<unsigned>(n), channels,
                     min(kChannels, channels - channel)};
  if (fits)
    for (int i = static_cast<int>(threadIdx.x); i < n * kChannels; i += kThreads) table[i] = 0.f;
  __syncthreads();

  const T* image = x + b * channels * layout.pixels;
  const int lane = static_cast<int>(threadIdx.x) % 32, warp = static_cast<int>(threadIdx.x) / 32;
  T* own = tiles + warp * 32 * kPixels * (layout.last ? channels : kChannels);
  int64_t p = tile * (kThreads * kPixels * kSteps) + warp * 32 * kPixels;  // of the warp
  Held held = {-1, {}};
#pragma unroll 1
  for (int step = 0; step < kSteps; ++step, p += kThreads * kPixels) {
    Pixels pixels;
    load_rows(rows + b * layout.pixels, layout, p + lane * kPixels, static_cast<int>(first), pixels.row);
    if (layout.staged)
      load_staged(image, layout, p, channel, sums.channels, own, pixels.value);
    else
      load_values(image, layout, p + lane * kPixels, channel, sums.channels, pixels.value);
    add_pixels(pixels, sums, held);
  }
  held.flush(sums);

  __syncthreads();
  if (!fits) return;
  for (int i = static_cast<int>(threadIdx.x); i < n * kChannels; i += kThreads) {
    const int row = i / kChannels, c = i % kChannels;
    if (c < sums.channels && table[i] != 0.f) atomicAdd(&target[static_cast<int64_t>(row) * channels + c], table[i]);
  }
}

}  // namespace
}  // namespace hd::cuda
