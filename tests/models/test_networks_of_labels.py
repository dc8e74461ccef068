"""Networks that look label planes up have the results and the gradients that they have of the dense tensor."""

from functools import partial

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations

from hdgan.models import (
    CascadedRefinement,
    GlobalGenerator,
    LabelInput,
    LocalEnhancer,
    MultiscaleDiscriminator,
    ResNetGenerator,
    UNetGenerator,
)
from hdgan.models.blocks import recomputing
from hdgan.ops import LabelPlanes, backend
from hdgan.training.memory import saved_bytes
from tests.models.test_inputs import FEATURES, N_LABELS, PLANES, inputs

GENERATORS = {
    "G1": partial(GlobalGenerator, ngf=4, n_downsample=1, n_blocks=1),
    "G1, zeros": partial(GlobalGenerator, ngf=4, n_downsample=2, n_blocks=1, pad_mode="zero"),
    "G1, replicated": partial(GlobalGenerator, ngf=4, n_downsample=1, n_blocks=1, pad_mode="replicate"),
    "G2": partial(LocalEnhancer, ngf=2, n_downsample=1, n_blocks=1, n_blocks_local=1),
    "two enhancers": partial(LocalEnhancer, ngf=2, n_downsample=1, n_blocks=1, n_enhancers=2, n_blocks_local=0),
    "U-Net": partial(UNetGenerator, ngf=4, n_downs=3, norm="instance", dropout_levels=()),
    "U-Net by batch": partial(UNetGenerator, ngf=4, n_downs=2, dropout_levels=()),
    "ResNet": partial(ResNetGenerator, ngf=4, n_blocks=1, norm="instance", dropout=False),
    "CRN": partial(CascadedRefinement, out_channels=3, widths=(8, 8, 4)),
    "one module": partial(CascadedRefinement, out_channels=3, widths=(4,)),
}
DISCRIMINATORS = {
    "D": partial(MultiscaleDiscriminator, ndf=4, n_layers=1, n_scales=3),
    "D of pix2pix": partial(MultiscaleDiscriminator, ndf=4, n_layers=2, n_scales=1, norm="batch", padding=1),
}
CASES = [(name, 0) for name in GENERATORS] + [
    (name, FEATURES) for name in GENERATORS if name not in ("CRN", "one module")
]
FIRST = {
    "G1": ["trunk.stem"], "G2": ["coarse.stem", "enhancers.0.stem"], "U-Net": ["downs.0"], "ResNet": ["stem"],
    "CRN": [f"levels.{k}.conv1" for k in range(3)], "D": [f"scales.{k}.convs.0" for k in range(3)],
}  # fmt: skip
SIZES = {"whole": (16, 24), "padded": (13, 18)}
BACKENDS = {"eager": torch.float64, "cpu": torch.float32}


def weighed(outputs):
    flat = torch.cat([t.flatten() for t in torch.utils._pytree.tree_leaves(outputs)])
    return (flat * torch.linspace(-1, 1, flat.numel(), dtype=flat.dtype)).sum(), flat.detach()


def gradients(network, outputs, *further):
    """All outputs in a row, and the gradients of all weights, for a loss that weighs every element."""
    loss, flat = weighed(outputs)
    wanted = [*network.parameters(), *further]
    grads = torch.autograd.grad(loss, wanted, allow_unused=True)
    return [flat, *(g for g in grads if g is not None)]


def assert_near(found, expected, dtype):
    """By the norm of a whole tensor, which in float32 is that of many sums in another order."""
    assert len(found) == len(expected) > 4
    bound = {torch.float64: 1e-10, torch.float32: 1e-4}[dtype]
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.shape == theirs.shape
        assert (ours - theirs).norm() <= bound * theirs.norm() + 1e-12


