// The forward pass of instance_norm_act for channels_last images.
#pragma once

#include "instance_norm_act_nhwc_merge.cuh"

namespace hd::cuda {
namespace {

template <typename T>
struct PixelResidual {
  const T* data;               // [B, C, H, W] or null
  int64_t batch, row, column;  // strides
};

// Sums over the pixels of a thread, of numbers less a pivot. That is the first of them, and then from time to time the
// mean so far: squares of numbers that are large beside their deviations would leave few digits of those.
template <typename T, int V>
struct PixelSums {
  float pivot[V] = {}, sum[V] = {}, squares[V] = {};

  // Express the sums of so many numbers by their mean.
  __device__ __forceinline__ void turn_to_mean(int count) {
    const float share = __fdividef(1.f, static_cast<float>(count));
#pragma unroll
    for (int k = 0; k < V; ++k) {
      const float mean = pivot[k] + sum[k] * share, d = mean - pivot[k], all = d * static_cast<float>(count);
      squares[k] -= d * (2.f * sum[k] - all);
      sum[k] -= all;
      pivot[k] = mean;
    }
  }
  __device__ __forceinline__ void add(const Raw<T, V>& pack) {
    float values[V];
    unpack<T, V>(pack, values);
#pragma unroll
    for (int k = 0; k < V; ++k) {
      const float d = values[k] - pivot[k];
      sum[k] += d;
      squares[k] += d * d;
    }
  }
};

// Read the part and hold its first steps. x begins at the part.
template <typename T, int V>
__device__ __forceinline__ PixelSums<T, V> add_up(const T* x, const Share<V>& own, const Tiling& t, T* held) {
  const int pitch = t.rows * t.lanes * V;
  PixelSums<T, V> sums;
  if (!own.works) return sums;
  held += threadIdx.x * V;
  own.template forwards<kSteps<V>>([&](int step, auto count) {
    constexpr int N = decltype(count)::value;
    Raw<T, V> packs[N];
#pragma unroll
    for (int i = 0; i < N; ++i) {
      const T* const address = advanced(x, own.pixel(t, step + i), t);
      packs[i] = step < own.kept ? load_streaming<V>(address) : load<V>(address);
    }
    if (step == 0) unpack<T, V>(packs[0], sums.pivot);
    // Among twice as many numbers, those that the mean missed weigh no more than all that it saw.
    if (N > 1 && step > 0 && (step & (step - 1)) == 0) sums.turn_to_mean(step);
#pragma unroll
    for (int i = 0; i < N; ++i) {
      if (step < own.kept) hold(held + (step + i) * pitch, packs[i]);
      sums.add(packs[i]);
    }
  });
  return sums;
}

// The mean, less that of the first pixel of the image, and the summed squared deviations of a part's channels.
template <typename T, int V>
__device__ __forceinline__ void part_moments(const PixelSums<T, V>& sums, const Raw<T, V>& first, const Share<V>& own,
                                             const Tiling& t, const Shared<T, V>& shared) {
  const float count = static_cast<float>(own.steps), share = own.steps > 0 ? __fdividef(1.f, count) : 0.f;
  float mean[V], a[V], b[V], origin[V];
  unpack<T, V>(first, origin);
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
__device__ __forceinline__ SumPair moments_of(SumPair sums, float level, float count) {
  const float shift = __fdividef(sums.a, count), m2 = sums.b - sums.a * shift;
  return {level + shift, m2 < 0.f ? 0.f : m2};
}

// The moments of the channels of a slice from those of the parts, in two passes: of the mean, and about it.
template <typename T, int V>
__device__ __forceinline__ SumPair merged_moments(const Slice& slice, const SumPair* partial, const Norm& n,
                                                  const Tiling& t, const Shared<T, V>& shared) {
  const int thread = threadIdx.x;
  const float level = partial[slice.channel].a, all = static_cast<float>(n.pixels());
  const auto count = [&](int i) { return static_cast<float>(min(t.part, n.pixels() - slice.part_of(i) * t.part)); };
  float a[1] = {0.f}, b[1] = {0.f};
#pragma unroll
  for (int i = 0; i < kMerged; ++i)
    if (slice.has(i, t)) a[0] += (slice.sums[i].a - level) * count(i);
  sum_rows(a, b, slice.channels, slice.rows, shared.cells, shared.totals);
  const float mean = level + __fdividef(shared.totals[slice.channel - slice.first].a, all);
#pragma unroll
  for (int i = 0; i < kMerged; ++i) {
    const float d = slice.sums[i].a - mean;
    if (slice.has(i, t)) b[0] += slice.sums[i].b + d * d * count(i);
  }
  sum_rows(a, b, slice.channels, slice.rows, shared.cells, shared.totals);
  return thread < slice.channels ? SumPair{mean, shared.totals[thread].b} : SumPair{0.f, 0.f};
}

// Write the mean and rstd of a unit, once, and leave the affine maps of its channels in the table: origins, scales,
// shifts. x begins at the image.
template <typename T, int V>
__device__ __forceinline__ void make_affines(SumPair moments, const T* x, const Share<V>& own, const Norm& n,
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

// Steps that a thread writes at once: fewer single elements, because it needs their places, too.
template <int V>
constexpr int kWriteSteps = V == 1 ? kSteps<V> / 2 : kSteps<V>;

// ReLU, with NaN for NaN.
__device__ __forceinline__ float relu(float z) {
#ifdef __CUDA_ARCH__
  float y;
  asm("max.NaN.f32 %0, %1, 0f00000000;" : "=f"(y) : "f"(z));
  return y;
#else
  return z < 0.f ? 0.f : z;
#endif
}

// packed(relu(values)): the conversion to 16 bits does it at no cost.
template <typename T, int V>
__device__ __forceinline__ Raw<T, V> packed_relu(float (&values)[V]) {
#ifdef __CUDA_ARCH__
  constexpr bool kConverts = V == 8;
#else
  constexpr bool kConverts = V < 0;
#endif
  if constexpr (kConverts) {
    Words words;
#pragma unroll
    for (int k = 0; k < V; k += 2) {
      if constexpr (std::is_same_v<T, bf16>)
        asm("cvt.rn.relu.bf16x2.f32 %0, %1, %2;" : "=r"(words.at[k / 2]) : "f"(values[k + 1]), "f"(values[k]));
      else
        asm("cvt.rn.relu.f16x2.f32 %0, %1, %2;" : "=r"(words.at[k / 2]) : "f"(values[k + 1]), "f"(values[k]));
    }
    return words;
  } else {
#pragma unroll
    for (int k = 0; k < V; ++k) values[k] = relu(values[k]);
    return packed<T, V>(values);
  }
}

// The pixels of y from those of x.
template <typename T, int V>
struct Map {
  float origin[V], scale[V], shift[V];

  __device__ __forceinline__ void normalise(const Raw<T, V>& x, float (&values)[V]) const {
    unpack<T, V>(x, values);
#pragma unroll
    for (int k = 0; k < V; ++k) values[k] = (values[k] - origin[k]) * scale[k] + shift[k];
  }
  // Without residual and slope.
  template <bool kRelu>
  __device__ __forceinline__ Raw<T, V> plain(const Raw<T, V>& x) const {
    float values[V];
    normalise(x, values);
    return kRelu ? packed_relu<T, V>(values) : packed<T, V>(values);
  }
  __device__ __forceinline__ Raw<T, V> general(const Raw<T, V>& x, bool adds, const Raw<T, V>& added, const Tiling& t,
                                               float slope) const {
    float values[V], plus[V] = {};
    normalise(x, values);
    if (adds) unpack<T, V>(added, plus);
    if (t.leaky) {
#pragma unroll
      for (int k = 0; k < V; ++k) values[k] = values[k] < 0.f ? values[k] * slope : values[k];
    } else if (t.relu) {
#pragma unroll
      for (int k = 0; k < V; ++k) values[k] = relu(values[k]);
    }
#pragma unroll
    for (int k = 0; k < V; ++k) values[k] += plus[k];
    return packed<T, V>(values);
  }
};

// Write y, last steps first. x and residual begin at the part.
template <typename T, int V>
__device__ __forceinline__ void write_part(const T* x, bool adds, const PixelResidual<T>& residual, T* y,
                                           const Map<T, V>& map, const Share<V>& own, const Norm& n, const Tiling& t,
                                           const T* held) {
  const int pitch = t.rows * t.lanes * V;
  T* const image = own.in_image(y, n, n.pad);
  T* const part = own.in_part(y, n, n.pad);
  const int64_t down = residual.row - n.width * residual.column;  // from a pixel that follows the end of its row
  held += threadIdx.x * V;
  own.template backwards<kWriteSteps<V>>([&](int step, auto count) {
    constexpr int N = decltype(count)::value;
    const Places<N> to(own, n, t, step);
    Raw<T, V> packs[N], added[N];
    if (step < own.kept) {
#pragma unroll
      for (int i = 0; i < N; ++i) packs[i] = load<V>(held + (step + i) * pitch);
    } else {
#pragma unroll
      for (int i = 0; i < N; ++i) packs[i] = load<V>(advanced(x, own.pixel(t, step + i), t));
    }
    if (adds) {
#pragma unroll
      for (int i = 0; i < N; ++i) {
        const int rows = t.flat ? 0 : own.position(n, t, step + i).row - own.begin.row;
        added[i] = load<V>(residual.data + own.pixel(t, step + i) * residual.column + rows * down);
      }
    }
    const auto store_all = [&](const auto& result) {
#pragma unroll
      for (int i = 0; i < N; ++i) {
        packs[i] = result(i);
        store_result<V>(advanced(part, to.pixel[i], t), packs[i]);
      }
    };
    if (adds || t.leaky)
      store_all([&](int i) { return map.general(packs[i], adds, added[i], t, n.slope); });
    else if (t.relu)
      store_all([&](int i) { return map.template plain<true>(packs[i]); });
    else
      store_all([&](int i) { return map.template plain<false>(packs[i]); });
    if (!to.near) return;
    one_by_one(packs, [&](int i, const auto& pack) {
      for_copies(n, own.position(n, t, step + i),
                 [&](int64_t pixel) { store_result<V>(image + pixel * n.channels, pack); });
    });
  });
}

// Zeros around an image, of which each part of a unit writes its share. y begins at the image.
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
    store_result<V>(y + pixel * n.channels, Raw<T, V>{});
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
  const int part = blockIdx.x % t.parts, thread = threadIdx.x;
  int unit = blockIdx.x / t.parts;
  if (t.parts > 1 && part == 0 && thread < 2)
    t.counters[2 * unit + thread] = 0;  // nobody counts before all have met in the first round
#pragma unroll 1
  for (int round = 0; unit < t.units; ++round, unit += t.at_once) {
    const Share<V> own(n, t, unit, part);
    const T* image = own.in_image(x, n, 0);
    const auto sums = add_up(own.in_part(x, n, 0), own, t, shared.held);
    if (unit + t.at_once < t.units) {
      const Share<V> next(n, t, unit + t.at_once, part);
      prefetch(next.in_part(x, n, 0), next, t);
    }
    part_moments(sums, own.works ? load<V>(image) : Raw<T, V>{}, own, t, shared);
    SumPair moments{0.f, 0.f};
    if (thread < t.lanes * V)
      moments = moments_of(shared.totals[thread], shared.table[thread], static_cast<float>(own.pixels));
    moments = merge_parts(moments, own, t, round, [&](const Slice& slice, const SumPair* partial) {
      return merged_moments(slice, partial, n, t, shared);
    });
    make_affines(moments, image - own.channel, own, n, t, shared);
    Map<T, V> map;
    read_table(map.origin, 0, own, t, shared);
    read_table(map.scale, 1, own, t, shared);
    read_table(map.shift, 2, own, t, shared);
    __syncthreads();
    if (!own.works) continue;
    PixelResidual<T> added = residual;
    if (added.data != nullptr)
      added.data += own.image * added.batch + own.begin.row * added.row + own.begin.column * added.column + own.channel;
    write_part(own.in_part(x, n, 0), residual.data != nullptr, added, y, map, own, n, t, shared.held);
    if (n.pad > 0 && n.pad_mode == PadMode::zero) write_zeros(own.in_image(y, n, n.pad), own, n, t);
  }
}

}  // namespace
}  // namespace hd::cuda
