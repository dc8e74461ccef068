// A task makes a band of rows of the result from sums of the table's rows (label_conv2d.h). The backward pass adds the
// gradient to just those sums, and takes them apart at the end.
#include "label_conv2d.h"

#include <cstdio>
#include <stdexcept>
#include <type_traits>
#include <utility>

namespace hd::cpu {
namespace {

constexpr int64_t kBand = 32;       // output rows of a task
constexpr int64_t kParts = 32;      // tasks of the backward pass, whatever the number of threads; each has a gradient
constexpr int64_t kTogether = 16;   // pixels outside of uniform windows that are read or written at a time
constexpr int64_t kExact = 32;      // pixels of a class that float adds up before double takes over
constexpr int64_t kRounded = 8192;  // and pixels outside of uniform windows

// Channels that one instruction adds. Of a plain loop over channels in one over rows, the compiler makes scalar code.
using Lanes = float __attribute__((vector_size(kLanes * sizeof(float))));

HD_INLINE void load(Lanes& to, const float* from) { memcpy(&to, from, sizeof(Lanes)); }
HD_INLINE void store(float* to, const Lanes& from) { memcpy(to, &from, sizeof(Lanes)); }

HD_INLINE void load(Lanes& to, const bf16* from) {
  using Narrow = uint16_t __attribute__((vector_size(kLanes * sizeof(uint16_t))));
  using Bits = uint32_t __attribute__((vector_size(kLanes * sizeof(uint32_t))));
  Narrow bits;
  memcpy(&bits, from, sizeof(bits));
  const Bits wide = __builtin_convertvector(bits, Bits) << 16;
  memcpy(&to, &wide, sizeof(to));
}

HD_INLINE void load(Lanes& to, const f16* from) {
  for (int64_t k = 0; k < kLanes; ++k) to[k] = to_float(from[k]);
}

// Call fn(N, c) for blocks of N * kLanes channels from c on.
template <typename F>
HD_INLINE void for_blocks(int64_t channels, const F& fn) {
  int64_t c = 0;
  for (; c + 8 * kLanes <= channels; c += 8 * kLanes) fn(std::integral_constant<int, 8>(), c);
  for (; c + 4 * kLanes <= channels; c += 4 * kLanes) fn(std::integral_constant<int, 4>(), c);
  for (; c + kLanes <= channels; c += kLanes) fn(std::integral_constant<int, 1>(), c);
}

// Add up N * kLanes channels of what a window is the sum of.
template <int N>
void add_up(const Shape& s, const float* table, const Window& window, int64_t x, float* result) {
  Lanes sum[N] = {}, term;
  const auto add = [&](int64_t row, auto... weight) {
#pragma GCC unroll 8
    for (int k = 0; k < N; ++k) load(term, table + row * s.lanes + k * kLanes), sum[k] += (term * ... * weight);
  };
  for (int64_t i = 0; i < s.side; ++i) window.for_terms(i, x, add);
#pragma GCC unroll 8
  for (int k = 0; k < N; ++k) store(result + k * kLanes, sum[k]);
}

// The transpose: add the gradients [lanes] of the pixels [first, last) to what their windows are the sums of.
template <int N>
void add_to(const Shape& s, float* table, const Window& window, int64_t first, int64_t last, const float* dy) {
  Lanes grad[N], term;
  const auto add = [&](int64_t row, auto... weight) {
    float* target = table + row * s.lanes;
#pragma GCC unroll 8
    for (int k = 0; k < N; ++k)
      load(term, target + k * kLanes), store(target + k * kLanes, term + (grad[k] * ... * weight));
  };
  for (int64_t i = 0; i < s.side; ++i)
    for (int64_t x = first, next; x < last; x = next) {
      const float* source = dy + (x - first) * s.lanes;
#pragma GCC unroll 8
      for (int k = 0; k < N; ++k) load(grad[k], source + k * kLanes);
      for (next = x + 1; next < last && window.same_terms(i, next); ++next) {
        source += s.lanes;
#pragma GCC unroll 8
        for (int k = 0; k < N; ++k) load(term, source + k * kLanes), grad[k] += term;
      }
      window.for_terms(i, x, add);
    }
}

// --- rows of the result and of its gradient ---

template <typename T>
struct Line {
  T* data;
  int64_t pixel, channel;  // strides

