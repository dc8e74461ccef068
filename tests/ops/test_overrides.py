"""Only classes that ask for ops get them; others see PyTorch's operators, as test_register.py shows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from hdgan.ops import _overrides, avg_pyramid, boundary_map, instance_norm_act, label_conv2d, label_planes
from hdgan.ops._overrides import takes_ops


class Asked(Tensor):
    """Says which function it was called for."""

    @classmethod
    def __torch_function__(
        cls, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        return func, len(args), sorted(kwargs or {})


@pytest.fixture(autouse=True)
def _asked(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(_overrides, "_classes", _overrides._classes)
    takes_ops(Asked)
    return


IMAGE, MAP = torch.ones(1, 2, 8, 8).as_subclass(Asked), torch.ones(1, 8, 8, dtype=torch.long).as_subclass(Asked)
WEIGHT = torch.ones(4, 3, 3, 3)


@pytest.mark.parametrize(
    ("call", "function", "options"),
    [
        (lambda: instance_norm_act(IMAGE, pad=1), instance_norm_act, "pad"),
        (lambda: instance_norm_act(torch.ones(1, 2, 8, 8), residual=IMAGE), instance_norm_act, "eps"),
        (lambda: avg_pyramid(IMAGE, 2), avg_pyramid, "backend"),
        (lambda: label_planes(MAP, None, 3), label_planes, "dontcare"),
        (lambda: boundary_map(MAP), boundary_map, None),
        (lambda: label_conv2d(MAP, None, WEIGHT), label_conv2d, "window"),
    ],
)
def test_a_class_that_asks_gets_the_op(call: Callable[[], Any], function: Any, options: str | None) -> None:
    called, _, named = call()
    assert called is function
    assert options is None or options in named


def test_without_such_a_class_ops_compute() -> None:
    assert isinstance(avg_pyramid(torch.ones(1, 2, 8, 8), 1)[1], Tensor)
