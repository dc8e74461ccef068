// A row of a plane is one flat run of elements, whatever its format: a pixel of a channels_last image has C adjacent
// elements, one of a contiguous image has one. A block walks down a tile of adjacent cells, where a cell is a pixel of
// the quarter level, 2x2 pixels of the half level and 4x4 of the image. A thread has the same elements of every row of
// the image and moves them 16 bytes at a time. What is added down a column stays in its registers; what is added along
// a row goes through shared memory, where it does not matter that the neighbour of an element, C elements away, is not
// aligned like itself. Small planes share a block.
//
// Rows that are no multiple of 16 bytes are moved element by element.
//
// This is the part that the forward and the backward pass share: tiles, and where their elements lie in global and in
// shared memory.
#pragma once

#include <algorithm>

#include "cuda.cuh"

namespace hd::cuda {
namespace {

constexpr int kThreads = 256;       // of a block, at most
constexpr int kBand = 8;            // rows of cells that a block walks down
constexpr int kMostChannels = 112;  // of a tile; more are divided into slices
constexpr int kSlice = 64;

struct Planes {
  int64_t count;
  int height, width, pixel;  // pixel: its adjacent elements
};

// A number below 2^13 that divides others below 2^13 by a multiplication.
struct Divisor {
  int by = 1;
  unsigned factor = 0;  // 2^31 / by, rounded up

  Divisor() = default;
  explicit Divisor(int by) : by(by), factor(static_cast<unsigned>(((int64_t{1} << 31) + by - 1) / by)) {}
  __host__ __device__ __forceinline__ operator int() const { return by; }
  friend __device__ __forceinline__ int operator/(int x, const Divisor& d) {
    return static_cast<int>(__umulhi(2u * static_cast<unsigned>(x), d.factor));
  }
  friend __device__ __forceinline__ int operator%(int x, const Divisor& d) { return x - x / d * d.by; }
};

// What a block works on. Sizes of shared memory are in elements of one plane.
struct Tile {
  int cells, planes;  // of a block
  Divisor channels;
  int across, slices, bands;   // tiles along a row, along a pixel, and down a plane
  Divisor row, half, quarter;  // shared memory for a row of each level
  int row_lead, half_lead;     // what lies before a tile's part of such a row, so that packs of it are aligned
};

// How a thread accesses the rows of an image.
template <typename Type, int N>
struct Access {
  using T = Type;
  static constexpr int kPack = N, kPacks = N == 1 ? 8 : 16 / N;  // elements of an access, accesses of a row
  static constexpr int kBlocks = N == 1 ? 3 : 2;                 // of a multiprocessor, whose registers must suffice
  static constexpr int kRow = kPack * kPacks, kHalf = kRow / 2, kQuarter = kRow / 4;  // elements of a row of each level
};

struct Place {
  int64_t plane;
  int planes, cell, channel;  // planes that there are, first cell and channel
  int top, bottom;            // rows of cells
};

// Columns of a level that a tile has of a row, and where they are in shared memory: each plane has `length` elements.
struct Segment {
  int first, columns, lead;
  Divisor length;
};

__host__ __device__ __forceinline__ int halved(int size) { return (size + 1) / 2; }
__host__ __device__ __forceinline__ Planes halved(const Planes& in) {
  return {in.count, halved(in.height), halved(in.width), in.pixel};
}

__device__ __forceinline__ int block_size() { return static_cast<int>(blockDim.x); }

// The i-th of M elements, or packs of N elements, that a thread has of a row. A warp has all between them, so that
// their distance is known when this is compiled.
template <int N, int M>
__device__ __forceinline__ int own(int i) {
  const int thread = static_cast<int>(threadIdx.x);
  return N * (thread / 32 * 32 * M + thread % 32 + 32 * i);
}

// The same number, of which the compiler does not know that. It would otherwise compute all that follows from it before
// a loop, and keep more than there are registers.
__device__ __forceinline__ int opaque(int x) {
  asm volatile("" : "+r"(x));
  return x;
}

// Pixels of the window at output position o that lie in [0, size); 1 where there is no such window.
__device__ __forceinline__ int inside(int o, int size) { return max(min(2 * o + 2, size) - max(2 * o - 1, 0), 1); }

// One over the pixels of the windows of an output row. The first window and the last one may be narrow.
struct Scale {
  float whole, narrow;

