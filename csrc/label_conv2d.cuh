// What both directions of label_conv2d share: geometry, the planes as codes, and a tile of codes in shared memory.
//
// The planes that are convolved are a map of codes too. Pooling leaves most pixels with one code; a mixed pixel has a
// short list of codes and weights, and stands in the map as a negative number.
#pragma once

#include <climits>
#include <type_traits>

#include "cuda.cuh"

namespace hd::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kTile = 256;  // pixels of the result that a block works on at a time, at most
static_assert(kTile == kThreads, "find_windows has a thread for each pixel");
constexpr int kTileCodes = 3584;          // pixels of the planes under them, at most: 28 KiB
constexpr int kParts = 4;                 // codes that the list of a mixed pixel holds
constexpr int kEdgeBits = 8;              // pixels of a row whose edges are told together
constexpr int kOutside = -2, kMany = -1;  // in the place of a window's class: no pixel of the result; several codes
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
  int tiles;                   // of the batch

  __host__ __device__ bool edges() const { return rows > n_labels; }
  __host__ __device__ int tile_width() const { return 1 << tile_bits; }
  // The codes under a tile.
  __host__ __device__ int under_height() const { return (tile_height - 1) * stride + side; }
  __host__ __device__ int under_width() const { return (tile_width() - 1) * stride + side; }
  __device__ __forceinline__ bool on_edge(int code) const { return code > n_labels; }
  // The class of a code; n_labels is none.
  __device__ __forceinline__ int class_of(int code) const { return on_edge(code) ? code - n_labels - 1 : code; }
};

// Call fn(T{}) with the one of the types Ts that has the dtype. Kernels are compiled for all of a size at once, as most
// of each does not depend on the type: all threads take one way through the rest.
template <typename T, typename... Others, typename F>
__device__ __forceinline__ void with_one_of(DType dtype, const F& fn) {
  constexpr DType kOwn = std::is_same_v<T, float>  ? DType::float32
                         : std::is_same_v<T, bf16> ? DType::bfloat16
                                                   : DType::float16;
  if constexpr (sizeof...(Others) > 0)
    if (dtype != kOwn) return with_one_of<Others...>(dtype, fn);
  fn(T{});
}

// Where a tile begins in the result.
struct TileAt {
  int image, y, x;

  __device__ __forceinline__ TileAt(const Conv& conv, unsigned tile) {
    const unsigned row = tile / conv.tiles_x;
    x = static_cast<int>(tile - row * conv.tiles_x) << conv.tile_bits;
    image = static_cast<int>(row / conv.tiles_y);
    y = static_cast<int>(row - image * conv.tiles_y) * conv.tile_height;
  }
};

// The part of a tile that lies in the result.
struct Extent {
  int height, width;

  __device__ __forceinline__ Extent(const Conv& conv, const TileAt& tile)
      : height(min(conv.tile_height, conv.out_height - tile.y)),
        width(min(conv.tile_width(), conv.out_width - tile.x)) {}
};

// Element i of what lies `pitch` bytes apart: one instruction, as it takes no more than 32 bits of either.
template <typename T>
__device__ __forceinline__ T* nth(T* first, unsigned i, unsigned pitch) {
  using Byte = std::conditional_t<std::is_const_v<T>, const char, char>;
  return reinterpret_cast<T*>(reinterpret_cast<Byte*>(first) + static_cast<uint64_t>(i) * pitch);
}

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
  // A mixed pixel is told by its index.
  __device__ __forceinline__ int at(const Conv& conv, int padded_x) const {
    const int x = source_of(padded_x, conv.planes.width, conv.pad_mode);
    return codes == nullptr || x < 0 ? conv.n_labels : inside(x);
  }
  __device__ __forceinline__ int inside(int x) const {
    const int code = __ldg(codes + x);
    return code < 0 ? -1 - (first + x) : code;
  }
};

// A pixel of the planes under a tile, in shared memory.
struct alignas(8) Pixel {
  int label;  // the class, n_labels for none, or a negative code
  // How many pixels have this class from here on (8 bits, at most 32), and above them which of kEdgeBits are edges.
  unsigned ahead;

  __device__ __forceinline__ int run() const { return static_cast<int>(ahead & 255); }
  __device__ __forceinline__ unsigned edges() const { return ahead >> 8; }
};

