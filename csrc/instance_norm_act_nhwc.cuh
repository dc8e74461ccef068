// instance_norm_act of channels_last images: a thread owns 16 bytes of channels and walks over pixels, so padding only
// decides which pixel is read, and everything stays aligned. (If C is no multiple of that, the last group is partial
// and handled element by element.) A block is `lanes` adjacent groups of channels by `rows` pixels. Small planes are
// held by one block for each group in shared memory. Large ones are shared by n.splits blocks of two kernels, of which
// the second walks backwards over what the first has just left in the second-level cache.
#pragma once

#include "instance_norm_act.cuh"

namespace hd::cuda {
namespace {

constexpr int kPixels = 4;  // that a thread holds or has in flight

// What a thread works on.
template <int V>
struct Place {
  int lane, row, rows;
  int split;
  int channel, valid;  // its first channel, and how many of V exist
  int64_t image;

  __device__ __forceinline__ Place(const Norm& n, int lanes, unsigned block)
      : lane(threadIdx.x % lanes), row(threadIdx.x / lanes), rows(blockDim.x / lanes) {
    const int tiles = (n.channels + lanes * V - 1) / (lanes * V);
    split = block % n.splits;
    channel = (static_cast<int>(block / n.splits % tiles) * lanes + lane) * V;
    valid = max(min(n.channels - channel, V), 0);
    image = block / n.splits / tiles;
  }
  // Its part of the pixels of an image, which is empty if it has no channels.
  __device__ __forceinline__ Range range(int64_t pixels, int64_t part) const {
    Range range(pixels, split, part);
    if (valid == 0) range.end = range.begin;
    return range;
  }
};

// Moments of V channels: their means, their summed squared deviations, their count.
template <int V>
struct ChannelMoments {
  static constexpr int kSize = 2 * V + 1;
  float at[kSize] = {};

  __device__ __forceinline__ void merge(const ChannelMoments& other) {
    const float count = at[2 * V], r = Moments::share(count, other.at[2 * V]);
#pragma unroll
    for (int k = 0; k < V; ++k) {
      const float d = other.at[k] - at[k];
      at[V + k] += other.at[V + k] + d * d * count * r;
      at[k] += d * r;
    }
    at[2 * V] += other.at[2 * V];
  }
};

// Sums of dz and of dz * xhat for V channels.
template <int V>
struct ChannelSums {
  static constexpr int kSize = 2 * V;
  float at[kSize] = {};

