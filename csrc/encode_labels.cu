// Writing the result takes nearly all the time. A block reads a strip of pixels once, keeps in shared memory which
// planes each of them sets, and writes all their planes 16 bytes a thread. Zero and one are bit patterns, so
// floating-point types of one size share a kernel.
#include "cuda.cuh"

namespace hd::cuda {
namespace {

constexpr int kThreads = 128;

struct Maps {
  const void* label;  // [B, H, W]
  const void* ids;    // [B, H, W] or null
  DType label_type, id_type;
  int64_t height, width;
  int n_labels;
  int64_t dontcare;
};

// The planes that a pixel sets, or -1 for none.
struct Hits {
  int label, boundary;
};

// All threads take the same branch, and a kernel for each type would write no faster.
__device__ __forceinline__ int64_t load_integer(const void* data, DType type, int64_t i) {
  switch (type) {
    case DType::int8:
      return static_cast<const int8_t*>(data)[i];
    case DType::int16:
      return static_cast<const int16_t*>(data)[i];
    case DType::int32:
      return static_cast<const int32_t*>(data)[i];
    case DType::uint8:
      return static_cast<const uint8_t*>(data)[i];
    case DType::uint16:
      return static_cast<const uint16_t*>(data)[i];
    case DType::uint32:
      return static_cast<const uint32_t*>(data)[i];
    default:
      return static_cast<const int64_t*>(data)[i];  // a uint64 beyond int64 is negative, which is no label either
  }
}

__device__ __forceinline__ bool on_boundary(const Maps& maps, int64_t pixel, int64_t h, int64_t w) {
  const int64_t width = maps.width, id = load_integer(maps.ids, maps.id_type, pixel);
  const int64_t around[4] = {h > 0 ? -width : 0, h + 1 < maps.height ? width : 0, w > 0 ? -1 : 0,
                             w + 1 < width ? 1 : 0};
  bool edge = false;
#pragma unroll
  for (int k = 0; k < 4; ++k) edge |= load_integer(maps.ids, maps.id_type, pixel + around[k]) != id;
  return edge;
}

// Read `count` pixels of the batch, from `first` on. A barrier is needed before any thread reads the hits.
__device__ __forceinline__ void read_strip(const Maps& maps, int64_t first, int count, Hits* hits) {
  const int64_t first_row = first / maps.width, first_column = first - first_row * maps.width;
  const int64_t first_height = first_row % maps.height;
  for (int i = threadIdx.x; i < count; i += kThreads) {
    const int64_t value = load_integer(maps.label, maps.label_type, first + i);
    const bool known = value >= 0 && value < maps.n_labels && value != maps.dontcare;
    hits[i] = {known ? static_cast<int>(value) : -1, -1};
    if (maps.ids != nullptr) {
      int64_t h = first_height, w = first_column + i;
      if (w >= maps.width) {
        const int64_t rows = w / maps.width;
        w -= rows * maps.width;
        h = (h + rows) % maps.height;
      }
      if (on_boundary(maps, first + i, h, w)) hits[i].boundary = maps.n_labels;
    }
  }
}

__device__ __forceinline__ bool sets(const Hits& hits, int plane) {
  return hits.label == plane || hits.boundary == plane;
}

// A strip of kThreads packs of one image; blocks [0, strips) belong to the first image.
template <typename T>
__global__ void __launch_bounds__(kThreads) encode_labels_planes_kernel(Maps maps, T* __restrict__ y,  // [B, C, H, W]
                                                                        int channels, int strips, T one) {
  constexpr int kPack = 16 / sizeof(T), kStrip = kThreads * kPack;
  __shared__ Hits hits[kStrip];
  const int64_t pixels = maps.height * maps.width, image = blockIdx.x / strips;
  const int64_t start = static_cast<int64_t>(blockIdx.x % strips) * kStrip;
  const int count = pixels - start < kStrip ? static_cast<int>(pixels - start) : kStrip;
  read_strip(maps, image * pixels + start, count, hits);
  __syncthreads();

  T* target = y + image * channels * pixels + start;
  if (pixels % kPack != 0) {  // packs would not be aligned
    for (int c = 0; c < channels; ++c, target += pixels)
      for (int i = threadIdx.x; i < count; i += kThreads) target[i] = sets(hits[i], c) ? one : T{0};
    return;
  }
  const int mine = threadIdx.x * kPack;
  if (mine >= count) return;
  Hits own[kPack];
#pragma unroll
  for (int k = 0; k < kPack; ++k) own[k] = hits[mine + k];
#pragma unroll 4
  for (int c = 0; c < channels; ++c, target += pixels) {
    Pack<T, kPack> pack;
#pragma unroll
    for (int k = 0; k < kPack; ++k) pack.at[k] = sets(own[k], c) ? one : T{0};
    store_pack(target + mine, pack);
  }
}

// A strip of kThreads pixels of the batch, whose channels are adjacent; its elements are less than 2^32 (MAX_LABELS).
template <typename T>
__global__ void __launch_bounds__(kThreads)
    encode_labels_pixels_kernel(Maps maps, T* __restrict__ y,                // [B, H, W, C]
                                unsigned channels, int64_t pixels, T one) {  // pixels: of the batch
  constexpr int kPack = 16 / sizeof(T);
  __shared__ Hits hits[kThreads + 1];  // a pack that ends with its pixel looks at the next one
  const int64_t start = static_cast<int64_t>(blockIdx.x) * kThreads;
  const int count = pixels - start < kThreads ? static_cast<int>(pixels - start) : kThreads;
  if (threadIdx.x == 0) hits[count] = {-1, -1};
  read_strip(maps, start, count, hits);
  __syncthreads();

  T* target = y + start * channels;  // aligned: a strip has a multiple of kPack pixels
  const unsigned elements = static_cast<unsigned>(count) * channels, packed = elements / kPack * kPack;
  for (unsigned i = threadIdx.x * kPack; i < packed; i += kThreads * kPack) {
    unsigned pixel = i / channels, c = i - pixel * channels;
    Hits own = hits[pixel];
    Pack<T, kPack> pack;
#pragma unroll
    for (int k = 0; k < kPack; ++k) {
      pack.at[k] = sets(own, static_cast<int>(c)) ? one : T{0};
      if (++c == channels) {
        c = 0;
        own = hits[++pixel];
      }
    }
    store_pack(target + i, pack);
  }
  for (unsigned i = packed + threadIdx.x; i < elements; i += kThreads)
    target[i] = sets(hits[i / channels], static_cast<int>(i % channels)) ? one : T{0};
}

// A strip of the batch. Each thread reads back the hits that it has found itself.
__global__ void __launch_bounds__(kThreads) encode_labels_codes_kernel(Maps maps,
                                                                       int* __restrict__ codes,  // [B, H, W]
                                                                       int64_t pixels) {         // of the batch
  constexpr int kStrip = 4 * kThreads;
  __shared__ Hits hits[kStrip];
  const int64_t start = static_cast<int64_t>(blockIdx.x) * kStrip;
  const int count = pixels - start < kStrip ? static_cast<int>(pixels - start) : kStrip;
  read_strip(maps, start, count, hits);
  for (int i = threadIdx.x; i < count; i += kThreads) {
    const Hits own = hits[i];
    codes[start + i] = (own.label < 0 ? maps.n_labels : own.label) + (own.boundary < 0 ? 0 : maps.n_labels + 1);
  }
}

template <typename T>
void encode(const Maps& maps, const Tensor& y, T one, uintptr_t stream) {
  const int channels = static_cast<int>(y.shape[1]);
  const int64_t pixels = y.shape[2] * y.shape[3];
  if (is_channels_last(y)) {
    HD_LAUNCH(encode_labels_pixels_kernel<T>, ceil_div(y.shape[0] * pixels, kThreads), kThreads, 0, stream, maps,
              y.as<T>(), static_cast<unsigned>(channels), y.shape[0] * pixels, one);
  } else {
    const int64_t strips = ceil_div(pixels, kThreads * (16 / static_cast<int64_t>(sizeof(T))));
    HD_LAUNCH(encode_labels_planes_kernel<T>, y.shape[0] * strips, kThreads, 0, stream, maps, y.as<T>(), channels,
              static_cast<int>(strips), one);
  }
}

}  // namespace

void encode_labels_fwd(Tensor label, Tensor ids, Tensor y, int64_t dontcare, uintptr_t stream) {
  const int n_labels = static_cast<int>(y.shape[1]) - (ids ? 1 : 0);
  const Maps maps{label.data, ids.data, label.dtype, ids.dtype, label.shape[1], label.shape[2], n_labels, dontcare};
  if (y.dtype == DType::float32) return encode<uint32_t>(maps, y, 0x3f800000u, stream);
  encode<uint16_t>(maps, y, y.dtype == DType::bfloat16 ? 0x3f80 : 0x3c00, stream);
}

void encode_labels_codes(Tensor label, Tensor ids, Tensor codes, int64_t n_labels, int64_t dontcare, uintptr_t stream) {
  const Maps maps{
      label.data, ids.data, label.dtype, ids.dtype, label.shape[1], label.shape[2], static_cast<int>(n_labels),
      dontcare};
  const int64_t pixels = label.shape[0] * label.shape[1] * label.shape[2];
  HD_LAUNCH(encode_labels_codes_kernel, ceil_div(pixels, 4 * kThreads), kThreads, 0, stream, maps, codes.as<int>(),
            pixels);
}

}  // namespace hd::cuda
