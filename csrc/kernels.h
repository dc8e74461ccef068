// The kernels of hdgan._C with what they expect, which hdgan/ops has checked. A new op adds its lines here and nowhere
// else: the implementations include this file as declarations, and bindings.cpp reads it a second time to bind them.
//
// HD_KERNEL is a kernel for the CPU and for CUDA. The CPU's takes the number of threads as its last argument, CUDA's
// takes the stream.
#ifndef HD_KERNEL
#include <cstdint>

#include "tensor.h"

#define HD_DECLARE(space, result, name, ...) \
  namespace hd::space {                      \
  result name(__VA_ARGS__);                  \
  }
#define HD_CUDA_KERNEL(name, ...) HD_DECLARE(cuda, void, name, __VA_ARGS__, uintptr_t stream)
#define HD_CUDA_SIZE(name, ...) HD_DECLARE(cuda, int64_t, name, __VA_ARGS__)
#define HD_KERNEL(name, ...)                            \
  HD_DECLARE(cpu, void, name, __VA_ARGS__, int threads) \
  HD_CUDA_KERNEL(name, __VA_ARGS__)
#endif

// --- avg_pyramid: 3x3 average pooling with stride 2 and padding 1 that leaves the padding out of its count ---

// x [B, C, H, W] -> half [B, C, ceil(H/2), ceil(W/2)] and, unless it is missing, quarter: the half of half, rounded
// to the dtype in between or not. All of one dtype and memory format.
HD_KERNEL(avg_pyramid_fwd, Tensor x, Tensor half, Tensor quarter)
// The gradients of both, of which either may be missing -> dx, of one dtype and memory format.
HD_KERNEL(avg_pyramid_bwd, Tensor dhalf, Tensor dquarter, Tensor dx)

// --- encode_labels: label and instance maps -> one-hot planes and the plane of instance boundaries, written once ---

// label [B, H, W] and, unless it is missing, ids [B, H, W], of any integer dtypes and contiguous -> y [B, n (+ 1), H,
// W], dense, of zeros and ones: a plane for each of n classes, and with ids the boundary plane. A label outside 0 ... n
// - 1 sets no plane, nor does `dontcare`.
HD_KERNEL(encode_labels_fwd, Tensor label, Tensor ids, Tensor y, int64_t dontcare)
// The same maps -> codes [B, H, W] int32, contiguous: the class, n where there is none, and n + 1 more on a boundary.
HD_KERNEL(encode_labels_codes, Tensor label, Tensor ids, Tensor codes, int64_t n_labels, int64_t dontcare)

// --- instance_index: sparse instance ids -> rows of a dense table, ordered by image, then by id ---

// ids [B, H, W] dense, of any integer dtype; on a GPU int32 or int64
// -> rows [B, H, W] int32, offsets [B + 1] int64 (on a GPU -1 at the end if an id is outside the table, and then
// nothing else counts), unique [at least N] like ids, counts [at least N] int64. table [B, T] int32 zeros, ranks [B, T]
// int32 scratch, sizes [B + 1] int32 zeros: on a GPU, for the ids first_id to first_id + T; T is a multiple of 4096.
HD_KERNEL(instance_index_fwd, Tensor ids, Tensor rows, Tensor offsets, Tensor unique, Tensor counts, Tensor table,
          Tensor ranks, Tensor sizes, int64_t first_id)

// --- instance_mean: sums over instances, and values of instances to their pixels ---
// Rows and offsets are of an instance_index: image b owns the rows offsets[b] to offsets[b + 1].

// x [B, C, H, W] dense, rows [B, H, W] int32, offsets [B + 1] int64 -> sums [N, C] float32; on a GPU they are added to
// what is there, in any order.
HD_KERNEL(instance_mean_reduce, Tensor x, Tensor rows, Tensor offsets, Tensor sums)
// The same in a fixed order: order [B * H * W] int64 the pixels sorted by instance, starts [N + 1] int64 where each
// begins in it -> partial [pieces, N, C] float32, whose sum over the pieces are the sums.
HD_CUDA_KERNEL(instance_mean_reduce_sorted, Tensor x, Tensor order, Tensor starts, Tensor partial)
// The pieces for so many pixels of the batch and instances.
HD_CUDA_SIZE(instance_mean_pieces, int64_t pixels, int64_t instances)
// table [N, C] float32, rows [B, H, W] int32, counts [N] int64 or missing -> y [B, C, H, W] dense: the table's row of
// each pixel, divided by its count.
HD_KERNEL(instance_mean_broadcast, Tensor table, Tensor rows, Tensor counts, Tensor y)