  __device__ __forceinline__ float of(int narrow_ones, int i) const {
    return (narrow_ones >> i & 1) != 0 ? narrow : whole;
  }
};

__device__ __forceinline__ Scale scale_of(int row, const Planes& in) {
  const int rows = inside(row, in.height);
  if (rows == 3) return {1.f / 9.f, in.width == 1 ? 1.f / 3.f : 1.f / 6.f};
  return {1.f / static_cast<float>(3 * rows), 1.f / static_cast<float>(in.width == 1 ? rows : 2 * rows)};
}

__device__ __forceinline__ Place find_place(const Planes& in, const Tile& tile) {
  unsigned task = blockIdx.x;
  Place place;
  place.cell = static_cast<int>(task % tile.across) * tile.cells;
  task /= tile.across;
  place.channel = static_cast<int>(task % tile.slices) * tile.channels;
  task /= tile.slices;
  place.top = static_cast<int>(task % tile.bands) * kBand;
  place.bottom = min(place.top + kBand, halved(halved(in.height)));
  place.plane = static_cast<int64_t>(task / tile.bands) * tile.planes;
  place.planes = static_cast<int>(min(static_cast<int64_t>(tile.planes), in.count - place.plane));
  return place;
}

// The first element of a level's plane of this block.
template <typename T>
__device__ __forceinline__ T* plane_of(T* data, const Planes& level, const Place& place) {
  return data == nullptr ? nullptr : data + place.plane * level.height * level.width * level.pixel;
}

// Where the N elements of a segment from `at` on lie, counted from the row's begin in the first plane; -1 if the level
// or the segment has none of them.
template <int N>
__device__ __forceinline__ int locate(const Planes& level, const Tile& tile, const Place& place, const Segment& segment,
                                      int at) {
  const int plane = at / segment.length, element = at - plane * segment.length - segment.lead;
  if (plane >= place.planes || element + N <= 0 || element >= segment.columns * tile.channels) return -1;
  const int stride = level.width * level.pixel;
  if (tile.channels == level.pixel) {
    const int flat = segment.first * level.pixel + element;
    return flat >= 0 && flat < stride ? plane * level.height * stride + flat : -1;
  }
  const int column = segment.first + element / tile.channels, channel = place.channel + element % tile.channels;
  return column >= 0 && column < level.width && channel < level.pixel ? column * level.pixel + channel : -1;
}

template <int N, int P>
__device__ __forceinline__ void locate_all(const Planes& level, const Tile& tile, const Place& place,
                                           const Segment& segment, int (&offsets)[P]) {
#pragma unroll
  for (int p = 0; p < P; ++p) offsets[p] = locate<N>(level, tile, place, segment, own<N, P>(p));
}

// N elements as they were loaded. As 16-bit values, each would take a register as long as it is kept.
template <typename T, int N>
struct Loaded {
  static constexpr int kWords = N == 1 ? 1 : N * sizeof(T) / 4;
  Pack<uint32_t, kWords> words;

  __device__ __forceinline__ void load(const T* from) {
    if constexpr (N == 1 && sizeof(T) == 2)
      words.at[0] = from->bits;
    else
      words = *reinterpret_cast<const Pack<uint32_t, kWords>*>(from);
  }

  __device__ __forceinline__ float at(int i) const {
    if constexpr (sizeof(T) == 2)
      return to_float(T{static_cast<uint16_t>(words.at[i / 2] >> (i % 2 * 16))});
    else
      return bit_cast<float>(words.at[i]);
  }
};

// Load a thread's part of a row, which is 0 outside of the level.
template <typename T, int N, int P>
__device__ __forceinline__ void load_row(const T* data, const Planes& level, int row, const int (&offsets)[P],
                                         Loaded<T, N> (&out)[P]) {
  const bool exists = data != nullptr && row >= 0 && row < level.height;
  const T* source = data + static_cast<int64_t>(exists ? row : 0) * level.width * level.pixel;
#pragma unroll
  for (int p = 0; p < P; ++p) {
    out[p] = {};
    if (exists && offsets[p] >= 0) out[p].load(source + offsets[p]);
  }
}

// Elements of a segment of a level: where in the finer level's segment their windows begin. Elements outside of the
// level see windows outside of the finer one, where all is 0, and those outside of the segment have no meaning.
template <int M>
struct Windows {
  int begin[M];
  unsigned narrow;  // one bit for each

