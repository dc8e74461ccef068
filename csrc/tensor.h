// What a kernel knows of a torch tensor. Without torch headers the extension works with any version of torch.
#pragma once

#include <cstdint>

#include "half.h"

namespace hd {

enum class PadMode { reflect, zero, replicate };  // of the same names as in hdgan/ops/instance_norm_act.py
enum class DType { float32, bfloat16, float16, int8, int16, int32, int64, uint8, uint16, uint32, uint64 };

struct Tensor {
  void* data = nullptr;  // null where None was given
  DType dtype = DType::float32;
  int64_t shape[4] = {1, 1, 1, 1};
  int64_t stride[4] = {0, 0, 0, 0};  // in elements

  template <typename T>
  T* as() const {
    return static_cast<T*>(data);
  }
  explicit operator bool() const { return data != nullptr; }
};

// Call fn(T{}) with the storage type of a floating-point dtype.
template <typename F>
inline __attribute__((always_inline)) void with_floating(DType dtype, const F& fn) {
  if (dtype == DType::float32) return fn(float{});
  if (dtype == DType::bfloat16) return fn(bf16{});
  return fn(f16{});
}

// True for a [B, C, H, W] tensor whose channels are adjacent. A tensor that is both counts as contiguous.
inline __attribute__((always_inline)) bool is_channels_last(const Tensor& x) {
  if (x.shape[1] == 1 || x.stride[1] != 1) return false;
  return x.shape[2] * x.shape[3] > 1;
}

}  // namespace hd
