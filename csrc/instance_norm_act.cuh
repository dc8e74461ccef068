// What the kernels of instance_norm_act share, whatever the memory format: geometry, moments, activation.
#pragma once

#include <type_traits>

#include "grid.cuh"

namespace hd::cuda {
namespace {

constexpr int kThreads = 512;  // of a block, at most
constexpr int kWarps = kThreads / 32;

// Adjacent elements that a thread moves at once.
template <typename T>
constexpr int kPack = 16 / sizeof(T);

struct Norm {
  int channels, height, width, pad;
  PadMode pad_mode;
  const float* weight;  // [C] or null
  const float* bias;    // [C] or null
  float* mean;          // [B, C]
  float* rstd;          // [B, C]
  float* sums;          // [2, B, C], backward only
  float* scratch;       // partial results
  int64_t planes;       // B C
  float per_pixel;      // 1 / (H W)
  float slope;          // factor of values below zero
  float eps;

  __host__ __device__ int64_t pixels() const { return static_cast<int64_t>(height) * width; }
  __host__ __device__ int padded_width() const { return width + 2 * pad; }
  __host__ __device__ int64_t padded_pixels() const { return static_cast<int64_t>(height + 2 * pad) * padded_width(); }
};

// The position that output position o copies, or -1 where it is zero.
__device__ __forceinline__ int source_of(int o, int size, const Norm& n) {
  const int i = o - n.pad;
  if (i >= 0 && i < size) return i;
  if (n.pad_mode == PadMode::reflect) return i < 0 ? -i : 2 * (size - 1) - i;
  return n.pad_mode == PadMode::zero ? -1 : i < 0 ? 0 : size - 1;
}

// The output positions that copy position i: i + pad, and those in [low, low + lows) and [high, high + highs).
struct Copies {
  int middle, low, lows, high, highs;

  __device__ __forceinline__ Copies(int i, int size, const Norm& n)
      : middle(i + n.pad), low(0), lows(0), high(size + n.pad), highs(0) {
    if (n.pad_mode == PadMode::reflect) {
      low = n.pad - i;
      lows = i >= 1 && i <= n.pad;
      high = 2 * (size - 1) - i + n.pad;
      highs = i <= size - 2 && i >= size - 1 - n.pad;
    } else if (n.pad_mode == PadMode::replicate) {
      lows = i == 0 ? n.pad : 0;
      highs = i == size - 1 ? n.pad : 0;
    }
  }
  __device__ __forceinline__ int count() const { return 1 + lows + highs; }
  __device__ __forceinline__ int operator[](int k) const {
    return k == 0 ? middle : k <= lows ? low + k - 1 : high + k - 1 - lows;
  }
};

// Where a pixel is in its image.
struct Cursor {
  int row, column;

