import pytest
import torch

from benchmarks.conftest import FORMATS
from benchmarks.shapes import LARGE_NORM_CASES, NORM_CASES
from hdgan.ops import instance_norm_act


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize(
    "name", [*NORM_CASES, *(pytest.param(name, marks=pytest.mark.gpu) for name in LARGE_NORM_CASES)]
)
def test_forward_backward(measure, device, dtype, contestant, name, format):
    case = (NORM_CASES | LARGE_NORM_CASES)[name]
    shape = (1, case.channels, case.height, case.width)

    def picture(border: int) -> torch.Tensor:
        made = torch.randn(*shape[:2], case.height + 2 * border, case.width + 2 * border, device=device, dtype=dtype)
        return made.to(memory_format=FORMATS[format])

    def op(backend, x, *residual):
        added = residual[0] if residual else None
        return instance_norm_act(x, residual=added, activation=case.activation, pad=case.pad, backend=backend)

    measure(op, [picture(0), *([picture(1)] if case.residual else [])], [picture(case.pad)])
