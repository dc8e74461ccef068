"""The benchmarks: what they cost, and that plain modules and NVIDIA's order of the step compute what ours do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from hdgan import ops
from hdgan.benchmarks import foreign
from hdgan.benchmarks.cases import (
    BENCHMARKS,
    accelerate,
    avg_pyramid,
    data_loading,
    instance_norm_act,
    instance_norm_act_3d,
    step,
)
from hdgan.benchmarks.cases.networks import count_flops
from hdgan.benchmarks.cases.step import StepCase, build_original_step, build_step
from hdgan.benchmarks.plain import plain
from hdgan.benchmarks.reference import build_reference
from hdgan.benchmarks.runner import BOTH, GRAPH, Context, Cost, check
from hdgan.benchmarks.shapes import NormCase
from hdgan.benchmarks.suite import Case, Selection, Suite
from hdgan.errors import ConfigError, DataError
from hdgan.models import FeatureEncoder, GlobalGenerator, LocalEnhancer, MultiscaleDiscriminator
from hdgan.ops import _backend, instance_index
from hdgan.training.memory import saved_bytes

CPU = torch.device("cpu")
OPS = [path.stem for path in Path(ops.__file__).parent.glob("[!_]*.py")]


def test_every_op_has_a_benchmark() -> None:
    assert set(OPS) <= set(BENCHMARKS)


@pytest.mark.parametrize(
    "network",
    [
        GlobalGenerator(3, ngf=4, n_downsample=2, n_blocks=2),
        LocalEnhancer(3, ngf=4, n_downsample=1, n_blocks=1, n_enhancers=2, n_blocks_local=1),
        MultiscaleDiscriminator(3, ndf=4, n_layers=2, n_scales=2),
        FeatureEncoder(3, 3, 4, 2),
    ],
    ids=lambda network: type(network).__name__,
)
def test_plain_networks_equal_ours(network: nn.Module) -> None:
    x = torch.randn(1, 3, 32, 32)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.normal_(0, 0.3)
        fixed = [instance_index(torch.arange(4).repeat(1, 32, 8))] if isinstance(network, FeatureEncoder) else []
        ours, theirs = network(x, *fixed), plain(network)(x, *fixed)
    torch.testing.assert_close(theirs, ours, rtol=1e-4, atol=1e-4)


def test_bytes_and_operations_counted_by_hand() -> None:
    case = NormCase(2, 3, 4, "relu", 1, residual=True)
    forward, backward = instance_norm_act.cost(case, torch.bfloat16)
    # x and residual of 24 elements, y of 2 * 5 * 6 = 60; backward dy, x, dx and the residual's gradient.
    assert forward == Cost((24 + 24 + 60) * 2, 24 * 8)
    assert backward == Cost((60 + 24 + 24 + 24) * 2, 24 * 10)
    # 5x7 -> 3x4 -> 2x2
    assert avg_pyramid.cost((1, 3, 5, 7), 4) == (Cost(3 * (35 + 12 + 4) * 4, 3 * 16 * 9),) * 2


@pytest.mark.parametrize("name", ["instance_mean", "instance_index", "encode_labels", "avg_pyramid", "l1_distance"])
def test_implementations_of_an_op_agree(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """At a size that takes no time."""
    small = dict.fromkeys(("1024x512", "2048x1024"), (16, 32))
    for module in ("avg_pyramid", "encode_labels", "instance_mean", "instance_index", "l1_distance"):
        monkeypatch.setattr(f"hdgan.benchmarks.cases.{module}.SIZES", small)
    benchmark = BENCHMARKS[name]
    implementations = tuple(name for name in ("eager", "cpu", "scatter") if name in benchmark.implementations)
    for layout in ("NCHW", "NHWC"):
        trials = list(
            benchmark.setup(next(iter(benchmark.cases)), Context(CPU, torch.bfloat16, layout, implementations))
        )
        assert {trial.implementation for trial in trials} == set(implementations)
        for trial in trials:
            check(trial)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_implementations_of_the_norm_of_volumes_agree(
    layout: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(instance_norm_act_3d.CASES, "small", (2, 3, 4, 5, 6))
    implementations = ("eager", "cpu")
    trials = list(instance_norm_act_3d.BENCHMARK.setup("small", Context(CPU, dtype, layout, implementations)))
    assert [trial.implementation for trial in trials if trial.direction == "both"] == list(implementations)
    for trial in trials:
        check(trial)


def test_an_accelerated_network_can_be_compiled_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    """On the compiler's own operators, which takes less time than its C++ code."""
    monkeypatch.setattr(accelerate, "SIDE", 32)
    small = accelerate.ForeignCase(lambda: foreign.MonaiDiscriminator(3, 4, n_layers=1), photo=True)
    monkeypatch.setitem(accelerate.CASES, "small", small)
    made = []

    def compiled(network: nn.Module, implementation: str) -> Any:
        made.append((implementation, type(network) is foreign.MonaiDiscriminator))
        return torch.compile(network, fullgraph=True, backend="aot_eager")

    monkeypatch.setattr(accelerate, "compiled", compiled)
    trials = list(accelerate.setup("small", Context(CPU, implementations=("eager", "compile", BOTH, "cpu"))))
    assert made == [("compile", True), (BOTH, False)]
    for trial in trials:
        check(trial)


def test_operations_of_a_network_counted_by_hand() -> None:
    network = MultiscaleDiscriminator(3, ndf=4, n_layers=1, n_scales=1)
    # 4x4 convolutions of padding 2: 16x16 -> 9x9 (stride 2), 10x10, 11x11.
    macs = 16 * (3 * 4 * 81 + 4 * 8 * 100 + 8 * 121)
    assert count_flops(network, [torch.randn(1, 3, 16, 16)]) == 2 * macs


