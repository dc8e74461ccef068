// instance_norm_act of contiguous images: a plane is one run of pixels, of which each block works on a part. It copies
// its part to shared memory, finds its moments or sums there, hands them to the other blocks of the plane, waits for
// theirs, and writes its part of the result from shared memory. So memory is read once. Copies for the block's next
// part are on their way meanwhile. Of planes that are larger than all shared memory of the GPU, a part has a head,
// which is read twice.
#pragma once

#include "instance_norm_act_window.cuh"

namespace hd::cuda {
namespace {

constexpr int kBatch = 4;  // units of which a thread adds up deviations before it merges them

// Merge this thread's share of units [begin, end) of an array.
template <typename T>
__device__ __forceinline__ void merge_units(Moments& moments, const T* array, int begin, int end, float origin) {
  constexpr int V = kPack<T>;
  const int stride = blockDim.x;
  int u = begin + threadIdx.x;
  if (u >= end) return;
  if (moments.count == 0.f) {  // deviations are from a number near the mean, or they would lose digits
    float values[V];
    to_floats(bit_cast<Pack<T, V>>(load_words(array + u * V)), values);
#pragma unroll
    for (int k = 0; k < V; ++k) values[k] -= origin;
    moments.mean = tree_sum(values) * (1.f / V);
  }
#pragma unroll 1
  for (; u < end; u += kBatch * stride) {
    const float pivot = origin + moments.mean;
    float sum = 0.f, squares = 0.f, count = V;
#pragma unroll
    for (int t = 0; t < kBatch; ++t) {
      if (t > 0 && u + t * stride >= end) break;
      if (t > 0) count += V;
      float values[V];
      to_floats(bit_cast<Pack<T, V>>(load_words(array + (u + t * stride) * V)), values);
#pragma unroll
      for (int k = 0; k < V; ++k) {
        const float d = values[k] - pivot;
        sum += d;
        squares += d * d;
      }
    }
    const float mean = __fdividef(sum, count);
    moments.merge({count, (pivot - origin) + mean, squares - sum * mean});
  }
}

// The moments of this thread's share of a part.
template <typename T>
__device__ __forceinline__ Moments part_moments(const Window<T>& x, const Part& part, float origin) {
  constexpr int V = kPack<T>;
  Moments moments;
  if (part.head > 0) merge_units(moments, x.plane + part.first, part.whole_begin(), part.head, origin);
  merge_units(moments, x.shared, x.whole_begin(), x.whole_end(), origin);
  for (int k = threadIdx.x; k < 2 * V; k += blockDim.x) {  // elements of units that the plane has in part
    const int64_t whole = part.first < 0 ? part.first + V : part.first;
    const int64_t end = part.first + static_cast<int64_t>(part.units) * V;
    const int64_t element = k < V ? part.first + k : end - V + (k - V);
    const bool partial = k < V ? part.first < 0 : end > x.size && end - V >= whole;
    if (partial && element >= 0 && element < x.size) moments.merge({1.f, to_float(x.at(element)) - origin, 0.f});
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

// What a part of y is made of.
template <typename T>
struct Writer {
  static constexpr int V = kPack<T>;
  Window<T> x;
  const T* residual;  // of the plane, or null
  int64_t residual_row, residual_size;
  T* y;         // of the plane
  Range range;  // of the padded plane
  Affine affine;
  const Norm& n;

  __device__ __forceinline__ Pack<T, V> result(const Pack<T, V>& pack, const Pack<T, V>* added) const {
    float values[V];
    to_floats(pack, values);
#pragma unroll
    for (int k = 0; k < V; ++k) values[k] = affine(values[k]);
    activate_all(values, n.slope);
    if (added != nullptr) {
      float more[V];
      to_floats(*added, more);
#pragma unroll
      for (int k = 0; k < V; ++k) values[k] += more[k];
    }
    return from_floats<T>(values);
  }

  // Whether the unit at i is inside a row and inside the range.
  __device__ __forceinline__ bool is_inside(int64_t i, const Cursor& at) const {
    return i >= range.begin && i + V <= range.end && at.column >= n.pad && at.column + V <= n.pad + n.width;
  }

  // Write the units that are inside, where all have the place in y that they have in x: what is held, and then the head
  // backwards, of which the second-level cache has the end.
  __device__ __forceinline__ void write_flat(const Part& part) const {
    const int begin = part.whole_begin(), end = part.whole_end(x.size, V);
    const T* memory = x.plane + part.first;
    T* out = y + part.first;
#pragma unroll 2
    for (int u = end - 1 - static_cast<int>(threadIdx.x); u >= begin; u -= blockDim.x) {
      const T* from = u >= part.head ? x.shared + (u - part.head) * V : memory + u * V;
      const auto pack = bit_cast<Pack<T, V>>(load_words(from));
      if (residual == nullptr) {
        store_streaming(out + u * V, result(pack, nullptr));
      } else {
        const auto more = bit_cast<Pack<T, V>>(load_words(residual + (part.first + u * V)));
        store_streaming(out + u * V, result(pack, &more));
      }
    }
  }

  // The same where rows are padded.
  __device__ __forceinline__ void write_rows() const {
    const int width = n.padded_width();
    const int64_t first = first_unit(y, range.begin);
    const int units = static_cast<int>((range.end - first + V - 1) / V);
    int u = units - 1 - static_cast<int>(threadIdx.x);
    if (u < 0) return;
    Cursor at(max(first + static_cast<int64_t>(u) * V, int64_t{0}), width);
    const Cursor step(static_cast<int>(blockDim.x) * V, width);
#pragma unroll 1
    for (; u >= 0; u -= blockDim.x, at.retreat(step, width)) {
      const int64_t i = first + static_cast<int64_t>(u) * V;
      if (!is_inside(i, at)) continue;
      const int row = source_of(at.row, n.height, n), column = at.column - n.pad;
      if (row < 0) {
        store_streaming(y + i, Pack<T, V>{});
        continue;
      }
      const Pack<T, V> pack = x.run(static_cast<int64_t>(row) * n.width + column);
      if (residual == nullptr) {
        store_streaming(y + i, result(pack, nullptr));
      } else {
        const Pack<T, V> more = load_run(residual, row * residual_row + column, residual_size);
        store_streaming(y + i, result(pack, &more));
      }
    }
  }

  // The others.
  __device__ __forceinline__ void write_ends() const {
    const int width = n.padded_width();
    for_row_ends<V>(first_unit(y, range.begin), range, width, n.pad, [&](int64_t i) {
      const int from = static_cast<int>(max(range.begin - i, int64_t{0}));
      const int to = static_cast<int>(min(range.end - i, int64_t{V}));
      Cursor at(i + from, width);
      if (from == 0 && is_inside(i, at)) return;
      Pack<T, V> pack{};
#pragma unroll
      for (int k = 0; k < V; ++k) {
        if (k < from || k >= to) continue;
        const int row = source_of(at.row, n.height, n), column = source_of(at.column, n.width, n);
        if (row >= 0 && column >= 0) {
          float value = activate(affine(to_float(x.at(static_cast<int64_t>(row) * n.width + column))), n.slope);
          if (residual != nullptr) value += to_float(residual[row * residual_row + column]);
          pack.at[k] = from_float<T>(value);
        }
        if (++at.column == width) {
          at.column = 0;
          ++at.row;
        }
      }
      store_some(y + i, pack, from, to);
    });
  }
};

// Write the part of y that goes with a part of x.
template <typename T>
__device__ __forceinline__ void write_part(const Part& part, const Window<T>& x, const Residual<T>& residual, T* y,
                                           const Moments& moments, float origin, bool last, const Norm& n) {
  const float rstd = rstd_of(moments.m2, n);
  if (part.index == 0 && threadIdx.x == 0) {
    n.mean[part.plane] = origin + moments.mean;
    n.rstd[part.plane] = rstd;
  }
  const Affine affine(n, static_cast<unsigned>(part.plane) % n.channels, origin, moments.mean, rstd);
  Range range = part.padded;
  if (part.index == 0) range.begin = 0;
  if (last) range.end = n.padded_pixels();
  const int64_t residual_size = (n.height - 1) * residual.row + n.width;
  const T* added = residual.plane(part.plane, n.channels);
  const Writer<T> writer{x, added, residual.row, residual_size, y + part.plane * n.padded_pixels(), range, affine, n};
  const int64_t unit = first_unit(writer.y, 0);
  const bool aligned = unit == first_unit(x.plane, 0) && (added == nullptr || unit == first_unit(added, 0));
  if (aligned && n.pad == 0 && n.height == 1)
    writer.write_flat(part);
  else
    writer.write_rows();
  writer.write_ends();
}

// Where an item's arrays are in shared memory.
template <typename T>
__device__ __forceinline__ T* buffer_of(float* shared, const Parts& parts, bool odd) {
  const int units = parts.held + 1 + (parts.padded_held > 0 ? parts.padded_held + 1 : 0);
  return reinterpret_cast<T*>(shared + kReduction) + (odd && parts.buffers == 2 ? units * kPack<T> : 0);
}

// Before the first signal: nothing has arrived at any plane. The barrier is passed while the first copies arrive.
__device__ __forceinline__ void clear_counters(const Norm& n, const Parts& parts) {
  for (int64_t p = blockIdx.x * static_cast<int64_t>(blockDim.x) + threadIdx.x; p < n.planes;
       p += static_cast<int64_t>(gridDim.x) * blockDim.x)
    parts.counters[p] = 0;
  grid_sync();
}

// Hand two numbers of a part to the blocks that share its plane.
__device__ __forceinline__ void publish(const Norm& n, const Parts& parts, const Part& part, unsigned item, float a,
                                        float b) {
  if (threadIdx.x != 0) return;
  n.scratch[2 * static_cast<int64_t>(item)] = a;
  n.scratch[2 * static_cast<int64_t>(item) + 1] = b;
  signal(parts.counters + part.plane);
}

// Wait until all parts of a plane have been handed over.
__device__ __forceinline__ void await_plane(const Parts& parts, const Part& part) {
  if (threadIdx.x == 0) await(parts.counters + part.plane, parts.count);
  __syncthreads();
}

template <typename T>
__global__ void __launch_bounds__(kPlaneThreads, kPlaneBlocks)
    instance_norm_act_fwd_nchw_kernel(const T* __restrict__ x,  // [B, C, H, W]
                                      Residual<T> residual,     // [B, C, H, W] or none
                                      T* __restrict__ y,        // [B, C, H + 2 pad, W + 2 pad]
                                      Norm n, Parts parts) {
  HD_SHARED(float, shared);
  const auto prefetch = [&](unsigned item, bool odd) {
    if (item >= parts.items) return;
    Part(x, n, parts, item).window(x, n, buffer_of<T>(shared, parts, odd)).fill();
  };
  prefetch(blockIdx.x, false);
  if (parts.count > 1) clear_counters(n, parts);
  bool odd = false;
  for (unsigned item = blockIdx.x; item < parts.items; item += gridDim.x, odd = !odd) {
    const Part part(x, n, parts, item);
    const Window<T> window = part.window(x, n, buffer_of<T>(shared, parts, odd));
    const float origin = to_float(window.plane[0]);
    copies_arrived();
    __syncthreads();
    Moments moments = block_moments(part_moments(window, part, origin), shared);
    if (parts.count > 1) publish(n, parts, part, item, moments.mean, moments.m2);
    if (parts.buffers == 2) prefetch(item + gridDim.x, !odd);
    if (parts.count > 1) {
      await_plane(parts, part);
      moments = Moments();
      for (int s = threadIdx.x; s < parts.count; s += blockDim.x) {
        const int64_t at = part.plane * parts.count + s;
        moments.merge({part.size(s, window.size, parts, kPack<T>), n.scratch[2 * at], n.scratch[2 * at + 1]});
      }
      moments = block_moments(moments, shared);
    }
    write_part(part, window, residual, y, moments, origin, part.index == parts.count - 1, n);
    __syncthreads();
    if (parts.buffers == 1) prefetch(item + gridDim.x, false);
  }
}

// Add a unit's dz and dz * (x - mean) to the sums.
template <int V, typename T>
__device__ __forceinline__ void add_unit(const Pack<T, V>& x, const float (&g)[V], const Affine& affine, float slope,
                                         float& dz, float& dz_centred) {
  float values[V];
  to_floats(x, values);
#pragma unroll
  for (int k = 0; k < V; ++k) {
    const float d = affine(values[k]) > 0.f ? g[k] : damp(g[k], slope);
    dz += d;
    dz_centred += d * (values[k] - affine.origin);
  }
}

template <int V, typename T>
__device__ __forceinline__ Pack<T, V> unit_gradient(const Pack<T, V>& x, const float (&g)[V], const Affine& affine,
                                                    const Gradient& gradient, float slope) {
  float values[V];
  to_floats(x, values);
#pragma unroll
  for (int k = 0; k < V; ++k) {
    const float d = affine(values[k]) > 0.f ? g[k] : damp(g[k], slope);
    values[k] = gradient(d, values[k] - affine.origin);
  }
  return from_floats<T>(values);
}

// Elements [from, to) of a unit, to memory that this kernel does not read.
template <int V, typename T>
__device__ __forceinline__ void store_result(T* address, const Pack<T, V>& pack, int from, int to) {
  if (to - from == V && is_aligned<V>(address)) return store_streaming(address, pack);
  store_some(address, pack, from, to);
}

// The units of x and of dy, folded, that a part of dx is made of.
template <typename T>
struct Folder {
  static constexpr int V = kPack<T>;
  Window<T> x, dy;
  const Norm& n;
  int reach;  // a pixel at this distance from all edges has no copies in the padded plane

  __device__ __forceinline__ Folder(const Window<T>& x, const Window<T>& dy, const Norm& n)
      : x(x),
        dy(dy),
        n(n),
        reach(n.pad == 0 || n.pad_mode == PadMode::zero ? 0
              : n.pad_mode == PadMode::reflect          ? n.pad + 1
                                                        : 1) {}

  // Whether the unit at i is inside a row and its columns have no copies.
  __device__ __forceinline__ bool is_inside(const Cursor& at) const {
    return at.column >= reach && at.column + V <= n.width - reach;
  }

  // What of dy reaches such a unit. A sum is rounded, so that dresidual, the sums and dx use the same number.
  __device__ __forceinline__ void fold(const Cursor& at, float (&g)[V]) const {
    const int width = n.padded_width(), column = at.column + n.pad;
    to_floats(dy.run(static_cast<int64_t>(at.row + n.pad) * width + column), g);
    if (at.row >= reach && at.row < n.height - reach) return;
    const Copies rows(at.row, n.height, n);
#pragma unroll 1
    for (int k = 1; k < rows.count(); ++k) {
      float more[V];
      to_floats(dy.run(static_cast<int64_t>(rows[k]) * width + column), more);
#pragma unroll
      for (int j = 0; j < V; ++j) g[j] += more[j];
    }
    to_floats(from_floats<T>(g), g);
  }

  // The same for one pixel.
  __device__ __forceinline__ float fold_pixel(const Cursor& at) const {
    const Copies rows(at.row, n.height, n), columns(at.column, n.width, n);
    float sum = 0.f;
#pragma unroll 1
    for (int r = 0; r < rows.count(); ++r)
#pragma unroll 1
      for (int c = 0; c < columns.count(); ++c)
        sum += to_float(dy.at(static_cast<int64_t>(rows[r]) * n.padded_width() + columns[c]));
    return to_float(from_float<T>(sum));
  }

  // Call fn(i, from, to, x, g) with the elements [from, to) of this thread's units of a part. The others are zero.
  template <bool kBackwards, typename F>
  __device__ __forceinline__ void for_units(const Part& part, const F& fn) const {
    const int begin = part.whole_begin(), end = part.whole_end(x.size, V);
    int u = kBackwards ? end - 1 - static_cast<int>(threadIdx.x) : begin + static_cast<int>(threadIdx.x);
    Cursor at(max(part.first + static_cast<int64_t>(u) * V, int64_t{0}), n.width);
    const Cursor step(static_cast<int>(blockDim.x) * V, n.width);
    const T* memory = x.plane + part.first;
#pragma unroll 1
    for (; kBackwards ? u >= begin : u < end; u += kBackwards ? -static_cast<int>(blockDim.x) : blockDim.x) {
      if (is_inside(at)) {
        const T* from = u >= part.head ? x.shared + (u - part.head) * V : memory + u * V;
        float g[V];
        fold(at, g);
        fn(part.first + u * V, 0, V, bit_cast<Pack<T, V>>(load_words(from)), g);
      }
      kBackwards ? at.retreat(step, n.width) : at.advance(step, n.width);
    }
    for_row_ends<V>(part.first, part.range, n.width, reach, [&](int64_t i) {
      const int from = static_cast<int>(max(part.range.begin - i, int64_t{0}));
      const int to = static_cast<int>(min(part.range.end - i, int64_t{V}));
      Cursor pixel(i + from, n.width);
      if (from == 0 && to == V && is_inside(pixel)) return;
      Pack<T, V> pack{};
      float g[V] = {};
#pragma unroll
      for (int k = 0; k < V; ++k) {
        if (k < from || k >= to) continue;
        pack.at[k] = x.at(i + k);
        g[k] = fold_pixel(pixel);
        if (++pixel.column == n.width) {
          pixel.column = 0;
          ++pixel.row;
        }
      }
      fn(i, from, to, pack, g);
    });
  }
};

template <typename T>
__global__ void __launch_bounds__(kPlaneThreads, kPlaneBlocks)
    instance_norm_act_bwd_nchw_kernel(const T* __restrict__ dy,   // [B, C, H + 2 pad, W + 2 pad]
                                      const T* __restrict__ x,    // [B, C, H, W]
                                      T* __restrict__ dx,         // [B, C, H, W]
                                      T* __restrict__ dresidual,  // [B, C, H, W] or null
                                      Norm n, Parts parts) {
  constexpr int V = kPack<T>;
  HD_SHARED(float, shared);
  const auto windows = [&](const Part& part, bool odd) {
    T* buffer = buffer_of<T>(shared, parts, odd);
    return Folder<T>(part.window(x, n, buffer), part.padded_window(dy, n, buffer + (parts.held + 1) * V), n);
  };
  const auto prefetch = [&](unsigned item, bool odd) {
    if (item >= parts.items) return;
    const Folder<T> next = windows(Part(x, n, parts, item), odd);
    next.x.fill();
    next.dy.fill();
  };
  prefetch(blockIdx.x, false);
  if (parts.count > 1) clear_counters(n, parts);
  bool odd = false;
  for (unsigned item = blockIdx.x; item < parts.items; item += gridDim.x, odd = !odd) {
    const Part part(x, n, parts, item);
    const Folder<T> folder = windows(part, odd);
    const float rstd = n.rstd[part.plane];
    const Affine affine(n, static_cast<unsigned>(part.plane) % n.channels, n.mean[part.plane], 0.f, rstd);
    copies_arrived();
    __syncthreads();
    float dz = 0.f, dz_xhat = 0.f;
    folder.template for_units<false>(part, [&](int64_t, int, int, const Pack<T, V>& values, const float(&g)[V]) {
      add_unit(values, g, affine, n.slope, dz, dz_xhat);
    });
    block_sums(dz, dz_xhat, shared);
    dz_xhat *= rstd;
    if (parts.count > 1) publish(n, parts, part, item, dz, dz_xhat);
    if (parts.buffers == 2) prefetch(item + gridDim.x, !odd);
    if (parts.count > 1) {
      await_plane(parts, part);
      dz = dz_xhat = 0.f;
      for (int s = threadIdx.x; s < parts.count; s += blockDim.x) {
        const int64_t at = part.plane * parts.count + s;
        dz += n.scratch[2 * at];
        dz_xhat += n.scratch[2 * at + 1];
      }
      block_sums(dz, dz_xhat, shared);
    }
    if (part.index == 0 && threadIdx.x == 0) {
      n.sums[part.plane] = dz;
      n.sums[n.planes + part.plane] = dz_xhat;
    }
    const Gradient gradient(affine.scale, rstd, dz, dz_xhat, n.per_pixel);
    T* out = dx + part.plane * n.pixels();
    folder.template for_units<true>(
        part, [&](int64_t i, int from, int to, const Pack<T, V>& values, const float(&g)[V]) {
          store_result(out + i, unit_gradient(values, g, affine, gradient, n.slope), from, to);
          if (dresidual != nullptr) store_result(dresidual + part.plane * n.pixels() + i, from_floats<T>(g), from, to);
        });
    __syncthreads();
    if (parts.buffers == 1) prefetch(item + gridDim.x, false);
  }
}

}  // namespace
}  // namespace hd::cuda
