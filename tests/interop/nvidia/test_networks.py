import itertools
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from hdgan.errors import CheckpointError
from hdgan.interop.nvidia import layer_names, load_network, to_state_dict
from hdgan.models import FeatureEncoder, GlobalGenerator, LocalEnhancer, MultiscaleDiscriminator

GOLDEN = Path(__file__).with_name("nvidia_global.npz")
"""Made with NVIDIA's GlobalGenerator(9, 3, 6, 2, 2): weights, an input, its output, gradients of sum(y * gy)."""


@pytest.fixture(scope="module")
def golden():
    with np.load(GOLDEN) as file:
        return {key: torch.from_numpy(file[key]) for key in file.files}


def weights_of(golden):
    return {key[2:]: value for key, value in golden.items() if key.startswith("w:")}


def distance(found, expected, scale=None):
    """Largest error relative to the largest value."""
    return ((found - expected).abs().max() / (expected if scale is None else scale).abs().max()).item()


def test_output_and_gradients_equal_nvidia(golden):
    network = load_network(weights_of(golden))
    x = golden["x"].clone().requires_grad_()
    y = network(x)
    (y * golden["gy"]).sum().backward()
    assert distance(y, golden["y"]) < 1e-5
    assert distance(x.grad, golden["gx"]) < 1e-5
    compared = 0
    for theirs, ours in layer_names(network).items():
        layer = network.get_submodule(ours)
        weight_scale = layer.weight.grad
        if f"g:{theirs}.weight" in golden:
            assert distance(layer.weight.grad, golden[f"g:{theirs}.weight"]) < 1e-5, theirs
            compared += 1
        bias = golden[f"g:{theirs}.bias"]
        if layer.bias.grad is None:  # dead: a norm follows, and NVIDIA's gradient is rounding noise
            assert distance(bias, torch.zeros_like(bias), weight_scale) < 1e-5, theirs
        else:
            assert distance(layer.bias.grad, bias, weight_scale) < 1e-5, theirs
    assert compared == 6


def test_golden_round_trip(golden):
    weights = weights_of(golden)
    back = to_state_dict(load_network(weights))
    assert list(back) == list(weights)
    assert all(torch.equal(back[key], weights[key]) for key in weights)


GENERATORS = {
    "global": lambda: GlobalGenerator(9, 3, 4, 2, 2),
    "global, one down, no blocks": lambda: GlobalGenerator(4, 1, 2, 1, 0),
    "global, deep": lambda: GlobalGenerator(3, 3, 2, 4, 5),
    "1 enhancer": lambda: LocalEnhancer(5, 3, 2, 2, 3, 1, 2),
    "1 enhancer, no local blocks": lambda: LocalEnhancer(5, 3, 2, 1, 1, 1, 0),
    "2 enhancers": lambda: LocalEnhancer(36, 3, 2, 3, 1, 2, 3),
    "3 enhancers": lambda: LocalEnhancer(5, 4, 1, 2, 2, 3, 1),
}


def assert_round_trip(network, kind):
    state = to_state_dict(network)
    loaded = load_network(state, kind)
    assert type(loaded) is type(network)
    ours, theirs = network.state_dict(), loaded.state_dict()
    assert list(ours) == list(theirs)
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)
    assert len(state) == len(ours)
    assert list(to_state_dict(loaded)) == list(state)


@pytest.mark.parametrize("name", GENERATORS)
def test_generator_round_trip(name):
    assert_round_trip(GENERATORS[name](), "generator")


@pytest.mark.parametrize("features", [True, False])
@pytest.mark.parametrize(("n_layers", "n_scales"), [(1, 1), (2, 1), (3, 2), (3, 3), (4, 3)])
def test_discriminator_round_trip(n_layers, n_scales, features):
    network = MultiscaleDiscriminator(5, 4, n_layers, n_scales, features)
    assert_round_trip(network, "discriminator")
    assert load_network(to_state_dict(network), "discriminator").intermediate_features is features


def test_encoder_round_trip():
    assert_round_trip(FeatureEncoder(3, 5, 2, 3), "encoder")


