// Parts of planes in shared memory, for instance_norm_act of contiguous images.
//
// A unit is V elements, 16 bytes, at a multiple of 16 bytes of memory. Units cover a plane; the first and the last may
// stick out of it. Shared memory has units as memory has them, so that they are copied whole. Rows of a padded image
// begin anywhere in a unit: V elements there are two units and a shift.
#pragma once

#include "instance_norm_act.cuh"

namespace hd::cuda {
namespace {

constexpr int kPlaneThreads = 256;  // of a block, at most
constexpr int kPlaneBlocks = 4;     // that a multiprocessor holds: one loads while another waits or writes
constexpr int kReduction = 64;      // floats of shared memory that reductions use

// How blocks share planes. Block b works on the items b, b + gridDim.x, ...; item t is part t % count of plane t /
// count. Blocks that share a plane wait for each other, which needs no more than that all of them run: as a block works
// on its items in order, all parts of the first unfinished plane are being worked on.
struct Parts {
  unsigned items;
  int count;           // of a plane
  int units;           // of each, but the last
  int held;            // so many of these stay in shared memory: the last ones
  int padded_held;     // units of the padded plane beside them
  int buffers;         // 2 if shared memory has room for the item after the present one
  unsigned* counters;  // for each plane, the parts whose partial results are there
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
__device__ __forceinline__ Pack<T, kPack<T>> shifted(const T* units, int shift) {
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
  return bit_cast<Pack<T, kPack<T>>>(result);
}

// The V elements from `at` on of an array of `size` elements, at any address. No byte outside of the array is read.
template <typename T>
__device__ __forceinline__ Pack<T, kPack<T>> load_run(const T* array, int64_t at, int64_t size) {
  constexpr int V = kPack<T>;
  const int64_t first = first_unit(array, at);
  if (first == at) return bit_cast<Pack<T, V>>(load_words(array + at));
  if (first >= 0 && first + 2 * V <= size) return shifted(array + first, static_cast<int>(at - first));
  Pack<T, V> pack;
#pragma unroll
  for (int k = 0; k < V; ++k) pack.at[k] = array[at + k];
  return pack;
}

// A plane in memory of which shared memory holds so many units from `first` on. The rest is read from memory.
template <typename T>
struct Window {
  static constexpr int V = kPack<T>;
  const T* plane;
  int64_t size;  // of the plane
  T* shared;     // with room for one unit more
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
#pragma unroll 4
    for (int u = begin + threadIdx.x; u < end; u += blockDim.x) copy_async(shared + u * V, memory + u * V);
    if (begin == 0 && end == units) return;
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
  __device__ __forceinline__ Pack<T, V> run(int64_t element) const {
    const int64_t i = element - first;
    if (i < 0 || i > (units - 1) * V) return load_run(plane, element, size);
    const int shift = static_cast<int>(i) % V;
    if (shift == 0) return bit_cast<Pack<T, V>>(load_words(shared + i));
    return shifted(shared + (static_cast<int>(i) - shift), shift);
  }
};

// An item's share of plane x, and the share of the padded plane that belongs to it.
struct Part {
  int64_t plane;
  int index;
  int64_t first;        // element of x at which its units begin
  int units, head;      // of them, the first ones that are not held
  Range range, padded;  // elements, of which the latter are those of the rows from the range's first to its last pixel

