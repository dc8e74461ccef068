// A row of a plane is one flat run of elements, whatever its format: a pixel of a channels_last image has C adjacent
// elements, one of a contiguous image has one. A block walks down a tile of adjacent cells, where a cell is a pixel of
// the quarter level, 2x2 pixels of the half level and 4x4 of the image. A thread has the same elements of every row of
// the image and moves them 16 bytes at a time. What is added down a column stays in its registers; what is added along
// a row goes through shared memory, where it does not matter that the neighbour of an element, C elements away, is not
// aligned like itself. Small planes share a block.
//
// Rows that are no multiple of 16 bytes are moved element by element.
#include <algorithm>

#include "cuda.cuh"

namespace hd::cuda {
namespace {

constexpr int kThreads = 256;      // of a block, at most
constexpr int kBand = 8;           // rows of cells that a block walks down
constexpr int kMostChannels = 112;  // of a tile; more are divided into slices
constexpr int kSlice = 64;

struct Planes {
  int64_t count;
  int height, width, pixel;  // pixel: its adjacent elements
};

struct Tile {
  int cells, channels, planes;  // of a block
  int across, slices, bands;    // tiles along a row of cells and along a pixel, and down a plane
  int row_lead, row;            // elements before the tile's part of a row in shared memory, and of one plane in all
  int half_lead, half;          // the same of the half level
};

// How a thread accesses the rows of an image.
template <typename Type, int N>
struct Access {
  using T = Type;
  static constexpr int kPack = N, kPacks = N == 1 ? 8 : 16 / N;     // elements of an access, accesses of a row
  static constexpr int kRow = kPack * kPacks, kHalf = kRow / 2;     // elements of a row, and of one of the half level
  static constexpr int kHalfPacks = kPacks / 2;
};

struct Place {
  int64_t plane;
  int planes, cell, channel;  // planes that there are, first cell and channel
  int top, bottom;            // rows of cells
};

// The columns from `first` on that a tile has of a row. In shared memory, each plane of the tile has `length` elements.
struct Segment {
  int first, lead, length;
};

template <typename A>
using Row = Pack<typename A::T, A::kPack>[A::kPacks];

__host__ __device__ __forceinline__ int halved(int size) { return (size + 1) / 2; }
__host__ __device__ __forceinline__ Planes halved(const Planes& in) {
  return {in.count, halved(in.height), halved(in.width), in.pixel};
}

// Pixels of the window at output position o that lie in [0, size); 1 where there is no such window.
__device__ __forceinline__ int inside(int o, int size) { return max(min(2 * o + 2, size) - max(2 * o - 1, 0), 1); }

// One over the pixels of the windows of an output row: of those inside, and of the first and last one if it is narrow.
struct Scale {
  float whole, narrow;
};

__device__ __forceinline__ Scale scale_of(int row, const Planes& in) {
  const int rows = inside(row, in.height);
  if (rows == 3) return {1.f / 9.f, in.width == 1 ? 1.f / 3.f : 1.f / 6.f};
  return {1.f / static_cast<float>(3 * rows), 1.f / static_cast<float>(in.width == 1 ? rows : 2 * rows)};
}

__device__ __forceinline__ Place find_place(const Planes& in, const Tile& tile) {
  unsigned task = blockIdx.x;
  Place place;
  place.cell = static_cast<int>(task % tile.across) * tile.cells;
  task /= tile.across;
  place.channel = static_cast<int>(task % tile.slices) * tile.channels;
  task /= tile.slices;
  place.top = static_cast<int>(task % tile.bands) * kBand;
  place.bottom = min(place.top + kBand, halved(halved(in.height)));
  place.plane = static_cast<int64_t>(task / tile.bands) * tile.planes;
  place.planes = static_cast<int>(min(static_cast<int64_t>(tile.planes), in.count - place.plane));
  return place;
}

// Where element `at` of a segment lies, counted from the row's begin in the first plane; -1 if there is no such element.
__device__ __forceinline__ int locate(const Planes& level, const Tile& tile, const Place& place, const Segment& segment,
                                      int at) {
  const int plane = at / segment.length, element = at - plane * segment.length - segment.lead;
  if (plane >= place.planes) return -1;
  const int stride = level.width * level.pixel;
  if (tile.channels == level.pixel) {
    const int flat = segment.first * level.pixel + element;
    return flat >= 0 && flat < stride ? plane * level.height * stride + flat : -1;
  }
  const int column = segment.first + element / tile.channels, channel = place.channel + element % tile.channels;
  return column >= 0 && column < level.width && channel < level.pixel ? column * level.pixel + channel : -1;
}

// Load a thread's part of a row, which is 0 outside of the level.
template <int N, int P, typename T>
__device__ __forceinline__ void load_row(const T* level, const Planes& in, int row, const int (&offsets)[P],
                                         Pack<T, N> (&out)[P]) {
  const bool exists = row >= 0 && row < in.height;
  const T* source = level + static_cast<int64_t>(exists ? row : 0) * in.width * in.pixel;
#pragma unroll
  for (int p = 0; p < P; ++p) out[p] = exists && offsets[p] >= 0 ? load_pack<N>(source + offsets[p]) : Pack<T, N>{};
}

// Write the quarter level's row q of a tile from the sums of three rows of the half level.
template <typename T>
__device__ __forceinline__ void store_quarter(T* quarter, const float* sums, const Planes& half, const Tile& tile,
                                              const Place& place, int q) {
  const Planes level = halved(half);
  const Scale scale = scale_of(q, half);
  const Segment segment{place.cell, 0, tile.cells * tile.channels};
  quarter += static_cast<int64_t>(q) * level.width * level.pixel;
  for (int o = static_cast<int>(threadIdx.x); o < place.planes * segment.length; o += static_cast<int>(blockDim.x)) {
    const int to = locate(level, tile, place, segment, o);
    if (to < 0) continue;
    const int plane = o / segment.length, element = o - plane * segment.length, column = element / tile.channels;
    const float* s = sums + plane * tile.half + tile.half_lead + element + column * tile.channels;
    const float sum = s[0] + s[tile.channels] + s[2 * tile.channels];
    quarter[to] = from_float<T>(sum * (inside(place.cell + column, half.width) < 3 ? scale.narrow : scale.whole));
  }
}

template <typename A>
__global__ void __launch_bounds__(kThreads, A::kPack == 4 ? 2 : 3)
    avg_pyramid_fwd_kernel(const typename A::T* __restrict__ x,  // [B, C, H, W]
                           typename A::T* __restrict__ half,     // [B, C, ceil(H/2), ceil(W/2)]
                           typename A::T* __restrict__ quarter,  // [B, C, ceil(H/4), ceil(W/4)] or null
                           Planes in, Tile tile) {
  using T = typename A::T;
  constexpr int N = A::kPack;
  const Place place = find_place(in, tile);
  const Planes mid = halved(in), out = halved(mid);
  x += place.plane * in.height * in.width * in.pixel;
  half += place.plane * mid.height * mid.width * in.pixel;
  if (quarter != nullptr) quarter += place.plane * out.height * out.width * in.pixel;
  const int thread = static_cast<int>(threadIdx.x), threads = static_cast<int>(blockDim.x), channels = tile.channels;
  HD_SHARED(float, sums);                             // of three rows of the image
  float* half_sums = sums + threads * A::kRow;        // of three rows of the half level, which are 0 outside of it
  T* means = reinterpret_cast<T*>(half_sums + tile.planes * tile.half);  // a row of the half level

  int offsets[A::kPacks], targets[A::kHalfPacks];
#pragma unroll
  for (int p = 0; p < A::kPacks; ++p)
    offsets[p] = locate(in, tile, place, {4 * place.cell - 3, tile.row_lead, tile.row}, N * (thread + threads * p));
#pragma unroll
  for (int p = 0; p < A::kHalfPacks; ++p) {
    const int at = N * (thread + threads * p), element = at % tile.half - tile.half_lead - channels;
    const bool own = element >= 0 && element < 2 * tile.cells * channels;
    targets[p] = own ? locate(mid, tile, place, {2 * place.cell - 1, tile.half_lead, tile.half}, at) : -1;
  }
  int windows[A::kHalf];  // where the windows of this thread's elements of the half level begin in `sums`
  unsigned narrow = 0;    // those that are narrow, one bit for each
#pragma unroll
  for (int i = 0; i < A::kHalf; ++i) {
    const int o = thread + threads * i, plane = o / tile.half, element = o - plane * tile.half - tile.half_lead;
    const int column = element / channels, h = 2 * place.cell - 1 + column;
    const bool exists = plane < place.planes && element >= 0 && column <= 2 * tile.cells && h >= 0 && h < mid.width;
    windows[i] = exists ? plane * tile.row + tile.row_lead + element + column * channels : -1;
    if (inside(h, in.width) < 3) narrow |= 1u << i;
  }
  for (int i = thread; i < tile.planes * tile.half; i += threads) half_sums[i] = 0.f;

  const int first = max(2 * place.top - 1, 0), end = 2 * place.bottom;
  float above[A::kHalf] = {};  // of the rows of the half level that the next row of the quarter level needs
  Row<A> last, upper, lower;
  load_row(x, in, 2 * first - 1, offsets, last);
  load_row(x, in, 2 * first, offsets, upper);
  load_row(x, in, 2 * first + 1, offsets, lower);
#pragma unroll 1
  for (int row = first; row < end; ++row) {
#pragma unroll
    for (int p = 0; p < A::kPacks; ++p) {
      Pack<float, N> sum;
#pragma unroll
      for (int k = 0; k < N; ++k)
        sum.at[k] = to_float(last[p].at[k]) + to_float(upper[p].at[k]) + to_float(lower[p].at[k]);
      store_pack(sums + N * (thread + threads * p), sum);
      last[p] = lower[p];
    }
    load_row(x, in, row + 1 < end ? 2 * row + 2 : -1, offsets, upper);
    load_row(x, in, row + 1 < end ? 2 * row + 3 : -1, offsets, lower);
    __syncthreads();
    const bool exists = row < mid.height, completes = row % 2 == 1;
    const Scale scale = scale_of(row, in);
#pragma unroll
    for (int i = 0; i < A::kHalf; ++i) {
      if (windows[i] < 0) continue;
      const float* s = sums + windows[i];
      const float sum = s[0] + s[channels] + s[2 * channels];
      const float mean = exists ? sum * ((narrow >> i & 1u) != 0 ? scale.narrow : scale.whole) : 0.f;
      means[thread + threads * i] = from_float<T>(mean);
      above[i] += mean;
      if (!completes) continue;
      half_sums[thread + threads * i] = above[i];
      above[i] = mean;
    }
    __syncthreads();
    if (row < 2 * place.top) continue;
    if (exists)
#pragma unroll
      for (int p = 0; p < A::kHalfPacks; ++p)
        if (targets[p] >= 0)
          store_pack(half + static_cast<int64_t>(row) * mid.width * mid.pixel + targets[p],
                     load_pack<N>(means + N * (thread + threads * p)));
    if (completes && quarter != nullptr) store_quarter(quarter, half_sums, mid, tile, place, row / 2);
  }
}

// What each pixel in the windows of a row q of the quarter level gets of their gradient, to shared memory.
template <typename T>
__device__ __forceinline__ void load_quarter(const T* dquarter, float* shares, const Planes& half, const Tile& tile,
                                             const Place& place, int q) {
  const Planes level = halved(half);
  const Scale scale = scale_of(q, half);
  const Segment segment{place.cell, 0, (tile.cells + 1) * tile.channels};
  const T* source = dquarter + static_cast<int64_t>(q) * level.width * level.pixel;
  for (int o = static_cast<int>(threadIdx.x); o < place.planes * segment.length; o += static_cast<int>(blockDim.x)) {
    const int from = q < level.height ? locate(level, tile, place, segment, o) : -1;
    const int column = place.cell + o % segment.length / tile.channels;
    const float share = inside(column, half.width) < 3 ? scale.narrow : scale.whole;
    shares[o] = from < 0 ? 0.f : to_float(source[from]) * share;
  }
}

// Add up along a row of the half level what its pixels get of the quarter level.
__device__ __forceinline__ void spread_quarter(const float* shares, float* to, const Tile& tile, const Place& place) {
  const int length = (tile.cells + 1) * tile.channels;
  for (int o = static_cast<int>(threadIdx.x); o < place.planes * length; o += static_cast<int>(blockDim.x)) {
    const int plane = o / length, element = o - plane * length, column = element / tile.channels;
    float* target = to + plane * tile.half + element + column * tile.channels;
    target[0] = shares[o];
    if (column < tile.cells) target[tile.channels] = shares[o] + shares[o + tile.channels];
  }
}

template <typename A>
__global__ void __launch_bounds__(kThreads, A::kPack == 4 ? 2 : 3)
    avg_pyramid_bwd_kernel(const typename A::T* __restrict__ dhalf,     // [B, C, ceil(H/2), ceil(W/2)] or null
                           const typename A::T* __restrict__ dquarter,  // [B, C, ceil(H/4), ceil(W/4)] or null
                           typename A::T* __restrict__ dx,              // [B, C, H, W]
                           Planes in, Tile tile) {
  using T = typename A::T;
  constexpr int N = A::kPack;
  const Place place = find_place(in, tile);
  const Planes mid = halved(in), out = halved(mid);
  dx += place.plane * in.height * in.width * in.pixel;
  if (dhalf != nullptr) dhalf += place.plane * mid.height * mid.width * in.pixel;
  if (dquarter != nullptr) dquarter += place.plane * out.height * out.width * in.pixel;
  const int thread = static_cast<int>(threadIdx.x), threads = static_cast<int>(blockDim.x), channels = tile.channels;
  const int length = 4 * tile.cells * channels + (N - 4 * tile.cells * channels % N) % N;
  HD_SHARED(float, row_sums);                                    // of a row of the half level, along a row of the image
  float* shares = row_sums + threads * A::kRow;                  // of the pixels in the windows of the half level
  float* quarter_sums = shares + threads * A::kHalf;             // along a row of the half level
  float* quarter_shares = quarter_sums + threads * A::kHalf;

  int offsets[A::kHalfPacks], targets[A::kPacks];
  unsigned narrow = 0;  // one bit for each element of the half level
#pragma unroll
  for (int p = 0; p < A::kPacks; ++p)
    targets[p] = locate(in, tile, place, {4 * place.cell, 0, length}, N * (thread + threads * p));
#pragma unroll
  for (int p = 0; p < A::kHalfPacks; ++p) {
    const int at = N * (thread + threads * p);
    offsets[p] = locate(mid, tile, place, {2 * place.cell, 0, tile.half}, at);
#pragma unroll
    for (int k = 0; k < N; ++k)
      if (inside(2 * place.cell + (at % tile.half + k) / channels, in.width) < 3) narrow |= 1u << (N * p + k);
  }
  int spread[A::kHalf];  // where in `row_sums` the elements of the half level go
#pragma unroll
  for (int i = 0; i < A::kHalf; ++i) {
    const int o = thread + threads * i, plane = o / tile.half, element = o - plane * tile.half;
    const int column = element / channels;
    spread[i] =
        plane < place.planes && column < 2 * tile.cells ? plane * length + element + column * channels : -1;
  }

  float above[A::kRow] = {}, quarter[A::kHalf] = {};
  Pack<T, N> given[A::kHalfPacks] = {};
  if (dhalf != nullptr) load_row(dhalf, mid, 2 * place.top, offsets, given);
  if (dquarter != nullptr) {
    load_quarter(dquarter, quarter_shares, mid, tile, place, place.top);
    __syncthreads();
    spread_quarter(quarter_shares, quarter_sums, tile, place);
    __syncthreads();
  }
#pragma unroll 1
  for (int row = 2 * place.top; row <= 2 * place.bottom; ++row) {
    const bool next = dquarter != nullptr && row % 2 == 0;  // whether the next row of the quarter level begins
    const Scale scale = scale_of(row, in);
#pragma unroll
    for (int p = 0; p < A::kHalfPacks; ++p) {
      const int at = N * (thread + threads * p);
      const Pack<float, N> fresh = dquarter != nullptr && (row % 2 == 1 || row == 2 * place.top)
                                       ? load_pack<N>(quarter_sums + at)
                                       : Pack<float, N>{};
      Pack<float, N> share;
#pragma unroll
      for (int k = 0; k < N; ++k) {
        const float each = (narrow >> (N * p + k) & 1u) != 0 ? scale.narrow : scale.whole;
        const float sum = to_float(given[p].at[k]) + quarter[N * p + k] + fresh.at[k];
        share.at[k] = offsets[p] >= 0 && row < mid.height ? sum * each : 0.f;
        if (row % 2 == 1 || row == 2 * place.top) quarter[N * p + k] = fresh.at[k];
      }
      store_pack(shares + at, share);
    }
    if (dhalf != nullptr) load_row(dhalf, mid, row < 2 * place.bottom ? row + 1 : -1, offsets, given);
    if (next) load_quarter(dquarter, quarter_shares, mid, tile, place, row / 2 + 1);
    __syncthreads();
#pragma unroll
    for (int i = 0; i < A::kHalf; ++i) {
      if (spread[i] < 0) continue;
      const float* s = shares + thread + threads * i;
      row_sums[spread[i]] = s[0];
      row_sums[spread[i] + channels] = s[0] + s[channels];
    }
    if (next) spread_quarter(quarter_shares, quarter_sums, tile, place);
    __syncthreads();
#pragma unroll
    for (int p = 0; p < A::kPacks; ++p) {
      const Pack<float, N> sums = load_pack<N>(row_sums + N * (thread + threads * p));
      Pack<T, N> odd, even;
#pragma unroll
      for (int k = 0; k < N; ++k) {
        odd.at[k] = from_float<T>(above[N * p + k] + sums.at[k]);
        even.at[k] = from_float<T>(sums.at[k]);
        above[N * p + k] = sums.at[k];
      }
      if (targets[p] < 0) continue;
      T* target = dx + static_cast<int64_t>(2 * row) * in.width * in.pixel + targets[p];
      if (row > 2 * place.top && 2 * row - 1 < in.height) store_pack(target - in.width * in.pixel, odd);
      if (row < 2 * place.bottom && 2 * row < in.height) store_pack(target, even);
    }
  }
}

// The tiles of an image, for accesses of `pack` elements and so many elements of a row for each thread.
Tile tiles_of(const Planes& in, int pack, int elements) {
  const auto rounded = [pack](int n) { return (n + pack - 1) / pack * pack; };
  const int capacity = kThreads * elements, total = halved(halved(in.width));
  Tile tile;
  tile.channels = in.pixel > kMostChannels ? kSlice : in.pixel;
  tile.slices = static_cast<int>(ceil_div(in.pixel, tile.channels));
  const int most = ((capacity - 4 * pack) / tile.channels - 3) / 4;
  tile.across = static_cast<int>(ceil_div(total, most));
  tile.cells = static_cast<int>(ceil_div(total, tile.across));
  if (tile.across > 1) {  // tiles begin at multiples of a sector
    tile.cells = most >= 8 ? std::min((tile.cells + 7) / 8 * 8, most / 8 * 8) : tile.cells;
    tile.across = static_cast<int>(ceil_div(total, tile.cells));
  }
  tile.bands = static_cast<int>(ceil_div(halved(halved(in.height)), kBand));
  tile.row_lead = (pack - 1) * 3 * in.pixel % pack;  // so that what lies 3 pixels before a multiple of the pack is aligned
  tile.half_lead = (pack - 1) * in.pixel % pack;
  tile.half = rounded(tile.half_lead + (2 * tile.cells + 1) * tile.channels);
  tile.row = std::max(rounded(tile.row_lead + (4 * tile.cells + 3) * tile.channels), 2 * tile.half);
  const int64_t size = static_cast<int64_t>(in.height) * in.width * in.pixel;
  tile.planes = tile.slices > 1 ? 1 : static_cast<int>(std::min<int64_t>({in.count, capacity / tile.row, std::max<int64_t>(INT32_MAX / size, 1)}));
  return tile;
}

// Call fn(Access, Planes, Tile, blocks, threads) with what suits an image and its two levels, or their gradients.
template <typename F>
void with_access(const Tensor& x, const Tensor& half, const F& fn) {
  const bool last = is_channels_last(x);
  if ((x.shape[3] + 4) * (last ? x.shape[1] : 1) > INT32_MAX)
    throw std::invalid_argument("avg_pyramid: expected rows of less than 2^31 elements");
  const int64_t pixel = last ? x.shape[1] : 1, count = last ? x.shape[0] : x.shape[0] * x.shape[1];
  const Planes in{count, static_cast<int>(x.shape[2]), static_cast<int>(x.shape[3]), static_cast<int>(pixel)};
  with_floating(x.dtype, [&](auto type) {
    using T = decltype(type);
    const auto call = [&](auto access) {
      using A = decltype(access);
      const Tile tile = tiles_of(in, A::kPack, A::kRow);
      const int64_t blocks = ceil_div(count, tile.planes) * tile.bands * tile.slices * tile.across;
      const int64_t threads = 32 * ceil_div(tile.planes * tile.row, 32 * A::kRow);
      fn(access, in, tile, blocks, static_cast<int>(threads));
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
    const size_t floats = threads * A::kRow + tile.planes * tile.half;
    const size_t shared = floats * sizeof(float) + tile.planes * tile.half * sizeof(T);
    HD_LAUNCH(avg_pyramid_fwd_kernel<A>, blocks, threads, shared, stream, x.as<const T>(), half.as<T>(),
              quarter.as<T>(), in, tile);
  });
}

void avg_pyramid_bwd(Tensor dhalf, Tensor dquarter, Tensor dx, uintptr_t stream) {
  with_access(dx, dhalf, [&](auto access, const Planes& in, const Tile& tile, int64_t blocks, int threads) {
    using A = decltype(access);
    using T = typename A::T;
    const size_t floats = threads * 2 * A::kRow + tile.planes * (tile.cells + 1) * tile.channels;
    HD_LAUNCH(avg_pyramid_bwd_kernel<A>, blocks, threads, floats * sizeof(float), stream, dhalf.as<const T>(),
              dquarter.as<const T>(), dx.as<T>(), in, tile);
  });
}

}  // namespace hd::cuda
