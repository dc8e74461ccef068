"""Hooks that are added and parts that are exchanged after a network was accelerated."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from hdgan.acceleration import accelerate
from tests.acceleration.networks import Generator, Written, assert_accelerated, assert_same, image, results


def hooked(network: nn.Module, name: str) -> list[str]:
    calls: list[str] = []
    network.get_submodule(name).register_forward_hook(lambda *_: calls.append(name))
    return calls


HOOKED = ["", "stem", "stem.1", "stem.2", "blocks.0", "blocks.0.body", "blocks.1.body.0", "blocks.1.body.6", "last"]


@pytest.mark.parametrize("name", HOOKED)
@pytest.mark.parametrize("first", [True, False])
def test_hooks_run(name: str, first: bool) -> None:
    network = Generator()
    expected = results(network, image())
    calls = hooked(network, name) if first else []
    report = accelerate(network)
    calls = calls if first else hooked(network, name)
    assert_same(results(network, image()), expected)
    network(image())
    assert len(calls) > 0
    if first and name == "stem.1":
        assert [row.where for row in report.kept] == ["stem.1"]


def test_a_part_that_is_compiled_later_is_called(monkeypatch: pytest.MonkeyPatch) -> None:
    network = Generator()
    accelerate(network)
    calls: list[str] = []
    monkeypatch.setattr(network.stem, "_compiled_call_impl", lambda x: calls.append("stem") or x)
    with pytest.raises(RuntimeError, match="channels"):
        network(image())
    assert calls == ["stem"]


def test_parts_added_later_are_run() -> None:
    network = Generator()
    accelerate(network)
    network.stem.append(nn.Tanh())
    network.blocks[0].body.append(nn.Tanh())
    expected = Generator()
    expected.stem.append(nn.Tanh())
    expected.blocks[0].body.append(nn.Tanh())
    expected.load_state_dict(network.state_dict())
    assert_same(results(network, image()), results(expected, image()))


def test_another_padding_is_run() -> None:
    networks = [Generator() for _ in range(2)]
    networks[1].load_state_dict(networks[0].state_dict())
    accelerate(networks[0])
    for network in networks:
        network.blocks[1].body[0] = nn.Sequential(nn.CircularPad2d(1), nn.Tanh())
    assert_same(results(networks[0], image()), results(networks[1], image()))
    networks[0].blocks[1].body[0] = nn.ReflectionPad2d(2)
    with pytest.raises(RuntimeError, match="must match the size"):
        networks[0](image())


def test_a_forward_that_somebody_replaced_is_called() -> None:
    network = Generator()
    network.blocks[0].forward = lambda x: x * 2  # type: ignore[method-assign]
    report = assert_accelerated(network, image())
    assert [(row.where, row.why) for row in report.kept] == [
        ("blocks.0", "its forward was replaced by another function; its parts are looked at one by one")
    ]


def test_spectral_norm_stays() -> None:
    network = Generator()
    nn.utils.spectral_norm(network.stem[0])
    nn.utils.parametrizations.spectral_norm(network.last)
    network.eval()
    report = assert_accelerated(network, image())
    assert len(report.replaced) == 5


def shared_act() -> nn.Module:
    act = nn.ReLU()
    return nn.Sequential(
        *(nn.Conv2d(3, 4, 3), nn.InstanceNorm2d(4), act, nn.Conv2d(4, 4, 3), nn.InstanceNorm2d(4), act)
    )


@pytest.mark.parametrize("place", [2, 5])
def test_one_of_the_places_of_a_shared_layer_is_exchanged(place: int) -> None:
    networks: list[Any] = [shared_act() for _ in range(2)]
    networks[1].load_state_dict(networks[0].state_dict())
    accelerate(networks[0])
    for network in networks:
        network[place] = nn.Sigmoid()
    assert_same(results(networks[0], image()), results(networks[1], image()))


def test_one_of_the_names_of_a_shared_parameter_is_exchanged() -> None:
    module = Written(lambda m, x: m.act(m.norm(m.conv(x))) * m.gain + m.offset)
    module.gain = module.offset = nn.Parameter(torch.ones(()))
    assert assert_accelerated(module, image()).modules == [""]
    expected = module(image()) + 2
    module.offset = nn.Parameter(torch.full((), 3.0))
    torch.testing.assert_close(module(image()), expected)


def test_a_parameter_that_is_taken_away() -> None:
    module = Written(lambda m, x: m.act(m.norm(m.conv(x))) * (2 if m.gain is None else 1))
    module.gain = nn.Parameter(torch.ones(()))
    accelerate(module)
    expected = 2 * module(image())
    module.gain = None
    torch.testing.assert_close(module(image()), expected)


def in_a_list(m: Any, x: Tensor) -> Tensor:
    y = m.act(m.norm(m.conv(x)))
    for layer in m.extra:
        y = layer(y)
    return y


def in_a_dict(m: Any, x: Tensor) -> Tensor:
    y = m.act(m.norm(m.conv(x)))
    return m.extra["last"](y) if "last" in m.extra else y


def in_a_sequence(m: Any, x: Tensor) -> Tensor:
    return m.extra(m.act(m.norm(m.conv(x))))


def with_parameters(m: Any, x: Tensor) -> Tensor:
    y = m.act(m.norm(m.conv(x)))
    for gain in m.extra:
        y = y * gain
    return y


GROWING: dict[str, tuple[Any, Any, Any]] = {
    "list": (in_a_list, nn.ModuleList, lambda extra: extra.append(nn.Sigmoid())),
    "dict": (in_a_dict, nn.ModuleDict, lambda extra: extra.update({"last": nn.Sigmoid()})),
    "sequence": (in_a_sequence, nn.Sequential, lambda extra: extra.append(nn.Sigmoid())),
    "parameters": (with_parameters, nn.ParameterList, lambda extra: extra.append(nn.Parameter(torch.ones(1) * 3))),
}


@pytest.mark.parametrize("name", GROWING)
def test_containers_that_were_empty(name: str) -> None:
    function, container, grow = GROWING[name]
    networks = [Written(function, extra=container()) for _ in range(2)]
    networks[1].load_state_dict(networks[0].state_dict())
    assert assert_accelerated(networks[0], image()).modules == [""]
    for network in networks:
        grow(network.extra)
    assert_same(results(networks[0], image()), results(networks[1], image()))


def shifted(x: Tensor) -> Tensor:
    return x + 1


class Parted(nn.Module):
    """A forward that calls methods of its own and of its bases, and functions."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.part = nn.Conv2d(3, 3, 3), nn.InstanceNorm2d(3), Inner()

    def encode(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(x))

    def forward(self, x: Tensor) -> Tensor:
        return shifted(self.part(self.encode(x)))


