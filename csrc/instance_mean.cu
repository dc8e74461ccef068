// Reducing adds floats atomically, but few. As long as a warp sees one instance, its lanes add in registers; where it
// sees several, runs of equal rows are added up across its lanes, and each run is added once. That goes to a table of
// the image's instances in shared memory and from there to the sums, or to the sums at once where an image has many
// instances. Few channels of a channels_last image are read 16 bytes at a time through shared memory.
#include <algorithm>

#include "cuda.cuh"

namespace hd::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kPixels = 4;         // of a thread at a time: 16 bytes of rows
constexpr int kChannels = 4;       // of one block of a reduction
constexpr int kSteps = 4;          // of one thread of a reduction
constexpr int kTableRows = 512;    // instances of an image whose sums fit shared memory
constexpr int kStagedBytes = 32;   // of the largest channels_last pixel that goes through shared memory
constexpr int kTilePixels = 1024;  // of one block that broadcasts to a channels_last image
constexpr int64_t kPiece = 4096;   // pixels of an instance, on average, that one block adds up in order
constexpr int64_t kMostPieces = 256;
constexpr unsigned kAll = 0xffffffffu;

struct Layout {
  int64_t batch, pixels;
  int channels;
  unsigned tiles;  // of an image
  bool packed;     // accesses of kPixels pixels, or of 16 bytes of a channels_last image, are aligned
  bool rows;       // accesses of the rows of kPixels pixels are aligned
  bool staged;     // pixels go through shared memory
  bool last;       // channels are adjacent
};

// Where the sums of one image and group of channels go. Rows count from the image's first.
struct Sums {
  float* table;   // [rows, kChannels] in shared memory, null if there are too many
  float* global;  // [rows, C], from the group's first channel on
  int stride;     // C
  int channels;   // of the group

