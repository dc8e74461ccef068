"""What every op is checked for: closeness to a float64 truth, and that PyTorch's compilers understand it."""

from collections.abc import Sequence

import torch

from tests.ops.backends import HAS_GPU

TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-5, torch.float16: 2e-3, torch.bfloat16: 1.6e-2}
"""Relative and absolute, for results and gradients of order 1, on every backend."""
DTYPES = [torch.float32, torch.bfloat16, torch.float16]
FORMATS = [torch.contiguous_format, torch.channels_last]


def is_interpreted(backend: str) -> bool:
    """Whether it is Triton's interpreter, which takes seconds for what a GPU does at once."""
    return backend == "triton" and not HAS_GPU


def dtypes_of(backend: str, turn: int, among: Sequence[torch.dtype] = DTYPES) -> Sequence[torch.dtype]:
    """The dtypes in which a case is tested: all, but in the interpreter only the one whose turn it is."""
    return [among[turn % len(among)]] if is_interpreted(backend) else among


def assert_near(found, truth, dtype=None):
    """Compare with a truth in float64, within the tolerance of the dtype that was computed in."""
    tolerance = TOLERANCE[dtype or found.dtype]
    torch.testing.assert_close(found.cpu().double(), truth.cpu().double(), rtol=tolerance, atol=tolerance)


def outputs_and_gradients(function, inputs, upstream):
    """Run function(*inputs) and backward with `upstream` cast to what came out.

    Returns:
        The outputs, and the gradients of the inputs that are floating point.
    """
    inputs = [x.detach().clone(memory_format=torch.preserve_format) for x in inputs]
    for x in inputs:
        x.requires_grad_(x.is_floating_point())
    found = function(*inputs)
    outputs = [found] if isinstance(found, torch.Tensor) else list(found)
    torch.autograd.backward(outputs, [g.to(y) for g, y in zip(upstream, outputs, strict=True)])
    return [y.detach() for y in outputs], [x.grad for x in inputs if x.requires_grad]


def assert_compiles(function, *inputs, dynamic, grows=True):
    """Trace forward and backward into one graph each and compare with running directly, in both memory formats.

    With `dynamic` also on five times the rows, by the same graph, unless the function is for this size alone. Rows and
    their halves then stay odd or even, to which PyTorch 2.11 specialises avg_pool2d's gradient.
    """
    torch._dynamo.reset()
    compiles = []

    def count(graph, examples):
        compiles.append(graph)
        return torch._dynamo.lookup_backend("aot_eager")(graph, examples)

    compiled = torch.compile(function, fullgraph=True, dynamic=dynamic, backend=count)
    taller = [torch.cat([x] * 5, 2) if x.dim() == 4 else x for x in inputs]
    assert_same_results(compiled, function, inputs)
    before = len(compiles)
    assert before >= 1
    if dynamic and grows:
        assert_same_results(compiled, function, taller)
    assert len(compiles) == before
    assert_same_results(
        compiled, function, [x.to(memory_format=torch.channels_last) if x.dim() == 4 else x for x in inputs]
    )


def assert_same_results(found, expected, inputs):
    results = []
    for run in (found, expected):
        leaves = [x.detach().clone().requires_grad_(x.is_floating_point()) for x in inputs]
        y = run(*leaves)
        (y if isinstance(y, torch.Tensor) else sum(part.sum() for part in y)).sum().backward()
        results.append([y, *(x.grad for x in leaves if x.requires_grad)])
    torch.testing.assert_close(results[0], results[1])
