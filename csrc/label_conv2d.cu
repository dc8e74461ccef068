// Writing the result, or reading its gradient, is what should take the time. Most windows of a label map see one code,
// and then a pixel of the result is one row of a table.
#include <algorithm>
#include <type_traits>

#include "label_conv2d_bwd_mixed.cuh"
#include "label_conv2d_fwd.cuh"

namespace hd::cuda {
namespace {

constexpr int64_t kMostPartial = 8 << 20;  // floats in the partial results of each kernel of the gradient
constexpr int64_t kUniformBlocks = 1024;   // blocks that sum tiles of one class, for each slice of channels
constexpr int64_t kMixedBlocks = 396;      // blocks that sum the others, about: what an H200 holds at once

// Sections of the scratch memory begin at multiples of 16 bytes.
struct Scratch {
  float* data;
  int64_t used = 0;

  template <typename T>
  T* take(int64_t count) {
    T* section = reinterpret_cast<T*>(data + used);
    used += ceil_div(count * static_cast<int64_t>(sizeof(T)), 16) * 4;
    return section;
  }
};

Planes planes_of(const Tensor& codes, const Tensor& pool_y, const Tensor& pool_x) {
  Planes planes = {};
  const Tensor* pools[2] = {&pool_y, &pool_x};
  int64_t sizes[2] = {codes.shape[1], codes.shape[2]};
  planes.codes = planes.full = codes.as<const int>();
  planes.full_height = static_cast<int>(sizes[0]);
  planes.full_width = static_cast<int>(sizes[1]);
  for (int k = 0; k < 2 && pool_y; ++k) sizes[k] = pools[k]->shape[0];
  planes.height = static_cast<int>(sizes[0]);
  planes.width = static_cast<int>(sizes[1]);
  planes.pool_y = pool_y.as<const float>();
  planes.pool_x = pool_x.as<const float>();
  planes.span = static_cast<int>(pool_y.shape[1]);
  return planes;
}

// Tiles are 32 pixels wide and 8 high, or as large as the codes under them may be.
void choose_tiles(Conv& conv, int64_t batch) {
  const auto halved = [](int size, int most) {
    while (most > 1 && most / 2 >= size) most /= 2;
    return most;
  };
  int height = halved(conv.out_height, 8), width = halved(conv.out_width, 32);
  const auto under = [&](int64_t size) { return (size - 1) * conv.stride + conv.side; };
  while (under(height) * under(width) > kTileCodes && height * width > 1) (width > height ? width : height) /= 2;
  if (under(height) * under(width) > kTileCodes)
    throw Error(
        "label_conv2d: expected a kernel of at most 59 pixels a side on CUDA, got %d; use the backend 'eager' or "
        "'triton'",
        conv.side);
  conv.tile_height = height;
  for (conv.tile_bits = 0; 1 << conv.tile_bits < width;) ++conv.tile_bits;
  conv.tiles_y = static_cast<int>(ceil_div(conv.out_height, height));
  conv.tiles_x = static_cast<int>(ceil_div(conv.out_width, width));
  conv.tiles = static_cast<int>(batch * conv.tiles_y * conv.tiles_x);
}

// The convolution whose result, or its gradient, is y.
Conv conv_of(const Tensor& codes, const Tensor& table, const Tensor& y, const Tensor& pool_y, const Tensor& pool_x,
             int64_t n_labels, int stride, int padding, PadMode pad_mode) {
  Conv conv = {};
  conv.planes = planes_of(codes, pool_y, pool_x);
  conv.out_height = static_cast<int>(y.shape[2]);
  conv.out_width = static_cast<int>(y.shape[3]);
  conv.channels = static_cast<int>(y.shape[1]);
  conv.n_labels = static_cast<int>(n_labels);
  conv.rows = static_cast<int>(table.shape[1]);
  while (static_cast<int64_t>(conv.side) * conv.side < table.shape[0]) ++conv.side;
  conv.stride = stride;
  conv.padding = padding;
  conv.pad_mode = pad_mode;
  choose_tiles(conv, y.shape[0]);
  return conv;
}

// Take memory for the pooled planes; run the kernel that fills it if there is any memory.
void pool(Conv& conv, int64_t batch, Scratch& scratch, uintptr_t stream) {
  Planes& planes = conv.planes;
  if (planes.pool_y == nullptr) return;
  const int64_t pixels = batch * planes.pixels();
  int* codes = scratch.take<int>(pixels);
  Part* parts = scratch.take<Part>(pixels * kParts);
  if (scratch.data != nullptr)
    HD_LAUNCH(label_conv2d_pool_kernel, ceil_div(pixels, kThreads), kThreads, 0, stream, planes, pixels, codes, parts);
  planes.codes = codes;
  planes.parts = parts;
}

int64_t under_bytes(const Conv& conv) {
  return static_cast<int64_t>(sizeof(Pixel)) * conv.under_height() * conv.under_width();
}

Sums take_sums(const Conv& conv, DType dtype, Scratch& scratch) {
  Sums sums;
  sums.dtype = dtype;
  sums.padded = static_cast<int>(ceil_div(conv.channels, kChannelPack) * kChannelPack);
  sums.slots = scratch.take<float>(slots_of(conv.side) * sums.in_slots(conv));
  sums.edges = scratch.take<float>(sums.in_edges(conv));
  sums.windows = scratch.take<float>(sums.in_windows(conv));  // or of half the size
  return sums;
}

// Call fn with whether the planes are pooled, as a constant.
template <typename F>
void with_pooled(const Conv& conv, const F& fn) {
  if (conv.planes.parts == nullptr)
    fn(std::false_type{});
  else
    fn(std::true_type{});
}

// T is float or Half.
template <typename T>
void forward(const Conv& conv, const Sums& sums, const Tensor& y, uintptr_t stream) {
  with_pooled(conv, [&](auto pooled) {
    constexpr int V = 16 / sizeof(T);
    constexpr bool kPooled = decltype(pooled)::value;
    const auto launch = [&](auto kernel, auto... options) {
      HD_LAUNCH(kernel, conv.tiles, kThreads, under_bytes(conv), stream, conv, sums, y.as<T>(), options...);
    };
    if (!is_channels_last(y))
      launch(label_conv2d_planes_kernel<T, kPooled>,
             conv.out_width % V == 0 && conv.tile_width() % V == 0 && is_aligned(y, 16));
    else if (conv.channels % V == 0 && is_aligned(y, 16))
      launch(label_conv2d_pixels_kernel<T, V, kPooled>);
    else
      launch(label_conv2d_pixels_kernel<T, 1, kPooled>);
  });
}

// Bytes of shared memory of a block that adds up a share of the table, at most.
int64_t mixed_shared() { return std::min<int64_t>(shared_offered(), kMixedShared); }

// As much of the table as a block can own, given the gradient dy: fewer rows of the kernel if there are too many for
// four channels, and then fewer rows of the table; otherwise as many channels as fit.
Share share_of(const Conv& conv, const Tensor& dy) {
  const auto even = [](int all, int most) {  // parts of all, of one size
    return static_cast<int>(ceil_div(all, ceil_div(all, std::min(all, std::max(most, 1)))));
  };
  constexpr int kSpare = 32;  // floats between taps, at most
  const int side = conv.side;
  const int64_t beside = work_beside(conv, kMixedQuads * kOwned, conv.under_height());
  const int most = std::min(kMostOwned, static_cast<int>((mixed_shared() - beside) / 4));
  Share share;
  share.rows = even(conv.rows, (most / side - kSpare) / kOwned);
  share.kernel_rows = even(side, std::min(most / (side * (share.rows * kOwned + kSpare)), kMixedThreads / side));
  const int taps = side * share.kernel_rows, quads = static_cast<int>(ceil_div(conv.channels, kOwned));
  const int fit = std::min((most / taps - kSpare) / (share.rows * kOwned), kMixedThreads / taps);
  share.channels = kOwned * even(quads, std::min(fit, kMixedQuads));
  share.slices = static_cast<int>(ceil_div(conv.channels, share.channels));
  share.bands = static_cast<int>(ceil_div(side, share.kernel_rows));
  share.row_ranges = static_cast<int>(ceil_div(conv.rows, share.rows));
  share.last = is_channels_last(dy);
  share.packed = share.last && conv.channels % kOwned == 0 && is_aligned(dy, 16);
  return share;
}

Gradient take_gradient(const Conv& conv, const Share& share, const Tensor& dy, Scratch& scratch) {
  Gradient gradient;
  gradient.dy = dy.data;
  gradient.dtype = dy.dtype;
  const int64_t labels = static_cast<int64_t>(conv.n_labels) * conv.channels;
  const int64_t table = static_cast<int64_t>(conv.side) * conv.side * conv.rows * conv.channels;
  const auto ranges = [&](int64_t size, int64_t most) {
    return static_cast<int>(std::max<int64_t>(std::min<int64_t>({kMostPartial / size, most, conv.tiles}), 1));
  };
  gradient.uniform_parts = ranges(labels, kUniformBlocks);
  gradient.mixed_parts = ranges(table, kMixedBlocks / share.count());
  gradient.uniform = scratch.take<float>(gradient.uniform_parts * labels);
  gradient.sums = scratch.take<float>(labels);
  gradient.taps = scratch.take<float>(gradient.mixed_parts * table);
  gradient.mixed = scratch.take<int>(conv.tiles);
  return gradient;
}

// The tiles of one class.
void sum_uniform(const Conv& conv, const Gradient& gradient, const Tensor& dy, uintptr_t stream) {
  const dim3 slices = grid_of(gradient.uniform_parts, ceil_div(conv.channels, kSlice));
  const auto launch = [&](auto kernel) {
    HD_LAUNCH(kernel, slices, kThreads, under_bytes(conv), stream, conv, gradient);
  };
  const bool aligned = is_aligned(dy, 16);
  if (!is_channels_last(dy))
    with_floating(dy.dtype, [&](auto type) { launch(label_conv2d_uniform_kernel<PlaneSums, false, decltype(type)>); });
  else if (dy.dtype == DType::float32 && conv.channels % 4 == 0 && aligned)
    launch(label_conv2d_uniform_kernel<PixelSums<4>, true, float>);
  else if (dy.dtype != DType::float32 && conv.channels % 8 == 0 && aligned)
    launch(label_conv2d_uniform_kernel<PixelSums<8>, true, bf16, f16>);
  else
    launch(label_conv2d_uniform_kernel<PixelSums<1>, true, float, bf16, f16>);
}

// The other tiles.
void sum_mixed(const Conv& conv, const Share& share, const Gradient& gradient, uintptr_t stream) {
  const dim3 shares = grid_of(gradient.mixed_parts, share.count());
  const int64_t bytes = 4 * share.owned(conv) + work_beside(conv, share.channels, rows_under(conv, share));
  const int64_t owners = static_cast<int64_t>(conv.side) * share.kernel_rows * share.quads();
  const auto kernel = conv.planes.parts == nullptr ? label_conv2d_mixed_kernel<false> : label_conv2d_mixed_kernel<true>;
  check_cuda(
      cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(mixed_shared())),
      "cudaFuncSetAttribute");
  HD_LAUNCH(kernel, shares, static_cast<unsigned>(std::max<int64_t>(ceil_div(owners, 32) * 32, 128)), bytes, stream,
            conv, gradient, share);
}

// Add up the parts of both into dtable.
void merge(const Conv& conv, const Gradient& gradient, const Tensor& dtable, uintptr_t stream) {
  const auto launch = [&](const float* parts, int count, int64_t size, const float* spread, float* out) {
    HD_LAUNCH(label_conv2d_merge_kernel, ceil_div(size, 32), 32 * kSums, 0, stream, conv, parts, count, size, spread,
              out);
  };
  launch(gradient.uniform, gradient.uniform_parts, static_cast<int64_t>(conv.n_labels) * conv.channels, nullptr,
         gradient.sums);
  launch(gradient.taps, gradient.mixed_parts, dtable.shape[0] * dtable.shape[1] * dtable.shape[2], gradient.sums,
         dtable.as<float>());
}

}  // namespace