  __device__ __forceinline__ Cursor(int64_t at, int width)
      : row(at >> 32 == 0 ? static_cast<unsigned>(at) / width : at / width),
        column(static_cast<int>(at - static_cast<int64_t>(row) * width)) {}
};

// Elements [begin, end).
struct Range {
  int64_t begin, end;
};

template <int V, typename T>
__device__ __forceinline__ bool is_aligned(const T* address) {
  return reinterpret_cast<uintptr_t>(address) % sizeof(Pack<T, V>) == 0;
}

// A pack as 32-bit words, which the compiler moves whole: the members of a structure of 16-bit numbers it may load and
// store one by one.
struct alignas(16) Words {
  uint32_t at[4];
};

template <typename T>
__device__ __forceinline__ Words load_words(const T* address) {
  return bit_cast<Words>(*reinterpret_cast<const uint4*>(address));
}

// 16 bytes to global memory that this kernel does not read: they are the first to leave the caches, and loads may pass
// them.
__device__ __forceinline__ void store_streaming(void* address, const Words& words) {
#ifdef __CUDA_ARCH__
  asm volatile("st.global.cs.v4.b32 [%0], {%1, %2, %3, %4};" ::"l"(address), "r"(words.at[0]), "r"(words.at[1]),
               "r"(words.at[2]), "r"(words.at[3]));
#else
  *reinterpret_cast<Words*>(address) = words;
#endif
}

template <typename T>
__device__ __forceinline__ void store_streaming(T* address, const Pack<T, kPack<T>>& pack) {
  store_streaming(address, bit_cast<Words>(pack));
}

// Copy 16 bytes from global to shared memory without passing through registers. Both addresses are multiples of 16. The
// copy is there for the thread that asked for it after copies_arrived, for others after a barrier that follows.
__device__ __forceinline__ void copy_async(void* shared, const void* global) {
#ifdef __CUDA_ARCH__
  asm volatile(
      "cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(static_cast<unsigned>(__cvta_generic_to_shared(shared))),
      "l"(global)
      : "memory");
#else
  *static_cast<Words*>(shared) = *static_cast<const Words*>(global);
#endif
}

// Wait for all copies that this thread has asked for.
__device__ __forceinline__ void copies_arrived() {
#ifdef __CUDA_ARCH__
  asm volatile("cp.async.wait_all;" ::: "memory");
#endif
}

template <typename T>
__device__ __forceinline__ void to_floats(const Words& words, float (&values)[kPack<T>]) {
#pragma unroll
  for (int k = 0; k < 4; ++k) {
    const uint32_t word = words.at[k];
    if constexpr (sizeof(T) == 4) {
      values[k] = bit_cast<float>(word);
    } else {
      values[2 * k] = to_float(T{static_cast<uint16_t>(word)});
      if constexpr (std::is_same_v<T, bf16>)
        values[2 * k + 1] = bit_cast<float>(word & 0xffff0000u);  // where it is, and not shifted down and up
      else
        values[2 * k + 1] = to_float(T{static_cast<uint16_t>(word >> 16)});
    }
  }
}

template <int V, typename T>
__device__ __forceinline__ void to_floats(const Pack<T, V>& pack, float (&values)[V]) {
  if constexpr (V == kPack<T>) {
    to_floats<T>(bit_cast<Words>(pack), values);
  } else {
#pragma unroll
    for (int k = 0; k < V; ++k) values[k] = to_float(pack.at[k]);
  }
}

// Two numbers, rounded, in one word: the first in its low half.
template <typename T>
__device__ __forceinline__ uint32_t from_two_floats(float low, float high) {
#ifdef __CUDA_ARCH__
  uint32_t word;
  if constexpr (std::is_same_v<T, bf16>)
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(word) : "f"(high), "f"(low));
  else
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(word) : "f"(high), "f"(low));
  return word;
#else
  return from_float<T>(low).bits | static_cast<uint32_t>(from_float<T>(high).bits) << 16;
#endif
}

template <typename T>
__device__ __forceinline__ Words to_words(const float (&values)[kPack<T>]) {
  Words words;
#pragma unroll
  for (int k = 0; k < 4; ++k) {
    if constexpr (sizeof(T) == 4)
      words.at[k] = bit_cast<uint32_t>(values[k]);
    else
      words.at[k] = from_two_floats<T>(values[2 * k], values[2 * k + 1]);
  }
  return words;
}

template <typename T, int V>
__device__ __forceinline__ Pack<T, V> from_floats(const float (&values)[V]) {
  if constexpr (V == kPack<T>) {
    return bit_cast<Pack<T, V>>(to_words<T>(values));
  } else {
    Pack<T, V> pack;
#pragma unroll
    for (int k = 0; k < V; ++k) pack.at[k] = from_float<T>(values[k]);
    return pack;
  }
}

// Count, mean and summed squared deviations of some numbers, which merge by the formula of Chan, Golub and LeVeque. All
// are of x less the first pixel of its plane, which is exact where it matters: a mean far from zero costs no precision,
// and a constant plane is exactly its mean.
struct Moments {
  float count = 0.f, mean = 0.f, m2 = 0.f;

  // The other's share of the merged numbers. It is 0 if there are none.
  __device__ __forceinline__ static float share(float count, float other) {
    return other > 0.f ? __fdividef(other, count + other) : 0.f;
  }
  __device__ __forceinline__ void merge(const Moments& other) {
    const float r = share(count, other.count), d = other.mean - mean;
    m2 += other.m2 + d * d * count * r;
    mean += d * r;
    count += other.count;
  }
};

template <int N>
__device__ __forceinline__ float tree_sum(float (&v)[N]) {
#pragma unroll
  for (int half = N / 2; half > 0; half /= 2)
#pragma unroll
    for (int k = 0; k < half; ++k) v[k] += v[k + half];
  return v[0];
}

