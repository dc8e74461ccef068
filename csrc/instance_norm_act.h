// What both directions of instance_norm_act share on CPUs: how a tensor is divided, statistics, and the two passes.
//
// Both layouts run through the same loops: a channels_last image is one plane whose pixels have C elements, a
// contiguous one is B * C planes of one element a pixel. Planes are cut into segments of whole pixels. What depends on
// the channel (mean, scale, sums) is spread over one segment, so that every inner loop is elementwise and vectorised;
// where pixels have one element it is a number, and sums are reductions.
//
// Statistics are taken in bands of rows of a fixed size, merged in order: results do not depend on the number of
// threads.
#pragma once

#include "cpu.h"

namespace hd::cpu {
namespace {

constexpr int64_t kBand = 64 * 1024;  // elements
constexpr int64_t kLanes = 32;        // of sums over planes of one channel

struct Planes {
  int64_t count, channels, height, width, pixel;  // pixel: how many elements one pixel has
  int64_t row, size, segment, band_rows, bands;   // in elements; rows of a band; bands of a plane
  int64_t spread, lanes;                          // elements of what depends on the channel, and of sums

  // Without padding, the rows of a small plane are treated as one row, since the borders between them have no meaning.
  Planes(const Tensor& x, bool padded) : channels(x.shape[1]), height(x.shape[2]), width(x.shape[3]) {
    pixel = is_channels_last(x) ? channels : 1;
    count = x.shape[0] * channels / pixel;
    if (!padded && height * width * pixel <= kBand) {
      width *= height;
      height = 1;
    }
    row = width * pixel;
    size = height * row;
    // Elements: a handful of spread arrays stay in the first-level cache, or two segments where nothing is spread.
    segment = pixel == 1 ? 2048 : larger(512 / pixel, 1) * pixel;
    spread = pixel == 1 ? 1 : segment;
    lanes = pixel == 1 ? kLanes : segment;
    band_rows = larger(kBand / row, 1);
    bands = (height + band_rows - 1) / band_rows;
  }

  int64_t band_pixels(int64_t band) const { return smaller(band_rows, height - band * band_rows) * width; }
};

struct Padding {
  int64_t pad;
  PadMode mode;

  // Call visit(padded line, the line of [0, n) that it copies, or -1 for zeros) for the lines of both borders.
  template <typename F>
  inline __attribute__((always_inline)) void border(int64_t n, const F& visit) const {
    for (int64_t k = 0; k < pad; ++k) {
      visit(k, mode == PadMode::reflect ? pad - k : mode == PadMode::replicate ? 0 : -1);
      visit(pad + n + k, mode == PadMode::reflect ? n - 2 - k : mode == PadMode::replicate ? n - 1 : -1);
    }
  }

