// The gradient of label_conv2d's table over tiles of several classes. The pixels of one row of the tile that see a run
// of one code at some tap are neighbours. With sums of the gradient from the row's first pixel on, their sum is a
// difference of two of those, however many they are. A thread owns a tap and four channels, and walks through the runs.
#pragma once

#include "label_conv2d_bwd.cuh"

namespace hd::cuda {
namespace {

constexpr int kOwned = 4;               // channels of a thread
constexpr int kMixedThreads = 256;      // of a block, at most
constexpr int kMixedQuads = 4;          // threads with the same tap, at most
constexpr int kMostOwned = 29 << 9;     // floats that a block adds up, at most: 58 KiB
constexpr int kMixedShared = 96 << 10;  // bytes of shared memory of a block, at most

// A share of the table, which a block owns for some of the tiles.
struct Share {
  int channels;                   // a multiple of kOwned
  int kernel_rows;                // of the kernel
  int rows;                       // of the table
  int slices, bands, row_ranges;  // how many shares that makes, of channels, of the kernel and of the table
  bool last, packed;              // the gradient is channels_last; then its channels are aligned

  __host__ __device__ int64_t count() const { return static_cast<int64_t>(slices) * bands * row_ranges; }
  __host__ __device__ int quads() const { return channels / kOwned; }
  // Floats from one tap to the next. Eight threads that access four taps of neighbours meet no bank twice.
  __host__ __device__ int tap() const { return rows * channels + (31 * (rows - 1) * channels & 31); }
  __host__ __device__ int owned(const Conv& conv) const { return kernel_rows * conv.side * tap(); }
};

// A run of one code in a row of the planes, up to the next one. Behind the last is one that begins at the row's end.
struct alignas(8) Run {
  int start, code;
};

// Shared memory of a block.
struct Work {
  float* owned;   // [kernel_rows, side, tap()], of which [rows, channels] are used
  float* before;  // [tile_height, tile_width + 1, channels] sums of the gradient left of each pixel
  Run* runs;      // [rows under a tile and these rows of the kernel, under_width + 1]

