"""A run at once that can be computed again by regions."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from hdgan.errors import ConfigError
from hdgan.models.draws import Draws
from hdgan.ops import instance_norm_act
from hdgan.regions import Box
from hdgan.regions.evaluation import RegionChanges
from hdgan.regions.nodes import Padding
from hdgan.regions.recording import HeldPixels, Recorded, RecordedDraws, Recording
from tests.regions.test_changes import BOXES, _image, network, run_in

CPU = torch.device("cpu")


@pytest.fixture
def pixels() -> Tensor:
    return torch.randn(1, 6, 64, 80, generator=torch.Generator().manual_seed(0))


def recorded(pixels: Tensor, run: Recording) -> tuple[Recorded, Recorded]:
    source = Recorded.source(pixels, run)
    made = network(source)
    assert isinstance(made, Recorded)
    return source, made


def test_the_image_has_the_bits_of_any_other_run(pixels: Tensor) -> None:
    _, made = recorded(pixels, Recording(CPU))
    assert torch.equal(made.pixels, network(pixels))


@pytest.mark.parametrize("box", BOXES)
def test_regions_are_those_of_a_whole_run_with_the_same_statistics(box: Box, pixels: Tensor) -> None:
    run = Recording(CPU)
    source, made = recorded(pixels, run)
    changed = pixels.clone()
    changed[..., slice(*box.rows), slice(*box.columns)] += 2
    _, expected = _image(changed, run_in(side=128, given=run.statistics))
    whole = RegionChanges(expected).evaluate(expected.box)
    changes = RegionChanges(made.node)
    source.node.held = HeldPixels(changed)
    changes.add(source.node, box)
    for asked in BOXES:
        part = whole[..., slice(*asked.rows), slice(*asked.columns)]
        torch.testing.assert_close(changes.evaluate(asked), part, rtol=1e-5, atol=1e-5)


def test_what_norms_read_is_kept_and_so_are_sums(pixels: Tensor) -> None:
    run = Recording(CPU)
    x = Recorded.source(pixels, run)
    weight = torch.randn(6, 6, 3, 3)
    y = F.conv2d(x, weight, padding=1)
    z = instance_norm_act(y, residual=x, pad=2)
    assert isinstance(z, Recorded)
    assert isinstance(z.node, Padding)
    (total,) = z.node.inputs
    assert z.node.held is None
    assert y.node.held.read(y.node.box).data_ptr() == y.pixels.data_ptr()
    assert torch.equal(total.held.read(Box(3, 10, 0, 80)), z.pixels[:, :, 5:12, 2:-2])


def test_a_check_ends_the_run(pixels: Tensor) -> None:
    calls = 0

    def check() -> None:
        nonlocal calls
        calls += 1
        if calls == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        recorded(pixels, Recording(CPU, check))
    assert calls == 4


def test_numbers_are_those_of_any_other_run(pixels: Tensor) -> None:
    run = Recording(CPU)
    x = Recorded.source(pixels, run)
    torch.manual_seed(3)
    expected = Draws().normal((1, 1, 64, 80), pixels), Draws().dropout(pixels)
    torch.manual_seed(3)
    draws = RecordedDraws(run)
    for made, number in zip((draws.normal((1, 1, 64, 80), x), draws.dropout(x)), expected, strict=True):
        assert isinstance(made, Recorded)
        assert torch.equal(made.pixels, number)


def test_an_unknown_operation_is_refused(pixels: Tensor) -> None:
    with pytest.raises(ConfigError, match="the network uses roll"):
        torch.roll(Recorded.source(pixels, Recording(CPU)), 1, 3)
