import re
from pathlib import Path
from typing import get_args

import pytest
import torch
import torch.nn.functional as F
from torch.autograd import gradcheck

from hdgan.ops import BackendError, instance_norm_act, pad2d
from hdgan.ops._backend import declared
from hdgan.ops.instance_norm_act import PadMode
from tests.ops.backends import HAS_GPU, KERNELS, TRITON
from tests.ops.checks import (
    DTYPES,
    FORMATS,
    assert_compiles,
    assert_near,
    dtypes_of,
    is_interpreted,
    outputs_and_gradients,
)

TORCH_MODE = {"reflect": "reflect", "zero": "constant", "replicate": "replicate"}

# Each exercises something of its own: shape, inputs besides x ("w" weight, "b" bias, "r" residual, "i" residual that is
# the interior of a padded tensor, "p" one padded by 2), options.
CASES = {
    "one-pixel": ((1, 1, 1, 1), "wb", {"pad": 2, "pad_mode": "replicate"}),
    "one-row": ((1, 2, 1, 6), "r", {"activation": "relu", "pad": 1, "pad_mode": "zero"}),
    "one-column": ((2, 3, 9, 1), "wbi", {"activation": "leaky_relu", "pad": 3, "pad_mode": "replicate"}),
    "odd": ((2, 3, 7, 5), "wbr", {"activation": "leaky_relu"}),
    "reflect-all": ((1, 2, 4, 4), "i", {"activation": "relu", "pad": 3}),
    "block-end": ((1, 8, 10, 12), "p", {"pad": 1}),
    "chain-end": ((2, 3, 4, 6), "p", {}),
    "block-middle": ((1, 64, 5, 6), "", {"activation": "relu", "pad": 1}),
    "stem": ((1, 5, 9, 16), "wb", {"activation": "relu", "pad": 3}),
    "discriminator": ((2, 33, 6, 7), "", {"activation": "leaky_relu"}),
    "scale-alone": ((1, 4, 6, 8), "w", {"activation": "relu"}),
    "shift-alone": ((1, 3, 5, 8), "br", {"activation": "relu", "pad": 2, "pad_mode": "zero"}),
    "steep": ((1, 2, 4, 4), "", {"activation": "leaky_relu", "negative_slope": 0.5, "eps": 1.0}),
    "falling": ((1, 2, 4, 5), "wbr", {"activation": "leaky_relu", "negative_slope": -0.3, "pad": 1}),
    "split": ((1, 3, 67, 130), "wbi", {"activation": "relu", "pad": 1}),
    "wide-rows": ((1, 2, 36, 136), "wbr", {"activation": "relu", "pad": 3}),
    "wide-zero": ((1, 4, 6, 133), "r", {"activation": "leaky_relu", "pad": 2, "pad_mode": "zero"}),
    "wide-replicate": ((1, 4, 7, 132), "b", {"activation": "relu", "pad": 1, "pad_mode": "replicate"}),
}
# channels_last images that the CUDA kernels divide in one way each: read a second time in part because the emulated GPU
# does not hold them, in several tiles of channels, one image after the other, by single channels.
DIVIDED = {
    "read-twice": ((1, 16, 104, 101), "wbr", {"activation": "relu"}),
    "read-twice-padded": ((1, 16, 104, 101), "wbi", {"activation": "leaky_relu", "pad": 2}),
    "tiles": ((1, 72, 20, 21), "wbr", {"activation": "relu", "pad": 1, "pad_mode": "zero"}),
    "narrow-tile": ((1, 40, 12, 30), "wb", {"pad": 2, "pad_mode": "replicate"}),
    "rounds": ((3, 32, 60, 61), "wb", {"activation": "relu", "pad": 1}),
    "small-images": ((20, 16, 9, 8), "wbr", {"activation": "leaky_relu"}),
    "odd-channels": ((2, 39, 33, 20), "wbr", {"activation": "relu", "pad": 1}),
    "odd-channels-read-twice": ((1, 41, 90, 91), "r", {"activation": "relu", "pad": 1}),
    "many-odd-channels": ((1, 301, 10, 11), "wb", {"activation": "leaky_relu"}),
}
# Planes of several bands on the CPU: too large for the interpreter and the emulator.
BANDS = ((1, 2, 150, 601), "r", {"activation": "leaky_relu", "pad": 2})