  __device__ __forceinline__ void merge(const ChannelSums& other) {
#pragma unroll
    for (int k = 0; k < kSize; ++k) at[k] += other.at[k];
  }
};

// Store two numbers for each channel of a thread and one split. Scratch is [2, B, splits, C].
template <int V, int N>
__device__ __forceinline__ void store_partial(const float (&at)[N], const Place<V>& place, const Norm& n) {
  float* partial = n.scratch + (place.image * n.splits + place.split) * n.channels + place.channel;
#pragma unroll
  for (int k = 0; k < V; ++k) {
    if (k < place.valid) partial[k] = at[k];
    if (k < place.valid) partial[n.planes * n.splits + k] = at[V + k];
  }
}

template <int V, int N>
__device__ __forceinline__ void load_partial(float (&at)[N], const Place<V>& place, int split, const Norm& n) {
  const float* partial = n.scratch + (place.image * n.splits + split) * n.channels + place.channel;
#pragma unroll
  for (int k = 0; k < V; ++k) {
    if (k < place.valid) at[k] = partial[k];
    if (k < place.valid) at[V + k] = partial[n.planes * n.splits + k];
  }
}

// Floats of shared memory that merge_rows needs.
template <typename State>
constexpr int merge_size(int lanes, int threads) {
  return State::kSize * lanes * (threads > 64 ? threads / 64 : 1);
}

// Merge the states of all threads of a lane. All get the result. The number of warps is a power of two, as is lanes.
template <typename State>
__device__ __forceinline__ void merge_rows(State& state, int lanes, float* shared) {
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, warps = blockDim.x / 32;
#pragma unroll 1
  for (int offset = 16; offset >= lanes; offset /= 2) {
    State other;
#pragma unroll
    for (int k = 0; k < State::kSize; ++k) other.at[k] = __shfl_down_sync(0xffffffffu, state.at[k], offset);
    state.merge(other);
  }
  const auto swap_out = [&](int slot) {
#pragma unroll
    for (int k = 0; k < State::kSize; ++k) shared[(slot * State::kSize + k) * lanes + lane] = state.at[k];
  };
  const auto swap_in = [&](State& into, int slot) {
#pragma unroll
    for (int k = 0; k < State::kSize; ++k) into.at[k] = shared[(slot * State::kSize + k) * lanes + lane % lanes];
  };
#pragma unroll 1
  for (int half = warps / 2; half > 0; half /= 2) {
    if (lane < lanes && warp >= half && warp < 2 * half) swap_out(warp - half);
    __syncthreads();
    if (lane < lanes && warp < half) {
      State other;
      swap_in(other, warp);
      state.merge(other);
    }
    __syncthreads();
  }
  if (lane < lanes && warp == 0) swap_out(0);
  __syncthreads();
  swap_in(state, 0);
}

// The moments of this thread's pixels. x begins at the image and its first channel. keep(pixel, values) is called with
// each pixel.
template <typename T, typename Keep>
__device__ __forceinline__ ChannelMoments<kPack<T>> pixel_moments(const T* x, const Place<kPack<T>>& place,
                                                                  const Range& range, const Norm& n, const Keep& keep) {
  constexpr int V = kPack<T>;
  ChannelMoments<V> moments;
  float origin[V];
  to_floats(load_some<V>(x, 0, place.valid), origin);
  for (int64_t p = range.begin + place.row; p < range.end; p += kPixels * place.rows) {
    Pack<T, V> packs[kPixels];
#pragma unroll
    for (int t = 0; t < kPixels; ++t)
      packs[t] = p + t * place.rows >= range.end ? Pack<T, V>{}
                                                 : load_some<V>(x + (p + t * place.rows) * n.channels, 0, place.valid);
    int count = 1;
#pragma unroll
    for (int t = 1; t < kPixels; ++t) count += p + t * place.rows < range.end;
    const float r = Moments::share(moments.at[2 * V], count);
#pragma unroll
    for (int k = 0; k < V; ++k) {
      float values[kPixels];
#pragma unroll
      for (int t = 0; t < kPixels; ++t) values[t] = to_float(packs[t].at[k]) - origin[k];
      absorb(moments.at[k], moments.at[V + k], moments.at[2 * V], r, values, 0, count);
    }
    moments.at[2 * V] += count;
#pragma unroll
    for (int t = 0; t < kPixels; ++t)
      if (t < count) keep(p + t * place.rows, packs[t]);
  }
  return moments;
}

template <typename T>
struct PixelResidual {
  const T* data;               // [B, C, H, W] or null
  int64_t batch, row, column;  // strides
};

// The affine maps of a thread's channels.
template <int V>
struct Affines {
  Affine of[V];