  __device__ __forceinline__ void add(int row, int c, float value) const {
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
                                Layout layout) {
  __shared__ float table[kTableRows * kChannels];
  HD_SHARED(T, tiles);  // pixels that are staged
  const int64_t b = blockIdx.x / layout.tiles, tile = blockIdx.x % layout.tiles;
  const int channel = static_cast<int>(blockIdx.y) * kChannels, channels = layout.channels;
  const int64_t first = offsets[b], n = offsets[b + 1] - first;
  const bool fits = n <= kTableRows;
  float* target = out + first * channels + channel;
  const Sums sums = {fits ? table : nullptr, target, channels, min(kChannels, channels - channel)};
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

// One block adds up one piece of one instance, in an order that is always the same.
template <typename T>
__global__ void __launch_bounds__(kThreads, 2)
    instance_mean_reduce_sorted_kernel(const T* __restrict__ x,             // [B, C, H, W]
                                       const int64_t* __restrict__ order,   // [B * H * W] pixels by instance
                                       const int64_t* __restrict__ starts,  // [N + 1] first of each instance in it
                                       float* __restrict__ partial,         // [pieces, N, C]
                                       Layout layout) {
  __shared__ float warps[kThreads / 32][kChannels];
  const int64_t row = blockIdx.x, pieces = gridDim.y, piece = blockIdx.y;
  const int channel = static_cast<int>(blockIdx.z) * kChannels, channels = layout.channels;
  const int64_t start = starts[row], stop = starts[row + 1], size = (stop - start + pieces - 1) / pieces;
  const int64_t end = min(start + (piece + 1) * size, stop);
  const int64_t b = order[start] / layout.pixels;
  const int64_t pixel = layout.last ? channels : 1, plane = layout.last ? 1 : layout.pixels;
  const T* image = x + b * channels * layout.pixels + channel * plane;
  float sum[kChannels] = {};
#pragma unroll 4
  for (int64_t i = start + piece * size + threadIdx.x; i < end; i += blockDim.x) {
    const int64_t p = order[i] - b * layout.pixels;
#pragma unroll
    for (int c = 0; c < kChannels; ++c)
      if (channel + c < channels) sum[c] += to_float(image[p * pixel + c * plane]);
  }
#pragma unroll
  for (int c = 0; c < kChannels; ++c) {
    sum[c] = warp_sum(sum[c]);
    if (threadIdx.x % 32 == 0) warps[threadIdx.x / 32][c] = sum[c];
  }
  __syncthreads();
  const int c = static_cast<int>(threadIdx.x);
  if (c >= kChannels || channel + c >= channels) return;
  float total = 0.f;
  for (unsigned w = 0; w < blockDim.x / 32; ++w) total += warps[w][c];
  partial[(piece * gridDim.x + row) * channels + channel + c] = total;
}

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

// Of x with elements of so many bytes, in tiles of so many pixels and for accesses of `pack` pixels of a plane.
Layout layout_of(const Tensor& x, const Tensor& rows, int64_t bytes, int64_t tile, int64_t pack) {
  const int64_t pixels = x.shape[2] * x.shape[3], pixel = x.shape[1] * bytes;
  const bool last = is_channels_last(x);
  const bool whole = last ? x.shape[0] == 1 || pixels * pixel % 16 == 0 : pixels % pack == 0;
  const bool packed = whole && is_aligned(x, 16);
  return {x.shape[0],
          pixels,
          static_cast<int>(x.shape[1]),
          static_cast<unsigned>(ceil_div(pixels, tile)),
          packed,
          (x.shape[0] == 1 || pixels % kPixels == 0) && is_aligned(rows, 16),
          last ? pixel <= kStagedBytes : !packed,
          last};
}

// Bytes of shared memory for the pixels of a block that are staged.
size_t staged_bytes(const Layout& layout, size_t bytes) {
  return layout.staged ? kThreads * kPixels * (layout.last ? layout.channels : kChannels) * bytes : 0;
}

}  // namespace

void instance_mean_reduce(Tensor x, Tensor rows, Tensor offsets, Tensor sums, uintptr_t stream) {
  with_floating(x.dtype, [&](auto type) {
    using T = decltype(type);
    const Layout layout = layout_of(x, rows, sizeof(T), kThreads * kPixels * kSteps, kPixels);
    const dim3 grid(static_cast<unsigned>(layout.batch * layout.tiles),
                    static_cast<unsigned>(ceil_div(layout.channels, kChannels)));
    HD_LAUNCH(instance_mean_reduce_kernel<T>, grid, kThreads, staged_bytes(layout, sizeof(T)), stream, x.as<T>(),
              rows.as<int>(), offsets.as<int64_t>(), sums.as<float>(), layout);
  });
}

void instance_mean_reduce_sorted(Tensor x, Tensor order, Tensor starts, Tensor partial, uintptr_t stream) {
  with_floating(x.dtype, [&](auto type) {
    using T = decltype(type);
    const Layout layout = layout_of(x, order, sizeof(T), 1, 1);
    const int64_t n = partial.shape[1], each = layout.batch * layout.pixels / n;  // pixels of an instance
    const dim3 grid(static_cast<unsigned>(n), static_cast<unsigned>(partial.shape[0]),
                    static_cast<unsigned>(ceil_div(layout.channels, kChannels)));
    HD_LAUNCH(instance_mean_reduce_sorted_kernel<T>, grid, each > 64 ? kThreads : 32, 0, stream, x.as<T>(),
              order.as<int64_t>(), starts.as<int64_t>(), partial.as<float>(), layout);
  });
}

int64_t instance_mean_pieces(int64_t pixels, int64_t instances) {
  return std::clamp<int64_t>(pixels / (kPiece * instances), 1, kMostPieces);
}

void instance_mean_broadcast(Tensor table, Tensor rows, Tensor counts, Tensor y, uintptr_t stream) {
  with_floating(y.dtype, [&](auto type) {
    using T = decltype(type);
    constexpr int64_t V = 16 / sizeof(T);
    const Layout layout = layout_of(y, rows, sizeof(T), kThreads * V, V);
    const auto launch = [&](auto kernel, int64_t blocks, size_t shared) {
      HD_LAUNCH(kernel, blocks, kThreads, shared, stream, table.as<float>(), rows.as<int>(), counts.as<int64_t>(),
                y.as<T>(), layout);
    };
    if (layout.last)
      launch(instance_mean_broadcast_last_kernel<T>, ceil_div(layout.batch * layout.pixels, kTilePixels),
             staged_bytes(layout, sizeof(T)));
    else
      launch(instance_mean_broadcast_kernel<T>, layout.batch * layout.tiles, 0);
  });
}

}  // namespace hd::cuda
