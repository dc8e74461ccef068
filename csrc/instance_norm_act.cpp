// Both layouts run through the same loops: a channels_last image is one plane whose pixels have C elements, a
// contiguous one is B * C planes of one element a pixel. Rows are cut into segments of whole pixels, and everything
// that depends on the channel (mean, scale, sums) is spread over one segment, so that every inner loop is elementwise
// and vectorised.
//
// Statistics are taken in bands of rows of a fixed size, merged in order: results do not depend on the number of
// threads.
#include "instance_norm_act.h"

namespace hd::HD_ISA {
namespace {

constexpr int64_t kSegment = 512;     // elements: a handful of such arrays stay in the first-level cache
constexpr int64_t kBand = 64 * 1024;  // elements

struct Planes {
  int64_t count, channels, height, width, pixel;  // pixel: elements of one pixel
  int64_t row, size, segment, band_rows, bands;   // in elements; rows of a band; bands of a plane

  // Without padding, the rows of a small plane are one row: the borders between them mean nothing.
  Planes(const Tensor& x, bool padded) : channels(x.shape[1]), height(x.shape[2]), width(x.shape[3]) {
    pixel = is_channels_last(x) ? channels : 1;
    count = x.shape[0] * channels / pixel;
    if (!padded && height * width * pixel <= kBand) {
      width *= height;
      height = 1;
    }
    row = width * pixel;
    size = height * row;
    segment = smaller(larger(kSegment / pixel, 1) * pixel, row);
    band_rows = larger(kBand / row, 1);
    bands = (height + band_rows - 1) / band_rows;
  }
};

// What pads a side: the copies of line i of n lie at copies(i), besides pad + i.
struct Padding {
  int64_t pad;
  int mode;  // as in instance_norm_act.h

  template <typename F>
  inline __attribute__((always_inline)) void copies(int64_t i, int64_t n, const F& visit) const {
    if (mode == kReflect) {
      if (i >= 1 && i <= pad) visit(pad - i);
      if (i >= n - 1 - pad && i <= n - 2) visit(pad + 2 * (n - 1) - i);
    } else if (mode == kReplicate) {
      for (int64_t k = 0; i == 0 && k < pad; ++k) visit(k);
      for (int64_t k = 0; i == n - 1 && k < pad; ++k) visit(pad + n + k);
    }
  }

