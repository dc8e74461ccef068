"""The convolutions of all networks are what PyTorch's users expect of an nn.Conv2d: hooked, wrapped and replaced."""

import copy
import pickle
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import parametrizations, prune

from hdgan.models import CascadedRefinement, GlobalGenerator, LocalEnhancer, MultiscaleDiscriminator, UNetGenerator
from hdgan.models.blocks import (
    as_function,
    conv_by_rows,
    enlarged,
    is_plain,
    recomputing,
    runs_by_rows,
    up_conv,
)
from hdgan.models.norms import make_norm
from hdgan.models.resnet import ResNetGenerator
from hdgan.models.segmenter import random_segmenter
from hdgan.ops import pad2d

NETWORKS = {
    "G1": partial(GlobalGenerator, 3, ngf=4, n_downsample=1, n_blocks=1),
    "G2 by resizing": partial(LocalEnhancer, 3, ngf=2, n_downsample=1, n_blocks=1, n_blocks_local=1, upsample="resize"),
    "D": partial(MultiscaleDiscriminator, 3, ndf=4, n_layers=2, n_scales=2),
    "D by batch": partial(MultiscaleDiscriminator, 3, ndf=4, n_layers=2, n_scales=1, norm="batch", padding=1),
    "U-Net": partial(UNetGenerator, 3, ngf=4, n_downs=3, norm="instance", dropout_levels=()),
    "U-Net by batch": partial(UNetGenerator, 3, ngf=4, n_downs=3, dropout_levels=()),
    "ResNet": partial(ResNetGenerator, 3, ngf=4, n_blocks=1, norm="instance", dropout=False),
    "ResNet by batch": partial(ResNetGenerator, 3, ngf=4, n_blocks=1, dropout=False),
    "CRN": partial(CascadedRefinement, 3, 3, (8, 4)),
    "segmenter": random_segmenter,
}
every_network = pytest.mark.parametrize("name", NETWORKS)


def made(name):
    torch.manual_seed(0)
    return NETWORKS[name](), torch.randn(2, 3, 16, 32)


def convolutions(network):
    return [(name, m) for name, m in network.named_modules() if isinstance(m, (nn.Conv2d, nn.ConvTranspose2d))]


def flat(network, x):
    """All outputs of a network in one row."""
    return torch.cat([y.flatten() for y in torch.utils._pytree.tree_leaves(network(x))])


def loss(network, x):
    y = flat(network, x)
    return (y * torch.linspace(-1, 1, len(y))).sum()


def assert_near(found, expected):
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


@every_network
def test_hooks_of_every_convolution_run_once(name):
    network, x = made(name)
    expected = flat(network, x)
    seen = []
    for conv, module in convolutions(network):
        module.register_forward_pre_hook(lambda *_, conv=conv: seen.append((conv, "before")))
        module.register_forward_hook(lambda *_, conv=conv: seen.append((conv, "after")))
        module.register_full_backward_pre_hook(lambda *_, conv=conv: seen.append((conv, "backward")))
        module.register_full_backward_hook(lambda *_, conv=conv: seen.append((conv, "gradient")))
    x.requires_grad_()
    with recomputing():
        found = flat(network, x)
    assert_near(found, expected)
    found.square().sum().backward()
    assert sorted(seen) == sorted(
        (conv, what) for conv, _ in convolutions(network) for what in ("before", "after", "backward", "gradient")
    )


def with_global_hook(network):
    return nn.modules.module.register_module_forward_hook(lambda module, _, y: module.__dict__.update(was_called=True))


def test_global_hooks_see_every_convolution():
    network, x = made("G1")
    handle = with_global_hook(network)
    try:
        network(x)
    finally:
        handle.remove()
    assert all(module.was_called for _, module in convolutions(network))


REPARAMETRISED = {
    "hooks of spectral norm": nn.utils.spectral_norm,
    "hooks of weight norm": nn.utils.weight_norm,
    "spectral norm": parametrizations.spectral_norm,
    "weight norm": parametrizations.weight_norm,
    "pruned": lambda conv: prune.random_unstructured(conv, "weight", amount=0.3),
}


