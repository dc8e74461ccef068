// instance_norm_act of contiguous images, backward.
#pragma once

#include "instance_norm_act_nchw.cuh"

namespace hd::cuda {
namespace {

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
    const int reach = n.pad_mode == PadMode::reflect ? n.pad + 1 : 1;  // a pixel this far from all edges has no copies
    const int begin = Cursor(range.begin, n.width).row, rows = Cursor(range.end - 1, n.width).row + 1 - begin;
    // From row `top` to row `bottom`, only the ends of rows have copies. So many other rows are above and below.
    const int top = min(reach, n.height), bottom = max(n.height - reach, top);
    const int low = clamped(min(top - begin, rows)), high = clamped(min(begin + rows - bottom, rows));
    const int whole = (low + high) * n.width, ends = min(2 * reach, n.width);
#pragma unroll 1
    for (int k = threadIdx.x; k < whole + rows * ends; k += blockDim.x) {
      int row, column;
      if (k < whole) {  // a pixel of those
        row = k / n.width;
        column = k - row * n.width;
        row += row < low ? begin : begin + rows - high - low;
      } else {  // one at the end of a row
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

// The sums of a plane, of those of its parts, when all blocks have handed them over.
__device__ __forceinline__ void plane_sums(const Norm& n, const Parts& parts, const Part& part, float* shared,
                                           float& dz, float& dz_xhat) {
  await_plane(parts, part);
  dz = dz_xhat = 0.f;

#pragma unroll 1
  for (int k = threadIdx.x; k < parts.count; k += blockDim.x) {
    const float* partial = n.scratch + 2 * (static_cast<int64_t>(part.plane) * parts.count + k);
    dz += partial[0];
    dz_xhat += partial[1];
  }
  block_sums(dz, dz_xhat, shared);
}

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
      for_pixels(part_of(item, chunk), false, odd,
                 [&](int64_t, auto& values, auto& g) { add_pixels(values, g, affine, n.slope, dz, dz_xhat); });
      const bool more = chunk + 1 < parts.chunks;
      if (more) {
        __syncthreads();
      } else {
        block_sums(dz, dz_xhat, shared);
        dz_xhat *= rstd;
        if (parts.count > 1) publish(n, parts, part, item, dz, dz_xhat);
      }
      if (more || parts.buffers == 2) prefetch(more ? item : item + gridDim.x, more ? chunk + 1 : 0, more ? odd : !odd);
    }
    if (parts.count > 1) plane_sums(n, parts, part, shared, dz, dz_xhat);
    if (part.index == 0 && threadIdx.x == 0) {
      n.sums[part.plane] = dz;
      n.sums[n.planes + part.plane] = dz_xhat;
    }
    const Gradient gradient(affine.scale, rstd, dz, dz_xhat, n.per_pixel);
    const int64_t offset = parts.pixels * part.plane;
    for (int chunk = parts.chunks - 1; chunk >= 0; --chunk) {
      for_pixels(part_of(item, chunk), chunk == parts.chunks - 1, odd, [&](int64_t i, auto& values, auto& g) {
        if (dresidual != nullptr) store_result(dresidual + offset + i, g);
        differentiate(values, g, affine, gradient, n.slope);
        store_result(dx + offset + i, values);
      });
      if (parts.buffers == 2) break;
      __syncthreads();
      prefetch(chunk > 0 ? item : item + gridDim.x, max(chunk - 1, 0), false);
    }
  }
}

}  // namespace
}  // namespace hd::cuda
