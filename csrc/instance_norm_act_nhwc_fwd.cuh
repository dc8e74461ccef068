// The forward pass of instance_norm_act for channels_last images.
#pragma once

#include "instance_norm_act_nhwc.cuh"

namespace hd::cuda {
namespace {

template <typename T>
struct PixelResidual {
  const T* data;               // [B, C, H, W] or null
  int64_t batch, row, column;  // strides
};

// Sums over the pixels of a thread, of numbers less its first pixel. Among N numbers of which the first is so far from
// the others that the squares cancel, the variance is so large that the error is at most about N roundings of it.
template <int V>
struct PixelSums {
  float pivot[V] = {}, sum[V] = {}, squares[V] = {};

  template <typename T>
  __device__ __forceinline__ void add(const Pack<T, V>& pack) {
    float values[V];
    unpack(pack, values);
#pragma unroll
    for (int k = 0; k < V; ++k) {
      const float d = values[k] - pivot[k];
      sum[k] += d;
      squares[k] += d * d;
    }
  }
};

// Read the part and hold its last steps. x begins at this thread's first element.
template <typename T, int V>
__device__ __forceinline__ PixelSums<V> add_up(const T* x, const Share<V>& own, const Norm& n, const Tiling& t,
                                               T* held) {
  const int64_t stride = static_cast<int64_t>(t.rows) * n.channels;
  const int pitch = t.rows * t.lanes * V;
  PixelSums<V> sums;
  held += threadIdx.x * V - own.head * pitch;
  own.forwards([&](int step, auto count) {
    constexpr int N = decltype(count)::value;
    Pack<T, V> packs[N];
#pragma unroll
    for (int i = 0; i < N; ++i) packs[i] = load_pack<V>(x + (step + i) * stride);
    if (step == 0) unpack(packs[0], sums.pivot);
#pragma unroll
    for (int i = 0; i < N; ++i) {
      if (step >= own.head) hold(held + (step + i) * pitch, packs[i]);
      sums.add(packs[i]);
    }
  });
  return sums;
}

// The mean, less that of the first pixel of the image, and the summed squared deviations of a part's channels.
template <typename T, int V>
__device__ __forceinline__ void part_moments(const PixelSums<V>& sums, const Pack<T, V>& first, const Share<V>& own,
                                             const Tiling& t, const Shared<T, V>& shared) {
  const float count = static_cast<float>(own.steps), share = own.steps > 0 ? __fdividef(1.f, count) : 0.f;
  float mean[V], a[V], b[V], origin[V];
  unpack(first, origin);
  float* level = shared.table + own.lane * V;  // the mean of the first row
#pragma unroll
  for (int k = 0; k < V; ++k) {
    const float shift = sums.sum[k] * share, m2 = sums.squares[k] - sums.sum[k] * shift;
    mean[k] = sums.pivot[k] - origin[k] + shift;
    b[k] = m2 < 0.f ? 0.f : m2;
    if (own.row == 0) level[k] = mean[k];
  }
  __syncthreads();
#pragma unroll
  for (int k = 0; k < V; ++k) {
    const float d = mean[k] - level[k];
    a[k] = own.steps > 0 ? d * count : 0.f;
    b[k] = own.steps > 0 ? b[k] + d * d * count : 0.f;
  }
  sum_rows(a, b, t.lanes, t.rows, shared.cells, shared.totals);
}

// The mean and the summed squared deviations of `count` numbers of which those of their difference to `level` are
// given.
__device__ __forceinline__ Pair moments_of(Pair sums, float level, float count) {
  const float shift = __fdividef(sums.a, count), m2 = sums.b - sums.a * shift;
  return {level + shift, m2 < 0.f ? 0.f : m2};
}

// The same for the whole unit, from the moments of its parts.
template <typename T, int V>
__device__ __forceinline__ Pair unit_moments(const Share<V>& own, const Norm& n, const Tiling& t, int round,
                                             const Shared<T, V>& shared) {
  const int channels = t.lanes * V, thread = threadIdx.x;
  Pair moments{0.f, 0.f};
  if (thread < channels)
    moments = moments_of(shared.totals[thread], shared.table[thread], static_cast<float>(own.pixels));
  if (t.parts == 1) return moments;
  Pair* partial = partial_of(t, channels, round);
  if (thread < channels) partial[own.part * channels + thread] = moments;
  meet(t, round);
  const auto load = [&](int s, int channel) {
    const Pair part = partial[s * channels + channel];
    const float d = part.a - partial[channel].a;
    const float count = static_cast<float>(min(t.part, n.pixels() - s * t.part));
    return Pair{d * count, part.b + d * d * count};
  };
  merge_parts(load, t.parts, channels, shared.cells, shared.totals);
  if (thread < channels) moments = moments_of(shared.totals[thread], partial[thread].a, static_cast<float>(n.pixels()));
  return moments;
}

// Write the mean and rstd of a unit, once, and leave the affine maps of its channels in the table: origins, scales,
// shifts. x begins at the image.
template <typename T, int V>
__device__ __forceinline__ void make_affines(Pair moments, const T* x, const Share<V>& own, const Norm& n,
                                             const Tiling& t, const Shared<T, V>& shared) {
  const int channels = t.lanes * V, thread = threadIdx.x, channel = own.channel - own.lane * V + thread;
  if (thread < channels && channel < n.channels) {
    const float rstd = rstd_of(moments.b, n), origin = to_float(x[channel]);
    const Affine affine(n, channel, origin, moments.a, rstd);
    shared.table[thread] = affine.origin;
    shared.table[channels + thread] = affine.scale;
    shared.table[2 * channels + thread] = affine.shift;
    if (own.part == 0) {
      n.mean[own.image * n.channels + channel] = origin + moments.a;
      n.rstd[own.image * n.channels + channel] = rstd;
    }
  }
  __syncthreads();
}

// What writes pixels of y.
template <typename T, int V>
struct Writer {
  float origin[V], scale[V], shift[V];

