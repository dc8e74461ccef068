// What label_conv2d knows of the pixels under its kernel. A window slides down the planes, whose rows it keeps as runs
// of equal codes. Where all rows under the kernel have one code, the result is one row of the table's sum over the
// taps. Elsewhere it is the sum of a few rows of another table: a run that begins or ends at a side of the kernel has
// the sum of its taps there.
//
// Codes that occur are numbered by rank, so that the tables are no larger than the picture needs.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstring>

#include "cpu.h"

namespace hd::cpu {
namespace {

constexpr int64_t kLanes = 8;  // channels are padded to a multiple of these

struct Shape {
  int64_t batch, height, width;             // of the codes
  int64_t plane_height, plane_width;        // of the planes that are convolved
  int64_t out_height, out_width, channels;  // of the result
  int64_t side, stride, padding;            // of the kernel
  PadMode pad_mode;
  int64_t lanes;    // channels, padded
  int64_t entries;  // of a code in the table of a row of taps
  bool channels_last;

  Shape(const Tensor& codes, const Tensor& table, const Tensor& y, const Tensor& pool_y, const Tensor& pool_x,
        int stride_, int padding_, PadMode mode)
      : batch(codes.shape[0]),
        height(codes.shape[1]),
        width(codes.shape[2]),
        plane_height(pool_y ? pool_y.shape[0] : height),
        plane_width(pool_x ? pool_x.shape[0] : width),
        out_height(y.shape[2]),
        out_width(y.shape[3]),
        channels(y.shape[1]),
        side(std::lround(std::sqrt(static_cast<double>(table.shape[0])))),
        stride(stride_),
        padding(padding_),
        pad_mode(mode),
        lanes((channels + kLanes - 1) / kLanes * kLanes),
        entries(side == 1 ? 1 : 3 * side - 3),
        channels_last(is_channels_last(y)) {}

  // The entries of a code in the table of a row of taps: the sums of the taps [0, last), of [first, side), and one tap.
  int64_t prefix(int64_t last) const { return last - 1; }
  int64_t suffix(int64_t first) const { return side + first - 1; }
  int64_t tap(int64_t j) const { return j == 0 ? prefix(1) : j == side - 1 ? suffix(j) : 2 * side - 2 + j; }
  // An entry in the table of all rows of taps, for the first of them; `entries` rows further on is the next.
  int32_t place(int64_t rank, int64_t entry) const { return static_cast<int32_t>(rank * side * entries + entry); }
  int64_t table_size(int64_t ranks) const { return ranks * side * entries * lanes; }
};

// The numbers of codes, in the order in which they are found.
class Ranks {
 public:
  Ranks() = default;
  explicit Ranks(int64_t n_labels) : of_code_(2 * (n_labels + 1), -1) {}

  // Several threads may ask at once for codes that are known.
  int32_t of(int32_t code) {
    if (of_code_[code] < 0) {
      of_code_[code] = static_cast<int32_t>(codes_.size());
      codes_.push_back(code);
    }
    return of_code_[code];
  }

  const Array<int32_t>& codes() const { return codes_; }
  int64_t size() const { return codes_.size(); }
  int32_t none() const { return static_cast<int32_t>(of_code_.size() / 2 - 1); }  // the code of what is outside

 private:
  Array<int32_t> of_code_, codes_;
};

// A code of a mixed pixel by its rank, or its entry in a table; and how much of the pixel it has.
struct Share {
  int32_t of;
  float weight;
};

// A padded row of the planes. A pixel that pooling has mixed has -1 - m for its rank, and is a run by itself.
struct Row {
  Array<int32_t> rank, end;     // of each pixel: where its run ends
  Array<int32_t> first_share;   // of each mixed pixel, and where the last one's end
  Array<Share> shares;          // of mixed pixels
  Array<int32_t> first, terms;  // of each column of the result: the entries that it is the sum of
  Array<int32_t> first_part;    // empty if no pixel is mixed
  Array<Share> parts;           // and the shares of entries
};

class RowReader {
 public:
  RowReader(const Shape& s, const Tensor& codes, Ranks& ranks, const Tensor& pool_y, const Tensor& pool_x,
            int64_t image)
      : s_(s),
        codes_(codes.as<int32_t>() + image * s.height * s.width),
        ranks_(ranks),
        weights_y_(pool_y.as<float>()),
        weights_x_(pool_x.as<float>()) {
    if (weights_y_ == nullptr) return;
    span_ = pool_y.shape[1];
    step_ = span_ % 2 == 0 ? span_ : (span_ + 1) / 2;
    before_ = span_ % 2 == 0 ? 0 : (span_ - 1) / 2;
    agreed_.resize(s.width), agreed_end_.resize(s.width);
  }