  T* at(int64_t x, int64_t c) const { return data + x * pixel + c * channel; }
};

template <typename T>
Line<T> line_of(const Shape& s, const Tensor& y, int64_t image, int64_t row) {
  const int64_t plane = s.out_height * s.out_width;
  if (s.channels_last) return {y.as<T>() + (image * plane + row * s.out_width) * s.channels, s.channels, 1};
  return {y.as<T>() + image * s.channels * plane + row * s.out_width, 1, plane};
}

// Write one value a channel to the pixels [first, last).
template <typename T>
void fill(const Shape& s, const Line<T>& line, int64_t first, int64_t last, const T* values) {
  if (line.channel != 1) {
    for (int64_t c = 0; c < s.channels; ++c) std::fill(line.at(first, c), line.at(last, c), values[c]);
    return;
  }
  constexpr int64_t kBlock = 32;  // values that stay in registers
  for (int64_t c = 0; c < s.channels; c += kBlock) {
    const int64_t n = smaller(kBlock, s.channels - c);
    T block[kBlock];
    memcpy(block, values + c, n * sizeof(T));
    for (int64_t x = first; x < last; ++x)
      if (n == kBlock)
        memcpy(line.at(x, c), block, sizeof(block));
      else
        memcpy(line.at(x, c), block, n * sizeof(T));
  }
}

// Write pixels [n, lanes] from x on.
template <typename T>
void write(const Shape& s, const Line<T>& line, int64_t x, int64_t n, const float* HD_RESTRICT pixels) {
  if (line.channel == 1) {
    for (int64_t i = 0; i < n; ++i) {
      T* HD_RESTRICT y = line.at(x + i, 0);
      for (int64_t c = 0; c < s.channels; ++c) y[c] = from_float<T>(pixels[i * s.lanes + c]);
    }
    return;
  }
  for (int64_t c = 0; c < s.channels; ++c) {
    T* HD_RESTRICT y = line.at(x, c);
    for (int64_t i = 0; i < n; ++i) y[i] = from_float<T>(pixels[i * s.lanes + c]);
  }
}

// Read them.
template <typename T>
void read(const Shape& s, const Line<const T>& line, int64_t x, int64_t n, float* HD_RESTRICT pixels) {
  if (line.channel == 1) {
    for (int64_t i = 0; i < n; ++i) {
      const T* HD_RESTRICT dy = line.at(x + i, 0);
      for (int64_t c = 0; c < s.channels; ++c) pixels[i * s.lanes + c] = to_float(dy[c]);
    }
    return;
  }
  for (int64_t c = 0; c < s.channels; ++c) {
    const T* HD_RESTRICT dy = line.at(x, c);
    for (int64_t i = 0; i < n; ++i) pixels[i * s.lanes + c] = to_float(dy[i]);
  }
}

// --- forward ---

// The sums of a table: `runs` [ranks, side, entries, lanes] over taps of a row, `windows` [ranks, lanes] over all taps.
struct Sums {
  Array<float> runs, windows;
};

void sum_code(const Shape& s, const Tensor& table, int32_t code, int64_t n_labels, float* runs, float* window) {
  const int64_t rows = table.shape[1], row = code % (n_labels + 1);
  Array<float> taps(s.side * s.lanes);
  for (int64_t i = 0; i < s.side; ++i, runs += s.entries * s.lanes) {
    for (int64_t j = 0; j < s.side; ++j) {
      const float* weights = table.as<float>() + (i * s.side + j) * rows * s.channels;
      for (int64_t c = 0; c < s.channels; ++c)
        taps[j * s.lanes + c] = (row < n_labels ? weights[row * s.channels + c] : 0.f) +
                                (code > n_labels ? weights[n_labels * s.channels + c] : 0.f);
    }
    for (int64_t c = 0; c < s.channels; ++c) {
      float before = 0.f, after = 0.f;
      for (int64_t j = 0; j < s.side; ++j) runs[s.prefix(j + 1) * s.lanes + c] = before += taps[j * s.lanes + c];
      for (int64_t j = s.side - 1; j > 0; --j) runs[s.suffix(j) * s.lanes + c] = after += taps[j * s.lanes + c];
      for (int64_t j = 1; j < s.side - 1; ++j) runs[s.tap(j) * s.lanes + c] = taps[j * s.lanes + c];
      window[c] += before;
    }
  }
}

Sums sum_table(const Shape& s, const Tensor& table, const Ranks& ranks, int64_t n_labels, int threads) {
  const int64_t n = ranks.size();
  Sums sums{Array<float>(s.table_size(n)), Array<float>(n * s.lanes)};
  parallel_for(n, threads, [&](int64_t rank) {
    sum_code(s, table, ranks.codes()[rank], n_labels, sums.runs.data() + s.table_size(rank),
             sums.windows.data() + rank * s.lanes);
  });
  return sums;
}

template <typename T>
void convolve(const Shape& s, const Tensor& codes, Ranks& ranks, const Sums& sums, const Tensor& y,
              const Tensor& pool_y, const Tensor& pool_x, int threads) {
  use_huge_pages<T>(y);
  Array<T> windows(sums.windows.size());
  for (int64_t k = 0; k < windows.size(); ++k) windows[k] = from_float<T>(sums.windows[k]);
  const int64_t bands = (s.out_height + kBand - 1) / kBand;
  const auto band = [&](int64_t task) {
    const int64_t image = task / bands, first = task % bands * kBand, end = smaller(first + kBand, s.out_height);
    Window window(s, RowReader(s, codes, ranks, pool_y, pool_x, image), first);
    Array<float> pixels(kTogether * s.lanes);
    for (int64_t row = first; row < end; ++row) {
      window.move_to(row);
      const Line<T> line = line_of<T>(s, y, image, row);
      for (int64_t x = 0, next; x < s.out_width; x = next) {
        const int32_t rank = window.uniform(x);
        next = window.same_until(x);
        if (rank >= 0) {
          fill(s, line, x, next, windows.data() + rank * s.lanes);
          continue;
        }
        next = smaller(next, x + kTogether);
        for_blocks(s.lanes, [&](auto n, int64_t c) {
          float* result = pixels.data() + c;
          for (int64_t i = x; i < next; ++i, result += s.lanes) add_up<n>(s, sums.runs.data() + c, window, i, result);
        });
        write(s, line, x, next - x, pixels.data());
      }
    }
  };
  parallel_for(s.batch * bands, threads, band, 1);
}

// --- backward ---

// The gradient of a part of an image with respect to the sums of the table, for the codes that are there.
class Gradient {
 public:
  explicit Gradient(const Shape& s) : s_(s) {}