def truth(
    x, weight=None, bias=None, residual=None, activation="none", negative_slope=0.2, eps=1e-5, pad=0, pad_mode="reflect"
):
    """The definition, step by step in float64."""
    x = x.double()
    y = (x - x.mean((2, 3), keepdim=True)) / (x.var((2, 3), keepdim=True, correction=0) + eps).sqrt()
    if weight is not None:
        y = y * weight.double().view(1, -1, 1, 1)
    if bias is not None:
        y = y + bias.double().view(1, -1, 1, 1)
    if activation != "none":
        y = torch.where(y > 0, y, y * (negative_slope if activation == "leaky_relu" else 0.0))
    if residual is not None:
        margin = (residual.shape[2] - y.shape[2]) // 2
        y = y + F.pad(residual.double(), (-margin,) * 4)
    return F.pad(y, (pad,) * 4, mode=TORCH_MODE[pad_mode]) if pad else y


def inputs_of(shape, which, dtype):
    """Name -> tensor, of values that the dtype can hold."""
    batch, channels, height, width = shape
    made = {
        "x": torch.randn(shape) * 2 + 1,
        "weight": torch.rand(channels) + 0.5 if "w" in which else None,
        "bias": torch.randn(channels) if "b" in which else None,
        "residual": torch.randn(shape) if "r" in which else None,
    }
    if "i" in which:
        made["residual"] = torch.randn(batch, channels, height + 2, width + 2)[:, :, 1:-1, 1:-1]
    if "p" in which:
        made["residual"] = torch.randn(batch, channels, height + 4, width + 4)
    wide = torch.promote_types(dtype, torch.float32)
    dtypes = {"x": dtype, "weight": wide, "bias": wide, "residual": dtype}
    return {name: tensor.to(dtypes[name]) for name, tensor in made.items() if tensor is not None}


def as_format(name, tensor, memory_format):
    """Weights have none; the interior of a padded tensor stays one."""
    if tensor.dim() != 4:
        return tensor
    if tensor.is_contiguous() or name == "x":
        return tensor.contiguous(memory_format=memory_format)
    whole = F.pad(tensor, (1, 1, 1, 1)).contiguous(memory_format=memory_format)
    return whole[:, :, 1:-1, 1:-1]


@pytest.mark.parametrize("memory_format", FORMATS)
@pytest.mark.parametrize("name", CASES)
def test_near_truth(backend, device, name, memory_format):
    # PyTorch's own norm rounds half-precision results several times; in float64 it is what the definition says.
    turn = list(CASES).index(name) + FORMATS.index(memory_format)
    for dtype in [torch.float64] if backend == "eager" else dtypes_of(backend, turn):
        check_near_truth(backend, device, CASES[name], memory_format, dtype)


@pytest.mark.parametrize("backend", KERNELS if HAS_GPU else ["cpu"], indirect=True)
@pytest.mark.parametrize("memory_format", FORMATS)
def test_several_bands_near_truth(backend, device, memory_format):
    for dtype in DTYPES:
        check_near_truth(backend, device, BANDS, memory_format, dtype)


@pytest.mark.parametrize("backend", KERNELS[:2], indirect=True)  # not the interpreter, for which they are large
@pytest.mark.parametrize("name", DIVIDED)
def test_divided_images_near_truth(backend, device, name):
    for dtype in DTYPES:
        check_near_truth(backend, device, DIVIDED[name], torch.channels_last, dtype)


