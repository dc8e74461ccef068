// Writing the result takes nearly all the time, so a task reads a strip of pixels once, into the nearest caches, and
// writes all their planes. Zero and one are bit patterns, so floating-point types of one size share a kernel.
#include <cstring>

#include "cpu.h"

namespace hd::cpu {
namespace {

constexpr int64_t kStrip = 8192;  // pixels of one task
constexpr int64_t kClear = 4096;  // elements of a channels_last result that are cleared and then marked, still in cache

struct Maps {
  Tensor label, ids;
  int64_t height, width, n_labels, dontcare;
};

// The class of each of n pixels, or -1 for none. A uint64 beyond int64 becomes negative, which is no class either.
template <typename L>
void read_classes(const L* HD_RESTRICT label, int64_t n, const Maps& maps, int32_t* HD_RESTRICT classes) {
  const int64_t n_labels = maps.n_labels, dontcare = maps.dontcare;
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) {
    const int64_t value = static_cast<int64_t>(label[i]);
    const bool known = (value >= 0) & (value < n_labels) & (value != dontcare);
    classes[i] = known ? static_cast<int32_t>(value) : -1;
  }
}

// Whether the pixels [first, last) of a row differ from a neighbour above, below, left or right.
template <typename I>
void mark_row(const I* HD_RESTRICT image, int64_t row, int64_t first, int64_t last, const Maps& maps,
              int32_t* HD_RESTRICT edges) {
  const I* here = image + row * maps.width;
  const I* above = row > 0 ? here - maps.width : here;
  const I* below = row + 1 < maps.height ? here + maps.width : here;
  int32_t* edge = edges - first;
#pragma omp simd
  for (int64_t w = first; w < last; ++w) edge[w] = (here[w] != above[w]) | (here[w] != below[w]);
  const int64_t inner = larger(first, 1), end = smaller(last, maps.width - 1);
#pragma omp simd
  for (int64_t w = inner; w < last; ++w) edge[w] |= here[w] != here[w - 1];
#pragma omp simd
  for (int64_t w = first; w < end; ++w) edge[w] |= here[w] != here[w + 1];
}

template <typename I>
void mark_strip(const I* image, int64_t first, int64_t last, const Maps& maps, int32_t* edges) {
  for (int64_t p = first; p < last;) {
    const int64_t row = p / maps.width, begin = p - row * maps.width, end = smaller(maps.width, begin + last - p);
    mark_row(image, row, begin, end, maps, edges + (p - first));
    p += end - begin;
  }
}

// The pixels [first, last) of an image -> their classes, and whether they lie on a boundary.
void read_strip(const Maps& maps, int64_t image, int64_t first, int64_t last, int32_t* classes, int32_t* edges) {
  const int64_t start = image * maps.height * maps.width;
  with_integer(maps.label.dtype, [&](auto type) {
    read_classes(maps.label.as<decltype(type)>() + start + first, last - first, maps, classes);
  });
  if (!maps.ids) return;
  with_integer(maps.ids.dtype,
               [&](auto type) { mark_strip(maps.ids.as<decltype(type)>() + start, first, last, maps, edges); });
}

// Write n pixels of every plane. y is the first pixel of the first plane. Clearing and then marking is faster than
// comparing, because memset does not read the memory that it overwrites.
template <typename T>
void write_planes(const int32_t* HD_RESTRICT classes, const int32_t* HD_RESTRICT edges, int64_t n, const Maps& maps,
                  T one, T* HD_RESTRICT y) {
  const int64_t plane = maps.height * maps.width;
  for (int64_t c = 0; c < maps.n_labels; ++c) memset(y + c * plane, 0, n * sizeof(T));
  for (int64_t i = 0; i < n; ++i)
    if (classes[i] >= 0) y[classes[i] * plane + i] = one;
  if (!maps.ids) return;
  T* target = y + maps.n_labels * plane;
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) target[i] = edges[i] ? one : T{0};
}

// Write n pixels with all their channels.
template <typename T>
void write_pixels(const int32_t* HD_RESTRICT classes, const int32_t* HD_RESTRICT edges, int64_t n, const Maps& maps,
                  T one, T* HD_RESTRICT y) {
  const int64_t channels = maps.n_labels + (maps.ids ? 1 : 0), step = larger(kClear / channels, 1);
  for (int64_t first = 0; first < n; first += step) {
    const int64_t end = smaller(first + step, n);
    memset(y + first * channels, 0, (end - first) * channels * sizeof(T));
    for (int64_t i = first; i < end; ++i) {
      T* pixel = y + i * channels;
      if (classes[i] >= 0) pixel[classes[i]] = one;
      if (maps.ids) pixel[maps.n_labels] = edges[i] ? one : T{0};
    }
  }
}

template <typename T>
void encode(const Maps& maps, const Tensor& y, T one, int threads) {
  const int64_t pixels = maps.height * maps.width, strips = (pixels + kStrip - 1) / kStrip, channels = y.shape[1];
  const bool channels_last = is_channels_last(y);
  use_huge_pages<T>(y);
  parallel_for(maps.label.shape[0] * strips, threads, [&](int64_t task) {
    int32_t classes[kStrip], edges[kStrip];
    const int64_t image = task / strips, first = task % strips * kStrip, last = smaller(first + kStrip, pixels);
    read_strip(maps, image, first, last, classes, edges);
    T* target = y.as<T>() + image * channels * pixels;
    if (channels_last)
      write_pixels(classes, edges, last - first, maps, one, target + first * channels);
    else
      write_planes(classes, edges, last - first, maps, one, target + first);
  });
}

}  // namespace

void encode_labels_fwd(Tensor label, Tensor ids, Tensor y, int64_t dontcare, int threads) {
  const Maps maps{label, ids, label.shape[1], label.shape[2], y.shape[1] - (ids ? 1 : 0), dontcare};
  if (y.dtype == DType::float32) return encode<uint32_t>(maps, y, 0x3f800000u, threads);
  encode<uint16_t>(maps, y, y.dtype == DType::bfloat16 ? 0x3f80 : 0x3c00, threads);
}

void encode_labels_codes(Tensor label, Tensor ids, Tensor codes, int64_t n_labels, int64_t dontcare, int threads) {
  const Maps maps{label, ids, label.shape[1], label.shape[2], n_labels, dontcare};
  const int64_t pixels = maps.height * maps.width, strips = (pixels + kStrip - 1) / kStrip;
  const int32_t none = static_cast<int32_t>(n_labels);
  parallel_for(label.shape[0] * strips, threads, [&](int64_t task) {
    int32_t edges[kStrip];
    const int64_t image = task / strips, first = task % strips * kStrip, last = smaller(first + kStrip, pixels);
    int32_t* HD_RESTRICT target = codes.as<int32_t>() + image * pixels + first;
    read_strip(maps, image, first, last, target, edges);
#pragma omp simd
    for (int64_t i = 0; i < last - first; ++i) target[i] = target[i] < 0 ? none : target[i];
    if (!maps.ids) return;
#pragma omp simd
    for (int64_t i = 0; i < last - first; ++i) target[i] += edges[i] ? none + 1 : 0;
  });
}

}  // namespace hd::cpu
