// The gradient of label_conv2d's table where windows see several classes, or boundaries. A thread owns a tap and four
// channels, and walks through the pixels. Neighbours mostly see the same code at a tap: their sum stays in registers
// until the code changes, and only then is it added in shared memory.
#pragma once

#include "label_conv2d_bwd.cuh"

namespace hd::cuda {
namespace {

constexpr int kBatch = 64;  // pixels of which a block has the gradient in shared memory
constexpr int kOwned = 4;   // channels of a thread
constexpr int kAhead = 4;   // pixels that a thread reads before it adds the first

// What a block owns beside its range of tiles and its row of the kernel.
struct Share {
  int channels;  // a multiple of kOwned
  int rows;      // of the table
  int slices;    // of channels
  int ranges;    // of rows

  __host__ __device__ int quads() const { return channels / kOwned; }
};

// Shared memory of a block.
struct Work {
  float* owned;      // [side, rows, channels]
  float* dy;         // [kBatch, channels + kOwned]
  int* codes;        // [tile_height, under_width] under the block's row of the kernel
  uint16_t* listed;  // [kTile] pixels of the tile
  uint16_t* starts;  // [kTile] where the window of each begins in the codes
};

inline __host__ __device__ int64_t owned_by(const Conv& conv, const Share& share) {
  return static_cast<int64_t>(conv.side) * share.rows * share.channels;
}

inline int64_t work_bytes(const Conv& conv, const Share& share) {
  return 4 * (owned_by(conv, share) + kBatch * (share.channels + kOwned) + conv.tile_height * conv.under_width()) +
         4 * kTile;
}

__device__ __forceinline__ Work work_in(float* shared, const Conv& conv, const Share& share) {
  float* dy = shared + owned_by(conv, share);
  int* codes = reinterpret_cast<int*>(dy + kBatch * (share.channels + kOwned));
  uint16_t* listed = reinterpret_cast<uint16_t*>(codes + conv.tile_height * conv.under_width());
  return {shared, dy, codes, listed, listed + kTile};
}

// Sums over pixels that see one code at the thread's tap.
template <bool kPooled>
struct Owner {
  const Conv& conv;
  const Share& share;
  float* own;     // of the thread's tap and channels: [rows, channels]
  int first_row;  // of the block
  int code;
  float sum[kOwned];