  // Visit the lines of [begin, end) that have copies, or lie next to the border.
  template <typename F>
  inline __attribute__((always_inline)) void border(int64_t begin, int64_t end, int64_t n, const F& visit) const {
    if (pad == 0) return;
    const int64_t near = smaller(pad + 1, n), far = larger(near, n - 1 - pad);
    for (int64_t i = begin; i < smaller(end, near); ++i) visit(i);
    for (int64_t i = larger(begin, far); i < end; ++i) visit(i);
  }
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
  __builtin_memset(to, 0, n * sizeof(T));
}

// --- statistics: Welford's recurrence at every position of the segment, then one merge over the positions ---

template <typename T>
void welford(const T* HD_RESTRICT x, int64_t n, float reciprocal, float* HD_RESTRICT mean, float* HD_RESTRICT m2) {
#pragma omp simd
  for (int64_t e = 0; e < n; ++e) {
    const float value = to_float(x[e]), delta = value - mean[e];
    mean[e] += delta * reciprocal;
    m2[e] += delta * (value - mean[e]);
  }
}

// Merge sets of values, given by counts, means and squared deviations, into out: mean [pixel], m2 [pixel].
template <typename Count, typename V>
void merge(int64_t sets, int64_t pixel, const Count& count, const V* mean, const V* m2, double* HD_RESTRICT out) {
  double total = 0;
  clear(out, 2 * pixel);
  for (int64_t s = 0; s < sets; ++s) {
    const double n = count(s);
    total += n;
    for (int64_t c = 0; c < pixel; ++c) out[c] += n * mean[s * pixel + c];
  }
  for (int64_t c = 0; c < pixel; ++c) out[c] /= total;
  for (int64_t s = 0; s < sets; ++s) {
    const double n = count(s);
    for (int64_t c = 0; c < pixel; ++c) {
      const double delta = mean[s * pixel + c] - out[c];
      out[pixel + c] += m2[s * pixel + c] + n * delta * delta;
    }
  }
}

// The same for single numbers, `count` values in each set and one more in the first `rest`.
void merge_scalars(int64_t sets, int64_t count, int64_t rest, const float* HD_RESTRICT mean,
                   const float* HD_RESTRICT m2, double* out) {
  double sum = 0, more = 0, squares = 0, more_squares = 0, within = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t s = 0; s < sets; ++s) sum += mean[s];
#pragma omp simd reduction(+ : more)
  for (int64_t s = 0; s < rest; ++s) more += mean[s];
  const double n = static_cast<double>(count), overall = (n * sum + more) / (n * sets + rest);
#pragma omp simd reduction(+ : squares, within)
  for (int64_t s = 0; s < sets; ++s) {
    squares += (mean[s] - overall) * (mean[s] - overall);
    within += m2[s];
  }
#pragma omp simd reduction(+ : more_squares)
  for (int64_t s = 0; s < rest; ++s) more_squares += (mean[s] - overall) * (mean[s] - overall);
  out[0] = overall;
  out[1] = within + n * squares + more_squares;
}

template <typename T>
void band_statistics(const T* plane, const Planes& s, int64_t band, double* out) {
  // Rows follow each other without gaps, so the segments here may be longer than a row.
  const int64_t begin = band * s.band_rows * s.row, n = smaller(s.size, begin + s.band_rows * s.row) - begin;
  const int64_t segment = smaller(larger(kSegment / s.pixel, 1) * s.pixel, n);
  const int64_t whole = n / segment, rest = n % segment;
  Scratch<float> state(2 * segment);
  float *mean = state, *m2 = state + segment;
  clear(mean, 2 * segment);
  for (int64_t k = 0; k < whole; ++k)
    welford(plane + begin + k * segment, segment, 1.f / static_cast<float>(k + 1), mean, m2);
  welford(plane + begin + whole * segment, rest, 1.f / static_cast<float>(whole + 1), mean, m2);
  if (s.pixel == 1) return merge_scalars(segment, whole, rest, mean, m2, out);
  const auto count = [&](int64_t at) { return static_cast<double>(whole + (at * s.pixel < rest ? 1 : 0)); };
  merge(segment / s.pixel, s.pixel, count, mean, m2, out);
}

// --- the elementwise halves ---

// What depends on the channel, spread over a segment.
struct Spread {
  int64_t segment;
  Scratch<float> memory;
  float *mean, *scale, *bias, *constant, *linear;

  explicit Spread(const Planes& s) : segment(s.segment), memory(5 * s.segment) {
    float** arrays[] = {&mean, &scale, &bias, &constant, &linear};
    for (int k = 0; k < 5; ++k) *arrays[k] = memory + k * segment;
  }

  void load(const Planes& s, int64_t plane, const Tensor& weight, const Tensor& beta, const float* means,
            const float* rstd) {
    for (int64_t c = 0; c < s.pixel; ++c) {
      const int64_t at = plane * s.pixel + c, channel = at % s.channels;
      mean[c] = means[at];
      scale[c] = rstd[at] * (weight ? weight.as<float>()[channel] : 1.f);
      bias[c] = beta ? beta.as<float>()[channel] : 0.f;
    }
    repeat(mean, s.pixel);
    repeat(scale, s.pixel);
    repeat(bias, s.pixel);
  }

