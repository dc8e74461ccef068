"""Noise that is drawn in parts is that of one draw."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from hdgan.models.draws import Draws
from hdgan.regions import Box, RegionTensor, Source, draws
from hdgan.regions.draws import RegionDraws
from hdgan.regions.evaluation import evaluate
from tests.regions.helpers import Held, run_in


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("size", [(50, 33), (64, 16), (33, 1), (17, 3), (3, 5), (16, 1000)])
@pytest.mark.parametrize("part", [16, 600, 2**24])
def test_noise_is_that_of_one_draw(
    part: int, size: tuple[int, int], dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(draws, "_PART", part)
    like = torch.empty(1, 7, *size, dtype=dtype)
    torch.manual_seed(3)
    expected = [Draws().normal((1, 1, *size), like) for _ in range(2)]
    torch.manual_seed(3)
    source = RegionDraws(run_in(0, tmp_path))
    for plane in expected:
        made = source.normal((1, 1, *size), like)
        assert isinstance(made, RegionTensor)
        assert torch.equal(evaluate(made.node, Box.whole(*size)), plane)


def test_dropout_is_that_of_one_draw() -> None:
    h = torch.randn(1, 6, 9, 11).contiguous(memory_format=torch.channels_last)
    torch.manual_seed(3)
    expected = Draws().dropout(h)
    torch.manual_seed(3)
    run = run_in()
    made = RegionDraws(run).dropout(RegionTensor.of(Source(Held(h), h.shape, h.dtype), run))
    assert isinstance(made, RegionTensor)
    torch.testing.assert_close(evaluate(made.node, Box.whole(9, 11)), expected)
