"""CUDA graphs of images: which calls run by one, and that it computes what the model does."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from hdgan import ops
from hdgan.families import (
    CRN,
    CRNConfig,
    EncoderConfig,
    GeneratorConfig,
    ImageModel,
    Pix2Pix,
    Pix2PixConfig,
    Pix2PixHD,
    Pix2PixHDConfig,
    UNetConfig,
)
from hdgan.inference import Pipeline, replay
from hdgan.inference.replay import Replay
from hdgan.models.cuda_graph import CaptureError, without_trace

CPU = torch.device("cpu")


@dataclass
class HostGraph:
    """Stands for a graph: runs the function again, and writes over its first result as a graph would."""

    function: Callable[[], Tensor]
    result: Tensor
    replays: int = 0

    def replay(self) -> None:
        self.result.copy_(self.function())
        self.replays += 1


@pytest.fixture
def graphs(monkeypatch: pytest.MonkeyPatch) -> list[HostGraph]:
    """The graphs that were captured, on the CPU."""
    made: list[HostGraph] = []

    def capture(function: Callable[[], Tensor], model: nn.Module, device: torch.device) -> tuple[HostGraph, Tensor]:
        with without_trace(model, device):
            result = torch.full_like(function(), float("nan"))  # a capture computes nothing
        made.append(HostGraph(function, result))
        return made[-1], result

    monkeypatch.setattr(replay, "capture", capture)
    return made


def make() -> tuple[nn.Linear, Replay, Callable[..., Tensor]]:
    model = nn.Linear(3, 3).requires_grad_(False)
    runs = Replay(model, CPU)

    def run(x: Tensor, *options: int) -> Tensor:
        with torch.no_grad():
            found = runs(lambda x, _: model(x), [x, None], *options)
            assert torch.equal(found, model(x))
        return found

    return model, runs, run


def test_the_second_call_of_a_shape_is_captured_and_the_next_are_replayed(graphs: list[HostGraph]) -> None:
    _, _, run = make()
    first = run(torch.randn(2, 3))
    assert graphs == []
    second = run(torch.randn(2, 3))
    kept = second.clone()
    third = run(torch.randn(2, 3))
    assert [graph.replays for graph in graphs] == [2]
    assert not torch.equal(second, third)
    assert torch.equal(second, kept)
    assert first.shape == third.shape


def test_shapes_that_alternate_are_never_captured_but_leave_the_graph(graphs: list[HostGraph]) -> None:
    _, _, run = make()
    for size in (2, 3, 2, 3):
        run(torch.randn(size, 3))
    assert graphs == []
    run(torch.randn(3, 3))
    run(torch.randn(2, 3))
    run(torch.randn(3, 3))
    assert [graph.replays for graph in graphs] == [2]
    for _ in range(2):
        run(torch.randn(4, 3))
    assert [graph.replays for graph in graphs] == [2, 1]


def test_options_dtypes_and_backends_have_graphs_of_their_own(graphs: list[HostGraph]) -> None:
    model, _, run = make()
    x = torch.randn(2, 3)
    for _ in range(2):
        run(x)
    for _ in range(2):
        run(x, 1)
    assert len(graphs) == 2
    with ops.backend("eager"):
        run(x, 1)
        assert graphs[1].replays == 1
    model.double()
    for _ in range(2):
        run(x.double())
    assert len(graphs) == 3


@pytest.mark.parametrize("change", ["in place", "replaced"])
def test_changed_weights_are_captured_again(graphs: list[HostGraph], change: str) -> None:
    model, _, run = make()
    x = torch.randn(2, 3)
    for _ in range(3):
        run(x)
    if change == "in place":
        model.weight.mul_(2)
    else:
        model.weight = nn.Parameter(3 * model.weight, requires_grad=False)
    for _ in range(3):
        run(x)
    assert len(graphs) == 2


def test_hooks_are_called(graphs: list[HostGraph]) -> None:
    model, _, run = make()
    x = torch.randn(2, 3)
    run(x)
    run(x)
    called = []
    hook = model.register_forward_hook(lambda *_: called.append(1))
    run(x)
    hook.remove()
    assert len(called) == 2  # and in the comparison
    assert graphs[0].replays == 1
    run(x)
    assert len(called) == 2


@pytest.mark.parametrize(
    "error", [CaptureError("operation not permitted"), torch.OutOfMemoryError("CUDA out of memory")]
)
def test_what_cannot_be_captured_runs_as_it_is(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    attempts = []

    def capture(*_: Any) -> None:
        attempts.append(1)
        raise error

    monkeypatch.setattr(replay, "capture", capture)
    _, _, run = make()
    run(torch.randn(2, 3))
    with pytest.warns(UserWarning, match=rf"no CUDA graph can hold .* \({error}\).*cuda_graphs=False"):
        run(torch.randn(2, 3))
    for _ in range(2):
        run(torch.randn(2, 3))
    assert len(attempts) == 1


def test_faults_of_the_model_are_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    def capture(*_: Any) -> None:
        raise RuntimeError("shapes do not match")

    monkeypatch.setattr(replay, "capture", capture)
    _, _, run = make()
    run(torch.randn(2, 3))
    with pytest.raises(RuntimeError, match="shapes do not match"):
        run(torch.randn(2, 3))


def test_inference_mode_in_some_calls_only(graphs: list[HostGraph]) -> None:
    _, _, run = make()
    for number in range(5):
        with torch.inference_mode(number in (1, 3)):
            run(torch.randn(2, 3))
    assert [graph.replays for graph in graphs] == [4]


def test_weights_that_were_made_in_inference_mode(graphs: list[HostGraph]) -> None:
    with torch.inference_mode():
        model, _, run = make()
    for number in range(4):
        if number == 3:
            with torch.inference_mode():
                model.weight.mul_(2)
        run(torch.randn(2, 3))
    assert [graph.replays for graph in graphs] == [3]


def small(name: str) -> ImageModel:
    """A model of each kind; the third draws noise."""
    torch.manual_seed(0)
    if name == "crn":
        return CRN(CRNConfig(n_labels=4, n_modules=3, width=1 / 64, n_images=2))
    if name == "pix2pix":
        return Pix2Pix(Pix2PixConfig(n_labels=4, norm="instance", generator=UNetConfig(4, 3)))
    generator = GeneratorConfig(ngf=8, n_downsample=1, n_blocks=1)
    channels = 3 if name == "features" else 0
    encoder = EncoderConfig(nef=2, n_downsample=1)
    return Pix2PixHD(Pix2PixHDConfig(n_labels=4, generator=generator, feature_channels=channels, encoder=encoder))


MODELS = ("pix2pixhd", "features", "crn", "pix2pix")


def calls(pipeline: Pipeline, name: str) -> list[Tensor]:
    """Images of maps of one shape, then of another one, and of two variants where there are any."""
    generator = torch.Generator().manual_seed(1)
    found = []
    for side in (32, 32, 32, 48, 32, 48, 48):
        label = torch.randint(4, (side, 64), generator=generator)
        ids = torch.randint(20, (side, 64), generator=generator)
        photo = torch.rand(3, side, 64, generator=generator) * 2 - 1 if name == "features" else None
        for variant in (0, 1) if name in ("crn", "pix2pix") else (0,):
            found += [pipeline(label, ids, photo=photo, seed=3, variant=variant) for _ in range(2)]
    return found


@pytest.mark.parametrize("name", MODELS)
def test_a_pipeline_replays_what_it_computes(graphs: list[HostGraph], name: str) -> None:
    plain, replaying = (Pipeline(small(name)) for _ in range(2))
    assert plain._replay is None  # a CPU has no graphs
    replaying._replay = Replay(replaying.model, CPU)
    for found, expected in zip(calls(replaying, name), calls(plain, name), strict=True):
        assert torch.equal(found, expected)
    assert sum(graph.replays for graph in graphs) >= 4


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("name", MODELS)
def test_a_graph_makes_the_images_of_the_model(name: str, precision: Any) -> None:
    device = torch.device("cuda", 0)
    plain, replaying = (
        Pipeline(small(name), device=device, precision=precision, cuda_graphs=graphs) for graphs in (False, True)
    )
    assert plain._replay is None
    for found, expected in zip(calls(replaying, name), calls(plain, name), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3 if precision == "float32" else 3e-2)
    assert replaying._replay is not None
    assert replaying._replay._graph is not None
