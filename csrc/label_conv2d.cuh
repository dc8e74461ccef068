// What both directions of label_conv2d share: geometry, the planes as codes, and a tile of codes in shared memory.
//
// The planes that are convolved are a map of codes too. Pooling leaves most pixels with one code; a mixed pixel has a
// short list of codes and weights, and stands in the map as a negative number.
#pragma once

#include "cuda.cuh"

namespace hd::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kTile = 256;                // pixels of the result that a block works on at a time, at most
constexpr int kTileCodes = 4608;          // codes under them, at most: 27 KiB with their runs
constexpr int kParts = 4;                 // codes that the list of a mixed pixel holds
constexpr int kOutside = -2, kMany = -1;  // in the place of a window's code: no pixel of the result; several codes
constexpr int kMixed = -1;                // the code of a mixed pixel in memory; in a tile, -1 - its index in the image
constexpr unsigned kAll = 0xffffffffu;

struct Part {
  int code;
  float weight;  // 0 behind the last part
};

struct Planes {
  const int* codes;   // [B, H, W]
  const Part* parts;  // [B, H, W, kParts] or null: no pixel is mixed. Of a mixed pixel with more, all weights are 0
  int height, width;
  const int* full;      // [B, full_height, full_width]: the codes before pooling
  const float* pool_y;  // [height, span]
  const float* pool_x;  // [width, span]
  int full_height, full_width, span;

  __host__ __device__ int step() const { return span % 2 == 0 ? span : (span + 1) / 2; }
  __host__ __device__ int before() const { return span % 2 == 0 ? 0 : (span - 1) / 2; }
  __host__ __device__ int64_t pixels() const { return static_cast<int64_t>(height) * width; }
};

struct Conv {
  Planes planes;
  int out_height, out_width, channels;
  int n_labels, rows;  // of the table: n_labels, and one more for boundaries
  int side, stride, padding;
  PadMode pad_mode;
  int tile_height, tile_bits;  // the width of a tile is 2^tile_bits
  int tiles_y, tiles_x;        // of an image
  int64_t tiles;               // of the batch

  __host__ __device__ bool edges() const { return rows > n_labels; }
  __host__ __device__ int codes() const { return (n_labels + 1) * (edges() ? 2 : 1); }
  __host__ __device__ int tile_width() const { return 1 << tile_bits; }
  // The codes under a tile.
  __host__ __device__ int under_height() const { return (tile_height - 1) * stride + side; }
  __host__ __device__ int under_width() const { return (tile_width() - 1) * stride + side; }
  __device__ __forceinline__ bool on_edge(int code) const { return code > n_labels; }
  // The class of a code; n_labels is none.
  __device__ __forceinline__ int class_of(int code) const { return on_edge(code) ? code - n_labels - 1 : code; }
};

// Where a tile begins in the result.
struct TileAt {
  int image, y, x;

  __device__ __forceinline__ TileAt(const Conv& conv, int64_t tile) {
    const int64_t row = tile / conv.tiles_x;
    x = static_cast<int>(tile - row * conv.tiles_x) * conv.tile_width();
    image = static_cast<int>(row / conv.tiles_y);
    y = static_cast<int>(row - static_cast<int64_t>(image) * conv.tiles_y) * conv.tile_height;
  }
};

// Call fn(code, weight) for every pixel of the span of a pooled pixel.
template <typename F>
__device__ __forceinline__ void for_each_of_span(const Planes& planes, int64_t image, int y, int x, const F& fn) {
  const int first_y = y * planes.step() - planes.before(), first_x = x * planes.step() - planes.before();
  const int* codes = planes.full + image * planes.full_height * planes.full_width;
  for (int i = 0; i < planes.span; ++i) {
    const float weight_y = planes.pool_y[static_cast<int64_t>(y) * planes.span + i];
    if (weight_y == 0.f) continue;  // outside of the image
    const int* row = codes + static_cast<int64_t>(first_y + i) * planes.full_width + first_x;
    for (int j = 0; j < planes.span; ++j) {
      const float weight_x = planes.pool_x[static_cast<int64_t>(x) * planes.span + j];
      if (weight_x != 0.f) fn(row[j], weight_y * weight_x);
    }
  }
}

