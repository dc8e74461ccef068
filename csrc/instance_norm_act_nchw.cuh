// instance_norm_act of contiguous images: a plane is one run of pixels. Small planes are held by one block in
// shared memory, so that everything is read once. Large ones are shared by n.splits blocks of two kernels, of which the
// second walks backwards over what the first has just left in the second-level cache.
//
// All run over units: V elements, aligned in memory to their size, that cover a range of pixels. The first and the last
// unit may stick out of it. Rows of a padded image start anywhere, so a unit of y is gathered element by element
// (neighbouring threads still read neighbouring elements) and stored whole, since partial writes cost more than partial
// reads. Units are half as wide then: the reads of a warp overlap less in their cache lines.
#pragma once

#include "instance_norm_act.cuh"

namespace hd::cuda {
namespace {

constexpr int kReduction = 64;  // floats of shared memory that reductions use
constexpr int kTiles = 4;       // units that a thread has in flight

// The first element, at or before `begin`, of the units that cover an array from `begin` on.
template <int V, typename T>
__device__ __forceinline__ int64_t first_unit(const T* array, int64_t begin) {
  return begin - static_cast<int64_t>(reinterpret_cast<uintptr_t>(array + begin) / sizeof(T) % V);
}

// What a range has of the unit at i: elements [from, to).
template <int V>
struct Unit {
  int from, to;

  __device__ __forceinline__ Unit(int64_t i, const Range& range)
      : from(i < range.begin ? static_cast<int>(range.begin - i) : 0),
        to(i + V > range.end ? static_cast<int>(max(range.end - i, int64_t{0})) : V) {}
  __device__ __forceinline__ bool whole() const { return from == 0 && to == V; }
};

// The moments of this thread's share of a range of plane x. keep(i, unit) is called with each unit.
template <typename T, typename Keep>
__device__ __forceinline__ Moments range_moments(const T* x, const Range& range, const Keep& keep) {
  constexpr int V = kPack<T>;
  const int64_t stride = static_cast<int64_t>(blockDim.x) * V;
  const float origin = to_float(x[0]);
  Moments moments;
  for (int64_t i = first_unit<V>(x, range.begin) + threadIdx.x * V; i < range.end; i += kTiles * stride) {
    Pack<T, V> packs[kTiles];
#pragma unroll
    for (int t = 0; t < kTiles; ++t) {
      const Unit<V> unit(i + t * stride, range);
      if (unit.to > 0) packs[t] = load_some<V>(x + i + t * stride, unit.from, unit.to);
    }
#pragma unroll
    for (int t = 0; t < kTiles; ++t) {
      const Unit<V> unit(i + t * stride, range);
      if (unit.to <= 0) break;
      keep(i + t * stride, packs[t]);
      float values[V];
#pragma unroll
      for (int k = 0; k < V; ++k) values[k] = to_float(packs[t].at[k]) - origin;
      const float count = unit.to - unit.from, r = Moments::share(moments.count, count);
      absorb(moments.mean, moments.m2, moments.count, r, values, unit.from, unit.to);
      moments.count += count;
    }
  }
  return moments;
}

template <typename T>
struct Residual {
  const T* data;                // [B, C, H, W] or null
  int64_t batch, channel, row;  // strides

