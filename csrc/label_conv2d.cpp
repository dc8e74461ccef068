// A task makes a band of rows of the result. It slides down the planes, whose rows it keeps as runs of equal codes.
// Where all rows under the kernel have one code, the result is one row of the table's sum over the taps; elsewhere it
// is the sum of a few rows: a run that begins or ends at a side of the kernel is one row of prefix or suffix sums. The
// backward pass adds the gradient to just those rows, and takes the tables apart at the end.
//
// Codes that occur are numbered by rank, so that tables are no larger than the picture needs.
#include <cmath>
#include <cstring>
#include <vector>

#include "cpu.h"

namespace hd::HD_ISA {
namespace {

constexpr int64_t kBand = 32;       // output rows of a task
constexpr int64_t kParts = 32;      // tasks of the backward pass for an image at most, whatever the number of threads
constexpr int64_t kBlock = 32;      // channels that are summed in registers
constexpr int64_t kLanes = 8;       // channels are padded to a multiple of these
constexpr int64_t kExact = 32;      // pixels that are summed in float before double takes over
constexpr int64_t kRounded = 4096;  // and those outside of uniform windows

struct Shape {
  int64_t batch, height, width;             // of the codes
  int64_t plane_height, plane_width;        // of the planes that are convolved
  int64_t out_height, out_width, channels;  // of the result
  int64_t side, stride, padding;
  PadMode pad_mode;
  int64_t lanes;    // channels, padded
  int64_t entries;  // of a code in the table of one row of taps
  bool channels_last;

  // Where the rows of a run [first, last) of taps lie in the table of one row of taps.
  int64_t prefix(int64_t last) const { return last - 1; }
  int64_t suffix(int64_t first) const { return side + first - 1; }
  int64_t tap(int64_t j) const { return j == 0 ? 0 : j == side - 1 ? suffix(j) : 2 * side - 2 + j; }
  int64_t code_size() const { return side * entries * lanes; }
};

Shape shape_of(const Tensor& codes, const Tensor& table, const Tensor& y, const Tensor& pool_y, const Tensor& pool_x,
               int stride, int padding, PadMode pad_mode) {
  Shape s;
  s.batch = codes.shape[0], s.height = codes.shape[1], s.width = codes.shape[2];
  s.plane_height = pool_y ? pool_y.shape[0] : s.height;
  s.plane_width = pool_x ? pool_x.shape[0] : s.width;
  s.channels = y.shape[1], s.out_height = y.shape[2], s.out_width = y.shape[3];
  s.side = std::lround(std::sqrt(static_cast<double>(table.shape[0])));
  s.stride = stride, s.padding = padding, s.pad_mode = pad_mode;
  s.lanes = (s.channels + kLanes - 1) / kLanes * kLanes;
  s.entries = s.side == 1 ? 1 : 3 * s.side - 3;
  s.channels_last = is_channels_last(y);
  return s;
}

// The pixel of the plane that a padded one repeats; -1 for none.
int64_t unpadded(int64_t i, int64_t size, PadMode mode) {
  if (i >= 0 && i < size) return i;
  if (mode == PadMode::zero) return -1;
  if (mode == PadMode::replicate) return i < 0 ? 0 : size - 1;
  return i < 0 ? -i : 2 * size - 2 - i;
}

// --- ranks ---

struct Ranks {
  std::vector<int32_t> codes;  // of each rank; the first is that of pixels without class and boundary
  std::vector<int32_t> map;    // [B, H, W]
};

Ranks rank_codes(const Tensor& codes, int64_t n_labels, int threads) {
  const int32_t* source = codes.as<int32_t>();
  const int64_t rows = codes.shape[0] * codes.shape[1], width = codes.shape[2], pixels = rows * width;
  std::vector<int32_t> rank(2 * (n_labels + 1), -1);
  Ranks ranks;
  const auto add = [&](int32_t code) {
    if (rank[code] >= 0) return;
    rank[code] = static_cast<int32_t>(ranks.codes.size());
    ranks.codes.push_back(code);
  };
  add(static_cast<int32_t>(n_labels));
  for (int64_t p = 0; p < pixels; p = end_of_run(source, p, pixels)) add(source[p]);
  ranks.map.resize(pixels);
  parallel_for(rows, threads, [&](int64_t row) {
    for (int64_t p = row * width; p < (row + 1) * width; ++p) ranks.map[p] = rank[source[p]];
  });
  return ranks;
}

// --- rows of the planes ---

// A code of a mixed pixel, and its share.
struct Share {
  int32_t rank;
  float weight;
};

// A padded row of the planes. A pixel that pooling has mixed has -1 - m for its rank, and is a run by itself.
struct Row {
  std::vector<int32_t> rank, end;  // of each pixel: where its run ends
  std::vector<int32_t> begin;      // of each mixed pixel in shares, and the end
  std::vector<Share> shares;
};

class RowReader {
 public:
  RowReader(const Shape& s, const Ranks& ranks, const Tensor& pool_y, const Tensor& pool_x)
      : s_(s), map_(ranks.map.data()), weights_y_(pool_y.as<float>()), weights_x_(pool_x.as<float>()) {
    if (weights_y_ == nullptr) return;
    span_ = pool_y.shape[1];
    step_ = span_ % 2 == 0 ? span_ : (span_ + 1) / 2;
    before_ = span_ % 2 == 0 ? 0 : (span_ - 1) / 2;
    agreed_.resize(s.width), agreed_end_.resize(s.width);
    share_.assign(ranks.codes.size(), 0.f);
  }

