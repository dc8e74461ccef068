// Reducing adds floats atomically, but few: as long as a warp sees one instance, its lanes add in registers; where it
// sees several, their pixels are first added up across the warp. What remains goes to a table of the image's instances
// in shared memory and from there to the sums, or to the sums at once where an image has many instances.
#include <algorithm>

#include "cuda.cuh"

namespace hd::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kPixels = 4;         // of a thread at a time: 16 bytes of rows
constexpr int kChannels = 4;       // of one block of a reduction
constexpr int kSteps = 4;          // of one thread of a reduction
constexpr int kTableRows = 512;    // instances of an image whose sums fit shared memory
constexpr int kRounds = 4;         // instances in a warp whose pixels are added across it
constexpr int kTilePixels = 1024;  // of one block that broadcasts to a channels_last image
constexpr int64_t kPiece = 4096;   // pixels of an instance, on average, that one block adds up in order
constexpr int64_t kMostPieces = 256;
constexpr unsigned kAll = 0xffffffffu;

struct Layout {
  int64_t batch, pixels;
  int channels;
  int64_t tiles;  // of an image
  bool packed;    // accesses of kPixels pixels, or of 16 bytes of a channels_last image, are aligned
  bool last;      // channels are adjacent
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

// Add N pixels of each lane whose warp sees several instances. Rows are -1 where there is no pixel.
template <int N>
__device__ __forceinline__ void add_mixed(const int (&rows)[N], const float (&values)[N][kChannels], const Sums& sums) {
  int row = rows[0];
  float own[kChannels] = {};
  bool uniform = true;
#pragma unroll
  for (int v = 0; v < N; ++v) {
    uniform &= rows[v] == row;
#pragma unroll
    for (int c = 0; c < kChannels; ++c) own[c] += values[v][c];
  }
  if (!uniform) {
#pragma unroll
    for (int v = 0; v < N; ++v)
#pragma unroll
      for (int c = 0; c < kChannels; ++c)
        if (rows[v] >= 0 && c < sums.channels) sums.add(rows[v], c, values[v][c]);
    row = -1;
  }
  unsigned left = __ballot_sync(kAll, row >= 0);
#pragma unroll 1
  for (int round = 0; round < kRounds && left != 0; ++round) {
    const int leader = __ffs(left) - 1, common = __shfl_sync(kAll, row, leader);
    const bool mine = row == common;
#pragma unroll
    for (int c = 0; c < kChannels; ++c) {
      if (c >= sums.channels) break;
      const float total = warp_sum(mine ? own[c] : 0.f);
      if (static_cast<int>(threadIdx.x % 32) == leader) sums.add(common, c, total);
    }
    left &= ~__ballot_sync(kAll, mine);
    if (mine) row = -1;
  }
#pragma unroll
  for (int c = 0; c < kChannels; ++c)
    if (row >= 0 && c < sums.channels) sums.add(row, c, own[c]);
}

// Pixels of one thread: adjacent ones, for wide accesses, or every 32nd of a stretch of its warp.
struct Pixels {
  int row[kPixels];  // -1 where there is no pixel
  float value[kPixels][kChannels];
};

__device__ __forceinline__ void add_pixels(const Pixels& pixels, bool adjacent, const Sums& sums, Held& held) {
  const int common = __shfl_sync(kAll, pixels.row[0], 0);
  bool same = common >= 0;
#pragma unroll
  for (int v = 0; v < kPixels; ++v) same &= pixels.row[v] == common;
  if (__all_sync(kAll, same)) {
    if (common != held.row) {
      held.flush(sums);
      held.row = common;
    }
#pragma unroll
    for (int v = 0; v < kPixels; ++v)
#pragma unroll
      for (int c = 0; c < kChannels; ++c) held.sum[c] += pixels.value[v][c];
  } else if (adjacent) {
    add_mixed(pixels.row, pixels.value, sums);
  } else {
    Pixels rest = pixels;  // shifted, as registers cannot be indexed; unrolled, this would be long
#pragma unroll 1
    for (int done = 0; done < kPixels; ++done) {
      const int row[1] = {rest.row[0]};
      float value[1][kChannels];
#pragma unroll
      for (int c = 0; c < kChannels; ++c) value[0][c] = rest.value[0][c];
      add_mixed(row, value, sums);
#pragma unroll
      for (int v = 0; v + 1 < kPixels; ++v) {
        rest.row[v] = rest.row[v + 1];
#pragma unroll
        for (int c = 0; c < kChannels; ++c) rest.value[v][c] = rest.value[v + 1][c];
      }
    }
  }
}

// The pixels of this thread from p on, of an image and its rows; channels from `channel` on.
template <typename T>
__device__ __forceinline__ Pixels load_adjacent(const T* image, const int* rows, const Layout& layout, int64_t p,
                                                int first, int channel, int channels) {
  Pixels pixels = {{-1, -1, -1, -1}, {}};
  if (p >= layout.pixels) return pixels;
  const Pack<int, kPixels> row = load_pack<kPixels>(rows + p);
#pragma unroll
  for (int v = 0; v < kPixels; ++v) pixels.row[v] = row.at[v] - first;
#pragma unroll
  for (int c = 0; c < kChannels; ++c) {
    if (c >= channels) break;
    const Pack<T, kPixels> pack = load_pack<kPixels>(image + (channel + c) * layout.pixels + p);
#pragma unroll
    for (int v = 0; v < kPixels; ++v) pixels.value[v][c] = to_float(pack.at[v]);
  }
  return pixels;
}

template <typename T>
__device__ __forceinline__ Pixels load_apart(const T* image, const int* rows, const Layout& layout, int64_t p,
                                             int first, int channel, int channels) {
  const int64_t pixel = layout.last ? layout.channels : 1, plane = layout.last ? 1 : layout.pixels;
  Pixels pixels = {{-1, -1, -1, -1}, {}};
#pragma unroll
  for (int v = 0; v < kPixels; ++v, p += 32) {
    if (p >= layout.pixels) break;
    pixels.row[v] = rows[p] - first;
#pragma unroll
    for (int c = 0; c < kChannels; ++c)
      if (c < channels) pixels.value[v][c] = to_float(image[p * pixel + (channel + c) * plane]);
  }
  return pixels;
}

template <typename T>
__global__ void __launch_bounds__(kThreads, 3)
    instance_mean_reduce_kernel(const T* __restrict__ x,              // [B, C, H, W]
                                const int* __restrict__ rows,         // [B, H, W]
                                const int64_t* __restrict__ offsets,  // [B + 1] first row of each image
                                float* __restrict__ out,              // [N, C], added to
                                Layout layout) {
  __shared__ float table[kTableRows * kChannels];
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
  const int* own = rows + b * layout.pixels;
  const bool adjacent = layout.packed && !layout.last;
  const int lane = static_cast<int>(threadIdx.x) % 32, before = static_cast<int>(threadIdx.x) - lane;  // threads
  int64_t p =
      tile * (kThreads * kPixels * kSteps) + (adjacent ? before + lane : before) * kPixels + (adjacent ? 0 : lane);
  Held held = {-1, {}};
#pragma unroll 1
  for (int step = 0; step < kSteps; ++step, p += kThreads * kPixels) {
    const Pixels pixels = adjacent
                              ? load_adjacent(image, own, layout, p, static_cast<int>(first), channel, sums.channels)
                              : load_apart(image, own, layout, p, static_cast<int>(first), channel, sums.channels);
    add_pixels(pixels, adjacent, sums, held);
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

// A thread writes a few pixels, all their channels.
template <typename T>
__global__ void __launch_bounds__(kThreads, 4)
    instance_mean_broadcast_kernel(const float* __restrict__ table,     // [N, C]
                                   const int* __restrict__ rows,        // [B, H, W]
                                   const int64_t* __restrict__ counts,  // [N] or null: not divided
                                   T* __restrict__ y,                   // [B, C, H, W] contiguous
                                   Layout layout) {
  constexpr int V = kPixels;
  const int64_t b = blockIdx.x / layout.tiles, begin = blockIdx.x % layout.tiles * (kThreads * V);
  const int64_t p = begin + static_cast<int64_t>(threadIdx.x) * (layout.packed ? V : 1);
  const int step = layout.packed ? 1 : kThreads;  // from one pixel of the thread to the next
  const int* own = rows + b * layout.pixels + p;
  T* target = y + b * layout.channels * layout.pixels + p;
  if (p >= layout.pixels) return;

  int row[V];
  float count[V];
  bool uniform = true;
  if (layout.packed) {
    const Pack<int, V> pack = load_pack<V>(own);
#pragma unroll
    for (int v = 0; v < V; ++v) row[v] = pack.at[v];
  } else {
#pragma unroll
    for (int v = 0; v < V; ++v) row[v] = p + v * kThreads < layout.pixels ? own[v * kThreads] : own[0];
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
      pack.at[v] = v == 0 || !uniform ? from_float<T>(__ldg(value) / count[v]) : pack.at[0];
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

// A thread writes adjacent elements of a tile of pixels, wherever pixels begin in them.
template <typename T>
__global__ void __launch_bounds__(kThreads)
    instance_mean_broadcast_last_kernel(const float* __restrict__ table,     // [N, C]
                                        const int* __restrict__ rows,        // [B, H, W]
                                        const int64_t* __restrict__ counts,  // [N] or null: not divided
                                        T* __restrict__ y,                   // [B, C, H, W] channels_last
                                        Layout layout) {
  constexpr int V = 16 / sizeof(T);
  const int64_t begin = static_cast<int64_t>(blockIdx.x) * kTilePixels, total = layout.batch * layout.pixels;
  const unsigned channels = static_cast<unsigned>(layout.channels);
  const unsigned end = static_cast<unsigned>(min(static_cast<int64_t>(kTilePixels), total - begin)) * channels;
  const int* own = rows + begin;
  T* target = y + begin * channels;
  for (unsigned e = threadIdx.x * V; e < end; e += kThreads * V) {
    unsigned pixel = e / channels, c = e % channels;
    int row = own[pixel];
    float count = count_of(counts, row);
    Pack<T, V> pack = {};
#pragma unroll
    for (int v = 0; v < V; ++v) {
      if (e + v >= end) break;
      pack.at[v] = from_float<T>(__ldg(table + static_cast<int64_t>(row) * channels + c) / count);
      if (++c < channels || e + v + 1 >= end) continue;
      c = 0;
      row = own[++pixel];
      count = count_of(counts, row);
    }
    if (layout.packed && e + V <= end) {
      store_pack(target + e, pack);
      continue;
    }
#pragma unroll
    for (int v = 0; v < V; ++v)
      if (e + v < end) target[e + v] = pack.at[v];
  }
}

// Of x, in tiles of so many pixels.
Layout layout_of(const Tensor& x, const Tensor& rows, int64_t tile) {
  const int64_t pixels = x.shape[2] * x.shape[3];
  const bool last = is_channels_last(x), whole = last || pixels % kPixels == 0;
  return {x.shape[0],
          pixels,
          static_cast<int>(x.shape[1]),
          ceil_div(pixels, tile),
          whole && is_aligned(x, 16) && is_aligned(rows, 16),
          last};
}

}  // namespace

void instance_mean_reduce(Tensor x, Tensor rows, Tensor offsets, Tensor sums, uintptr_t stream) {
  with_floating(x.dtype, [&](auto type) {
    using T = decltype(type);
    const Layout layout = layout_of(x, rows, kThreads * kPixels * kSteps);
    const dim3 grid(static_cast<unsigned>(layout.batch * layout.tiles),
                    static_cast<unsigned>(ceil_div(layout.channels, kChannels)));
    HD_LAUNCH(instance_mean_reduce_kernel<T>, grid, kThreads, 0, stream, x.as<T>(), rows.as<int>(),
              offsets.as<int64_t>(), sums.as<float>(), layout);
  });
}

void instance_mean_reduce_sorted(Tensor x, Tensor order, Tensor starts, Tensor partial, uintptr_t stream) {
  with_floating(x.dtype, [&](auto type) {
    using T = decltype(type);
    const Layout layout = layout_of(x, order, 1);
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
    const Layout layout = layout_of(y, rows, kThreads * kPixels);
    const auto launch = [&](auto kernel, int64_t blocks) {
      HD_LAUNCH(kernel, blocks, kThreads, 0, stream, table.as<float>(), rows.as<int>(), counts.as<int64_t>(), y.as<T>(),
                layout);
    };
    if (layout.last)
      launch(instance_mean_broadcast_last_kernel<T>, ceil_div(layout.batch * layout.pixels, kTilePixels));
    else
      launch(instance_mean_broadcast_kernel<T>, layout.batch * layout.tiles);
  });
}

}  // namespace hd::cuda