  __device__ __forceinline__ Affines(const Norm& n, const Place<V>& place, const float (&origin)[V], const float* mean,
                                     const float (&rstd)[V]) {
#pragma unroll
    for (int k = 0; k < V; ++k)
      if (k < place.valid) of[k] = Affine(n, place.channel + k, origin[k], mean == nullptr ? 0.f : mean[k], rstd[k]);
  }
};

// Write the pixels of a part of the padded image y. load(pixel) gives the x of this thread's channels.
template <typename T, typename Load>
__device__ __forceinline__ void write_pixels(const Load& load, const PixelResidual<T>& residual, T* y,
                                             const Place<kPack<T>>& place, const ChannelMoments<kPack<T>>& moments,
                                             const Norm& n) {
  constexpr int V = kPack<T>;
  if (place.valid == 0) return;
  float origin[V], rstd[V];
  to_floats(load(0), origin);
#pragma unroll
  for (int k = 0; k < V; ++k) {
    rstd[k] = rstd_of(moments.at[V + k], n);
    if (k >= place.valid || place.split != 0 || place.row != 0) continue;
    n.mean[place.image * n.channels + place.channel + k] = origin[k] + moments.at[k];
    n.rstd[place.image * n.channels + place.channel + k] = rstd[k];
  }
  const Affines<V> affines(n, place, origin, moments.at, rstd);
  const Range range = place.range(n.padded_pixels(), n.padded_part);
  const int width = n.padded_width();
  const T* added = residual.data == nullptr ? nullptr : residual.data + place.image * residual.batch + place.channel;
  y += place.image * n.padded_pixels() * n.channels + place.channel;
  Cursor at(range.begin + place.row, width);
  const Cursor step(place.rows, width);
#pragma unroll 1
  for (int64_t o = range.begin + place.row; o < range.end; o += place.rows, at.advance(step, width)) {
    const int row = source_of(at.row, n.height, n), column = source_of(at.column, n.width, n);
    Pack<T, V> pack{};
    if (row >= 0 && column >= 0) {
      pack = load(static_cast<int64_t>(row) * n.width + column);
      Pack<T, V> plus{};
      if (added != nullptr) plus = load_some<V>(added + row * residual.row + column * residual.column, 0, place.valid);
#pragma unroll
      for (int k = 0; k < V; ++k)
        pack.at[k] = from_float<T>(activate(affines.of[k](to_float(pack.at[k])), n.slope) + to_float(plus.at[k]));
    }
    store_some<V>(y + o * n.channels, pack, 0, place.valid);
  }
}

// First kernel: the moments of this block's channels in its part of an image. One that holds the whole image writes y
// too.
template <typename T>
__global__ void __launch_bounds__(kThreads, 1)
    instance_norm_act_fwd_nhwc_kernel(const T* __restrict__ x,    // [B, C, H, W], channels last
                                      PixelResidual<T> residual,  // [B, C, H, W], channels last, or none
                                      T* __restrict__ y,          // [B, C, H + 2 pad, W + 2 pad], channels last
                                      int lanes,  // groups of channels of a block; one if it holds the image
                                      Norm n) {
  constexpr int V = kPack<T>;
  HD_SHARED(T, held);
  const Place<V> place(n, lanes, blockIdx.x);
  const auto keep = [&](int64_t p, const Pack<T, V>& pack) {
    if (n.held) store_whole(held + p * V, pack);
  };
  x += place.image * n.pixels() * n.channels + place.channel;
  auto moments = pixel_moments(x, place, place.range(n.pixels(), n.part), n, keep);
  merge_rows(moments, lanes, reinterpret_cast<float*>(held + (n.held ? n.pixels() * V : 0)));
  if (n.held)
    write_pixels([&](int64_t p) { return load_pack<V>(held + p * V); }, residual, y, place, moments, n);
  else if (place.row == 0)
    store_partial(moments.at, place, n);
}

// Second kernel: every block merges the moments of its channels and writes a part of y.
template <typename T>
__global__ void __launch_bounds__(kThreads, 1)
    instance_norm_act_fwd_apply_nhwc_kernel(const T* __restrict__ x,    // [B, C, H, W], channels last
                                            PixelResidual<T> residual,  // [B, C, H, W], channels last, or none
                                            T* __restrict__ y,          // [B, C, H + 2 pad, W + 2 pad], channels last
                                            int lanes,                  // groups of channels of a block
                                            Norm n) {
  constexpr int V = kPack<T>;
  HD_SHARED(float, shared);
  const Place<V> place(n, lanes, gridDim.x - 1 - blockIdx.x);
  ChannelMoments<V> moments;
  for (int s = place.row; s < n.splits && place.valid > 0; s += place.rows) {
    const Range part(n.pixels(), s, n.part);
    ChannelMoments<V> other;
    load_partial(other.at, place, s, n);
    other.at[2 * V] = static_cast<float>(part.end - part.begin);
    moments.merge(other);
  }
  merge_rows(moments, lanes, shared);
  x += place.image * n.pixels() * n.channels + place.channel;
  write_pixels([&](int64_t p) { return load_some<V>(x + p * n.channels, 0, place.valid); }, residual, y, place, moments,
               n);
}

// The part of dy that reaches one pixel. It is rounded, so that dresidual, the sums and dx use the same number. dy
// begins at the image and this thread's first channel.
template <int V, typename T>
__device__ __forceinline__ void fold_channels(const T* dy, Cursor at, int valid, const Norm& n, float (&g)[V]) {
  const Copies rows(at.row, n.height, n), columns(at.column, n.width, n);
  const int width = n.padded_width();
  const Pack<T, V> own =
      load_some<V>(dy + (static_cast<int64_t>(rows.middle) * width + columns.middle) * n.channels, 0, valid);
  to_floats(own, g);
  const int count = rows.count() * columns.count();
#pragma unroll 1
  for (int i = 1; i < count; ++i) {
    const int64_t pixel = static_cast<int64_t>(rows[i / columns.count()]) * width + columns[i % columns.count()];
    const Pack<T, V> more = load_some<V>(dy + pixel * n.channels, 0, valid);
#pragma unroll
    for (int k = 0; k < V; ++k) g[k] += to_float(more.at[k]);
  }
  to_floats(from_floats<T>(g), g);
}

template <int V, typename T>
__device__ __forceinline__ void add_pixel(const Pack<T, V>& x, const float (&g)[V], const Affines<V>& affines,
                                          float slope, ChannelSums<V>& sums) {
#pragma unroll
  for (int k = 0; k < V; ++k) {
    const float value = to_float(x.at[k]), dz = affines.of[k](value) > 0.f ? g[k] : damp(g[k], slope);
    sums.at[k] += dz;
    sums.at[V + k] += dz * (value - affines.of[k].origin);
  }
}

// The mean and rstd of a thread's channels.
template <int V>
__device__ __forceinline__ void load_statistics(const Norm& n, const Place<V>& place, float (&mean)[V],
                                                float (&rstd)[V]) {
#pragma unroll
  for (int k = 0; k < V; ++k) {
    const int64_t p = place.image * n.channels + place.channel + k;
    mean[k] = k < place.valid ? n.mean[p] : 0.f;
    rstd[k] = k < place.valid ? n.rstd[p] : 0.f;
  }
}

// This writes the sums, too, which are those of dz and dz * xhat by now.
template <int V>
struct Gradients {
  Gradient of[V];

