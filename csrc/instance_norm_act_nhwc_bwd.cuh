// The backward pass of instance_norm_act for channels_last images.
#pragma once

#include "instance_norm_act_nhwc_merge.cuh"

namespace hd::cuda {
namespace {

// Steps that a thread takes at once. They are of x and dy; more of eight channels would not fit in registers.
template <int V>
constexpr int kGradientSteps = V == 4 ? 4 : kSteps<V> / 2;

// The part of dy that reaches a pixel: the sum over its own and those of its copies in the padding, rounded, so that
// dresidual, the sums and dx use the same number. dy begins at the image and this thread's channels.
template <int V, typename T>
__device__ __forceinline__ Raw<T, V> fold(const T* dy, const Raw<T, V>& own, const Norm& n, Position at) {
  float sum[V];
  unpack<T, V>(own, sum);
  for_copies(n, at, [&](int64_t pixel) {
    float more[V];
    unpack<T, V>(load<V>(dy + pixel * n.channels), more);
#pragma unroll
    for (int k = 0; k < V; ++k) sum[k] += more[k];
  });
  return packed<T, V>(sum);
}

// What a thread reads.
template <typename T, int V>
struct Sources {
  const T *x, *dy;   // at the part
  const T* image;    // dy at the image
  T* held;           // where the first step of the part is held
  int pitch, apart;  // elements of shared memory from step to step, and from x to dy

  __device__ __forceinline__ Sources(const T* x, const T* dy, const Share<V>& own, const Norm& n, const Tiling& t,
                                     T* memory)
      : x(own.in_part(x, n, 0)),
        dy(own.in_part(dy, n, n.pad)),
        image(own.in_image(dy, n, n.pad)),
        pitch(t.rows * t.lanes * V),
        apart(pitch * t.held) {
    held = memory + threadIdx.x * V;
  }
  // Read x and the folded dy of some steps from memory.
  template <int N>
  __device__ __forceinline__ void read(Raw<T, V> (&values)[N], Raw<T, V> (&g)[N], int step, const Share<V>& own,
                                       const Norm& n, const Tiling& t) const {
    const Places<N> to(own, n, t, step);
#pragma unroll
    for (int i = 0; i < N; ++i) {
      values[i] = load<V>(advanced(x, own.pixel(t, step + i), t));
      g[i] = load<V>(advanced(dy, to.pixel[i], t));
    }
    if (!to.near) return;
    one_by_one(g, [&](int i, auto& pack) { pack = fold<V>(image, pack, n, own.position(n, t, step + i)); });
  }
};

// What decides where the activation passes a gradient on, and how x is centred.
template <typename T, int V>
struct Mask {
  float mean[V], scale[V], shift[V];