@pytest.mark.filterwarnings("ignore:.*weight_norm.* is deprecated:FutureWarning")
@pytest.mark.parametrize("change", REPARAMETRISED)
@every_network
def test_reparametrised_convolutions_train_and_compute_by_their_weights(name, change):
    network, x = made(name)
    for _, conv in convolutions(network):
        REPARAMETRISED[change](conv)
    with recomputing():
        for _ in range(2):  # in a second step hooks meet the weights that the first one left
            network.zero_grad()
            loss(network, x).backward()
    trained = [p for key, p in network.named_parameters() if p.dim() == 4]
    assert len(trained) >= len(convolutions(network))
    assert all(p.grad.isfinite().all() and p.grad.abs().max() > 0 for p in trained)

    network.eval()  # spectral norms stand still
    y = flat(network, x)
    plain, _ = made(name)
    for (_, conv), (_, other) in zip(convolutions(plain), convolutions(network), strict=True):
        conv.weight.data.copy_(other.weight)
    assert_near(y, flat(plain, x))


def test_power_iterations_are_not_repeated():
    vectors = []
    for recompute in (False, True):
        network, x = made("D")
        for _, conv in convolutions(network):
            nn.utils.spectral_norm(conv)
        with recomputing(recompute):
            loss(network, x).backward()
        vectors.append([value for key, value in network.named_buffers() if key.endswith("weight_u")])
        assert len(vectors[-1]) == 8
    assert all(torch.equal(a, b) for a, b in zip(*vectors, strict=True))


class LowRank(nn.Module):
    """A convolution and a product of two small ones beside it."""

    def __init__(self, base, rank=2):
        super().__init__()
        self.base = base.requires_grad_(False)
        transposed = isinstance(base, nn.ConvTranspose2d)
        options = {"stride": base.stride, "padding": base.padding, "bias": False}
        options |= {"output_padding": base.output_padding} if transposed else {}
        self.down = type(base)(base.in_channels, rank, base.kernel_size, **options)
        self.up = nn.Conv2d(rank, base.out_channels, 1, bias=False)

    def forward(self, x):
        return self.base(x) + self.up(self.down(x))


class Merged(LowRank):
    """The same, with the attributes of a convolution."""

    @property
    def weight(self):
        return self.base.weight

    @property
    def bias(self):
        return self.base.bias

    @property
    def stride(self):
        return self.base.stride


def replace(network, kind):
    for name, conv in convolutions(network):
        parent, _, leaf = name.rpartition(".")
        setattr(network.get_submodule(parent), leaf, kind(conv))
    return [m for m in network.modules() if isinstance(m, kind)]


@pytest.mark.parametrize("kind", [LowRank, Merged])
@every_network
def test_wrappers_take_the_place_of_convolutions(name, kind):
    network, x = made(name)
    expected = flat(network, x)
    wrappers = replace(network, kind)
    for wrapper in wrappers:
        nn.init.zeros_(wrapper.up.weight)
    assert_near(flat(network, x), expected)
    with recomputing():
        loss(network, x).backward()
    assert all(wrapper.up.weight.grad.abs().max() > 0 for wrapper in wrappers)


def test_what_draws_noise_is_not_repeated():
    network, x = made("G1")
    drawn = []

    class Noisy(LowRank):
        def forward(self, x):
            drawn.append(torch.rand(()))
            return F.dropout(super().forward(x))

    wrappers = replace(network, Noisy)
    with recomputing():
        loss(network, x).backward()
    assert len(drawn) == len(wrappers)


def double(conv):
    """As tools do that patch the forward of an instance."""
    forward = conv.forward
    conv.forward = lambda x: 2 * forward(x)


