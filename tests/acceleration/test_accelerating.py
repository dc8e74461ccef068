"""hdgan.accelerate as a whole: what stays, what it refuses, and what it leaves behind."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import hdgan
from hdgan.acceleration import ParityError, accelerate, undo
from tests.acceleration.networks import Block, Generator, Written, assert_same, image, results


def test_the_module_stays_itself() -> None:
    network = Generator()
    original = type(network)
    parts, state = dict(network.named_modules()), {name: id(p) for name, p in network.named_parameters()}
    names = list(network.state_dict())
    hdgan.accelerate(network, image())
    assert type(network) is not original
    assert isinstance(network, original)
    assert type(network).__name__ == "Generator"
    assert type(network).__module__ == original.__module__
    assert list(network.state_dict()) == names
    assert {name: id(p) for name, p in network.named_parameters()} == state
    assert all(network.get_submodule(name) is part for name, part in parts.items())


def test_training_goes_on_as_before() -> None:
    networks = [Generator().double() for _ in range(2)]
    networks[1].load_state_dict(networks[0].state_dict())
    optimizers = [torch.optim.Adam(network.parameters(), 1e-2) for network in networks]
    accelerate(networks[1], image(dtype=torch.float64))
    for step in range(3):
        for network, optimizer in zip(networks, optimizers, strict=True):
            optimizer.zero_grad()
            network(image(seed=step, dtype=torch.float64)).square().mean().backward()
            optimizer.step()
    dead = ("body.1.bias", "body.5.bias", "stem.0.bias")  # Adam makes steps of their rounding errors
    for (name, one), other in zip(networks[0].named_parameters(), networks[1].parameters(), strict=True):
        if not name.endswith(dead):
            torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-6)


class Stateful(Generator):
    """Everything that a comparison could leave changed."""

    def __init__(self) -> None:
        super().__init__()
        self.batch = nn.BatchNorm2d(3)
        self.drop = nn.Dropout(0.5)
        self.seen: list[int] = []

    def forward(self, x: Tensor) -> Tensor:
        self.seen.append(len(self.seen))
        self.last_input = x
        return super().forward(self.drop(self.batch(x)))


def test_a_comparison_leaves_no_trace() -> None:
    network = Stateful()
    network.stem.eval()
    network.last.weight.requires_grad_(False)
    network.last.bias.grad = torch.ones(3)
    flags = [part.training for part in network.modules()]
    state = {name: x.clone() for name, x in network.state_dict().items()}
    generators = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    x = image().requires_grad_()
    report = accelerate(network, x)
    assert len(report.comparisons or []) == 4
    assert [part.training for part in network.modules()] == flags
    assert all(torch.equal(state[name], x) for name, x in network.state_dict().items())
    assert torch.equal(network.last.bias.grad, torch.ones(3))
    assert all(p.grad is None for name, p in network.named_parameters() if name != "last.bias")
    assert not network.last.weight.requires_grad
    assert torch.equal(torch.get_rng_state(), generators[0])
    assert np.array_equal(np.random.get_state()[1], generators[1])  # noqa: NPY002
    assert network.seen == []
    assert not hasattr(network, "last_input")
    assert x.grad is None


def test_noise_is_the_same_on_both_sides() -> None:
    noisy = Written(lambda m, x: m.act(m.norm(m.conv(x))) + torch.randn_like(m.conv(x)))
    report = accelerate(noisy, image())
    assert [comparison.passed for comparison in report.comparisons or []] == [True] * 4


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_dtypes_and_memory_formats(dtype: torch.dtype, memory_format: torch.memory_format) -> None:
    network = Generator(8).to(dtype=dtype, memory_format=memory_format)
    report = accelerate(network, image(2, 3, 24, 20, dtype=dtype).to(memory_format=memory_format))
    assert len(report.replaced) == 5
    assert {comparison.dtype for comparison in report.comparisons or []} == {torch.float64, dtype}


def test_examples_of_every_kind() -> None:
    class Two(Written):
        def forward(self, x: Tensor, y: Tensor) -> Tensor:  # type: ignore[override]
            return self.act(self.norm(self.conv(x))) + y

    x, y = image(), image(2, 4, 12, 10)
    for example in ((x, y), {"x": x, "y": y}, {"y": y, "x": x}):
        module = Two(torch.relu)
        expected = module(x, y)
        assert [row.what for row in accelerate(module, example).replaced] == ["instance norm + ReLU + residual"]
        torch.testing.assert_close(module(x, y), expected)
        torch.testing.assert_close(module(y=y, x=x), expected)


def test_a_second_call_changes_nothing() -> None:
    network = Generator()
    accelerate(network)
    kind = type(network)
    report = accelerate(network, image())
    assert type(network) is kind
    assert "accelerated already" in str(report)
    assert "no example was given" not in str(report)
    outer = nn.Sequential(network, nn.Conv2d(3, 3, 1))
    assert [row.why for row in accelerate(outer).kept] == ["is accelerated already"]


def test_undo() -> None:
    network = nn.Sequential(Generator(), nn.InstanceNorm2d(3))
    kinds = [type(part) for part in network.modules()]
    accelerate(network)
    undo(network)
    assert [type(part) for part in network.modules()] == kinds


def test_parts_named_in_skip_are_left() -> None:
    network = Generator()
    report = accelerate(network, image(), skip=["blocks.0"])
    assert not any(row.where.startswith("blocks.0") for row in report.replaced)
    assert [(row.where, row.why) for row in report.kept] == [("blocks.0", "is named in skip")]


@pytest.mark.parametrize("name", ["stem.1", "stem.2", "blocks.0.body.0"])
def test_a_layer_in_skip_is_called_as_it_is(name: str) -> None:
    network = Generator()
    calls: list[str] = []
    layer = type(network.get_submodule(name))
    report = accelerate(network, image(), skip=[name])
    assert not any(row.where == name for row in report.replaced)
    assert [(row.where, row.why) for row in report.kept] == [(name, "is named in skip")]
    network.get_submodule(name).register_forward_hook(lambda *_: calls.append(name))
    assert type(network.get_submodule(name)) is layer
    network(image())
    assert calls == [name]


def test_an_example_whose_results_are_rounding_errors_proves_nothing() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 1), nn.InstanceNorm2d(4), nn.ReLU())
    with pytest.raises(ParityError, match="rounding errors; give another example"):
        accelerate(network, torch.zeros(1, 3, 8, 8))
    assert type(network) is nn.Sequential


def test_the_report_is_a_table() -> None:
    text = str(accelerate(nn.Sequential(Generator(), nn.InstanceNorm2d(3, track_running_stats=True)), image()))
    lines = text.splitlines()
    assert lines[0] == "Sequential: 5 replacements, 1 kept"
    assert "  0.blocks.0.body.6  instance norm + residual + reflect padding 1" in lines
    assert "  1  instance norm: keeps running statistics" in lines
    assert sum(" allowed" in line for line in lines) == 4
    lines = str(accelerate(Stateful())).splitlines()
    assert [line for line in lines if line.startswith("  Stateful")] == [
        "  Stateful  its forward sets an attribute (last_input); its parts are looked at one by one"
    ]
    assert "no example was given" in str(accelerate(Generator()))


def test_nothing_to_replace() -> None:
    network = nn.Sequential(nn.Conv2d(3, 3, 1))
    report = accelerate(network, image())
    assert type(network) is nn.Sequential
    assert (list(report.replaced), report.comparisons) == ([], [])


@pytest.fixture
def wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    """An op that is off by a thousandth."""
    from hdgan.acceleration import calls

    right = calls.normalised
    monkeypatch.setattr(calls, "normalised", lambda *args, **options: right(*args, **options) * 1.001)


@pytest.mark.usefixtures("wrong")
def test_a_difference_leaves_the_module_as_it_was() -> None:
    network = Generator()
    kinds = {name: type(part) for name, part in network.named_modules()}
    expected = network(image())
    message = r"^accelerate: Generator was left as it was, because .* would differ \(train, float64: .*e-0[1-4] of"
    with pytest.raises(ParityError, match=message):
        accelerate(network, image())
    assert {name: type(part) for name, part in network.named_modules()} == kinds
    assert torch.equal(network(image()), expected)


with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)
    SCRIPTED = torch.jit.script(nn.Conv2d(3, 3, 1))


@pytest.mark.usefixtures("wrong")
def test_a_difference_leaves_parts_that_were_accelerated_before() -> None:
    network = nn.Sequential(Generator(), nn.InstanceNorm2d(3))
    accelerate(network[0])
    kinds = [type(part) for part in network.modules()]
    with pytest.raises(ParityError):
        accelerate(network, image())
    assert [type(part) for part in network.modules()] == kinds
    assert kinds[1] is not Generator


def test_a_part_that_two_graphs_could_contain() -> None:
    shared = Block(3)

    class Either(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = shared

        def forward(self, x: Tensor) -> Tensor:
            return self.inner(x) if x.shape[2] > 3 else x

    for network in (nn.Sequential(shared, Either()), nn.Sequential(Either(), shared)):
        expected = network(image())
        report = accelerate(network, image())
        assert type(network)._hdgan_program.versions[0].is_for(network, (image(),))
        assert report.modules == [""]
        torch.testing.assert_close(network(image()), expected, rtol=1e-5, atol=1e-5)
        undo(network)


def test_inside_of_no_grad_and_inference_mode() -> None:
    for context in (torch.no_grad(), torch.inference_mode()):
        with context:
            report = accelerate(Generator(), image())
        assert [(comparison.passed, comparison.note) for comparison in report.comparisons or []] == [(True, "")] * 4


BAD: dict[str, tuple[Any, dict[str, Any], type[Exception], str]] = {
    "no module": (torch.relu, {}, TypeError, "expected an nn.Module, got builtin_function_or_method"),
    "scripted": (SCRIPTED, {}, ValueError, "accelerate the network that it was made of"),
    "compiled": (torch.compile(nn.Conv2d(3, 3, 1)), {}, ValueError, "first and compile it then"),
    "example": (Generator(), {"example": [image()]}, TypeError, "dict of keyword arguments, got list"),
    "channels": (Generator(), {"example": image(1, 5, 8, 8)}, ValueError, "Generator does not take this example: "),
    "argument": (Generator(), {"example": {"z": image()}}, ValueError, "does not take this example: .*'z'"),
    "skip": (Generator(), {"skip": ["stem", "stump"]}, ValueError, "Generator has no part named 'stump'"),
    "no skip": (Generator(), {"skip": None}, TypeError, "sequence of names, got None"),
    "no values": (Generator(), {"example": image().to("meta")}, ValueError, "an example with values"),
    "skip as text": (Generator(), {"skip": "stem"}, TypeError, "sequence of names, got 'stem'"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input(name: str) -> None:
    module, options, kind, message = BAD[name]
    with pytest.raises(kind, match=message) as error:
        accelerate(module, **options)
    assert "\n" not in str(error.value)


def test_wrapped_parts() -> None:
    inner = Generator()
    report = accelerate(nn.Sequential(nn.DataParallel(inner), torch.compile(Generator())))
    assert report.modules == ["0.module"]
    assert [row.why for row in report.kept] == ["is compiled already"]


def test_checkpoint_wrappers_stay() -> None:
    from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper

    network = nn.Sequential(checkpoint_wrapper(Block(3)), nn.InstanceNorm2d(3), nn.ReLU())
    expected = results(network, image())
    report = accelerate(network)
    assert report.modules == ["", "0._checkpoint_wrapped_module"]
    assert_same(results(network, image()), expected)


def test_gradient_checkpoints_and_autocast_around_it() -> None:
    from torch.utils.checkpoint import checkpoint

    network = Generator()
    expected = results(network, image())
    accelerate(network)

    class Around(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = network

        def forward(self, x: Tensor) -> Any:
            return checkpoint(self.inner, x, use_reentrant=False)

    assert_same(results(Around(), image()), expected)
    with torch.autocast("cpu", torch.bfloat16):
        y = network(image())
    assert y.dtype == torch.bfloat16
    torch.testing.assert_close(y.double(), expected[0], rtol=0.1, atol=0.1)
