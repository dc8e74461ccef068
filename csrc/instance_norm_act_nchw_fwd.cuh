// instance_norm_act of contiguous images, forward.
#pragma once

#include "instance_norm_act_nchw.cuh"

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

#pragma unroll 1
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

#pragma unroll 1
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

// The moments of a plane, of those of its parts, when all blocks have handed them over.
template <int V>
__device__ __forceinline__ Moments plane_moments(const Norm& n, const Parts& parts, const Part& part, float* shared) {
  await_plane(parts, part);
  Moments moments;

#pragma unroll 1
  for (int k = threadIdx.x; k < parts.count; k += blockDim.x) {
    const float* partial = n.scratch + 2 * (static_cast<int64_t>(part.plane) * parts.count + k);
    moments.merge({part.size(k, parts, V), partial[0], partial[1]});
  }
  return block_moments(moments, shared);
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
      copies_arrived();
      __syncthreads();
      merge_part(moments, window_of(part_of(item, chunk), odd), origin);
      const bool more = chunk + 1 < parts.chunks;
      if (more) {
        __syncthreads();
      } else {
        moments = block_moments(moments, shared);
        if (parts.count > 1) publish(n, parts, part, item, moments.mean, moments.m2);
      }
      if (more || parts.buffers == 2) prefetch(more ? item : item + gridDim.x, more ? chunk + 1 : 0, more ? odd : !odd);
    }
    if (parts.count > 1) moments = plane_moments<kPack<T>>(n, parts, part, shared);
    for (int chunk = parts.chunks - 1; chunk >= 0; --chunk) {
      if (chunk < parts.chunks - 1) {
        copies_arrived();
        __syncthreads();
      }
      const Part now = part_of(item, chunk);
      write_part(now, window_of(now, odd), residual, y, moments, origin, chunk, parts, n);
      if (parts.buffers == 2) break;
      __syncthreads();
      prefetch(chunk > 0 ? item : item + gridDim.x, max(chunk - 1, 0), false);
    }
  }
}

}  // namespace
}  // namespace hd::cuda