// Call fn(code, weight) for every part of a pixel, given as it stands in a tile. Kernels are compiled without what only
// pooled planes need, too: it takes registers.
template <bool kPooled, typename F>
__device__ __forceinline__ void for_each_part(const Planes& planes, int64_t image, int code, const F& fn) {
  if (!kPooled || code >= 0) return fn(code, 1.f);
  const int pixel = -1 - code;
  const Part* parts = planes.parts + (image * planes.pixels() + pixel) * kParts;
  if (parts[0].weight == 0.f) {
    const int y = pixel / planes.width;
    return for_each_of_span(planes, image, y, pixel - y * planes.width, fn);
  }
#pragma unroll 1
  for (int k = 0; k < kParts && parts[k].weight != 0.f; ++k) fn(parts[k].code, parts[k].weight);
}

// The pooled planes, a thread for each pixel.
__global__ void __launch_bounds__(kThreads)
    label_conv2d_pool_kernel(Planes planes, int64_t total, int* __restrict__ codes, Part* __restrict__ parts) {
  const int64_t at = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (at >= total) return;
  const int64_t row = at / planes.width, image = row / planes.height;
  Part own[kParts] = {};
  bool fits = true;
  for_each_of_span(planes, image, static_cast<int>(row - image * planes.height),
                   static_cast<int>(at - row * planes.width), [&](int code, float weight) {
                     bool done = false;
#pragma unroll
                     for (int k = 0; k < kParts; ++k) {
                       if (done || (own[k].weight != 0.f && own[k].code != code)) continue;
                       own[k] = {code, own[k].weight + weight};
                       done = true;
                     }
                     fits &= done;
                   });
  const bool mixed = own[1].weight != 0.f;
  codes[at] = mixed ? kMixed : own[0].code;
  if (!mixed) return;
#pragma unroll
  for (int k = 0; k < kParts; ++k) parts[at * kParts + k] = {own[k].code, fits ? own[k].weight : 0.f};
}

// The position that padded position i copies, or -1 where it is zero. Positions that belong to no window are anywhere.
__device__ __forceinline__ int source_of(int i, int size, PadMode mode) {
  if (i >= 0 && i < size) return i;
  if (mode == PadMode::zero) return -1;
  if (mode == PadMode::reflect) i = i < 0 ? -i : 2 * (size - 1) - i;
  return i < 0 ? 0 : i < size ? i : size - 1;
}

// A row of codes as a warp reads it. Padding with zeros is padding with pixels of no class.
struct CodeRow {
  const int* codes;  // null: zeros
  int first;         // index in the image of its first pixel

  __device__ __forceinline__ CodeRow(const Conv& conv, int64_t image, int padded_y) : codes(nullptr), first(0) {
    const Planes& planes = conv.planes;
    const int y = source_of(padded_y, planes.height, conv.pad_mode);
    if (y < 0) return;
    first = y * planes.width;
    codes = planes.codes + image * planes.pixels() + first;
  }
  __device__ __forceinline__ int at(const Conv& conv, int padded_x) const {
    const int x = source_of(padded_x, conv.planes.width, conv.pad_mode);
    if (codes == nullptr || x < 0) return conv.n_labels;
    const int code = codes[x];
    return code < 0 ? -1 - (first + x) : code;
  }
};

// The codes under a tile, and how far to the right of each its class (the low byte) and its being on an edge (the high
// byte) go on, up to 32 pixels. A mixed pixel is alone.
struct Under {
  int* codes;      // [under_height, under_width] in shared memory
  uint16_t* runs;  // the same
};