def check_near_truth(backend, device, case, memory_format, dtype):
    shape, which, options = case
    inputs = inputs_of(shape, which, dtype)
    pad = options.get("pad", 0)
    upstream = [torch.randn(*shape[:2], shape[2] + 2 * pad, shape[3] + 2 * pad).to(dtype)]
    (expected,), gradients = outputs_and_gradients(
        lambda *tensors: truth(**dict(zip(inputs, tensors, strict=True)), **options),
        [t.double() for t in inputs.values()],
        upstream,
    )
    leaves = [as_format(name, t.to(device), memory_format).requires_grad_() for name, t in inputs.items()]
    y = instance_norm_act(**dict(zip(inputs, leaves, strict=True)), **options, backend=backend)
    assert y.dtype == dtype
    assert y.is_contiguous(memory_format=memory_format)
    assert_near(y, expected)
    y.backward(upstream[0].to(device))
    pixels = shape[0] * shape[2] * shape[3]
    for leaf, gradient, of in zip(leaves, gradients, inputs, strict=True):
        scale = pixels**0.5 if of in ("weight", "bias") else 1.0  # sums over all pixels
        if shape[2:] == (1, 1) and of == "x":
            scale = 300.0  # rstd of a constant plane
        assert_near(leaf.grad / scale, gradient / scale, dtype)


# Shapes that CUDA's planning treats each in its own way, there and on a small device, which tests/csrc emulates.
PLANNED = {
    "parts": ((1, 2, 80, 131), "wr", {"activation": "relu"}),
    "parts-padded": ((1, 2, 81, 130), "b", {"activation": "leaky_relu", "pad": 2}),
    "parts-replicate": ((1, 3, 130, 66), "i", {"activation": "relu", "pad": 3, "pad_mode": "replicate"}),
    "wide-rows": ((1, 1, 5, 2309), "r", {"activation": "leaky_relu", "pad": 1}),
    "many-planes": ((3, 64, 9, 11), "wb", {"activation": "relu", "pad": 1, "pad_mode": "zero"}),
    "steep-parts": ((1, 1, 40, 264), "", {"activation": "leaky_relu", "negative_slope": -0.5}),
    "64-kib": ((1, 1, 128, 256), "", {"activation": "relu"}),
}


@pytest.mark.parametrize("backend", [backend for backend in KERNELS if HAS_GPU or backend != TRITON], indirect=True)
@pytest.mark.parametrize("memory_format", FORMATS)
@pytest.mark.parametrize("name", PLANNED)
def test_planned_shapes_near_truth(backend, device, name, memory_format):
    for dtype in DTYPES:
        check_near_truth(backend, device, PLANNED[name], memory_format, dtype)


def at_odd_address(tensor):
    """A copy that begins one element after a boundary of 16 bytes."""
    room = tensor.new_empty(tensor.numel() + 1)
    return room[1:].as_strided(tensor.shape, tensor.stride()).copy_(tensor)


@pytest.mark.parametrize("backend", KERNELS, indirect=True)
@pytest.mark.parametrize("memory_format", FORMATS)
@pytest.mark.parametrize("pad", [0, 1])
def test_inputs_at_odd_addresses(backend, device, memory_format, pad):
    for dtype in DTYPES:
        made = inputs_of((2, 3, 9, 37), "r", dtype)
        made["upstream"] = torch.randn(2, 3, 9 + 2 * pad, 37 + 2 * pad).to(dtype)
        results = []
        for place in (torch.clone, at_odd_address):
            x, residual, upstream = (
                place(t.to(device).contiguous(memory_format=memory_format)).requires_grad_() for t in made.values()
            )
            y = instance_norm_act(x, residual=residual, activation="relu", pad=pad, backend=backend)
            results.append([y, *torch.autograd.grad(y, (x, residual), upstream)])
        for aligned, odd in zip(*results, strict=True):
            assert_near(odd, aligned.double())


