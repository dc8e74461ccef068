// The gradient of label_conv2d's table. No two threads add to the same number, and the partial results of the blocks
// are added in the order of the blocks, so results are the same in every run.
//
// Windows of one code are summed by code (label_conv2d_uniform_kernel), which counts for all taps at once. For the
// others (label_conv2d_mixed_kernel), a thread owns a tap and four channels, and walks through the pixels. Neighbours
// mostly see the same code there: their sum stays in registers until the code changes.
#pragma once

#include "label_conv2d.cuh"

namespace hd::cuda {
namespace {

constexpr int kSlice = 64;  // channels of a block of the first kernel, at most
constexpr int kGroups = 8;  // codes of a tile whose windows are summed by code, at most
constexpr int kWords = kTile / 32;
constexpr int kBatch = 64;  // pixels of which the second kernel has the gradient in shared memory
constexpr int kOwned = 4;   // channels of a thread of the second kernel

struct Gradient {
  float* windows;     // [window_ranges, codes, C]: sums over windows of one code
  float* sums;        // [codes, C]: the same of all ranges
  float* taps;        // [tap_ranges, side * side, rows, C]: sums over the others
  unsigned* several;  // [tiles, kWords] a bit for each pixel of a tile: whether it is one of the others
  int window_ranges, tap_ranges;
};

// --- windows of one code ---

// The windows of one code in a tile, as groups by code. The last of `codes` is always kMany.
struct Groups {
  int codes[kGroups + 1];
  uint8_t group[kTile];  // of each pixel; kGroups for none
};

// The greatest code is taken out, then the next. Returns how many there are.
__device__ __forceinline__ int find_groups(const Conv& conv, int code, Groups& groups, unsigned* several) {
  const int thread = static_cast<int>(threadIdx.x);
  bool many = code == kMany;
  if (code < 0 || code == conv.n_labels) code = kMany;  // counts for nothing
  if (thread <= kGroups) groups.codes[thread] = kMany;
  __syncthreads();
  int count = 0, group = kGroups;
  for (; count < kGroups; ++count) {
    int most = code;
#pragma unroll
    for (int offset = 16; offset > 0; offset /= 2) most = max(most, __shfl_xor_sync(kAll, most, offset));
    if (thread % 32 == 0 && most >= 0) atomicMax(&groups.codes[count], most);
    __syncthreads();
    const int taken = groups.codes[count];
    if (taken < 0) break;
    if (code != taken) continue;
    group = count;
    code = kMany;
  }
  many |= code >= 0;
  groups.group[thread] = static_cast<uint8_t>(group);
  const unsigned bits = __ballot_sync(kAll, many);
  if (several != nullptr && thread % 32 == 0) several[thread / 32] = bits;
  __syncthreads();
  return count;
}

// Sums of a channels_last gradient: a thread adds V channels of every few pixels.
template <typename T, int V>
struct PixelSums {
  static constexpr int kShared = kThreads * V;
  float sum[V];
  int channels, lanes, group, groups;