  // Read padded row i of an image.
  void read(int64_t image, int64_t i, Row& row) {
    const int64_t padded = s_.plane_width + 2 * s_.padding, y = unpadded(i - s_.padding, s_.plane_height, s_.pad_mode);
    row.rank.assign(padded, 0), row.end.resize(padded);
    row.shares.clear(), row.begin.assign(1, 0);
    if (y >= 0) {
      int32_t* inner = row.rank.data() + s_.padding;
      if (weights_y_ == nullptr)
        memcpy(inner, map_ + (image * s_.height + y) * s_.width, s_.width * sizeof(int32_t));
      else
        pool(map_ + image * s_.height * s_.width, y, row, inner);
      for (int64_t x = 0; x < padded; x = x == s_.padding - 1 ? x + s_.plane_width + 1 : x + 1) {
        if (x >= s_.padding && x < s_.padding + s_.plane_width) continue;
        const int64_t from = unpadded(x - s_.padding, s_.plane_width, s_.pad_mode);
        row.rank[x] = from < 0 ? 0 : inner[from];
      }
    }
    find_ends(row.rank.data(), padded, row.end.data());
  }

 private:
  static void find_ends(const int32_t* rank, int64_t n, int32_t* end) {
    for (int64_t x = 0; x < n;) {
      const int64_t last = rank[x] < 0 ? x + 1 : end_of_run(rank, x, n);
      for (; x < last; ++x) end[x] = static_cast<int32_t>(last);
    }
  }

  // The pixels of row y of pooled planes: a rank where all pixels that it averages have one, or their shares.
  void pool(const int32_t* image, int64_t y, Row& row, int32_t* target) {
    const float* wy = weights_y_ + y * span_;
    const int64_t top = y * step_ - before_, first = larger(top, 0), last = smaller(top + span_, s_.height);
    memcpy(agreed_.data(), image + first * s_.width, s_.width * sizeof(int32_t));
    for (int64_t r = first + 1; r < last; ++r) {
      const int32_t *here = image + r * s_.width, *above = here - s_.width;
#pragma omp simd
      for (int64_t x = 0; x < s_.width; ++x) agreed_[x] = here[x] == above[x] ? agreed_[x] : -1;
    }
    find_ends(agreed_.data(), s_.width, agreed_end_.data());
    for (int64_t x = 0; x < s_.plane_width; ++x) {
      const int64_t left = x * step_ - before_, begin = larger(left, 0), end = smaller(left + span_, s_.width);
      if (agreed_[begin] >= 0 && agreed_end_[begin] >= end) {
        target[x] = agreed_[begin];
        continue;
      }
      target[x] = -static_cast<int32_t>(row.begin.size());
      const float* wx = weights_x_ + x * span_;
      for (int64_t r = first; r < last; ++r)
        for (int64_t c = begin; c < end; ++c) add(image[r * s_.width + c], wy[r - top] * wx[c - left], row);
      for (int64_t k = row.begin.back(); k < static_cast<int64_t>(row.shares.size()); ++k) {
        row.shares[k].weight = share_[row.shares[k].rank];
        share_[row.shares[k].rank] = 0.f;
      }
      row.begin.push_back(static_cast<int32_t>(row.shares.size()));
    }
  }

