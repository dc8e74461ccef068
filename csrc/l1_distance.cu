// Both directions are one pass over dense tensors, whatever their shapes, by accesses of 16 bytes where they are
// aligned. Each block adds up its tiles, and one more block adds the sums of all in a fixed order, so that every run,
// and every GPU, gives the same bits.
#include <type_traits>

#include "cuda.cuh"

namespace hd::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kMeanThreads = 1024;
constexpr int kAtOnce = 4;                 // packs of each tensor that a thread has in flight
constexpr int kTile = kThreads * kAtOnce;  // packs of a block at a time
constexpr int64_t kMostBlocks = 16384;

int64_t elements_of(const Tensor& x) { return x.shape[0] * x.shape[1] * x.shape[2] * x.shape[3]; }

// Blocks that add up n elements, in packs of `width`.
int64_t blocks_for(int64_t n, int width) {
  const int64_t tiles = ceil_div(n, int64_t{kTile} * width);
  return tiles < kMostBlocks ? tiles : kMostBlocks;
}

// The sum over the threads of a block, on its first thread.
template <int kSize>
__device__ __forceinline__ float block_sum(float x) {
  __shared__ float sums[kSize / 32];
  x = warp_sum(x);
  if (threadIdx.x % 32 == 0) sums[threadIdx.x / 32] = x;
  __syncthreads();
  float total = 0.f;
  if (threadIdx.x == 0)
    for (int warp = 0; warp < kSize / 32; ++warp) total += sums[warp];
  return total;
}

__device__ __forceinline__ int8_t sign_of(float x) { return static_cast<int8_t>((x > 0.f) - (x < 0.f)); }

// Add the distances of one pack, and write its signs if they are wanted.
template <typename T, int N>
__device__ __forceinline__ void add_pack(const Pack<T, N>& x, const Pack<T, N>& target, float (&sums)[N],
                                         int8_t* sign) {
  Pack<int8_t, N> signs;
#pragma unroll
  for (int k = 0; k < N; ++k) {
    const float difference = to_float(x.at[k]) - to_float(target.at[k]);
    sums[k] += fabsf(difference);
    signs.at[k] = sign_of(difference);
  }
  if (sign != nullptr) store_pack(sign, signs);
}

// The distance over the elements of each block -> partial [blocks].
template <typename T, int N>
__global__ void __launch_bounds__(kThreads)
    l1_distance_fwd_kernel(const T* __restrict__ x, const T* __restrict__ target, int64_t n, int8_t* __restrict__ sign,
                           float* __restrict__ partial) {
  const int64_t packs = n / N, step = static_cast<int64_t>(gridDim.x) * kTile;
  float sums[N] = {};
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * kTile + threadIdx.x; i < packs; i += step) {
    Pack<T, N> a[kAtOnce], b[kAtOnce];
#pragma unroll
    for (int k = 0; k < kAtOnce; ++k) {
      const int64_t pack = i + k * kThreads;
      if (pack >= packs) break;
      a[k] = load_pack<N>(x + pack * N);
      b[k] = load_pack<N>(target + pack * N);
    }
#pragma unroll
    for (int k = 0; k < kAtOnce; ++k) {
      const int64_t pack = i + k * kThreads;
      if (pack < packs) add_pack(a[k], b[k], sums, sign == nullptr ? nullptr : sign + pack * N);
    }
  }
  float total = 0.f;
#pragma unroll
  for (int k = 0; k < N; ++k) total += sums[k];
  const int64_t rest = packs * N + threadIdx.x;  // what is left after the last pack
  if (blockIdx.x == 0 && rest < n) {
    const float difference = to_float(x[rest]) - to_float(target[rest]);
    total += fabsf(difference);
    if (sign != nullptr) sign[rest] = sign_of(difference);
  }
  total = block_sum<kThreads>(total);
  if (threadIdx.x == 0) partial[blockIdx.x] = total;
}

