"""What networks keep for their backward pass, and what they make again."""

import pytest
import torch
import torch.nn.functional as F

from hdgan.models import CascadedRefinement, GlobalGenerator, LocalEnhancer, MultiscaleDiscriminator, VGG19Features
from hdgan.models.blocks import recomputed, recomputing
from hdgan.ops import backend
from hdgan.training.memory import saved_bytes

NETWORKS = {
    "G1": lambda: GlobalGenerator(4, ngf=4, n_downsample=2, n_blocks=2),
    "G1 by resizing": lambda: GlobalGenerator(4, ngf=4, n_downsample=2, n_blocks=1, upsample="resize"),
    "G2": lambda: LocalEnhancer(4, ngf=4, n_downsample=1, n_blocks=1, n_blocks_local=1),
    "D": lambda: MultiscaleDiscriminator(4, ndf=4, n_scales=2),
    "CRN": lambda: CascadedRefinement(4, 3, (8, 8, 4)),
    "VGG": lambda: VGG19Features().requires_grad_(False),
}


def gradients(network, x, *, enabled):
    """The output, and the gradients of all parameters and of the input, for a loss that weighs every element."""
    x = x.clone().requires_grad_()
    with recomputing(enabled):
        outputs = network(x)
    flat = torch.cat([t.flatten() for t in torch.utils._pytree.tree_leaves(outputs)])
    loss = (flat * torch.linspace(-1, 1, flat.numel())).sum()
    wanted = [x, *(p for p in network.parameters() if p.requires_grad)]
    return [flat, *(g for g in torch.autograd.grad(loss, wanted, allow_unused=True) if g is not None)]


@pytest.mark.parametrize("name", NETWORKS)
def test_the_same_bits_with_less_memory(name):
    torch.manual_seed(0)
    network = NETWORKS[name]()
    x = torch.randn(1, 3 if name == "VGG" else 4, 32, 48)
    for ours, expected in zip(gradients(network, x, enabled=True), gradients(network, x, enabled=False), strict=True):
        assert torch.equal(ours, expected)

    def last():
        outputs = network(x.clone().requires_grad_())
        return [scale[-1] for scale in outputs] if name == "D" else outputs

    def held(enabled):
        with recomputing(enabled):
            return saved_bytes(last)

    assert held(True) < 0.9 * held(False)


def test_the_backward_pass_keeps_the_backend_of_the_forward_pass():
    network = NETWORKS["G1"]()
    with recomputing(), backend("eager"):
        y = network(torch.randn(1, 4, 16, 16))
    y.square().sum().backward()
    assert all(p.grad.isfinite().all() for p in network.parameters() if p.grad is not None)


def test_a_graph_may_be_walked_twice():
    network = NETWORKS["D"]()
    x = torch.randn(1, 4, 32, 32, requires_grad=True)
    with recomputing():
        loss = sum(scale[-1].square().mean() for scale in network(x))
    parameters = [scale.convs[0].weight for scale in network.scales]
    first = torch.autograd.grad(loss, parameters, retain_graph=True)
    (dx,) = torch.autograd.grad(loss, x, retain_graph=True)
    again = torch.autograd.grad(loss, parameters)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert dx.abs().max() > 0


def test_the_convolution_at_the_end_is_not_repeated(monkeypatch):
    calls = []
    conv2d = F.conv2d

    def counted(*arguments):
        y = conv2d(*arguments)
        calls.append(y.shape)
        return y

    x = torch.randn(1, 2, 8, 8, requires_grad=True)
    weight = torch.randn(2, 2, 3, 3, requires_grad=True)
    with recomputing():
        y = recomputed(lambda x: counted(F.relu(x), weight), x)
    y.sum().backward()
    assert calls == [(1, 2, 6, 6)]
    assert weight.grad.abs().max() > 0


def test_nothing_is_repeated_where_there_is_no_backward_pass():
    calls = []
    with recomputing(), torch.no_grad():
        recomputed(lambda x: calls.append(x) or x, torch.zeros(2, requires_grad=True))
    assert len(calls) == 1


def test_the_switch_is_given_back_after_an_error():
    def fail():
        with recomputing():
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    network = NETWORKS["G1"]()
    x = torch.randn(1, 4, 16, 16)
    outside = saved_bytes(lambda: network(x))
    with recomputing(False):
        assert saved_bytes(lambda: network(x)) == outside