  // dz and the centred x.
  __device__ __forceinline__ void operator()(const Raw<T, V>& x, const Raw<T, V>& g, const Tiling& t, float slope,
                                             float (&dz)[V], float (&centred)[V]) const {
    unpack<T, V>(x, centred);
    unpack<T, V>(g, dz);
#pragma unroll
    for (int k = 0; k < V; ++k) centred[k] -= mean[k];
    if (t.leaky) {
#pragma unroll
      for (int k = 0; k < V; ++k) dz[k] = centred[k] * scale[k] + shift[k] > 0.f ? dz[k] : dz[k] * slope;
    } else if (t.relu) {
#pragma unroll
      for (int k = 0; k < V; ++k) dz[k] = centred[k] * scale[k] + shift[k] > 0.f ? dz[k] : 0.f;
    }
  }
};

// Read the part, hold its first steps, and add up dz and dz times the centred x.
template <typename T, int V>
__device__ __forceinline__ void add_up(const Sources<T, V>& from, const Mask<T, V>& mask, float (&a)[V], float (&b)[V],
                                       const Share<V>& own, const Norm& n, const Tiling& t) {
  own.template forwards<kGradientSteps<V>>([&](int step, auto count) {
    constexpr int N = decltype(count)::value;
    Raw<T, V> x[N], g[N];
    from.read(x, g, step, own, n, t);
#pragma unroll
    for (int i = 0; i < N; ++i) {
      if (step < own.kept) {
        hold(from.held + (step + i) * from.pitch, x[i]);
        hold(from.held + (step + i) * from.pitch + from.apart, g[i]);
      }
      float dz[V], centred[V];
      mask(x[i], g[i], t, n.slope, dz, centred);
#pragma unroll
      for (int k = 0; k < V; ++k) {
        a[k] += dz[k];
        b[k] += dz[k] * centred[k];
      }
    }
  });
}

// The sums of the channels of a slice.
template <typename T, int V>
__device__ __forceinline__ SumPair merged_sums(const Slice& slice, const Shared<T, V>& shared) {
  float a[1] = {0.f}, b[1] = {0.f};
#pragma unroll
  for (int i = 0; i < kMerged; ++i) {
    a[0] += slice.sums[i].a;
    b[0] += slice.sums[i].b;
  }
  sum_rows(a, b, slice.channels, slice.rows, shared.cells, shared.totals);
  return static_cast<int>(threadIdx.x) < slice.channels ? shared.totals[threadIdx.x] : SumPair{0.f, 0.f};
}

// Write dx and, unless it is missing, dresidual, last steps first. Both begin at the part.
template <typename T, int V>
__device__ __forceinline__ void write_part(const Sources<T, V>& from, const Mask<T, V>& mask, const float (&slope)[V],
                                           const float (&level)[V], T* dx, T* dresidual, const Share<V>& own,
                                           const Norm& n, const Tiling& t) {
  own.template backwards<kGradientSteps<V>>([&](int step, auto count) {
    constexpr int N = decltype(count)::value;
    Raw<T, V> x[N], g[N];
    if (step < own.kept) {
#pragma unroll
      for (int i = 0; i < N; ++i) {
        x[i] = load<V>(from.held + (step + i) * from.pitch);
        g[i] = load<V>(from.held + (step + i) * from.pitch + from.apart);
      }
    } else {
      from.read(x, g, step, own, n, t);
    }
#pragma unroll
    for (int i = 0; i < N; ++i) {
      float dz[V], centred[V];
      mask(x[i], g[i], t, n.slope, dz, centred);
#pragma unroll
      for (int k = 0; k < V; ++k) dz[k] = mask.scale[k] * dz[k] + (centred[k] * slope[k] + level[k]);
      const int pixel = own.pixel(t, step + i);
      store_result<V>(advanced(dx, pixel, t), packed<T, V>(dz));
      if (dresidual != nullptr) store_result<V>(advanced(dresidual, pixel, t), g[i]);
    }
  });
}

template <typename T, int V>
__global__ void __launch_bounds__(kPixelThreads, 2)
    instance_norm_act_bwd_nhwc_kernel(const T* __restrict__ dy,   // [B, C, H + 2 pad, W + 2 pad], channels last
                                      const T* __restrict__ x,    // [B, C, H, W], channels last
                                      T* __restrict__ dx,         // [B, C, H, W], channels last
                                      T* __restrict__ dresidual,  // [B, C, H, W], channels last, or null
                                      Norm n, Tiling t) {
  HD_SHARED(unsigned char, memory);
  const Shared<T, V> shared(memory, t.lanes);
  const int part = blockIdx.x % t.parts, channels = t.lanes * V, thread = threadIdx.x;
  int unit = blockIdx.x / t.parts;
  if (t.parts > 1 && part == 0 && thread < 2)
    t.counters[2 * unit + thread] = 0;  // nobody counts before all have met in the first round
#pragma unroll 1
  for (int round = 0; unit < t.units; ++round, unit += t.at_once) {
    const Share<V> own(n, t, unit, part);
    const int channel = own.channel - own.lane * V + thread;
    const bool has_channel = thread < channels && channel < n.channels;
    const int64_t plane = own.image * n.channels + channel;
    float rstd = 0.f;
    Affine affine;
    if (has_channel) {
      rstd = n.rstd[plane];
      affine = Affine(n, channel, n.mean[plane], 0.f, rstd);
      shared.table[thread] = affine.origin;
      shared.table[channels + thread] = affine.scale;
      shared.table[2 * channels + thread] = affine.shift;
    }
    __syncthreads();
    Mask<T, V> mask;
    read_table(mask.mean, 0, own, t, shared);
    read_table(mask.scale, 1, own, t, shared);
    read_table(mask.shift, 2, own, t, shared);
    const Sources<T, V> from(x, dy, own, n, t, shared.held);
    float a[V] = {}, b[V] = {};
    if (own.works) add_up(from, mask, a, b, own, n, t);
    if (unit + t.at_once < t.units) {
      const Share<V> next(n, t, unit + t.at_once, part);
      prefetch(next.in_part(x, n, 0), next, t);
      prefetch(next.in_part(dy, n, n.pad), next, t);
    }
    sum_rows(a, b, t.lanes, t.rows, shared.cells, shared.totals);
    SumPair sums = thread < channels ? shared.totals[thread] : SumPair{0.f, 0.f};
    sums = merge_parts(sums, own, t, round,
                       [&](const Slice& slice, const SumPair*) { return merged_sums(slice, shared); });
    sums.b *= rstd;
    if (has_channel) {
      const Gradient gradient(affine.scale, rstd, sums.a, sums.b, n.per_pixel);
      shared.table[3 * channels + thread] = gradient.slope;
      shared.table[4 * channels + thread] = gradient.level;
      if (part == 0) {
        n.sums[plane] = sums.a;
        n.sums[n.planes + plane] = sums.b;
      }
    }
    __syncthreads();
    float slope[V], level[V];
    read_table(slope, 3, own, t, shared);
    read_table(level, 4, own, t, shared);
    __syncthreads();
    if (!own.works) continue;
    T* const added = dresidual == nullptr ? nullptr : own.in_part(dresidual, n, 0);
    write_part(from, mask, slope, level, own.in_part(dx, n, 0), added, own, n, t);
  }
}

}  // namespace
}  // namespace hd::cuda