def meta(build):
    with torch.device("meta"):
        return build()


@pytest.mark.parametrize(
    ("build", "parameters", "tensors", "first", "last"),
    [
        (lambda: GlobalGenerator(36, 3, 64, 4, 9), 182_546_755, 56, "model.1.weight", "model.38.bias"),
        (lambda: LocalEnhancer(36, 3, 32, 4, 9, 1, 3), 182_857_059, 74, "model.1.weight", "model1_2.7.bias"),
        (
            lambda: MultiscaleDiscriminator(39, 64, 3, 3),
            8_404_803,
            30,
            "scale0_layer0.0.weight",
            "scale2_layer4.0.bias",
        ),
        (lambda: MultiscaleDiscriminator(39, 64, 3, 2, False), 5_603_202, 20, "layer0.0.weight", "layer1.11.bias"),
        (lambda: FeatureEncoder(3, 3, 16, 4), 788_803, 20, "model.1.weight", "model.29.bias"),
    ],
)
def test_counts_and_keys_of_nvidia(build, parameters, tensors, first, last):
    state = to_state_dict(meta(build))
    assert sum(value.numel() for value in state.values()) == parameters
    assert len(state) == tensors
    assert (next(iter(state)), next(reversed(state))) == (first, last)


# The layers with weights in the order of NVIDIA's constructors, as they count them: (A|B) stands for either.
KEYS = {
    "local, 2 enhancers": (
        lambda: LocalEnhancer(36, 3, 2, 3, 4, 2, 3),
        "model.(1|4|7|10) model.(13|14|15|16).conv_block.(1|5) model.(17|20|23) "
        "model1_1.(1|4) model1_2.(0|1|2).conv_block.(1|5) model1_2.(3) "
        "model2_1.(1|4) model2_2.(0|1|2).conv_block.(1|5) model2_2.(3|7)",
    ),
    "discriminator without features": (
        lambda: MultiscaleDiscriminator(39, 4, 3, 2, False),
        "layer0.(0|2|5|8|11) layer1.(0|2|5|8|11)",
    ),
}


@pytest.mark.parametrize("name", KEYS)
def test_all_keys_of_nvidia(name):
    build, patterns = KEYS[name]
    layers = []
    for pattern in patterns.split():
        parts = [part.split("|") for part in re.split(r"[()]", pattern)]
        layers += ["".join(chosen) for chosen in itertools.product(*parts)]
    expected = [f"{layer}.{parameter}" for layer in layers for parameter in ("weight", "bias")]
    assert list(to_state_dict(meta(build))) == expected


def test_finest_discriminator_is_nvidias_last():
    network = MultiscaleDiscriminator(4, 2, 2, 3)
    state = to_state_dict(network)
    assert state["scale2_layer0.0.weight"].data_ptr() == network.scales[0].convs[0].weight.data_ptr()
    assert state["scale0_layer3.0.bias"].data_ptr() == network.scales[2].convs[3].bias.data_ptr()


def test_data_parallel_prefix_and_half_precision():
    network = GlobalGenerator(3, 3, 2, 1, 1).half()
    state = {f"module.{key}": value for key, value in to_state_dict(network).items()}
    loaded = load_network(state)
    assert loaded.head.weight.dtype == torch.float32
    assert torch.equal(loaded.head.weight, network.head.weight.float())


def test_loaded_network_owns_its_memory():
    state = to_state_dict(GlobalGenerator(3, 3, 2, 1, 1))
    before = state["model.1.weight"].clone()
    with torch.no_grad():
        load_network(state).trunk.stem.weight.zero_()
    assert torch.equal(state["model.1.weight"], before)


def test_running_statistics_of_old_instance_norms_are_dropped():
    network = GlobalGenerator(3, 3, 2, 1, 1)
    state = to_state_dict(network)
    old = {**state, "model.2.running_mean": torch.zeros(2), "model.2.running_var": torch.ones(2)}
    assert torch.equal(load_network(old).head.weight, network.head.weight)


def small():
    return to_state_dict(GlobalGenerator(3, 3, 2, 2, 2))


def without(*keys):
    return {key: value for key, value in small().items() if key not in keys}