  __device__ __forceinline__ Pack<T, V> operator()(const Pack<T, V>& pack, bool adds, const Pack<T, V>& added,
                                                   float slope) const {
    float values[V];
    unpack(pack, values);
#pragma unroll
    for (int k = 0; k < V; ++k) values[k] = (values[k] - origin[k]) * scale[k] + shift[k];
    if (slope == 0.f) {
#pragma unroll
      for (int k = 0; k < V; ++k) values[k] = values[k] < 0.f ? 0.f : values[k];
    } else if (slope != 1.f) {
#pragma unroll
      for (int k = 0; k < V; ++k) values[k] = values[k] < 0.f ? values[k] * slope : values[k];
    }
    if (adds) {
      float plus[V];
      unpack(added, plus);
#pragma unroll
      for (int k = 0; k < V; ++k) values[k] += plus[k];
    }
    return packed<T>(values);
  }
};

// Write y, from the last step of the part to the first. x, residual and y begin at the image and this thread's
// channels.
template <typename T, int V>
__device__ __forceinline__ void write_part(const T* x, const PixelResidual<T>& residual, T* y,
                                           const Writer<T, V>& writer, const Share<V>& own, const Norm& n,
                                           const Tiling& t, const T* held) {
  const int64_t first = (own.first + own.row) * n.channels, stride = static_cast<int64_t>(t.rows) * n.channels;
  const int pitch = t.rows * t.lanes * V;
  const bool adds = residual.data != nullptr;
  held += threadIdx.x * V - own.head * pitch;
  own.backwards([&](int step, auto count) {
    constexpr int N = decltype(count)::value;
    const Padded<N> to(own, n, t, step);
    Pack<T, V> packs[N], added[N];
#pragma unroll
    for (int i = 0; i < N; ++i) {
      if (step >= own.head)
        packs[i] = load_pack<V>(held + (step + i) * pitch);
      else
        packs[i] = load_pack<V>(x + first + (step + i) * stride);
    }
    if (adds) {
#pragma unroll
      for (int i = 0; i < N; ++i)
        added[i] =
            load_pack<V>(residual.data + (t.flat ? first + (step + i) * stride
                                                 : to.at[i].row * residual.row + to.at[i].column * residual.column));
    }
#pragma unroll
    for (int i = 0; i < N; ++i) {
      packs[i] = writer(packs[i], adds, added[i], n.slope);
      store_result(y + to.pixel[i] * n.channels, packs[i]);
    }
#pragma unroll
    for (int i = 0; i < N; ++i)
      if (to.near[i]) for_copies(n, to.at[i], [&](int64_t pixel) { store_result(y + pixel * n.channels, packs[i]); });
  });
}

// Zeros around an image, of which each part of a unit writes its share. y begins at the image and this thread's
// channels.
template <typename T, int V>
__device__ __forceinline__ void write_zeros(T* y, const Share<V>& own, const Norm& n, const Tiling& t) {
  const int64_t band = static_cast<int64_t>(n.pad) * n.padded_width(), all = n.padded_pixels() - n.pixels();
#pragma unroll 1
  for (int64_t i = own.part * t.rows + own.row; i < all; i += t.parts * t.rows) {
    int64_t pixel = i;                                                                // above the image
    if (i >= band) pixel += n.pixels() + static_cast<int64_t>(2 * n.pad) * n.height;  // below it
    if (i >= 2 * band) {                                                              // beside it
      const int64_t beside = i - 2 * band, row = beside / (2 * n.pad);
      const int column = static_cast<int>(beside - row * 2 * n.pad);
      pixel = band + row * n.padded_width() + (column < n.pad ? column : n.width + column);
    }
    store_result(y + pixel * n.channels, Pack<T, V>{});
  }
}

template <typename T, int V>
__global__ void __launch_bounds__(kPixelThreads, 2)
    instance_norm_act_fwd_nhwc_kernel(const T* __restrict__ x,    // [B, C, H, W], channels last
                                      PixelResidual<T> residual,  // [B, C, H, W], channels last, or none
                                      T* __restrict__ y,          // [B, C, H + 2 pad, W + 2 pad], channels last
                                      Norm n, Tiling t) {
  HD_SHARED(unsigned char, memory);
  const Shared<T, V> shared(memory, t.lanes);
  const int part = blockIdx.x % t.parts;
  int unit = blockIdx.x / t.parts;
  if (part == 0 && threadIdx.x == 0) t.counters[unit] = 0;  // nobody counts before all have met in the first round
#pragma unroll 1
  for (int round = 0; unit < t.units; ++round, unit += t.at_once) {
    const Share<V> own(n, t, unit, part);
    const T* image = x + own.offset(n, n.pixels(), 0);
    const auto sums = add_up(image + (own.first + own.row) * n.channels, own, n, t, shared.held);
    part_moments(sums, own.works ? load_pack<V>(image) : Pack<T, V>{}, own, t, shared);
    make_affines(unit_moments(own, n, t, round, shared), image - own.channel, own, n, t, shared);
    Writer<T, V> writer;
    read_table(writer.origin, 0, own, t, shared);
    read_table(writer.scale, 1, own, t, shared);
    read_table(writer.shift, 2, own, t, shared);
    __syncthreads();
    if (!own.works) continue;
    T* out = y + own.offset(n, n.padded_pixels(), 0);
    PixelResidual<T> added = residual;
    if (added.data != nullptr) added.data += own.image * added.batch + own.channel;
    write_part(image, added, out, writer, own, n, t, shared.held);
    if (n.pad > 0 && n.pad_mode == PadMode::zero) write_zeros(out, own, n, t);
  }
}

}  // namespace
}  // namespace hd::cuda
