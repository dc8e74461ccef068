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
  DType label_type, id_type;
  int64_t height, width;
  int n_labels;
  int dontcare;
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

template <typename T>
__device__ __forceinline__ void read_labels(const Maps& maps, int64_t pixel, int count, Four& four) {
  using Unsigned =
      std::conditional_t<sizeof(T) == 8, uint64_t, uint32_t>;  // of which negative labels are large numbers
  const T* source = static_cast<const T*>(maps.label) + pixel;
  T own[4] = {};
  if (maps.packed)
    load_four(source, own);
  else
#pragma unroll
    for (int k = 0; k < 4; ++k)
      if (k < count) own[k] = source[k];
#pragma unroll
  for (int k = 0; k < 4; ++k) {
    const bool known = static_cast<Unsigned>(own[k]) < static_cast<Unsigned>(maps.n_labels);
    four.label[k] = known && static_cast<int>(own[k]) != maps.dontcare ? static_cast<int>(own[k]) : -1;
  }
}

// Pixels from one in row h and column w on. Ids are only compared, so their sign does not matter.
template <typename T>
__device__ __forceinline__ unsigned read_edges(const Maps& maps, int64_t pixel, int64_t h, int64_t w, int count) {
  const T* source = static_cast<const T*>(maps.ids) + pixel;
  const int64_t width = maps.width;
  unsigned edges = 0;
  if (maps.packed) {
    T own[4], above[4], below[4];
    load_four(source, own);
    load_four(source - (h > 0 ? width : 0), above);
    load_four(source + (h + 1 < maps.height ? width : 0), below);
    const T before = source[w > 0 ? -1 : 0], after = source[w + 4 < width ? 4 : 3];
#pragma unroll
    for (int k = 0; k < 4; ++k) {
      const T left = k == 0 ? before : own[k == 0 ? 0 : k - 1], right = k == 3 ? after : own[k == 3 ? 3 : k + 1];
      if (own[k] != above[k] || own[k] != below[k] || own[k] != left || own[k] != right) edges |= 1u << k;
    }
    return edges;
  }
#pragma unroll 1
  for (int k = 0; k < count; ++k, ++source) {
    const T own = *source;
    const bool edge = own != source[h > 0 ? -width : 0] || own != source[h + 1 < maps.height ? width : 0] ||
                      own != source[w > 0 ? -1 : 0] || own != source[w + 1 < width ? 1 : 0];
    if (edge) edges |= 1u << k;
    if (++w < width) continue;
    w = 0;
    h = h + 1 < maps.height ? h + 1 : 0;
  }
  return edges;
}