int64_t label_conv2d_fwd_scratch(Tensor codes, Tensor table, Tensor y, Tensor pool_y, Tensor pool_x, int64_t n_labels,
                                 int stride, int padding, PadMode pad_mode) {
  Conv conv = conv_of(codes, table, y, pool_y, pool_x, n_labels, stride, padding, pad_mode);
  Scratch scratch = {nullptr};
  pool(conv, y.shape[0], scratch, 0);
  take_sums(conv, y.dtype, scratch);
  return scratch.used;
}

void label_conv2d_fwd(Tensor codes, Tensor table, Tensor y, Tensor pool_y, Tensor pool_x, Tensor scratch,
                      int64_t n_labels, int stride, int padding, PadMode pad_mode, uintptr_t stream) {
  Conv conv = conv_of(codes, table, y, pool_y, pool_x, n_labels, stride, padding, pad_mode);
  Scratch memory = {scratch.as<float>()};
  pool(conv, y.shape[0], memory, stream);
  const Sums sums = take_sums(conv, y.dtype, memory);
  const int64_t threads = sums.in_slots(conv) + sums.in_edges(conv) + sums.in_windows(conv);
  HD_LAUNCH(label_conv2d_sums_kernel, ceil_div(threads, kThreads), kThreads, 0, stream, conv, table.as<const float>(),
            sums);
  if (y.dtype == DType::float32)
    forward<float>(conv, sums, y, stream);
  else
    forward<Half>(conv, sums, y, stream);
}

