import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck

from hdgan.ops import BackendError, instance_broadcast, instance_index, instance_mean, instance_reduce
from tests.ops.cases import MAPS, brute_force_mean

TOLERANCE = {torch.float64: 1e-14, torch.float32: 1e-6, torch.bfloat16: 4e-3, torch.float16: 5e-4}


def image_for(ids, channels=3, dtype=torch.float32):
    return torch.randn(ids.shape[0], channels, *ids.shape[1:]).to(dtype)


@pytest.mark.parametrize("name", MAPS)
def test_equals_brute_force(name):
    ids = MAPS[name]
    x = image_for(ids)
    torch.testing.assert_close(instance_mean(x, ids).double(), brute_force_mean(x, ids), rtol=0, atol=1e-6)


@pytest.mark.parametrize("dtype", TOLERANCE)
def test_dtypes(dtype):
    ids = MAPS["odd"]
    x = image_for(ids, dtype=dtype)
    y = instance_mean(x, ids)
    assert y.dtype == dtype
    expected = brute_force_mean(x, ids)
    assert ((y.double() - expected).abs() <= TOLERANCE[dtype] * (1 + expected.abs())).all()


def test_sums_do_not_lose_small_values_in_half_precision():
    x = torch.full((1, 1, 128, 128), 0.1, dtype=torch.float16)  # 16384 x 0.1 in float16 would stall
    y = instance_mean(x, torch.zeros(1, 128, 128, dtype=torch.int64))
    assert torch.equal(y, x)


@pytest.mark.parametrize("name", ["odd", "one-pixel", "one-instance", "all-different", "same-ids-in-both-images"])
def test_gradient(name):
    ids = MAPS[name]
    x = image_for(ids, 2, torch.float64).requires_grad_()
    assert gradcheck(lambda x: instance_mean(x, ids), x)
    assert gradgradcheck(lambda x: instance_mean(x, ids), x)


def test_gradient_is_the_op_itself():
    ids = MAPS["odd"]
    x = image_for(ids).requires_grad_()
    gradient = torch.randn_like(x)
    instance_mean(x, ids).backward(gradient)
    torch.testing.assert_close(x.grad, instance_mean(gradient, ids))


def test_idempotent_and_exact_where_every_pixel_is_its_own_instance():
    x = image_for(MAPS["odd"])
    once = instance_mean(x, MAPS["odd"])
    torch.testing.assert_close(instance_mean(once, MAPS["odd"]), once)
    x = image_for(MAPS["all-different"])
    assert torch.equal(instance_mean(x, MAPS["all-different"]), x)


def test_memory_format_is_kept():
    ids = MAPS["odd"]
    x = image_for(ids)
    y = instance_mean(x.to(memory_format=torch.channels_last), ids)
    assert y.is_contiguous(memory_format=torch.channels_last)
    assert instance_mean(x, ids).is_contiguous()
    assert torch.equal(y, instance_mean(x, ids))


def test_strided_image():
    ids = MAPS["odd"]
    wide = torch.randn(2, 3, 14, 15)
    x = wide[:, :, ::2, ::3]
    assert torch.equal(instance_mean(x, ids), instance_mean(x.contiguous(), ids))


def test_index_is_reused():
    ids = MAPS["negative"]
    x = image_for(ids)
    assert torch.equal(instance_mean(x, instance_index(ids)), instance_mean(x, ids))
    assert torch.equal(instance_mean(x, ids.unsqueeze(1)), instance_mean(x, ids))


@pytest.mark.parametrize("name", MAPS)
def test_reduce_and_broadcast_are_its_halves(name):
    ids = MAPS[name]
    x = image_for(ids)
    index = instance_index(ids)
    table = instance_reduce(x, index)
    assert table.shape == (index.ids.numel(), 3)
    assert torch.equal(instance_broadcast(table, index), instance_mean(x, ids))


def test_reduce_returns_one_row_per_instance():
    x = torch.tensor([[[[1.0, 3.0, 10.0]]], [[[5.0, 7.0, 9.0]]]])
    index = instance_index(torch.tensor([[[4, 4, -1]], [[4, 4, 4]]]))
    assert instance_reduce(x, index).tolist() == [[10.0], [2.0], [7.0]]
    assert instance_reduce(x.bfloat16(), index).dtype == torch.float32
    assert instance_reduce(x.double(), index).dtype == torch.float64


def test_gradients_of_the_halves():
    ids = MAPS["odd"]
    index = instance_index(ids)
    x = image_for(ids, 2, torch.float64).requires_grad_()
    table = torch.randn(index.ids.numel(), 2, dtype=torch.float64, requires_grad=True)
    assert gradcheck(lambda x: instance_reduce(x, index), x)
    assert gradcheck(lambda table: instance_broadcast(table, index), table)


IDS = torch.zeros(1, 2, 2, dtype=torch.int64)


@pytest.mark.parametrize(
    ("x", "ids", "error", "says"),
    [
        (torch.zeros(1, 3, 2, 2, dtype=torch.int64), IDS, TypeError, "floating-point dtype, got torch.int64"),
        (torch.zeros(3, 2, 2), IDS, ValueError, r"\[B, C, H, W\], got \(3, 2, 2\)"),
        (torch.zeros(1, 0, 2, 2), IDS, ValueError, "non-empty x"),
        (torch.zeros(1, 3, 2, 3), IDS, ValueError, r"shape \(1, 2, 3\) to go with x, got \(1, 2, 2\)"),
        (torch.zeros(2, 3, 2, 2), IDS, ValueError, r"\(2, 2, 2\)"),
        (torch.zeros(1, 3, 2, 2), IDS.float(), TypeError, "ids of an integer dtype"),
        (torch.zeros(1, 3, 2, 2), IDS[:, :0], ValueError, "non-empty ids"),
        (torch.zeros(1, 3, 2, 2, device="meta"), IDS, ValueError, "one device, got x on meta, ids on cpu"),
    ],
)
def test_wrong_input(x, ids, error, says):
    with pytest.raises(error, match=says):
        instance_mean(x, ids)


def test_wrong_table():
    index = instance_index(IDS)
    with pytest.raises(ValueError, match=r"values of shape \[1, C\].*got \(2, 3\)"):
        instance_broadcast(torch.zeros(2, 3), index)
    with pytest.raises(ValueError, match="one device, got values on meta"):
        instance_broadcast(torch.zeros(1, 3, device="meta"), index)


@pytest.mark.parametrize("run", [instance_mean, instance_reduce])
def test_unknown_backend(run):
    with pytest.raises(BackendError, match="abacus"):
        run(torch.zeros(1, 3, 2, 2), instance_index(IDS), backend="abacus")
