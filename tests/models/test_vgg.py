import pickle

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

from hdgan.errors import ConfigError
from hdgan.models import VGG19Features, load_vgg19
from hdgan.models.blocks import recomputing
from tests.inference.test_precision import CastsSeen

POSITIONS = (0, 2, 5, 7, 10, 12, 14, 16, 19, 21, 23, 25, 28)
"""Of the convolutions in torchvision's vgg19().features, up to conv5_1."""


@pytest.fixture(scope="module")
def state():
    torch.manual_seed(0)
    return VGG19Features().state_dict()


def test_keys_are_torchvisions(state):
    assert list(state) == [f"features.{i}.{name}" for i in POSITIONS for name in ("weight", "bias")]
    assert state["features.28.weight"].shape == (512, 512, 3, 3)
    assert sum(value.numel() for value in state.values()) == 12_944_960


def test_taps_follow_the_first_relu_of_each_group(state):
    network = VGG19Features()
    network.load_state_dict(state)
    x = torch.randn(1, 3, 32, 32)
    taps, h = [], x
    for i in POSITIONS:
        if i in (5, 10, 19, 28):
            h = F.max_pool2d(h, 2)
        h = F.relu(F.conv2d(h, state[f"features.{i}.weight"], state[f"features.{i}.bias"], padding=1))
        if i in (0, 5, 10, 19, 28):
            taps.append(h)
    found = network(x)
    assert [feature.shape[1:] for feature in found] == [
        (64, 32, 32),
        (128, 16, 16),
        (256, 8, 8),
        (512, 4, 4),
        (512, 2, 2),
    ]
    for feature, expected in zip(found, taps, strict=True):
        torch.testing.assert_close(feature, expected)


@pytest.mark.parametrize("pooling", ["max", "avg"])
def test_taps_after_the_second_convolution_of_each_group(pooling):
    network = VGG19Features(convolution=2, pooling=pooling)
    state = network.state_dict()
    positions = (*POSITIONS, 30)
    assert list(state) == [f"features.{i}.{name}" for i in positions for name in ("weight", "bias")]
    taps, h = [], torch.randn(1, 3, 32, 48)
    x = h.clone()
    for i in positions:
        if i in (5, 10, 19, 28):
            h = F.max_pool2d(h, 2) if pooling == "max" else F.avg_pool2d(h, 2)
        h = F.relu(F.conv2d(h, state[f"features.{i}.weight"], state[f"features.{i}.bias"], padding=1))
        if i in (2, 7, 12, 21, 30):
            taps.append(h)
    for feature, expected in zip(network(x), taps, strict=True):
        torch.testing.assert_close(feature, expected)


def test_load_with_other_taps(tmp_path, state):
    path = tmp_path / "vgg.pth"
    further = {"features.30.weight": torch.rand(512, 512, 3, 3), "features.30.bias": torch.rand(512)}
    torch.save({**state, **further}, path)
    network = load_vgg19(path, convolution=2, pooling="avg")
    assert torch.equal(network.features[30].weight, further["features.30.weight"])
    assert not any(isinstance(layer, torch.nn.MaxPool2d) for layer in network.features)
    torch.save(state, path)
    with pytest.raises(ConfigError, match=r"2 missing: features.30.weight, features.30.bias"):
        load_vgg19(path, convolution=2)


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_loads_both_formats_and_freezes(tmp_path, state, suffix):
    path = tmp_path / f"vgg{suffix}"
    whole = {**state, "features.30.weight": torch.zeros(1), "classifier.0.weight": torch.zeros(2, 2)}
    if suffix == ".pth":
        torch.save(whole, path)
    else:
        save_file(whole, path)
    network = load_vgg19(path)
    assert all(torch.equal(network.state_dict()[key], value) for key, value in state.items())
    assert not network.training
    assert not any(p.requires_grad for p in network.parameters())