// How many groups of kEdgeBits pixels a row of the kernel has, and the bits of those that the k-th group has in it.
__host__ __device__ constexpr int edge_groups(int side) { return (side + kEdgeBits - 1) / kEdgeBits; }
__host__ __device__ constexpr unsigned edge_bits(int side, int k) {
  return side - k * kEdgeBits < kEdgeBits ? (1u << (side - k * kEdgeBits)) - 1 : (1u << kEdgeBits) - 1;
}

// Read the pixels [under_height, under_width] under a tile. For now `ahead` is whether they are edges. Returns, to all
// threads, whether all are of one class and none is an edge.
__device__ __forceinline__ bool load_codes(const Conv& conv, const TileAt& tile, Pixel* under) {
  const int height = conv.under_height(), width = conv.under_width(), left = tile.x * conv.stride - conv.padding;
  const int lane = static_cast<int>(threadIdx.x) % 32, warp = static_cast<int>(threadIdx.x) / 32;
  const bool inside = left >= 0 && left + width <= conv.planes.width;  // as nearly all tiles are
  int least = INT_MAX, most = INT_MIN;                                 // of the codes that this thread sees
  for (int y = warp; y < height; y += kThreads / 32) {
    const CodeRow row(conv, tile.image, tile.y * conv.stride - conv.padding + y);
    const auto keep = [&](int x, int code) {
      least = min(least, code);
      most = max(most, code);
      under[y * width + x] = {conv.class_of(code), conv.on_edge(code) ? 1u : 0u};
    };
    if (inside && row.codes != nullptr) {
#pragma unroll 2
      for (int first = 0; first < width; first += 32)
        if (first + lane < width) keep(first + lane, row.inside(left + first + lane));
    } else {
#pragma unroll 1
      for (int x = lane; x < width; x += 32) keep(x, row.at(conv, left + x));
    }
  }
  __syncthreads();
  const int label = under[0].label;
  return __syncthreads_and(label >= 0 && (least > most || (least == label && most == label))) != 0;
}

// The bits behind this lane's, and those of the 32 pixels to the right of the warp's.
__device__ __forceinline__ unsigned bits_behind(unsigned bits, unsigned next, int lane) {
  return static_cast<unsigned>((static_cast<uint64_t>(next) << 32 | bits) >> (lane + 1));
}

// Find what lies ahead of each pixel. A mixed pixel is alone.
__device__ __forceinline__ void look_ahead(const Conv& conv, Pixel* under) {
  const int height = conv.under_height(), width = conv.under_width();
  const int lane = static_cast<int>(threadIdx.x) % 32, warp = static_cast<int>(threadIdx.x) / 32;
  for (int y = warp; y < height; y += kThreads / 32) {
    Pixel* row = under + y * width;
    unsigned next_starts = kAll, next_edges = 0;  // where runs begin and edges are in the 32 pixels to the right
#pragma unroll 1
    for (int first = (width - 1) / 32 * 32; first >= 0; first -= 32) {
      const int x = first + lane;
      const Pixel own = x < width ? row[x] : Pixel{-1, 0};
      const int before = x > 0 && x < width ? row[x - 1].label : -1;
      const unsigned starts = __ballot_sync(kAll, own.label < 0 || own.label != before);
      const unsigned edges = __ballot_sync(kAll, own.ahead != 0);
      const unsigned stops = bits_behind(starts, next_starts, lane);
      const unsigned run = stops == 0 ? 32 : static_cast<unsigned>(__ffs(static_cast<int>(stops)));
      const unsigned mask = (bits_behind(edges, next_edges, lane) << 1 | own.ahead) & ((1u << kEdgeBits) - 1);
      if (x < width) row[x].ahead = mask << 8 | run;
      next_starts = starts;
      next_edges = edges;
    }
  }
  __syncthreads();
}

// The class of all pixels under the window whose first pixel is given, or kMany; that too if any is an edge.
__device__ __forceinline__ int class_of_window(const Conv& conv, const Pixel* first) {
  const int label = first->label, side = conv.side;
  bool one = label >= 0;
#pragma unroll 1
  for (int i = 0; i < side && one; ++i, first += conv.under_width()) {
    one = first->label == label && first->run() >= side && (first->edges() & edge_bits(side, 0)) == 0;
#pragma unroll 1
    for (int k = 1; k < edge_groups(side); ++k) one &= (first[k * kEdgeBits].edges() & edge_bits(side, k)) == 0;
  }
  return one ? label : kMany;
}

}  // namespace
}  // namespace hd::cuda