  // The values of the first pixel, for all pixels of the segment.
  void repeat(float* array, int64_t pixel) const {
    for (int64_t e = pixel; e < segment; e += pixel) copy(array + e, array, pixel);
  }
};

// The activation as the factor of negative values.
float slope_of(int activation, float negative_slope) {
  return activation == kNone ? 1.f : activation == kRelu ? 0.f : negative_slope;
}

template <typename T>
void normalise(const T* HD_RESTRICT x, int64_t n, const Spread& of, float slope, const T* residual, T* HD_RESTRICT y) {
  const float *HD_RESTRICT mean = of.mean, *HD_RESTRICT scale = of.scale, *HD_RESTRICT bias = of.bias;
  const auto activated = [&](int64_t e) __attribute__((always_inline)) {
    return activate((to_float(x[e]) - mean[e]) * scale[e] + bias[e], slope);
  };
  if (residual == nullptr) {
#pragma omp simd
    for (int64_t e = 0; e < n; ++e) y[e] = from_float<T>(activated(e));
  } else {
#pragma omp simd
    for (int64_t e = 0; e < n; ++e) y[e] = from_float<T>(activated(e) + to_float(residual[e]));
  }
}

template <typename T>
void accumulate(const T* HD_RESTRICT x, const float* HD_RESTRICT g, int64_t n, const Spread& of, float slope,
                float* HD_RESTRICT first, float* HD_RESTRICT second) {
  const float *HD_RESTRICT mean = of.mean, *HD_RESTRICT scale = of.scale, *HD_RESTRICT bias = of.bias;
#pragma omp simd
  for (int64_t e = 0; e < n; ++e) {
    const float centred = to_float(x[e]) - mean[e];
    const float dz = centred * scale[e] + bias[e] > 0.f ? g[e] : damp(g[e], slope);
    first[e] += dz;
    second[e] += dz * centred;
  }
}

// dx = scale * dz - constant - linear * (x - mean)
template <typename T>
void differentiate(const T* HD_RESTRICT x, const float* HD_RESTRICT g, int64_t n, const Spread& of, float slope,
                   T* HD_RESTRICT dx) {
  const float *HD_RESTRICT mean = of.mean, *HD_RESTRICT scale = of.scale, *HD_RESTRICT bias = of.bias;
  const float *HD_RESTRICT constant = of.constant, *HD_RESTRICT linear = of.linear;
#pragma omp simd
  for (int64_t e = 0; e < n; ++e) {
    const float centred = to_float(x[e]) - mean[e];
    const float dz = centred * scale[e] + bias[e] > 0.f ? g[e] : damp(g[e], slope);
    dx[e] = from_float<T>(scale[e] * dz - constant[e] - linear[e] * centred);
  }
}

template <typename T>
void load(const T* HD_RESTRICT from, int64_t n, float* HD_RESTRICT to) {
#pragma omp simd
  for (int64_t e = 0; e < n; ++e) to[e] = to_float(from[e]);
}

template <typename T>
void add(const T* HD_RESTRICT from, int64_t n, float* HD_RESTRICT to) {
  if (n == 1) {
    *to += to_float(*from);
    return;
  }
#pragma omp simd
  for (int64_t e = 0; e < n; ++e) to[e] += to_float(from[e]);
}

template <typename T>
void store(const float* HD_RESTRICT from, int64_t n, T* HD_RESTRICT to) {
#pragma omp simd
  for (int64_t e = 0; e < n; ++e) to[e] = from_float<T>(from[e]);
}

template <typename T>
struct Forward {
  const Planes& s;
  const Padding& padding;
  const T* x;
  Tensor residual;
  T* y;
  float slope;

  // Write output row pad + i of a plane, its borders, and the rows that copy it.
  void row(int64_t plane, int64_t i, const Spread& of) const {
    const int64_t pad = padding.pad, out_row = (s.width + 2 * pad) * s.pixel;
    const T* source = x + plane * s.size + i * s.row;
    T* image = y + plane * (s.height + 2 * pad) * out_row;
    T* out = image + (pad + i) * out_row;
    T* interior = out + pad * s.pixel;
    const int64_t step = s.segment / s.pixel;
    const bool dense = s.pixel == 1 || residual.stride[3] == s.pixel;
    for (int64_t j = 0; j < s.width; j += step) {
      const int64_t pixels = smaller(step, s.width - j), at = j * s.pixel;
      if (!residual || dense) {
        normalise(source + at, pixels * s.pixel, of, slope, residual ? residual_at(plane, i, j) : nullptr,
                  interior + at);
        continue;
      }
      for (int64_t k = 0; k < pixels; ++k)
        normalise(source + at + k * s.pixel, s.pixel, of, slope, residual_at(plane, i, j + k),
                  interior + at + k * s.pixel);
    }
    if (pad == 0) return;
    if (padding.mode == kZero) {
      clear(out, pad * s.pixel);
      clear(interior + s.row, pad * s.pixel);
      if (i == 0) clear(image, pad * out_row);
      if (i == s.height - 1) clear(out + out_row, pad * out_row);
      return;
    }
    padding.border(0, s.width, s.width, [&](int64_t j) {
      padding.copies(j, s.width, [&](int64_t k) { copy(out + k * s.pixel, interior + j * s.pixel, s.pixel); });
    });
    padding.copies(i, s.height, [&](int64_t k) { copy(image + k * out_row, out, out_row); });
  }