  // Whether lines [begin, end) of [0, n) may have copies in a border.
  bool copies(int64_t begin, int64_t end, int64_t n) const { return pad > 0 && (begin <= pad || end >= n - pad); }
};

template <typename T>
inline __attribute__((always_inline)) void copy(T* to, const T* from, int64_t n) {
  if (n == 1)
    *to = *from;
  else
    __builtin_memcpy(to, from, n * sizeof(T));
}

template <typename T>
inline __attribute__((always_inline)) void clear(T* to, int64_t n) {
  if (n == 1)
    *to = T{};
  else
    __builtin_memset(to, 0, n * sizeof(T));
}

// The values of the first pixel, for all pixels of n elements.
void repeat(float* array, int64_t pixel, int64_t n) {
  for (int64_t e = pixel; e < n; e += pixel) copy(array + e, array, pixel);
}

// --- statistics: sums of x - origin and of its squares in float, joined in double ---

// Call block(first element, elements) so that every block fits into the lanes of sums. With kOne channel for all
// elements there are a few lanes, in registers. Otherwise each of the n elements has its own lane.
template <bool kOne, typename F>
inline __attribute__((always_inline)) void by_lanes(int64_t n, const F& block) {
  int64_t at = 0;
  for (; kOne && at + kLanes <= n; at += kLanes) block(at, kLanes);
  block(at, n - at);
}

template <bool kOne, typename T>
void deviations(const T* HD_RESTRICT x, int64_t n, const float* HD_RESTRICT origin, float* HD_RESTRICT sums,
                float* HD_RESTRICT squares) {
  by_lanes<kOne>(
      n, [&](int64_t at, int64_t count) __attribute__((always_inline)) {
#pragma omp simd
        for (int64_t e = 0; e < count; ++e) {
          const float delta = to_float(x[at + e]) - origin[kOne ? 0 : e];
          sums[e] += delta;
          squares[e] += delta * delta;
        }
      });
}

// Let n more values join `before` in moments [2, pixel], of means and of squared deviations.
void join(double* HD_RESTRICT moments, int64_t pixel, double before, double n, const double* HD_RESTRICT more) {
  const double share = n / (before + n);
#pragma omp simd
  for (int64_t c = 0; c < pixel; ++c) {
    const double delta = more[c] - moments[c];
    moments[c] += delta * share;
    moments[pixel + c] += more[pixel + c] + delta * delta * before * share;
  }
}

// Add up arrays [2, lanes] of whole pixels, which gives sums [2, pixel].
void fold(const float* HD_RESTRICT from, int64_t lanes, int64_t pixel, double* HD_RESTRICT sums) {
  clear(sums, 2 * pixel);
  for (int64_t e = 0; e < lanes; e += pixel)
#pragma omp simd
    for (int64_t c = 0; c < pixel; ++c) {
      sums[c] += from[e + c];
      sums[pixel + c] += from[lanes + e + c];
    }
}

// The origin of each chunk is the mean of those before it. A jump from there is part of the deviations of the plane, so
// what cancels below is small beside them. The first, short chunk is read twice, so that its own mean is its origin: a
// single pixel might lie far from all others.
template <typename T>
void band_statistics(const T* x, const Planes& s, int64_t pixels, double* HD_RESTRICT moments) {
  const int64_t pixel = s.pixel, n = pixels * pixel;
  const int64_t whole = pixel == 1 ? s.segment : 128 * s.segment;
  Scratch<float> memory(s.spread + 2 * s.lanes);
  float *origin = memory, *sums = origin + s.spread;
  Scratch<double> found(2 * pixel);
  auto* add = pixel == 1 ? &deviations<true, T> : &deviations<false, T>;
  const auto read = [&](int64_t begin, int64_t end) {
    repeat(origin, pixel, s.spread);
    clear(sums, 2 * s.lanes);
    for (int64_t at = begin; at < end; at += s.segment)
      add(x + at, smaller(s.segment, end - at), origin, sums, sums + s.lanes);
    fold(sums, s.lanes, pixel, found);
  };
  const int64_t first = smaller(n, whole / 16);
  for (int64_t c = 0; c < pixel; ++c) origin[c] = to_float(x[c]);
  read(0, first);
  for (int64_t c = 0; c < pixel; ++c) origin[c] += static_cast<float>(found[c] / static_cast<double>(first / pixel));
  clear(moments, 2 * pixel);
  for (int64_t begin = 0, end; begin < n; begin = end) {
    end = begin == 0 ? first : smaller(n, begin + whole);
    read(begin, end);
    const double count = static_cast<double>((end - begin) / pixel), share = 1. / count;
#pragma omp simd
    for (int64_t c = 0; c < pixel; ++c) {
      const double mean = found[c] * share;
      found[pixel + c] -= found[c] * mean;
      found[c] = origin[c] + mean;
    }
    join(moments, pixel, static_cast<double>(begin / pixel), count, found);
#pragma omp simd
    for (int64_t c = 0; c < pixel; ++c) origin[c] = static_cast<float>(moments[c]);
  }
}

// What depends on the channel, spread over a segment.
struct Spread {
  Scratch<float> memory;
  float *mean, *scale, *bias, *constant, *linear;

  explicit Spread(const Planes& s) : memory(5 * s.spread) {
    float** arrays[] = {&mean, &scale, &bias, &constant, &linear};
    for (int k = 0; k < 5; ++k) *arrays[k] = memory + k * s.spread;
  }

  // With `exact` means, the bias also holds what rounding took off the other means.
  void load(const Planes& s, int64_t plane, const Tensor& weight, const Tensor& beta, const float* means,
            const float* rstd, const double* exact) {
    const int64_t first = plane * s.pixel, channel = first % s.channels;
    for (int64_t c = 0; c < s.pixel; ++c) {
      mean[c] = means[first + c];
      scale[c] = rstd[first + c] * (weight ? weight.as<float>()[channel + c] : 1.f);
      bias[c] = beta ? beta.as<float>()[channel + c] : 0.f;
      if (exact != nullptr) bias[c] -= static_cast<float>(exact[c] - means[first + c]) * scale[c];
    }
    repeat(mean, s.pixel, s.spread);
    repeat(scale, s.pixel, s.spread);
    repeat(bias, s.pixel, s.spread);
  }
};

// Run first(plane, band), then merge(plane), then second(plane, band) for all. With planes for all threads, each thread
// finishes a plane before the next, while it lies in its cache. The second pass goes backwards, since what was read
// last is what the caches hold.
template <typename First, typename Merge, typename Second>
void by_planes(const Planes& s, int threads, const First& first, const Merge& merge, const Second& second) {
  if (s.count >= threads) {
    parallel_for(s.count, threads, [&](int64_t plane) {
      for (int64_t band = 0; band < s.bands; ++band) first(plane, band);
      merge(plane);
      for (int64_t band = s.bands; band-- > 0;) second(plane, band);
    });
    return;
  }
  const int64_t tasks = s.count * s.bands;
  parallel_for(tasks, threads, [&](int64_t task) { first(task / s.bands, task % s.bands); });
  parallel_for(s.count, threads, merge);
  parallel_for(smaller(threads, tasks), threads, [&](int64_t thread) {
    const int64_t share = (tasks + threads - 1) / threads;
    for (int64_t task = smaller((thread + 1) * share, tasks); task-- > thread * share;)
      second(task / s.bands, task % s.bands);
  });
}

}  // namespace
}  // namespace hd::cpu