  __device__ __forceinline__ void add_to(int row, float weight) const {
    row -= first_row;
    if (row < 0 || row >= share.rows) return;
    Pack<float, kOwned> pack = load_pack<kOwned>(own + row * share.channels);
#pragma unroll
    for (int v = 0; v < kOwned; ++v) pack.at[v] += weight * sum[v];
    store_pack(own + row * share.channels, pack);
  }
  __device__ __forceinline__ void flush(int64_t image, int next) {
    for_each_part<kPooled>(conv.planes, image, code, [&](int part, float weight) {
      const int label = conv.class_of(part);
      if (label < conv.n_labels) add_to(label, weight);
      if (conv.on_edge(part)) add_to(conv.n_labels, weight);
    });
    code = next;
#pragma unroll
    for (int v = 0; v < kOwned; ++v) sum[v] = 0.f;
  }
};

// List the pixels whose bits are set, in their order. Returns how many there are. Behind them are any windows, for
// kAhead.
__device__ __forceinline__ int list_pixels(const Conv& conv, const unsigned* several, const Work& work) {
  const int thread = static_cast<int>(threadIdx.x);
  int before = 0;
  for (int word = 0; word < kWords; ++word) {
    const unsigned bits = several[word];
    if (thread < 32 && (bits >> thread & 1u) != 0) {
      const int at = before + __popc(bits & ((1u << thread) - 1)), pixel = word * 32 + thread;
      work.listed[at] = static_cast<uint16_t>(pixel);
      work.starts[at] = static_cast<uint16_t>((pixel >> conv.tile_bits) * conv.under_width() +
                                              (pixel & (conv.tile_width() - 1)) * conv.stride);
    }
    before += __popc(bits);
  }
  if (thread < kAhead - 1 && before + thread < kTile) work.starts[before + thread] = 0;
  return before;
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

// Load the gradient of `count` listed pixels, channels from `begin` on; zeros behind the last channel and up to a
// multiple of kAhead pixels.
template <typename T, bool kLast>
__device__ __forceinline__ void load_batch(const Conv& conv, const Share& share, const T* tile, const Work& work,
                                           const uint16_t* listed, int count, int begin) {
  const int row = share.channels + kOwned, thread = static_cast<int>(threadIdx.x);
  const int64_t plane = static_cast<int64_t>(conv.out_height) * conv.out_width;
  const int quads = share.quads(), lanes = kLast ? quads : 32;  // neighbours read neighbours
  const int across = thread % lanes, along = thread / lanes, step = static_cast<int>(blockDim.x) / lanes;
  if (along >= step) return;
  for (int e = kLast ? along : across; e < (count + kAhead - 1) / kAhead * kAhead; e += kLast ? step : 32) {
    const int pixel = e < count ? listed[e] : 0;
    const int64_t at =
        static_cast<int64_t>(pixel >> conv.tile_bits) * conv.out_width + (pixel & (conv.tile_width() - 1));
    for (int q = kLast ? across : along; q < quads; q += kLast ? quads : step) {
      const int channel = begin + q * kOwned;
      const T* source = tile + (kLast ? at * conv.channels + channel : channel * plane + at);
      Pack<float, kOwned> made = {};
      if (kLast && e < count && conv.channels % kOwned == 0) {
        const Pack<T, kOwned> pack = load_pack<kOwned>(source);
#pragma unroll
        for (int v = 0; v < kOwned; ++v) made.at[v] = to_float(pack.at[v]);
      } else if (e < count) {
#pragma unroll
        for (int v = 0; v < kOwned; ++v)
          if (channel + v < conv.channels) made.at[v] = to_float(source[kLast ? v : v * plane]);
      }
      store_pack(work.dy + e * row + q * kOwned, made);
    }
  }
}

// Add a batch at the thread's tap and channels.
template <bool kPooled>
__device__ __forceinline__ void add_batch(const Work& work, const uint16_t* starts, int count, int tap, int quad,
                                          int64_t image, Owner<kPooled>& owner) {
  const int row = owner.share.channels + kOwned;
  const float* dy = work.dy + quad * kOwned;
#pragma unroll 1
  for (int e = 0; e < count; e += kAhead, dy += kAhead * row) {
    int codes[kAhead];
    Pack<float, kOwned> values[kAhead];
#pragma unroll
    for (int k = 0; k < kAhead; ++k) {
      codes[k] = work.codes[starts[e + k] + tap];
      values[k] = load_pack<kOwned>(dy + k * row);
    }
#pragma unroll
    for (int k = 0; k < kAhead; ++k) {
      if (codes[k] != owner.code) owner.flush(image, codes[k]);
#pragma unroll
      for (int v = 0; v < kOwned; ++v) owner.sum[v] += values[k].at[v];
    }
  }
}

// A block owns a range of tiles (every so manieth), a row of the kernel, and a share of the table's channels and rows.
template <typename T, bool kLast, bool kPooled>
__global__ void __launch_bounds__(kThreads, kPooled ? 2 : 3)
    label_conv2d_mixed_kernel(Conv conv, Gradient gradient, Share share, const T* __restrict__ dy) {
  HD_SHARED(float, shared);
  const Work work = work_in(shared, conv, share);
  const int i = static_cast<int>(blockIdx.y) % conv.side, part = static_cast<int>(blockIdx.y) / conv.side;
  const int begin = part % share.slices * share.channels, first_row = part / share.slices * share.rows;
  const int thread = static_cast<int>(threadIdx.x), tap = thread / share.quads(), quad = thread % share.quads();
  const int owned = static_cast<int>(owned_by(conv, share));
  for (int k = thread; k < owned; k += static_cast<int>(blockDim.x)) work.owned[k] = 0.f;

  Owner<kPooled> owner = {conv,      share,         work.owned + tap * share.rows * share.channels + quad * kOwned,
                          first_row, conv.n_labels, {}};
  const int64_t plane = static_cast<int64_t>(conv.out_height) * conv.out_width;
  for (unsigned at = blockIdx.x; at < static_cast<unsigned>(conv.tiles); at += gridDim.x) {
    __syncthreads();
    const TileAt tile(conv, at);
    const int count = list_pixels(conv, gradient.several + static_cast<int64_t>(at) * kWords, work);
    if (count == 0) continue;
    load_code_rows(conv, tile, i, work.codes);
    const int64_t pixel = static_cast<int64_t>(tile.y) * conv.out_width + tile.x;
    const T* source = dy + tile.image * conv.channels * plane + pixel * (kLast ? conv.channels : 1);
    for (int first = 0; first < count; first += kBatch) {
      __syncthreads();
      const int batch = min(kBatch, count - first);
      load_batch<T, kLast>(conv, share, source, work, work.listed + first, batch, begin);
      __syncthreads();
      if (tap < conv.side) add_batch(work, work.starts + first, batch, tap, quad, tile.image, owner);
    }
    if (tap < conv.side) owner.flush(tile.image, conv.n_labels);
  }
  __syncthreads();
  float* target =
      gradient.taps + (static_cast<int64_t>(blockIdx.x) * conv.side + i) * conv.side * conv.rows * conv.channels;
  for (int k = thread; k < owned; k += static_cast<int>(blockDim.x)) {
    const int c = begin + k % share.channels, at = k / share.channels, row = first_row + at % share.rows;
    if (c < conv.channels && row < conv.rows)
      target[(static_cast<int64_t>(at / share.rows) * conv.rows + row) * conv.channels + c] = work.owned[k];
  }
}

}  // namespace
}  // namespace hd::cuda