@pytest.mark.parametrize("backend", KERNELS, indirect=True)
@pytest.mark.parametrize("memory_format", FORMATS)
def test_gradient_of_a_padded_residual_keeps_its_format(backend, device, memory_format):
    x, residual = (torch.randn(1, 4, n, n + 1).to(device, memory_format=memory_format).requires_grad_() for n in (5, 7))
    y = instance_norm_act(x, residual=residual, activation="relu", pad=1, backend=backend)
    (dresidual,) = torch.autograd.grad(y, residual, torch.ones_like(y))
    assert dresidual.is_contiguous(memory_format=memory_format)
    assert dresidual[:, :, 1:-1, 1:-1].min() >= 1
    assert dresidual.sum() == y.numel()


@pytest.mark.parametrize("shape", [(1, 4, 6, 8), (1, 4, 7, 7), (1, 4, 3, 4), (1, 3, 7, 8), (4, 7, 8)])
def test_residuals_of_other_shapes_are_refused(backend, device, shape):
    x = torch.zeros(1, 4, 5, 6, device=device)
    with pytest.raises(ValueError, match=r"padded equally on all sides, got \("):
        instance_norm_act(x, residual=torch.zeros(shape, device=device), backend=backend)


@pytest.mark.parametrize("backend", KERNELS if HAS_GPU else KERNELS[:2], indirect=True)
@pytest.mark.parametrize("memory_format", FORMATS)
def test_a_first_pixel_far_from_all_others(backend, device, memory_format):
    x = torch.randn(1, 4, 128, 128)
    x[:, 0, 0, 0] = 1e6
    y = instance_norm_act(x.to(device, memory_format=memory_format), backend=backend).cpu()
    expected = truth(x)
    assert (y - expected).abs().max() < 2e-5
    assert (y - expected)[:, 1:].abs().max() < 1e-5


@pytest.mark.parametrize("backend", KERNELS, indirect=True)
@pytest.mark.parametrize("memory_format", FORMATS)
def test_a_mean_far_above_the_deviation_and_no_eps(backend, device, memory_format):
    x = torch.randn(1, 4, 40, 50) * 0.01 + 3e4
    y = instance_norm_act(x.to(device, memory_format=memory_format), eps=1e-9, backend=backend).cpu()
    # Triton's second kernel reads the mean in float32: rounded, it is off by up to a tenth of this deviation.
    assert (y - truth(x, eps=1e-9)).abs().max() < (0.1 if backend == "triton" else 1e-5)


@pytest.mark.parametrize("backend", KERNELS, indirect=True)
@pytest.mark.parametrize("memory_format", FORMATS)
def test_large_mean_tiny_variance(backend, device, memory_format):
    x = (torch.randn(1, 4, 40, 50) * 0.01 + 1000.0).to(device, memory_format=memory_format).requires_grad_()
    y = instance_norm_act(x, backend=backend)
    expected = truth(x.detach().cpu())
    assert_near(y, expected, torch.bfloat16)  # of 0.01, float32 at 1000 resolves 1 / 160
    upstream = torch.randn(x.shape)
    y.backward(upstream.to(device))
    exact = x.detach().cpu().double().requires_grad_()
    truth(exact).backward(upstream.double())
    assert_near(x.grad * 0.01, exact.grad * 0.01, torch.bfloat16)