  void add(int32_t rank, float weight, Row& row) {
    if (share_[rank] == 0.f) row.shares.push_back({rank, 0.f});
    share_[rank] += weight;
  }

  const Shape& s_;
  const int32_t* map_;
  const float *weights_y_, *weights_x_;
  int64_t span_ = 1, step_ = 1, before_ = 0;
  std::vector<int32_t> agreed_, agreed_end_;
  std::vector<float> share_;  // of each rank in the pixel at hand
};

// --- windows ---

// The rows of the table that a window is the sum of: their places in elements, and the shares of those of mixed pixels.
struct Terms {
  std::vector<int64_t> whole;
  std::vector<std::pair<int64_t, float>> parts;
};

// The rows under the kernel while it slides down a band.
class Window {
 public:
  Window(const Shape& s, const Ranks& ranks, const Tensor& pool_y, const Tensor& pool_x, int64_t image, int64_t first)
      : s_(s),
        reader_(s, ranks, pool_y, pool_x),
        image_(image),
        next_(first * s.stride),
        rows_(s.side),
        uniform_(s.out_width, -1),
        height_(s.out_width, 0) {}

  // Move on to row y of the result.
  void move_to(int64_t y) {
    for (next_ = larger(next_, y * s_.stride); next_ < y * s_.stride + s_.side; ++next_) {
      Row& row = rows_[next_ % s_.side];
      reader_.read(image_, next_, row);
      const int32_t *rank = row.rank.data(), *end = row.end.data();
      const int32_t side = static_cast<int32_t>(s_.side);
      for (int64_t x = 0; x < s_.out_width; ++x) {
        const int64_t left = x * s_.stride;
        const int32_t found = end[left] - static_cast<int32_t>(left) >= side ? rank[left] : -1;
        height_[x] = found < 0 ? 0 : found == uniform_[x] ? height_[x] + 1 : 1;
        uniform_[x] = found;
      }
    }
  }

  // The rank of all pixels under the kernel at column x, or -1. A side of one tap may lie on a mixed pixel.
  int32_t uniform(int64_t x) const { return height_[x] >= s_.side ? uniform_[x] : -1; }

  // Up to where columns from x on have the same one as x.
  int64_t same_until(int64_t x) const {
    const int32_t rank = uniform(x);
    int64_t end = x + 1;
    while (end < s_.out_width && uniform(end) == rank) ++end;
    return end;
  }

  // What the result at row y and column x is the sum of.
  void find_terms(int64_t y, int64_t x, Terms& terms) const {
    terms.whole.clear(), terms.parts.clear();
    const int64_t left = x * s_.stride, right = left + s_.side;
    for (int64_t i = 0; i < s_.side; ++i) {
      const Row& row = rows_[(y * s_.stride + i) % s_.side];
      for (int64_t p = left, last; p < right; p = last) {
        last = smaller(row.end[p], right);
        const int32_t rank = row.rank[p];
        if (rank < 0)
          for (int32_t k = row.begin[-1 - rank]; k < row.begin[-rank]; ++k)
            terms.parts.emplace_back(place(row.shares[k].rank, i, s_.tap(p - left)), row.shares[k].weight);
        else if (p == left)
          terms.whole.push_back(place(rank, i, s_.prefix(last - left)));
        else if (last == right)
          terms.whole.push_back(place(rank, i, s_.suffix(p - left)));
        else
          for (int64_t j = p; j < last; ++j) terms.whole.push_back(place(rank, i, s_.tap(j - left)));
      }
    }
  }

