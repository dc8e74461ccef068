// What the CUDA kernels share: launches, 16-byte accesses, reductions.
//
// The tests compile the .cu files for the host too, with a cuda_runtime.h that runs each thread of a block as a fiber
// (tests/csrc). That is why kernels are launched by HD_LAUNCH, dynamic shared memory is named by HD_SHARED, and inline
// PTX needs a plain twin.
#pragma once

#include <cuda_runtime.h>

#include <cstdarg>
#include <cstdio>
#include <exception>

#include "half.h"
#include "kernels.h"

#ifndef HD_LAUNCH
#define HD_LAUNCH(kernel, grid, block, shared_bytes, stream, ...)                                     \
  do {                                                                                                \
    kernel<<<(grid), (block), (shared_bytes), reinterpret_cast<cudaStream_t>(stream)>>>(__VA_ARGS__); \
    ::hd::check_cuda(cudaGetLastError(), #kernel);                                                    \
  } while (0)
#define HD_SHARED(T, name)                                       \
  extern __shared__ __align__(16) unsigned char hd_shared_raw[]; \
  T* name = reinterpret_cast<T*>(hd_shared_raw)
#define HD_MOST_ROWS 65535  // blocks of a grid in its directions y and z
#endif

namespace hd {

// An error with a message in the format of printf. std::runtime_error and std::string would add half a second to the
// compilation of every file.
class Error : public std::exception {
 public:
  __attribute__((format(printf, 2, 3))) explicit Error(const char* format, ...) {
    va_list values;
    va_start(values, format);
    vsnprintf(text_, sizeof(text_), format, values);
    va_end(values);
  }
  const char* what() const noexcept override { return text_; }

 private:
  char text_[512];
};

inline void check_cuda(cudaError_t status, const char* what) {
  if (status == cudaSuccess) return;
  cudaGetLastError();  // or the next launch would report it once more
  throw Error("%s: %s", what, cudaGetErrorString(status));
}

inline int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

// A grid of `columns` blocks in the direction x, for each of so many rows. More rows than the direction y has go on in
// the direction z. Then there may be a few too many: kernels ask grid_row() for theirs.
inline dim3 grid_of(int64_t columns, int64_t rows) {
  const int64_t layers = ceil_div(rows, HD_MOST_ROWS);
  return dim3(static_cast<unsigned>(columns), static_cast<unsigned>(ceil_div(rows, layers)),
              static_cast<unsigned>(layers));
}

__device__ __forceinline__ unsigned grid_row() { return blockIdx.z * gridDim.y + blockIdx.y; }

// Bytes of shared memory that a block may ask for on the current GPU.
inline int64_t shared_offered() {
  int device = 0, most = 0;
  check_cuda(cudaGetDevice(&device), "cudaGetDevice");
  check_cuda(cudaDeviceGetAttribute(&most, cudaDevAttrMaxSharedMemoryPerBlockOptin, device), "cudaDeviceGetAttribute");
  return most;
}

// Whether a tensor begins at a multiple of so many bytes. A missing one does.
inline bool is_aligned(const Tensor& x, size_t bytes) { return reinterpret_cast<uintptr_t>(x.data) % bytes == 0; }

// N adjacent elements, moved by one instruction.
template <typename T, int N>
struct alignas(sizeof(T) * N) Pack {
  T at[N];
};

template <int N, typename T>
__device__ __forceinline__ Pack<T, N> load_pack(const T* address) {
  return *reinterpret_cast<const Pack<T, N>*>(address);
}

template <int N, typename T>
__device__ __forceinline__ void store_pack(T* address, const Pack<T, N>& pack) {
  *reinterpret_cast<Pack<T, N>*>(address) = pack;
}

// The sum over the 32 lanes of a warp. Every lane gets it.
__device__ __forceinline__ float warp_sum(float x) {
#pragma unroll
  for (int offset = 16; offset > 0; offset /= 2) x += __shfl_xor_sync(0xffffffffu, x, offset);
  return x;
}

}  // namespace hd