  // Read padded row i.
  void read(int64_t i, Row& row) {
    const int64_t padded = s_.plane_width + 2 * s_.padding, y = unpadded(i - s_.padding, s_.plane_height);
    row.rank.assign(padded, ranks_.none()), row.end.resize(padded);
    row.shares.clear(), row.first_share.assign(1, 0);
    if (y >= 0) {
      int32_t* inner = row.rank.data() + s_.padding;
      if (weights_y_ == nullptr)
        memcpy(inner, codes_ + y * s_.width, s_.width * sizeof(int32_t));
      else
        pool(y, row, inner);
      for (int64_t k = 0; k < s_.padding; ++k) {
        const int64_t left = unpadded(k - s_.padding, s_.plane_width);
        const int64_t right = unpadded(s_.plane_width + k, s_.plane_width);
        if (left >= 0) row.rank[k] = inner[left];
        if (right >= 0) inner[s_.plane_width + k] = inner[right];
      }
    }
    find_ends(row.rank.data(), padded, row.end.data());
    for (int64_t x = 0; x < padded; x = row.end[x])
      if (row.rank[x] >= 0) std::fill(&row.rank[x], row.rank.data() + row.end[x], ranks_.of(row.rank[x]));
    find_terms(row);
  }

 private:
  // The pixel that a padded one repeats; -1 for none.
  int64_t unpadded(int64_t i, int64_t size) const {
    if (i >= 0 && i < size) return i;
    if (s_.pad_mode == PadMode::zero) return -1;
    if (s_.pad_mode == PadMode::replicate) return i < 0 ? 0 : size - 1;
    return i < 0 ? -i : 2 * size - 2 - i;
  }

  static void find_ends(const int32_t* values, int64_t n, int32_t* end) {
    for (int64_t x = 0; x < n;) {
      const int64_t last = values[x] < 0 ? x + 1 : end_of_run(values, x, n);
      for (; x < last; ++x) end[x] = static_cast<int32_t>(last);
    }
  }

  // The pixels of row y of pooled planes: a code where all pixels that one averages have it, or their shares.
  void pool(int64_t y, Row& row, int32_t* target) {
    const float* wy = weights_y_ + y * span_;
    const int64_t top = y * step_ - before_, first = larger(top, 0), last = smaller(top + span_, s_.height);
    memcpy(agreed_.data(), codes_ + first * s_.width, s_.width * sizeof(int32_t));
    for (int64_t r = first + 1; r < last; ++r) {
      const int32_t *here = codes_ + r * s_.width, *above = here - s_.width;
      int32_t* HD_RESTRICT agreed = agreed_.data();
#pragma omp simd
      for (int64_t x = 0; x < s_.width; ++x) agreed[x] = here[x] == above[x] ? agreed[x] : -1;
    }
    find_ends(agreed_.data(), s_.width, agreed_end_.data());
    for (int64_t x = 0; x < s_.plane_width; ++x) {
      const int64_t left = x * step_ - before_, begin = larger(left, 0), end = smaller(left + span_, s_.width);
      if (agreed_[begin] >= 0 && agreed_end_[begin] >= end) {
        target[x] = agreed_[begin];
        continue;
      }
      target[x] = -static_cast<int32_t>(row.first_share.size());
      const float* wx = weights_x_ + x * span_;
      for (int64_t r = first; r < last; ++r)
        for (int64_t c = begin; c < end; ++c)
          share(ranks_.of(codes_[r * s_.width + c]), wy[r - top] * wx[c - left], row);
      for (int64_t k = row.first_share.back(); k < row.shares.size(); ++k) {
        row.shares[k].weight = share_[row.shares[k].of];
        share_[row.shares[k].of] = 0.f;
      }
      row.first_share.push_back(static_cast<int32_t>(row.shares.size()));
    }
  }

  void share(int32_t rank, float weight, Row& row) {
    if (rank >= share_.size()) share_.resize(rank + 1);
    if (share_[rank] == 0.f) row.shares.push_back({rank, 0.f});
    share_[rank] += weight;
  }