 private:
  int64_t place(int64_t rank, int64_t i, int64_t entry) const {
    return ((rank * s_.side + i) * s_.entries + entry) * s_.lanes;
  }

  const Shape& s_;
  RowReader reader_;
  int64_t image_, next_;  // the padded row that is read next
  std::vector<Row> rows_;
  std::vector<int32_t> uniform_, height_;  // of each column: the rank of the last rows, and how many have it
};

// --- forward ---

// The rows of weights of a code at a tap: that of its class, if it has one, and that of boundaries.
struct Weights {
  const float *of_class, *of_boundary;
};

Weights weights_of(const Tensor& table, int64_t tap, int32_t code, int64_t n_labels) {
  const int64_t row = code % (n_labels + 1), rows = table.shape[1], channels = table.shape[2];
  const float* taps = table.as<float>() + tap * rows * channels;
  return {row < n_labels ? taps + row * channels : nullptr, code > n_labels ? taps + n_labels * channels : nullptr};
}

// The tables of sums: [ranks, side, entries, lanes] over the taps of a row, and [ranks, lanes] over all taps.
struct Sums {
  std::vector<float> of_runs, of_windows;
};

void sum_code(const Shape& s, const Tensor& table, int32_t code, int64_t n_labels, float* runs, float* window) {
  std::vector<float> taps(s.side * s.lanes);
  for (int64_t i = 0; i < s.side; ++i, runs += s.entries * s.lanes) {
    taps.assign(taps.size(), 0.f);
    for (int64_t j = 0; j < s.side; ++j) {
      const Weights weights = weights_of(table, i * s.side + j, code, n_labels);
      for (const float* row : {weights.of_class, weights.of_boundary})
        for (int64_t c = 0; row != nullptr && c < s.channels; ++c) taps[j * s.lanes + c] += row[c];
    }
    for (int64_t c = 0; c < s.lanes; ++c) {
      float before = 0.f, after = 0.f;
      for (int64_t j = 0; j < s.side; ++j) runs[s.prefix(j + 1) * s.lanes + c] = before += taps[j * s.lanes + c];
      for (int64_t j = s.side - 1; j > 0; --j) runs[s.suffix(j) * s.lanes + c] = after += taps[j * s.lanes + c];
      for (int64_t j = 1; j < s.side - 1; ++j) runs[s.tap(j) * s.lanes + c] = taps[j * s.lanes + c];
      window[c] += before;
    }
  }
}

Sums sum_table(const Shape& s, const Tensor& table, const Ranks& ranks, int64_t n_labels, int threads) {
  const int64_t n = ranks.codes.size();
  Sums sums{std::vector<float>(n * s.code_size()), std::vector<float>(n * s.lanes, 0.f)};
  parallel_for(n, threads, [&](int64_t rank) {
    sum_code(s, table, ranks.codes[rank], n_labels, sums.of_runs.data() + rank * s.code_size(),
             sums.of_windows.data() + rank * s.lanes);
  });
  return sums;
}

template <int64_t N>
void add_up(const float* HD_RESTRICT table, const Terms& terms, float* HD_RESTRICT y) {
  float sum[N] = {};
  for (const int64_t place : terms.whole)
#pragma omp simd
    for (int64_t c = 0; c < N; ++c) sum[c] += table[place + c];
  for (const auto& [place, weight] : terms.parts)
#pragma omp simd
    for (int64_t c = 0; c < N; ++c) sum[c] += weight * table[place + c];
  memcpy(y, sum, sizeof(sum));
}

void add_up_terms(const Shape& s, const float* table, const Terms& terms, float* y) {
  int64_t c = 0;
  for (; c + kBlock <= s.lanes; c += kBlock) add_up<kBlock>(table + c, terms, y + c);
  for (; c < s.lanes; c += kLanes) add_up<kLanes>(table + c, terms, y + c);
}

// A row of the result, or of its gradient: element c of pixel x is at x * pixel + c * channel.
template <typename T>
struct Line {
  T* data;
  int64_t pixel, channel;
};

template <typename T>
Line<T> line_of(const Shape& s, const Tensor& y, int64_t image, int64_t row) {
  const int64_t plane = s.out_height * s.out_width;
  if (s.channels_last) return {y.as<T>() + (image * plane + row * s.out_width) * s.channels, s.channels, 1};
  return {y.as<T>() + image * s.channels * plane + row * s.out_width, 1, plane};
}

// Write one value a channel to the pixels [first, last).
template <typename T>
void fill(const Shape& s, const Line<T>& line, int64_t first, int64_t last, const T* HD_RESTRICT values) {
  if (line.channel == 1) {
    for (int64_t c = 0; c < s.channels; c += kBlock) {
      const int64_t n = smaller(kBlock, s.channels - c);
      T block[kBlock];
      memcpy(block, values + c, n * sizeof(T));
      T* HD_RESTRICT y = line.data + first * line.pixel + c;
      if (n == kBlock)
        for (int64_t x = first; x < last; ++x, y += line.pixel) memcpy(y, block, sizeof(block));
      else
        for (int64_t x = first; x < last; ++x, y += line.pixel)
          for (int64_t k = 0; k < n; ++k) y[k] = block[k];
    }
    return;
  }
  for (int64_t c = 0; c < s.channels; ++c) {
    T* HD_RESTRICT y = line.data + c * line.channel;
    const T value = values[c];
    for (int64_t x = first; x < last; ++x) y[x] = value;
  }
}

template <typename T>
void convolve(const Shape& s, const Ranks& ranks, const Sums& sums, const Tensor& y, const Tensor& pool_y,
              const Tensor& pool_x, int threads) {
  use_huge_pages<T>(y);
  std::vector<T> windows(sums.of_windows.size());
  for (size_t k = 0; k < windows.size(); ++k) windows[k] = from_float<T>(sums.of_windows[k]);
  const int64_t bands = (s.out_height + kBand - 1) / kBand;
  parallel_for(
      s.batch * bands, threads,
      [&](int64_t task) {
        const int64_t image = task / bands, first = task % bands * kBand, end = smaller(first + kBand, s.out_height);
        Window window(s, ranks, pool_y, pool_x, image, first);
        Terms terms;
        std::vector<float> wide(s.lanes);
        std::vector<T> pixel(s.lanes);
        for (int64_t row = first; row < end; ++row) {
          window.move_to(row);
          const Line<T> line = line_of<T>(s, y, image, row);
          for (int64_t x = 0, next; x < s.out_width; x = next) {
            const int32_t rank = window.uniform(x);
            if (rank >= 0) {
              next = window.same_until(x);
              fill(s, line, x, next, windows.data() + rank * s.lanes);
              continue;
            }
            next = x + 1;
            window.find_terms(row, x, terms);
            add_up_terms(s, sums.of_runs.data(), terms, wide.data());
            for (int64_t c = 0; c < s.lanes; ++c) pixel[c] = from_float<T>(wide[c]);
            fill(s, line, x, next, pixel.data());
          }
        }
      },
      1);
}

// --- backward ---

// The gradients of a part of the image with respect to the tables.
class Gradient {
 public:
  Gradient(const Shape& s, int64_t ranks)
      : s_(s), runs_(ranks * s.code_size(), 0.f), exact_(runs_.size(), 0.), windows_(ranks * s.lanes, 0.) {}