  __device__ __forceinline__ explicit PixelSums(int channels)
      : sum{}, channels(channels), lanes(channels / V), group(threadIdx.x / lanes), groups(kThreads / lanes) {}
  __device__ __forceinline__ void add(const Conv& conv, const T* tile, const uint8_t* of, int wanted) {
    const int channel = (static_cast<int>(threadIdx.x) - group * lanes) * V;
#pragma unroll 4
    for (int pixel = group; pixel < kTile; pixel += groups) {
      if (of[pixel] != wanted || group >= groups) continue;
      const int64_t at =
          static_cast<int64_t>(pixel >> conv.tile_bits) * conv.out_width + (pixel & (conv.tile_width() - 1));
      const Pack<T, V> pack = load_pack<V>(tile + at * conv.channels + channel);
#pragma unroll
      for (int v = 0; v < V; ++v) sum[v] += to_float(pack.at[v]);
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
template <typename T>
struct PlaneSums {
  static constexpr int kWarps = kThreads / 32, kEach = kSlice / kWarps, kShared = 1;
  float sum[kEach];
  int channels;

  __device__ __forceinline__ explicit PlaneSums(int channels) : sum{}, channels(channels) {}
  __device__ __forceinline__ void add(const Conv& conv, const T* tile, const uint8_t* of, int wanted) {
    const int lane = static_cast<int>(threadIdx.x) % 32, warp = static_cast<int>(threadIdx.x) / 32;
    const int64_t plane = static_cast<int64_t>(conv.out_height) * conv.out_width;
#pragma unroll 2
    for (int pixel = lane; pixel < kTile; pixel += 32) {
      if (of[pixel] != wanted) continue;
      const T* source = tile + warp * plane + static_cast<int64_t>(pixel >> conv.tile_bits) * conv.out_width +
                        (pixel & (conv.tile_width() - 1));
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

// A block sums a range of tiles for a slice of channels. The first slice also writes which pixels are left.
template <typename T, typename Adder, bool kLast>
__global__ void __launch_bounds__(kThreads, 4)
    label_conv2d_uniform_kernel(Conv conv, Gradient gradient, const T* __restrict__ dy) {
  HD_SHARED(int, shared);
  __shared__ Groups groups;
  __shared__ float partial[Adder::kShared];
  const Under under = under_in(shared, conv);
  const int begin = static_cast<int>(blockIdx.y) * kSlice, channels = min(kSlice, conv.channels - begin);
  float* target = gradient.windows + static_cast<int64_t>(blockIdx.x) * conv.codes() * conv.channels + begin;
  for (int code = static_cast<int>(threadIdx.x) / 32; code < conv.codes(); code += kThreads / 32)
    for (int c = static_cast<int>(threadIdx.x) % 32; c < channels; c += 32)
      target[static_cast<int64_t>(code) * conv.channels + c] = 0.f;
  __syncthreads();

  Adder adder(channels);
  int held = kMany;  // the code of what the adder holds
  const int64_t first = conv.tiles * blockIdx.x / gridDim.x, last = conv.tiles * (blockIdx.x + 1) / gridDim.x;
  for (int64_t at = first; at < last; ++at) {
    const TileAt tile(conv, at);
    const int count = find_groups(conv, classify(conv, tile, under), groups,
                                  blockIdx.y == 0 ? gradient.several + at * kWords : nullptr);
    const int64_t pixel = static_cast<int64_t>(tile.y) * conv.out_width + tile.x;
    const int64_t plane = static_cast<int64_t>(conv.out_height) * conv.out_width;
    const T* source =
        dy + tile.image * conv.channels * plane + (kLast ? pixel * conv.channels + begin : begin * plane + pixel);
    for (int g = 0; g < count; ++g) {
      const int code = groups.codes[g];
      if (held >= 0 && held != code) adder.flush(partial, target + static_cast<int64_t>(held) * conv.channels);
      held = code;
      adder.add(conv, source, groups.group, g);
    }
    __syncthreads();
  }
  if (held >= 0) adder.flush(partial, target + static_cast<int64_t>(held) * conv.channels);
}

// --- windows of several codes ---

// What a block of the second kernel owns beside its range of tiles and its row of the kernel.
struct Share {
  int channels;  // a multiple of kOwned
  int rows;      // of the table
  int slices;    // of channels
  int ranges;    // of rows

  __host__ __device__ int quads() const { return channels / kOwned; }
};

// Shared memory of such a block.
struct Work {
  float* owned;      // [side, rows, channels]
  float* dy;         // [kBatch, channels + kOwned]
  int* codes;        // [tile_height, under_width] under the block's row of the kernel
  uint16_t* listed;  // [kTile] pixels of the tile
  uint16_t* starts;  // [kTile] where the window of each begins in the codes
};

inline __host__ __device__ int64_t work_bytes(const Conv& conv, const Share& share) {
  const int64_t owned = static_cast<int64_t>(conv.side) * share.rows * share.channels;
  return 4 * (owned + kBatch * (share.channels + kOwned) + conv.tile_height * conv.under_width() + kTile);
}

// Adds a sum over pixels that see `code` at a tap.
struct Owner {
  const Conv& conv;
  const Share& share;
  float* own;  // of the thread's tap and channels: [rows, channels]
  int first;   // row

  __device__ __forceinline__ void add_to(int row, float weight, const float (&sum)[kOwned]) const {
    row -= first;
    if (row < 0 || row >= share.rows) return;
    Pack<float, kOwned> pack = load_pack<kOwned>(own + row * share.channels);
#pragma unroll
    for (int v = 0; v < kOwned; ++v) pack.at[v] += weight * sum[v];
    store_pack(own + row * share.channels, pack);
  }
  __device__ __forceinline__ void add(int64_t image, int code, const float (&sum)[kOwned]) const {
    for_each_part(conv.planes, image, code, [&](int part, float weight) {
      const int label = conv.class_of(part);
      if (label < conv.n_labels) add_to(label, weight, sum);
      if (conv.on_edge(part)) add_to(conv.n_labels, weight, sum);
    });
  }
};

// List the pixels whose bits are set, in their order. Returns how many there are.
__device__ __forceinline__ int list_pixels(const Conv& conv, const unsigned* several, const Work& work) {
  int before = 0;
  for (int word = 0; word < kWords; ++word) {
    const unsigned bits = several[word];
    for (int bit = static_cast<int>(threadIdx.x); bit < 32; bit += static_cast<int>(blockDim.x)) {
      if ((bits >> bit & 1u) == 0) continue;
      const int at = before + __popc(bits & ((1u << bit) - 1)), pixel = word * 32 + bit;
      work.listed[at] = static_cast<uint16_t>(pixel);
      work.starts[at] = static_cast<uint16_t>((pixel >> conv.tile_bits) * conv.under_width() +
                                              (pixel & (conv.tile_width() - 1)) * conv.stride);
    }
    before += __popc(bits);
  }
  return before;
}

// Load the gradient of the listed pixels [first, first + count), channels from `begin` on, zero behind the last.
template <typename T, bool kLast>
__device__ __forceinline__ void load_batch(const Conv& conv, const Share& share, const T* tile, const Work& work,
                                           int first, int count, int begin) {
  const int row = share.channels + kOwned, thread = static_cast<int>(threadIdx.x), threads = blockDim.x;
  const int64_t plane = static_cast<int64_t>(conv.out_height) * conv.out_width;
  const int quads = share.quads(), lanes = kLast ? quads : 32;
  const int across = thread % lanes, along = thread / lanes, step = threads / lanes;
  if (along >= step) return;
  for (int e = kLast ? along : across; e < count; e += kLast ? step : 32) {
    const int pixel = work.listed[first + e];
    const int64_t at =
        static_cast<int64_t>(pixel >> conv.tile_bits) * conv.out_width + (pixel & (conv.tile_width() - 1));
    for (int q = kLast ? across : along; q < quads; q += kLast ? quads : step) {
      const int channel = begin + q * kOwned;
      const T* source = tile + (kLast ? at * conv.channels + channel : channel * plane + at);
      float* target = work.dy + e * row + q * kOwned;
      if (kLast && conv.channels % kOwned == 0) {
        const Pack<T, kOwned> pack = load_pack<kOwned>(source);
#pragma unroll
        for (int v = 0; v < kOwned; ++v) target[v] = to_float(pack.at[v]);
        continue;
      }
#pragma unroll
      for (int v = 0; v < kOwned; ++v)
        target[v] = channel + v < conv.channels ? to_float(source[kLast ? v : v * plane]) : 0.f;
    }
  }
}

// The codes under a tile and one row of the kernel.
__device__ __forceinline__ void load_code_rows(const Conv& conv, const TileAt& tile, int i, int* codes) {
  const int width = conv.under_width();
  const int lane = static_cast<int>(threadIdx.x) % 32, warp = static_cast<int>(threadIdx.x) / 32;
  for (int y = warp; y < conv.tile_height; y += static_cast<int>(blockDim.x) / 32) {
    const CodeRow row(conv, tile.image, (tile.y + y) * conv.stride - conv.padding + i);
    for (int x = lane; x < width; x += 32) codes[y * width + x] = row.at(conv, tile.x * conv.stride - conv.padding + x);
  }
}

// A block owns a range of tiles (every so manieth), a row of the kernel, and a share of the table's channels and rows.
template <typename T, bool kLast>
__global__ void __launch_bounds__(kThreads)
    label_conv2d_mixed_kernel(Conv conv, Gradient gradient, Share share, const T* __restrict__ dy) {
  HD_SHARED(float, shared);
  Work work;
  work.owned = shared;
  work.dy = work.owned + conv.side * share.rows * share.channels;
  work.codes = reinterpret_cast<int*>(work.dy + kBatch * (share.channels + kOwned));
  work.listed = reinterpret_cast<uint16_t*>(work.codes + conv.tile_height * conv.under_width());
  work.starts = work.listed + kTile;
  const int i = static_cast<int>(blockIdx.y) % conv.side, part = static_cast<int>(blockIdx.y) / conv.side;
  const int begin = part % share.slices * share.channels, first_row = part / share.slices * share.rows;
  const int thread = static_cast<int>(threadIdx.x), tap = thread / share.quads(), quad = thread % share.quads();
  const bool owner = tap < conv.side;
  const int own = tap * share.rows * share.channels + quad * kOwned;
  for (int k = thread; k < conv.side * share.rows * share.channels; k += static_cast<int>(blockDim.x))
    work.owned[k] = 0.f;

  const Owner adder = {conv, share, work.owned + own, first_row};
  const int64_t plane = static_cast<int64_t>(conv.out_height) * conv.out_width;
  for (int64_t at = blockIdx.x; at < conv.tiles; at += gridDim.x) {
    __syncthreads();
    const TileAt tile(conv, at);
    const int count = list_pixels(conv, gradient.several + at * kWords, work);
    if (count == 0) continue;
    load_code_rows(conv, tile, i, work.codes);
    const int64_t pixel = static_cast<int64_t>(tile.y) * conv.out_width + tile.x;
    const T* source = dy + tile.image * conv.channels * plane + (kLast ? pixel * conv.channels : pixel);
    int code = conv.n_labels;
    float sum[kOwned] = {};
    for (int first = 0; first < count; first += kBatch) {
      __syncthreads();
      const int batch = min(kBatch, count - first);
      load_batch<T, kLast>(conv, share, source, work, first, batch, begin);
      __syncthreads();
      for (int e = 0; owner && e < batch; ++e) {
        const int next = work.codes[work.starts[first + e] + tap];
        const Pack<float, kOwned> value = load_pack<kOwned>(work.dy + e * (share.channels + kOwned) + quad * kOwned);
        if (next != code) {
          adder.add(tile.image, code, sum);
          code = next;
#pragma unroll
          for (int v = 0; v < kOwned; ++v) sum[v] = 0.f;
        }
#pragma unroll
        for (int v = 0; v < kOwned; ++v) sum[v] += value.at[v];
      }
    }
    if (owner) adder.add(tile.image, code, sum);
  }
  __syncthreads();
  float* target = gradient.taps + static_cast<int64_t>(blockIdx.x) * conv.side * conv.side * conv.rows * conv.channels;
  for (int k = thread; k < conv.side * share.rows * share.channels; k += static_cast<int>(blockDim.x)) {
    const int c = k % share.channels, row = k / share.channels % share.rows, j = k / share.channels / share.rows;
    if (begin + c < conv.channels && first_row + row < conv.rows)
      target[(static_cast<int64_t>(i * conv.side + j) * conv.rows + first_row + row) * conv.channels + begin + c] =
          work.owned[k];
  }
}

// --- the sum of both ---

constexpr int kSums = 16;  // threads that share one number

// parts [count, size] -> out [size]. For windows of one code `spread` is null. Otherwise those sums are added: a row of
// the table gets those of its class, or of all codes on boundaries.
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
    const int64_t channel = at % conv.channels, row = at / conv.channels % conv.rows, none = conv.n_labels + 1;
    const float* column = spread + channel;
    if (row < conv.n_labels) {
      sum += static_cast<double>(column[row * conv.channels]);
      if (conv.edges()) sum += static_cast<double>(column[(none + row) * conv.channels]);
    } else {
      for (int64_t k = 0; k < none; ++k) sum += static_cast<double>(column[(none + k) * conv.channels]);
    }
  }
  out[at] = static_cast<float>(sum);
}

}  // namespace
}  // namespace hd::cuda