  // The entries that each column of the result is the sum of, for this row.
  void find_terms(Row& row) const {
    const bool mixed = !row.shares.empty();
    const int32_t *ranks = row.rank.data(), *ends = row.end.data();
    row.first.resize(s_.out_width + 1), row.terms.resize(s_.out_width * s_.side);
    row.first_part.resize(mixed ? s_.out_width + 1 : 0), row.parts.clear();
    int32_t* term = row.terms.data();
    const auto begin_column = [&](int64_t x) {
      row.first[x] = static_cast<int32_t>(term - row.terms.data());
      if (mixed) row.first_part[x] = static_cast<int32_t>(row.parts.size());
    };
    for (int64_t x = 0; x < s_.out_width; ++x) {
      begin_column(x);
      const int64_t left = x * s_.stride, right = left + s_.side;
      for (int64_t p = left, last; p < right; p = last) {
        last = smaller(ends[p], right);
        const int32_t rank = ranks[p];
        if (rank < 0)
          for (int32_t k = row.first_share[-1 - rank]; k < row.first_share[-rank]; ++k)
            row.parts.push_back({s_.place(row.shares[k].of, s_.tap(p - left)), row.shares[k].weight});
        else if (p == left)
          *term++ = s_.place(rank, s_.prefix(last - left));
        else if (last == right)
          *term++ = s_.place(rank, s_.suffix(p - left));
        else
          for (int64_t j = p; j < last; ++j) *term++ = s_.place(rank, s_.tap(j - left));
      }
    }
    begin_column(s_.out_width);
  }

  const Shape& s_;
  const int32_t* codes_;  // of the image
  Ranks& ranks_;
  const float *weights_y_, *weights_x_;
  int64_t span_ = 1, step_ = 1, before_ = 0;
  // The codes of the columns of a span, -1 where they differ, and the ends of their runs.
  Array<int32_t> agreed_, agreed_end_;
  Array<float> share_;  // of each rank in the pixel at hand
};

// The rows under the kernel, for one row of the result at a time.
class Window {
 public:
  Window(const Shape& s, RowReader&& reader, int64_t first)
      : s_(s),
        reader_(static_cast<RowReader&&>(reader)),
        next_(first * s.stride),
        rows_(s.side),
        rank_(s.out_width, -1),
        height_(s.out_width, 0) {}

  // Move on to row y of the result.
  void move_to(int64_t y) {
    y_ = y;
    for (next_ = larger(next_, y * s_.stride); next_ < y * s_.stride + s_.side; ++next_) {
      Row& row = rows_[next_ % s_.side];
      reader_.read(next_, row);
      const int32_t side = static_cast<int32_t>(s_.side);
      const int32_t *ranks = row.rank.data(), *ends = row.end.data();
      int32_t* HD_RESTRICT rank = rank_.data();
      int32_t* HD_RESTRICT height = height_.data();
      for (int64_t x = 0; x < s_.out_width; ++x) {
        const int64_t left = x * s_.stride;
        const int32_t found = ends[left] - static_cast<int32_t>(left) >= side ? ranks[left] : -1;
        height[x] = found < 0 ? 0 : found == rank[x] ? height[x] + 1 : 1;
        rank[x] = found;
      }
    }
  }

  // The rank of all pixels under the kernel at column x, or -1.
  int32_t uniform(int64_t x) const { return height_[x] >= s_.side ? rank_[x] : -1; }

  // The end of the columns that have the same from x on.
  int64_t same_until(int64_t x) const {
    const int32_t rank = uniform(x);
    int64_t end = x + 1;
    while (end < s_.out_width && uniform(end) == rank) ++end;
    return end;
  }

  // Call fn(row of the table) for what row i under the kernel adds to the result at column x, and fn(row, weight) for
  // shares.
  template <typename F>
  HD_INLINE void for_terms(int64_t i, int64_t x, const F& fn) const {
    const Row& row = row_at(i);
    const int64_t base = i * s_.entries;
    for (int32_t k = row.first[x]; k < row.first[x + 1]; ++k) fn(base + row.terms[k]);
    if (row.first_part.empty()) return;
    for (int32_t k = row.first_part[x]; k < row.first_part[x + 1]; ++k) fn(base + row.parts[k].of, row.parts[k].weight);
  }

  // Whether that is one whole sum, and the same as at the column before.
  bool same_terms(int64_t i, int64_t x) const {
    const Row& row = row_at(i);
    const int32_t k = row.first[x];
    if (k != row.first[x - 1] + 1 || k != row.first[x + 1] - 1 || row.terms[k] != row.terms[k - 1]) return false;
    return row.first_part.empty() || row.first_part[x - 1] == row.first_part[x + 1];
  }

 private:
  const Row& row_at(int64_t i) const { return rows_[(y_ * s_.stride + i) % s_.side]; }

  const Shape& s_;
  RowReader reader_;
  int64_t y_ = 0, next_;  // of the result; the padded row that is read next
  Array<Row> rows_;
  Array<int32_t> rank_, height_;  // of each column: the rank of the last rows, and how many have it
};

}  // namespace
}  // namespace hd::cpu
