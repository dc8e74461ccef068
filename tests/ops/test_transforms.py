"""torch.func, torch.vmap and the vectorised derivatives of torch.autograd.functional, through the ops and networks."""

import pytest
import torch
from torch.autograd.functional import hessian, jacobian
from torch.func import functional_call, grad, jacfwd, jacrev, jvp, vjp, vmap

from hdgan import ops
from hdgan.models import GlobalGenerator, MultiscaleDiscriminator, UNetGenerator
from hdgan.models.blocks import recomputing
from hdgan.ops import BackendError, instance_index
from tests.ops.test_backend import used_kernels

INDEX = instance_index(torch.tensor([[[4, 4, 7], [7, 4, 9]], [[0, 1, 1], [0, 0, 1]]]))
WEIGHT, BIAS = torch.tensor([1.5, -0.5]), torch.tensor([0.1, 0.2])
LABEL = torch.tensor([[[0, 1, 1], [0, 0, 1]], [[1, 1, 0], [2, 1, 1]]])
SHAPE = (2, 2, 2, 3)
OPS = {
    "norm": lambda x, **o: ops.instance_norm_act(x, WEIGHT, BIAS, x, "leaky_relu", pad=1, eps=0.1, **o),
    "norm alone": lambda x, **o: ops.instance_norm_act(x, eps=0.1, **o),
    "mean": lambda x, **o: ops.instance_mean(x, INDEX, **o),
    "reduce": lambda x, **o: ops.instance_reduce(x, INDEX, **o),
    "broadcast": lambda x, **o: ops.instance_broadcast(x.flatten()[:10].view(5, 2), INDEX, **o),
    "pyramid": lambda x, **o: torch.cat([level.flatten() for level in ops.avg_pyramid(x, 3, **o)[1:]]),
    "coarse": lambda x, **o: ops.avg_pyramid(x, 2, **o)[2],
    "labels": lambda x, **o: ops.label_conv2d(LABEL, None, x[..., :2], padding=1, **o),
    "distance": lambda x, **o: ops.l1_distance(x, x.detach().flip(3) / 2, **o),
    "pooled labels": lambda x, **o: ops.label_conv2d(LABEL, None, x[..., :1, 1:2], levels=1, **o),
}
every_op = pytest.mark.parametrize("name", OPS)


def cubed(op):
    """A number that depends on every result by more than its sum."""
    return lambda x: op(x).pow(3).sum()


TRANSFORMS = {
    "grad": lambda op: grad(cubed(op)),
    "vjp": lambda op: lambda x: vjp(op, x)[1](op(x).detach() + 1)[0],
    "jacrev": jacrev,
    "jacfwd": jacfwd,
    "hessian": lambda op: torch.func.hessian(cubed(op)),
    "grad of grad": lambda op: grad(lambda x: grad(cubed(op))(x).square().sum()),
    "samples' gradients": lambda op: lambda x: vmap(grad(cubed(op)))(torch.stack([x, x.flip(3), 2 * x])),
    "gradient of samples": lambda op: grad(lambda x: vmap(op)(torch.stack([x, -x, 2 * x])).pow(3).sum()),
    "vmap": lambda op: lambda x: vmap(op, in_dims=3)(torch.stack([x, x.flip(3), 2 * x], dim=3)),
    "vmap of vmap": lambda op: lambda x: vmap(vmap(op))(torch.stack([x, -x, 2 * x, x]).unflatten(0, (2, 2))),
    "mapped and walked": lambda op: lambda x: _walked(lambda x: vmap(op)(torch.stack([x, 2 * x])).pow(3).sum(), x),
    "jacobian": lambda op: lambda x: jacobian(op, x, vectorize=True),
    "forward jacobian": lambda op: lambda x: jacobian(op, x, vectorize=True, strategy="forward-mode"),
    "vectorised hessian": lambda op: lambda x: hessian(cubed(op), x, vectorize=True),
    "batched gradients": lambda op: lambda x: _batched(op, x),
}


def _walked(function, x):
    x = x.clone().requires_grad_()
    return torch.autograd.grad(function(x), x)[0]


def _batched(op, x):
    x = x.clone().requires_grad_()
    y = op(x)
    upstream = torch.stack([torch.ones_like(y), y.detach(), y.detach().square()])
    return torch.autograd.grad(y, x, upstream, is_grads_batched=True)[0]


@pytest.mark.filterwarnings("ignore:There is a performance drop:UserWarning")
@pytest.mark.parametrize("transform", TRANSFORMS)
@every_op
def test_transforms_equal_those_of_eager(name, transform):
    x = torch.randn(SHAPE)
    found = TRANSFORMS[transform](OPS[name])(x)
    expected = TRANSFORMS[transform](lambda x: OPS[name](x, backend="eager"))(x.double())
    assert expected.abs().max() > 0
    torch.testing.assert_close(found, expected.float(), rtol=1e-4, atol=1e-4)