@pytest.mark.parametrize("name", ["G1", "D", "U-Net"])
def test_a_patched_forward_is_used(name, monkeypatch):
    network, x = made(name)
    expected = copy.deepcopy(network)
    for _, conv in convolutions(expected):
        conv.weight.data *= 2
        if conv.bias is not None:
            conv.bias.data *= 2
    by_class = copy.deepcopy(network)
    for _, conv in convolutions(network):
        double(conv)
    assert_near(flat(network, x), flat(expected, x))
    wanted = flat(expected, x)
    for kind in (nn.Conv2d, nn.ConvTranspose2d):
        monkeypatch.setattr(kind, "forward", lambda self, x, forward=kind.forward: 2 * forward(self, x))
    assert_near(flat(by_class, x), wanted)


def test_padding_that_tiles_is_kept():
    down = NETWORKS["U-Net"]().downs[1]
    down.padding_mode, down._reversed_padding_repeated_twice = "circular", [1, 1, 1, 1]
    inside = torch.randn(1, 4, 8, 8)
    expected = F.conv2d(F.pad(inside, (1, 1, 1, 1), mode="circular"), down.weight, stride=2)
    assert torch.equal(as_function(down)(inside), expected)
    assert not torch.allclose(as_function(down)(inside), F.conv2d(inside, down.weight, stride=2, padding=1))


@pytest.mark.parametrize("recompute", [False, True])
@every_network
def test_functional_call_with_other_weights(name, recompute):
    network, x = made(name)
    x.requires_grad_()
    other, _ = made(name)
    with torch.no_grad():
        for key, p in other.named_parameters():
            if "norm" not in key:
                p.mul_(0.5).add_(0.01)
    (expected,) = torch.autograd.grad(loss(other, x), x)
    weights = {key: p.detach().clone() for key, p in other.named_parameters()}
    with recomputing(recompute):
        y = torch.func.functional_call(network, weights, x)
    y = torch.cat([part.flatten() for part in torch.utils._pytree.tree_leaves(y)])
    (found,) = torch.autograd.grad((y * torch.linspace(-1, 1, len(y))).sum(), x)
    assert torch.equal(found, expected)


