// Sums over instances in an order that is always the same, of pixels that are sorted by instance.
#pragma once

#include "instance_mean.cuh"

namespace hd::cuda {
namespace {

// One block adds up one piece of one instance, in an order that is always the same.
template <typename T>
__global__ void __launch_bounds__(kThreads, 2)
    instance_mean_reduce_sorted_kernel(const T* __restrict__ x,             // [B, C, H, W]
                                       const int64_t* __restrict__ order,   // [B * H * W] pixels by instance
                                       const int64_t* __restrict__ starts,  // [N + 1] first of each instance in it
                                       float* __restrict__ partial,         // [pieces, N, C]
                                       unsigned pieces, Layout layout) {
  __shared__ float warps[kThreads / 32][kChannels];
  const int64_t row = blockIdx.x, piece = grid_row() % pieces;
  const int64_t from = static_cast<int64_t>(grid_row() / pieces) * kChannels;
  if (from >= layout.channels) return;
  const int channel = static_cast<int>(from), channels = layout.channels;
  // Within the batch, also if the counts of an index that was put together by hand are not.
  const int64_t all = layout.batch * layout.pixels;
  const int64_t start = min(max(starts[row], int64_t{0}), all - 1), stop = min(starts[row + 1], all);
  const int64_t size = (stop - start + pieces - 1) / pieces, end = min(start + (piece + 1) * size, stop);
  const int64_t b = order[start] / layout.pixels;
  const int64_t pixel = layout.last ? channels : 1, plane = layout.last ? 1 : layout.pixels;
  const T* image = x + b * channels * layout.pixels + channel * plane;
  float sum[kChannels] = {};
#pragma unroll 4
  for (int64_t i = start + piece * size + threadIdx.x; i < end; i += blockDim.x) {
    const int64_t p = order[i] - b * layout.pixels;
#pragma unroll
    for (int c = 0; c < kChannels; ++c)
      if (channel + c < channels) sum[c] += to_float(image[p * pixel + c * plane]);
  }
#pragma unroll
  for (int c = 0; c < kChannels; ++c) {
    sum[c] = warp_sum(sum[c]);
    if (threadIdx.x % 32 == 0) warps[threadIdx.x / 32][c] = sum[c];
  }
  __syncthreads();
  const int c = static_cast<int>(threadIdx.x);
  if (c >= kChannels || channel + c >= channels) return;
  float total = 0.f;
  for (unsigned w = 0; w < blockDim.x / 32; ++w) total += warps[w][c];
  partial[(piece * gridDim.x + row) * channels + channel + c] = total;
}

}  // namespace
}  // namespace hd::cuda