  // Make room for so many codes.
  void reserve(int64_t ranks) {
    runs_.resize(s_.table_size(ranks)), windows_.resize(ranks * s_.lanes);
    taps_.resize(ranks * s_.side * s_.side * s_.lanes);
  }

  // Add the gradient of the pixels [first, last), whose windows have one rank.
  template <typename T>
  void add_uniform(const Line<const T>& dy, int64_t first, int64_t last, int32_t rank) {
    double* target = windows_.data() + rank * s_.lanes;
    for (int64_t begin = first; begin < last; begin += kExact) {
      const int64_t end = smaller(begin + kExact, last);
      int64_t c = 0;
      if (dy.channel == 1) {
        c = s_.channels / kLanes * kLanes;
        for_blocks(c, [&](auto n, int64_t from) { add_pixels<n>(dy, begin, end, from, target); });
      }
      for (; c < s_.channels; ++c) target[c] += sum_of(dy.at(begin, c), end - begin, dy.pixel);
    }
  }

  // Add the gradients [lanes] of the pixels [first, last), whose windows are not uniform.
  void add_others(const Window& window, int64_t first, int64_t last, const float* dy) {
    for_blocks(s_.lanes, [&](auto n, int64_t c) { add_to<n>(s_, runs_.data() + c, window, first, last, dy + c); });
    if ((rounded_ += last - first) >= kRounded) settle();
  }