@pytest.mark.parametrize("format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("on", BACKENDS)
@pytest.mark.parametrize(("name", "features"), CASES)
def test_generators(name, features, on, size, format):
    torch.manual_seed(0)
    dtype = BACKENDS[on]
    network = GENERATORS[name](PLANES + features).to(dtype, memory_format=format)
    planes, dense, given = inputs(SIZES[size], dtype, features, format)
    further = [] if given is None else [given]
    with backend(on):
        found = gradients(network, network(planes), *further)
        expected = gradients(network, network(dense), *further)
    assert_near(found, expected, dtype)
    assert network(planes).is_contiguous(memory_format=format) == network(dense).is_contiguous(memory_format=format)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("on", BACKENDS)
@pytest.mark.parametrize("name", DISCRIMINATORS)
def test_discriminators(name, on, size):
    torch.manual_seed(0)
    dtype = BACKENDS[on]
    network = DISCRIMINATORS[name](PLANES + 3).to(dtype)
    planes, dense, _ = inputs(SIZES[size], dtype)
    image = torch.randn(2, 3, *SIZES[size], dtype=dtype, requires_grad=True)
    with backend(on):
        found = gradients(network, network(image, network.context(planes)), image)
        expected = gradients(network, network(torch.cat([dense, image], dim=1)), image)
    assert_near(found, expected, dtype)


@pytest.mark.parametrize(("dontcare", "ids"), [(2, True), (None, False)])
def test_labels_of_no_class_and_maps_without_instances(dontcare, ids):
    torch.manual_seed(0)
    network = GENERATORS["G2"](N_LABELS + ids)
    planes, dense, _ = inputs((13, 18), torch.float32, dontcare=dontcare, ids=ids)
    assert_near(gradients(network, network(planes)), gradients(network, network(dense)), torch.float32)


CHANGES = {
    "hooked": lambda conv: conv.register_forward_hook(lambda _, __, y: 2 * y),
    "spectral norm": parametrizations.spectral_norm,
    "hooks of spectral norm": nn.utils.spectral_norm,
}


@pytest.mark.parametrize("which", [0, -1], ids=["first", "last"])
@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("name", FIRST)
def test_a_changed_first_convolution_reads_the_dense_tensor(name, change, which):
    torch.manual_seed(0)
    network = (GENERATORS | DISCRIMINATORS)[name](PLANES + 3 * (name == "D"))
    CHANGES[change](network.get_submodule(FIRST[name][which]))
    network.eval()
    planes, dense, _ = inputs((32, 48), torch.float32)
    image = torch.randn(2, 3, 32, 48)
    found, expected = (network(image, network.context(x)) if name == "D" else network(x) for x in (planes, dense))
    assert torch.equal(weighed(found)[1], weighed(expected)[1])


@pytest.mark.parametrize("name", FIRST)
def test_what_took_the_place_of_a_first_convolution_reads_the_dense_tensor(name):
    class Seen(nn.Module):
        def __init__(self, conv):
            super().__init__()
            self.conv = conv

        def forward(self, x):
            shapes.append(x.shape[1])
            return self.conv(x)

    shapes = []
    network = (GENERATORS | DISCRIMINATORS)[name](PLANES + 3 * (name == "D")).double()
    for path in FIRST[name]:
        parent, _, leaf = path.rpartition(".")
        setattr(network.get_submodule(parent), leaf, Seen(network.get_submodule(path)))
    planes, dense, _ = inputs((16, 24), torch.float64)
    image = torch.randn(2, 3, 16, 24, dtype=torch.float64)
    found, expected = (network(image, network.context(x)) if name == "D" else network(x) for x in (planes, dense))
    assert torch.equal(weighed(found)[1], weighed(expected)[1])
    assert len(shapes) == 2 * len(FIRST[name])


@pytest.mark.parametrize("features", [0, FEATURES])
def test_channels_that_are_missing_are_named(features):
    planes, _, _ = inputs((16, 24), torch.float32, features)
    network = GENERATORS["G1"](PLANES + FEATURES + 1)
    with pytest.raises(ValueError, match=f"first convolution: expected 134 channels, got {PLANES + features}"):
        network(planes)


def test_a_discriminator_may_see_features():
    network = DISCRIMINATORS["D"](PLANES + FEATURES + 3).double()
    planes, dense, given = inputs((13, 18), torch.float64, FEATURES)
    image = torch.randn(2, 3, 13, 18, dtype=torch.float64)
    found = gradients(network, network(image, network.context(planes)), given)
    expected = gradients(network, network(torch.cat([dense, image], dim=1)), given)
    assert_near(found, expected, torch.float64)


def test_a_cascade_refuses_features():
    planes, _, _ = inputs((16, 24), torch.float32, FEATURES)
    with pytest.raises(ValueError, match="CascadedRefinement: expected label planes alone"):
        GENERATORS["CRN"](PLANES + FEATURES)(planes)


@pytest.mark.parametrize("name", ["G1", "G2", "U-Net", "ResNet", "CRN", "D"])
def test_autocast(name):
    torch.manual_seed(0)
    network = (GENERATORS | DISCRIMINATORS)[name](PLANES + 3 * (name == "D"))
    planes, dense, _ = inputs((32, 48), torch.float32)
    image = torch.randn(2, 3, 32, 48)

    def run(x):
        return network(image, network.context(x)) if name == "D" else network(x)

    with torch.autocast("cpu", torch.bfloat16):
        both = run(planes), run(dense)
    kinds = [{y.dtype for y in torch.utils._pytree.tree_leaves(outputs)} for outputs in both]
    assert kinds == [{torch.bfloat16}] * 2
    truth = gradients(network, run(dense))
    for ours, theirs, true in zip(*(gradients(network, outputs) for outputs in both), truth, strict=True):
        by_rounding, error = ((x - true).norm() / true.norm() for x in (theirs, ours))
        assert error <= 3 * by_rounding + 0.01


@pytest.mark.parametrize("features", [0, FEATURES])
@pytest.mark.parametrize("name", ["G1", "G2"])
def test_only_the_codes_are_kept(name, features):
    network = GENERATORS[name](PLANES + features)
    planes, dense, _ = inputs((32, 48), torch.float32, features)
    one_hot = dense[:, :PLANES].nbytes
    held = {}
    for enabled in (False, True):
        with recomputing(enabled):
            held[enabled] = [saved_bytes(lambda x=x: network(x), network.parameters()) for x in (planes, dense)]
    kept, instead = held[True]
    assert kept <= instead - one_hot + 2 * planes.planes.codes.nbytes
    assert held[True][0] < held[False][0]


@pytest.mark.parametrize(
    ("name", "features"), [("G1", 0), ("G2", FEATURES), ("ResNet", FEATURES), ("D", 0), ("CRN", 0)]
)
def test_recomputing_gives_the_same_bits(name, features):
    torch.manual_seed(0)
    network = (GENERATORS | DISCRIMINATORS)[name](PLANES + features + 3 * (name == "D"))
    planes, _, _ = inputs((16, 24), torch.float32, features)
    image = torch.randn(2, 3, 16, 24)
    results = []
    for enabled in (False, True):
        with recomputing(enabled):
            y = network(image, network.context(planes)) if name == "D" else network(planes)
        results.append(gradients(network, y))
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(*results, strict=True))


