// A cell is a pixel of the quarter level: 2x2 pixels of the half level and 4x4 of the image. A thread takes a few
// adjacent cells of a contiguous image, or a few channels of one cell of a channels_last image, and walks down, so that
// it reads each row once. What a row of cells shares with the next one stays in registers. Adjacent cells of a
// contiguous image share sums by shuffles: a warp overlaps its neighbour by one lane, which computes but does not
// write. Contiguous images whose rows are no multiple of 16 bytes are treated like channels_last images of one channel.
//
// As in avg_pyramid.cpp, both layouts are planes of height x width pixels of `pixel` adjacent elements.
#include "cuda.cuh"

namespace hd::cuda {
namespace {

constexpr int kWarps = 4;  // of a block
constexpr int kBand = 8;   // rows of cells that a thread walks down

struct Planes {
  int64_t count;
  int height, width, pixel;
};

// A thread's share: S adjacent cells of V adjacent channels. Planar ones are contiguous along the row.
template <typename Type, int kCells, int kChannels, bool kIsPlanar>
struct Layout {
  using T = Type;
  static constexpr int S = kCells, V = kChannels;
  static constexpr bool kPlanar = kIsPlanar;
};

// One number for each channel of N columns of a level.
template <typename L, int N>
struct Columns {
  float at[N][L::V];

