// What the passes of instance_mean share: the layout of an image in the eyes of its threads.
#pragma once

#include "cuda.cuh"

namespace hd::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kPixels = 4;        // of a thread at a time: 16 bytes of rows
constexpr int kChannels = 4;      // of one block of a reduction
constexpr int kStagedBytes = 32;  // of the largest channels_last pixel that goes through shared memory

struct Layout {
  int64_t batch, pixels;
  int channels;
  unsigned tiles;  // of an image
  bool packed;     // accesses of kPixels pixels, or of 16 bytes of a channels_last image, are aligned
  bool rows;       // accesses of the rows of kPixels pixels are aligned
  bool staged;     // pixels go through shared memory
  bool last;       // channels are adjacent
};

// Of x with elements of so many bytes, in tiles of so many pixels and for accesses of `pack` pixels of a plane.
Layout layout_of(const Tensor& x, const Tensor& rows, int64_t bytes, int64_t tile, int64_t pack) {
  const int64_t pixels = x.shape[2] * x.shape[3], pixel = x.shape[1] * bytes;
  const bool last = is_channels_last(x);
  const bool whole = last ? x.shape[0] == 1 || pixels * pixel % 16 == 0 : pixels % pack == 0;
  const bool packed = whole && is_aligned(x, 16);
  return {x.shape[0],
          pixels,
          static_cast<int>(x.shape[1]),
          static_cast<unsigned>(ceil_div(pixels, tile)),
          packed,
          (x.shape[0] == 1 || pixels % kPixels == 0) && is_aligned(rows, 16),
          last ? pixel <= kStagedBytes : !packed,
          last};
}

// Groups of channels, each of which a block of a reduction adds up.
int64_t groups_of(const Layout& layout) { return ceil_div(layout.channels, kChannels); }

// Bytes of shared memory for the pixels of a block that are staged.
size_t staged_bytes(const Layout& layout, size_t bytes) {
  return layout.staged ? kThreads * kPixels * (layout.last ? layout.channels : kChannels) * bytes : 0;
}

}  // namespace
}  // namespace hd::cuda