class Inner(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.InstanceNorm2d(3)

    def scaled(self, x: Tensor) -> Tensor:
        return x * 2

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.scaled(self.norm(x)))


class Derived(Parted):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * 3


def sine(*arguments: Any) -> Tensor:
    return torch.sin(arguments[-1])


METHODS: dict[str, Any] = {
    "method of an instance": lambda m, patch: patch.setattr(m, "encode", sine, raising=False),
    "method of a part": lambda m, patch: patch.setattr(m.part, "scaled", sine),
    "forward of an instance": lambda m, patch: patch.setattr(m, "forward", sine),
    "forward of a part": lambda m, patch: patch.setattr(m.part, "forward", sine),
    "method of a class": lambda m, patch: patch.setattr(Parted, "encode", sine),
    "method of the class of a part": lambda m, patch: patch.setattr(Inner, "scaled", sine),
    "forward of a class": lambda m, patch: patch.setattr(Derived, "forward", sine),
    "forward of a base": lambda m, patch: patch.setattr(Parted, "forward", sine),
    "forward of the class of a part": lambda m, patch: patch.setattr(Inner, "forward", sine),
    "method that covers that of a base": lambda m, patch: patch.setattr(Derived, "encode", sine, raising=False),
    "forward of a layer's class": lambda m, patch: patch.setattr(nn.InstanceNorm2d, "forward", sine, raising=False),
    "function": lambda m, patch: patch.setitem(globals(), "shifted", sine),
}


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
def test_code_that_is_replaced_later_is_run(name: str, duplicate: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    accelerated, original = Derived(), Derived()
    original.load_state_dict(accelerated.state_dict())
    assert assert_accelerated(accelerated, image()).modules == [""]
    accelerated = duplicate(accelerated)
    before = accelerated(image())
    assert type(accelerated)._hdgan_program.versions[0].is_for(accelerated, (image(),))  # type: ignore[attr-defined]
    for module in (accelerated, original):
        METHODS[name](module, monkeypatch)
    assert torch.equal(accelerated(image()), original(image()))
    assert not torch.equal(accelerated(image()), before)


def test_a_norm_alone_whose_class_is_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    norm = nn.InstanceNorm2d(3)
    accelerate(norm)
    monkeypatch.setattr(nn.InstanceNorm2d, "forward", sine, raising=False)
    assert torch.equal(norm(image()), image().sin())