int64_t label_conv2d_bwd_scratch(Tensor codes, Tensor table, Tensor y, Tensor pool_y, Tensor pool_x, int64_t n_labels,
                                 int stride, int padding, PadMode pad_mode) {
  Conv conv = conv_of(codes, table, y, pool_y, pool_x, n_labels, stride, padding, pad_mode);
  Scratch scratch = {nullptr};
  pool(conv, y.shape[0], scratch, 0);
  take_gradient(conv, share_of(conv, y), y, scratch);
  return scratch.used;
}

void label_conv2d_bwd(Tensor codes, Tensor dtable, Tensor dy, Tensor pool_y, Tensor pool_x, Tensor scratch,
                      int64_t n_labels, int stride, int padding, PadMode pad_mode, uintptr_t stream) {
  Conv conv = conv_of(codes, dtable, dy, pool_y, pool_x, n_labels, stride, padding, pad_mode);
  Scratch memory = {scratch.as<float>()};
  pool(conv, dy.shape[0], memory, stream);
  const Share share = share_of(conv, dy);
  const Gradient gradient = take_gradient(conv, share, dy, memory);
  sum_uniform(conv, gradient, dy, stream);
  sum_mixed(conv, share, gradient, stream);
  merge(conv, gradient, dtable, stream);
}

}  // namespace hd::cuda