@pytest.mark.parametrize("change", [nn.utils.spectral_norm, LowRank], ids=["hooked", "wrapped"])
def test_a_condition_may_come_first_to_any_first_convolution(change):
    network, x = made("D")
    for scale in network.scales:
        scale.convs[0] = change(scale.convs[0])
    network.eval()
    expected = network(x)
    found = network(x[:, 2:], network.context(x[:, :2]))
    for ours, theirs in zip(found, expected, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


@pytest.mark.parametrize("name", ["G1", "D", "U-Net"])
def test_what_a_hook_keeps_stays(name):
    network, x = made(name)
    kept = []
    for _, conv in convolutions(network):
        conv.register_forward_hook(lambda _, __, y: kept.append((y, y.detach().clone())))
    network(x)
    assert all(torch.equal(y, then) for y, then in kept)


@pytest.mark.parametrize("name", ["G1", "D"])
def test_hooked_networks_compile_into_one_graph(name):
    network, x = made(name)
    for _, conv in convolutions(network):
        conv.register_forward_hook(lambda _, __, y: 2 * y)
    torch._dynamo.reset()
    compiled = torch.compile(network, fullgraph=True, backend="aot_eager")
    assert_near(flat(compiled, x), flat(network, x))


@every_network
def test_copies_and_pickles_keep_their_hooks(name):
    network, x = made(name)
    for _, conv in convolutions(network):
        nn.utils.spectral_norm(conv)
    network.eval()
    for again in (copy.deepcopy(network), pickle.loads(pickle.dumps(network))):
        assert torch.equal(flat(again, x), flat(network, x))


def test_bfloat16_autocast_of_hooked_convolutions():
    network, x = made("D")
    for _, conv in convolutions(network):
        nn.utils.spectral_norm(conv)
    with torch.autocast("cpu", torch.bfloat16):
        y = flat(network, x)
    assert y.dtype == torch.bfloat16
    y.float().square().mean().backward()
    assert all(p.grad is not None for key, p in network.named_parameters() if key.endswith("weight_orig"))


def test_a_network_from_the_meta_device():
    with torch.device("meta"):
        network = NETWORKS["G1"]()
    network.to_empty(device="cpu")
    filled, x = made("G1")
    network.load_state_dict(filled.state_dict())
    assert torch.equal(network(x), filled(x))
    conv = torch.nn.utils.skip_init(nn.Conv2d, 3, 4, 3)
    nn.init.ones_(conv.weight)
    assert torch.equal(as_function(conv)(x), F.conv2d(x, conv.weight))


def test_only_known_modules_are_plain():
    class Mine(nn.Conv2d):
        pass

    conv = nn.Conv2d(2, 2, 1)
    assert is_plain(conv)
    assert is_plain(make_norm("instance", 2))
    assert not is_plain(make_norm("batch", 2))  # its statistics count every run
    assert not is_plain(Mine(2, 2, 1))
    handle = conv.register_forward_hook(lambda *_: None)
    assert as_function(conv) is conv
    handle.remove()
    assert is_plain(conv)
    assert not is_plain(parametrizations.weight_norm(conv))


def test_enlarging():
    x = torch.randn(1, 2, 3, 4)
    assert enlarged(x, "transposed", "reflect") is x
    doubled = pad2d(x.repeat_interleave(2, 2).repeat_interleave(2, 3), 1, "reflect")
    assert torch.equal(enlarged(x, "resize", "reflect"), doubled)


def test_unknown_kinds():
    with pytest.raises(ValueError, match="up_conv: expected mode transposed or resize, got 'bilinear'"):
        up_conv(4, "bilinear")
    with pytest.raises(ValueError, match="make_norm: expected kind instance or batch, got 'layer'"):
        make_norm("layer", 4)
    with pytest.raises(ValueError, match="pad2d: expected mode reflect, zero or replicate, got 'circular'"):
        pad2d(torch.zeros(1, 1, 2, 2), 1, "circular")


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize(("kernel", "out", "bias"), [((7, 7), 3, True), ((3, 5), 4, False), ((2, 1), 1, True)])
def test_a_convolution_by_rows_is_the_convolution(kernel, out, bias, memory_format):
    torch.manual_seed(0)
    conv = nn.Conv2d(8, out, kernel, bias=bias)
    x = torch.randn(2, 8, 19, 23).contiguous(memory_format=memory_format)
    with torch.no_grad():
        assert runs_by_rows(conv, x)
        expected = conv.double()(x.double())
        torch.testing.assert_close(conv_by_rows(conv.float(), x), expected.float(), rtol=1e-5, atol=1e-5)


def test_what_is_convolved_by_rows():
    conv, x = nn.Conv2d(8, 3, 7), torch.randn(1, 8, 16, 16)
    assert not runs_by_rows(conv, x)  # it would be differentiated
    with torch.no_grad():
        assert runs_by_rows(conv, x)
        assert not runs_by_rows(conv, x.bfloat16())
        assert not runs_by_rows(conv, x.to("meta"))
        with torch.autocast("cpu", torch.bfloat16):
            assert not runs_by_rows(conv, x)
        for other in (
            nn.Conv2d(8, 5, 7),
            nn.Conv2d(8, 3, 1),
            nn.Conv2d(8, 3, 7, stride=2),
            nn.Conv2d(8, 3, 7, padding=3),
            nn.Conv2d(8, 3, 7, dilation=2),
            nn.Conv2d(9, 3, 7, groups=3),
            prune.identity(nn.Conv2d(8, 3, 7), "weight"),
        ):
            assert not runs_by_rows(other, x)


def test_a_generator_computes_the_same_without_gradients():
    torch.manual_seed(0)
    network, x = GlobalGenerator(3, ngf=8, n_downsample=2, n_blocks=1), torch.randn(1, 3, 24, 40)
    with torch.no_grad():
        found = network(x)
    torch.testing.assert_close(found, network(x).detach(), rtol=1e-4, atol=1e-5)
