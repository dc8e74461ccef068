// What both directions of instance_norm_act share for channels_last images.
//
// One kernel for each direction reads an image once, as far as the GPU can hold it. A unit of work is a tile of
// channels of an image, 64 bytes of each pixel or a little more: whole sectors of memory, which no other block fetches.
// It is normalised independently of the others, like a plane of a contiguous image. `parts` blocks share a unit, each
// with a range of pixels. A thread owns V adjacent channels, 16 bytes or one element, and takes its part in steps of
// `rows` pixels. It adds up its sums and keeps the first steps in shared memory. The blocks of the unit wait for each
// other, merge their sums, and write, last steps first: those that shared memory could not hold are read again, and the
// second-level cache still has what was read last.
//
// The grid is as many blocks as the GPU runs at once. It takes as many units at once as fill shared memory twice, and
// then the next ones, so that tiles of 512 x 1024 pixels are read from memory once: 27 MB of each are in the shared
// memory of an H200, and 6 MB in its cache. Of larger tiles the rest is read twice. Calculated for 132 multiprocessors
// of 227 KB and 50 MB of cache, [1, 32, 1024, 2048] moves 1.22 times what it must forward in 16 bits and 1.31 times in
// 32 bits; backward, where two arrays must be held, 1.48 and 1.54 times ([1, 64, 512, 1024]: 1.17).
#pragma once

#include "instance_norm_act.cuh"

namespace hd::cuda {
namespace {

constexpr int kPixelThreads = 256;  // of a block, at most; two blocks run on a multiprocessor

// Steps that a thread takes at once. Those of single elements are more, so that as much is in flight.
template <int V>
constexpr int kSteps = V == 1 ? 16 : 4;

struct alignas(8) SumPair {
  float a, b;
};

// Division of numbers below 2^31 by a constant, as a multiplication (Granlund and Montgomery, 1994, figure 4.1).
struct Divider {
  unsigned factor;
  int shift;

  Divider() = default;
  explicit Divider(int divisor) : factor(0), shift(0) {
    while (int64_t{1} << shift < divisor) ++shift;
    factor = static_cast<unsigned>(((uint64_t{1} << (31 + shift)) + divisor - 1) / divisor);
  }
  __device__ __forceinline__ int operator()(int x) const {
    return static_cast<int>(__umulhi(static_cast<unsigned>(x) << 1, factor) >> shift);
  }
};

struct Position {
  int row, column;
};

// How blocks share the work.
struct Tiling {
  int lanes;     // threads across a tile of channels
  int rows;      // pixels of a step
  int tiles;     // of an image
  int units;     // of all images
  int at_once;   // units that the grid takes at once
  int parts;     // blocks of a unit
  int held;      // steps of a part that are kept in shared memory
  int64_t part;  // pixels of each part, but the last
  int pixel_bytes;
  bool flat;           // no padding: a pixel has the same place in x, y and the residual
  int reach;           // pixels so far from the edges of an image have copies in the padding; -1 if there are none
  Position inside;     // rows and columns beyond that
  Divider width;       // of the image
  bool relu, leaky;    // the activation, if there is one
  int ahead;           // pixels of its next part that a block prefetches
  int merged;          // channels of a tile whose sums one block merges
  unsigned* counters;  // [at_once, 2]
  SumPair* partial;    // [2, at_once, parts, channels of a tile]
  SumPair* totals;     // [2, at_once, channels of a tile]
};

// How many steps a thread takes at once.
template <int N>
using Steps = std::integral_constant<int, N>;

// A thread's share of a part.
template <int V>
struct Share {
  int lane, row, channel;
  int part;
  int64_t image, first;  // the image and its first pixel of the part
  int pixels;            // of the part
  int whole, steps;      // steps that all rows have, and that this one has
  bool works;            // false without a row or a channel
  int kept;              // steps that are held: the first ones
  Position begin;        // of the first pixel

