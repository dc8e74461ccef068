// instance_norm_act of contiguous images: a plane is one run of pixels, of which each block works on a part. It copies
// its part to shared memory, finds its moments or sums there, hands them to the other blocks of the plane, waits for
// theirs, and writes its part of the result from shared memory. So memory is read once. Copies for the block's next
// part are on their way meanwhile. If planes are larger than all shared memory of the GPU, a part is several chunks, of
// which all but the last are read twice.
//
// A unit is V elements, 16 bytes, at a multiple of 16 bytes of memory. Units cover a plane; the first and the last may
// stick out of it. Shared memory has units as memory has them, so that they are copied whole. Rows of a padded image
// begin anywhere in a unit: V elements there are two units and a shift.
#pragma once

#include "instance_norm_act.cuh"

namespace hd::cuda {
namespace {

constexpr int kPlaneThreads = 256;  // of a block, at most
constexpr int kPlaneBlocks = 3;     // that a multiprocessor holds: one loads while another waits or writes
constexpr int kReduction = 64;      // floats of shared memory that reductions use

// How blocks share planes. Block b works on the items b, b + gridDim.x, ...; item t is part t % count of plane t /
// count. Blocks that share a plane wait for each other, which needs no more than that all of them run: as a block works
// on its items in order, all parts of the first unfinished plane are being worked on.
struct Parts {
  unsigned items;
  int count;                      // of a plane
  int units;                      // of each, but the last
  int held;                       // so many of these are in shared memory at a time
  int chunks;                     // and so many times it takes to see them all
  int padded_held;                // units of the padded plane beside them
  int lanes;                      // threads that work on one row
  int buffers;                    // 2 if shared memory has room for the item after the present one
  int64_t pixels, padded_pixels;  // of a plane, as Norm computes them
  unsigned* counters;             // for each plane, the parts whose partial results are there
};

// The first element, at or before `begin`, of the units that cover an array from `begin` on.
template <typename T>
__device__ __forceinline__ int64_t first_unit(const T* array, int64_t begin) {
  return begin - static_cast<int64_t>(reinterpret_cast<uintptr_t>(array + begin) / sizeof(T) % kPack<T>);
}

__device__ __forceinline__ uint32_t funnel(uint32_t low, uint32_t high, int bits) {
#ifdef __CUDA_ARCH__
  return __funnelshift_r(low, high, bits);
#else
  return static_cast<uint32_t>((static_cast<uint64_t>(high) << 32 | low) >> bits);
#endif
}

// V elements from `shift` on of two units that follow each other.
template <typename T>
__device__ __forceinline__ Words shifted(const T* units, int shift) {
  const Words low = load_words(units), high = load_words(units + kPack<T>);
  const int words = shift * static_cast<int>(sizeof(T)) / 4;
  uint32_t at[8];
#pragma unroll
  for (int k = 0; k < 8; ++k) at[k] = k < 4 ? low.at[k] : high.at[k - 4];
#pragma unroll
  for (int k = 0; k < 6; ++k) at[k] = (words & 2) != 0 ? at[k + 2] : at[k];
#pragma unroll
  for (int k = 0; k < 5; ++k) at[k] = (words & 1) != 0 ? at[k + 1] : at[k];
  Words result;
#pragma unroll
  for (int k = 0; k < 4; ++k) result.at[k] = sizeof(T) == 4 ? at[k] : funnel(at[k], at[k + 1], shift % 2 * 16);
  return result;
}

// V elements at any address. `inside` says that the array has V elements more on both sides, so that no byte outside of
// it is read.
template <typename T>
__device__ __forceinline__ Words load_run(const T* address, bool inside) {
  constexpr int V = kPack<T>;
  const int shift = static_cast<int>(reinterpret_cast<uintptr_t>(address) / sizeof(T) % V);
  if (shift == 0) return load_words(address);
  if (inside) return shifted(address - shift, shift);
  Pack<T, V> pack;
#pragma unroll
  for (int k = 0; k < V; ++k) pack.at[k] = address[k];
  return bit_cast<Words>(pack);
}

// A row from some element on, V elements at a time, from shared memory where they are held.
template <typename T>
struct Row {
  const T* memory;        // its first element
  bool inside;            // for load_run
  const T* shared;        // the unit of its first element, which begins `shift` elements before
  int shift, begin, end;  // of the V elements each, those from `begin` to `end` are held