  __device__ __forceinline__ Work(float* shared, const Conv& conv, const Share& share)
      : owned(shared),
        before(owned + share.owned(conv)),
        runs(reinterpret_cast<Run*>(before + conv.tile_height * (conv.tile_width() + 1) * share.channels)) {}
};

__host__ __device__ inline int rows_under(const Conv& conv, const Share& share) {
  return (conv.tile_height - 1) * conv.stride + share.kernel_rows;
}

// Bytes of shared memory besides what a block adds up.
inline int64_t work_beside(const Conv& conv, int64_t channels, int64_t rows) {
  return 4 * conv.tile_height * (conv.tile_width() + 1) * channels +
         static_cast<int64_t>(sizeof(Run)) * rows * (conv.under_width() + 1);
}

// Find the runs under a tile and the rows of the kernel from i on, a warp for each row.
__device__ __forceinline__ void find_runs(const Conv& conv, const Share& share, const TileAt& tile, int i, Run* runs) {
  const int width = conv.under_width(), left = tile.x * conv.stride - conv.padding;
  const int lane = static_cast<int>(threadIdx.x) % 32, warp = static_cast<int>(threadIdx.x) / 32;
  for (int y = warp; y < rows_under(conv, share); y += static_cast<int>(blockDim.x) / 32) {
    const CodeRow row(conv, tile.image, tile.y * conv.stride - conv.padding + i + y);
    Run* target = runs + y * (width + 1);
    int last = 0;  // the code before the 32 pixels
    for (int first = 0; first < width; first += 32) {
      const int x = first + lane, code = x < width ? row.at(conv, left + x) : 0;
      int before = __shfl_up_sync(kAll, code, 1);
      if (lane == 0) before = last;
      const bool starts = x < width && (x == 0 || code != before);
      const unsigned all = __ballot_sync(kAll, starts);
      if (starts) target[__popc(all & ((1u << lane) - 1))] = {x, code};
      target += __popc(all);
      last = __shfl_sync(kAll, code, 31);
    }
    if (lane == 0) *target = {width, 0};
  }
}

// Load the gradient of a tile, channels from `begin` on, zero where there is none, each pixel to where its right
// neighbour's sum will be.
template <bool kLast, typename T>
__device__ __forceinline__ void load_gradient(const Conv& conv, const Share& share, const T* tile, const Extent& extent,
                                              int begin, float* before) {
  const int quads = share.quads(), thread = static_cast<int>(threadIdx.x), threads = static_cast<int>(blockDim.x);
  const int64_t plane = static_cast<int64_t>(conv.out_height) * conv.out_width;
  const int pixels = conv.tile_height << conv.tile_bits;
  for (int at = thread; at < pixels * quads; at += threads) {
    const int pixel = kLast ? at / quads : at % pixels, quad = kLast ? at % quads : at / pixels;
    const int y = pixel >> conv.tile_bits, x = pixel & (conv.tile_width() - 1), channel = begin + quad * kOwned;
    Pack<float, kOwned> made = {};
    if (y < extent.height && x < extent.width) {
      const int64_t from = static_cast<int64_t>(y) * conv.out_width + x;
      const T* source = tile + (kLast ? from * conv.channels + channel : channel * plane + from);
      if (kLast && share.packed && channel < conv.channels) {
        const Pack<T, kOwned> pack = load_pack<kOwned>(source);
#pragma unroll
        for (int v = 0; v < kOwned; ++v) made.at[v] = to_float(pack.at[v]);
      } else {
#pragma unroll
        for (int v = 0; v < kOwned; ++v)
          if (channel + v < conv.channels) made.at[v] = to_float(source[kLast ? v : v * plane]);
      }
    }
    float* target = before + (y * (conv.tile_width() + 1) + x + 1) * share.channels + quad * kOwned;
    *reinterpret_cast<float4*>(target) = make_float4(made.at[0], made.at[1], made.at[2], made.at[3]);
  }
}

// Sum what has been loaded from the left to the right, a thread for each row of the tile and channel.
__device__ __forceinline__ void sum_rows(const Conv& conv, const Share& share, float* before) {
  const int width = conv.tile_width(), channels = share.channels;
  for (int at = static_cast<int>(threadIdx.x); at < conv.tile_height * channels; at += static_cast<int>(blockDim.x)) {
    const int y = at / channels;
    float* row = before + y * (width + 1) * channels + (at - y * channels);
    float sum = 0.f;
    row[0] = 0.f;
#pragma unroll 8
    for (int x = 1; x <= width; ++x) row[x * channels] = sum += row[x * channels];
  }
}

// What a thread owns: a tap, some rows of the table and four channels.
template <bool kPooled>
struct Owner {
  const Conv& conv;
  const Share& share;
  int begin, i, first_row;  // of the block: its first channel, row of the kernel and row of the table
  int row, j, quad;         // the tap, in the block's rows of the kernel, and the channels
  float* own;               // [rows, channels] in shared memory

