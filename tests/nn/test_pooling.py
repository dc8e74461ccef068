import pytest
import torch
from torch import nn

from hdgan import ops
from hdgan.nn import AvgPyramid, InstanceMean
from tests.ops.cases import brute_force_mean
from tests.ops.checks import DTYPES, FORMATS, assert_near, outputs_and_gradients


@pytest.mark.parametrize("memory_format", FORMATS)
@pytest.mark.parametrize("levels", [0, 1, 3])
def test_pyramid_near_repeated_pooling(backend, device, levels, memory_format):
    pool = nn.AvgPool2d(3, stride=2, padding=1, count_include_pad=False)

    def repeated(x):
        pyramid = [x]
        for _ in range(levels):
            pyramid.append(pool(pyramid[-1]))
        return pyramid

    for dtype in DTYPES if backend != "eager" else [torch.float64]:
        x = torch.randn(2, 3, 9, 6).to(dtype).contiguous(memory_format=memory_format)
        upstream = [torch.randn_like(level).double() for level in repeated(x)]
        expected, (gradient,) = outputs_and_gradients(repeated, [x.double()], upstream)
        with ops.backend(backend):
            found, (ours,) = outputs_and_gradients(AvgPyramid(levels), [x.to(device)], [u.to(device) for u in upstream])
        for level, theirs in zip(found, expected, strict=True):
            assert level.dtype == dtype
            assert level.is_contiguous(memory_format=memory_format)
            assert_near(level, theirs)
        assert_near(ours, gradient, dtype)


@pytest.mark.parametrize("memory_format", FORMATS)
def test_every_pixel_gets_the_mean_of_its_instance(backend, device, memory_format):
    ids = torch.randint(4, (2, 5, 7)) * 26001
    for dtype in DTYPES if backend != "eager" else [torch.float64]:
        x = torch.randn(2, 3, 5, 7).to(dtype).contiguous(memory_format=memory_format)
        dy = torch.randn(2, 3, 5, 7).to(dtype)
        with ops.backend(backend):
            for given in (ids.to(device), ops.instance_index(ids.to(device))):
                (y,), (dx,) = outputs_and_gradients(
                    lambda x, given=given: InstanceMean()(x, given), [x.to(device)], [dy.to(device)]
                )
                assert y.dtype == dtype
                assert y.is_contiguous(memory_format=memory_format)
                assert_near(y, brute_force_mean(x, ids))
                assert_near(dx, brute_force_mean(dy, ids))


def test_dtypes_under_autocast_are_those_of_torch():
    for dtype in DTYPES:
        x = torch.randn(1, 2, 6, 6).to(dtype)
        with torch.autocast("cpu", torch.bfloat16):
            assert nn.AvgPool2d(3, 2, 1)(x).dtype == AvgPyramid(1)(x)[1].dtype == dtype
            assert InstanceMean()(x, torch.zeros(1, 6, 6, dtype=torch.int64)).dtype == dtype


def test_they_have_no_state():
    assert repr(AvgPyramid(2)) == "AvgPyramid(levels=2)"
    assert repr(InstanceMean()) == "InstanceMean()"
    assert not AvgPyramid(2).state_dict()
    assert not InstanceMean().state_dict()


def test_wrong_input():
    with pytest.raises(ValueError, match="AvgPyramid: expected levels >= 0, got -1"):
        AvgPyramid(-1)
    with pytest.raises(ValueError, match=r"avg_pyramid: expected x of shape \[B, C, H, W\], got \(3, 8, 8\)"):
        AvgPyramid(1)(torch.zeros(3, 8, 8))
    with pytest.raises(ValueError, match=r"expected ids of shape \(1, 4, 5\) to match x, got \(1, 4, 4\)"):
        InstanceMean()(torch.zeros(1, 2, 4, 5), torch.zeros(1, 4, 4, dtype=torch.int64))
    with pytest.raises(TypeError, match=r"expected ids of an integer dtype, got torch\.float32"):
        InstanceMean()(torch.zeros(1, 2, 4, 5), torch.zeros(1, 4, 5))
