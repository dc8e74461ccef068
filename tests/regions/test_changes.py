"""After a change of the maps, a region has the pixels of a whole run with the statistics of before."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from hdgan.ops import instance_norm_act
from hdgan.regions import Box, Node, RegionRun, RegionTensor, Source
from hdgan.regions.evaluation import RegionChanges, evaluate
from tests.regions.helpers import Held, run_in


def network(x: Tensor) -> Tensor:
    """Downsampling, a residual block, upsampling and a skip, with norms."""
    generator = torch.Generator().manual_seed(1)
    weights = [torch.randn(6, 6, side, side, generator=generator) / (6 * side * side) ** 0.5 for side in (3, 3, 3, 4)]
    h = instance_norm_act(F.conv2d(x, weights[0], stride=2, padding=1), activation="relu", pad=1)
    y = instance_norm_act(F.conv2d(h, weights[1]), activation="relu", pad=1)
    h = instance_norm_act(F.conv2d(y, weights[2]), residual=h)
    return torch.tanh(F.conv_transpose2d(h, weights[3], stride=2, padding=1) + x)


def _image(pixels: Tensor, run: RegionRun, function: Callable[[Tensor], Tensor] = network) -> tuple[Source, Node]:
    source = Source(Held(pixels), pixels.shape, pixels.dtype)
    made = function(RegionTensor.of(source, run))
    assert isinstance(made, RegionTensor)
    return source, made.node


BOXES = [Box(4, 9, 30, 44), Box(0, 3, 0, 2), Box(50, 64, 60, 80), Box(0, 64, 0, 80)]


@pytest.mark.parametrize("box", BOXES)
@pytest.mark.parametrize("limit", [2**30, 0], ids=["memory", "disk"])
def test_regions_are_those_of_a_whole_run_with_the_same_statistics(limit: int, box: Box) -> None:
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randn(1, 6, 64, 80, generator=generator)
    run = run_in(limit, side=32, keep_features=True)
    source, image = _image(pixels, run)
    changed = pixels.clone()
    changed[..., slice(*box.rows), slice(*box.columns)] += 2
    _, expected = _image(changed, run_in(side=32, given=run.statistics))
    before, after = evaluate(image, image.box), evaluate(expected, expected.box)
    changes = RegionChanges(image)
    source.held = Held(changed)
    changes.add(source, box)
    for asked in (*BOXES, Box(20, 21, 33, 34), Box(10, 60, 10, 70)):
        part = (..., slice(*asked.rows), slice(*asked.columns))
        torch.testing.assert_close(changes.evaluate(asked), after[part], rtol=1e-5, atol=1e-5)
    outside = torch.ones(64, 80, dtype=torch.bool)
    outside[changes.reached.slices(image.box)] = False
    torch.testing.assert_close(before[..., outside], after[..., outside], rtol=1e-5, atol=1e-5)


def test_changes_add_up() -> None:
    pixels = torch.randn(1, 6, 64, 80, generator=torch.Generator().manual_seed(0))
    run = run_in(side=32, keep_features=True)
    source, image = _image(pixels, run)
    changes = RegionChanges(image)
    changed = pixels.clone()
    for place in ((5, 7), (50, 70)):
        changed[..., place[0], place[1]] = 3
        changes.add(source, Box(place[0], place[0] + 1, place[1], place[1] + 1))
    source.held = Held(changed)
    _, expected = _image(changed, run_in(side=32, given=run.statistics))
    torch.testing.assert_close(changes.evaluate(image.box), evaluate(expected, expected.box), rtol=1e-5, atol=1e-5)


def test_far_features_are_not_computed_again(monkeypatch: pytest.MonkeyPatch) -> None:
    areas: list[int] = []
    compute = F.conv2d

    def counted(x: Tensor, *args: object, **kwargs: object) -> Tensor:
        areas.append(x.shape[2] * x.shape[3])
        return compute(x, *args, **kwargs)  # type: ignore[arg-type]

    def last_norm(x: Tensor) -> Tensor:
        return instance_norm_act(F.conv2d(x, torch.ones(6, 6, 3, 3), padding=1))

    pixels = torch.randn(1, 6, 256, 256)
    run = run_in(side=256, keep_features=True)
    source, image = _image(pixels, run, last_norm)
    changes = RegionChanges(image)
    changes.add(source, Box(100, 104, 100, 104))
    source.held = Held(pixels + 1)
    monkeypatch.setattr(F, "conv2d", counted)
    changes.evaluate(Box(90, 120, 90, 120))
    assert areas == [8 * 8], "the six pixels a side that the change reaches, with what they read"
