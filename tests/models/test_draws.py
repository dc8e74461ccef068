"""Numbers that follow from a seed."""

from __future__ import annotations

import math

import pytest
import torch

from hdgan.models.draws import PRIME, Draws, ImageDraws, SeededDraws, _mixed, drawing_from, draws

LIKE = torch.zeros(1)
KNOWN = [1480806216, 355516276, 221084822]
"""The first numbers of seed 0."""


def test_rounds_are_permutations() -> None:
    assert PRIME < 2**31
    assert all(PRIME % k for k in range(2, math.isqrt(PRIME) + 1))
    assert PRIME % 3 == 2  # so that 3 and PRIME - 1 have no common divisor, and cubing can be undone
    few = torch.arange(10**6)
    assert len(_mixed(few, PRIME - 1).unique()) == len(few)
    assert _mixed(torch.tensor([PRIME - 1]), PRIME - 1).item() == pow(2 * PRIME - 2, 3, PRIME)


def test_noise_is_normal_and_independent() -> None:
    source = SeededDraws(torch.tensor([0, 1, 2**62, -1]))
    planes = torch.cat([source.normal((4, 1, 256, 256), LIKE) for _ in range(2)]).flatten(1).double()
    n = planes.shape[1]
    assert planes.mean(1).abs().max() < 5 / n**0.5
    assert (planes.var(1) - 1).abs().max() < 5 * (2 / n) ** 0.5
    assert ((planes**4).mean(1) - 3).abs().max() < 5 * (96 / n) ** 0.5
    others = torch.corrcoef(planes) - torch.eye(8, dtype=torch.double)
    assert others.abs().max() < 5 / n**0.5
    plane = planes.view(8, 256, 256)
    for shift in ((0, 1), (1, 0), (1, 1), (0, 2), (5, 3)):
        moved = plane.roll(shift, (1, 2))
        assert (plane * moved).mean((1, 2)).abs().max() < 5 / n**0.5
        assert ((plane**2 - 1) * (moved**2 - 1)).mean((1, 2)).abs().max() < 10 / n**0.5
    spectrum = torch.fft.rfft2(plane).abs().square() / n
    assert spectrum.max() < 2 * math.log(spectrum.numel())


def test_a_seed_is_a_picture() -> None:
    first, again = (SeededDraws(torch.tensor([3, 4])).normal((2, 1, 8, 8), LIKE) for _ in range(2))
    assert torch.equal(first, again)
    alone = SeededDraws(torch.tensor([4])).normal((1, 1, 8, 8), LIKE)
    assert torch.equal(alone[0], first[1])
    # Known numbers: files that were exported with an earlier version make the same pictures.
    numbers = SeededDraws(torch.tensor([0]))._numbers((1, 1, 1, 3)).flatten().tolist()
    assert numbers == KNOWN


def test_dropout_drops_half() -> None:
    x = torch.ones(2, 8, 64, 64)
    dropped = SeededDraws(torch.tensor([0, 1])).dropout(x)
    assert dropped.unique().tolist() == [0, 2]
    assert (dropped.mean((2, 3)) - 1).abs().max() < 5 / 64
    assert abs(float((dropped[0] * dropped[1]).mean()) - 1) < 0.05
    torch.manual_seed(0)
    assert Draws().dropout(x).unique().tolist() == [0, 2]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_networks_draw_from_the_source_of_the_block(dtype: torch.dtype) -> None:
    source = SeededDraws(torch.tensor([0]))
    assert type(draws()) is Draws
    with drawing_from(source):
        assert draws() is source
        assert draws().normal((1, 1, 2, 2), torch.zeros(1, dtype=dtype)).dtype == dtype
    assert type(draws()) is Draws


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_an_image_of_a_batch_gets_the_numbers_that_it_gets_alone(memory_format: torch.memory_format) -> None:
    h = torch.randn(3, 8, 9, 7).to(memory_format=memory_format)
    alone = []
    for number, image in enumerate(h.split(1)):
        torch.manual_seed(number)
        alone.append((Draws().normal((1, 1, 9, 7), image), Draws().dropout(image), Draws().normal((1, 2, 9, 7), image)))
    state = torch.random.get_rng_state()
    source = ImageDraws([torch.Generator().manual_seed(number) for number in range(3)])
    drawn = source.normal((3, 1, 9, 7), h), source.dropout(h), source.normal((3, 2, 9, 7), h)
    for ours, theirs in zip(drawn, map(torch.cat, zip(*alone, strict=True)), strict=True):
        assert torch.equal(ours, theirs)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert source.normal((3, 1, 2, 2), h.double()).dtype == torch.float64
    with pytest.raises(ValueError, match="zip"):
        source.dropout(h[:2])
