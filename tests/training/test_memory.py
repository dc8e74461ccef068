"""What is kept for backward, counted by hand."""

from __future__ import annotations

import gc

import torch
from torch import nn

from hdgan.models import GlobalGenerator
from hdgan.models.blocks import recomputing
from hdgan.ops import instance_norm_act
from hdgan.training.memory import saved_by_layer, saved_bytes
from hdgan.training.peak_memory import PeakMeter


def test_an_elementwise_function_keeps_its_output() -> None:
    x = torch.randn(3, 5, requires_grad=True)
    assert saved_bytes(lambda: torch.tanh(x)) == 15 * 4
    assert saved_bytes(lambda: x * 2) == 0
    with torch.no_grad():
        assert saved_bytes(lambda: torch.tanh(x)) == 0


def test_parameters_and_given_tensors_do_not_count() -> None:
    layer, x = nn.Linear(4, 6), torch.randn(2, 4)
    assert saved_bytes(lambda: layer(x), exclude=layer.parameters()) == 2 * 4 * 4
    assert saved_bytes(lambda: layer(x), exclude=[x, *layer.parameters()]) == 0


def test_a_storage_counts_once_and_whole() -> None:
    x = torch.randn(8, 8, requires_grad=True)
    kept = torch.tanh(x).detach()

    def twice() -> torch.Tensor:
        return (x * kept).sum() + (x[:2] * kept[:2]).sum()

    assert saved_bytes(twice) == 8 * 8 * 4


def test_what_is_freed_before_backward_does_not_count() -> None:
    x = torch.randn(1, 2, 4, 4, requires_grad=True)

    def forgets() -> torch.Tensor:
        torch.tanh(x)
        nn.functional.relu(x.clone(), inplace=True)
        return torch.sigmoid(x)

    assert saved_bytes(forgets) == 32 * 4


def test_backward_is_as_without_counting() -> None:
    x = torch.randn(1, 2, 4, 4, requires_grad=True)
    grads = []

    def both() -> torch.Tensor:
        y = torch.tanh(instance_norm_act(x, activation="relu", pad=1)).square().sum()
        grads.append(torch.autograd.grad(y, x)[0])
        return y

    saved_bytes(both)
    both()
    assert torch.equal(*grads)


def test_the_norm_keeps_its_input_and_two_numbers_a_plane() -> None:
    x = torch.randn(1, 3, 8, 8, requires_grad=True)
    fused = saved_bytes(lambda: instance_norm_act(x, activation="relu", pad=1, backend="cpu"))
    assert fused == (3 * 8 * 8 + 2 * 3) * 4
    plain = nn.Sequential(nn.InstanceNorm2d(3), nn.ReLU(True), nn.ReflectionPad2d(1))
    assert saved_bytes(lambda: plain(x)) > 2 * 3 * 8 * 8 * 4


def test_layers_are_named_in_the_order_of_the_pass() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Sequential(nn.ReLU(), nn.Conv2d(4, 5, 3)), nn.Tanh())
    x = torch.randn(1, 3, 8, 8)
    layers = saved_by_layer(lambda: model(x).sum(), model, exclude=[x])
    assert [(layer.layer, layer.bytes) for layer in layers] == [("1.0", 4 * 6 * 6 * 4), ("2", 5 * 4 * 4 * 4)]
    assert layers[0].shapes == ((1, 4, 6, 6),)
    assert sum(layer.bytes for layer in layers) == saved_bytes(lambda: model(x).sum(), [x, *model.parameters()])


def test_looking_changes_nothing() -> None:
    call = nn.Module.__call__
    network = GlobalGenerator(3, ngf=2, n_downsample=1, n_blocks=1)
    with recomputing():
        layers = saved_by_layer(lambda: network(torch.ones(1, 3, 8, 8)), network)
        unseen = saved_bytes(lambda: network(torch.ones(1, 3, 8, 8)), network.parameters())
    assert sum(layer.bytes for layer in layers) == unseen
    assert {layer.layer for layer in layers} == {"", "trunk", "trunk.blocks.0"}
    assert nn.Module.__call__ is call


def test_other_modules_count_for_the_one_that_runs_them() -> None:
    inner = nn.Tanh()
    model = nn.Sequential(nn.Identity())
    model[0].register_forward_hook(lambda _, __, y: inner(y))
    (layer,) = saved_by_layer(lambda: model(torch.zeros(3, requires_grad=True)), model)
    assert (layer.layer, layer.bytes) == ("0", 12)


def test_peak_and_what_is_freed() -> None:
    with PeakMeter() as meter:
        a = torch.zeros(100)
        b = a + 1
        assert meter.now == meter.peak == 800
        del a
        view = b[:10]
        assert meter.now == 400
        del b
        assert meter.now == 400
        del view
        gc.collect()
        assert meter.now == 0
    assert meter.peak == 800


def test_views_of_what_was_there_before_do_not_count() -> None:
    layer = nn.Linear(8, 16)
    x = torch.randn(10, 8)
    with PeakMeter() as meter:
        y = layer(x)
        assert meter.now == y.nbytes == 640
    torch.zeros(1000)
    assert meter.now == 640
    del y
    assert meter.now == 0