  // The gradient with respect to the taps, [ranks, side * side, lanes].
  Array<double> finish() {
    settle();
    const int64_t taps = s_.side * s_.side * s_.lanes;
    for (int64_t k = 0; k < taps_.size(); ++k) taps_[k] += windows_[k / taps * s_.lanes + k % s_.lanes];
    return static_cast<Array<double>&&>(taps_);
  }

 private:
  template <typename T>
  static float sum_of(const T* dy, int64_t n, int64_t stride) {
    Lanes sums = {}, grad;
    int64_t x = 0;
    for (; stride == 1 && x + kLanes <= n; x += kLanes) load(grad, dy + x), sums += grad;
    float sum = 0.f;
    for (; x < n; ++x) sum += to_float(dy[x * stride]);
    for (int64_t k = 0; k < kLanes; ++k) sum += sums[k];
    return sum;
  }

  template <int N, typename T>
  void add_pixels(const Line<const T>& dy, int64_t begin, int64_t end, int64_t c, double* target) {
    Lanes sum[N] = {}, grad;
    for (int64_t x = begin; x < end; ++x)
#pragma GCC unroll 8
      for (int k = 0; k < N; ++k) load(grad, dy.at(x, c + k * kLanes)), sum[k] += grad;
    for (int64_t k = 0; k < N * kLanes; ++k) target[c + k] += sum[k / kLanes][k % kLanes];
  }

  // Add what float has added up so far to the taps, before it loses accuracy: a tap is in every sum that has it.
  void settle() {
    const int64_t rows = runs_.size() / (s_.entries * s_.lanes);
    for (int64_t k = 0; k < rows; ++k) {
      float* runs = runs_.data() + k * s_.entries * s_.lanes;
      double* taps = taps_.data() + k * s_.side * s_.lanes;
      for (int64_t last = 1; last <= s_.side; ++last) take(runs, s_.prefix(last), taps, 0, last);
      for (int64_t first = 1; first < s_.side; ++first) take(runs, s_.suffix(first), taps, first, s_.side);
      for (int64_t j = 1; j < s_.side - 1; ++j) take(runs, s_.tap(j), taps, j, j + 1);
    }
    rounded_ = 0;
  }

  // Move an entry to its taps [first, last).
  void take(float* runs, int64_t entry, double* taps, int64_t first, int64_t last) {
    float* HD_RESTRICT from = runs + entry * s_.lanes;
    for (int64_t j = first; j < last; ++j) {
      double* HD_RESTRICT to = taps + j * s_.lanes;
      for (int64_t c = 0; c < s_.lanes; ++c) to[c] += from[c];
    }
    std::fill(from, from + s_.lanes, 0.f);
  }

