// The ids of an image are counted in a table of all ids that it may hold, the ids that occur are ranked, and every
// pixel looks up the rank of its id. Maps are long runs of equal ids: a run [p, q) adds q where it ends and subtracts p
// where it begins, so that only the ends of runs touch the table. Blocks collect these additions in shared memory.
#include "cuda.cuh"

namespace hd::cuda {
namespace {

constexpr int kThreads = 256, kPixels = 4;  // adjacent pixels of a thread
constexpr int kSteps = 4;                   // of counting
constexpr int kSlots = 1024;                // ids that a block collects; others go to the table at once
constexpr int kScanThreads = 1024;
constexpr int kEntries = 8 * kThreads;  // of the table, written by a block
constexpr unsigned kAll = 0xffffffffu;

template <typename T>
struct Ids {
  const T* data;     // [B, H, W]
  unsigned pixels;   // H * W
  bool aligned;      // for accesses of kPixels pixels
  int64_t first_id;  // of the first entry of the table
  int table;         // entries of an image
};

// Pixels p to p + kPixels of an image; those beyond its end are 0.
template <typename T>
__device__ __forceinline__ void load_ids(const Ids<T>& ids, const T* image, unsigned p, T (&out)[kPixels]) {
  constexpr int N = 16 / sizeof(T);
  if (ids.aligned && p < ids.pixels) {
#pragma unroll
    for (int k = 0; k < kPixels; k += N) {
      const Pack<T, N> pack = load_pack<N>(image + p + k);
#pragma unroll
      for (int i = 0; i < N; ++i) out[k + i] = pack.at[i];
    }
    return;
  }
#pragma unroll
  for (int k = 0; k < kPixels; ++k) out[k] = p + k < ids.pixels ? image[p + k] : T(0);
}

template <typename T>
__global__ void __launch_bounds__(kThreads)
    instance_index_count_kernel(Ids<T> ids,
                                unsigned tiles,                // of an image
                                unsigned* __restrict__ table,  // [B, T] zeros
                                int* __restrict__ outside) {   // [1] becomes 1 if an id is not in the table
  __shared__ int keys[kSlots];
  __shared__ unsigned sums[kSlots];
  for (int i = static_cast<int>(threadIdx.x); i < kSlots; i += kThreads) keys[i] = -1, sums[i] = 0;
  __syncthreads();
  const unsigned b = blockIdx.x / tiles, tile = blockIdx.x % tiles;
  const T* image = ids.data + static_cast<int64_t>(b) * ids.pixels;
  unsigned* counts = table + static_cast<int64_t>(b) * ids.table;
  const unsigned lane = threadIdx.x % 32;

#pragma unroll
  for (int step = 0; step < kSteps; ++step) {
    const unsigned p = ((tile * kSteps + step) * kThreads + threadIdx.x) * kPixels;
    T own[kPixels];
    load_ids(ids, image, p, own);
    T before = __shfl_up_sync(kAll, own[kPixels - 1], 1), after = __shfl_down_sync(kAll, own[0], 1);
    if (lane == 0 && p > 0 && p < ids.pixels) before = image[p - 1];
    if (lane == 31 && p + kPixels < ids.pixels) after = image[p + kPixels];
#pragma unroll
    for (int k = 0; k < kPixels; ++k) {
      const unsigned at = p + k;
      if (at >= ids.pixels) break;
      const bool begins = at == 0 || own[k] != (k == 0 ? before : own[k == 0 ? 0 : k - 1]);
      const bool ends =
          at + 1 == ids.pixels || own[k] != (k + 1 == kPixels ? after : own[k + 1 == kPixels ? k : k + 1]);
      if (!begins && !ends) continue;
      const uint64_t entry =
          static_cast<uint64_t>(own[k]) - static_cast<uint64_t>(ids.first_id);  // ids below wrap around
      if (entry >= static_cast<uint64_t>(ids.table)) {
        *outside = 1;
        continue;
      }
      const unsigned amount = (ends ? at + 1 : 0u) - (begins ? at : 0u);  // modulo 2^32, as the sums are
      const int key = static_cast<int>(entry), slot = key % kSlots, found = atomicCAS(&keys[slot], -1, key);
      if (found == -1 || found == key)  // apart, or the addition would be one to memory of either kind
        atomicAdd(&sums[slot], amount);
      else
        atomicAdd(&counts[key], amount);
    }
  }
  __syncthreads();
  for (int i = static_cast<int>(threadIdx.x); i < kSlots; i += kThreads)
    if (sums[i] != 0) atomicAdd(&counts[keys[i]], sums[i]);
}

// Rank the ids of one image that occur. A warp has a stretch of the table.
__global__ void __launch_bounds__(kScanThreads)
    instance_index_scan_kernel(const unsigned* __restrict__ table,  // [B, T]
                               int* __restrict__ ranks,             // [B, T], written where an id occurs
                               int* __restrict__ sizes,             // [B] ids of each image
                               int entries) {                       // T
  constexpr int kWarps = kScanThreads / 32;
  __shared__ int totals[kWarps];
  const int warp = static_cast<int>(threadIdx.x) / 32, lane = static_cast<int>(threadIdx.x) % 32;
  const int stretch = entries / kWarps;
  const int64_t begin = static_cast<int64_t>(blockIdx.x) * entries + warp * stretch;

  int total = 0;
#pragma unroll 4
  for (int i = lane * 4; i < stretch; i += 128) {
    const Pack<unsigned, 4> counts = load_pack<4>(table + begin + i);
#pragma unroll
    for (int k = 0; k < 4; ++k) total += counts.at[k] != 0 ? 1 : 0;
  }
#pragma unroll
  for (int offset = 16; offset > 0; offset /= 2) total += __shfl_xor_sync(kAll, total, offset);
  if (lane == 0) totals[warp] = total;
  __syncthreads();
  int rank = 0;
  for (int i = 0; i < warp; ++i) rank += totals[i];
  if (threadIdx.x == kScanThreads - 1) sizes[blockIdx.x] = rank + total;
  if (total == 0) return;  // the whole warp

  for (int i = lane * 4; i < stretch; i += 128) {
    const Pack<unsigned, 4> counts = load_pack<4>(table + begin + i);
    const bool any = (counts.at[0] | counts.at[1] | counts.at[2] | counts.at[3]) != 0;
    if (!__any_sync(kAll, any)) continue;
    int own = rank, all = 0;
#pragma unroll
    for (int k = 0; k < 4; ++k) {
      const unsigned occurs = __ballot_sync(kAll, counts.at[k] != 0);
      own += __popc(occurs & ((1u << lane) - 1u));
      all += __popc(occurs);
    }
#pragma unroll
    for (int k = 0; k < 4; ++k)
      if (counts.at[k] != 0) ranks[begin + i + k] = own++;
    rank += all;
  }
}

// The first blocks of an image write its part of the lists, the others its pixels.
template <typename T>
__global__ void __launch_bounds__(kThreads)
    instance_index_fill_kernel(Ids<T> ids,
                               unsigned parts,                      // blocks of an image
                               const unsigned* __restrict__ table,  // [B, T]
                               const int* __restrict__ ranks,       // [B, T]
                               const int* __restrict__ sizes,       // [B + 1] ids of each image; whether one is outside
                               int batch,                           // B
                               int* __restrict__ rows,              // [B, H, W]
                               int64_t* __restrict__ offsets,       // [B + 1]
                               T* __restrict__ unique,              // [N]
                               int64_t* __restrict__ counts) {      // [N]
  const unsigned b = blockIdx.x / parts, part = blockIdx.x % parts, lists = (ids.table + kEntries - 1) / kEntries;
  int base = 0;
  for (unsigned i = 0; i < b; ++i) base += sizes[i];
  const bool outside = sizes[batch] != 0;
  const int64_t first = static_cast<int64_t>(b) * ids.table;
  if (part == 0 && threadIdx.x == 0) {
    if (b == 0) offsets[0] = 0;
    offsets[b + 1] = outside ? -1 : base + sizes[b];
  }
  if (outside) return;

  if (part < lists) {
    for (int i = 0; i < kEntries / kThreads; ++i) {
      const int entry = static_cast<int>(part * kEntries + i * kThreads + threadIdx.x);
      const unsigned count = entry < ids.table ? table[first + entry] : 0u;
      if (count == 0) continue;
      const int row = base + ranks[first + entry];
      unique[row] = static_cast<T>(entry + ids.first_id);
      counts[row] = count;
    }
    return;
  }
  const unsigned p = ((part - lists) * kThreads + threadIdx.x) * kPixels;
  if (p >= ids.pixels) return;
  T own[kPixels];
  load_ids(ids, ids.data + static_cast<int64_t>(b) * ids.pixels, p, own);
  Pack<int, kPixels> row;
#pragma unroll
  for (int k = 0; k < kPixels; ++k) {
    const bool repeats = k > 0 && own[k] == own[k == 0 ? 0 : k - 1];
    const int64_t entry = first + (static_cast<int64_t>(own[k]) - ids.first_id);
    row.at[k] = p + k >= ids.pixels ? 0 : repeats ? row.at[k == 0 ? 0 : k - 1] : base + __ldg(ranks + entry);
  }
  int* target = rows + static_cast<int64_t>(b) * ids.pixels + p;
  if (ids.aligned) return store_pack(target, row);
#pragma unroll
  for (int k = 0; k < kPixels; ++k)
    if (p + k < ids.pixels) target[k] = row.at[k];
}

}  // namespace

void instance_index_fwd(Tensor ids, Tensor rows, Tensor offsets, Tensor unique, Tensor counts, Tensor table,
                        Tensor ranks, Tensor sizes, int64_t first_id, uintptr_t stream) {
  const int batch = static_cast<int>(ids.shape[0]), entries = static_cast<int>(table.shape[1]);
  const int64_t pixels = ids.shape[1] * ids.shape[2];
  const bool aligned = pixels % kPixels == 0 && is_aligned(ids, 16) && is_aligned(rows, 16);
  const int64_t tiles = ceil_div(pixels, kThreads * kPixels * kSteps);
  const int64_t parts = ceil_div(entries, kEntries) + ceil_div(pixels, kThreads * kPixels);
  const auto run = [&](auto type) {
    using T = decltype(type);
    const Ids<T> in = {ids.as<T>(), static_cast<unsigned>(pixels), aligned, first_id, entries};
    HD_LAUNCH(instance_index_count_kernel<T>, batch * tiles, kThreads, 0, stream, in, static_cast<unsigned>(tiles),
              table.as<unsigned>(), sizes.as<int>() + batch);
    HD_LAUNCH(instance_index_scan_kernel, batch, kScanThreads, 0, stream, table.as<unsigned>(), ranks.as<int>(),
              sizes.as<int>(), entries);
    HD_LAUNCH(instance_index_fill_kernel<T>, batch * parts, kThreads, 0, stream, in, static_cast<unsigned>(parts),
              table.as<unsigned>(), ranks.as<int>(), sizes.as<int>(), batch, rows.as<int>(), offsets.as<int64_t>(),
              unique.as<T>(), counts.as<int64_t>());
  };
  ids.dtype == DType::int32 ? run(int32_t{}) : run(int64_t{});
}

}  // namespace hd::cuda