  __device__ __forceinline__ Windows(const Planes& fine, const Tile& tile, const Segment& coarse, int fine_lead,
                                     int fine_length)
      : narrow(0) {
#pragma unroll
    for (int i = 0; i < M; ++i) {
      const int plane = own<1, M>(i) / coarse.length, element = own<1, M>(i) - plane * coarse.length - coarse.lead;
      const int column = max(element, 0) / tile.channels, o = coarse.first + column;
      const bool exists = plane < tile.planes && element >= 0 && column < coarse.columns;
      begin[i] = exists ? plane * fine_length + fine_lead + element + column * tile.channels : 0;
      if (exists && o >= halved(fine.width)) begin[i] += tile.channels;
      if (inside(o, fine.width) < 3) narrow |= 1u << i;
    }
  }
};

__device__ __forceinline__ float window_sum(const float* begin, int channels) {
  return begin[0] + begin[channels] + begin[2 * channels];
}

// A level's gradient: where in the finer level's segment the shares of its windows go, or -1.
template <int M>
struct Shares {
  int to[M];

  __device__ __forceinline__ Shares(const Tile& tile, int columns, const Divisor& length, int fine_length) {
#pragma unroll
    for (int i = 0; i < M; ++i) {
      const int plane = own<1, M>(i) / length, element = own<1, M>(i) - plane * length,
                column = element / tile.channels;
      const bool exists = plane < tile.planes && column < columns;
      to[i] = exists ? plane * fine_length + element + column * tile.channels : -1;
    }
  }

  // Add shares up along a row of the finer level: a window's first pixel of the two that it adds to those of its left
  // neighbour has one, the second shares with the right neighbour. Beyond the last column the result has no meaning.
  __device__ __forceinline__ void spread(const float* shares, float* sums, int channels) const {
#pragma unroll
    for (int i = 0; i < M; ++i) {
      if (to[i] < 0) continue;
      const float share = shares[own<1, M>(i)];
      sums[to[i]] = share;
      sums[to[i] + channels] = share + shares[own<1, M>(i) + channels];
    }
  }
};

// Which of this thread's elements belong to a narrow window, one bit for each of P packs of N.
template <int N, int P>
__device__ __forceinline__ unsigned narrow_ones(const Planes& fine, const Tile& tile, int first,
                                                const Divisor& length) {
  unsigned ones = 0;
#pragma unroll
  for (int i = 0; i < P * N; ++i) {
    const int column = first + (own<N, P>(i / N) + i % N) % length / tile.channels;
    if (inside(column, fine.width) < 3) ones |= 1u << i;
  }
  return ones;
}

// The tiles of an image, for accesses of `pack` elements and so many elements of a row for each thread.
Tile tiles_of(const Planes& in, int pack, int elements) {
  const auto rounded = [](int n, int to) { return (n + to - 1) / to * to; };
  const int capacity = kThreads * elements, total = halved(halved(in.width));
  const int channels = in.pixel > kMostChannels ? kSlice : in.pixel;
  const int most = ((capacity - 8 * pack) / channels - 4) / 4;
  Tile tile;
  tile.channels = Divisor(channels);
  tile.slices = static_cast<int>(ceil_div(in.pixel, channels));
  tile.across = static_cast<int>(ceil_div(total, most));
  tile.cells = static_cast<int>(ceil_div(total, tile.across));
  if (tile.across > 1 && most >= 8) {  // tiles begin at multiples of 32 bytes
    tile.cells = std::min(rounded(tile.cells, 8), most / 8 * 8);
    tile.across = static_cast<int>(ceil_div(total, tile.cells));
  }
  tile.bands = static_cast<int>(ceil_div(halved(halved(in.height)), kBand));
  const int sector = 2 * pack;  // 32 bytes, where each plane's part begins as well
  tile.row_lead = (sector - 1) * 3 * (in.pixel % sector) % sector;
  tile.half_lead = (sector - 1) * (in.pixel % sector) % sector;
  const int half = rounded(tile.half_lead + (2 * tile.cells + 2) * channels, sector);
  const int quarter = rounded((tile.cells + 1) * channels, sector);
  const int row = rounded(tile.row_lead + (4 * tile.cells + 3) * channels, sector);
  tile.half = Divisor(half);
  tile.quarter = Divisor(quarter);
  tile.row = Divisor(std::max({row, 2 * half, 4 * quarter}));
  const int64_t size = static_cast<int64_t>(in.height) * in.width * in.pixel;
  const int64_t planes = std::min<int64_t>(capacity / int{tile.row}, std::max<int64_t>(INT32_MAX / size, 1));
  tile.planes = tile.slices > 1 ? 1 : static_cast<int>(std::min(planes, in.count));
  return tile;
}

}  // namespace
}  // namespace hd::cuda