  __device__ __forceinline__ Share(const Norm& n, const Tiling& t, int unit, int part)
      : lane(threadIdx.x % t.lanes),
        row(threadIdx.x / t.lanes),
        part(part),
        image(unit / t.tiles),
        first(part * t.part) {
    channel = (unit % t.tiles * t.lanes + lane) * V;
    pixels = static_cast<int>(min(t.part, n.pixels() - first));
    works = row < t.rows && channel < n.channels;
    const int all = (pixels + t.rows - 1) / t.rows;
    whole = pixels / t.rows;
    steps = works ? whole + (row < pixels - whole * t.rows) : 0;
    kept = t.held >= all ? all : t.held / kSteps<V> * kSteps<V>;
    begin.row = static_cast<int>(first / n.width);
    begin.column = static_cast<int>(first - static_cast<int64_t>(begin.row) * n.width);
  }
  // This thread's channels at the first pixel of the image, and of the part, in a padded image or one that is not.
  template <typename T>
  __device__ __forceinline__ T* in_image(T* x, const Norm& n, int pad) const {
    return x + image * (n.height + 2 * pad) * (n.width + 2 * pad) * n.channels + channel;
  }
  template <typename T>
  __device__ __forceinline__ T* in_part(T* x, const Norm& n, int pad) const {
    const int64_t pixel = static_cast<int64_t>(begin.row + pad) * (n.width + 2 * pad) + begin.column + pad;
    return in_image(x, n, pad) + pixel * n.channels;
  }
  // The pixel of a step, counted from the first of the part, and its place in the image.
  __device__ __forceinline__ int pixel(const Tiling& t, int step) const { return row + step * t.rows; }
  __device__ __forceinline__ Position position(const Norm& n, const Tiling& t, int step) const {
    const int along = begin.column + pixel(t, step), down = t.width(along);
    return {begin.row + down, along - down * n.width};
  }
  // Call fn(step, Steps<N>) for all steps in order, for N steps at once where there are so many, if this thread works.
  template <int N, typename F>
  __device__ __forceinline__ void forwards(const F& fn) const {
    int step = 0;
#pragma unroll 1
    for (; step + N <= whole; step += N) fn(step, Steps<N>{});
#pragma unroll 1
    for (; step < steps; ++step) fn(step, Steps<1>{});
  }
  // The same in the opposite order.
  template <int N, typename F>
  __device__ __forceinline__ void backwards(const F& fn) const {
    const int end = whole / N * N;
#pragma unroll 1
    for (int step = steps - 1; step >= end; --step) fn(step, Steps<1>{});
#pragma unroll 1
    for (int step = end - N; step >= 0; step -= N) fn(step, Steps<N>{});
  }
};

// Whether a pixel has copies in the padding.
__device__ __forceinline__ bool has_copies(const Tiling& t, Position at) {
  const auto is_inside = [&](int i, int inside) {
    return static_cast<unsigned>(i - t.reach - 1) < static_cast<unsigned>(inside);
  };
  return !is_inside(at.row, t.inside.row) || !is_inside(at.column, t.inside.column);
}

// Where steps of a thread lie in the padded image.
template <int N>
struct Places {
  int pixel[N];       // counted from the first one of the part
  bool near = false;  // whether one of them has copies in the padding

