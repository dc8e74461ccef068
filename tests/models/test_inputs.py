"""The first convolution of a network: what it looks up, what it makes dense, and what it pads."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from hdgan.models import CascadedRefinement, GlobalGenerator, LocalEnhancer
from hdgan.models.inputs import LabelInput, first_conv, input_for, input_pyramid, pad_to_multiple
from hdgan.ops import avg_pyramid, encode_labels, label_planes

N_LABELS, FEATURES = 130, 2
"""So many that the kernels look up what would be multiplied of few classes: these maps are small and full of detail."""
PLANES = N_LABELS + 1


def maps(size, batch=2):
    """Labels in areas of a few pixels, some of no class, and instance ids."""
    torch.manual_seed(1)
    height, width = size
    small = torch.randint(-1, N_LABELS + 1, (batch, height // 4 + 1, width // 4 + 1))
    label = small.repeat_interleave(4, 1).repeat_interleave(4, 2)[:, :height, :width].contiguous()
    return label, label * 10 + torch.arange(width) // 7


def inputs(size, dtype, features=0, memory_format=torch.contiguous_format, dontcare=None, ids=True):
    """The same input to look up and dense, and its features."""
    label, instances = maps(size)
    instances = instances if ids else None
    options = {"dtype": dtype, "memory_format": memory_format, "dontcare": dontcare}
    dense = encode_labels(label, instances, N_LABELS, **options)
    planes = label_planes(label, instances, N_LABELS, dontcare=dontcare)
    if not features:
        return LabelInput(planes), dense, None
    given = torch.randn(len(label), features, *size, dtype=dtype).contiguous(memory_format=memory_format)
    given.requires_grad_()
    return LabelInput(planes, given), torch.cat([dense, given], dim=1), given


CONVOLUTIONS = {
    "usual": ({"kernel_size": 3}, 1),
    "with its own padding": ({"kernel_size": 4, "stride": 2, "padding": 1}, 0),
    "without padding": ({"kernel_size": 3}, 0),
    "without bias": ({"kernel_size": 3, "bias": False}, 2),
    "dilated": ({"kernel_size": 3, "dilation": 2}, 1),
    "in groups": ({"kernel_size": 3, "groups": 7}, 1),
    "not square": ({"kernel_size": (3, 5)}, 2),
    "of two strides": ({"kernel_size": 3, "stride": (1, 2)}, 1),
    "of two paddings": ({"kernel_size": 3, "padding": (1, 2)}, 0),
    "padded twice": ({"kernel_size": 3, "padding": 1}, 1),
    "padded by name": ({"kernel_size": 3, "padding": "same"}, 0),
    "circular": ({"kernel_size": 3, "padding": 1, "padding_mode": "circular"}, 0),
}


@pytest.mark.parametrize("pad_mode", ["reflect", "replicate", "zero"])
@pytest.mark.parametrize("level", [0, 1])
@pytest.mark.parametrize("kind", CONVOLUTIONS)
def test_convolutions_of_any_kind(kind, level, pad_mode):
    torch.manual_seed(0)
    options, pad = CONVOLUTIONS[kind]
    conv = nn.Conv2d(PLANES + FEATURES, 14, **options).double()
    planes, dense, given = inputs((13, 18), torch.float64, FEATURES)
    found, expected = (first_conv(conv, input_pyramid(x, 1)[level], pad, pad_mode, bias=True) for x in (planes, dense))
    results = [[y, *torch.autograd.grad(y.square().sum(), [given, *conv.parameters()])] for y in (found, expected)]
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize(("window", "sizes"), [(3, [(13, 18), (7, 9), (4, 5)]), (2, [(13, 18), (6, 9), (3, 4)])])
def test_levels(window, sizes):
    planes, dense, _ = inputs((13, 18), torch.float32, FEATURES)
    if window == 3:
        levels, expected = input_pyramid(planes, 2), avg_pyramid(dense, 2)
    else:
        expected = [dense, F.avg_pool2d(dense, 2), F.avg_pool2d(F.avg_pool2d(dense, 2), 2)]
        levels = [LabelInput(planes.planes, x[:, PLANES:], k, 2) for k, x in enumerate(expected)]
    for level, x, size in zip(levels, expected, sizes, strict=True):
        assert level.shape == tuple(x.shape) == (2, PLANES + FEATURES, *size)
        torch.testing.assert_close(level.dense(), x)


def test_padding_repeats_the_edge():
    planes, dense, _ = inputs((13, 18), torch.float32, FEATURES)
    assert torch.equal(pad_to_multiple(planes, 8).dense(), pad_to_multiple(dense, 8))
    assert pad_to_multiple(planes, 1) is planes


@pytest.mark.parametrize(
    "network",
    [
        GlobalGenerator(PLANES, ngf=2, n_blocks=1),
        LocalEnhancer(PLANES, ngf=2),
        CascadedRefinement(PLANES, 3, (4, 4, 4)),
    ],
    ids=lambda network: type(network).__name__,
)
def test_a_network_takes_no_coarser_level(network):
    coarse = inputs((70, 70), torch.float32)[0]._replace(level=1)
    with pytest.raises(ValueError, match="LabelInput: expected level 0, got 1; give the tensor that `dense` makes"):
        network(coarse)


def test_a_dense_tensor_has_the_dtype_that_is_computed_in():
    planes, _, _ = inputs((8, 8), torch.float32)
    conv = nn.utils.spectral_norm(nn.Conv2d(PLANES, 2, 3)).to(memory_format=torch.channels_last)
    dense = input_for(planes, [conv])
    assert dense.dtype == torch.float32
    assert dense.is_contiguous(memory_format=torch.channels_last)
    with torch.autocast("cpu", torch.bfloat16):
        assert input_for(planes, [conv]).dtype == torch.bfloat16
    assert input_for(planes, [conv.double()]).dtype == torch.float64