// --- instance_norm_act: y = pad(act(weight * (x - mean) * rstd + bias) + residual), statistics over each plane ---

// x [B, C, H, W] dense; weight, bias [C] float32 or missing; residual [B, C, H, W] or missing, of any strides but for
// its innermost of one; y [B, C, H + 2 pad, W + 2 pad] in the format of x; mean, rstd [B, C] float32; scratch float32,
// missing on the CPU. The activation is the factor of values below zero: 1 for none, 0 for ReLU.
HD_KERNEL(instance_norm_act_fwd, Tensor x, Tensor weight, Tensor bias, Tensor residual, Tensor y, Tensor mean,
          Tensor rstd, Tensor scratch, float slope, float eps, int pad, PadMode pad_mode)
// dy as y; dx as x; dresidual as x or missing, on a CPU with any margin, which becomes zero; sums [2, B, C] float32: of
// dz, and of dz times the normalised x.
HD_KERNEL(instance_norm_act_bwd, Tensor dy, Tensor x, Tensor weight, Tensor bias, Tensor mean, Tensor rstd, Tensor dx,
          Tensor dresidual, Tensor sums, Tensor scratch, float slope, int pad, PadMode pad_mode)
// The elements of scratch that either direction needs.
HD_CUDA_SIZE(instance_norm_act_scratch, Tensor x)

// --- l1_distance: the mean absolute difference of two tensors ---

// x and target dense, of one dtype and in one order -> distance [1] float32 and, unless it is missing, sign int8 in the
// same order: the sign of x - target. scratch float32, missing on the CPU.
HD_KERNEL(l1_distance_fwd, Tensor x, Tensor target, Tensor distance, Tensor sign, Tensor scratch)
// dy [1] float32, the gradient of the distance, and sign -> dx in the order of sign.
HD_KERNEL(l1_distance_bwd, Tensor dy, Tensor sign, Tensor dx)
// The elements of scratch for so many of x.
HD_CUDA_SIZE(l1_distance_scratch, int64_t elements)

// --- label_conv2d: the convolution of the planes that encode_labels would make, as sums of rows of a table ---

// codes [B, H, W] of encode_labels_codes, contiguous; table [k * k, n (+ 1), C] float32, contiguous: for each tap a row
// of weights for each class, and one for boundaries -> y [B, C, H', W'] dense. pool_y [H / 2^levels, span] float32 and
// pool_x, of the width: pixel i of the planes that are convolved averages a span of pixels with these weights. The
// span begins at i * 2^levels or, if it is odd, (span - 1) / 2 before that. Weights outside of the image are 0. Both
// are missing if the planes are convolved as they are. scratch float32, missing on the CPU.
HD_KERNEL(label_conv2d_fwd, Tensor codes, Tensor table, Tensor y, Tensor pool_y, Tensor pool_x, Tensor scratch,
          int64_t n_labels, int stride, int padding, PadMode pad_mode)
// dy as y -> dtable as table, overwritten.
HD_KERNEL(label_conv2d_bwd, Tensor codes, Tensor dtable, Tensor dy, Tensor pool_y, Tensor pool_x, Tensor scratch,
          int64_t n_labels, int stride, int padding, PadMode pad_mode)
// The elements of scratch that each direction needs.
HD_CUDA_SIZE(label_conv2d_fwd_scratch, Tensor codes, Tensor table, Tensor y, Tensor pool_y, Tensor pool_x,
             int64_t n_labels, int stride, int padding, PadMode pad_mode)
HD_CUDA_SIZE(label_conv2d_bwd_scratch, Tensor codes, Tensor dtable, Tensor dy, Tensor pool_y, Tensor pool_x,
             int64_t n_labels, int stride, int padding, PadMode pad_mode)