  template <int V>
  __device__ __forceinline__ Places(const Share<V>& own, const Norm& n, const Tiling& t, int step) {
#pragma unroll
    for (int i = 0; i < N; ++i) pixel[i] = own.pixel(t, step + i);
    if (t.flat) return;
#pragma unroll
    for (int i = 0; i < N; ++i) {
      const Position at = own.position(n, t, step + i);
      pixel[i] += 2 * n.pad * (at.row - own.begin.row);
      near |= has_copies(t, at);
    }
  }
};

// The same channels so many pixels further on. The compiler would make a product of two 64-bit numbers of it.
template <typename T>
__device__ __forceinline__ T* advanced(T* address, int pixels, const Tiling& t) {
#ifdef __CUDA_ARCH__
  asm("mad.wide.s32 %0, %1, %2, %0;" : "+l"(address) : "r"(pixels), "r"(t.pixel_bytes));
  __builtin_assume(__isGlobal(address));
  return address;
#else
  using Byte = std::conditional_t<std::is_const_v<T>, const unsigned char, unsigned char>;
  return reinterpret_cast<T*>(reinterpret_cast<Byte*>(address) + int64_t{pixels} * t.pixel_bytes);
#endif
}

// Fetch the beginning of a part into the second-level cache, so that memory is not idle while blocks wait for each
// other. x begins at the part.
template <typename T, int V>
__device__ __forceinline__ void prefetch(const T* x, const Share<V>& own, const Tiling& t) {
#ifdef __CUDA_ARCH__
  x -= own.lane * V;

#pragma unroll 1
  for (int pixel = threadIdx.x; pixel < min(own.pixels, t.ahead); pixel += blockDim.x)
    asm volatile("prefetch.global.L2 [%0];" ::"l"(advanced(x, pixel, t)));
#else
  (void)x, (void)own, (void)t;
#endif
}

// Call fn(i, item) for items in registers, which fn may change, one after the other: fn is compiled once. For what is
// rare and long.
template <int N, typename R, typename F>
__device__ __forceinline__ void one_by_one(R (&items)[N], const F& fn) {
#pragma unroll 1
  for (int i = 0; i < N; ++i) {
    R item = items[0];
#pragma unroll
    for (int k = 1; k < N; ++k)
      if (k == i) item = items[k];
    fn(i, item);
#pragma unroll
    for (int k = 0; k < N; ++k)
      if (k == i) items[k] = item;
  }
}

// Call fn(pixel) with each copy that the padding has of a pixel.
template <typename F>
__device__ __forceinline__ void for_copies(const Norm& n, Position at, const F& fn) {
  const Copies rows(at.row, n.height, n), columns(at.column, n.width, n);
#pragma unroll 1
  for (int i = 1; i < rows.count() * columns.count(); ++i)
    fn(static_cast<int64_t>(rows[i / columns.count()]) * n.padded_width() + columns[i % columns.count()]);
}

// The channels of a thread at one pixel, as they are in memory.
template <typename T, int V>
using Raw = std::conditional_t<V == 1, T, Words>;

template <int V, typename T>
__device__ __forceinline__ Raw<T, V> load(const T* address) {
  return *reinterpret_cast<const Raw<T, V>*>(address);
}

// The same if nobody reads it again soon: it is the first to leave the caches.
template <int V, typename T>
__device__ __forceinline__ Raw<T, V> load_streaming(const T* address) {
#ifdef __CUDA_ARCH__
  if constexpr (V != 1) {
    Words words;
    asm("ld.global.cs.v4.b32 {%0, %1, %2, %3}, [%4];"
        : "=r"(words.at[0]), "=r"(words.at[1]), "=r"(words.at[2]), "=r"(words.at[3])
        : "l"(address));
    return words;
  }
#endif
  return load<V>(address);
}

template <typename T, int V>
__device__ __forceinline__ void unpack(const Raw<T, V>& raw, float (&values)[V]) {
  if constexpr (V == 1)
    values[0] = to_float(raw);
  else
    to_floats(bit_cast<Pack<T, V>>(raw), values);
}

template <typename T, int V>
__device__ __forceinline__ Raw<T, V> packed(const float (&values)[V]) {
  if constexpr (V == 1)
    return from_float<T>(values[0]);
  else
    return bit_cast<Words>(from_floats<T>(values));
}

// To shared memory.
template <typename T, typename R>
__device__ __forceinline__ void hold(T* address, const R& raw) {
  *reinterpret_cast<R*>(address) = raw;
}

// To memory that this kernel does not read.
template <int V, typename T>
__device__ __forceinline__ void store_result(T* address, const Raw<T, V>& raw) {
  if constexpr (V == 1)
    *address = raw;
  else
    store_streaming(address, bit_cast<Pack<T, V>>(raw));
}

// The shared memory of a block.
template <typename T, int V>
struct Shared {
  static constexpr int kTogether = V < 4 ? V : 4;  // channels of a thread that are added up together

  SumPair* cells;   // [kTogether, threads]
  SumPair* totals;  // [channels of a tile]
  float* table;     // [5, channels of a tile]
  T* held;          // [arrays, steps, rows * lanes, V]

  __host__ __device__ static int64_t aside(int threads, int lanes) {
    return (sizeof(SumPair) * (kTogether * threads + lanes * V) + 5 * sizeof(float) * lanes * V + 15) / 16 * 16;
  }
  __device__ __forceinline__ Shared(void* memory, int lanes)
      : cells(static_cast<SumPair*>(memory)),
        totals(cells + kTogether * blockDim.x),
        table(reinterpret_cast<float*>(totals + lanes * V)),
        held(reinterpret_cast<T*>(static_cast<unsigned char*>(memory) + aside(blockDim.x, lanes))) {}
};

// One row of the table, for the channels of a thread.
template <typename T, int V>
__device__ __forceinline__ void read_table(float (&values)[V], int index, const Share<V>& own, const Tiling& t,
                                           const Shared<T, V>& shared) {
#pragma unroll
  for (int k = 0; k < V; ++k) values[k] = shared.table[(index * t.lanes + own.lane) * V + k];
}

}  // namespace
}  // namespace hd::cuda
