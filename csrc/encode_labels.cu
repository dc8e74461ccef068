// Writing the result takes nearly all the time. A thread reads four adjacent pixels of the maps at once. Contiguous
// planes are written 16 bytes a thread from the codes of a strip of pixels. Of a channels_last result, a block fills a
// tile in shared memory with zeros, sets the few ones, and copies it 16 bytes at a time, whatever the number of
// channels. Zero and one are bit patterns, so floating-point types of one size share a kernel.
#include <algorithm>

#include "cuda.cuh"

namespace hd::cuda {
namespace {

constexpr int kThreads = 128;
constexpr int kTileBytes = 16384;

struct Maps {
  const void* label;  // [B, H, W]
  const void* ids;    // [B, H, W] or null
  int label_bytes, id_bytes;
  bool label_signed;
  int height, width, n_labels, dontcare;
  bool packed;  // four pixels are one aligned access, and in one row
};

// Four adjacent pixels: the class of each, or -1, and one bit for each that is on a boundary.
struct Four {
  int label[4];
  unsigned edges;
};

template <typename T>
__device__ __forceinline__ void load_four(const T* from, T (&out)[4]) {
  constexpr int N = sizeof(T) == 8 ? 2 : 4;
#pragma unroll
  for (int k = 0; k < 4; k += N) {
    const Pack<T, N> pack = load_pack<N>(from + k);
#pragma unroll
    for (int i = 0; i < N; ++i) out[k + i] = pack.at[i];
  }
}

// One number of a map, of 1, 2, 4 or 8 bytes. All threads take the same branches, and a kernel for each type would
// write no faster.
__device__ __forceinline__ uint64_t load_one(const void* map, int bytes, int64_t i) {
  if (bytes == 1) return static_cast<const uint8_t*>(map)[i];
  if (bytes == 2) return static_cast<const uint16_t*>(map)[i];
  if (bytes == 4) return static_cast<const uint32_t*>(map)[i];
  return static_cast<const uint64_t*>(map)[i];
}

// The class of a label that was loaded without a sign, or -1.
__device__ __forceinline__ int class_of(const Maps& maps, uint64_t label) {
  const int spare = maps.label_signed ? 64 - 8 * maps.label_bytes : 0;
  const int64_t value = static_cast<int64_t>(label << spare) >> spare;  // a uint64 beyond int64 is no label either
  const bool known = static_cast<uint64_t>(value) < static_cast<uint64_t>(maps.n_labels);
  return known && value != maps.dontcare ? static_cast<int>(value) : -1;
}

// Where the first of four pixels is in an image, and how many of them there are.
struct Spot {
  int64_t pixel;  // of the batch
  int h, w, count;
};

template <typename T>
__device__ __forceinline__ void read_labels(const Maps& maps, const Spot& at, Four& four) {
  T labels[4];
  load_four(static_cast<const T*>(maps.label) + at.pixel, labels);
#pragma unroll
  for (int k = 0; k < 4; ++k) four.label[k] = class_of(maps, labels[k]);
}

// Ids are only compared, so their sign does not matter.
template <typename T>
__device__ __forceinline__ void read_edges(const Maps& maps, const Spot& at, Four& four) {
  const T* source = static_cast<const T*>(maps.ids) + at.pixel;
  T own[4], above[4], below[4];
  load_four(source, own);
  load_four(source - (at.h > 0 ? maps.width : 0), above);
  load_four(source + (at.h + 1 < maps.height ? maps.width : 0), below);
  const T before = source[at.w > 0 ? -1 : 0], after = source[at.w + 4 < maps.width ? 4 : 3];
#pragma unroll
  for (int k = 0; k < 4; ++k) {
    const T left = k == 0 ? before : own[k == 0 ? 0 : k - 1], right = k == 3 ? after : own[k == 3 ? 3 : k + 1];
    if (own[k] != above[k] || own[k] != below[k] || own[k] != left || own[k] != right) four.edges |= 1u << k;
  }
}

// The same of maps without aligned packs, one pixel after the other.
__device__ __forceinline__ void read_apart(const Maps& maps, const Spot& at, Four& four) {
  const int width = maps.width;
  int h = at.h, w = at.w;
#pragma unroll 1
  for (int k = 0; k < at.count; ++k) {
    const int64_t pixel = at.pixel + k;
    const int label = class_of(maps, load_one(maps.label, maps.label_bytes, pixel));
#pragma unroll
    for (int i = 0; i < 4; ++i) four.label[i] = i == k ? label : four.label[i];
    if (maps.ids == nullptr) continue;
    const int64_t around[4] = {h > 0 ? -width : 0, h + 1 < maps.height ? width : 0, w > 0 ? -1 : 0,
                               w + 1 < width ? 1 : 0};
    uint64_t differs = 0;
    const uint64_t own = load_one(maps.ids, maps.id_bytes, pixel);
#pragma unroll
    for (int i = 0; i < 4; ++i) differs |= load_one(maps.ids, maps.id_bytes, pixel + around[i]) ^ own;
    if (differs != 0) four.edges |= 1u << k;
    if (++w == width) w = 0, ++h;
  }
}

__device__ __forceinline__ Four read_four(const Maps& maps, const Spot& at) {
  Four four{{-1, -1, -1, -1}, 0};
  if (!maps.packed) {
    read_apart(maps, at, four);
    return four;
  }
  if (maps.label_bytes == 1)
    read_labels<uint8_t>(maps, at, four);
  else if (maps.label_bytes == 2)
    read_labels<uint16_t>(maps, at, four);
  else if (maps.label_bytes == 4)
    read_labels<uint32_t>(maps, at, four);
  else
    read_labels<uint64_t>(maps, at, four);
  if (maps.ids == nullptr) return four;
  if (maps.id_bytes == 1)
    read_edges<uint8_t>(maps, at, four);
  else if (maps.id_bytes == 2)
    read_edges<uint16_t>(maps, at, four);
  else if (maps.id_bytes == 4)
    read_edges<uint32_t>(maps, at, four);
  else
    read_edges<uint64_t>(maps, at, four);
  return four;
}

// Call fn(i, Four, n) for each four of `count` pixels of an image from `start` on: pixel start + i and the next ones,
// of which n are there.
template <typename F>
__device__ __forceinline__ void for_each_four(const Maps& maps, int64_t image, int start, int count, const F& fn) {
#pragma unroll 1
  for (int i = static_cast<int>(threadIdx.x) * 4; i < count; i += kThreads * 4) {
    const int h = (start + i) / maps.width, n = min(4, count - i);
    fn(i, read_four(maps, {image * maps.height * maps.width + start + i, h, start + i - h * maps.width, n}), n);
  }
}

// A strip of kThreads packs of one image; blocks [0, strips) belong to the first image.
template <typename T>
__global__ void __launch_bounds__(kThreads) encode_labels_planes_kernel(Maps maps, T* __restrict__ y,  // [B, C, H, W]
                                                                        int strips, T one) {
  constexpr int kPack = 16 / sizeof(T), kStrip = kThreads * kPack;
  __shared__ __align__(16) int labels[kStrip];
  __shared__ unsigned edges[kStrip / 4];
  const unsigned number = blockIdx.x / strips;
  const int64_t image = number, pixels = static_cast<int64_t>(maps.height) * maps.width;
  const int start = static_cast<int>(blockIdx.x % strips) * kStrip;
  const int count = min(static_cast<int>(pixels) - start, kStrip);
  for_each_four(maps, image, start, count, [&](int i, const Four& four, int) {
    store_pack(labels + i, Pack<int, 4>{{four.label[0], four.label[1], four.label[2], four.label[3]}});
    edges[i / 4] = four.edges;
  });
  __syncthreads();

  T* target = y + image * (maps.n_labels + (maps.ids != nullptr ? 1 : 0)) * pixels + start;
  if (pixels % kPack != 0) {  // packs would not be aligned
    for (int c = 0; c < maps.n_labels; ++c, target += pixels)
      for (int i = threadIdx.x; i < count; i += kThreads) target[i] = labels[i] == c ? one : T{0};
    if (maps.ids != nullptr)
      for (int i = threadIdx.x; i < count; i += kThreads) target[i] = (edges[i / 4] >> i % 4 & 1u) != 0 ? one : T{0};
    return;
  }
  const int mine = static_cast<int>(threadIdx.x) * kPack;
  if (mine >= count) return;
  target += mine;
  int own[kPack];
  Pack<T, kPack> pack;
#pragma unroll
  for (int k = 0; k < kPack; ++k) own[k] = labels[mine + k];
#pragma unroll 4
  for (int c = 0; c < maps.n_labels; ++c, target += pixels) {
#pragma unroll
    for (int k = 0; k < kPack; ++k) pack.at[k] = own[k] == c ? one : T{0};
    store_pack(target, pack);
  }
  if (maps.ids == nullptr) return;
#pragma unroll
  for (int k = 0; k < kPack; ++k) pack.at[k] = (edges[(mine + k) / 4] >> k % 4 & 1u) != 0 ? one : T{0};
  store_pack(target, pack);
}

// A strip of so many pixels of one image, whose channels are adjacent. Its elements are less than 2^31 (MAX_LABELS).
template <typename T>
__global__ void __launch_bounds__(kThreads) encode_labels_pixels_kernel(Maps maps, T* __restrict__ y,  // [B, H, W, C]
                                                                        int channels, int strips, int strip, T one) {
  constexpr int kPack = 16 / sizeof(T), kTile = kTileBytes / sizeof(T);
  __shared__ __align__(16) T tile[kTile];
  const unsigned number = blockIdx.x / strips;
  const int64_t image = number, pixels = static_cast<int64_t>(maps.height) * maps.width;
  const int start = static_cast<int>(blockIdx.x % strips) * strip, thread = static_cast<int>(threadIdx.x) * kPack;
  const int count = min(static_cast<int>(pixels) - start, strip), elements = count * channels;
  T* target = y + (image * pixels + start) * channels;
  const bool aligned = image * pixels * channels % kPack == 0;  // as strips have a multiple of kPack pixels
#pragma unroll 1
  for (int begin = 0; begin < elements; begin += kTile) {  // once, but where pixels have many channels
#pragma unroll
    for (int i = 0; i < kTile; i += kThreads * kPack) store_pack(tile + i + thread, Pack<T, kPack>{});
    __syncthreads();
    for_each_four(maps, image, start, count, [&](int i, const Four& four, int) {
#pragma unroll
      for (int k = 0; k < 4; ++k) {
        const int pixel = (i + k) * channels - begin, at = pixel + four.label[k], edge = pixel + maps.n_labels;
        if (four.label[k] >= 0 && at >= 0 && at < kTile) tile[at] = one;
        if ((four.edges >> k & 1u) != 0 && edge >= 0 && edge < kTile) tile[edge] = one;
      }
    });
    __syncthreads();
    const int end = min(elements - begin, kTile), packed = aligned ? end / kPack * kPack : 0;
#pragma unroll
    for (int i = 0; i < kTile; i += kThreads * kPack)
      if (i + thread < packed) store_pack(target + begin + i + thread, load_pack<kPack>(tile + i + thread));
#pragma unroll 1
    for (int i = packed + static_cast<int>(threadIdx.x); i < end; i += kThreads) target[begin + i] = tile[i];
    __syncthreads();
  }
}

// A strip of one image.
__global__ void __launch_bounds__(kThreads) encode_labels_codes_kernel(Maps maps,
                                                                       int* __restrict__ codes,  // [B, H, W]
                                                                       int strips) {
  constexpr int kStrip = 4 * kThreads;
  const unsigned number = blockIdx.x / strips;
  const int64_t image = number, pixels = static_cast<int64_t>(maps.height) * maps.width;
  const int start = static_cast<int>(blockIdx.x % strips) * kStrip;
  const int count = min(static_cast<int>(pixels) - start, kStrip);
  codes += image * pixels + start;
  for_each_four(maps, image, start, count, [&](int i, const Four& four, int n) {
    Pack<int, 4> code;
#pragma unroll
    for (int k = 0; k < 4; ++k)
      code.at[k] =
          (four.label[k] < 0 ? maps.n_labels : four.label[k]) + ((four.edges >> k & 1u) == 0 ? 0 : maps.n_labels + 1);
    if (maps.packed) return store_pack(codes + i, code);
#pragma unroll
    for (int k = 0; k < 4; ++k)
      if (k < n) codes[i + k] = code.at[k];
  });
}

template <typename T>
void encode(const Maps& maps, const Tensor& y, T one, uintptr_t stream) {
  constexpr int64_t kPack = 16 / sizeof(T), kTile = kTileBytes / sizeof(T);
  const int64_t channels = y.shape[1], pixels = y.shape[2] * y.shape[3];
  const bool last = is_channels_last(y);
  const int64_t strip = last ? std::max<int64_t>(kTile / channels / kPack * kPack, kPack) : kThreads * kPack;
  const int strips = static_cast<int>(ceil_div(pixels, strip));
  if (last)
    HD_LAUNCH(encode_labels_pixels_kernel<T>, y.shape[0] * strips, kThreads, 0, stream, maps, y.as<T>(),
              static_cast<int>(channels), strips, static_cast<int>(strip), one);
  else
    HD_LAUNCH(encode_labels_planes_kernel<T>, y.shape[0] * strips, kThreads, 0, stream, maps, y.as<T>(), strips, one);
}

int bytes_of(DType type) {
  switch (type) {
    case DType::int8:
    case DType::uint8:
      return 1;
    case DType::int16:
    case DType::uint16:
      return 2;
    case DType::int64:
    case DType::uint64:
      return 8;
    default:
      return 4;
  }
}

Maps maps_of(const Tensor& label, const Tensor& ids, int64_t n_labels, int64_t dontcare) {
  if (label.shape[1] * label.shape[2] > INT32_MAX - 8 * kThreads)  // a strip may end beyond its image
    throw Error("encode_labels: expected maps of less than 2^31 pixels");
  Maps maps{};
  maps.label = label.data, maps.ids = ids.data;
  maps.label_bytes = bytes_of(label.dtype), maps.id_bytes = bytes_of(ids.dtype);
  maps.label_signed = label.dtype == DType::int8 || label.dtype == DType::int16 || label.dtype == DType::int32 ||
                      label.dtype == DType::int64;
  maps.height = static_cast<int>(label.shape[1]), maps.width = static_cast<int>(label.shape[2]);
  maps.n_labels = static_cast<int>(n_labels), maps.dontcare = static_cast<int>(dontcare);
  maps.packed = maps.width % 4 == 0 && is_aligned(label, 16) && is_aligned(ids, 16);
  return maps;
}

}  // namespace

void encode_labels_fwd(Tensor label, Tensor ids, Tensor y, int64_t dontcare, uintptr_t stream) {
  const Maps maps = maps_of(label, ids, y.shape[1] - (ids ? 1 : 0), dontcare);
  if (y.dtype == DType::float32) return encode<uint32_t>(maps, y, 0x3f800000u, stream);
  encode<uint16_t>(maps, y, y.dtype == DType::bfloat16 ? 0x3f80 : 0x3c00, stream);
}

void encode_labels_codes(Tensor label, Tensor ids, Tensor codes, int64_t n_labels, int64_t dontcare, uintptr_t stream) {
  const int strips = static_cast<int>(ceil_div(label.shape[1] * label.shape[2], 4 * kThreads));
  HD_LAUNCH(encode_labels_codes_kernel, label.shape[0] * strips, kThreads, 0, stream,
            maps_of(label, ids, n_labels, dontcare), codes.as<int>(), strips);
}

}  // namespace hd::cuda