  // Add the gradient of the pixels [first, last), whose windows have one rank.
  template <typename T>
  void add_uniform(const Line<const T>& dy, int64_t first, int64_t last, int32_t rank) {
    double* HD_RESTRICT target = windows_.data() + rank * s_.lanes;
    for (int64_t begin = first; begin < last; begin += kExact) {
      const int64_t end = smaller(begin + kExact, last);
      if (dy.channel != 1) {
        for (int64_t c = 0; c < s_.channels; ++c) {
          const T* HD_RESTRICT source = dy.data + c * dy.channel;
          float sum = 0.f;
#pragma omp simd reduction(+ : sum)
          for (int64_t x = begin; x < end; ++x) sum += to_float(source[x]);
          target[c] += sum;
        }
        continue;
      }
      for (int64_t c = 0; c < s_.channels; c += kBlock) {
        const int64_t n = smaller(kBlock, s_.channels - c);
        if (n == kBlock)
          add_pixels<kBlock>(dy, begin, end, c, n, target + c);
        else
          add_pixels<0>(dy, begin, end, c, n, target + c);
      }
    }
  }

  // Add the gradient of a pixel, [lanes], to the rows that it is the sum of.
  void add_terms(const Terms& terms, const float* HD_RESTRICT dy) {
    for (const int64_t place : terms.whole) {
      float* HD_RESTRICT target = runs_.data() + place;
#pragma omp simd
      for (int64_t c = 0; c < s_.lanes; ++c) target[c] += dy[c];
    }
    for (const auto& [place, weight] : terms.parts) {
      float* HD_RESTRICT target = runs_.data() + place;
#pragma omp simd
      for (int64_t c = 0; c < s_.lanes; ++c) target[c] += weight * dy[c];
    }
    if (++rounded_ == kRounded) settle();
  }