@pytest.mark.parametrize(
    ("state", "kind", "says"),
    [
        ({**small(), "model.2.weight": torch.ones(2)}, "generator", "batch norms"),
        (
            {**small(), "model.2.weight": torch.ones(2), "model.2.running_mean": torch.ones(2)},
            "generator",
            "batch norms",
        ),
        (to_state_dict(MultiscaleDiscriminator(4, 2, 2, 1)), "generator", "looks like a discriminator"),
        (to_state_dict(MultiscaleDiscriminator(4, 2, 2, 1, False)), "encoder", "looks like a discriminator"),
        (small(), "discriminator", "looks like a generator"),
        (small(), "encoder", "looks like a generator"),
        (to_state_dict(FeatureEncoder(3, 3, 2, 1)), "discriminator", "looks like a generator or encoder"),
        ({**small(), "extra.weight": torch.ones(1, 1)}, "generator", "extra.weight"),
        (
            {**small(), "model.99.weight": torch.ones(2, 2, 3, 3)},
            "generator",
            r"\(1 not part of the architecture: model\.99\.weight\)",
        ),
        (without("model.7.bias"), "generator", "1 missing: model.7.bias"),
        (without("model.4.weight", "model.4.bias"), "generator", "2 missing: model.4.weight, model.4.bias"),
        (without("model.10.conv_block.5.weight"), "generator", r"\(1 missing: model\.10\.conv_block\.5\.weight\)"),
        (without("model.1.weight"), "generator", "model.1.weight, the first convolution, is missing"),
        ({**small(), "model.4.weight": torch.ones(4, 2, 5, 5)}, "generator", r"\(4, 2, 5, 5\) instead of"),
        ({**small(), "model.1.weight": torch.ones(2, 2)}, "generator", "first convolution, has shape"),
        ({}, "generator", "does not contain a network of pix2pixHD"),
        ({"conv.weight": torch.ones(1)}, "generator", "conv.weight"),
    ],
)
def test_bad_state_dicts(state, kind, says):
    with pytest.raises(CheckpointError, match=says):
        load_network(state, kind)


@pytest.mark.parametrize(
    "shapes",
    [
        {"model.1.weight": (4, 3, 7, 7), "model.2.conv_block.1.weight": (4, 4, 3, 3)},
        {"model.1.weight": (4, 3, 7, 7), "model.0.conv_block.1.weight": (1,) * 4},
        {"model.1.weight": (4, 3, 7, 7), "model.999.conv_block.1.weight": (4, 4, 3, 3)},
        {"model.1.weight": (4, 3, 7, 7), "model5_1.1.weight": (4, 3, 7, 7)},
        {"model.1.weight": (0, 3, 7, 7), "model.4.weight": (4, 0, 7, 7)},
        {"scale0_layer0.0.weight": (4, 3, 4, 4), "scale9_layer99.0.weight": (4, 3, 4, 4)},
        {"layer0.0.weight": (4, 3, 4, 4), "layer0.99.weight": (1,) * 4},
    ],
)
@pytest.mark.parametrize("kind", ["generator", "discriminator", "encoder"])
def test_foreign_keys_that_look_alike(shapes, kind):
    with pytest.raises(CheckpointError):
        load_network({key: torch.zeros(shape) for key, shape in shapes.items()}, kind)


def test_error_starts_with_where():
    with pytest.raises(CheckpointError, match=r"^some/file\.pth"):
        load_network({}, where="some/file.pth")


@pytest.mark.parametrize(
    "network",
    [
        GlobalGenerator(3, 3, 2, 1, 1, upsample="resize"),
        LocalEnhancer(3, 3, 2, 1, 1, 1, 1, upsample="resize"),
        GlobalGenerator(3, 3, 2, 1, 1, pad_mode="zero"),
        GlobalGenerator(3, 3, 2, 1, 1, noise=0.3),
        LocalEnhancer(3, 3, 2, 1, 1, 1, 1, noise=0.3),
    ],
)
def test_networks_without_counterpart(network):
    with pytest.raises(CheckpointError, match="train with"):
        to_state_dict(network)
