import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import parametrizations

from hdgan import ops
from hdgan.nn import LabelConv2d
from hdgan.ops import boundary_map, label_planes
from tests.ops.checks import FORMATS, assert_near

N = 4
LABEL = torch.randint(N, (2, 9, 7), generator=torch.Generator().manual_seed(0))
IDS = torch.randint(3, (2, 9, 7), generator=torch.Generator().manual_seed(1)) + 24000
CASES = {
    "plain": ((5, 3), {}),
    "stem": ((5, 7), {"padding": 3, "padding_mode": "reflect"}),
    "discriminator": ((6, 4, 2, 2), {"boundaries": True, "bias": False}),
    "edges": ((5, 3), {"padding": (1, 1), "stride": (2, 2), "padding_mode": "replicate", "boundaries": True}),
}


def planes_of(label, ids=None):
    """One-hot planes as people make them, and that of the boundaries."""
    planes = F.one_hot(label, N).permute(0, 3, 1, 2)
    return planes if ids is None else torch.cat([planes, boundary_map(ids).unsqueeze(1)], 1)


def convolution(arguments, boundaries=False, **options):
    return nn.Conv2d(N + boundaries, *arguments, **options)


@pytest.mark.parametrize("memory_format", FORMATS)
@pytest.mark.parametrize("name", CASES)
def test_near_the_convolution_of_planes(backend, device, name, memory_format):
    arguments, options = CASES[name]
    ids = IDS if options.get("boundaries") else None
    conv, made = convolution(arguments, **options).double(), LabelConv2d(N, *arguments, **options)
    made.load_state_dict(conv.state_dict(), strict=True)
    made = made.to(device, memory_format=memory_format)
    expected = conv(planes_of(LABEL, ids).double())
    dy = torch.randn(expected.shape)
    with ops.backend(backend):
        y = made(LABEL.to(device), None if ids is None else ids.to(device))
        found = torch.autograd.grad(y, list(made.parameters()), dy.to(device))
    assert y.is_contiguous(memory_format=memory_format)
    assert_near(y, expected)
    gradients = torch.autograd.grad(expected, list(conv.parameters()), dy.double())
    for ours, theirs in zip(found, gradients, strict=True):
        assert_near(ours / LABEL.numel() ** 0.5, theirs / LABEL.numel() ** 0.5)  # sums over all pixels


@pytest.mark.parametrize("name", CASES)
def test_is_the_convolution_in_everything_else(name):
    arguments, options = CASES[name]
    torch.manual_seed(0)
    conv = convolution(arguments, **options)
    torch.manual_seed(0)
    made = LabelConv2d(N, *arguments, **options)
    assert isinstance(made, nn.Conv2d)
    assert list(made.state_dict()) == list(conv.state_dict())
    for key, value in conv.state_dict().items():
        assert torch.equal(made.state_dict()[key], value)
    assert (made.kernel_size, made.stride, made.padding) == (conv.kernel_size, conv.stride, conv.padding)
    on_meta = LabelConv2d(N, *arguments, **options, device="meta", dtype=torch.bfloat16)
    assert {(p.device.type, p.dtype) for p in on_meta.parameters()} == {("meta", torch.bfloat16)}


def test_takes_the_place_of_a_convolution_with_its_parameters(backend, device):
    conv = nn.Conv2d(N + 1, 5, 7).to(device).eval()
    made = LabelConv2d.of(conv, boundaries=True, padding=3, dontcare=2)
    assert made.weight is conv.weight
    assert made.bias is conv.bias
    assert not made.training
    planes = planes_of(LABEL, IDS).double()
    planes[:, 2] = 0
    expected = copy.deepcopy(conv).cpu().double()(nn.ReflectionPad2d(3)(planes))
    with ops.backend(backend):
        assert_near(made(LABEL.to(device), IDS.to(device)), expected)
    own = nn.Conv2d(N, 5, 3, 2, 1, bias=False, padding_mode="replicate")
    found = LabelConv2d.of(own)
    assert found.bias is None
    torch.testing.assert_close(found(LABEL), own(planes_of(LABEL).float()))


def test_several_modules_share_planes():
    conv = nn.Conv2d(N + 1, 5, 3)
    made = LabelConv2d.of(conv, boundaries=True, dontcare=1)
    planes = label_planes(LABEL, IDS, N, dontcare=1)
    assert torch.equal(made(planes), made(LABEL, IDS))
    edges = boundary_map(IDS)
    assert torch.equal(made(LABEL, edges), made(LABEL, IDS))
    assert torch.equal(made(LABEL.unsqueeze(1).int(), IDS.unsqueeze(1).int()), made(LABEL, IDS))
    with pytest.raises(ValueError, match="expected neither ids nor dontcare with LabelPlanes"):
        made(planes, IDS)
    with pytest.raises(ValueError, match="expected ids with boundaries=True, got none"):
        made(label_planes(LABEL, None, N + 1))


def test_labels_that_are_no_class_set_no_plane():
    made = LabelConv2d(N, 5, 1, bias=False)
    assert not made(torch.full((1, 3, 3), 255)).any()