  // Take the sums of runs apart into [ranks, side * side, lanes]: a tap is in every run that covers it.
  std::vector<double> taps() {
    settle();
    const int64_t ranks = windows_.size() / s_.lanes;
    std::vector<double> result(ranks * s_.side * s_.side * s_.lanes);
    for (int64_t k = 0; k < ranks * s_.side; ++k) {
      const double* runs = exact_.data() + k * s_.entries * s_.lanes;
      double* taps = result.data() + k * s_.side * s_.lanes;
      const double* window = windows_.data() + k / s_.side * s_.lanes;
      for (int64_t c = 0; c < s_.lanes; ++c) {
        double covering = 0.;
        for (int64_t j = s_.side - 1; j >= 0; --j)
          taps[j * s_.lanes + c] = window[c] + (covering += runs[s_.prefix(j + 1) * s_.lanes + c]);
        covering = 0.;
        for (int64_t j = 1; j < s_.side; ++j) taps[j * s_.lanes + c] += covering += runs[s_.suffix(j) * s_.lanes + c];
        for (int64_t j = 1; j < s_.side - 1; ++j) taps[j * s_.lanes + c] += runs[s_.tap(j) * s_.lanes + c];
      }
    }
    return result;
  }

 private:
  template <int64_t N, typename T>
  void add_pixels(const Line<const T>& dy, int64_t begin, int64_t end, int64_t c, int64_t n, double* target) {
    float sum[kBlock] = {};
    const int64_t count = N ? N : n;
    const T* HD_RESTRICT source = dy.data + begin * dy.pixel + c;
    for (int64_t x = begin; x < end; ++x, source += dy.pixel)
#pragma omp simd
      for (int64_t k = 0; k < count; ++k) sum[k] += to_float(source[k]);
    for (int64_t k = 0; k < count; ++k) target[k] += sum[k];
  }

  // Add what float has summed so far to the sums in double, before it loses accuracy.
  void settle() {
    for (size_t k = 0; k < runs_.size(); ++k) exact_[k] += runs_[k];
    runs_.assign(runs_.size(), 0.f);
    rounded_ = 0;
  }

