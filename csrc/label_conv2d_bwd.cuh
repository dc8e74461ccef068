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

struct Gradient {
  float* windows;     // [window_ranges, n_labels, C]: sums over windows of one class
  float* sums;        // [n_labels, C]: the same of all ranges
  float* taps;        // [tap_ranges, side * side, rows, C]: sums over the others
  unsigned* several;  // [tiles, kWords] a bit for each pixel of a tile: whether it is one of the others
  int window_ranges, tap_ranges;
};

// The windows of one class in a tile, as groups.
struct Groups {
  int labels[kGroups];   // kMany behind the last
  uint8_t group[kTile];  // of each pixel; kGroups for none
};

// The greatest class is taken out, then the next. Returns how many there are; `several` gets what belongs to none.
__device__ __forceinline__ int find_groups(const Conv& conv, int label, Groups& groups, unsigned* several) {
  const int thread = static_cast<int>(threadIdx.x);
  bool many = label == kMany;
  if (label < 0 || label == conv.n_labels) label = kMany;  // a window without a class counts for nothing
  if (thread < kGroups) groups.labels[thread] = kMany;
  __syncthreads();
  int count = 0, group = kGroups;
  for (; count < kGroups; ++count) {
    int most = label;
#pragma unroll
    for (int offset = 16; offset > 0; offset /= 2) most = max(most, __shfl_xor_sync(kAll, most, offset));
    if (thread % 32 == 0 && most >= 0) atomicMax(&groups.labels[count], most);
    __syncthreads();
    const int taken = groups.labels[count];
    if (taken < 0) break;
    if (label != taken) continue;
    group = count;
    label = kMany;
  }
  many |= label >= 0;
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
    constexpr int kAtOnce = 4;
    if (group >= groups) return;
    const T* source = tile + (static_cast<int>(threadIdx.x) - group * lanes) * V;
    const unsigned pitch = conv.channels * sizeof(T);
    for (int first = group; first < kTile; first += kAtOnce * groups) {
      Pack<T, V> packs[kAtOnce];
#pragma unroll
      for (int k = 0; k < kAtOnce; ++k) {
        const int pixel = first + k * groups, row = pixel >> conv.tile_bits, column = pixel & (conv.tile_width() - 1);
        packs[k] = pixel < kTile && of[pixel] == wanted
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
__global__ void __launch_bounds__(kThreads, 3)
    label_conv2d_uniform_kernel(Conv conv, Gradient gradient, const T* __restrict__ dy) {
  HD_SHARED(Pixel, under);
  __shared__ Groups groups;
  __shared__ float partial[Adder::kShared];
  const int begin = static_cast<int>(blockIdx.y) * kSlice, channels = min(kSlice, conv.channels - begin);
  float* target = gradient.windows + static_cast<int64_t>(blockIdx.x) * conv.n_labels * conv.channels + begin;
  for (int label = static_cast<int>(threadIdx.x) / 32; label < conv.n_labels; label += kThreads / 32)
    for (int c = static_cast<int>(threadIdx.x) % 32; c < channels; c += 32)
      target[static_cast<int64_t>(label) * conv.channels + c] = 0.f;
  __syncthreads();

  Adder adder(channels);
  int held = kMany;  // the class of what the adder holds
  const int64_t tiles = conv.tiles, last = tiles * (blockIdx.x + 1) / gridDim.x;
  for (int64_t at = tiles * blockIdx.x / gridDim.x; at < last; ++at) {
    const TileAt tile(conv, static_cast<unsigned>(at));
    const int count = find_groups(conv, classify(conv, tile, under), groups,
                                  blockIdx.y == 0 ? gradient.several + at * kWords : nullptr);
    const int64_t pixel = static_cast<int64_t>(tile.y) * conv.out_width + tile.x;
    const int64_t plane = static_cast<int64_t>(conv.out_height) * conv.out_width;
    const T* source =
        dy + tile.image * conv.channels * plane + (kLast ? pixel * conv.channels + begin : begin * plane + pixel);
    for (int g = 0; g < count; ++g) {
      const int label = groups.labels[g];
      if (held >= 0 && held != label) adder.flush(partial, target + static_cast<int64_t>(held) * conv.channels);
      held = label;
      adder.add(conv, source, groups.group, g);
    }
    __syncthreads();
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