  __device__ __forceinline__ Words operator[](int k) const {
    constexpr int V = kPack<T>;
    if (k < begin || k >= end) return load_run(memory + k * V, inside);
    return shift == 0 ? load_words(shared + k * V) : shifted(shared + k * V, shift);
  }
};

__device__ __forceinline__ int clamped(int64_t x) {
  return static_cast<int>(max(min(x, int64_t{0x7fffffff}), int64_t{0}));
}

// A plane in memory of which shared memory holds so many units from `first` on. The rest is read from memory.
template <typename T>
struct Window {
  static constexpr int V = kPack<T>;
  const T* plane;
  int64_t size;  // of the plane
  T* shared;
  int64_t first;
  int units;

  // The units of which the plane has every element.
  __device__ __forceinline__ int whole_begin() const { return first < 0 ? 1 : 0; }
  __device__ __forceinline__ int whole_end() const {
    return units > 0 && first + static_cast<int64_t>(units) * V > size ? units - 1 : units;
  }

  // Begin to copy from memory what is held. The copies of a block are all there after copies_arrived and a barrier.
  __device__ __forceinline__ void fill() const {
    const int begin = whole_begin(), end = whole_end();
    const T* memory = plane + first;
#pragma unroll 2
    for (int u = begin + threadIdx.x; u < end; u += blockDim.x) copy_async(shared + u * V, memory + u * V);
    if (begin == 0 && end == units) return;

#pragma unroll 1
    for (int k = threadIdx.x; k < 2 * V; k += blockDim.x) {  // elements of the first unit, and of the last
      const int i = k < V ? k : k - V + (units - 1) * V;
      const bool partial = k < V ? begin == 1 : end < units;
      if (partial && first + i >= 0 && first + i < size) shared[i] = memory[i];
    }
  }

  __device__ __forceinline__ T at(int64_t element) const {
    const int64_t i = element - first;
    return static_cast<uint64_t>(i) < static_cast<uint64_t>(units * V) ? shared[i] : plane[element];
  }
  // The elements from one on, of which there are `count` times V.
  __device__ __forceinline__ Row<T> row(int64_t element, int count) const {
    const int64_t i = element - first;
    const int shift = static_cast<int>(i & (V - 1));
    const int64_t unit = (i - shift) / V, last = units - (shift == 0 ? 0 : 1);
    const bool inside = element >= V && element + static_cast<int64_t>(count + 1) * V <= size;
    return {plane + element, inside, shared + unit * V, shift, clamped(-unit), clamped(last - unit)};
  }
};

// What of an item is in shared memory at a time.
struct Part {
  unsigned plane;
  int index;      // of the item in its plane
  int64_t first;  // element of x at which its units begin
  int units;
  Range range;  // its elements

