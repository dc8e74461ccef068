// How threads and blocks of instance_norm_act add up the sums of channels_last images, always in the same order.
#pragma once

#include "instance_norm_act_nhwc.cuh"

namespace hd::cuda {
namespace {

constexpr int kMerged = 8;  // parts whose sums a thread merges, at most

// Add up two numbers for each channel over all threads of a lane: totals[lane * N + k], which all may read
// after it.
template <int N>
__device__ __forceinline__ void sum_rows(const float (&a)[N], const float (&b)[N], int lanes, int rows, SumPair* cells,
                                         SumPair* totals) {
  constexpr int kTogether = N < 4 ? N : 4;
  const int threads = blockDim.x, thread = threadIdx.x, outputs = lanes * kTogether;
  int share = 1;  // threads that add up one output
  while (share < 32 && 2 * share * outputs <= threads) share *= 2;
  const int output = thread / share, lane = output / kTogether, k = output % kTogether;
#pragma unroll
  for (int v = 0; v < N; v += kTogether) {
#pragma unroll
    for (int c = 0; c < kTogether; ++c) cells[c * threads + thread] = {a[v + c], b[v + c]};
    __syncthreads();
    SumPair sum{0.f, 0.f};

#pragma unroll 1
    for (int r = thread % share; r < rows && output < outputs; r += share) {
      const SumPair cell = cells[k * threads + r * lanes + lane];
      sum.a += cell.a;
      sum.b += cell.b;
    }
#pragma unroll 1
    for (int offset = share / 2; offset > 0; offset /= 2) {
      sum.a += __shfl_xor_sync(0xffffffffu, sum.a, offset);
      sum.b += __shfl_xor_sync(0xffffffffu, sum.b, offset);
    }
    if (output < outputs && thread % share == 0) totals[lane * N + v + k] = sum;
    __syncthreads();
  }
}

// Wait until `count` blocks of this block's unit have come here, or been at the same place in an earlier round, of
// which this may be one.
__device__ __forceinline__ void meet(unsigned* counter, bool counts, int count) {
  __syncthreads();
  if (threadIdx.x == 0) {
    if (counts) signal(counter);
    await(counter, static_cast<unsigned>(count));
  }
  __syncthreads();
}

// The channels of a tile that a block merges, and a thread's share of their parts.
struct Slice {
  int first, channels, channel;  // of the tile
  int rows, row;
  SumPair sums[kMerged];  // of the parts row, row + rows, ...

  __device__ __forceinline__ Slice(const SumPair* partial, int part, int tile, const Tiling& t) {
    first = t.merged < tile ? part * t.merged : 0;
    channels = min(t.merged, tile - first);
    channel = first + threadIdx.x % channels;
    rows = blockDim.x / channels;
    row = threadIdx.x / channels;
#pragma unroll
    for (int i = 0; i < kMerged; ++i) sums[i] = has(i, t) ? partial[part_of(i) * tile + channel] : SumPair{0.f, 0.f};
  }
  __device__ __forceinline__ int part_of(int i) const { return row + i * rows; }
  __device__ __forceinline__ bool has(int i, const Tiling& t) const { return row < rows && part_of(i) < t.parts; }
};

// Two numbers for each channel of a unit, from those of its parts: thread k brings, and gets, those of channel k of the
// tile. merge(slice, partial) leaves the sums of a slice in shared.totals. If every block merged a whole tile, the
// second-level cache would have to deliver parts * parts * channels of them; therefore blocks merge slices of a large
// one, and meet once more.
template <int V, typename F>
__device__ __forceinline__ SumPair merge_parts(SumPair sums, const Share<V>& own, const Tiling& t, int round,
                                               const F& merge) {
  if (t.parts == 1) return sums;
  const int tile = t.lanes * V, thread = threadIdx.x, unit = blockIdx.x / t.parts, turn = round % 2 * t.at_once + unit;
  SumPair* const partial = t.partial + static_cast<int64_t>(turn) * t.parts * tile;
  SumPair* const totals = t.totals + static_cast<int64_t>(turn) * tile;
  unsigned* const counters = t.counters + 2 * unit;
  if (thread < tile) partial[own.part * tile + thread] = sums;
  if (round == 0)
    grid_sync();
  else
    meet(counters, true, t.parts * round);
  if (t.merged == tile) {
    const SumPair total = merge(Slice(partial, own.part, tile, t), partial);
    return total;
  }
  const int slices = (tile + t.merged - 1) / t.merged;
  if (own.part < slices) {
    const Slice slice(partial, own.part, tile, t);
    const SumPair total = merge(slice, partial);
    if (thread < slice.channels) totals[slice.first + thread] = total;
  }
  meet(counters + 1, own.part < slices, slices * (round + 1));
  return thread < tile ? totals[thread] : SumPair{0.f, 0.f};
}

}  // namespace
}  // namespace hd::cuda