__device__ __forceinline__ Under under_in(void* shared, const Conv& conv) {
  int* codes = static_cast<int*>(shared);
  return {codes, reinterpret_cast<uint16_t*>(codes + conv.under_height() * conv.under_width())};
}

// Returns whether all codes are one, to all threads.
__device__ __forceinline__ bool load_codes(const Conv& conv, const TileAt& tile, const Under& under) {
  const int height = conv.under_height(), width = conv.under_width();
  const int lane = static_cast<int>(threadIdx.x) % 32, warp = static_cast<int>(threadIdx.x) / 32;
  int seen = -1;
  bool same = true;
  for (int y = warp; y < height; y += kThreads / 32) {
    const CodeRow row(conv, tile.image, tile.y * conv.stride - conv.padding + y);
    for (int x = lane; x < width; x += 32) {
      const int code = row.at(conv, tile.x * conv.stride - conv.padding + x);
      same &= code >= 0 && (seen < 0 || code == seen);
      seen = code;
      under.codes[y * width + x] = code;
    }
  }
  __syncthreads();
  return __syncthreads_and(same && (seen < 0 || seen == under.codes[0])) != 0;
}

// The distance to the next set bit behind this lane's, or 32.
__device__ __forceinline__ int distance(unsigned bits, unsigned next, int lane) {
  const unsigned behind = static_cast<unsigned>((static_cast<uint64_t>(next) << 32 | bits) >> (lane + 1));
  return behind == 0 ? 32 : __ffs(static_cast<int>(behind));
}

__device__ __forceinline__ void find_runs(const Conv& conv, const Under& under) {
  const int height = conv.under_height(), width = conv.under_width();
  const int lane = static_cast<int>(threadIdx.x) % 32, warp = static_cast<int>(threadIdx.x) / 32;
  for (int y = warp; y < height; y += kThreads / 32) {
    const int* row = under.codes + y * width;
    unsigned next_class = kAll, next_edge = kAll;  // where runs begin in the 32 pixels to the right
    for (int first = (width - 1) / 32 * 32; first >= 0; first -= 32) {
      const int x = first + lane;
      const bool inside = x < width;
      const int code = inside ? row[x] : 0, before = inside && x > 0 ? row[x - 1] : -1;
      const bool other_class = !inside || code < 0 || before < 0 || conv.class_of(code) != conv.class_of(before);
      const unsigned classes = __ballot_sync(kAll, other_class);
      const unsigned edges = __ballot_sync(kAll, !inside || conv.on_edge(code) != conv.on_edge(before));
      if (inside)
        under.runs[y * width + x] =
            static_cast<uint16_t>(distance(classes, next_class, lane) | distance(edges, next_edge, lane) << 8);
      next_class = classes;
      next_edge = edges;
    }
  }
  __syncthreads();
}

// The code of all pixels under the window whose first pixel is given, or kMany.
__device__ __forceinline__ int code_of_window(const Conv& conv, const Under& under, int first) {
  const int code = under.codes[first];
  for (int i = 0; i < conv.side; ++i, first += conv.under_width()) {
    const int run = under.runs[first];
    if (code < 0 || under.codes[first] != code || (run & 255) < conv.side || run >> 8 < conv.side) return kMany;
  }
  return code;
}

// Read the tile and return what pixel threadIdx.x of it sees: a code, kMany or kOutside.
__device__ __forceinline__ int classify(const Conv& conv, const TileAt& tile, const Under& under) {
  const bool same = load_codes(conv, tile, under);
  if (!same) find_runs(conv, under);
  const int pixel = static_cast<int>(threadIdx.x), y = pixel >> conv.tile_bits, x = pixel & (conv.tile_width() - 1);
  if (y >= conv.tile_height || tile.y + y >= conv.out_height || tile.x + x >= conv.out_width) return kOutside;
  if (same) return under.codes[0];
  return code_of_window(conv, under, (y * conv.under_width() + x) * conv.stride);
}

}  // namespace
}  // namespace hd::cuda
