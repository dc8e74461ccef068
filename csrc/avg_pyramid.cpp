// A channels_last image [B, H, W, C] and a contiguous one, seen as B * C images of one channel, differ only in how many
// elements a pixel has, so one kernel serves both. Whole rows are added up first, vectorised, and then their columns.
#include "cpu.h"

namespace hd::cpu {
namespace {

constexpr int64_t kSegment = 4096;  // floats that stay in the first-level cache
constexpr int64_t kBand = 8;        // output rows of one task

struct Planes {
  int64_t count, height, width, pixel;  // pixel: how many elements one pixel has
};

Planes planes_of(const Tensor& x) {
  if (is_channels_last(x)) return {x.shape[0], x.shape[2], x.shape[3], x.shape[1]};
  return {x.shape[0] * x.shape[1], x.shape[2], x.shape[3], 1};
}

Planes halved(Planes p) { return {p.count, (p.height + 1) / 2, (p.width + 1) / 2, p.pixel}; }

// Pixels of a window at output position o that lie in [0, size).
inline int64_t inside(int64_t o, int64_t size) { return smaller(2 * o + 2, size) - larger(2 * o - 1, 0); }

// Call fn(c) for the n channels of a pixel by vectors, the last of which overlaps the one before it. Channels are few,
// so a remainder of single ones would take as long as the vectors.
template <typename F>
inline __attribute__((always_inline)) void by_vectors(int64_t n, const F& fn) {
  constexpr int64_t kLanes = 8;
  for (int64_t at = 0; at + kLanes <= n;) {
#pragma omp simd
    for (int64_t k = 0; k < kLanes; ++k) fn(at + k);
    if (at + kLanes == n) return;
    at = smaller(at + kLanes, n - kLanes);
  }
  for (int64_t c = 0; c < n; ++c) fn(c);
}

// Fetch n elements into the second-level cache. Processors fetch ahead within a page of 4 KiB, but not across pages,
// and a row of one channel is about a page.
template <typename T>
inline void prefetch(const T* from, int64_t n) {
  constexpr int64_t kLine = 64 / sizeof(T);
  for (int64_t i = 0; i < n; i += kLine) __builtin_prefetch(from + i, 0, 2);
}

// Make the output pixels [first, last) of one output row. `sums` is scratch memory.
template <typename T>
void pool_row(const T* HD_RESTRICT plane, const Planes& in, int64_t row, int64_t first, int64_t last,
              float* HD_RESTRICT sums, T* HD_RESTRICT out) {
  const int64_t pixel = in.pixel, stride = in.width * pixel;
  const int64_t left = larger(2 * first - 1, 0), right = smaller(2 * last, in.width);
  const int64_t top = larger(2 * row - 1, 0), rows = inside(row, in.height), n = (right - left) * pixel;
  const T* source = plane + top * stride + left * pixel;
  // A window of one row or two reads its last row again and multiplies it by nothing.
  const T* second = source + (rows > 1 ? stride : 0);
  const T* third = source + (rows > 2 ? 2 * stride : 0);
  const bool two = rows > 1, three = rows > 2;
  for (int64_t next = top + rows; pixel == 1 && next < smaller(top + rows + 2, in.height); ++next)
    prefetch(plane + next * stride + left * pixel, n);
#pragma omp simd
  for (int64_t i = 0; i < n; ++i)
    sums[i] = to_float(source[i]) + (two ? to_float(second[i]) : 0.f) + (three ? to_float(third[i]) : 0.f);

  for (int64_t o = first; o < last;) {
    const int64_t columns = inside(o, in.width), begin = larger(2 * o - 1, 0) - left;
    if (columns == 3) {  // all output pixels up to the last whose window is whole, in one loop
      const int64_t whole = smaller(last, (in.width - 2) / 2 + 1) - o;
      const float count = static_cast<float>(3 * rows);
      const float* s = sums + begin * pixel;
      T* target = out + o * pixel;
      if (pixel == 1) {
#pragma omp simd
        for (int64_t i = 0; i < whole; ++i) target[i] = from_float<T>((s[2 * i] + s[2 * i + 1] + s[2 * i + 2]) / count);
      } else {
        for (int64_t i = 0; i < whole; ++i) {
          const float* HD_RESTRICT a = s + 2 * i * pixel;
          T* HD_RESTRICT to = target + i * pixel;
          by_vectors(
              pixel, [&](int64_t c) __attribute__((always_inline)) {
                to[c] = from_float<T>((a[c] + a[pixel + c] + a[2 * pixel + c]) / count);
              });
        }
      }
      o += whole;
      continue;
    }
    for (int64_t c = 0; c < pixel; ++c) {
      float sum = 0.f;
      for (int64_t k = 0; k < columns; ++k) sum += sums[(begin + k) * pixel + c];
      out[o * pixel + c] = from_float<T>(sum / static_cast<float>(rows * columns));
    }
    ++o;
  }
}

template <typename T>
void pool(const T* x, const Planes& in, T* half, int threads) {
  const Planes out = halved(in);
  const int64_t bands = (out.height + kBand - 1) / kBand;
  const int64_t step = larger(kSegment / (2 * in.pixel), 1);
  parallel_for(out.count * bands, threads, [&](int64_t task) {
    Scratch<float> sums((2 * smaller(step, out.width) + 1) * in.pixel);
    const int64_t p = task / bands, begin = task % bands * kBand;
    const T* plane = x + p * in.height * in.width * in.pixel;
    T* target = half + p * out.height * out.width * out.pixel;
    for (int64_t first = 0; first < out.width; first += step)
      for (int64_t row = begin; row < smaller(begin + kBand, out.height); ++row)
        pool_row(plane, in, row, first, smaller(first + step, out.width), sums, target + row * out.width * out.pixel);
  });
}

// The transposed pooling: every fine pixel gathers from the one, two or four windows that it lies in. This makes the
// part of one fine row under the coarse pixels [first, last), which is the fine pixels [2 first, 2 last). `coarse`
// begins at the row `origin`, `add` begins at this row, `out` with this part.
template <typename G, typename T, typename D>
void spread_row(const G* HD_RESTRICT coarse, int64_t origin, const Planes& fine, int64_t row, int64_t first,
                int64_t last, float* HD_RESTRICT sums, const T* HD_RESTRICT add, D* HD_RESTRICT out) {
  const Planes half = halved(fine);
  const int64_t pixel = fine.pixel, end = smaller(last + 1, half.width), n = (end - first) * pixel;
  const int64_t upper = row / 2, lower = smaller((row + 1) / 2, half.height - 1);
  const bool both = lower != upper;
  const float upper_weight = 1.f / static_cast<float>(3 * inside(upper, fine.height));
  const float lower_weight = 1.f / static_cast<float>(3 * inside(lower, fine.height));
  const G* a = coarse + ((upper - origin) * half.width + first) * pixel;
  const G* b = coarse + ((lower - origin) * half.width + first) * pixel;
#pragma omp simd
  for (int64_t i = 0; i < n; ++i)
    sums[i] = to_float(a[i]) * upper_weight + (both ? to_float(b[i]) * lower_weight : 0.f);
  const auto widen = [&](int64_t o) {  // the first and the last window are narrow
    if (o < first || o >= end) return;
    const float correction = 3.f / static_cast<float>(inside(o, fine.width));
    for (int64_t c = 0; c < pixel; ++c) sums[(o - first) * pixel + c] *= correction;
  };
  widen(0);
  if (half.width > 1) widen(half.width - 1);

  if (add != nullptr) add += 2 * first * pixel;
  const auto store = [&](int64_t at, float value) {
    out[at] = from_float<D>(add == nullptr ? value : value + to_float(add[at]));
  };
  const int64_t pairs = smaller(last, end - 1) - first;  // coarse pixels with a neighbour on their right
  if (pixel == 1) {
#pragma omp simd
    for (int64_t o = 0; o < pairs; ++o) {
      store(2 * o, sums[o]);
      store(2 * o + 1, sums[o] + sums[o + 1]);
    }
  } else {
    for (int64_t o = 0; o < pairs; ++o) {
      const float* HD_RESTRICT s = sums + o * pixel;
      by_vectors(
          pixel, [&](int64_t c) __attribute__((always_inline)) {
            store(2 * o * pixel + c, s[c]);
            store((2 * o + 1) * pixel + c, s[c] + s[pixel + c]);
          });
    }
  }
  if (pairs == last - first) return;
  const int64_t remaining = smaller(fine.width - 2 * (first + pairs), 2);  // of the last window: one or two columns
  for (int64_t k = 0; k < remaining; ++k)
    for (int64_t c = 0; c < pixel; ++c) store((2 * pairs + k) * pixel + c, sums[pairs * pixel + c]);
}

// Make the fine rows [begin, end). `add` begins with the plane, `out` with these rows.
template <typename G, typename T, typename D>
void spread_rows(const G* coarse, int64_t origin, const Planes& fine, int64_t begin, int64_t end, const T* add,
                 bool streamed, D* out) {
  const int64_t width = halved(fine).width, stride = fine.width * fine.pixel;
  const int64_t step = smaller(larger(kSegment / (2 * fine.pixel), 1), width);
  Scratch<float> sums((step + 1) * fine.pixel);
  Scratch<D> part(streamed ? 2 * step * fine.pixel : 0);
  for (int64_t first = 0; first < width; first += step) {
    const int64_t last = smaller(first + step, width), at = 2 * first * fine.pixel;
    for (int64_t row = begin; row < end; ++row) {
      D* target = out + (row - begin) * stride + at;
      D* const made = streamed ? static_cast<D*>(part) : target;
      spread_row(coarse, origin, fine, row, first, last, sums, add == nullptr ? nullptr : add + row * stride, made);
      if (streamed) stream_copy(target, smaller(2 * last * fine.pixel, stride) - at, made);
    }
  }
  if (streamed) finish_streams();
}

}  // namespace

void avg_pyramid_fwd(Tensor x, Tensor half, Tensor quarter, int threads) {
  with_floating(x.dtype, [&](auto type) {
    using T = decltype(type);
    const Planes in = planes_of(x);
    use_huge_pages<T>(half);
    use_huge_pages<T>(quarter);
    pool(x.as<T>(), in, half.as<T>(), threads);
    if (quarter) pool(half.as<T>(), halved(in), quarter.as<T>(), threads);
  });
}

void avg_pyramid_bwd(Tensor dhalf, Tensor dquarter, Tensor dx, int threads) {
  with_floating(dx.dtype, [&](auto type) {
    using T = decltype(type);
    const Planes in = planes_of(dx), half = halved(in), quarter = halved(half);
    const int64_t bands = (half.height + kBand - 1) / kBand, half_row = half.width * half.pixel;
    const bool streamed = is_streamed<T>(dx);
    use_huge_pages<T>(dx);
    parallel_for(in.count * bands, threads, [&](int64_t task) {
      const int64_t p = task / bands, begin = task % bands * kBand, end = smaller(begin + kBand, half.height);
      const int64_t last = smaller(2 * end, in.height), below = smaller(end + 1, half.height);
      const T* given = dhalf ? dhalf.as<T>() + p * half.height * half_row : nullptr;
      const T* none = nullptr;
      T* out = dx.as<T>() + (p * in.height + 2 * begin) * in.width * in.pixel;
      if (!dquarter) return spread_rows(given, 0, in, 2 * begin, last, none, streamed, out);
      Scratch<float> sum((below - begin) * half_row);  // the band's gradient of both levels
      const T* coarse = dquarter.as<T>() + p * quarter.height * quarter.width * quarter.pixel;
      spread_rows(coarse, 0, half, begin, below, given, false, static_cast<float*>(sum));
      spread_rows(static_cast<const float*>(sum), begin, in, 2 * begin, last, none, streamed, out);
    });
  });
}

}  // namespace hd::cpu