  template <typename T>
  __device__ __forceinline__ Part(const T* x, const Parts& parts, unsigned item, int chunk)
      : plane(item / parts.count), index(static_cast<int>(item - plane * parts.count)) {
    constexpr int V = kPack<T>;
    const int64_t pixels = parts.pixels, begin = static_cast<int64_t>(index) * parts.units + chunk * parts.held;
    first = first_unit(x + pixels * plane, 0) + begin * V;
    const int64_t left = (pixels - first + V - 1) / V;  // units before the end of the plane
    units = min(min(parts.held, parts.units - chunk * parts.held), clamped(left));
    range.begin = min(max(first, int64_t{0}), pixels);
    range.end = max(min(first + static_cast<int64_t>(units) * V, pixels), range.begin);
  }
  // How many elements part k of the plane has, if this is the first chunk of one.
  __device__ __forceinline__ float size(int k, const Parts& parts, int unit) const {
    const int64_t length = static_cast<int64_t>(parts.units) * unit, begin = first + (k - index) * length;
    return static_cast<float>(max(min(begin + length, parts.pixels) - max(begin, int64_t{0}), int64_t{0}));
  }
  template <typename T>
  __device__ __forceinline__ Window<T> window(const T* x, const Parts& parts, T* shared) const {
    return {x + parts.pixels * plane, parts.pixels, shared, first, units};
  }
  // Where a pixel is in the padded plane. The first of a row brings the padding before it along.
  __device__ __forceinline__ static int64_t padded_position(int64_t pixel, const Norm& n) {
    const Cursor at(pixel, n.width);
    return static_cast<int64_t>(at.row + n.pad) * n.padded_width() + (at.column == 0 ? 0 : at.column + n.pad);
  }
  // The rows of the padded plane that go with these pixels.
  __device__ __forceinline__ Range padded_range(const Norm& n) const {
    Range padded;
    padded.begin = padded_position(range.begin, n);
    padded.end = padded_position(range.end, n);
    return padded;
  }
  template <typename T>
  __device__ __forceinline__ Window<T> padded_window(const T* dy, const Norm& n, const Parts& parts, T* shared) const {
    constexpr int V = kPack<T>;
    const T* padded_plane = dy + parts.padded_pixels * plane;
    const Range padded = padded_range(n);
    const int64_t begin = first_unit(padded_plane, padded.begin);
    const int held = padded.begin == padded.end ? 0 : static_cast<int>((padded.end - begin + V - 1) / V);
    return {padded_plane, parts.padded_pixels, shared, begin, held};
  }
};

// Call fn(row, i, count) for the rows of a range: `count` units from element i on are inside the row, `reach` elements
// or more from its ends, and inside the range. `first` is where units begin. Each call is for `lanes` threads.
template <int V, typename F>
__device__ __forceinline__ void for_rows(int64_t first, const Range& range, int width, int reach, int lanes,
                                         const F& fn) {
  if (range.begin >= range.end) return;
  const int begin = Cursor(range.begin, width).row, rows = Cursor(range.end - 1, width).row + 1 - begin;
#pragma unroll 1
  for (int k = static_cast<int>(threadIdx.x) / lanes; k < rows; k += blockDim.x / lanes) {
    const int row = begin + k;
    const int64_t at = static_cast<int64_t>(row) * width;
    const int64_t from = max(at + reach, range.begin), to = min(at + width - reach, range.end);
    const int64_t i = first + ((from - first + V - 1) & ~int64_t{V - 1});
    if (i + V <= to) fn(row, i, static_cast<int>((to - i) / V));
  }
}

// Call fn(element, at) for all other elements of the range. Adjacent threads have adjacent elements.
template <int V, typename F>
__device__ __forceinline__ void for_row_ends(int64_t first, const Range& range, int width, int reach, const F& fn) {
  if (range.begin >= range.end) return;
  const int each = (2 * reach + V - 2) / V + 1;  // units that the surroundings of a row's end can touch
  const int begin = Cursor(range.begin, width).row, rows = Cursor(range.end - 1, width).row + 2 - begin;
  const auto unit_of = [&](int64_t element) { return first + ((element - first) & ~int64_t{V - 1}); };
  const auto row_end = [&](int row) { return unit_of(static_cast<int64_t>(begin + row) * width - reach); };
  const int k = static_cast<int>(threadIdx.x) % V;
#pragma unroll 1
  for (int m = static_cast<int>(threadIdx.x) / V; m < 2 + rows * each; m += blockDim.x / V) {
    const int row = m >= 2 ? (m - 2) / each : m == 0 ? 1 : rows - 1;
    int64_t i = row_end(row);
    if (m >= 2) {
      i += (m - 2 - row * each) * V;
    } else {  // where the range is cut, unless that is near the end of a row
      const int64_t cut = unit_of(m == 0 ? range.begin : range.end - 1);
      if (cut >= i || (m == 1 && cut == unit_of(range.begin))) continue;
      i = cut;
    }
    if (row > 0 && i <= row_end(row - 1) + (each - 1) * V) continue;  // the row before has it
    if (i + k < range.begin || i + k >= range.end) continue;
    const Cursor at(i + k, width);
    const bool whole = i >= range.begin && i + V <= range.end;
    if (!whole || at.column - k < reach || at.column - k + V > width - reach) fn(i + k, at);
  }
}

// Where an item's arrays are in shared memory.
template <typename T>
__device__ __forceinline__ T* buffer_of(float* shared, const Parts& parts, bool odd) {
  const int units = parts.held + parts.padded_held;
  return reinterpret_cast<T*>(shared + kReduction) + (odd && parts.buffers == 2 ? units * kPack<T> : 0);
}

// Before the first signal: nothing has arrived at any plane. The barrier is passed while the first copies arrive.
__device__ __forceinline__ void clear_counters(const Norm& n, const Parts& parts) {
#pragma unroll 1
  for (int64_t p = blockIdx.x * static_cast<int64_t>(blockDim.x) + threadIdx.x; p < n.planes;
       p += static_cast<int64_t>(gridDim.x) * blockDim.x)
    parts.counters[p] = 0;
  grid_sync();
}

// Hand two numbers of a part to the blocks that share its plane.
__device__ __forceinline__ void publish(const Norm& n, const Parts& parts, const Part& part, unsigned item, float a,
                                        float b) {
  if (threadIdx.x != 0) return;
  n.scratch[2 * static_cast<int64_t>(item)] = a;
  n.scratch[2 * static_cast<int64_t>(item) + 1] = b;
  signal(parts.counters + part.plane);
}

// Wait until all parts of a plane have been handed over.
__device__ __forceinline__ void await_plane(const Parts& parts, const Part& part) {
  if (threadIdx.x == 0) await(parts.counters + part.plane, parts.count);
  __syncthreads();
}

}  // namespace
}  // namespace hd::cuda