  const T* residual_at(int64_t plane, int64_t i, int64_t j) const {
    const int64_t b = plane * s.pixel / s.channels, c = plane * s.pixel % s.channels;
    return residual.as<T>() + b * residual.stride[0] + c * residual.stride[1] + i * residual.stride[2] +
           j * residual.stride[3];
  }
};

template <typename T>
struct Backward {
  const Planes& s;
  const Padding& padding;
  const T *dy, *x;
  T *dx, *dresidual;
  float slope;

  // g = what dy gives to pixels [j, j + pixels) of row i: its own value, and those of its copies in the border.
  void gather(int64_t plane, int64_t i, int64_t j, int64_t pixels, float* g) const {
    const int64_t pad = padding.pad, pixel = s.pixel, out_row = (s.width + 2 * pad) * pixel;
    const T* image = dy + plane * (s.height + 2 * pad) * out_row;
    const T* own = image + (pad + i) * out_row;
    load(own + (pad + j) * pixel, pixels * pixel, g);
    if (pad == 0) return;
    padding.copies(i, s.height, [&](int64_t k) { add(image + k * out_row + (pad + j) * pixel, pixels * pixel, g); });
    padding.border(j, j + pixels, s.width, [&](int64_t column) {
      padding.copies(column, s.width, [&](int64_t k) {
        float* to = g + (column - j) * pixel;
        add(own + k * pixel, pixel, to);
        padding.copies(i, s.height, [&](int64_t line) { add(image + line * out_row + k * pixel, pixel, to); });
      });
    });
  }

  // Call visit(element of the plane, elements, gradient) for each segment of a band.
  template <typename F>
  void segments(int64_t plane, int64_t band, const F& visit) const {
    Scratch<float> g(s.segment);
    const int64_t step = s.segment / s.pixel, begin = band * s.band_rows;
    for (int64_t i = begin; i < smaller(begin + s.band_rows, s.height); ++i)
      for (int64_t j = 0; j < s.width; j += step) {
        const int64_t pixels = smaller(step, s.width - j);
        gather(plane, i, j, pixels, g);
        visit(plane * s.size + i * s.row + j * s.pixel, pixels * s.pixel, static_cast<const float*>(g));
      }
  }

  // out [2, pixel]: sums over a band of dz and of dz * (x - mean).
  void reduce(int64_t plane, int64_t band, const Spread& of, double* out) const {
    Scratch<float> sums(2 * s.segment);
    float *first = sums, *second = sums + s.segment;
    clear(first, 2 * s.segment);
    segments(plane, band,
             [&](int64_t at, int64_t n, const float* g) { accumulate(x + at, g, n, of, slope, first, second); });
    clear(out, 2 * s.pixel);
    for (int64_t e = 0; e < s.segment; e += s.pixel) {
      for (int64_t c = 0; c < s.pixel; ++c) {
        out[c] += first[e + c];
        out[s.pixel + c] += second[e + c];
      }
    }
  }

  void write(int64_t plane, int64_t band, const Spread& of) const {
    segments(plane, band, [&](int64_t at, int64_t n, const float* g) {
      differentiate(x + at, g, n, of, slope, dx + at);
      if (dresidual != nullptr) store(g, n, dresidual + at);
    });
  }
};

// Run first(plane, band), then merge(plane), then second(plane, band) for all. With planes for all threads, each thread
// finishes a plane before the next, while it lies in its cache.
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
  parallel_for(tasks, threads, [&](int64_t task) { second(task / s.bands, task % s.bands); });
}

}  // namespace