def test_other_networks_are_refused(tmp_path, state):
    path = tmp_path / "vgg.pth"
    torch.save({key: value for key, value in state.items() if key != "features.28.bias"}, path)
    with pytest.raises(
        ConfigError, match=r"vgg\.pth does not hold torchvision's VGG19 \(1 missing: features.28.bias\)"
    ):
        load_vgg19(path)
    torch.save({**state, "features.0.weight": torch.zeros(64, 1, 3, 3)}, path)
    with pytest.raises(
        ConfigError,
        match=r"with another shape: features.0.weight is \(64, 1, 3, 3\) instead of .*\); download",
    ):
        load_vgg19(path)


def test_missing_file(tmp_path):
    with pytest.raises(ConfigError, match=r"vgg\.pth do not exist: download .*give the file"):
        load_vgg19(tmp_path / "vgg.pth")


class Harmful:
    def __reduce__(self):
        return (print, ("unpickled",))


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("content", [b"", b"<html>404</html>", pickle.dumps(Harmful(), protocol=2)])
def test_unreadable_file(tmp_path, capsys, suffix, content):
    path = tmp_path / f"vgg{suffix}"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=rf"\({len(content)} bytes, SHA-256 .*not a readable weights file"):
        load_vgg19(path)
    assert "unpickled" not in capsys.readouterr().out


def test_failed_download_never_gives_random_weights(monkeypatch):
    def fail(*_, **__):
        raise OSError("no route to host")

    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", fail)
    with pytest.raises(ConfigError, match=r"cannot be downloaded \(no route to host\): download"):
        load_vgg19(None)


def test_download_is_checked(monkeypatch, state):
    asked = {}

    def download(url, **options):
        asked.update(options, url=url)
        return state

    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", download)
    assert torch.equal(load_vgg19(None).features[0].weight, state["features.0.weight"])
    assert asked["check_hash"]
    assert asked["weights_only"]
    assert asked["url"].endswith("vgg19-dcbb9e9d.pth")


def test_weights_that_were_wrapped_or_compiled_are_taken(tmp_path, state):
    path = tmp_path / "vgg.pth"
    torch.save({"state_dict": {f"module._orig_mod.{key}": value for key, value in state.items()}, "epoch": 1}, path)
    found = load_vgg19(path).state_dict()
    assert all(torch.equal(found[key], state[key]) for key in state)


def test_weights_that_are_not_finite_are_refused(tmp_path, state):
    torch.save({**state, "features.7.bias": torch.full((128,), float("nan"))}, tmp_path / "vgg.pth")
    with pytest.raises(ConfigError, match=r"features\.7\.bias contains numbers that are NaN .*; download https"):
        load_vgg19(tmp_path / "vgg.pth")


@pytest.mark.parametrize("recompute", [True, False])
def test_frozen_weights_are_cast_once_to_the_numbers_of_autocast(state, recompute):
    network = VGG19Features().requires_grad_(False)
    network.load_state_dict(state)
    x = torch.randn(1, 3, 32, 32, requires_grad=True)
    results = []
    for cached in (False, True, True):
        if not cached:
            network._casts.of = lambda weight, dtype: weight  # type: ignore[method-assign]
        with torch.autocast("cpu", torch.bfloat16), recomputing(recompute), CastsSeen(torch.bfloat16) as seen:
            taps = network(x)
            gradient = torch.autograd.grad(sum(tap.float().square().mean() for tap in taps), x)[0]
        results.append(([*taps, gradient], sum(len(shape) == 4 and shape[0] > 1 for shape in seen.shapes)))
        network._casts.__dict__.pop("of", None)
    (expected, every_time), (first, once), (second, never) = results
    for found in (first, second):
        assert all(torch.equal(*pair) for pair in zip(found, expected, strict=True))
    assert every_time >= once == len(POSITIONS)
    assert never == 0


def test_weights_that_move_are_cast_again(state):
    network = VGG19Features().requires_grad_(False)
    network.load_state_dict(state)
    x = torch.randn(1, 3, 16, 16)
    with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        first = network(x)
        for parameter in network.parameters():
            parameter.data = 2 * parameter.data
        second = network(x)
    assert not torch.equal(first[0], second[0])
    torch.testing.assert_close(second[0], 2 * first[0])