  __device__ __forceinline__ Gradients(const Norm& n, const Place<V>& place, const Affines<V>& affines,
                                       const float (&rstd)[V], const ChannelSums<V>& sums) {
#pragma unroll
    for (int k = 0; k < V; ++k) {
      of[k] = Gradient(affines.of[k].scale, rstd[k], sums.at[k], sums.at[V + k], n.per_pixel);
      if (k >= place.valid || place.split != 0 || place.row != 0) continue;
      const int64_t p = place.image * n.channels + place.channel + k;
      n.sums[p] = sums.at[k];
      n.sums[n.planes + p] = sums.at[V + k];
    }
  }
};

template <int V, typename T>
__device__ __forceinline__ Pack<T, V> pixel_gradient(const Pack<T, V>& x, const float (&g)[V],
                                                     const Affines<V>& affines, const Gradients<V>& gradients,
                                                     float slope) {
  Pack<T, V> dx;
#pragma unroll
  for (int k = 0; k < V; ++k) {
    const float value = to_float(x.at[k]), dz = affines.of[k](value) > 0.f ? g[k] : damp(g[k], slope);
    dx.at[k] = from_float<T>(gradients.of[k](dz, value - affines.of[k].origin));
  }
  return dx;
}

// Call fn(pixel, x, g) with this thread's pixels of a range: the x and the folded dy there. If a dresidual is given, it
// already holds the latter.
template <int V, typename T, typename F>
__device__ __forceinline__ void for_folded_pixels(const T* dy, const T* x, const T* dresidual, const Place<V>& place,
                                                  const Range& range, const Norm& n, const F& fn) {
  Cursor at(range.begin + place.row, n.width);
  const Cursor step(place.rows, n.width);
#pragma unroll 1
  for (int64_t p = range.begin + place.row; p < range.end; p += place.rows, at.advance(step, n.width)) {
    const Pack<T, V> values = load_some<V>(x + p * n.channels, 0, place.valid);
    float g[V];
    if (dresidual == nullptr)
      fold_channels<V>(dy, at, place.valid, n, g);
    else
      to_floats(load_some<V>(dresidual + p * n.channels, 0, place.valid), g);
    fn(p, values, g);
  }
}

// First kernel: sums over this block's channels in its part of an image, and dresidual there. One that holds the whole
// image, which every thread then does with its own pixels of x and of the folded dy, writes dx too.
template <typename T>
__global__ void __launch_bounds__(kThreads, 1)
    instance_norm_act_bwd_nhwc_kernel(const T* __restrict__ dy,   // [B, C, H + 2 pad, W + 2 pad], channels last
                                      const T* __restrict__ x,    // [B, C, H, W], channels last
                                      T* __restrict__ dx,         // [B, C, H, W], channels last
                                      T* __restrict__ dresidual,  // [B, C, H, W], channels last, or null
                                      int lanes,  // groups of channels of a block; one if it holds the image
                                      Norm n) {
  constexpr int V = kPack<T>;
  HD_SHARED(T, held);
  T* held_g = held + n.pixels() * V;
  const Place<V> place(n, lanes, blockIdx.x);
  const int64_t offset = place.image * n.pixels() * n.channels + place.channel;
  float mean[V], rstd[V];
  load_statistics(n, place, mean, rstd);
  const Affines<V> affines(n, place, mean, nullptr, rstd);
  ChannelSums<V> sums;
  for_folded_pixels<V, T>(dy + place.image * n.padded_pixels() * n.channels + place.channel, x + offset, nullptr, place,
                          place.range(n.pixels(), n.part), n,
                          [&](int64_t p, const Pack<T, V>& values, const float(&g)[V]) {
                            const Pack<T, V> folded = from_floats<T>(g);
                            if (n.held) {
                              store_whole(held + p * V, values);
                              store_whole(held_g + p * V, folded);
                            }
                            add_pixel<V>(values, g, affines, n.slope, sums);
                            if (dresidual != nullptr)
                              store_some<V>(dresidual + offset + p * n.channels, folded, 0, place.valid);
                          });
#pragma unroll
  for (int k = 0; k < V; ++k) sums.at[V + k] *= rstd[k];
  merge_rows(sums, lanes, reinterpret_cast<float*>(held + (n.held ? 2 * n.pixels() * V : 0)));
  if (!n.held) {
    if (place.row == 0) store_partial(sums.at, place, n);
    return;
  }
  const Gradients<V> gradients(n, place, affines, rstd, sums);
#pragma unroll 1
  for (int64_t p = place.row; p < n.pixels(); p += place.rows) {
    float g[V];
    to_floats(load_pack<V>(held_g + p * V), g);
    store_some<V>(dx + offset + p * n.channels,
                  pixel_gradient<V>(load_pack<V>(held + p * V), g, affines, gradients, n.slope), 0, place.valid);
  }
}

// Second kernel: every block adds up the sums of its channels and writes a part of dx.
template <typename T>
__global__ void __launch_bounds__(kThreads, 1) instance_norm_act_bwd_apply_nhwc_kernel(
    const T* __restrict__ dy,         // [B, C, H + 2 pad, W + 2 pad], channels last
    const T* __restrict__ x,          // [B, C, H, W], channels last
    T* __restrict__ dx,               // [B, C, H, W], channels last
    const T* __restrict__ dresidual,  // [B, C, H, W], channels last, written by the first kernel, or null
    int lanes,                        // groups of channels of a block
    Norm n) {
  constexpr int V = kPack<T>;
  HD_SHARED(float, shared);
  const Place<V> place(n, lanes, gridDim.x - 1 - blockIdx.x);
  const int64_t offset = place.image * n.pixels() * n.channels + place.channel;
  ChannelSums<V> sums;
  for (int s = place.row; s < n.splits && place.valid > 0; s += place.rows) {
    ChannelSums<V> other;
    load_partial(other.at, place, s, n);
    sums.merge(other);
  }
  merge_rows(sums, lanes, shared);
  if (place.valid == 0) return;
  float mean[V], rstd[V];
  load_statistics(n, place, mean, rstd);
  const Affines<V> affines(n, place, mean, nullptr, rstd);
  const Gradients<V> gradients(n, place, affines, rstd, sums);
  const T* folded = dresidual == nullptr ? nullptr : dresidual + offset;
  for_folded_pixels<V, T>(dy + place.image * n.padded_pixels() * n.channels + place.channel, x + offset, folded, place,
                          place.range(n.pixels(), n.part), n,
                          [&](int64_t p, const Pack<T, V>& values, const float(&g)[V]) {
                            store_some<V>(dx + offset + p * n.channels,
                                          pixel_gradient<V>(values, g, affines, gradients, n.slope), 0, place.valid);
                          });
}

}  // namespace
}  // namespace hd::cuda
