// The elementwise halves of the norm and their entry points; instance_norm_act.h has the rest.
#include "instance_norm_act.h"

namespace hd::cpu {
namespace {

template <typename T>
inline __attribute__((always_inline)) void store(const float* HD_RESTRICT from, int64_t n, T* HD_RESTRICT to) {
#pragma omp simd
  for (int64_t e = 0; e < n; ++e) to[e] = from_float<T>(from[e]);
}

// y[e] = the activation of a normalised x[e], and the residual. With an edge of 0 or more, y is streamed.
template <bool kOne, typename T>
void normalise(const T* HD_RESTRICT x, int64_t n, const Spread& of, float slope, const T* residual, int64_t edge,
               T* HD_RESTRICT y) {
  const float *HD_RESTRICT mean = of.mean, *HD_RESTRICT scale = of.scale, *HD_RESTRICT bias = of.bias;
  const auto activated = [&](int64_t e) __attribute__((always_inline)) {
    const int64_t c = kOne ? 0 : e;
    return activate((to_float(x[e]) - mean[c]) * scale[c] + bias[c], slope);
  };
  if constexpr (sizeof(T) == sizeof(float)) {
    if (residual == nullptr && edge >= 0) return stream(y, n, edge, activated);
  }
  // Rounding has choices of its own. In one loop with those of the activation, GCC would merge them to more work.
  constexpr int64_t kBlock = 256;
  for (int64_t at = 0; at < n; at += kBlock) {
    float made[kBlock];
    const int64_t count = smaller(kBlock, n - at);
    float* HD_RESTRICT z = sizeof(T) == sizeof(float) ? reinterpret_cast<float*>(y + at) : made;
    if (residual == nullptr) {
#pragma omp simd
      for (int64_t e = 0; e < count; ++e) z[e] = activated(at + e);
    } else {
#pragma omp simd
      for (int64_t e = 0; e < count; ++e) z[e] = activated(at + e) + to_float(residual[at + e]);
    }
    if constexpr (sizeof(T) != sizeof(float)) store(z, count, y + at);
  }
}

template <bool kOne, typename T>
void accumulate(const T* HD_RESTRICT x, const float* HD_RESTRICT g, int64_t n, const Spread& of, float slope,
                float* HD_RESTRICT first, float* HD_RESTRICT second) {
  const float *HD_RESTRICT mean = of.mean, *HD_RESTRICT scale = of.scale, *HD_RESTRICT bias = of.bias;
  by_lanes<kOne>(
      n, [&](int64_t at, int64_t count) __attribute__((always_inline)) {
#pragma omp simd
        for (int64_t e = 0; e < count; ++e) {
          const int64_t c = kOne ? 0 : e;
          const float centred = to_float(x[at + e]) - mean[c];
          const float dz = centred * scale[c] + bias[c] > 0.f ? g[at + e] : damp(g[at + e], slope);
          first[e] += dz;
          second[e] += dz * centred;
        }
      });
}

// dx = scale * dz - constant - linear * (x - mean)
template <bool kOne, typename T>
void differentiate(const T* HD_RESTRICT x, const float* HD_RESTRICT g, int64_t n, const Spread& of, float slope,
                   bool streamed, T* HD_RESTRICT dx) {
  const float *HD_RESTRICT mean = of.mean, *HD_RESTRICT scale = of.scale, *HD_RESTRICT bias = of.bias;
  const float *HD_RESTRICT constant = of.constant, *HD_RESTRICT linear = of.linear;
  const auto value = [&](int64_t e) __attribute__((always_inline)) {
    const int64_t c = kOne ? 0 : e;
    const float centred = to_float(x[e]) - mean[c];
    const float dz = centred * scale[c] + bias[c] > 0.f ? g[e] : damp(g[e], slope);
    return from_float<T>(scale[c] * dz - constant[c] - linear[c] * centred);
  };
  if (streamed) return stream(dx, n, 0, value);
#pragma omp simd
  for (int64_t e = 0; e < n; ++e) dx[e] = value(e);
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
struct Forward {
  const Planes& s;
  const Padding& padding;
  const T* x;
  Tensor residual;
  T* y;
  float slope;
  bool streamed;

  // Write output row pad + i of a plane and the rows of its border that copy it.
  void rows(int64_t plane, int64_t i, const Spread& of) const {
    const int64_t pad = padding.pad, out_row = (s.width + 2 * pad) * s.pixel;
    T* image = y + plane * (s.height + 2 * pad) * out_row;
    T* out = image + (pad + i) * out_row;
    row(plane, i, of, out);
    padding.border(s.height, [&](int64_t k, int64_t line) {
      if (line < 0 && i == 0) clear(image + k * out_row, out_row);
      if (line != i) return;
      if (streamed)  // it is no longer in a cache
        row(plane, i, of, image + k * out_row);
      else
        copy(image + k * out_row, out, out_row);
    });
  }

  // Write row i of a plane with its left and right border to `out`.
  void row(int64_t plane, int64_t i, const Spread& of, T* out) const {
    const int64_t pad = padding.pad;
    const T* source = x + plane * s.size + i * s.row;
    T* interior = out + pad * s.pixel;
    // A residual with gaps between its pixels is added pixel by pixel.
    const bool dense = s.pixel == 1 || !residual || residual.stride[3] == s.pixel;
    const int64_t step = dense ? s.segment / s.pixel : 1;
    const int64_t edge = pad == 0 ? 0 : (pad + 1) * s.pixel;  // is copied to the border
    auto* apply = s.pixel == 1 ? &normalise<true, T> : &normalise<false, T>;
    for (int64_t j = 0; j < s.width; j += step) {
      const bool at_edge = j == 0 || j + step >= s.width;
      apply(source + j * s.pixel, smaller(step, s.width - j) * s.pixel, of, slope,
            residual ? residual_at(plane, i, j) : nullptr, streamed ? at_edge * edge : -1, interior + j * s.pixel);
    }
    padding.border(s.width, [&](int64_t k, int64_t column) {
      if (column < 0)
        clear(out + k * s.pixel, s.pixel);
      else
        copy(out + k * s.pixel, interior + column * s.pixel, s.pixel);
    });
  }

  const T* residual_at(int64_t plane, int64_t i, int64_t j) const {
    const int64_t b = plane * s.pixel / s.channels, c = plane * s.pixel % s.channels;
    return residual.as<T>() + b * residual.stride[0] + c * residual.stride[1] + i * residual.stride[2] +
           j * residual.stride[3];
  }
};

// Pixels [j, j + pixels) of rows [i, i + rows) of a plane. Several rows are whole ones.
struct Segment {
  int64_t i, rows, j, pixels;
};

template <typename T>
struct Backward {
  const Planes& s;
  const Padding& padding;
  const T *dy, *x;
  T *dx, *dresidual;
  int64_t margin;  // of zeros around the residual's gradient
  float slope;
  bool streamed;

  // g = what dy gives to the pixels of a segment: their own values, and those of their copies in the border.
  void gather(int64_t plane, const Segment& at, float* g) const {
    const int64_t pad = padding.pad, pixel = s.pixel, out_row = (s.width + 2 * pad) * pixel;
    const T* image = dy + plane * (s.height + 2 * pad) * out_row;
    const T* own = image + (pad + at.i) * out_row;
    for (int64_t r = 0; r < at.rows; ++r)
      load(own + r * out_row + (pad + at.j) * pixel, at.pixels * pixel, g + r * s.row);
    const auto add_copied_rows = [&](int64_t column, int64_t n, float* to) {
      if (!padding.copies(at.i, at.i + at.rows, s.height)) return;
      padding.border(s.height, [&](int64_t k, int64_t line) {
        if (line >= at.i && line < at.i + at.rows)
          add(image + k * out_row + column * pixel, n * pixel, to + (line - at.i) * s.row);
      });
    };
    add_copied_rows(pad + at.j, at.pixels, g);
    if (!padding.copies(at.j, at.j + at.pixels, s.width)) return;
    padding.border(s.width, [&](int64_t k, int64_t column) {
      if (column < at.j || column >= at.j + at.pixels) return;
      float* to = g + (column - at.j) * pixel;
      for (int64_t r = 0; r < at.rows; ++r) add(own + r * out_row + k * pixel, pixel, to + r * s.row);
      add_copied_rows(k, 1, to);
    });
  }

  // Where dy itself is what `gather` would make, of one row or of all of them without padding; null elsewhere.
  const float* in_place(int64_t plane, const Segment& at) const {
    const int64_t pad = padding.pad, out_row = (s.width + 2 * pad) * s.pixel;
    const bool dense = pad == 0 || at.rows == 1;
    if (sizeof(T) != sizeof(float) || !dense || padding.copies(at.i, at.i + 1, s.height) ||
        padding.copies(at.j, at.j + at.pixels, s.width))
      return nullptr;
    const T* image = dy + plane * (s.height + 2 * pad) * out_row;
    return reinterpret_cast<const float*>(image + (pad + at.i) * out_row + (pad + at.j) * s.pixel);
  }

  // Call visit(segment, its first element, elements, gradient) for each segment of a band: some rows, or a part of one.
  template <typename F>
  void segments(int64_t plane, int64_t band, const F& visit) const {
    Scratch<float> g(s.segment);
    const int64_t step = s.segment / s.pixel, together = larger(s.segment / s.row, 1), begin = band * s.band_rows;
    const int64_t end = smaller(begin + s.band_rows, s.height);
    for (int64_t i = begin; i < end; i += together) {
      for (int64_t j = 0; j < s.width; j += step) {
        const Segment at{i, smaller(together, end - i), j, smaller(step, s.width - j)};
        const float* gradient = g;
        if (const float* given = in_place(plane, at))
          gradient = given;
        else
          gather(plane, at, g);
        visit(at, plane * s.size + i * s.row + j * s.pixel, at.rows * at.pixels * s.pixel, gradient);
      }
    }
  }

  // out [2, pixel]: sums over a band of dz and of dz * (x - mean).
  void reduce(int64_t plane, int64_t band, const Spread& of, double* out) const {
    Scratch<float> sums(2 * s.lanes);
    clear(static_cast<float*>(sums), 2 * s.lanes);
    auto* apply = s.pixel == 1 ? &accumulate<true, T> : &accumulate<false, T>;
    segments(plane, band, [&](const Segment&, int64_t at, int64_t n, const float* g) {
      apply(x + at, g, n, of, slope, sums, sums + s.lanes);
    });
    fold(sums, s.lanes, s.pixel, out);
  }

  void write(int64_t plane, int64_t band, const Spread& of) const {
    auto* apply = s.pixel == 1 ? &differentiate<true, T> : &differentiate<false, T>;
    segments(plane, band, [&](const Segment& segment, int64_t at, int64_t n, const float* g) {
      apply(x + at, g, n, of, slope, streamed, dx + at);
      if (dresidual != nullptr) write_residual(plane, segment, g);
    });
  }

  // The residual's gradient is g, with a margin of zeros.
  void write_residual(int64_t plane, const Segment& at, const float* g) const {
    const int64_t row = (s.width + 2 * margin) * s.pixel, side = margin * s.pixel;
    T* image = dresidual + plane * (s.height + 2 * margin) * row;
    for (int64_t r = 0; r < at.rows; ++r) {
      T* out = image + (margin + at.i + r) * row;
      store(g + r * s.row, at.pixels * s.pixel, out + side + at.j * s.pixel);
      if (at.j == 0) clear(out, side);
      if (at.j + at.pixels == s.width) clear(out + row - side, side);
    }
    if (at.j > 0) return;
    if (at.i == 0) clear(image, margin * row);
    if (at.i + at.rows == s.height) clear(image + (margin + s.height) * row, margin * row);
  }
};

}  // namespace

void instance_norm_act_fwd(Tensor x, Tensor weight, Tensor bias, Tensor residual, Tensor y, Tensor mean, Tensor rstd,
                           Tensor, float slope, float eps, int pad, PadMode pad_mode, int threads) {
  with_floating(x.dtype, [&](auto type) {
    using T = decltype(type);
    const Planes s(x, pad > 0 || residual);
    const Padding padding{pad, pad_mode};
    const Forward<T> forward{s, padding, x.as<T>(), residual, y.as<T>(), slope, is_streamed<T>(y)};
    use_huge_pages<T>(y);
    Scratch<double> partial(s.count * (s.bands + 1) * 2 * s.pixel);
    // Moments of the bands of a plane, then of all of it.
    const auto moments = [&](int64_t plane, int64_t band) {
      return partial + (plane * (s.bands + 1) + band) * 2 * s.pixel;
    };
    const auto statistics = [&](int64_t plane, int64_t band) {
      const T* begin = x.as<T>() + plane * s.size + band * s.band_rows * s.row;
      band_statistics(begin, s, s.band_pixels(band), moments(plane, band));
    };
    const auto finish = [&](int64_t plane) {
      double *merged = moments(plane, s.bands), before = 0;
      clear(merged, 2 * s.pixel);
      for (int64_t band = 0; band < s.bands; ++band) {
        const double pixels = static_cast<double>(s.band_pixels(band));
        join(merged, s.pixel, before, pixels, moments(plane, band));
        before += pixels;
      }
      for (int64_t c = 0; c < s.pixel; ++c) {
        const double variance = merged[s.pixel + c] / before;
        mean.as<float>()[plane * s.pixel + c] = static_cast<float>(merged[c]);
        const double scaled = variance + eps == 0 ? 0 : 1 / __builtin_sqrt(variance + eps);  // as PyTorch's norm
        rstd.as<float>()[plane * s.pixel + c] = static_cast<float>(scaled);
      }
    };
    const auto write = [&](int64_t plane, int64_t band) {
      Spread of(s);
      of.load(s, plane, weight, bias, mean.as<float>(), rstd.as<float>(), moments(plane, s.bands));
      const int64_t begin = band * s.band_rows;
      for (int64_t i = begin; i < smaller(begin + s.band_rows, s.height); ++i) forward.rows(plane, i, of);
      if (forward.streamed) finish_streams();
    };
    by_planes(s, threads, statistics, finish, write);
  });
}

void instance_norm_act_bwd(Tensor dy, Tensor x, Tensor weight, Tensor bias, Tensor mean, Tensor rstd, Tensor dx,
                           Tensor dresidual, Tensor sums, Tensor, float slope, int pad, PadMode pad_mode, int threads) {
  with_floating(x.dtype, [&](auto type) {
    using T = decltype(type);
    const Planes s(x, pad > 0);
    const Padding padding{pad, pad_mode};
    const int64_t margin = dresidual ? (dresidual.shape[2] - x.shape[2]) / 2 : 0;
    const Backward<T> backward{s,      padding, dy.as<T>(),        x.as<T>(), dx.as<T>(), dresidual.as<T>(),
                               margin, slope,   is_streamed<T>(dx)};
    use_huge_pages<T>(dx);
    use_huge_pages<T>(dresidual);
    Scratch<double> partial(s.count * s.bands * 2 * s.pixel);
    float* first = sums.as<float>();
    float* second = first + s.count * s.pixel;
    const auto load = [&](int64_t plane, Spread& of) {
      of.load(s, plane, weight, bias, mean.as<float>(), rstd.as<float>(), nullptr);
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
      repeat(of.constant, s.pixel, s.spread);
      repeat(of.linear, s.pixel, s.spread);
      backward.write(plane, band, of);
      if (backward.streamed) finish_streams();
    };
    by_planes(s, threads, reduce, finish, write);
  });
}

}  // namespace hd::cpu