@pytest.mark.parametrize(("name", "features"), [("G2", 0), ("G2", FEATURES), ("U-Net", 0), ("CRN", 0)])
def test_compiles_into_one_graph(name, features):
    torch._dynamo.reset()
    network = GENERATORS[name](PLANES + features)
    compiled = torch.compile(network, fullgraph=True, backend="aot_eager")
    planes, _, _ = inputs((13, 18), torch.float32, features)
    torch.testing.assert_close(compiled(planes), network(planes), rtol=1e-4, atol=1e-5)


def test_a_discriminator_compiles_into_one_graph():
    torch._dynamo.reset()
    network = DISCRIMINATORS["D"](PLANES + 3)
    planes, _, _ = inputs((16, 24), torch.float32)
    image = torch.randn(2, 3, 16, 24)
    run = torch.compile(lambda x: network(image, network.context(x)), fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(run(planes), network(image, network.context(planes)))


def test_gradients_of_samples():
    """Each sample of a batch has a label map and features of its own."""
    network = GENERATORS["G1"](PLANES + FEATURES).double()
    planes, dense, _ = inputs((8, 8), torch.float64, FEATURES)
    weights = {key: p.detach() for key, p in network.named_parameters()}

    def loss(weights, x):
        return torch.func.functional_call(network, weights, (x,)).pow(3).sum()

    def of_codes(weights, codes, features):
        return loss(weights, LabelInput(LabelPlanes(codes[None], N_LABELS, edges=True), features[None]))

    found = torch.func.vmap(torch.func.grad(of_codes), (None, 0, 0))(weights, planes.planes.codes, planes.features)
    for k in range(2):
        expected = torch.func.grad(loss)(weights, dense[k : k + 1])
        for key, gradient in expected.items():
            torch.testing.assert_close(found[key][k], gradient, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("over", ["labels", "features"])
def test_maps_over_one_of_both(over):
    network = GENERATORS["G1"](PLANES + FEATURES)
    planes, _, _ = inputs((8, 8), torch.float32, FEATURES)
    codes, features = planes.planes.codes[:, None], planes.features.detach()[:, None]

    def run(codes, features):
        return network(LabelInput(LabelPlanes(codes, N_LABELS, edges=True), features))

    if over == "labels":
        found = torch.func.vmap(run, (0, None))(codes, features[0])
        expected = [run(codes[k], features[0]) for k in range(2)]
    else:
        found = torch.func.vmap(run, (None, 0))(codes[0], features)
        expected = [run(codes[0], features[k]) for k in range(2)]
    torch.testing.assert_close(found, torch.stack(expected), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["G2", "U-Net"])
def test_exports_from_the_codes(name):
    network = GENERATORS[name](PLANES).eval()
    planes, _, _ = inputs((13, 18), torch.float32)
    with backend("eager"):
        program = torch.export.export(network, (planes,))
    assert "hdgan" not in str(program.graph)
    other = LabelInput(LabelPlanes(planes.planes.codes.flip(2), N_LABELS, edges=True))
    torch.testing.assert_close(program.module()(other), network(other), rtol=1e-4, atol=1e-5)
