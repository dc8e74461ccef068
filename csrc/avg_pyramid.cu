// The kernels of avg_pyramid.cuh's tiles. A block walks down a tile, one row of the half level after the other.
#include "avg_pyramid.cuh"

namespace hd::cuda {
namespace {

// Add up three rows of the image, to shared memory. The last one becomes the first of the next three.
template <typename T, int N, int P>
__device__ __forceinline__ void add_rows(Loaded<T, N> (&last)[P], const Loaded<T, N> (&upper)[P],
                                         const Loaded<T, N> (&lower)[P], float* sums) {
#pragma unroll
  for (int p = 0; p < P; ++p) {
    Pack<float, N> sum;
#pragma unroll
    for (int k = 0; k < N; ++k) sum.at[k] = last[p].at(k) + upper[p].at(k) + lower[p].at(k);
    store_pack(sums + own<N, P>(p), sum);
    last[p] = lower[p];
  }
}

// A row of the half level, to shared memory, and the sums of the last three of its rows where an odd one completes
// them. `above` is what this thread has of such sums.
template <typename T, int M>
__device__ __forceinline__ void make_half(const Windows<M>& windows, const Planes& in, const Divisor& tile_channels,
                                          const float* sums, int row, float (&above)[M], T* means, float* half_sums) {
  const int channels = opaque(tile_channels), narrow = opaque(windows.narrow);
  const Scale scale = scale_of(row, in);
  float mean[M] = {};
  if (row < halved(in.height))
#pragma unroll
    for (int i = 0; i < M; ++i) mean[i] = window_sum(sums + windows.begin[i], channels) * scale.of(narrow, i);
#pragma unroll
  for (int i = 0; i < M; ++i) {
    means[own<1, M>(i)] = from_float<T>(mean[i]);
    above[i] += mean[i];
    if (row % 2 == 0) continue;
    half_sums[own<1, M>(i)] = above[i];
    above[i] = mean[i];
  }
}

template <int N, typename T, int P>
__device__ __forceinline__ void store_half(T* half_row, const T* means, const int (&targets)[P]) {
#pragma unroll
  for (int p = 0; p < P; ++p)
    if (targets[p] >= 0) store_pack(half_row + targets[p], load_pack<N>(means + own<N, P>(p)));
}

template <typename T, int M>
__device__ __forceinline__ void store_quarter(T* quarter_row, const float* half_sums, const Windows<M>& windows,
                                              const Scale& scale, const Divisor& tile_channels,
                                              const int (&targets)[M]) {
  const int channels = opaque(tile_channels), narrow = opaque(windows.narrow);
#pragma unroll
  for (int i = 0; i < M; ++i) {
    const float sum = window_sum(half_sums + windows.begin[i], channels);
    if (targets[i] >= 0) quarter_row[targets[i]] = from_float<T>(sum * scale.of(narrow, i));
  }
}

template <typename A>
__global__ void __launch_bounds__(kThreads, A::kBlocks)
    avg_pyramid_fwd_kernel(const typename A::T* __restrict__ x,  // [B, C, H, W]
                           typename A::T* __restrict__ half,     // [B, C, ceil(H/2), ceil(W/2)]
                           typename A::T* __restrict__ quarter,  // [B, C, ceil(H/4), ceil(W/4)] or null
                           Planes in, Tile tile) {
  using T = typename A::T;
  constexpr int N = A::kPack, P = A::kPacks;
  const Place place = find_place(in, tile);
  const Planes mid = halved(in), out = halved(mid);
  x = plane_of(x, in, place), half = plane_of(half, mid, place), quarter = plane_of(quarter, out, place);
  const int cell = place.cell, cells = tile.cells;
  HD_SHARED(float, sums);                                                // of three rows of the image
  float* half_sums = sums + block_size() * A::kRow;                      // of three rows of the half level
  T* means = reinterpret_cast<T*>(half_sums + block_size() * A::kHalf);  // a row of the half level

  int offsets[P], half_targets[P / 2], quarter_targets[A::kQuarter];
  locate_all<N>(in, tile, place, {4 * cell - 3, 4 * cells + 3, tile.row_lead, tile.row}, offsets);
  locate_all<N>(mid, tile, place, {2 * cell, 2 * cells, tile.half_lead + tile.channels, tile.half}, half_targets);
  locate_all<1>(out, tile, place, {cell, cells, 0, tile.quarter}, quarter_targets);
  const Windows<A::kHalf> windows(in, tile, {2 * cell - 1, 2 * cells + 1, tile.half_lead, tile.half}, tile.row_lead,
                                  tile.row);
  const Windows<A::kQuarter> quarter_windows(mid, tile, {cell, cells, 0, tile.quarter}, tile.half_lead, tile.half);
  const int first = max(2 * place.top - 1, 0), end = 2 * place.bottom;
  float above[A::kHalf] = {};  // of the rows of the half level that the next row of the quarter level needs
  Loaded<T, N> last[P], upper[P], lower[P];
  load_row(x, in, 2 * first - 1, offsets, last);
  load_row(x, in, 2 * first, offsets, upper);
  load_row(x, in, 2 * first + 1, offsets, lower);
#pragma unroll 1
  for (int row = first; row < end; ++row) {
    add_rows(last, upper, lower, sums);
    const int next = row + 1 < end ? 2 * row + 2 : in.height;
    load_row(x, in, next, offsets, upper);
    load_row(x, in, next + 1, offsets, lower);
    __syncthreads();
    make_half(windows, in, tile.channels, sums, row, above, means, half_sums);
    __syncthreads();
    if (row < 2 * place.top) continue;
    if (row < mid.height) store_half<N>(half + static_cast<int64_t>(row) * mid.width * mid.pixel, means, half_targets);
    if (row % 2 == 1 && quarter != nullptr)
      store_quarter(quarter + static_cast<int64_t>(row / 2) * out.width * out.pixel, half_sums, quarter_windows,
                    scale_of(row / 2, mid), tile.channels, quarter_targets);
  }
}

// The shares of this thread's windows of a row of the half level, to shared memory. `quarter` is what they get of the
// quarter level's row above, and `below` what they get of the row below, where they lie in windows of two rows.
template <typename T, int N, int P, int M>
__device__ __forceinline__ void share_half(const Loaded<T, N> (&given)[P], float (&quarter)[M], const float* below,
                                           const Scale& scale, int narrow, const int (&offsets)[P], bool exists,
                                           float* shares) {
#pragma unroll
  for (int p = 0; p < P; ++p) {
    Pack<float, N> share{};
    float sum[N];
#pragma unroll
    for (int k = 0; k < N; ++k) sum[k] = given[p].at(k) + quarter[N * p + k];
    if (below != nullptr) {
      const Pack<float, N> fresh = load_pack<N>(below + own<N, P>(p));
#pragma unroll
      for (int k = 0; k < N; ++k) {
        sum[k] += fresh.at[k];
        quarter[N * p + k] = fresh.at[k];
      }
    }
    if (exists && offsets[p] >= 0)
#pragma unroll
      for (int k = 0; k < N; ++k) share.at[k] = sum[k] * scale.of(narrow, N * p + k);
    store_pack(shares + own<N, P>(p), share);
  }
}

// Store two rows of dx, of which a null one is left out: the odd one gets the sums of two rows of the half level, and
// the even one below it those of the second of them.
template <int N, typename T, int P, int M>
__device__ __forceinline__ void store_rows(T* odd, T* even, const float* row_sums, const int (&targets)[P],
                                           float (&above)[M]) {
#pragma unroll
  for (int p = 0; p < P; ++p) {
    const Pack<float, N> sums = load_pack<N>(row_sums + own<N, P>(p));
    Pack<T, N> both, single;
#pragma unroll
    for (int k = 0; k < N; ++k) {
      both.at[k] = from_float<T>(above[N * p + k] + sums.at[k]);
      single.at[k] = from_float<T>(sums.at[k]);
      above[N * p + k] = sums.at[k];
    }
    if (targets[p] < 0) continue;
    if (odd != nullptr) store_pack(odd + targets[p], both);
    if (even != nullptr) store_pack(even + targets[p], single);
  }
}

template <typename A>
__global__ void __launch_bounds__(kThreads, A::kBlocks)
    avg_pyramid_bwd_kernel(const typename A::T* __restrict__ dhalf,     // [B, C, ceil(H/2), ceil(W/2)] or null
                           const typename A::T* __restrict__ dquarter,  // [B, C, ceil(H/4), ceil(W/4)] or null
                           typename A::T* __restrict__ dx,              // [B, C, H, W]
                           Planes in, Tile tile) {
  using T = typename A::T;
  constexpr int N = A::kPack, P = A::kPacks;
  const Place place = find_place(in, tile);
  const Planes mid = halved(in), out = halved(mid);
  dx = plane_of(dx, in, place), dhalf = plane_of(dhalf, mid, place), dquarter = plane_of(dquarter, out, place);
  const int cell = place.cell, cells = tile.cells;
  HD_SHARED(float, row_sums);                           // of the half level's shares, along a row of the image
  float* shares = row_sums + block_size() * A::kRow;    // of the half level's windows
  float* half_sums = shares + block_size() * A::kHalf;  // of the quarter level's shares, along a row of the half level
  float* quarter_shares = half_sums + block_size() * A::kHalf;

  int targets[P], offsets[P / 2], quarter_offsets[A::kQuarter];
  locate_all<N>(in, tile, place, {4 * cell, 4 * cells, 0, tile.row}, targets);
  locate_all<N>(mid, tile, place, {2 * cell, 2 * cells + 1, 0, tile.half}, offsets);
  locate_all<1>(out, tile, place, {cell, cells + 1, 0, tile.quarter}, quarter_offsets);
  const Shares<A::kHalf> spread(tile, 2 * cells + 1, tile.half, tile.row);
  const Shares<A::kQuarter> quarter_spread(tile, cells + 1, tile.quarter, tile.half);
  const unsigned narrow = narrow_ones<N, P / 2>(in, tile, 2 * cell, tile.half);
  const unsigned quarter_narrow = narrow_ones<1, A::kQuarter>(mid, tile, cell, tile.quarter);

  float above[A::kRow] = {};     // sums along the image's row before
  float quarter[A::kHalf] = {};  // of the quarter level's row before, along a row of the half level
  Loaded<T, N> given[P / 2];
  Loaded<T, 1> quarter_given[A::kQuarter];
  load_row(dhalf, mid, 2 * place.top, offsets, given);
  load_row(dquarter, out, place.top, quarter_offsets, quarter_given);
  const auto next_quarter = [&](int row) {  // its shares to shared memory
    const Scale scale = scale_of(row, mid);
#pragma unroll
    for (int i = 0; i < A::kQuarter; ++i)
      quarter_shares[own<1, A::kQuarter>(i)] = quarter_given[i].at(0) * scale.of(quarter_narrow, i);
    load_row(dquarter, out, row < place.bottom ? row + 1 : out.height, quarter_offsets, quarter_given);
  };
  if (dquarter != nullptr) {
    next_quarter(place.top);
    __syncthreads();
    quarter_spread.spread(quarter_shares, half_sums, tile.channels);
    __syncthreads();
#pragma unroll
    for (int i = 0; i < A::kHalf; ++i) quarter[i] = half_sums[own<N, P / 2>(i / N) + i % N];
  }
#pragma unroll 1
  for (int row = 2 * place.top; row <= 2 * place.bottom; ++row) {
    const int channels = opaque(tile.channels);
    const bool more = row < 2 * place.bottom, begins = more && row % 2 == 0 && dquarter != nullptr;
    share_half(given, quarter, row % 2 == 1 && dquarter != nullptr ? half_sums : nullptr, scale_of(row, in),
               opaque(narrow), offsets, row < mid.height, shares);
    load_row(dhalf, mid, more ? row + 1 : mid.height, offsets, given);
    if (begins) next_quarter(row / 2 + 1);
    __syncthreads();
    spread.spread(shares, row_sums, channels);
    if (begins) quarter_spread.spread(quarter_shares, half_sums, channels);
    __syncthreads();
    const int64_t stride = static_cast<int64_t>(in.width) * in.pixel;
    T* even = dx + 2 * row * stride;
    store_rows<N>(row > 2 * place.top && 2 * row - 1 < in.height ? even - stride : nullptr,
                  more && 2 * row < in.height ? even : nullptr, row_sums, targets, above);
  }
}

// Call fn(Access, Planes, Tile, blocks, threads) with what suits an image and its two levels, or their gradients.
template <typename F>
void with_access(const Tensor& x, const Tensor& half, const F& fn) {
  const bool last = is_channels_last(x);
  if ((x.shape[3] + 4) * (last ? x.shape[1] : 1) > INT32_MAX - kThreads * 16)  // a tile may end beyond its row
    throw Error("avg_pyramid: expected rows of less than 2^31 elements");
  const int64_t pixel = last ? x.shape[1] : 1, count = last ? x.shape[0] : x.shape[0] * x.shape[1];
  const Planes in{count, static_cast<int>(x.shape[2]), static_cast<int>(x.shape[3]), static_cast<int>(pixel)};
  with_floating(x.dtype, [&](auto type) {
    using T = decltype(type);
    const auto call = [&](auto access) {
      using A = decltype(access);
      const Tile tile = tiles_of(in, A::kPack, A::kRow);
      const int64_t blocks = ceil_div(count, tile.planes) * tile.bands * tile.slices * tile.across;
      fn(access, in, tile, blocks, static_cast<int>(32 * ceil_div(tile.planes * tile.row, 32 * A::kRow)));
    };
    constexpr int N = 16 / sizeof(T);
    const bool whole = in.width * pixel % N == 0 && halved(in.width) * pixel % N == 0;
    if (whole && (pixel <= kMostChannels || pixel % N == 0) && is_aligned(x, 16) && is_aligned(half, 16))
      call(Access<T, N>{});
    else
      call(Access<T, 1>{});
  });
}

}  // namespace

void avg_pyramid_fwd(Tensor x, Tensor half, Tensor quarter, uintptr_t stream) {
  with_access(x, half, [&](auto access, const Planes& in, const Tile& tile, int64_t blocks, int threads) {
    using A = decltype(access);
    using T = typename A::T;
    const size_t shared = threads * ((A::kRow + A::kHalf) * sizeof(float) + A::kHalf * sizeof(T));
    HD_LAUNCH(avg_pyramid_fwd_kernel<A>, blocks, threads, shared, stream, x.as<const T>(), half.as<T>(),
              quarter.as<T>(), in, tile);
  });
}

void avg_pyramid_bwd(Tensor dhalf, Tensor dquarter, Tensor dx, uintptr_t stream) {
  with_access(dx, dhalf, [&](auto access, const Planes& in, const Tile& tile, int64_t blocks, int threads) {
    using A = decltype(access);
    using T = typename A::T;
    const size_t floats = threads * (2 * A::kRow + A::kQuarter) + tile.channels;
    HD_LAUNCH(avg_pyramid_bwd_kernel<A>, blocks, threads, floats * sizeof(float), stream, dhalf.as<const T>(),
              dquarter.as<const T>(), dx.as<T>(), in, tile);
  });
}

}  // namespace hd::cuda