@pytest.mark.parametrize("memory_format", FORMATS)
def test_autocast(memory_format):
    conv = nn.Conv2d(N, 5, 3, padding=1).to(memory_format=memory_format)
    made, planes = LabelConv2d.of(conv), planes_of(LABEL).float()
    with torch.autocast("cpu", torch.bfloat16):
        found, expected = made(LABEL), conv(planes)
    assert found.dtype == expected.dtype == torch.bfloat16
    assert found.is_contiguous(memory_format=memory_format)
    assert_near(found, expected.double())
    gradients = [torch.autograd.grad(y.float().square().sum(), list(conv.parameters())) for y in (found, expected)]
    for ours, theirs in zip(*gradients, strict=True):
        assert ours.dtype == torch.float32
        assert (ours - theirs).norm() < 0.02 * theirs.norm()


def test_an_ensemble_of_biases():
    """Which torch.vmap maps over: they cannot be added in place."""
    made, biases = LabelConv2d(N, 5, 3), torch.randn(3, 5)
    found = torch.func.vmap(lambda bias: torch.func.functional_call(made, {"bias": bias}, LABEL))(biases)
    without = made(LABEL) - made.bias.view(-1, 1, 1)
    torch.testing.assert_close(found, without + biases.view(3, 1, 5, 1, 1))


def test_shows_its_options():
    assert repr(LabelConv2d(4, 5, 3, boundaries=True, dontcare=0)) == (
        "LabelConv2d(5, 5, kernel_size=(3, 3), stride=(1, 1), boundaries=True, dontcare=0)"
    )


class Subclass(nn.Conv2d):
    pass


@pytest.mark.parametrize(
    ("conv", "options", "says"),
    [
        (nn.Conv2d(4, 4, 3, groups=2), {}, r"LabelConv2d.of: expected .* one group and without dilation, got groups 2"),
        (nn.Conv2d(4, 4, 3, dilation=2), {}, r"LabelConv2d.of: .* got groups 1 and dilation \(2, 2\)"),
        (nn.Conv2d(4, 4, 3, padding=1), {"padding": 1}, r"of its own, got padding \(1, 1\) behind padding 1"),
        (nn.Conv2d(4, 4, 3, padding="same"), {}, "LabelConv2d.of: expected padding to be a number >= 0, .* got 'same'"),
        (nn.Conv2d(4, 4, (3, 5)), {}, r"LabelConv2d.of: expected kernel_size to be a number >= 0, .* got \(3, 5\)"),
        (nn.Conv2d(4, 4, 3, (1, 2)), {}, r"LabelConv2d.of: expected stride to be a number >= 0, .* got \(1, 2\)"),
        (nn.Conv2d(4, 4, 3, padding=1, padding_mode="circular"), {}, "zeros, reflect or replicate, got 'circular'"),
        (nn.Conv2d(1, 4, 3), {"boundaries": True}, "LabelConv2d: expected n_labels >= 1, got 0"),
        (nn.LazyConv2d(4, 3), {}, "LabelConv2d.of: LazyConv2d does not know its number of channels yet"),
        (nn.ConvTranspose2d(4, 4, 3), {}, "LabelConv2d.of: expected an nn.Conv2d, got ConvTranspose2d"),
        (Subclass(4, 4, 3), {}, "LabelConv2d.of: expected an nn.Conv2d, got Subclass"),
        (parametrizations.spectral_norm(nn.Conv2d(4, 4, 3)), {}, "got ParametrizedConv2d"),
        (nn.utils.spectral_norm(nn.Conv2d(4, 4, 3)), {}, "LabelConv2d.of: this Conv2d has hooks"),
    ],
)
def test_convolutions_that_are_something_else_are_refused(conv, options, says):
    with pytest.raises(ValueError, match=says):
        LabelConv2d.of(conv, **options)


@pytest.mark.parametrize(
    ("boundaries", "label", "ids", "error", "says"),
    [
        (True, LABEL, None, ValueError, "LabelConv2d: expected ids with boundaries=True, got none"),
        (False, LABEL, IDS, ValueError, "LabelConv2d: expected no ids with boundaries=False, got some"),
        (False, LABEL.float(), None, TypeError, "expected label of an integer dtype, got torch.float32"),
        (False, LABEL[0], None, ValueError, r"expected label of shape \[B, H, W\] or \[B, 1, H, W\], got \(9, 7\)"),
        (True, LABEL, IDS[:1], ValueError, r"expected ids of shape \(2, 9, 7\), that of label, got \(1, 9, 7\)"),
    ],
)
def test_wrong_maps(boundaries, label, ids, error, says):
    with pytest.raises(error, match=says):
        LabelConv2d(N, 5, 3, boundaries=boundaries)(label, ids)


def test_spectral_norm_can_be_put_on_it():
    made = parametrizations.spectral_norm(LabelConv2d(N, 5, 3, bias=False)).eval()
    conv = nn.Conv2d(N, 5, 3, bias=False)
    conv.weight = nn.Parameter(made.weight.detach())
    torch.testing.assert_close(made(LABEL), conv(planes_of(LABEL).float()))
