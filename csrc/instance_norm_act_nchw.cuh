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
    to_floats<T>(load_words(array + u * V), values);
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
      to_floats<T>(load_words(array + (u + t * stride) * V), values);
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

// Merge this thread's share of a part.
template <typename T>
__device__ __forceinline__ void merge_part(Moments& moments, const Window<T>& x, float origin) {
  constexpr int V = kPack<T>;
  merge_units(moments, x.shared, x.whole_begin(), x.whole_end(), origin);
  for (int k = threadIdx.x; k < 2 * V; k += blockDim.x) {  // elements of units that the plane has in part
    const bool last = k >= V;
    const int i = last ? k - V + (x.units - 1) * V : k;
    const bool partial = last ? x.whole_end() < x.units && x.whole_begin() < x.units : x.whole_begin() == 1;
    if (partial && x.first + i >= 0 && x.first + i < x.size) moments.merge({1.f, to_float(x.shared[i]) - origin, 0.f});
  }
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

  // V numbers of y, of those of x and of the residual.
  __device__ __forceinline__ Words result(const Words& words, const Words* added) const {
    float values[V];
    to_floats<T>(words, values);
#pragma unroll
    for (int k = 0; k < V; ++k) values[k] = affine(values[k]);
    activate_all(values, n.slope);
    if (added != nullptr) {
      float more[V];
      to_floats<T>(*added, more);
#pragma unroll
      for (int k = 0; k < V; ++k) values[k] += more[k];
    }
    return to_words<T>(values);
  }

  // The same for many, of a row that is held and that nothing is added to.
  template <bool kRelu, bool kShifted>
  __device__ __forceinline__ void write_held(const Row<T>& from, T* out, int count, int lane, int lanes) const {
#pragma unroll 2
    for (int k = lane; k < count; k += lanes) {
      float values[V];
      to_floats<T>(kShifted ? shifted(from.shared + k * V, from.shift) : load_words(from.shared + k * V), values);
#pragma unroll
      for (int j = 0; j < V; ++j) {
        const float z = affine(values[j]);
        values[j] = larger(z, kRelu ? 0.f : z * n.slope);
      }
      store_streaming(out + k * V, to_words<T>(values));
    }
  }

  // Write the units that are inside of rows.
  __device__ __forceinline__ void write_rows(int lanes) const {
    const int lane = static_cast<int>(threadIdx.x) % lanes, width = n.padded_width();
    for_rows<V>(first_unit(y, range.begin), range, width, n.pad, lanes, [&](int row, int64_t i, int count) {
      const int source = source_of(row, n.height, n);
      const int column = static_cast<int>(i - static_cast<int64_t>(row) * width) - n.pad;
      T* out = y + i;
      if (source < 0) {
        for (int k = lane; k < count; k += lanes) store_streaming(out + k * V, Words{});
        return;
      }
      const Row<T> from = x.row(static_cast<int64_t>(source) * n.width + column, count);
      if (residual == nullptr && from.begin == 0 && from.end >= count && n.slope >= 0.f && n.slope <= 1.f) {
        if (n.slope == 0.f)
          return from.shift == 0 ? write_held<true, false>(from, out, count, lane, lanes)
                                 : write_held<true, true>(from, out, count, lane, lanes);
        return from.shift == 0 ? write_held<false, false>(from, out, count, lane, lanes)
                               : write_held<false, true>(from, out, count, lane, lanes);
      }
      const T* added = residual + source * residual_row + column;
      const int64_t at = source * residual_row + column;
      const bool inside = at >= V && at + static_cast<int64_t>(count + 1) * V <= residual_size;
#pragma unroll 1
      for (int k = lane; k < count; k += lanes) {
        if (residual == nullptr) {
          store_streaming(out + k * V, result(from[k], nullptr));
        } else {
          const Words more = load_run(added + k * V, inside);
          store_streaming(out + k * V, result(from[k], &more));
        }
      }
    });
  }

  // The others.
  __device__ __forceinline__ void write_ends() const {
    const int width = n.padded_width();
    for_row_ends<V>(first_unit(y, range.begin), range, width, n.pad, [&](int64_t i, const Cursor& at) {
      const int row = source_of(at.row, n.height, n), column = source_of(at.column, n.width, n);
      float value = 0.f;
      if (row >= 0 && column >= 0) {
        value = activate(affine(to_float(x.at(static_cast<int64_t>(row) * n.width + column))), n.slope);
        if (residual != nullptr) value += to_float(residual[row * residual_row + column]);
      }
      y[i] = from_float<T>(value);
    });
  }
};