  const Shape& s_;
  std::vector<float> runs_;
  std::vector<double> exact_, windows_;
  int64_t rounded_ = 0;
};

template <typename T>
std::vector<double> differentiate(const Shape& s, const Ranks& ranks, const Tensor& dy, const Tensor& pool_y,
                                  const Tensor& pool_x, int64_t image, int64_t first, int64_t end) {
  Gradient gradient(s, ranks.codes.size());
  Window window(s, ranks, pool_y, pool_x, image, first);
  Terms terms;
  std::vector<float> pixel(s.lanes, 0.f);
  for (int64_t row = first; row < end; ++row) {
    window.move_to(row);
    const Line<const T> line = line_of<const T>(s, dy, image, row);
    for (int64_t x = 0, next; x < s.out_width; x = next) {
      const int32_t rank = window.uniform(x);
      if (rank >= 0) {
        next = window.same_until(x);
        gradient.add_uniform(line, x, next, rank);
        continue;
      }
      next = x + 1;
      const T* source = line.data + x * line.pixel;
      for (int64_t c = 0; c < s.channels; ++c) pixel[c] = to_float(source[c * line.channel]);
      window.find_terms(row, x, terms);
      gradient.add_terms(terms, pixel.data());
    }
  }
  return gradient.taps();
}

// dtable [side * side, n (+ 1), C]: the parts, and the codes of a class or with a boundary, added up in their order.
void merge(const Shape& s, const Ranks& ranks, const std::vector<std::vector<double>>& parts, const Tensor& dtable,
           int64_t n_labels, int threads) {
  const int64_t taps = s.side * s.side, rows = dtable.shape[1];
  parallel_for(taps, threads, [&](int64_t tap) {
    std::vector<double> sums(rows * s.channels, 0.);
    for (size_t rank = 0; rank < ranks.codes.size(); ++rank) {
      const int64_t code = ranks.codes[rank], row = code % (n_labels + 1);
      for (const auto& part : parts) {
        const double* source = part.data() + (rank * taps + tap) * s.lanes;
        for (int64_t c = 0; row < n_labels && c < s.channels; ++c) sums[row * s.channels + c] += source[c];
        for (int64_t c = 0; code > n_labels && c < s.channels; ++c) sums[n_labels * s.channels + c] += source[c];
      }
    }
    float* target = dtable.as<float>() + tap * rows * s.channels;
    for (size_t k = 0; k < sums.size(); ++k) target[k] = static_cast<float>(sums[k]);
  });
}

}  // namespace

void label_conv2d_fwd(Tensor codes, Tensor table, Tensor y, Tensor pool_y, Tensor pool_x, Tensor, int64_t n_labels,
                      int stride, int padding, PadMode pad_mode, int threads) {
  const Shape s = shape_of(codes, table, y, pool_y, pool_x, stride, padding, pad_mode);
  const Ranks ranks = rank_codes(codes, n_labels, threads);
  const Sums sums = sum_table(s, table, ranks, n_labels, threads);
  with_floating(y.dtype, [&](auto type) { convolve<decltype(type)>(s, ranks, sums, y, pool_y, pool_x, threads); });
}

void label_conv2d_bwd(Tensor codes, Tensor dtable, Tensor dy, Tensor pool_y, Tensor pool_x, Tensor, int64_t n_labels,
                      int stride, int padding, PadMode pad_mode, int threads) {
  const Shape s = shape_of(codes, dtable, dy, pool_y, pool_x, stride, padding, pad_mode);
  const Ranks ranks = rank_codes(codes, n_labels, threads);
  const int64_t rows = larger((s.out_height + kParts - 1) / kParts, 1), bands = (s.out_height + rows - 1) / rows;
  std::vector<std::vector<double>> parts(s.batch * bands);
  parallel_for(
      s.batch * bands, threads,
      [&](int64_t task) {
        const int64_t image = task / bands, first = task % bands * rows, end = smaller(first + rows, s.out_height);
        with_floating(dy.dtype, [&](auto type) {
          parts[task] = differentiate<decltype(type)>(s, ranks, dy, pool_y, pool_x, image, first, end);
        });
      },
      1);
  merge(s, ranks, parts, dtable, n_labels, threads);
}

}  // namespace hd::HD_ISA