  __device__ __forceinline__ Owner(const Conv& conv, const Share& share, float* owned)
      : conv(conv), share(share), quad(threadIdx.x % share.quads()) {
    const int part = static_cast<int>(grid_row()), tap = static_cast<int>(threadIdx.x) / share.quads();
    begin = part % share.slices * share.channels;
    i = part / share.slices % share.bands * share.kernel_rows;
    first_row = part / share.slices / share.bands * share.rows;
    row = tap / conv.side;
    j = tap - row * conv.side;
    own = owned + tap * share.tap() + quad * kOwned;
  }
  __device__ __forceinline__ void add_to(int table_row, float weight, const float (&sum)[kOwned]) const {
    const unsigned mine = table_row - first_row;
    if (mine >= static_cast<unsigned>(share.rows)) return;
    float* target = own + mine * share.channels;
    Pack<float, kOwned> pack = load_pack<kOwned>(target);
#pragma unroll
    for (int v = 0; v < kOwned; ++v) pack.at[v] += weight * sum[v];
    store_pack(target, pack);
  }
  __device__ __forceinline__ void add(int64_t image, int code, const float (&sum)[kOwned]) const {
    for_each_part<kPooled>(conv.planes, image, code, [&](int part, float weight) {
      const int label = conv.class_of(part);
      if (label < conv.n_labels) add_to(label, weight, sum);
      if (conv.on_edge(part)) add_to(conv.n_labels, weight, sum);
    });
  }
  // Add a row of the tile, whose runs and sums are given.
  __device__ __forceinline__ void add_row(int64_t image, const Run* runs, const float* before) const {
    const int end = conv.under_width(), width = conv.tile_width(), stride = conv.stride;
    Pack<float, kOwned> left = {};
    Run run = *runs;
    while (run.start < end) {
      const Run next = *++runs;
      const int past = max(next.start - j, 0);  // the first pixel that sees the next run, times the stride
      const int x = min(stride == 1 ? past : (past + stride - 1) / stride, width);
      const Pack<float, kOwned> right = load_pack<kOwned>(before + x * share.channels);
      float sum[kOwned];
#pragma unroll
      for (int v = 0; v < kOwned; ++v) sum[v] = right.at[v] - left.at[v];
      add(image, run.code, sum);
      left = right;
      run = next;
    }
  }
};

// Add a tile, all threads of the block together.
template <bool kPooled>
__device__ __forceinline__ void add_tile(const Owner<kPooled>& owner, const Work& work, const Gradient& gradient,
                                         unsigned at) {
  const Conv& conv = owner.conv;
  const Share& share = owner.share;
  const TileAt tile(conv, at);
  const Extent extent(conv, tile);
  const int64_t plane = static_cast<int64_t>(conv.out_height) * conv.out_width;
  const int64_t pixel = static_cast<int64_t>(tile.y) * conv.out_width + tile.x;
  const int64_t first = tile.image * conv.channels * plane + pixel * (share.last ? conv.channels : 1);
  __syncthreads();
  find_runs(conv, share, tile, owner.i, work.runs);
  with_one_of<float, bf16, f16>(gradient.dtype, [&](auto type) {
    const auto* source = static_cast<const decltype(type)*>(gradient.dy) + first;
    if (share.last)
      load_gradient<true>(conv, share, source, extent, owner.begin, work.before);
    else
      load_gradient<false>(conv, share, source, extent, owner.begin, work.before);
  });
  __syncthreads();
  sum_rows(conv, share, work.before);
  __syncthreads();
  if (owner.row >= share.kernel_rows) return;
  const Run* runs = work.runs + owner.row * (conv.under_width() + 1);
  const float* before = work.before + owner.quad * kOwned;
#pragma unroll 1
  for (int y = 0; y < extent.height; ++y) {
    owner.add_row(tile.image, runs, before);
    runs += conv.stride * (conv.under_width() + 1);
    before += (conv.tile_width() + 1) * share.channels;
  }
}

// Write what the block owns to its place in the table.
template <bool kPooled>
__device__ __forceinline__ void write_owned(const Owner<kPooled>& owner, const float* owned, float* table) {
  const Conv& conv = owner.conv;
  const Share& share = owner.share;
  for (int k = static_cast<int>(threadIdx.x); k < share.owned(conv); k += static_cast<int>(blockDim.x)) {
    const int tap = owner.i * conv.side + k / share.tap(), in = k % share.tap();
    const int row = owner.first_row + in / share.channels, channel = owner.begin + in % share.channels;
    if (tap >= conv.side * conv.side || in >= share.rows * share.channels) continue;  // none, or between two taps
    if (row < conv.rows && channel < conv.channels)
      table[(static_cast<int64_t>(tap) * conv.rows + row) * conv.channels + channel] = owned[k];
  }
}

// A block owns every gridDim.x-th tile, and a share of the table.
template <bool kPooled>
__global__ void __launch_bounds__(kMixedThreads, 3)
    label_conv2d_mixed_kernel(Conv conv, Gradient gradient, Share share) {
  HD_SHARED(float, shared);
  if (grid_row() >= share.count()) return;
  const Work work(shared, conv, share);
  for (int k = static_cast<int>(threadIdx.x); k < share.owned(conv); k += static_cast<int>(blockDim.x))
    work.owned[k] = 0.f;
  const Owner<kPooled> owner(conv, share, work.owned);
  const unsigned tiles = static_cast<unsigned>(conv.tiles), step = gridDim.x;
  for (unsigned first = blockIdx.x; first < tiles; first += 32 * step) {  // a lane asks for each of 32 tiles
    const unsigned at = first + threadIdx.x % 32 * step;
    unsigned left = __ballot_sync(kAll, at < tiles && gradient.mixed[at] != 0);
    for (; left != 0; left &= left - 1)
      add_tile(owner, work, gradient, first + (__ffs(static_cast<int>(left)) - 1) * step);
  }
  __syncthreads();
  const int64_t table = static_cast<int64_t>(conv.side) * conv.side * conv.rows * conv.channels;
  write_owned(owner, work.owned, gradient.taps + blockIdx.x * table);
}

}  // namespace
}  // namespace hd::cuda
