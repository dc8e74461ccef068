"""`pytest benchmarks`: every op against eager PyTorch and torch.compile, at the shapes that pix2pixHD has.

    pytest benchmarks                        on the CPU
    pytest benchmarks --device cuda          on a GPU
    pytest benchmarks -k instance_norm_act   one op

Every contestant is compared with eager PyTorch in float32 before it is timed. What is printed at the end are medians of
this run; ratios hold within a run only.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from hdgan.ops._backend import why_unusable

ROUNDS = {"cpu": 9, "cuda": 50}
FORMATS = {"NCHW": torch.contiguous_format, "NHWC": torch.channels_last}
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 5e-2, torch.float16: 1e-2}


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("hdgan")
    group.addoption("--device", default="cpu", choices=["cpu", "cuda"])
    group.addoption("--dtype", default="float32", choices=list(DTYPES))
    group.addoption("--no-compile", action="store_true", help="leave torch.compile out")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "contestant" not in metafunc.fixturenames:
        return
    backends = ["cpu"] if metafunc.config.getoption("--device") == "cpu" else ["cuda", "triton"]
    missing = [reason for name in backends if (reason := why_unusable(name))]
    if missing:
        raise pytest.UsageError(f"nothing to measure: {missing[0]}")
    compiled = [] if metafunc.config.getoption("--no-compile") else ["compile"]
    metafunc.parametrize("contestant", ["eager", *compiled, *backends])


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out, and count, what is too large for a CPU."""
    if config.getoption("--device") == "cpu":
        left_out = [item for item in items if item.get_closest_marker("gpu")]
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]


@pytest.fixture
def device(request: pytest.FixtureRequest) -> str:
    return str(request.config.getoption("--device"))


@pytest.fixture
def dtype(request: pytest.FixtureRequest) -> torch.dtype:
    return DTYPES[request.config.getoption("--dtype")]


@pytest.fixture
def measure(benchmark: Any, device: str, contestant: str, request: pytest.FixtureRequest) -> Callable[..., None]:
    """Check one contestant and time it.

    The returned function takes the op as a function of (backend, *inputs), the inputs, and the upstream gradients for
    forward + backward, or None for forward alone.
    """

    def run(op: Callable[..., Any], inputs: Sequence[Tensor], upstream: Sequence[Tensor] | None) -> None:
        benchmark.group = request.node.name.replace(f"{contestant}-", "").replace(f"-{contestant}", "")
        backend = "eager" if contestant == "compile" else contestant

        def call(*tensors: Tensor) -> Any:
            return op(backend, *tensors)

        torch._dynamo.reset()  # or the compiler would count the shapes of other rows against its limit, and give up
        function = torch.compile(call, fullgraph=True, dynamic=False) if contestant == "compile" else call
        timed = forward_and_backward(function, inputs, upstream)
        truth = forward_and_backward(lambda *t: op("eager", *t), [wide(t) for t in inputs], upstream)()
        compare(
            timed(),
            truth,
            max((t.dtype for t in inputs if t.is_floating_point()), key=lambda d: TOLERANCE[d], default=torch.float32),
        )

        def round() -> None:
            timed()
            if device == "cuda":
                torch.cuda.synchronize()

        benchmark.pedantic(round, rounds=ROUNDS[device], warmup_rounds=2)

    return run


def wide(t: Tensor) -> Tensor:
    return t.float() if t.is_floating_point() else t


def forward_and_backward(
    function: Callable[..., Any], inputs: Sequence[Tensor], upstream: Sequence[Tensor] | None
) -> Callable[[], list[Tensor]]:
    """A function of nothing that runs `function` and, with upstream gradients, its backward pass."""

    def outputs_of(result: Any) -> list[Tensor]:
        return [result] if isinstance(result, Tensor) else list(result)

    if upstream is None:
        return lambda: outputs_of(function(*inputs))
    leaves = [t.detach().requires_grad_() if t.is_floating_point() else t for t in inputs]

    def both() -> list[Tensor]:
        outputs = outputs_of(function(*leaves))
        wanted = [t for t in leaves if t.requires_grad]
        grads = [g.to(y.dtype) for g, y in zip(upstream, outputs, strict=True)]
        return [*outputs, *torch.autograd.grad(outputs, wanted, grads)]

    return both


def compare(found: Sequence[Tensor], truth: Sequence[Tensor], dtype: torch.dtype) -> None:
    tolerance = TOLERANCE[dtype]
    for ours, theirs in zip(found, truth, strict=True):
        torch.testing.assert_close(ours.detach().float(), theirs.detach().float(), rtol=tolerance, atol=tolerance)


def pytest_terminal_summary(terminalreporter: Any) -> None:
    session = getattr(terminalreporter.config, "_benchmarksession", None)
    groups: dict[str, dict[str, float]] = {}
    for bench in getattr(session, "benchmarks", []):
        if bench.stats and bench.params:
            groups.setdefault(bench.group, {})[bench.params["contestant"]] = bench.stats.median
    if not groups:
        return
    terminalreporter.section("speed-up, by medians")
    for group, medians in groups.items():
        ours = {name: value for name, value in medians.items() if name not in ("eager", "compile")}
        for name, median in ours.items():
            ratios = [f"{medians[base] / median:5.1f}x {base}" for base in ("eager", "compile") if base in medians]
            terminalreporter.write_line(f"{group:70} {name:6} {median * 1e3:9.2f} ms  {'  '.join(ratios)}")