// Merge over the block, which consists of whole warps. `shared` is 3 kWarps floats, free again after the next barrier.
__device__ __forceinline__ Moments block_moments(Moments m, float* shared) {
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, warps = blockDim.x / 32;
  const auto merge_lanes = [&] {
#pragma unroll
    for (int offset = 16; offset > 0; offset /= 2)
      m.merge({__shfl_down_sync(0xffffffffu, m.count, offset), __shfl_down_sync(0xffffffffu, m.mean, offset),
               __shfl_down_sync(0xffffffffu, m.m2, offset)});
  };
  merge_lanes();
  if (lane == 0) {
    shared[warp] = m.count;
    shared[kWarps + warp] = m.mean;
    shared[2 * kWarps + warp] = m.m2;
  }
  __syncthreads();
  m = lane < warps ? Moments{shared[lane], shared[kWarps + lane], shared[2 * kWarps + lane]} : Moments{};
  merge_lanes();
  return {__shfl_sync(0xffffffffu, m.count, 0), __shfl_sync(0xffffffffu, m.mean, 0), __shfl_sync(0xffffffffu, m.m2, 0)};
}

// Replace a and b by their sums over the block. `shared` is 2 kWarps floats.
__device__ __forceinline__ void block_sums(float& a, float& b, float* shared) {
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, warps = blockDim.x / 32;
  a = warp_sum(a);
  b = warp_sum(b);
  if (lane == 0) {
    shared[warp] = a;
    shared[kWarps + warp] = b;
  }
  __syncthreads();
  a = warp_sum(lane < warps ? shared[lane] : 0.f);
  b = warp_sum(lane < warps ? shared[kWarps + lane] : 0.f);
}

// The larger number, or NaN if one is NaN.
__device__ __forceinline__ float larger(float a, float b) {
#ifdef __CUDA_ARCH__
  float larger;
  asm("max.NaN.f32 %0, %1, %2;" : "=f"(larger) : "f"(a), "f"(b));
  return larger;
#else
  return a != a || a > b ? a : b;
#endif
}

// activate for V numbers: the branch, which all threads take, costs less than what it saves.
template <int V>
__device__ __forceinline__ void activate_all(float (&z)[V], float slope) {
  if (slope == 0.f) {
#pragma unroll
    for (int k = 0; k < V; ++k) z[k] = larger(z[k], 0.f);
  } else if (slope > 0.f && slope <= 1.f) {
#pragma unroll
    for (int k = 0; k < V; ++k) z[k] = larger(z[k], z[k] * slope);
  } else {
#pragma unroll
    for (int k = 0; k < V; ++k) z[k] = activate(z[k], slope);
  }
}

// z = weight * (x - mean) * rstd + bias. The mean is given as origin + mean, and the origin is taken off x first: the
// forward pass, whose origin is a pixel, then needs no rounded mean, whose error is large beside a small deviation.
struct Affine {
  float origin, scale, shift;

  __device__ __forceinline__ Affine() : origin(0.f), scale(0.f), shift(0.f) {}
  __device__ __forceinline__ Affine(const Norm& n, int channel, float origin, float mean, float rstd)
      : origin(origin),
        scale(n.weight == nullptr ? rstd : n.weight[channel] * rstd),
        shift((n.bias == nullptr ? 0.f : n.bias[channel]) - mean * scale) {}
  __device__ __forceinline__ float operator()(float x) const { return (x - origin) * scale + shift; }
};

// 0 for a constant plane where eps is 0, as in PyTorch's norm.
__device__ __forceinline__ float rstd_of(float m2, const Norm& n) {
  const float variance = m2 * n.per_pixel + n.eps;
  return variance == 0.f ? 0.f : rsqrtf(variance);
}

// dx = scale * (dz - mean of dz - xhat * mean of dz * xhat), as scale * dz + (x - mean) * slope + level.
struct Gradient {
  float scale, slope, level;

  __device__ __forceinline__ Gradient() {}
  __device__ __forceinline__ Gradient(float scale, float rstd, float dz, float dz_xhat, float per_pixel)
      : scale(scale), slope(-scale * rstd * (dz_xhat * per_pixel)), level(-scale * (dz * per_pixel)) {}
  __device__ __forceinline__ float operator()(float dz, float centred) const {
    return scale * dz + (centred * slope + level);
  }
};

}  // namespace
}  // namespace hd::cuda