// Write the part of y that goes with a part of x.
template <typename T>
__device__ __forceinline__ void write_part(const Part& part, const Window<T>& x, const Residual<T>& residual, T* y,
                                           const Moments& moments, float origin, int chunk, const Parts& parts,
                                           const Norm& n) {
  const bool first = part.index == 0 && chunk == 0, last = part.index == parts.count - 1 && chunk == parts.chunks - 1;
  const float rstd = rstd_of(moments.m2, n);
  if (first && threadIdx.x == 0) {
    n.mean[part.plane] = origin + moments.mean;
    n.rstd[part.plane] = rstd;
  }
  const Affine affine(n, part.plane % n.channels, origin, moments.mean, rstd);
  Range range = part.padded_range(n);
  if (first) range.begin = 0;
  if (last) range.end = parts.padded_pixels;
  const int64_t residual_size = (n.height - 1) * residual.row + n.width;
  const T* added = residual.plane(part.plane, n.channels);
  const Writer<T> writer{x, added, residual.row, residual_size, y + parts.padded_pixels * part.plane, range, affine, n};
  writer.write_rows(parts.lanes);
  writer.write_ends();
}

// Where an item's arrays are in shared memory.
template <typename T>
__device__ __forceinline__ T* buffer_of(float* shared, const Parts& parts, bool odd) {
  const int units = parts.held + parts.padded_held;
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

// Fill shared memory again, when no thread reads it any more.
template <typename F>
__device__ __forceinline__ void replace(const F& fill) {
  __syncthreads();
  fill();
}

template <typename T>
__global__ void __launch_bounds__(kPlaneThreads, kPlaneBlocks)
    instance_norm_act_fwd_nchw_kernel(const T* __restrict__ x,  // [B, C, H, W]
                                      Residual<T> residual,     // [B, C, H, W] or none
                                      T* __restrict__ y,        // [B, C, H + 2 pad, W + 2 pad]
                                      Norm n, Parts parts) {
  HD_SHARED(float, shared);
  const auto part_of = [&](unsigned item, int chunk) { return Part(x, parts, item, chunk); };
  const auto window_of = [&](const Part& part, bool odd) {
    return part.window(x, parts, buffer_of<T>(shared, parts, odd));
  };
  const auto prefetch = [&](unsigned item, int chunk, bool odd) {
    if (item < parts.items) window_of(part_of(item, chunk), odd).fill();
  };
  prefetch(blockIdx.x, 0, false);
  if (parts.count > 1) clear_counters(n, parts);
  bool odd = false;
  for (unsigned item = blockIdx.x; item < parts.items; item += gridDim.x, odd = !odd) {
    const Part part = part_of(item, 0);
    const float origin = to_float(x[parts.pixels * part.plane]);
    Moments moments;
    for (int chunk = 0; chunk < parts.chunks; ++chunk) {
      if (chunk > 0) replace([&] { prefetch(item, chunk, odd); });
      copies_arrived();
      __syncthreads();
      merge_part(moments, window_of(part_of(item, chunk), odd), origin);
    }
    moments = block_moments(moments, shared);
    if (parts.count > 1) publish(n, parts, part, item, moments.mean, moments.m2);
    if (parts.buffers == 2) prefetch(item + gridDim.x, 0, !odd);
    if (parts.count > 1) {
      await_plane(parts, part);
      moments = Moments();
      for (int s = threadIdx.x; s < parts.count; s += blockDim.x) {
        const int64_t at = 2 * (static_cast<int64_t>(part.plane) * parts.count + s);
        moments.merge({part.size(s, parts, kPack<T>), n.scratch[at], n.scratch[at + 1]});
      }
      moments = block_moments(moments, shared);
    }
    for (int chunk = parts.chunks - 1; chunk >= 0; --chunk) {
      if (chunk < parts.chunks - 1) {
        replace([&] { prefetch(item, chunk, odd); });
        copies_arrived();
        __syncthreads();
      }
      const Part now = part_of(item, chunk);
      write_part(now, window_of(now, odd), residual, y, moments, origin, chunk, parts, n);
    }
    if (parts.buffers == 1) replace([&] { prefetch(item + gridDim.x, 0, false); });
  }
}

// Add dz and dz * (x - mean) of V pixels to the sums.
template <int V>
__device__ __forceinline__ void add_pixels(const float (&x)[V], const float (&g)[V], const Affine& affine, float slope,
                                           float& dz, float& dz_centred) {
#pragma unroll
  for (int k = 0; k < V; ++k) {
    const float d = affine(x[k]) > 0.f ? g[k] : damp(g[k], slope);
    dz += d;
    dz_centred += d * (x[k] - affine.origin);
  }
}

// Turn x into dx.
template <int V>
__device__ __forceinline__ void differentiate(float (&x)[V], const float (&g)[V], const Affine& affine,
                                              const Gradient& gradient, float slope) {
#pragma unroll
  for (int k = 0; k < V; ++k) {
    const float d = affine(x[k]) > 0.f ? g[k] : damp(g[k], slope);
    x[k] = gradient(d, x[k] - affine.origin);
  }
}

// To memory that this kernel does not read.
template <typename T, int V>
__device__ __forceinline__ void store_result(T* address, const float (&values)[V]) {
  if constexpr (V == 1) {
    *address = from_float<T>(values[0]);
  } else {
    const Words words = to_words<T>(values);
    if (is_aligned<V>(address)) return store_streaming(address, words);
    const auto pack = bit_cast<Pack<T, V>>(words);
#pragma unroll
    for (int k = 0; k < V; ++k) address[k] = pack.at[k];
  }
}

// A part of x and the rows of dy that go with it.
template <typename T>
struct Pair {
  static constexpr int V = kPack<T>;
  Window<T> x, dy;

  // Add the copies of pixels in the padding of dy to the pixels they are of. A sum is rounded, so that dresidual, the
  // sums and dx use the same number.
  __device__ __forceinline__ void fold(const Range& range, const Norm& n) const {
    if (n.pad == 0 || n.pad_mode == PadMode::zero || range.begin == range.end) return;
    const int reach = n.pad_mode == PadMode::reflect ? n.pad + 1 : 1;  // no pixel this far from all edges has copies
    const int begin = Cursor(range.begin, n.width).row, rows = Cursor(range.end - 1, n.width).row + 1 - begin;
    const int top = min(reach, n.height),
              bottom = max(n.height - reach, top);  // between these, only the ends of rows have copies
    const int low = clamped(min(top - begin, rows)), high = clamped(min(begin + rows - bottom, rows));
    const int whole = (low + high) * n.width, ends = min(2 * reach, n.width);
#pragma unroll 1
    for (int k = threadIdx.x; k < whole + rows * ends; k += blockDim.x) {
      int row, column;
      if (k < whole) {  // rows near the top and the bottom
        row = k / n.width;
        column = k - row * n.width;
        row += row < low ? begin : begin + rows - high - low;
      } else {  // the ends of the other rows
        row = (k - whole) / ends;
        column = k - whole - row * ends;
        if (column >= reach) column += n.width - ends;
        row += begin;
        if (row < top || row >= bottom) continue;
      }
      fold_pixel(row, column, range, n);
    }
    __syncthreads();
  }

  __device__ __forceinline__ void fold_pixel(int row, int column, const Range& range, const Norm& n) const {
    const int64_t pixel = static_cast<int64_t>(row) * n.width + column;
    const Copies rows(row, n.height, n), columns(column, n.width, n);
    if (pixel < range.begin || pixel >= range.end || rows.count() * columns.count() == 1) return;
    const int width = n.padded_width();
    float sum = 0.f;
#pragma unroll 1
    for (int r = 0; r < rows.count(); ++r)
#pragma unroll 1
      for (int c = 0; c < columns.count(); ++c)
        sum += to_float(dy.at(static_cast<int64_t>(rows[r]) * width + columns[c]));
    dy.shared[static_cast<int64_t>(rows.middle) * width + columns.middle - dy.first] = from_float<T>(sum);
  }

  // Call fn(i, x, dy) with this thread's share of a folded part, as packs and, at the ends of rows, as single elements.
  template <typename F>
  __device__ __forceinline__ void for_pixels(const Range& range, int lanes, const Norm& n, const F& fn) const {
    const int lane = static_cast<int>(threadIdx.x) % lanes, width = n.padded_width();
    for_rows<V>(x.first, range, n.width, 0, lanes, [&](int row, int64_t i, int count) {
      const int column = static_cast<int>(i - static_cast<int64_t>(row) * n.width);
      const int64_t padded = static_cast<int64_t>(row + n.pad) * width + column + n.pad - dy.first;
      const T* from = x.shared + (i - x.first);
      const int shift = static_cast<int>(padded & (V - 1));
      const T* upstream = dy.shared + (padded - shift);
#pragma unroll 1
      for (int k = lane; k < count; k += lanes) {
        float values[V], g[V];
        to_floats<T>(load_words(from + k * V), values);
        to_floats<T>(shift == 0 ? load_words(upstream + k * V) : shifted(upstream + k * V, shift), g);
        fn(i + k * V, values, g);
      }
    });
    for_row_ends<V>(x.first, range, n.width, 0, [&](int64_t i, const Cursor& at) {
      const int64_t padded = static_cast<int64_t>(at.row + n.pad) * width + at.column + n.pad;
      float values[1] = {to_float(x.shared[i - x.first])}, g[1] = {to_float(dy.shared[padded - dy.first])};
      fn(i, values, g);
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
  HD_SHARED(float, shared);
  const auto part_of = [&](unsigned item, int chunk) { return Part(x, parts, item, chunk); };
  const auto pair_of = [&](const Part& part, bool odd) {
    T* buffer = buffer_of<T>(shared, parts, odd);
    return Pair<T>{part.window(x, parts, buffer), part.padded_window(dy, n, parts, buffer + parts.held * kPack<T>)};
  };
  const auto prefetch = [&](unsigned item, int chunk, bool odd) {
    if (item >= parts.items) return;
    const Pair<T> next = pair_of(part_of(item, chunk), odd);
    next.x.fill();
    next.dy.fill();
  };
  // Wait for a chunk's copies and call fn with its pixels.
  const auto for_pixels = [&](const Part& part, bool arrived, bool odd, const auto& fn) {
    const Pair<T> pair = pair_of(part, odd);
    if (!arrived) {
      copies_arrived();
      __syncthreads();
      pair.fold(part.range, n);
    }
    pair.for_pixels(part.range, parts.lanes, n, fn);
  };
  prefetch(blockIdx.x, 0, false);
  if (parts.count > 1) clear_counters(n, parts);
  bool odd = false;
  for (unsigned item = blockIdx.x; item < parts.items; item += gridDim.x, odd = !odd) {
    const Part part = part_of(item, 0);
    const float rstd = n.rstd[part.plane];
    const Affine affine(n, part.plane % n.channels, n.mean[part.plane], 0.f, rstd);
    float dz = 0.f, dz_xhat = 0.f;
    for (int chunk = 0; chunk < parts.chunks; ++chunk) {
      if (chunk > 0) replace([&] { prefetch(item, chunk, odd); });
      for_pixels(part_of(item, chunk), false, odd,
                 [&](int64_t, auto& values, auto& g) { add_pixels(values, g, affine, n.slope, dz, dz_xhat); });
    }
    block_sums(dz, dz_xhat, shared);
    dz_xhat *= rstd;
    if (parts.count > 1) publish(n, parts, part, item, dz, dz_xhat);
    if (parts.buffers == 2) prefetch(item + gridDim.x, 0, !odd);
    if (parts.count > 1) {
      await_plane(parts, part);
      dz = dz_xhat = 0.f;
      for (int s = threadIdx.x; s < parts.count; s += blockDim.x) {
        const int64_t at = 2 * (static_cast<int64_t>(part.plane) * parts.count + s);
        dz += n.scratch[at];
        dz_xhat += n.scratch[at + 1];
      }
      block_sums(dz, dz_xhat, shared);
    }
    if (part.index == 0 && threadIdx.x == 0) {
      n.sums[part.plane] = dz;
      n.sums[n.planes + part.plane] = dz_xhat;
    }
    const Gradient gradient(affine.scale, rstd, dz, dz_xhat, n.per_pixel);
    const int64_t offset = parts.pixels * part.plane;
    for (int chunk = parts.chunks - 1; chunk >= 0; --chunk) {
      const bool arrived = chunk == parts.chunks - 1;
      if (!arrived) replace([&] { prefetch(item, chunk, odd); });
      for_pixels(part_of(item, chunk), arrived, odd, [&](int64_t i, auto& values, auto& g) {
        if (dresidual != nullptr) store_result(dresidual + offset + i, g);
        differentiate(values, g, affine, gradient, n.slope);
        store_result(dx + offset + i, values);
      });
    }
    if (parts.buffers == 1) replace([&] { prefetch(item + gridDim.x, 0, false); });
  }
}

}  // namespace
}  // namespace hd::cuda