__device__ __forceinline__ int bytes_of(DType type) {
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

// All threads take the same branches, and a kernel for each type would write no faster.
__device__ __forceinline__ Four read_four(const Maps& maps, int64_t pixel, int64_t h, int64_t w, int count) {
  Four four;
  switch (maps.label_type) {
    case DType::int8:
      read_labels<int8_t>(maps, pixel, count, four);
      break;
    case DType::uint8:
      read_labels<uint8_t>(maps, pixel, count, four);
      break;
    case DType::int16:
      read_labels<int16_t>(maps, pixel, count, four);
      break;
    case DType::uint16:
      read_labels<uint16_t>(maps, pixel, count, four);
      break;
    case DType::int64:
    case DType::uint64:
      read_labels<int64_t>(maps, pixel, count, four);
      break;
    default:
      read_labels<int32_t>(maps, pixel, count, four);
  }
  four.edges = 0;
  if (maps.ids == nullptr) return four;
  switch (bytes_of(maps.id_type)) {
    case 1:
      four.edges = read_edges<uint8_t>(maps, pixel, h, w, count);
      break;
    case 2:
      four.edges = read_edges<uint16_t>(maps, pixel, h, w, count);
      break;
    case 4:
      four.edges = read_edges<uint32_t>(maps, pixel, h, w, count);
      break;
    default:
      four.edges = read_edges<uint64_t>(maps, pixel, h, w, count);
  }
  return four;
}

// Call fn(i, Four, count) for each four of the `count` pixels of the batch from `first` on, `i` counted from there. The
// last ones may be fewer.
template <typename F>
__device__ __forceinline__ void for_each_four(const Maps& maps, int64_t first, int count, const F& fn) {
  const int64_t row = first / maps.width;
  const int column = static_cast<int>(first - row * maps.width), width = static_cast<int>(maps.width);
  const int height = static_cast<int>(maps.height), h = static_cast<int>(row % maps.height);
#pragma unroll 1
  for (int i = static_cast<int>(threadIdx.x) * 4; i < count; i += kThreads * 4) {
    const int rows = (column + i) / width;
    fn(i, read_four(maps, first + i, (h + rows) % height, column + i - rows * width, min(4, count - i)),
       min(4, count - i));
  }
}

// A strip of kThreads packs of one image; blocks [0, strips) belong to the first image.
template <typename T>
__global__ void __launch_bounds__(kThreads) encode_labels_planes_kernel(Maps maps, T* __restrict__ y,  // [B, C, H, W]
                                                                        int strips, T one) {
  constexpr int kPack = 16 / sizeof(T), kStrip = kThreads * kPack;
  __shared__ __align__(16) int labels[kStrip];
  __shared__ unsigned edges[kStrip / 4];
  const int64_t pixels = maps.height * maps.width, image = blockIdx.x / strips;
  const int64_t start = static_cast<int64_t>(blockIdx.x % strips) * kStrip;
  const int count = pixels - start < kStrip ? static_cast<int>(pixels - start) : kStrip;
  for_each_four(maps, image * pixels + start, count, [&](int i, const Four& four, int) {
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

// A strip of so many pixels of the batch, whose channels are adjacent. Its elements are less than 2^31 (MAX_LABELS).
template <typename T>
__global__ void __launch_bounds__(kThreads)
    encode_labels_pixels_kernel(Maps maps, T* __restrict__ y,                      // [B, H, W, C]
                                int channels, int64_t pixels, int strip, T one) {  // pixels: of the batch
  constexpr int kPack = 16 / sizeof(T), kTile = kTileBytes / sizeof(T);
  __shared__ __align__(16) T tile[kTile];
  const int64_t start = static_cast<int64_t>(blockIdx.x) * strip;
  const int count = pixels - start < strip ? static_cast<int>(pixels - start) : strip;
  T* target = y + start * channels;  // aligned: a strip has a multiple of kPack pixels
  const int elements = count * channels, thread = static_cast<int>(threadIdx.x) * kPack;
  for (int begin = 0; begin < elements; begin += kTile) {  // once, but where pixels have many channels
#pragma unroll
    for (int i = 0; i < kTile; i += kThreads * kPack) store_pack(tile + i + thread, Pack<T, kPack>{});
    __syncthreads();
    for_each_four(maps, start, count, [&](int i, const Four& four, int n) {
#pragma unroll
      for (int k = 0; k < 4; ++k) {
        const int pixel = (i + k) * channels - begin, at = pixel + four.label[k], edge = pixel + maps.n_labels;
        if (k < n && four.label[k] >= 0 && at >= 0 && at < kTile) tile[at] = one;
        if ((four.edges >> k & 1u) != 0 && edge >= 0 && edge < kTile) tile[edge] = one;
      }
    });
    __syncthreads();
    const int end = min(elements - begin, kTile);
#pragma unroll
    for (int i = 0; i < kTile; i += kThreads * kPack)
      if (i + thread + kPack <= end) store_pack(target + begin + i + thread, load_pack<kPack>(tile + i + thread));
    for (int i = end / kPack * kPack + static_cast<int>(threadIdx.x); i < end; i += kThreads)
      target[begin + i] = tile[i];
    __syncthreads();
  }
}

// A strip of the batch.
__global__ void __launch_bounds__(kThreads) encode_labels_codes_kernel(Maps maps,
                                                                       int* __restrict__ codes,  // [B, H, W]
                                                                       int64_t pixels) {         // of the batch
  constexpr int kStrip = 4 * kThreads;
  const int64_t start = static_cast<int64_t>(blockIdx.x) * kStrip;
  const int count = pixels - start < kStrip ? static_cast<int>(pixels - start) : kStrip;
  for_each_four(maps, start, count, [&](int i, const Four& four, int n) {
    Pack<int, 4> code;
#pragma unroll
    for (int k = 0; k < 4; ++k)
      code.at[k] =
          (four.label[k] < 0 ? maps.n_labels : four.label[k]) + ((four.edges >> k & 1u) == 0 ? 0 : maps.n_labels + 1);
    if (n == 4) return store_pack(codes + start + i, code);
#pragma unroll
    for (int k = 0; k < 3; ++k)
      if (k < n) codes[start + i + k] = code.at[k];
  });
}

template <typename T>
void encode(const Maps& maps, const Tensor& y, T one, uintptr_t stream) {
  constexpr int64_t kPack = 16 / sizeof(T), kTile = kTileBytes / sizeof(T);
  const int64_t channels = y.shape[1], pixels = y.shape[2] * y.shape[3];
  if (is_channels_last(y)) {
    const int64_t strip = std::max<int64_t>(kTile / channels / kPack * kPack, kPack);
    HD_LAUNCH(encode_labels_pixels_kernel<T>, ceil_div(y.shape[0] * pixels, strip), kThreads, 0, stream, maps,
              y.as<T>(), static_cast<int>(channels), y.shape[0] * pixels, static_cast<int>(strip), one);
  } else {
    const int64_t strips = ceil_div(pixels, kThreads * kPack);
    HD_LAUNCH(encode_labels_planes_kernel<T>, y.shape[0] * strips, kThreads, 0, stream, maps, y.as<T>(),
              static_cast<int>(strips), one);
  }
}

Maps maps_of(const Tensor& label, const Tensor& ids, int64_t n_labels, int64_t dontcare) {
  const bool packed = label.shape[2] % 4 == 0 && is_aligned(label, 16) && is_aligned(ids, 16);
  return {label.data,
          ids.data,
          label.dtype,
          ids.dtype,
          label.shape[1],
          label.shape[2],
          static_cast<int>(n_labels),
          static_cast<int>(dontcare),
          packed};
}

}  // namespace

void encode_labels_fwd(Tensor label, Tensor ids, Tensor y, int64_t dontcare, uintptr_t stream) {
  const Maps maps = maps_of(label, ids, y.shape[1] - (ids ? 1 : 0), dontcare);
  if (y.dtype == DType::float32) return encode<uint32_t>(maps, y, 0x3f800000u, stream);
  encode<uint16_t>(maps, y, y.dtype == DType::bfloat16 ? 0x3f80 : 0x3c00, stream);
}

void encode_labels_codes(Tensor label, Tensor ids, Tensor codes, int64_t n_labels, int64_t dontcare, uintptr_t stream) {
  const int64_t pixels = label.shape[0] * label.shape[1] * label.shape[2];
  HD_LAUNCH(encode_labels_codes_kernel, ceil_div(pixels, 4 * kThreads), kThreads, 0, stream,
            maps_of(label, ids, n_labels, dontcare), codes.as<int>(), pixels);
}

}  // namespace hd::cuda