  __device__ __forceinline__ const T* plane(int64_t p, int channels) const {
    return data == nullptr
               ? nullptr
               : data + static_cast<unsigned>(p) / channels * batch + static_cast<unsigned>(p) % channels * channel;
  }
};

// Write the pixels of a range of the padded plane y.
template <int V, typename T>
__device__ __forceinline__ void write_range(const T* x, const T* residual, int64_t residual_row, T* y,
                                            const Range& range, const Affine& affine, const Norm& n) {
  const int width = n.padded_width();
  const int64_t first = first_unit<V>(y, range.begin) + threadIdx.x * V, stride = static_cast<int64_t>(blockDim.x) * V;
  Cursor at(first + static_cast<int64_t>(V) * width, width);  // first may be negative
  at.row -= V;
  const Cursor step(static_cast<int>(stride), width);
#pragma unroll 1
  for (int64_t i = first; i < range.end; i += stride, at.advance(step, width)) {
    const Unit<V> unit(i, range);
    const int row = source_of(at.row, n.height, n), column = at.column - n.pad;
    if (unit.whole() && row >= 0 && column >= 0 && column + V <= n.width) {
      Pack<T, V> pack = load_run<V>(x + static_cast<int64_t>(row) * n.width + column), added{};
      if (residual != nullptr) added = load_run<V>(residual + row * residual_row + column);
#pragma unroll
      for (int k = 0; k < V; ++k)
        pack.at[k] = from_float<T>(activate(affine(to_float(pack.at[k])), n.slope) + to_float(added.at[k]));
      store_whole(y + i, pack);
      continue;
    }
#pragma unroll 1
    for (int k = unit.from; k < unit.to; ++k) {
      Cursor pixel = at;
      for (pixel.column += k; pixel.column >= width; pixel.column -= width) ++pixel.row;
      const int r = source_of(pixel.row, n.height, n), c = source_of(pixel.column, n.width, n);
      float value = 0.f;
      if (r >= 0 && c >= 0) {
        value = activate(affine(to_float(x[static_cast<int64_t>(r) * n.width + c])), n.slope);
        if (residual != nullptr) value += to_float(residual[r * residual_row + c]);
      }
      y[i + k] = from_float<T>(value);
    }
  }
}

template <typename T>
__device__ __forceinline__ void write_plane(const T* x, const Residual<T>& residual, T* y, int64_t p,
                                            const Range& range, const Moments& moments, bool first, const Norm& n) {
  const float origin = to_float(x[0]), rstd = rstd_of(moments.m2, n);
  if (first && threadIdx.x == 0) {
    n.mean[p] = origin + moments.mean;
    n.rstd[p] = rstd;
  }
  const Affine affine(n, static_cast<unsigned>(p) % n.channels, origin, moments.mean, rstd);
  const T* added = residual.plane(p, n.channels);
  y += p * n.padded_pixels();
  if (n.pad == 0 && n.height == 1)
    write_range<kPack<T>>(x, added, residual.row, y, range, affine, n);
  else
    write_range<kPack<T> / 2>(x, added, residual.row, y, range, affine, n);
}

// First kernel: block (p, s) finds the moments of part s of plane p. One that holds the whole plane writes y too.
template <typename T>
__global__ void __launch_bounds__(kThreads, 1)
    instance_norm_act_fwd_nchw_kernel(const T* __restrict__ x,  // [B, C, H, W]
                                      Residual<T> residual,     // [B, C, H, W] or none
                                      T* __restrict__ y,        // [B, C, H + 2 pad, W + 2 pad]
                                      Norm n) {
  HD_SHARED(float, shared);
  T* held = reinterpret_cast<T*>(shared + kReduction);
  const int64_t p = blockIdx.x / n.splits;
  x += p * n.pixels();
  const Range range(n.pixels(), blockIdx.x % n.splits, n.part);
  const int64_t first = first_unit<kPack<T>>(x, 0);
  const auto keep = [&](int64_t i, const auto& pack) {
    if (n.held) store_whole(held + (i - first), pack);
  };
  const Moments moments = block_moments(range_moments(x, range, keep), shared);
  if (n.held)
    return write_plane<T>(held - first, residual, y, p, Range(n.padded_pixels(), 0, n.padded_part), moments, true, n);
  if (threadIdx.x != 0) return;
  n.scratch[blockIdx.x] = moments.mean;
  n.scratch[gridDim.x + blockIdx.x] = moments.m2;
}

// Second kernel: every block merges the moments of its plane's parts and writes a part of y.
template <typename T>
__global__ void __launch_bounds__(kThreads, 1)
    instance_norm_act_fwd_apply_nchw_kernel(const T* __restrict__ x,  // [B, C, H, W]
                                            Residual<T> residual,     // [B, C, H, W] or none
                                            T* __restrict__ y,        // [B, C, H + 2 pad, W + 2 pad]
                                            Norm n) {
  HD_SHARED(float, shared);
  const unsigned block = gridDim.x - 1 - blockIdx.x, split = block % n.splits;
  const int64_t p = block / n.splits;
  Moments moments;
  for (int s = threadIdx.x; s < n.splits; s += blockDim.x) {
    const Range part(n.pixels(), s, n.part);
    const int64_t at = p * n.splits + s;
    moments.merge({static_cast<float>(part.end - part.begin), n.scratch[at], n.scratch[gridDim.x + at]});
  }
  moments = block_moments(moments, shared);
  write_plane<T>(x + p * n.pixels(), residual, y, p, Range(n.padded_pixels(), split, n.padded_part), moments,
                 split == 0, n);
}

// The part of dy [H + 2 pad, W + 2 pad] that reaches one pixel. It is rounded, so that dresidual, the sums and dx use
// the same number.
template <typename T>
__device__ __forceinline__ float fold_pixel(const T* dy, const Copies& rows, const Copies& columns, const Norm& n) {
  float sum = 0.f;
#pragma unroll 1
  for (int r = 0; r < rows.count(); ++r) {
    const T* row = dy + static_cast<int64_t>(rows[r]) * n.padded_width();
#pragma unroll 1
    for (int c = 0; c < columns.count(); ++c) sum += to_float(row[columns[c]]);
  }
  return to_float(from_float<T>(sum));
}

// The same for one unit: all pixels at once, and then again those that padding copies.
template <int V, typename T>
__device__ __forceinline__ void fold_unit(const T* dy, Cursor at, const Unit<V>& unit, const Norm& n, float (&g)[V]) {
  const int border = n.pad == 0 || n.pad_mode == PadMode::zero ? -1 : n.pad_mode == PadMode::reflect ? n.pad : 0;
  const bool whole = unit.whole() && at.column + V <= n.width;
  Pack<T, V> pack{};
  if (whole) pack = load_run<V>(dy + static_cast<int64_t>(at.row + n.pad) * n.padded_width() + at.column + n.pad);
  to_floats(pack, g);
  const bool inner_row = at.row > border && at.row < n.height - 1 - border;
  if (whole && inner_row && at.column > border && at.column + V <= n.width - 1 - border) return;
#pragma unroll 1
  for (int k = unit.from; k < unit.to; ++k) {
    Cursor pixel = at;
    for (pixel.column += k; pixel.column >= n.width; pixel.column -= n.width) ++pixel.row;
    const Copies rows(pixel.row, n.height, n), columns(pixel.column, n.width, n);
    if (whole && rows.count() == 1 && columns.count() == 1) continue;
    const float sum = fold_pixel(dy, rows, columns, n);
#pragma unroll
    for (int j = 0; j < V; ++j) g[j] = j == k ? sum : g[j];
  }
}

// Add a unit's dz and dz * (x - mean) to the sums.
template <int V, typename T>
__device__ __forceinline__ void add_unit(const Pack<T, V>& x, const float (&g)[V], const Affine& affine, float slope,
                                         float& dz, float& dz_centred) {
#pragma unroll
  for (int k = 0; k < V; ++k) {
    const float value = to_float(x.at[k]), d = affine(value) > 0.f ? g[k] : damp(g[k], slope);
    dz += d;
    dz_centred += d * (value - affine.origin);
  }
}

template <int V, typename T>
__device__ __forceinline__ Pack<T, V> unit_gradient(const Pack<T, V>& x, const float (&g)[V], const Affine& affine,
                                                    const Gradient& gradient, float slope) {
  Pack<T, V> dx;
#pragma unroll
  for (int k = 0; k < V; ++k) {
    const float value = to_float(x.at[k]), d = affine(value) > 0.f ? g[k] : damp(g[k], slope);
    dx.at[k] = from_float<T>(gradient(d, value - affine.origin));
  }
  return dx;
}

// Call fn(i, unit, x, g) with this thread's units of a range: the x and the folded dy there. If a dresidual is given,
// it already holds the latter.
template <int V, typename T, typename F>
__device__ __forceinline__ void for_folded(const T* dy, const T* x, const T* dresidual, const Range& range,
                                           const Norm& n, const F& fn) {
  const int64_t first = first_unit<V>(x, range.begin) + threadIdx.x * V, stride = static_cast<int64_t>(blockDim.x) * V;
  Cursor at(first + static_cast<int64_t>(V) * n.width, n.width);
  at.row -= V;
  const Cursor step(static_cast<int>(stride), n.width);
#pragma unroll 1
  for (int64_t i = first; i < range.end; i += stride, at.advance(step, n.width)) {
    const Unit<V> unit(i, range);
    const Pack<T, V> values = load_some<V>(x + i, unit.from, unit.to);
    float g[V];
    if (dresidual == nullptr) {
      fold_unit<V>(dy, at, unit, n, g);
    } else {
      to_floats(load_some<V>(dresidual + i, unit.from, unit.to), g);
    }
    fn(i, unit, values, g);
  }
}

// First kernel: block (p, s) sums over part s of plane p and writes its dresidual. One that holds the whole plane,
// which every thread then does with its own units of x and of the folded dy, writes dx too.
template <typename T>
__global__ void __launch_bounds__(kThreads, 1)
    instance_norm_act_bwd_nchw_kernel(const T* __restrict__ dy,   // [B, C, H + 2 pad, W + 2 pad]
                                      const T* __restrict__ x,    // [B, C, H, W]
                                      T* __restrict__ dx,         // [B, C, H, W]
                                      T* __restrict__ dresidual,  // [B, C, H, W] or null
                                      Norm n) {
  constexpr int V = kPack<T>;
  HD_SHARED(float, shared);
  T* held_x = reinterpret_cast<T*>(shared + kReduction);
  T* held_g = held_x + (n.pixels() + 2 * V - 1) / V * V;
  const int64_t p = blockIdx.x / n.splits, offset = p * n.pixels();
  const Range range(n.pixels(), blockIdx.x % n.splits, n.part);
  const int64_t first = first_unit<V>(x + offset, 0);
  const float rstd = n.rstd[p];
  const Affine affine(n, static_cast<unsigned>(p) % n.channels, n.mean[p], 0.f, rstd);
  float dz = 0.f, dz_xhat = 0.f;
  for_folded<V, T>(dy + p * n.padded_pixels(), x + offset, nullptr, range, n,
                   [&](int64_t i, const Unit<V>& unit, const Pack<T, V>& values, const float(&g)[V]) {
                     const Pack<T, V> folded = from_floats<T>(g);
                     if (n.held) {
                       store_whole(held_x + (i - first), values);
                       store_whole(held_g + (i - first), folded);
                     }
                     add_unit<V>(values, g, affine, n.slope, dz, dz_xhat);
                     if (dresidual != nullptr) store_some<V>(dresidual + offset + i, folded, unit.from, unit.to);
                   });
  block_sums(dz, dz_xhat, shared);
  dz_xhat *= rstd;
  if (threadIdx.x == 0) {
    float* result = n.held ? n.sums : n.scratch;
    result[blockIdx.x] = dz;
    result[gridDim.x + blockIdx.x] = dz_xhat;
  }
  if (!n.held) return;
  const Gradient gradient(affine.scale, rstd, dz, dz_xhat, n.per_pixel);
#pragma unroll 1
  for (int64_t i = first + threadIdx.x * V; i < range.end; i += static_cast<int64_t>(blockDim.x) * V) {
    const Unit<V> unit(i, range);
    float g[V];
    to_floats(load_pack<V>(held_g + (i - first)), g);
    store_some<V>(dx + offset + i, unit_gradient<V>(load_pack<V>(held_x + (i - first)), g, affine, gradient, n.slope),
                  unit.from, unit.to);
  }
}

// Second kernel: every block adds up its plane's sums and writes a part of dx.
template <typename T>
__global__ void __launch_bounds__(kThreads, 1) instance_norm_act_bwd_apply_nchw_kernel(
    const T* __restrict__ dy,         // [B, C, H + 2 pad, W + 2 pad]
    const T* __restrict__ x,          // [B, C, H, W]
    T* __restrict__ dx,               // [B, C, H, W]
    const T* __restrict__ dresidual,  // [B, C, H, W], written by the first kernel, or null
    Norm n) {
  constexpr int V = kPack<T>;
  HD_SHARED(float, shared);
  const unsigned block = gridDim.x - 1 - blockIdx.x, split = block % n.splits;
  const int64_t p = block / n.splits, offset = p * n.pixels();
  float dz = 0.f, dz_xhat = 0.f;
  for (int s = threadIdx.x; s < n.splits; s += blockDim.x) {
    dz += n.scratch[p * n.splits + s];
    dz_xhat += n.scratch[gridDim.x + p * n.splits + s];
  }
  block_sums(dz, dz_xhat, shared);
  if (split == 0 && threadIdx.x == 0) {
    n.sums[p] = dz;
    n.sums[n.planes + p] = dz_xhat;
  }
  const float rstd = n.rstd[p];
  const Affine affine(n, static_cast<unsigned>(p) % n.channels, n.mean[p], 0.f, rstd);
  const Gradient gradient(affine.scale, rstd, dz, dz_xhat, n.per_pixel);
  const T* folded = dresidual == nullptr ? nullptr : dresidual + offset;
  for_folded<V, T>(dy + p * n.padded_pixels(), x + offset, folded, Range(n.pixels(), split, n.part), n,
                   [&](int64_t i, const Unit<V>& unit, const Pack<T, V>& values, const float(&g)[V]) {
                     store_some<V>(dx + offset + i, unit_gradient<V>(values, g, affine, gradient, n.slope), unit.from,
                                   unit.to);
                   });
}

}  // namespace
}  // namespace hd::cuda
