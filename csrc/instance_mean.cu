// Launches of instance_mean: sums over instances, in either of two ways, and their broadcast to pixels.
#include <algorithm>

#include "instance_mean_broadcast.cuh"
#include "instance_mean_reduce.cuh"
#include "instance_mean_reduce_sorted.cuh"

namespace hd::cuda {
namespace {

constexpr int64_t kPiece = 4096;  // pixels of an instance, on average, that one block adds up in order
constexpr int64_t kMostPieces = 256;

}  // namespace

void instance_mean_reduce(Tensor x, Tensor rows, Tensor offsets, Tensor sums, uintptr_t stream) {
  with_floating(x.dtype, [&](auto type) {
    using T = decltype(type);
    const Layout layout = layout_of(x, rows, sizeof(T), kThreads * kPixels * kSteps, kPixels);
    HD_LAUNCH(instance_mean_reduce_kernel<T>, grid_of(layout.batch * layout.tiles, groups_of(layout)), kThreads,
              staged_bytes(layout, sizeof(T)), stream, x.as<T>(), rows.as<int>(), offsets.as<int64_t>(),
              sums.as<float>(), sums.shape[0], layout);
  });
}

void instance_mean_reduce_sorted(Tensor x, Tensor order, Tensor starts, Tensor partial, uintptr_t stream) {
  with_floating(x.dtype, [&](auto type) {
    using T = decltype(type);
    const Layout layout = layout_of(x, order, sizeof(T), 1, 1);
    const int64_t pieces = partial.shape[0], n = partial.shape[1], each = layout.batch * layout.pixels / n;
    HD_LAUNCH(instance_mean_reduce_sorted_kernel<T>, grid_of(n, pieces * groups_of(layout)), each > 64 ? kThreads : 32,
              0, stream, x.as<T>(), order.as<int64_t>(), starts.as<int64_t>(), partial.as<float>(),
              static_cast<unsigned>(pieces), layout);
  });
}

int64_t instance_mean_pieces(int64_t pixels, int64_t instances) {
  return std::clamp<int64_t>(pixels / (kPiece * instances), 1, kMostPieces);
}

void instance_mean_broadcast(Tensor table, Tensor rows, Tensor counts, Tensor y, uintptr_t stream) {
  with_floating(y.dtype, [&](auto type) {
    using T = decltype(type);
    constexpr int64_t V = 16 / sizeof(T);
    const Layout layout = layout_of(y, rows, sizeof(T), kThreads * V, V);
    const auto launch = [&](auto kernel, int64_t blocks, size_t shared) {
      HD_LAUNCH(kernel, blocks, kThreads, shared, stream, table.as<float>(), rows.as<int>(), counts.as<int64_t>(),
                y.as<T>(), layout);
    };
    if (layout.last)
      launch(instance_mean_broadcast_last_kernel<T>, ceil_div(layout.batch * layout.pixels, kTilePixels),
             staged_bytes(layout, sizeof(T)));
    else
      launch(instance_mean_broadcast_kernel<T>, layout.batch * layout.tiles, 0);
  });
}

}  // namespace hd::cuda