void instance_norm_act_fwd(Tensor x, Tensor weight, Tensor bias, Tensor residual, Tensor y, Tensor mean, Tensor rstd,
                           Tensor, int activation, float negative_slope, float eps, int pad, int pad_mode,
                           int threads) {
  with_floating(x.dtype, [&](auto type) {
    using T = decltype(type);
    const Planes s(x, pad > 0 || residual);
    const Padding padding{pad, pad_mode};
    const Forward<T> forward{s, padding, x.as<T>(), residual, y.as<T>(), slope_of(activation, negative_slope)};
    use_huge_pages<T>(y);
    Scratch<double> partial(s.count * (s.bands + 1) * 2 * s.pixel);
    const auto statistics = [&](int64_t plane, int64_t band) {
      Scratch<double> found(2 * s.pixel);
      band_statistics(x.as<T>() + plane * s.size, s, band, found);
      double* means = partial + plane * (s.bands + 1) * 2 * s.pixel;
      copy(means + band * s.pixel, static_cast<double*>(found), s.pixel);
      copy(means + (s.bands + band) * s.pixel, found + s.pixel, s.pixel);
    };
    const auto finish = [&](int64_t plane) {
      double* means = partial + plane * (s.bands + 1) * 2 * s.pixel;
      double* merged = means + 2 * s.bands * s.pixel;
      const auto pixels = [&](int64_t band) {
        return static_cast<double>(smaller(s.band_rows, s.height - band * s.band_rows) * s.width);
      };
      merge(s.bands, s.pixel, pixels, means, means + s.bands * s.pixel, merged);
      for (int64_t c = 0; c < s.pixel; ++c) {
        const double variance = merged[s.pixel + c] / static_cast<double>(s.height * s.width);
        mean.as<float>()[plane * s.pixel + c] = static_cast<float>(merged[c]);
        rstd.as<float>()[plane * s.pixel + c] = static_cast<float>(1.0 / __builtin_sqrt(variance + eps));
      }
    };
    const auto write = [&](int64_t plane, int64_t band) {
      Spread of(s);
      of.load(s, plane, weight, bias, mean.as<float>(), rstd.as<float>());
      const int64_t begin = band * s.band_rows;
      for (int64_t i = begin; i < smaller(begin + s.band_rows, s.height); ++i) forward.row(plane, i, of);
    };
    by_planes(s, threads, statistics, finish, write);
  });
}

void instance_norm_act_bwd(Tensor dy, Tensor x, Tensor weight, Tensor bias, Tensor mean, Tensor rstd, Tensor dx,
                           Tensor dresidual, Tensor sums, Tensor, int activation, float negative_slope, int pad,
                           int pad_mode, int threads) {
  with_floating(x.dtype, [&](auto type) {
    using T = decltype(type);
    const Planes s(x, pad > 0);
    const Padding padding{pad, pad_mode};
    const Backward<T> backward{
        s, padding, dy.as<T>(), x.as<T>(), dx.as<T>(), dresidual.as<T>(), slope_of(activation, negative_slope)};
    use_huge_pages<T>(dx);
    use_huge_pages<T>(dresidual);
    Scratch<double> partial(s.count * s.bands * 2 * s.pixel);
    float* first = sums.as<float>();
    float* second = first + s.count * s.pixel;
    const auto load = [&](int64_t plane, Spread& of) {
      of.load(s, plane, weight, bias, mean.as<float>(), rstd.as<float>());
    };
    const auto reduce = [&](int64_t plane, int64_t band) {
      Spread of(s);
      load(plane, of);
      backward.reduce(plane, band, of, partial + (plane * s.bands + band) * 2 * s.pixel);
    };
    const auto finish = [&](int64_t plane) {
      for (int64_t c = 0; c < s.pixel; ++c) {
        double dz = 0, product = 0;
        for (int64_t band = 0; band < s.bands; ++band) {
          const double* found = partial + (plane * s.bands + band) * 2 * s.pixel;
          dz += found[c];
          product += found[s.pixel + c];
        }
        const int64_t at = plane * s.pixel + c;
        first[at] = static_cast<float>(dz);
        second[at] = static_cast<float>(product * rstd.as<float>()[at]);
      }
    };
    const auto write = [&](int64_t plane, int64_t band) {
      Spread of(s);
      load(plane, of);
      const float pixels = static_cast<float>(s.height * s.width);
      for (int64_t c = 0; c < s.pixel; ++c) {
        const int64_t at = plane * s.pixel + c;
        of.constant[c] = of.scale[c] * (first[at] / pixels);
        of.linear[c] = of.scale[c] * rstd.as<float>()[at] * (second[at] / pixels);
      }
      of.repeat(of.constant, s.pixel);
      of.repeat(of.linear, s.pixel);
      backward.write(plane, band, of);
    };
    by_planes(s, threads, reduce, finish, write);
  });
}

}  // namespace hd::HD_ISA