@pytest.mark.slow
def test_both_orders_of_the_step_have_the_same_gradients() -> None:
    case = StepCase(64, 64, ngf=4, n_scales=2)
    format = torch.contiguous_format
    ours = build_step(case, CPU, torch.float32, format)
    with ops.backend("eager"):
        original = build_original_step(case, CPU, torch.float32, format)
        for found, truth in zip(ours.gradients(), original.gradients(), strict=True):
            assert (found - truth).norm() < 5e-3 * truth.norm()
        theirs = saved_bytes(original.forward, original.resident)
    assert 0 < saved_bytes(ours.forward, ours.resident) < theirs
    assert ours.update() == original.update() == []


def test_both_steps_have_the_same_optimizers() -> None:
    case = StepCase(64, 64, ngf=4, n_scales=1)
    steps = [build(case, CPU, torch.float32, torch.contiguous_format) for build in (build_step, build_original_step)]
    for ours, theirs in zip(*(made.optimizers for made in steps), strict=True):
        assert type(ours) is type(theirs)
        assert ours.defaults == theirs.defaults
        assert ours.defaults["fused"]


@pytest.mark.parametrize("implementation", ["eager", "cpu"])
def test_a_step_runs_on_its_own_backend(implementation: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(step.CASES, "small", StepCase(64, 64, ngf=4, n_scales=1))
    case = Case(step.BENCHMARK, "small", Context(CPU))
    chosen = []
    monkeypatch.setattr(_backend, "_choose", lambda *call, of=_backend._choose: chosen.append(of(*call)) or of(*call))
    before = _backend.forced_backend()
    with case.trial(implementation) as trial:
        chosen.clear()
        trial.call()
    assert set(chosen) == {(implementation, None)}
    assert (trial.implementation, trial.direction) == (implementation, "both")
    assert _backend.forced_backend() == before


def test_a_step_that_no_graph_can_hold_has_no_number(monkeypatch: pytest.MonkeyPatch) -> None:
    """And it does not end a run, as other errors of configurations do."""

    class Refused:
        def __init__(self, *arguments: object) -> None: ...

        def __call__(self, batch: object) -> None:
            raise ConfigError("a CUDA graph cannot hold this step")

    monkeypatch.setattr(step, "GraphedGradients", Refused)
    monkeypatch.setitem(step.CASES, "small", StepCase(64, 64, ngf=4, n_scales=1))
    made = Suite(Selection(CPU), [Case(step.BENCHMARK, "small", Context(CPU, implementations=(GRAPH,)))])
    made.run()
    assert not made.rows
    assert {failure.why for failure in made.failures} == {"a CUDA graph cannot hold this step"}


def test_a_step_has_one_cost(monkeypatch: pytest.MonkeyPatch) -> None:
    """That of the implementation that computes least; what is frozen is read once."""
    case = StepCase(64, 64, ngf=4, n_scales=1)
    monkeypatch.setitem(step.CASES, "small", case)
    trials = Case(step.BENCHMARK, "small", Context(CPU, implementations=("eager", "cpu"))).trials()
    (cost,) = {trial.cost for trial in trials}
    counted = []
    for build in (build_step, build_original_step):
        made = build(case, CPU, torch.float32, torch.contiguous_format)
        with ops.backend("eager"), FlopCounterMode(display=False) as counter:  # without look-ups
            made.gradients()
        counted.append(counter.get_total_flops())
    assert cost.flops == counted[0] < counted[1]
    trained = sum(p.nbytes for group in made.optimizers for p in group.param_groups[0]["params"])
    assert cost.bytes == 7 * trained + sum(t.nbytes for t in made.resident) - trained


def test_pictures_are_there_while_their_trial_lasts(monkeypatch: pytest.MonkeyPatch) -> None:
    """As `pytest benchmarks` and `hdgan bench profile` take it, and as a suite does."""
    monkeypatch.setattr(data_loading, "PICTURES", 1)
    case = Case(data_loading.BENCHMARK, "512x256, 0 workers", Context(CPU, implementations=("hdgan",)))
    with case.trial("hdgan") as trial:
        assert check(trial) == 0
    with pytest.raises(DataError):
        trial.call()
    suite = Suite(Selection(CPU, ("data_loading",), only="512x256, 0 workers", seconds=1e-3))
    suite.run()
    assert len(suite.rows) == 1
    assert not suite.failures


def test_the_reference_gets_our_weights(tmp_path: object, monkeypatch: pytest.MonkeyPatch) -> None:
    """By a module that answers as NVIDIA's does; its own code is not here."""
    network = FeatureEncoder(3, 3, 4, 1)
    body = plain(network).body
    built = nn.Module()
    built.model = nn.Sequential(*(_copied(layer) for layer in body))  # type: ignore[union-attr]

    class Networks:
        def Encoder(self, *arguments: object) -> nn.Module:
            assert arguments[:4] == (3, 3, 4, 1)
            return built

    monkeypatch.setattr("hdgan.benchmarks.reference.load_reference", lambda path: Networks())
    theirs = build_reference(tmp_path, network)  # type: ignore[arg-type]
    x = torch.randn(1, 3, 16, 16)
    torch.testing.assert_close(theirs.model(x), body(x))  # type: ignore[operator]


def _copied(layer: nn.Module) -> nn.Module:
    if isinstance(layer, nn.ConvTranspose2d):
        return nn.ConvTranspose2d(layer.in_channels, layer.out_channels, 3, 2, 1, 1)
    if isinstance(layer, nn.Conv2d):
        return nn.Conv2d(layer.in_channels, layer.out_channels, layer.kernel_size, layer.stride, layer.padding)  # type: ignore[arg-type]
    return layer