  const Shape& s_;
  Array<float> runs_;
  Array<double> taps_, windows_;
  int64_t rounded_ = 0;
};

// The gradient of a band of rows, with the codes that it has found.
struct Part {
  Ranks ranks;
  Array<double> taps;  // [ranks, side * side, lanes]
};

template <typename T>
void differentiate(const Shape& s, Part& part, const Tensor& dy, Window&& window, int64_t image, int64_t first,
                   int64_t end) {
  Gradient gradient(s);
  Array<float> pixels(kTogether * s.lanes);
  for (int64_t row = first; row < end; ++row) {
    window.move_to(row);
    gradient.reserve(part.ranks.size());
    const Line<const T> line = line_of<const T>(s, dy, image, row);
    for (int64_t x = 0, next; x < s.out_width; x = next) {
      const int32_t rank = window.uniform(x);
      next = window.same_until(x);
      if (rank >= 0) {
        gradient.add_uniform(line, x, next, rank);
        continue;
      }
      next = smaller(next, x + kTogether);
      read(s, line, x, next - x, pixels.data());
      gradient.add_others(window, x, next, pixels.data());
    }
  }
  part.taps = gradient.finish();
}

// dtable [side * side, n (+ 1), C]: the parts in their order.
void merge(const Shape& s, const Array<Part>& parts, const Tensor& dtable, int64_t n_labels, int threads) {
  const int64_t taps = s.side * s.side, rows = dtable.shape[1];
  parallel_for(taps, threads, [&](int64_t tap) {
    Array<double> sums(rows * s.channels);
    for (const Part& part : parts)
      for (int64_t rank = 0; rank < part.ranks.size(); ++rank) {
        const int64_t code = part.ranks.codes()[rank], row = code % (n_labels + 1);
        const double* source = part.taps.data() + (rank * taps + tap) * s.lanes;
        for (int64_t c = 0; row < n_labels && c < s.channels; ++c) sums[row * s.channels + c] += source[c];
        for (int64_t c = 0; code > n_labels && c < s.channels; ++c) sums[n_labels * s.channels + c] += source[c];
      }
    std::copy(sums.begin(), sums.end(), dtable.as<float>() + tap * rows * s.channels);
  });
}

}  // namespace

void label_conv2d_fwd(Tensor codes, Tensor table, Tensor y, Tensor pool_y, Tensor pool_x, Tensor, int64_t n_labels,
                      int stride, int padding, PadMode pad_mode, int threads) {
  const Shape s(codes, table, y, pool_y, pool_x, stride, padding, pad_mode);
  Ranks ranks(n_labels);
  ranks.of(ranks.none());
  const int32_t* code = codes.as<int32_t>();
  const int64_t pixels = s.batch * s.height * s.width;
  const int64_t codes_of_planes = (n_labels + 1) * (table.shape[1] > n_labels ? 2 : 1);
  for (int64_t p = 0; p < pixels; p = end_of_run(code, p, pixels)) {
    if (code[p] < 0 || code[p] >= codes_of_planes) {
      char message[128];  // std::to_string would be compiled for AVX2 here, and taken by files that must run without
      snprintf(message, sizeof message,
               "label_conv2d: expected codes from 0 to %lld, got %d: label planes must stay whole",
               static_cast<long long>(codes_of_planes - 1), code[p]);
      throw std::invalid_argument(message);
    }
    ranks.of(code[p]);
  }
  const Sums sums = sum_table(s, table, ranks, n_labels, threads);
  with_floating(y.dtype,
                [&](auto type) { convolve<decltype(type)>(s, codes, ranks, sums, y, pool_y, pool_x, threads); });
}

void label_conv2d_bwd(Tensor codes, Tensor dtable, Tensor dy, Tensor pool_y, Tensor pool_x, Tensor, int64_t n_labels,
                      int stride, int padding, PadMode pad_mode, int threads) {
  const Shape s(codes, dtable, dy, pool_y, pool_x, stride, padding, pad_mode);
  const int64_t most = larger(kParts / larger(s.batch, 1), 1);  // bands of an image
  const int64_t rows = (s.out_height + most - 1) / most, bands = (s.out_height + rows - 1) / rows;
  Array<Part> parts(s.batch * bands);
  const auto band = [&](int64_t task) {
    const int64_t image = task / bands, first = task % bands * rows, end = smaller(first + rows, s.out_height);
    parts[task].ranks = Ranks(n_labels);
    with_floating(dy.dtype, [&](auto type) {
      differentiate<decltype(type)>(s, parts[task], dy,
                                    Window(s, RowReader(s, codes, parts[task].ranks, pool_y, pool_x, image), first),
                                    image, first, end);
    });
  };
  parallel_for(s.batch * bands, threads, band, 1);
  merge(s, parts, dtable, n_labels, threads);
}

}  // namespace hd::cpu
