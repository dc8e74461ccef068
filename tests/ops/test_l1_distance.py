import pytest
import torch
import torch.nn.functional as F
from torch.autograd import gradcheck, gradgradcheck

from hdgan.ops import BackendError, l1_distance
from tests.ops.backends import KERNELS
from tests.ops.checks import DTYPES, FORMATS, assert_compiles, assert_near, outputs_and_gradients

SHAPES = [(), (1,), (7,), (5, 4099), (3, 4, 5), (2, 3, 7, 5), (1, 8, 16, 32), (1, 5, 41, 83), (2, 1, 3, 4, 5)]


def pair(*shape, dtype=torch.float32):
    """A tensor and a target, some of whose elements are equal."""
    x, target = torch.randn(shape).to(dtype), torch.randn(shape).to(dtype)
    return x, torch.where(torch.rand(shape) < 0.2, x, target)


@pytest.mark.parametrize("shape", SHAPES)
def test_reference_is_l1_loss(shape):
    x, target = pair(*shape, dtype=torch.float64)
    ours = outputs_and_gradients(lambda x: l1_distance(x, target, backend="eager"), [x], [torch.tensor(3.0)])
    theirs = outputs_and_gradients(lambda x: F.l1_loss(x, target), [x], [torch.tensor(3.0)])
    torch.testing.assert_close(ours, theirs)


def test_reference_gradient():
    x, target = (torch.randn(2, 3, 4, dtype=torch.float64) for _ in range(2))
    x.requires_grad_()
    assert gradcheck(lambda x: l1_distance(x, target), x)
    assert gradgradcheck(lambda x: l1_distance(x, target).square(), x)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("memory_format", FORMATS)
def test_near_truth(backend, device, shape, memory_format):
    if len(shape) != 4 and memory_format == torch.channels_last:
        memory_format = torch.contiguous_format
    for dtype in DTYPES:
        x, target = (t.to(device, memory_format=memory_format) for t in pair(*shape, dtype=dtype))
        upstream = torch.tensor(x.numel() / 3)
        (truth,), (dtruth,) = outputs_and_gradients(
            lambda x, target=target: l1_distance(x, target.double(), backend="eager"), [x.double()], [upstream]
        )
        (found,), (dx,) = outputs_and_gradients(
            lambda x, target=target: l1_distance(x, target, backend=backend), [x], [upstream]
        )
        assert found.dtype == torch.float32
        assert found.shape == ()
        assert_near(found, truth)
        assert dx.dtype == dtype
        assert dx.is_contiguous(memory_format=memory_format)
        assert_near(dx, dtruth, dtype)


@pytest.mark.parametrize("backend", KERNELS, indirect=True)
def test_gradient_has_the_bits_of_eager(backend, device):
    """Signs are exact, so only the distance itself depends on the order of a sum.

    PyTorch divides by the number of elements on a CPU and multiplies by its reciprocal on a GPU; for a power of two
    that is the same.
    """
    upstream = [torch.tensor(2.3)]
    for dtype in DTYPES:
        x, target = (t.to(device) for t in pair(1, 4, 32, 64, dtype=dtype))
        grads = [
            outputs_and_gradients(
                lambda x, target=target, name=name: l1_distance(x, target, backend=name), [x], upstream
            )[1][0]
            for name in (backend, "eager")
        ]
        assert torch.equal(*grads)


def test_a_large_sum_is_accurate(backend, device):
    x = torch.full((1, 4, 700, 701), 1.001, device=device)
    assert l1_distance(x, torch.zeros_like(x), backend=backend).item() == pytest.approx(1.001, rel=1e-6)


@pytest.mark.parametrize("backend", KERNELS, indirect=True)
def test_every_run_gives_the_same_bits(backend, device):
    x, target = (t.to(device) for t in pair(1, 3, 201, 211))
    first = l1_distance(x, target, backend=backend)
    threads = torch.get_num_threads()
    for count in (1, 2, 3):
        torch.set_num_threads(count)
        assert torch.equal(l1_distance(x, target, backend=backend), first)
    torch.set_num_threads(threads)


@pytest.mark.parametrize("ours", FORMATS)
@pytest.mark.parametrize("theirs", FORMATS)
def test_mixed_memory_formats(backend, device, ours, theirs):
    x, target = (t.to(device) for t in pair(2, 3, 5, 4))
    expected = outputs_and_gradients(lambda x: l1_distance(x, target, backend="eager"), [x], [torch.tensor(1.0)])
    x, target = x.to(memory_format=ours), target.to(memory_format=theirs)
    found = outputs_and_gradients(lambda x: l1_distance(x, target, backend=backend), [x], [torch.tensor(1.0)])
    torch.testing.assert_close(found, expected)
    assert found[1][0].is_contiguous(memory_format=ours)


def test_strided_tensors(backend, device):
    x, target = (t.to(device) for t in pair(2, 6, 9, 8))
    for part in (lambda t: t[:, 1::2, :, ::3], lambda t: t.transpose(2, 3), lambda t: t[..., 2:5]):
        found = l1_distance(part(x), part(target), backend=backend)
        torch.testing.assert_close(found, F.l1_loss(part(x), part(target)))
    torch.testing.assert_close(
        l1_distance(x[:1].expand_as(x), target, backend=backend), F.l1_loss(x[:1].expand_as(x), target)
    )