// partial [blocks] -> distance [1], by one block.
__global__ void __launch_bounds__(kMeanThreads)
    l1_distance_mean_kernel(const float* __restrict__ partial, int blocks, int64_t n, float* __restrict__ distance) {
  float sum = 0.f;
  for (int i = threadIdx.x; i < blocks; i += kMeanThreads) sum += partial[i];
  sum = block_sum<kMeanThreads>(sum);
  if (threadIdx.x == 0) *distance = sum / static_cast<float>(n);
}

template <typename T, int N>
__global__ void __launch_bounds__(kThreads)
    l1_distance_bwd_kernel(const float* __restrict__ dy, const int8_t* __restrict__ sign, int64_t n,
                           T* __restrict__ dx) {
  const float scale = *dy / static_cast<float>(n);
  const int64_t packs = n / N, first = static_cast<int64_t>(blockIdx.x) * kTile + threadIdx.x;
  Pack<int8_t, N> signs[kAtOnce];
#pragma unroll
  for (int k = 0; k < kAtOnce; ++k)
    if (first + k * kThreads < packs) signs[k] = load_pack<N>(sign + (first + k * kThreads) * N);
#pragma unroll
  for (int k = 0; k < kAtOnce; ++k) {
    if (first + k * kThreads >= packs) break;
    Pack<T, N> out;
#pragma unroll
    for (int v = 0; v < N; ++v) out.at[v] = from_float<T>(static_cast<float>(signs[k].at[v]) * scale);
    store_pack(dx + (first + k * kThreads) * N, out);
  }
  const int64_t rest = packs * N + threadIdx.x;
  if (blockIdx.x == 0 && rest < n) dx[rest] = from_float<T>(static_cast<float>(sign[rest]) * scale);
}

// Call fn with the elements of 16 bytes, or with 1 where an access of so many is not aligned.
template <typename T, typename F>
void with_pack(bool aligned, const F& fn) {
  if (aligned)
    fn(std::integral_constant<int, 16 / sizeof(T)>{});
  else
    fn(std::integral_constant<int, 1>{});
}

}  // namespace

int64_t l1_distance_scratch(int64_t elements) { return blocks_for(elements, 1); }

void l1_distance_fwd(Tensor x, Tensor target, Tensor distance, Tensor sign, Tensor scratch, uintptr_t stream) {
  const int64_t n = elements_of(x);
  int64_t blocks = 0;
  const bool aligned = is_aligned(x, 16) && is_aligned(target, 16) && is_aligned(sign, 16);
  with_floating(x.dtype, [&](auto type) {
    using T = decltype(type);
    with_pack<T>(aligned, [&](auto width) {
      constexpr int N = decltype(width)::value;
      blocks = blocks_for(n, N);
      HD_LAUNCH((l1_distance_fwd_kernel<T, N>), static_cast<unsigned>(blocks), kThreads, 0, stream, x.as<T>(),
                target.as<T>(), n, sign.as<int8_t>(), scratch.as<float>());
    });
  });
  HD_LAUNCH(l1_distance_mean_kernel, 1, kMeanThreads, 0, stream, scratch.as<float>(), static_cast<int>(blocks), n,
            distance.as<float>());
}

void l1_distance_bwd(Tensor dy, Tensor sign, Tensor dx, uintptr_t stream) {
  const int64_t n = elements_of(dx);
  with_floating(dx.dtype, [&](auto type) {
    using T = decltype(type);
    with_pack<T>(is_aligned(sign, 16) && is_aligned(dx, 16), [&](auto width) {
      constexpr int N = decltype(width)::value;
      const int64_t blocks = ceil_div(n, int64_t{N} * kTile);
      HD_LAUNCH((l1_distance_bwd_kernel<T, N>), static_cast<unsigned>(blocks), kThreads, 0, stream, dy.as<float>(),
                sign.as<int8_t>(), n, dx.as<T>());
    });
  });
}

}  // namespace hd::cuda