@every_op
def test_kernels_map(name):
    x = torch.randn(3, *SHAPE)
    assert used_kernels(lambda: vmap(lambda x: OPS[name](x, backend="cpu"))(x))
    assert not used_kernels(lambda: grad(cubed(OPS[name]))(x[0]))


def test_maps_over_weights_and_residuals():
    x, residual = torch.randn(SHAPE), torch.randn(3, 2, 2, 4, 5)
    weight = torch.randn(2, 3)

    def run(weight, residual, name):
        return ops.instance_norm_act(x, weight, BIAS, residual, pad=1, backend=name)

    found, expected = (vmap(run, (1, 0, None))(weight, residual, name) for name in ("cpu", "eager"))
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("instances", [True, False])
def test_labels_map(instances):
    label = torch.randint(4, (3, 1, 5, 6))
    ids = label % 3 if instances else None
    found = vmap(lambda label, ids: ops.encode_labels(label, ids, 4), (0, 0 if instances else None))(label, ids)
    expected = [ops.encode_labels(label[k], ids[k] if instances else None, 4, backend="eager") for k in range(3)]
    assert torch.equal(found, torch.stack(expected))


def test_each_map_with_instances_of_its_own_is_refused():
    x, ids = torch.randn(3, *SHAPE), torch.randint(3, (3, 2, 2, 3))
    with pytest.raises(ValueError, match=r"torch\.vmap: expected one instance index for all"):
        vmap(lambda x, ids: ops.instance_mean(x, ids, backend="cpu"))(x, ids)


@pytest.mark.parametrize("transform", ["grad", "jacrev", "hessian", "samples' gradients", "gradient of samples"])
@every_op
def test_a_named_backend_runs_or_says_why_not(name, transform):
    with pytest.raises(BackendError, match=r"'cpu' cannot run in .*differentiat.*: use 'eager'"):
        TRANSFORMS[transform](lambda x: OPS[name](x, backend="cpu"))(torch.randn(SHAPE))
    with ops.backend("cpu"), pytest.raises(BackendError, match=r"use 'eager' \(from hdgan.ops.backend"):
        TRANSFORMS[transform](OPS[name])(torch.randn(SHAPE))


@every_op
def test_transforms_compile(name):
    torch._dynamo.reset()
    x = torch.randn(SHAPE)
    for run, given in ((grad(cubed(OPS[name])), x), (vmap(OPS[name]), torch.stack([x, -x]))):
        compiled = torch.compile(run, backend="aot_eager", fullgraph=True)
        torch.testing.assert_close(compiled(given), run(given))


NETWORKS = {
    "G": lambda: GlobalGenerator(2, ngf=2, n_downsample=1, n_blocks=1),
    "D": lambda: MultiscaleDiscriminator(2, ndf=2, n_layers=1, n_scales=2),
    "U-Net": lambda: UNetGenerator(2, ngf=2, n_downs=2, norm="instance", dropout_levels=()),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_samples_gradients_of_a_network(name):
    network = NETWORKS[name]()
    x = torch.randn(3, 2, 8, 8)
    weights = {key: p.detach() for key, p in network.named_parameters()}

    def loss(weights, x):
        y = torch.utils._pytree.tree_leaves(functional_call(network, weights, x[None]))
        return sum(part.pow(3).sum() for part in y)

    with recomputing():  # which such a transform cannot be combined with
        found = vmap(grad(loss), (None, 0))(weights, x)
    for k in range(3):
        network.zero_grad()
        loss(dict(network.named_parameters()), x[k]).backward()
        for key, p in network.named_parameters():
            expected = torch.zeros_like(p) if p.grad is None else p.grad
            torch.testing.assert_close(found[key][k], expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", NETWORKS)
def test_an_ensemble_of_networks_in_one_call(name):
    members = [NETWORKS[name]() for _ in range(2)]
    x = torch.randn(1, 2, 8, 8)
    weights, _ = torch.func.stack_module_state(members)
    found = vmap(lambda weights: functional_call(members[0], weights, x))(weights)
    for k, member in enumerate(members):
        leaves = zip(*(torch.utils._pytree.tree_leaves(y) for y in (found, member(x))), strict=True)
        for ours, theirs in leaves:
            torch.testing.assert_close(ours[k], theirs, rtol=1e-3, atol=1e-4)


def test_directions_of_a_network():
    network, x, v = NETWORKS["D"](), torch.randn(1, 2, 8, 8), torch.randn(1, 2, 8, 8)

    def run(x):
        return network(x[:, 1:], network.context(x[:, :1]))[0][-1]

    _, found = jvp(run, (x,), (v,))
    network.double()
    step = 1e-4 * v.double()
    expected = (run(x.double() + step) - run(x.double() - step)) / 2e-4
    torch.testing.assert_close(found.double(), expected, rtol=1e-3, atol=1e-3)