@pytest.mark.parametrize("backend", KERNELS, indirect=True)
@pytest.mark.parametrize("memory_format", FORMATS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_constant_plane_is_zero(backend, device, memory_format, dtype):
    x = torch.full((1, 2, 5, 6), 100.0, device=device, dtype=dtype).to(memory_format=memory_format)
    assert torch.equal(instance_norm_act(x, backend=backend), torch.zeros_like(x))


@pytest.mark.parametrize("memory_format", FORMATS)
@pytest.mark.parametrize("pad", [0, 1])
def test_constant_plane_without_eps_is_zero(backend, device, memory_format, pad):
    x = torch.randn(1, 8, 5, 6, device=device).to(memory_format=memory_format)
    x[:, 3] = 2.0
    x.requires_grad_()
    y = instance_norm_act(x, eps=0.0, pad=pad, backend=backend)
    (gradient,) = torch.autograd.grad(y.pow(3).sum(), x, create_graph=True)
    (second,) = torch.autograd.grad(gradient.square().sum(), x)
    for found in (y, gradient, second):
        assert found.isfinite().all()
        assert torch.equal(found[:, 3], torch.zeros_like(found[:, 3]))
    assert_near(y, truth(x.detach().cpu(), eps=1e-12, pad=pad).nan_to_num())


@pytest.mark.parametrize("backend", KERNELS, indirect=True)
@pytest.mark.parametrize("memory_format", FORMATS)
def test_same_bits_again(backend, device, memory_format):
    channels = 1 if is_interpreted(backend) else 3
    x = torch.randn(1, channels, 67, 130).to(device, memory_format=memory_format).requires_grad_()
    weight = torch.ones(channels, device=device, requires_grad=True)
    results = []
    for _ in range(2):
        y = instance_norm_act(x, weight, activation="relu", pad=1, backend=backend)
        results.append([y, *torch.autograd.grad(y.square().sum(), (x, weight))])
    for first, second in zip(*results, strict=True):
        assert torch.equal(first, second)


def test_bits_do_not_depend_on_threads():
    results = []
    for threads in (1, 3):
        torch.set_num_threads(threads)
        torch.manual_seed(0)
        x = torch.randn(1, 2, 300, 301, requires_grad=True)
        y = instance_norm_act(x, activation="relu", pad=1, backend="cpu")
        results.append([y, *torch.autograd.grad(y.square().sum(), x)])
    torch.set_num_threads(1)
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


@pytest.mark.parametrize("pad", [0, 3])
@pytest.mark.parametrize("pad_mode", ["reflect", "zero"])
@pytest.mark.parametrize("memory_format", FORMATS)
def test_large_results_have_the_bits_of_small_ones(memory_format, pad_mode, pad):
    # From 16 MiB on, the CPU kernels write results past the caches, which rows of odd length make hard.
    def run(x):
        x = x.detach().requires_grad_()
        y = instance_norm_act(x, activation="relu", pad=pad, pad_mode=pad_mode, backend="cpu")
        return [y, *torch.autograd.grad(y, x, y.detach())]

    x = torch.randn(3, 7, 453, 455).contiguous(memory_format=memory_format)
    assert x.nbytes > 16 * 2**20 > x[0].nbytes
    of_each = zip(*(run(image) for image in x.split(1)), strict=True)
    for large, small in zip(run(x), of_each, strict=True):
        assert torch.equal(large, torch.cat(small))


@pytest.mark.parametrize("memory_format", FORMATS)
def test_relu_stops_infinities(backend, device, memory_format):
    x = torch.tensor([-1.0, 2.0, -3.0, 4.0], device=device).view(1, 1, 2, 2).expand(1, 8, 2, 2)
    x = x.clone(memory_format=memory_format).requires_grad_()
    upstream = torch.ones(1, 8, 2, 2, device=device)
    upstream[:, :, 0, 0] = torch.inf
    instance_norm_act(x, activation="relu", backend=backend).backward(upstream)
    finite = torch.where(upstream.isinf(), 0.0, upstream)
    expected = torch.autograd.grad(instance_norm_act(x, activation="relu", backend="eager"), x, finite)[0]
    torch.testing.assert_close(x.grad, expected)
    bias = torch.full((8,), -torch.inf, device=device)
    assert torch.equal(instance_norm_act(x, bias=bias, activation="relu", backend=backend), torch.zeros_like(x))


def test_only_reflection_needs_room(backend, device):
    x = torch.randn(1, 1, 2, 2, device=device)
    for mode in ("zero", "replicate"):
        assert instance_norm_act(x, pad=4, pad_mode=mode, backend=backend).shape == (1, 1, 10, 10)


def test_residual_is_added_after_the_activation(backend, device):
    x, residual = torch.randn(1, 2, 4, 4, device=device), torch.full((1, 2, 4, 4), -5.0, device=device)
    assert instance_norm_act(x, residual=residual, activation="relu", backend=backend).min() <= -5.0


def test_residual_of_another_dtype(backend, device):
    x = torch.randn(1, 2, 4, 4, device=device).bfloat16()
    residual = torch.randn(1, 2, 4, 4, device=device, requires_grad=True)
    y = instance_norm_act(x, residual=residual, pad=1, backend=backend)
    assert y.dtype == torch.bfloat16
    y.sum().backward()
    assert residual.grad.dtype == torch.float32


@pytest.mark.parametrize("activation", ["none", "relu", "leaky_relu"])
@pytest.mark.parametrize(("pad", "mode"), [(0, "reflect"), (2, "reflect"), (1, "zero"), (2, "replicate")])
def test_reference_gradient(activation, pad, mode):
    x = torch.randn(2, 2, 4, 3, dtype=torch.float64, requires_grad=True)
    weight = torch.rand(2, dtype=torch.float64).add(0.5).requires_grad_()
    bias = torch.randn(2, dtype=torch.float64, requires_grad=True)
    residual = torch.randn(2, 2, 4, 3, dtype=torch.float64, requires_grad=True)

    def run(x, weight, bias, residual):
        return instance_norm_act(x, weight, bias, residual, activation, pad=pad, pad_mode=mode)

    assert gradcheck(run, (x, weight, bias, residual))
    assert gradcheck(lambda x: instance_norm_act(x, activation=activation, pad=pad, pad_mode=mode), x)


@pytest.mark.parametrize("backend", KERNELS, indirect=True)
@pytest.mark.parametrize("pad", [0, 1])
def test_higher_derivatives(backend, device, pad):
    torch.use_deterministic_algorithms(device == "cpu")  # PyTorch's gradient of reflection has none on a GPU
    leaves = [torch.randn(1, 2, 5, 4), torch.rand(2) + 0.5, torch.randn(2), torch.randn(1, 2, 5, 4)]
    leaves = [leaf.to(device).requires_grad_() for leaf in leaves]
    exact = [leaf.detach().cpu().double().requires_grad_() for leaf in leaves]
    found = instance_norm_act(*leaves, "leaky_relu", pad=pad, backend=backend).pow(3).sum()
    expected = truth(*exact, "leaky_relu", pad=pad).pow(3).sum()
    for order in (1, 2, 3):
        found = torch.autograd.grad(found, leaves, create_graph=True)
        expected = torch.autograd.grad(expected, exact, create_graph=True)
        for ours, theirs in zip(found, expected, strict=True):
            error = (ours.detach().cpu() - theirs.detach()).abs().max() / theirs.detach().abs().max()
            assert error < 1e-5, (order, error)
        found, expected = (sum(g.square().sum() for g in gradients) for gradients in (found, expected))


@pytest.mark.parametrize("given", ["weight", "bias"])
@pytest.mark.parametrize("slope", [0.2, -0.3])
def test_second_derivatives_with_one_parameter(backend, device, given, slope):
    x, parameter = torch.randn(1, 2, 5, 4, dtype=torch.float64), torch.randn(2, dtype=torch.float64)

    def second(run, dtype, device):
        leaves = [tensor.to(device, dtype).requires_grad_() for tensor in (x, parameter)]
        y = run(leaves[0], **{given: leaves[1]}, activation="leaky_relu", negative_slope=slope)
        first = torch.autograd.grad(y.pow(3).sum(), leaves, create_graph=True)
        return torch.autograd.grad(sum(g.square().sum() for g in first), leaves)

    found = second(lambda *args, **options: instance_norm_act(*args, **options, backend=backend), torch.float32, device)
    for ours, theirs in zip(found, second(truth, torch.float64, "cpu"), strict=True):
        assert_near(ours / theirs.abs().max(), theirs / theirs.abs().max())


@pytest.mark.parametrize("dynamic", [False, True])
def test_compiles(backend, device, dynamic):
    x, residual = torch.randn(1, 2, 9, 6, device=device), torch.randn(1, 2, 9, 6, device=device)
    weight = torch.rand(2, device=device)

    def run(x, weight, residual):
        return instance_norm_act(x, weight, None, residual, "relu", pad=1, backend=backend)

    assert_compiles(run, x, weight, residual, dynamic=dynamic)


@pytest.mark.parametrize("backend", KERNELS, indirect=True)
def test_opcheck(backend, device):
    x, residual = (torch.randn(1, 2, 9, 6, device=device, requires_grad=True) for _ in range(2))
    weight = torch.rand(2, device=device, requires_grad=True)
    options = (0.2, 1e-5, 1, "reflect", backend)
    torch.library.opcheck(torch.ops.hdgan.instance_norm_act, (x, weight, None, residual, *options))
    dy, statistics = torch.randn(1, 2, 11, 8, device=device), torch.rand(1, 2, device=device)
    torch.library.opcheck(
        torch.ops.hdgan.instance_norm_act_backward,
        (dy, x.detach(), weight.detach(), None, statistics, statistics, True, *options),
    )


def test_strided_inputs(backend, device):
    x = torch.randn(2, 6, 10, 9, device=device)[:, ::2, ::2, ::3]
    residual = torch.randn(2, 3, 10, 6, device=device)[:, :, ::2, ::2]
    y = instance_norm_act(x, residual=residual, backend=backend)
    torch.testing.assert_close(y, instance_norm_act(x.contiguous(), residual=residual.contiguous(), backend=backend))


@pytest.mark.parametrize("memory_format", FORMATS)
def test_residual_whose_rows_lie_more_than_31_bits_apart(backend, device, memory_format):
    # Memory that is not touched is not taken, so this takes a page for each row. torch.empty might fill it.
    rows, row_stride = 34, 2**26
    x = torch.randn(1, 8, rows, 4, dtype=torch.float16, device=device).to(memory_format=memory_format)
    memory = torch.UntypedStorage(2 * rows * row_stride, device=device)
    channel_stride, column_stride = (4, 1) if memory_format == torch.contiguous_format else (1, 8)
    residual = torch.empty(0, dtype=torch.float16, device=device)
    residual.set_(memory, 0, x.shape, (1, channel_stride, row_stride, column_stride)).copy_(torch.randn(x.shape))
    y = instance_norm_act(x, residual=residual, pad=1, backend=backend)
    assert torch.equal(y, instance_norm_act(x, residual=residual.clone(), pad=1, backend=backend))


@pytest.mark.parametrize("batch", [1, 2])
def test_gradient_of_another_memory_format(backend, device, batch):
    x, upstream = (torch.randn(batch, 3, 5, 4, device=device) for _ in range(2))
    gradients = []
    for format in FORMATS:
        for of in FORMATS:
            leaf = x.clone(memory_format=format).requires_grad_()
            y = instance_norm_act(leaf, backend=backend)
            y.backward(upstream.contiguous(memory_format=of))
            gradients.append(leaf.grad)
    for gradient in gradients[1:]:
        torch.testing.assert_close(gradient, gradients[0])


def test_expanded_gradient(backend, device):
    torch.use_deterministic_algorithms(device == "cpu")  # PyTorch's gradient of reflection has none on a GPU
    x = torch.randn(1, 2, 4, 5, device=device, requires_grad=True)
    found = torch.autograd.grad(instance_norm_act(x, pad=1, backend=backend).sum(), x)[0]
    torch.testing.assert_close(found, torch.autograd.grad(instance_norm_act(x, pad=1, backend="eager").sum(), x)[0])


def test_inputs_are_left_alone(backend, device):
    x, residual = torch.randn(1, 2, 4, 4, device=device), torch.randn(1, 2, 4, 4, device=device)
    copies = x.clone(), residual.clone()
    instance_norm_act(x, residual=residual, activation="leaky_relu", pad=1, backend=backend)
    assert torch.equal(x, copies[0])
    assert torch.equal(residual, copies[1])


X = torch.zeros(1, 2, 4, 3)


@pytest.mark.parametrize(
    ("x", "options", "error", "says"),
    [
        (X.long(), {}, TypeError, "floating-point dtype, got torch.int64"),
        (X[0], {}, ValueError, r"got \(2, 4, 3\)"),
        (X[:0], {}, ValueError, "non-empty"),
        (X, {"weight": torch.ones(3)}, ValueError, r"weight of shape \(2,\), got \(3,\)"),
        (X, {"bias": torch.ones(1, 2)}, ValueError, r"bias of shape \(2,\), got \(1, 2\)"),
        (X, {"residual": torch.ones(1, 2, 4, 4)}, ValueError, r"residual of shape \(1, 2, 4, 3\)"),
        (X, {"residual": torch.ones(1, 2, 4, 3, device="meta")}, ValueError, "x on cpu, residual on meta"),
        (X, {"weight": torch.ones(2, device="meta")}, ValueError, "weight on meta"),
        (X, {"activation": "gelu"}, ValueError, "activation none, relu or leaky_relu, got 'gelu'"),
        (X, {"pad_mode": "wrap"}, ValueError, "pad_mode reflect, zero or replicate, got 'wrap'"),
        (
            X,
            {"weight": torch.ones(2, dtype=torch.int64)},
            TypeError,
            "weight of a floating-point dtype, got torch.int64",
        ),
        (X, {"residual": X.to(torch.complex64)}, TypeError, "residual of a floating-point dtype, got torch.complex64"),
        (X, {"pad": 3}, ValueError, "pad < 3 for reflect padding, got 3"),
        (X, {"pad": -1, "pad_mode": "zero"}, ValueError, "got -1"),
    ],
)
def test_wrong_input(x, options, error, says):
    with pytest.raises(error, match=f"instance_norm_act: expected .*{says}"):
        instance_norm_act(x, **options)


def test_languages_agree_on_pad_modes():
    header = (Path(__file__).parents[2] / "csrc" / "tensor.h").read_text()
    names = re.search(r"enum class PadMode \{ (.*) \};", header)[1].split(", ")
    assert names == list(get_args(PadMode))


def test_kernels_refuse_other_pad_modes():
    with pytest.raises(ValueError, match="expected reflect, replicate or zero, got wrap"):
        torch.ops.hdgan.instance_norm_act(X, None, None, None, 0.0, 1e-5, 1, "wrap", "cpu")


def test_unknown_backend():
    with pytest.raises(BackendError, match="abacus"):
        instance_norm_act(X, backend="abacus")


def test_pad2d_of_nothing_is_the_tensor_itself():
    assert pad2d(X, 0, "reflect") is X


def launches(make):
    """Arguments of the Triton launchers, as the op passes them, for tests/kernels; `make` makes images."""
    for channels, height, width, pad, has_residual in (
        (64, 512, 1024, 0, False),
        (32, 512, 1024, 3, True),
        (1024, 32, 64, 1, True),
        (512, 6, 7, 0, False),
    ):
        x, y = make(1, channels, height, width), make(1, channels, height + 2 * pad, width + 2 * pad)
        weight, bias = (None if pad else torch.empty(channels, device="meta") for _ in range(2))
        residual, dresidual = (x, x) if has_residual else (None, None)
        if pad == 1:
            residual = y[:, :, 1:-1, 1:-1]
        mean, rstd = (torch.empty(1, channels, device="meta") for _ in range(2))
        scratch = torch.empty(declared("instance_norm_act", "scratch", "triton", x), device="meta")
        yield "fwd", (x, weight, bias, residual, y, mean, rstd, scratch, 0.0, 1e-5, pad, "reflect")
        sums = torch.empty(2, 1, channels, device="meta")
        yield "bwd", (y, x, weight, bias, mean, rstd, x, dresidual, sums, scratch, 0.0, pad, "reflect")