def test_dtypes_that_differ_are_widened(backend, device):
    x, target = pair(2, 3, 5, 4)
    x = x.to(device).bfloat16().requires_grad_()
    target = target.to(device)
    found = l1_distance(x, target, backend=backend)
    torch.testing.assert_close(found, F.l1_loss(x.float(), target))
    assert torch.autograd.grad(found, x)[0].dtype == torch.bfloat16


def test_a_target_gets_no_gradient(backend, device):
    x, target = (t.to(device).requires_grad_() for t in pair(2, 3, 5, 4))
    l1_distance(x, target, backend=backend).backward()
    assert target.grad is None
    assert not l1_distance(x.detach(), target, backend=backend).requires_grad


@pytest.mark.parametrize("backend", KERNELS, indirect=True)
def test_keeps_a_byte_for_each_element(backend, device):
    x, target = (t.to(device) for t in pair(1, 3, 8, 8, dtype=torch.bfloat16))
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.nbytes) or t, lambda t: t):
        l1_distance(x.requires_grad_(), target, backend=backend)
        assert sum(kept) == x.numel()
        l1_distance(x.detach(), target, backend=backend)
    assert sum(kept) == x.numel()


@pytest.mark.parametrize("backend", KERNELS, indirect=True)
def test_double_backward(backend, device):
    x, target = (t.to(device) for t in pair(1, 2, 6, 5))
    x.requires_grad_()
    results = []
    for name in (backend, "eager"):
        (dx,) = torch.autograd.grad(l1_distance(x, target, backend=name).pow(3), x, create_graph=True)
        results.append(torch.autograd.grad(dx.pow(3).sum(), x)[0])
    torch.testing.assert_close(*results)


def test_maps(backend, device):
    x, target = (t.to(device) for t in pair(3, 2, 6, 5))
    x.requires_grad_()
    found = torch.vmap(lambda x, target: l1_distance(x, target, backend=backend))(x, target)
    expected = (x - target).abs().mean((1, 2, 3))
    torch.testing.assert_close(found, expected)
    weights = torch.tensor([1.0, -2.0, 3.0], device=device)
    torch.testing.assert_close(
        torch.autograd.grad(found @ weights, x)[0], torch.autograd.grad(expected @ weights, x)[0]
    )
    mapped = torch.vmap(lambda target: l1_distance(x[0], target, backend=backend))(target)
    torch.testing.assert_close(mapped, (x[0] - target).abs().mean((1, 2, 3)))


@pytest.mark.parametrize("dynamic", [False, True])
def test_compiles(backend, device, dynamic):
    x, target = (t.to(device) for t in pair(1, 2, 9, 6))
    assert_compiles(lambda x, target: l1_distance(x, 2 * target, backend=backend), x, target, dynamic=dynamic)


@pytest.mark.parametrize("backend", KERNELS, indirect=True)
def test_opcheck(backend, device):
    x, target = (t.to(device) for t in pair(1, 2, 9, 6))
    torch.library.opcheck(torch.ops.hdgan.l1_distance, (x, target, False, backend))
    torch.library.opcheck(torch.ops.hdgan.l1_distance, (x.requires_grad_(), target, True, backend))
    sign = torch.ones_like(target, dtype=torch.int8)
    dy = torch.randn((), device=device, requires_grad=True)
    torch.library.opcheck(torch.ops.hdgan.l1_distance_backward, (dy, sign, torch.float32, backend))


@pytest.mark.parametrize(
    ("x", "target", "error", "says"),
    [
        (torch.zeros(3, 1), torch.zeros(3, 4), ValueError, r"a target of shape \(3, 1\), got \(3, 4\)"),
        (torch.zeros(3).int(), torch.zeros(3), TypeError, "x of a floating-point dtype, got torch.int32"),
        (torch.zeros(3), torch.zeros(3).int(), TypeError, "target of a floating-point dtype, got torch.int32"),
        (torch.zeros(2, 0), torch.zeros(2, 0), ValueError, r"a non-empty x, got shape \(2, 0\)"),
        (torch.zeros(2), torch.zeros(2, device="meta"), ValueError, "same device, got x on cpu, target on meta"),
    ],
)
def test_wrong_input(x, target, error, says):
    with pytest.raises(error, match=f"l1_distance: expected .*{says}"):
        l1_distance(x, target)


def test_unknown_backend():
    with pytest.raises(BackendError, match="abacus"):
        l1_distance(torch.zeros(3), torch.zeros(3), backend="abacus")


def launches(make):
    """Arguments of the Triton launchers, as the op passes them, for tests/kernels; `make` makes images."""
    x = make(1, 64, 513, 1025)
    scalar, sign = x.new_empty((), dtype=torch.float32), torch.empty_like(x, dtype=torch.int8)
    scratch = x.new_empty(8192, dtype=torch.float32)
    yield "fwd", (x, x, scalar, sign, scratch)
    yield "fwd", (x, x, scalar, None, scratch)
    yield "bwd", (scalar, sign, x)