  __device__ __forceinline__ Columns operator+(const Columns& other) const {
    Columns sum;
#pragma unroll
    for (int k = 0; k < N; ++k)
#pragma unroll
      for (int v = 0; v < L::V; ++v) sum.at[k][v] = at[k][v] + other.at[k][v];
    return sum;
  }
};

// Numbers of the half level: of the columns of the cells, and of one column beside them.
template <typename L>
using Sums = Columns<L, 2 * L::S + 1>;

struct Place {
  int64_t plane;
  int cell, channel;  // the first ones
  int top, bottom;    // rows of cells
  bool writes;
};

__host__ __device__ __forceinline__ int halved(int size) { return (size + 1) / 2; }

// Pixels of the window at output position o that lie in [0, size); 1 where there is no such window.
__device__ __forceinline__ float inside(int o, int size) {
  return static_cast<float>(max(min(2 * o + 2, size) - max(2 * o - 1, 0), 1));
}

// N elements of a row from `first` on, which all lie inside [0, end) or all outside, where they are 0.
template <int N, typename T>
__device__ __forceinline__ Pack<T, N> load_inside(const T* row, int first, int end) {
  return first >= 0 && first < end ? load_pack<N>(row + first) : Pack<T, N>{};
}

template <int N, typename T>
__device__ __forceinline__ void store_inside(T* row, int first, int end, const float (&values)[N]) {
  if (first >= end) return;
  Pack<T, N> pack;
#pragma unroll
  for (int i = 0; i < N; ++i) pack.at[i] = from_float<T>(values[i]);
  store_pack<N>(row + first, pack);
}

// Find what this thread works on. The result is false if there is nothing for its whole warp. `idle` is the lane that
// overlaps.
template <typename L>
__device__ __forceinline__ bool find_place(const Planes& in, int groups, int bands, int idle, Place& place) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int64_t task = static_cast<int64_t>(blockIdx.x) * kWarps + threadIdx.x / 32;
  const int group = static_cast<int>(task % groups), band = static_cast<int>(task / groups % bands);
  place.plane = task / groups / bands;
  place.top = band * kBand;
  place.bottom = min(place.top + kBand, halved(halved(in.height)));
  if (L::kPlanar) {
    place.cell = L::S * (group * 31 + lane - (idle == 0 ? 1 : 0));
    place.channel = 0;
    place.writes = lane != idle;
  } else {
    const int packs = in.pixel / L::V, n = group * 32 + lane;
    place.cell = n / packs;
    place.channel = n % packs * L::V;
    place.writes = place.cell < halved(halved(in.width));
  }
  return place.plane < in.count;
}

// Sums of a row of the image in the windows of half-level columns 2 cell - 1 ... 2 (cell + S) - 1.
template <typename L>
__device__ __forceinline__ Sums<L> row_sums(const typename L::T* x, const Planes& in, int row, const Place& place) {
  using T = typename L::T;
  constexpr int S = L::S, V = L::V;
  const bool exists = row >= 0 && row < in.height;
  const int stride = in.width * in.pixel, end = exists ? stride : 0;
  const T* source = x + (exists ? static_cast<int64_t>(row) * stride : 0);
  Sums<L> sums;
  if constexpr (L::kPlanar) {
    const Pack<T, 4 * S> pack = load_inside<4 * S>(source, 4 * place.cell, end);
    float left = __shfl_up_sync(0xffffffffu, to_float(pack.at[4 * S - 1]), 1);
#pragma unroll
    for (int k = 0; k < 2 * S; ++k) {
      const float right = to_float(pack.at[2 * k + 1]);
      sums.at[k + 1][0] = left + to_float(pack.at[2 * k]) + right;
      left = right;
    }
    sums.at[0][0] = __shfl_up_sync(0xffffffffu, sums.at[2 * S][0], 1);
  } else {
    Pack<T, V> packs[7];
#pragma unroll
    for (int k = 0; k < 7; ++k)
      packs[k] = load_inside<V>(source, (4 * place.cell - 3 + k) * in.pixel + place.channel, end);
#pragma unroll
    for (int k = 0; k < 3; ++k)
#pragma unroll
      for (int c = 0; c < V; ++c)
        sums.at[k][c] =
            to_float(packs[2 * k].at[c]) + to_float(packs[2 * k + 1].at[c]) + to_float(packs[2 * k + 2].at[c]);
  }
  return sums;
}

// A row of the half level, made from the sums of its three rows. It is 0 outside of the level.
template <typename L>
__device__ __forceinline__ Sums<L> means(const Sums<L>& a, const Sums<L>& b, const Sums<L>& c, const Planes& in,
                                         int row, int cell) {
  Sums<L> result;
  const float rows = inside(row, in.height);
#pragma unroll
  for (int k = 0; k < 2 * L::S + 1; ++k) {
    const int column = 2 * cell - 1 + k;
    const bool exists = row < halved(in.height) && column < halved(in.width);
    const float count = rows * inside(column, in.width);
#pragma unroll
    for (int v = 0; v < L::V; ++v) result.at[k][v] = exists ? (a.at[k][v] + b.at[k][v] + c.at[k][v]) / count : 0.f;
  }
  return result;
}

template <typename L>
__device__ __forceinline__ void store_half(typename L::T* half, const Planes& in, int row, const Place& place,
                                           const Sums<L>& values) {
  if (row >= halved(in.height)) return;
  const int end = halved(in.width) * in.pixel;
  half += static_cast<int64_t>(row) * end;
  if constexpr (L::kPlanar) {
    float own[2 * L::S];
#pragma unroll
    for (int k = 0; k < 2 * L::S; ++k) own[k] = values.at[k + 1][0];
    store_inside(half, 2 * place.cell, end, own);
  } else {
#pragma unroll
    for (int k = 0; k < 2; ++k)
      store_inside(half, (2 * place.cell + k) * in.pixel + place.channel, end, values.at[k + 1]);
  }
}

template <typename L>
__device__ __forceinline__ void store_quarter(typename L::T* quarter, const Planes& half, int row, const Place& place,
                                              const Sums<L>& a, const Sums<L>& b, const Sums<L>& c) {
  float values[L::S * L::V];
#pragma unroll
  for (int s = 0; s < L::S; ++s) {
    const float count = inside(row, half.height) * inside(place.cell + s, half.width);
#pragma unroll
    for (int v = 0; v < L::V; ++v) {
      float sum = 0.f;
#pragma unroll
      for (int k = 2 * s; k < 2 * s + 3; ++k) sum += a.at[k][v] + b.at[k][v] + c.at[k][v];
      values[s * L::V + v] = sum / count;
    }
  }
  const int end = halved(half.width) * half.pixel;
  store_inside(quarter + static_cast<int64_t>(row) * end, place.cell * half.pixel + place.channel, end, values);
}

template <typename L>
__global__ void __launch_bounds__(32 * kWarps, 4)
    avg_pyramid_fwd_kernel(const typename L::T* __restrict__ x,  // [B, C, H, W]
                           typename L::T* __restrict__ half,     // [B, C, ceil(H/2), ceil(W/2)]
                           typename L::T* __restrict__ quarter,  // [B, C, ceil(H/4), ceil(W/4)] or null
                           Planes in, int groups, int bands) {
  Place place;
  if (!find_place<L>(in, groups, bands, 0, place)) return;
  const Planes mid{in.count, halved(in.height), halved(in.width), in.pixel};
  x += place.plane * in.height * in.width * in.pixel;
  half += place.plane * mid.height * mid.width * in.pixel;
  if (quarter != nullptr) quarter += place.plane * halved(mid.height) * halved(mid.width) * in.pixel;

  Sums<L> above{},
      last{};  // the half level's row and the image's row above these cells; one row of cells ahead makes them
  for (int q = place.top - 1; q < place.bottom; ++q) {
    const Sums<L> a = row_sums<L>(x, in, 4 * q, place);
    const Sums<L> b = row_sums<L>(x, in, 4 * q + 1, place);
    const Sums<L> c = row_sums<L>(x, in, 4 * q + 2, place);
    const Sums<L> d = row_sums<L>(x, in, 4 * q + 3, place);
    const Sums<L> upper = means<L>(last, a, b, in, 2 * q, place.cell);
    const Sums<L> lower = means<L>(b, c, d, in, 2 * q + 1, place.cell);
    if (place.writes && q >= place.top) {
      store_half<L>(half, in, 2 * q, place, upper);
      store_half<L>(half, in, 2 * q + 1, place, lower);
      if (quarter != nullptr) store_quarter<L>(quarter, mid, q, place, above, upper, lower);
    }
    above = lower;
    last = d;
  }
}

// What each pixel in the windows of the quarter level's columns cell ... cell + S gets of their gradient.
template <typename L>
using Shares = Columns<L, L::S + 1>;

template <typename L>
__device__ __forceinline__ Shares<L> shares(const typename L::T* dquarter, const Planes& half, int row,
                                            const Place& place) {
  using T = typename L::T;
  Shares<L> result{};
  if (dquarter == nullptr) return result;
  const bool exists = row < halved(half.height);
  const int stride = halved(half.width) * half.pixel, end = exists ? stride : 0;
  const T* source = dquarter + (exists ? static_cast<int64_t>(row) * stride : 0);
  const float rows = inside(row, half.height);
  if constexpr (L::kPlanar) {
    const Pack<T, L::S> pack = load_inside<L::S>(source, place.cell, end);
#pragma unroll
    for (int s = 0; s < L::S; ++s) result.at[s][0] = to_float(pack.at[s]) / (rows * inside(place.cell + s, half.width));
    result.at[L::S][0] = __shfl_down_sync(0xffffffffu, result.at[0][0], 1);
  } else {
#pragma unroll
    for (int s = 0; s < 2; ++s) {
      const auto pack = load_inside<L::V>(source, (place.cell + s) * half.pixel + place.channel, end);
#pragma unroll
      for (int v = 0; v < L::V; ++v)
        result.at[s][v] = to_float(pack.at[v]) / (rows * inside(place.cell + s, half.width));
    }
  }
  return result;
}

// What each pixel in the windows of half-level columns 2 cell ... 2 (cell + S) of a row gets of their gradient, to
// which the quarter level adds `above`, the sum of the shares of the row's quarter-level pixels.
template <typename L>
__device__ __forceinline__ Sums<L> half_shares(const typename L::T* dhalf, const Shares<L>& above, const Planes& in,
                                               int row, const Place& place) {
  using T = typename L::T;
  constexpr int S = L::S, V = L::V, kOwn = L::kPlanar ? 2 * S : 2 * S + 1;
  const bool exists = row < halved(in.height), given = exists && dhalf != nullptr;
  const int columns = exists ? halved(in.width) : 0, end = given ? columns * in.pixel : 0;
  const T* source = dhalf + static_cast<int64_t>(given ? row : 0) * end;
  const float rows = inside(row, in.height);
  Sums<L> result;
#pragma unroll
  for (int k = 0; k < kOwn; ++k)
#pragma unroll
    for (int v = 0; v < V; ++v) result.at[k][v] = above.at[k / 2][v] + (k % 2 == 1 ? above.at[k / 2 + 1][v] : 0.f);
  if constexpr (L::kPlanar) {
    const Pack<T, kOwn> pack = load_inside<kOwn>(source, 2 * place.cell, end);
#pragma unroll
    for (int k = 0; k < kOwn; ++k) result.at[k][0] += to_float(pack.at[k]);
  } else {
#pragma unroll
    for (int k = 0; k < kOwn; ++k) {
      const auto pack = load_inside<V>(source, (2 * place.cell + k) * in.pixel + place.channel, end);
#pragma unroll
      for (int v = 0; v < V; ++v) result.at[k][v] += to_float(pack.at[v]);
    }
  }
#pragma unroll
  for (int k = 0; k < kOwn; ++k) {
    const int column = 2 * place.cell + k;
    const float count = rows * inside(column, in.width);
#pragma unroll
    for (int v = 0; v < V; ++v) result.at[k][v] = column < columns ? result.at[k][v] / count : 0.f;
  }
  if constexpr (L::kPlanar) result.at[2 * S][0] = __shfl_down_sync(0xffffffffu, result.at[0][0], 1);
  return result;
}

// A row of dx from the shares of the half level's rows that its pixels lie in.
template <typename L>
__device__ __forceinline__ void store_row(typename L::T* dx, const Planes& in, int row, const Place& place,
                                          const Sums<L>& a) {
  if (!place.writes || row >= in.height) return;
  constexpr int S = L::S, V = L::V;
  const int end = in.width * in.pixel;
  dx += static_cast<int64_t>(row) * end;
  float values[4 * S][V];
#pragma unroll
  for (int k = 0; k < 2 * S; ++k)
#pragma unroll
    for (int v = 0; v < V; ++v) {
      values[2 * k][v] = a.at[k][v];
      values[2 * k + 1][v] = a.at[k][v] + a.at[k + 1][v];
    }
  if constexpr (L::kPlanar) {
    float flat[4 * S];
#pragma unroll
    for (int k = 0; k < 4 * S; ++k) flat[k] = values[k][0];
    store_inside(dx, 4 * place.cell, end, flat);
  } else {
#pragma unroll
    for (int k = 0; k < 4; ++k) store_inside(dx, (4 * place.cell + k) * in.pixel + place.channel, end, values[k]);
  }
}

template <typename L>
__global__ void __launch_bounds__(32 * kWarps, 4)
    avg_pyramid_bwd_kernel(const typename L::T* __restrict__ dhalf,     // [B, C, ceil(H/2), ceil(W/2)] or null
                           const typename L::T* __restrict__ dquarter,  // [B, C, ceil(H/4), ceil(W/4)] or null
                           typename L::T* __restrict__ dx,              // [B, C, H, W]
                           Planes in, int groups, int bands) {
  Place place;
  if (!find_place<L>(in, groups, bands, 31, place)) return;
  const Planes mid{in.count, halved(in.height), halved(in.width), in.pixel};
  dx += place.plane * in.height * in.width * in.pixel;
  if (dhalf != nullptr) dhalf += place.plane * mid.height * mid.width * in.pixel;
  if (dquarter != nullptr) dquarter += place.plane * halved(mid.height) * halved(mid.width) * in.pixel;

  Shares<L> upper = shares<L>(dquarter, mid, place.top, place);
  Sums<L> top = half_shares<L>(dhalf, upper, in, 2 * place.top, place);
  for (int q = place.top; q < place.bottom; ++q) {
    const Shares<L> lower = shares<L>(dquarter, mid, q + 1, place);
    const Sums<L> middle = half_shares<L>(dhalf, upper + lower, in, 2 * q + 1, place);
    const Sums<L> bottom = half_shares<L>(dhalf, lower, in, 2 * q + 2, place);
    store_row<L>(dx, in, 4 * q, place, top);
    store_row<L>(dx, in, 4 * q + 1, place, top + middle);
    store_row<L>(dx, in, 4 * q + 2, place, middle);
    store_row<L>(dx, in, 4 * q + 3, place, middle + bottom);
    upper = lower;
    top = bottom;
  }
}

// Call fn(Layout, Planes, groups, bands, blocks) with what suits an image and its two levels, or their gradients.
template <typename F>
void with_layout(const Tensor& x, const Tensor& half, const Tensor& quarter, const F& fn) {
  const bool channels_last = is_channels_last(x);
  if ((x.shape[3] + 4) * (channels_last ? x.shape[1] : 1) > INT32_MAX)
    throw std::invalid_argument("avg_pyramid: expected rows of less than 2^31 elements");
  const int64_t pixel = channels_last ? x.shape[1] : 1, count = channels_last ? x.shape[0] : x.shape[0] * x.shape[1];
  const Planes in{count, static_cast<int>(x.shape[2]), static_cast<int>(x.shape[3]), static_cast<int>(pixel)};
  const int64_t cells = ceil_div(x.shape[3], 4), bands = ceil_div(ceil_div(x.shape[2], 4), kBand);
  with_floating(x.dtype, [&](auto type) {
    using T = decltype(type);
    constexpr int N = 4 / sizeof(T);  // cells or channels of a thread: accesses of 16 or of 4 bytes
    const auto call = [&](auto layout, int64_t groups) {
      fn(layout, in, static_cast<int>(groups), static_cast<int>(bands), ceil_div(count * bands * groups, kWarps));
    };
    const bool aligned = is_aligned(x, 16) && is_aligned(half, 8) && is_aligned(quarter, 4);
    if (aligned && !channels_last && in.width % (4 * N) == 0)
      return call(Layout<T, N, 1, true>{}, ceil_div(cells / N, 31));
    if constexpr (N > 1)
      if (aligned && pixel % N == 0) return call(Layout<T, 1, N, false>{}, ceil_div(cells * pixel / N, 32));
    call(Layout<T, 1, 1, false>{}, ceil_div(cells * pixel, 32));
  });
}

}  // namespace

void avg_pyramid_fwd(Tensor x, Tensor half, Tensor quarter, uintptr_t stream) {
  with_layout(x, half, quarter, [&](auto layout, const Planes& in, int groups, int bands, int64_t blocks) {
    using L = decltype(layout);
    using T = typename L::T;
    HD_LAUNCH(avg_pyramid_fwd_kernel<L>, blocks, 32 * kWarps, 0, stream, x.as<const T>(), half.as<T>(), quarter.as<T>(),
              in, groups, bands);
  });
}

void avg_pyramid_bwd(Tensor dhalf, Tensor dquarter, Tensor dx, uintptr_t stream) {
  with_layout(dx, dhalf, dquarter, [&](auto layout, const Planes& in, int groups, int bands, int64_t blocks) {
    using L = decltype(layout);
    using T = typename L::T;
    HD_LAUNCH(avg_pyramid_bwd_kernel<L>, blocks, 32 * kWarps, 0, stream, dhalf.as<const T>(), dquarter.as<const T>(),
              dx.as<T>(), in, groups, bands);
  });
}

}  // namespace hd::cuda
