import pytest
import torch
import torch.nn.functional as F
from torch.autograd import gradcheck

from hdgan.ops import BackendError, instance_norm_act, pad2d

SHAPES = [(1, 1, 1, 1), (2, 3, 7, 5), (1, 2, 1, 6), (1, 5, 16, 2), (3, 1, 4, 4)]
TOLERANCE = {torch.float32: 2e-5, torch.bfloat16: 3e-2, torch.float16: 5e-3}
TORCH_MODE = {"reflect": "reflect", "zero": "constant", "replicate": "replicate"}


def truth(x, weight=None, bias=None, residual=None, activation="none", slope=0.2, eps=1e-5, pad=0, mode="reflect"):
    """The definition, step by step in float64."""
    x = x.double()
    y = (x - x.mean((2, 3), keepdim=True)) / (x.var((2, 3), keepdim=True, correction=0) + eps).sqrt()
    if weight is not None:
        y = y * weight.double().view(1, -1, 1, 1)
    if bias is not None:
        y = y + bias.double().view(1, -1, 1, 1)
    if activation != "none":
        y = torch.where(y > 0, y, y * (slope if activation == "leaky_relu" else 0.0))
    if residual is not None:
        y = y + residual.double()
    return F.pad(y, (pad,) * 4, mode=TORCH_MODE[mode]) if pad else y


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("activation", ["none", "relu", "leaky_relu"])
def test_equals_the_definition(shape, activation):
    x, residual = torch.randn(shape) * 3 + 1, torch.randn(shape)
    weight, bias = torch.randn(shape[1]), torch.randn(shape[1])
    # One pixel has no variance: 1 / sqrt(eps) = 316 multiplies the rounding of its mean.
    tolerance = 1e-3 if shape[2:] == (1, 1) else 2e-5
    for arguments in ((), (weight, bias), (None, None, residual), (weight, None, residual)):
        y = instance_norm_act(x, *arguments, activation=activation)
        expected = truth(x, *arguments, activation=activation)
        torch.testing.assert_close(y.double(), expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("mode", TORCH_MODE)
@pytest.mark.parametrize("pad", [1, 3])
def test_padding(mode, pad):
    x, residual = torch.randn(2, 3, 5, 4), torch.randn(2, 3, 5, 4)
    y = instance_norm_act(x, residual=residual, pad=pad, pad_mode=mode)
    assert y.shape == (2, 3, 5 + 2 * pad, 4 + 2 * pad)
    expected = truth(x, residual=residual, pad=pad, mode=mode)
    torch.testing.assert_close(y.double(), expected, rtol=2e-5, atol=2e-5)


def test_only_reflection_needs_room():
    x = torch.randn(1, 1, 2, 2)
    for mode in ("zero", "replicate"):
        assert instance_norm_act(x, pad=4, pad_mode=mode).shape == (1, 1, 10, 10)


def test_slope_and_eps():
    x = torch.randn(1, 2, 4, 4)
    y = instance_norm_act(x, activation="leaky_relu", negative_slope=0.5, eps=1.0)
    expected = truth(x, activation="leaky_relu", slope=0.5, eps=1.0)
    torch.testing.assert_close(y.double(), expected, rtol=2e-5, atol=2e-5)


def test_residual_is_added_after_the_activation():
    x, residual = torch.randn(1, 2, 4, 4), torch.full((1, 2, 4, 4), -5.0)
    assert instance_norm_act(x, residual=residual, activation="relu").min() <= -5.0


def test_large_mean_does_not_cancel():
    x = torch.randn(1, 2, 32, 32) + 3000.0
    torch.testing.assert_close(instance_norm_act(x).double(), truth(x), rtol=0, atol=2e-3)


@pytest.mark.parametrize("dtype", TOLERANCE)
def test_dtype_is_kept(dtype):
    x = torch.randn(2, 3, 8, 6).to(dtype)
    residual = torch.randn(2, 3, 8, 6)
    y = instance_norm_act(x, activation="relu", pad=1)
    assert y.dtype == dtype
    tolerance = TOLERANCE[dtype]
    torch.testing.assert_close(y.double(), truth(x, activation="relu", pad=1), rtol=tolerance, atol=tolerance)
    assert instance_norm_act(x, residual=residual).dtype == dtype


def test_dtype_is_kept_under_autocast():
    x = torch.randn(1, 2, 4, 4, dtype=torch.bfloat16)
    with torch.autocast("cpu", torch.bfloat16):
        assert instance_norm_act(x, residual=x, pad=1).dtype == torch.bfloat16


@pytest.mark.parametrize("activation", ["none", "relu", "leaky_relu"])
@pytest.mark.parametrize(("pad", "mode"), [(0, "reflect"), (2, "reflect"), (1, "zero"), (2, "replicate")])
def test_gradient(activation, pad, mode):
    x = torch.randn(2, 2, 4, 3, dtype=torch.float64, requires_grad=True)
    weight = torch.rand(2, dtype=torch.float64).add(0.5).requires_grad_()
    bias = torch.randn(2, dtype=torch.float64, requires_grad=True)
    residual = torch.randn(2, 2, 4, 3, dtype=torch.float64, requires_grad=True)

    def run(x, weight, bias, residual):
        return instance_norm_act(x, weight, bias, residual, activation, pad=pad, pad_mode=mode)

    assert gradcheck(run, (x, weight, bias, residual))
    assert gradcheck(lambda x: instance_norm_act(x, activation=activation, pad=pad, pad_mode=mode), x)


def test_plane_of_one_pixel_has_no_gradient():
    x = torch.randn(2, 3, 1, 1, requires_grad=True)
    instance_norm_act(x).sum().backward()
    torch.testing.assert_close(x.grad, torch.zeros_like(x))


def test_memory_format_is_kept():
    x, residual = torch.randn(2, 3, 6, 5), torch.randn(2, 3, 6, 5)
    last = torch.channels_last
    y = instance_norm_act(x, residual=residual, activation="relu", pad=1)
    formatted = instance_norm_act(x.to(memory_format=last), residual=residual, activation="relu", pad=1)
    assert y.is_contiguous()
    assert formatted.is_contiguous(memory_format=last)
    torch.testing.assert_close(formatted, y)


def test_strided_inputs():
    x = torch.randn(2, 6, 10, 9)[:, ::2, ::2, ::3]
    padded = torch.randn(2, 3, 7, 5)
    residual = padded[:, :, 1:-1, 1:-1]
    y = instance_norm_act(x, residual=residual)
    torch.testing.assert_close(y, instance_norm_act(x.contiguous(), residual=residual.contiguous()))


def test_inputs_are_left_alone():
    x, residual = torch.randn(1, 2, 4, 4), torch.randn(1, 2, 4, 4)
    copies = x.clone(), residual.clone()
    instance_norm_act(x, residual=residual, activation="leaky_relu", pad=1)
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
        (X, {"pad": 3}, ValueError, "pad < 3 for reflect padding, got 3"),
        (X, {"pad": -1, "pad_mode": "zero"}, ValueError, "got -1"),
    ],
)
def test_wrong_input(x, options, error, says):
    with pytest.raises(error, match=f"instance_norm_act: expected .*{says}"):
        instance_norm_act(x, **options)


def test_unknown_backend():
    with pytest.raises(BackendError, match="abacus"):
        instance_norm_act(X, backend="abacus")


def test_pad2d_of_nothing_is_the_tensor_itself():
    assert pad2d(X, 0, "reflect") is X