  template <typename T>
  __device__ __forceinline__ Part(const T* x, const Norm& n, const Parts& parts, unsigned item)
      : plane(item / parts.count), index(static_cast<int>(item - plane * parts.count)) {
    constexpr int V = kPack<T>;
    const int64_t pixels = n.pixels(), origin = first_unit(x + plane * pixels, 0);
    first = origin + static_cast<int64_t>(index) * parts.units * V;
    const int64_t left = pixels - first;  // units after the plane's last do not count
    units = static_cast<int>(max(min(static_cast<int64_t>(parts.units), (left + V - 1) / V), int64_t{0}));
    head = max(units - parts.held, 0);
    range.begin = max(first, int64_t{0});
    range.end = max(min(first + static_cast<int64_t>(units) * V, pixels), range.begin);
    padded.begin = padded_position(range.begin, n);
    padded.end = padded_position(range.end, n);
  }
  // The units of which the plane has every element.
  __device__ __forceinline__ int whole_begin() const { return first < 0 ? 1 : 0; }
  __device__ __forceinline__ int whole_end(int64_t pixels, int unit) const {
    return units > 0 && first + static_cast<int64_t>(units) * unit > pixels ? units - 1 : units;
  }
  // The elements of part k of the same plane.
  __device__ __forceinline__ float size(int k, int64_t pixels, const Parts& parts, int unit) const {
    const int64_t length = static_cast<int64_t>(parts.units) * unit, begin = first + (k - index) * length;
    return static_cast<float>(max(min(begin + length, pixels) - max(begin, int64_t{0}), int64_t{0}));
  }
  // Where a pixel is in the padded plane. The first of a row brings the padding before it along.
  __device__ __forceinline__ static int64_t padded_position(int64_t pixel, const Norm& n) {
    const Cursor at(pixel, n.width);
    return static_cast<int64_t>(at.row + n.pad) * n.padded_width() + (at.column == 0 ? 0 : at.column + n.pad);
  }
  template <typename T>
  __device__ __forceinline__ Window<T> window(const T* x, const Norm& n, T* shared) const {
    return {x + plane * n.pixels(), n.pixels(), shared, first + static_cast<int64_t>(head) * kPack<T>, units - head};
  }
  // The units of the padded plane that go with those of x that are held.
  template <typename T>
  __device__ __forceinline__ Window<T> padded_window(const T* dy, const Norm& n, T* shared) const {
    constexpr int V = kPack<T>;
    const T* padded_plane = dy + plane * n.padded_pixels();
    const int64_t begin = padded_position(max(first + static_cast<int64_t>(head) * V, range.begin), n);
    const int64_t from = first_unit(padded_plane, begin);
    const int held = head == units ? 0 : static_cast<int>((padded.end - from + V - 1) / V);
    return {padded_plane, n.padded_pixels(), shared, from, held};
  }
};

// Call fn(i) once for each unit of a range that is not inside one row, `reach` elements or more from its ends. `first`
// is where units begin. There are calls for a few others, too.
template <int V, typename F>
__device__ __forceinline__ void for_row_ends(int64_t first, const Range& range, int width, int reach, const F& fn) {
  if (range.begin >= range.end) return;
  const int each = (2 * reach + V - 2) / V + 1;  // units that the surroundings of a row's end can touch
  const int begin = Cursor(range.begin, width).row, rows = Cursor(range.end - 1, width).row + 2 - begin;
  const auto unit_of = [&](int64_t element) { return first + ((element - first) & ~int64_t{V - 1}); };
  const auto row_end = [&](int row) { return unit_of(static_cast<int64_t>(begin + row) * width - reach); };
#pragma unroll 1
  for (int m = threadIdx.x; m < 2 + rows * each; m += blockDim.x) {
    const int row = m >= 2 ? (m - 2) / each : m == 0 ? 1 : rows - 1;
    int64_t i = row_end(row);
    if (m >= 2) {
      i += (m - 2 - row * each) * V;
    } else {  // where the range is cut, unless that is near the end of a row
      const int64_t cut = unit_of(m == 0 ? range.begin : range.end - 1);
      if (cut >= i || (m == 1 && cut == unit_of(range.begin))) continue;
      i = cut;
    }
    const bool met = row > 0 && i <= row_end(row - 1) + (each - 1) * V;
    if (!met && i + V > range.begin && i < range.end) fn(i);
  }
}

}  // namespace
}  // namespace hd::cuda
