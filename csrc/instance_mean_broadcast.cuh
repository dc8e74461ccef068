// Means of instances, written to the pixels of the instances.
#pragma once

#include "instance_mean.cuh"

namespace hd::cuda {
namespace {

constexpr int kTilePixels = 1024;  // of one block that broadcasts to a channels_last image

__device__ __forceinline__ float count_of(const int64_t* counts, int row) {
  return counts == nullptr ? 1.f : static_cast<float>(__ldg(counts + row));
}

// Divide by a count, with one step of Newton's method. A plain division calls a function for divisors that no count is,
// and registers are saved around the call.
__device__ __forceinline__ float divided(float x, float count) {
  const float inverse = __fdividef(1.f, count), near = x * inverse;
  const float exact = __fmaf_rn(__fmaf_rn(-near, count, x), inverse, near);
  return exact == exact ? exact : near;  // infinity stays infinity
}

// A thread writes a few pixels, all their channels.
template <typename T>
__global__ void __launch_bounds__(kThreads, 4)
    instance_mean_broadcast_kernel(const float* __restrict__ table,     // [N, C]
                                   const int* __restrict__ rows,        // [B, H, W]
                                   const int64_t* __restrict__ counts,  // [N] or null: not divided
                                   T* __restrict__ y,                   // [B, C, H, W] contiguous
                                   Layout layout) {
  constexpr int V = 16 / sizeof(T);
  const int64_t b = blockIdx.x / layout.tiles, begin = static_cast<int64_t>(blockIdx.x % layout.tiles) * (kThreads * V);
  const int64_t p = begin + static_cast<int64_t>(threadIdx.x) * (layout.packed ? V : 1);
  const int step = layout.packed ? 1 : kThreads;  // from one pixel of the thread to the next
  const int* own = rows + b * layout.pixels + p;
  T* target = y + b * layout.channels * layout.pixels + p;
  if (p >= layout.pixels) return;

  int row[V];
  float count[V];
  bool uniform = true;
#pragma unroll
  for (int v = 0; v < V; v += kPixels) {
    if (layout.packed && layout.rows) {
      const Pack<int, kPixels> pack = load_pack<kPixels>(own + v);
#pragma unroll
      for (int i = 0; i < kPixels; ++i) row[v + i] = pack.at[i];
      continue;
    }
#pragma unroll
    for (int i = v; i < v + kPixels; ++i) row[i] = p + i * step < layout.pixels ? own[i * step] : own[0];
  }
#pragma unroll
  for (int v = 0; v < V; ++v) uniform &= row[v] == row[0];
#pragma unroll
  for (int v = 0; v < V; ++v) count[v] = v == 0 || !uniform ? count_of(counts, row[v]) : count[0];

  for (int c = 0; c < layout.channels; ++c, target += layout.pixels) {
    Pack<T, V> pack;
#pragma unroll
    for (int v = 0; v < V; ++v) {
      const float* value = table + static_cast<int64_t>(row[v]) * layout.channels + c;
      pack.at[v] = v == 0 || !uniform ? from_float<T>(divided(__ldg(value), count[v])) : pack.at[0];
    }
    if (layout.packed) {
      store_pack(target, pack);
      continue;
    }
#pragma unroll
    for (int v = 0; v < V; ++v)
      if (p + v * step < layout.pixels) target[v * step] = pack.at[v];
  }
}

// Write `end` elements of a channels_last image whose pixels have many.
template <typename T>
__device__ __forceinline__ void broadcast_elements(const float* table, const int* rows, const int64_t* counts,
                                                   T* target, const Layout& layout, unsigned end) {
  constexpr unsigned V = 16 / sizeof(T);
  const unsigned channels = static_cast<unsigned>(layout.channels);
  const bool packed = layout.packed && channels % V == 0;
#pragma unroll 1
  for (unsigned e = threadIdx.x * (packed ? V : 1); e < end; e += kThreads * (packed ? V : 1)) {
    const unsigned pixel = e / channels;
    const float count = count_of(counts, rows[pixel]);
    const float* source = table + static_cast<int64_t>(rows[pixel]) * channels + (e - pixel * channels);
    if (!packed) {
      target[e] = from_float<T>(divided(__ldg(source), count));
      continue;
    }
    Pack<T, V> pack;
#pragma unroll
    for (unsigned v = 0; v < V; ++v) pack.at[v] = from_float<T>(divided(__ldg(source + v), count));
    store_pack(target + e, pack);
  }
}

// A tile of kTilePixels of the batch. Those of few channels go through shared memory, kPixels of each thread.
template <typename T>
__global__ void __launch_bounds__(kThreads, 4)
    instance_mean_broadcast_last_kernel(const float* __restrict__ table,     // [N, C]
                                        const int* __restrict__ rows,        // [B, H, W]
                                        const int64_t* __restrict__ counts,  // [N] or null: not divided
                                        T* __restrict__ y,                   // [B, C, H, W] channels_last
                                        Layout layout) {
  constexpr int V = 16 / sizeof(T);
  HD_SHARED(T, tile);  // [kTilePixels, C] if staged
  const int64_t begin = static_cast<int64_t>(blockIdx.x) * kTilePixels, total = layout.batch * layout.pixels;
  const int channels = layout.channels, count = static_cast<int>(min(static_cast<int64_t>(kTilePixels), total - begin));
  const int* own = rows + begin;
  T* target = y + begin * channels;
  if (!layout.staged)
    return broadcast_elements(table, own, counts, target, layout, static_cast<unsigned>(count) * channels);

  const int first = static_cast<int>(threadIdx.x) * kPixels;
  int row[kPixels];
  if (layout.rows && first + kPixels <= count) {
    const Pack<int, kPixels> pack = load_pack<kPixels>(own + first);
#pragma unroll
    for (int v = 0; v < kPixels; ++v) row[v] = pack.at[v];
  } else {
#pragma unroll
    for (int v = 0; v < kPixels; ++v) row[v] = own[min(first + v, count - 1)];
  }
  float divisor[kPixels];
  bool uniform = true;
#pragma unroll
  for (int v = 0; v < kPixels; ++v) {
    uniform &= row[v] == row[0];
    divisor[v] = v == 0 || row[v] != row[0] ? count_of(counts, row[v]) : divisor[0];
  }
  for (int c = 0; c < channels; ++c) {
    const float value = divided(__ldg(table + static_cast<int64_t>(row[0]) * channels + c), divisor[0]);
#pragma unroll
    for (int v = 0; v < kPixels; ++v)
      tile[(first + v) * channels + c] = from_float<T>(
          uniform || v == 0 ? value : divided(__ldg(table + static_cast<int64_t>(row[v]) * channels + c), divisor[v]));
  }
  __syncthreads();
  const int elements = count * channels, whole = layout.packed ? elements / V * V : 0;
  for (int i = static_cast<int>(threadIdx.x) * V; i < whole; i += kThreads * V)
    store_pack(target + i, load_pack<V>(tile + i));
  for (int i = whole + static_cast<int>(threadIdx.x); i < elements; i += kThreads) target[i] = tile[i];
}

}  // namespace
}  // namespace hd::cuda
