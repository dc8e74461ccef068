// Instances are long runs of pixels, so both kernels go from run to run: a run is summed, or filled, by vectors. Sums
// are taken in double; images are cut into chunks by their shape alone, so that results do not depend on the number of
// threads.
#include <stdexcept>

#include "cpu.h"

namespace hd::cpu {
namespace {

constexpr int64_t kChunk = 16384;  // pixels, at least, that are worth a table of their own
constexpr int64_t kBlock = 48;     // elements of one vectorised step: whole pixels of 1, 2, 3, 4, 6, 8 … channels

template <typename T>
inline double sum_of(const T* x, int64_t n) {
  double sum = 0.;
#pragma omp simd reduction(+ : sum)
  for (int64_t i = 0; i < n; ++i) sum += static_cast<double>(to_float(x[i]));
  return sum;
}

// Call run(elements of a block of whole pixels), which is known to the compiler where it is kBlock.
template <typename F>
inline __attribute__((always_inline)) void in_blocks(int64_t width, const F& run) {
  struct Whole {
    constexpr operator int64_t() const { return kBlock; }
  };
  if (width == kBlock)
    run(Whole{});
  else
    run(width);
}

// Add n pixels of `channels` adjacent elements to sums. Several pixels side by side make a vector of few channels.
template <typename T>
inline void add_pixels(const T* HD_RESTRICT x, int64_t n, int64_t channels, double* HD_RESTRICT sums) {
  int64_t i = 0;
  if (channels < kBlock && n * channels >= 2 * kBlock) {
    const int64_t together = kBlock / channels;
    double partial[kBlock] = {};
    in_blocks(
        together * channels, [&](auto width) __attribute__((always_inline)) {
          for (; i + together <= n; i += together)
#pragma omp simd
            for (int64_t k = 0; k < width; ++k) partial[k] += static_cast<double>(to_float(x[i * channels + k]));
        });
    const int64_t rest = (n - i) * channels;
#pragma omp simd
    for (int64_t k = 0; k < rest; ++k) partial[k] += static_cast<double>(to_float(x[i * channels + k]));
    for (int64_t pixels = together; pixels > 1;) {  // add the last half of them to the first
      const int64_t half = pixels / 2, from = (pixels - half) * channels;
      for (int64_t k = 0; k < half * channels; ++k) partial[k] += partial[from + k];
      pixels -= half;
    }
    for (int64_t c = 0; c < channels; ++c) sums[c] += partial[c];
    return;
  }
  for (; i < n; ++i)
#pragma omp simd
    for (int64_t c = 0; c < channels; ++c) sums[c] += static_cast<double>(to_float(x[i * channels + c]));
}

// How the pixels of one image are laid out.
struct Layout {
  int64_t batch, channels, pixels;
  bool last;  // channels are adjacent
};

Layout layout_of(const Tensor& x) { return {x.shape[0], x.shape[1], x.shape[2] * x.shape[3], is_channels_last(x)}; }

// Add pixels [begin, end) of one image to its sums [count, C], of rows from `first` on. False if a row is not one of
// them.
template <typename T>
bool reduce(const T* image, const int32_t* rows, const Layout& layout, int64_t begin, int64_t end, int64_t first,
            int64_t count, double* sums) {
  const int64_t channels = layout.channels;
  while (begin < end) {
    const int64_t stop = end_of_run(rows, begin, end), n = stop - begin, row = rows[begin] - first;
    if (row < 0 || row >= count) return false;
    double* sum = sums + row * channels;
    if (layout.last)
      add_pixels(image + begin * channels, n, channels, sum);
    else
      for (int64_t c = 0; c < channels; ++c) sum[c] += sum_of(image + c * layout.pixels + begin, n);
    begin = stop;
  }
  return true;
}

// Write the value of each pixel of [begin, end) of one image from table [N, C]. False if a row is not in the table.
template <typename T>
bool broadcast(const T* HD_RESTRICT table, int64_t table_rows, const int32_t* HD_RESTRICT rows, const Layout& layout,
               int64_t begin, int64_t end, T* HD_RESTRICT image) {
  const int64_t channels = layout.channels;
  while (begin < end) {
    const int64_t stop = end_of_run(rows, begin, end), n = stop - begin;
    if (rows[begin] < 0 || rows[begin] >= table_rows) return false;
    const T* value = table + rows[begin] * channels;
    if (!layout.last) {
      for (int64_t c = 0; c < channels; ++c) {
        T* plane = image + c * layout.pixels;
        const T v = value[c];
#pragma omp simd
        for (int64_t i = begin; i < stop; ++i) plane[i] = v;
      }
    } else {
      T* pixel = image + begin * channels;
      int64_t i = 0;
      if (channels < kBlock && n * channels >= 2 * kBlock) {
        const int64_t together = kBlock / channels;
        T several[kBlock];
        for (int64_t k = 0; k < together; ++k)
          for (int64_t c = 0; c < channels; ++c) several[k * channels + c] = value[c];
        in_blocks(
            together * channels, [&](auto width) __attribute__((always_inline)) {
              for (; i + together <= n; i += together)
#pragma omp simd
                for (int64_t k = 0; k < width; ++k) pixel[i * channels + k] = several[k];
            });
      }
      for (; i < n; ++i)
#pragma omp simd
        for (int64_t c = 0; c < channels; ++c) pixel[i * channels + c] = value[c];
    }
    begin = stop;
  }
  return true;
}

// Whether each image has rows, and these are all rows of the table. An index that was put together by hand may be
// wrong.
bool are_sound(const int64_t* offsets, int64_t batch, int64_t n) {
  bool rise = true;
  for (int64_t b = 0; b < batch; ++b) rise &= offsets[b] < offsets[b + 1];
  return rise && offsets[0] == 0 && offsets[batch] == n;
}

}  // namespace

void instance_mean_reduce(Tensor x, Tensor rows, Tensor offsets, Tensor sums, int threads) {
  const Layout layout = layout_of(x);
  const int64_t channels = layout.channels, pixels = layout.pixels, *offset = offsets.as<int64_t>();
  if (!are_sound(offset, layout.batch, sums.shape[0]))
    throw std::invalid_argument(
        "instance_mean: expected offsets from 0 to the number of instances, which rise with every image: an index must "
        "stay whole");
  for (int64_t b = 0; b < layout.batch; ++b) {
    const int64_t n = offset[b + 1] - offset[b], first = offset[b];
    // Zeroing and adding up the tables of all chunks must stay small beside the image.
    const int64_t chunks = larger(1, smaller(pixels / kChunk, pixels / (8 * n)));
    const int64_t size = (pixels + chunks - 1) / chunks;
    Scratch<double> tables(chunks * n * channels);
    bool foreign = false;
    with_floating(x.dtype, [&](auto type) {
      using T = decltype(type);
      parallel_for(chunks, threads, [&](int64_t k) {
        double* table = tables + k * n * channels;
        for (int64_t i = 0; i < n * channels; ++i) table[i] = 0.;
        if (!reduce(x.as<T>() + b * channels * pixels, rows.as<int32_t>() + b * pixels, layout, k * size,
                    smaller((k + 1) * size, pixels), first, n, table))
          __atomic_store_n(&foreign, true, __ATOMIC_RELAXED);
      });
    });
    if (foreign)
      throw std::invalid_argument(
          "instance_mean: expected rows of the image's own instances: an index must stay whole");
    parallel_for(n, n * channels * chunks > kChunk ? threads : 1, [&](int64_t row) {
      for (int64_t c = 0; c < channels; ++c) {
        double sum = 0.;
        for (int64_t k = 0; k < chunks; ++k) sum += tables[(k * n + row) * channels + c];
        sums.as<float>()[(first + row) * channels + c] = static_cast<float>(sum);
      }
    });
  }
}

void instance_mean_broadcast(Tensor table, Tensor rows, Tensor counts, Tensor y, int threads) {
  const Layout layout = layout_of(y);
  const int64_t n = table.shape[0], channels = layout.channels, pixels = layout.pixels;
  bool foreign = false;
  with_floating(y.dtype, [&](auto type) {
    using T = decltype(type);
    use_huge_pages<T>(y);
    Scratch<T> values(n * channels);
    parallel_for(n, n * channels > kChunk ? threads : 1, [&](int64_t row) {
      const float count = counts ? static_cast<float>(counts.as<int64_t>()[row]) : 1.f;
      for (int64_t i = row * channels; i < (row + 1) * channels; ++i)
        values[i] = from_float<T>(table.as<float>()[i] / count);
    });
    const int64_t chunks = (pixels + kChunk - 1) / kChunk;
    parallel_for(layout.batch * chunks, threads, [&](int64_t task) {
      const int64_t b = task / chunks, begin = task % chunks * kChunk;
      if (!broadcast(static_cast<const T*>(values), n, rows.as<int32_t>() + b * pixels, layout, begin,
                     smaller(begin + kChunk, pixels), y.as<T>() + b * channels * pixels))
        __atomic_store_n(&foreign, true, __ATOMIC_RELAXED);
    });
  });
  if (foreign)
    throw std::invalid_argument(
        "instance_mean: expected rows below the number of instances, none negative: an index must stay whole");
}

}  // namespace hd::cpu
