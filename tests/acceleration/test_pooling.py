"""Instance-wise average pooling that a forward computes in a loop."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from hdgan.acceleration import accelerate
from tests.acceleration.networks import assert_same, image, results


class Encoder(nn.Module):
    """Averages over instances one by one, as NVIDIA's encoder does.

    Args:
        fault: what is different from the mean over each instance.
    """

    def __init__(self, fault: str = "") -> None:
        super().__init__()
        self.other = nn.Conv2d(3, 2, 1)
        self.body = nn.Sequential(nn.Conv2d(3, 2, 3, padding=1), nn.InstanceNorm2d(2), nn.LeakyReLU(0.2))
        self.fault = fault

    def forward(self, x: Tensor, ids: Tensor) -> Tensor:
        y = self.body(x)
        means = y.clone()
        if self.fault == "batch":
            for i in ids.unique().tolist():
                inside = (ids == i).expand_as(y)
                total = (y * inside).sum((0, 2, 3), keepdim=True) / inside[:, 0].sum()
                means = torch.where(inside, total, means)
            return means
        for b in range(len(x)):
            for i in ids[b].unique().tolist():
                inside = ids[b].squeeze(0) == i
                if self.fault == "images" and b > 0:
                    inside = (ids[b - 1].squeeze(0) == i) & inside
                if (self.fault == "large" and i > 20) or (self.fault == "thousand" and i >= 1000):
                    continue
                if inside.any():
                    value = y[b][:, inside].mean(1, keepdim=True)
                    means[b][:, inside] = value.detach() if self.fault == "gradient" else value
        return means


def ids(*shape: int) -> Tensor:
    return torch.randint(0, 3, shape or (2, 1, 12, 10), generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("dtype", [torch.int64, torch.int32, torch.uint8])
def test_it_is_found_by_its_results(dtype: torch.dtype) -> None:
    module = Encoder()
    expected = [results(module, image(), given) for given in (ids().to(dtype), ids().to(dtype) + 7)]
    report = accelerate(module, (image(), ids().to(dtype)))
    assert {row.where: row.what for row in report.replaced} == {
        "": "instance-wise average pooling of body",
        "body.1": "instance norm + LeakyReLU",
    }
    assert report.kept == []
    for given, value in zip((ids(), ids() + 7), expected, strict=True):
        assert_same(results(module, image(), given.to(dtype)), value)


@pytest.mark.parametrize("fault", ["images", "large", "gradient"])
def test_what_resembles_pooling_but_differs_is_kept(fault: str) -> None:
    module = Encoder(fault)
    expected = results(module, image(), ids() + 19)
    report = accelerate(module, (image(), ids()))
    assert report.modules == ["body"]
    assert [row.where for row in report.kept] == [""]
    assert_same(results(module, image(), ids() + 19), expected)


@pytest.mark.parametrize(("fault", "shift"), [("batch", 0), ("thousand", 1000)])
def test_an_example_of_one_image_with_few_ids_does_not_hide_a_difference(fault: str, shift: int) -> None:
    module = Encoder(fault)
    expected = results(module, image(), ids() + shift)
    report = accelerate(module, (image(1, 3, 12, 10), ids(1, 1, 12, 10)))
    assert report.modules == ["body"]
    assert_same(results(module, image(), ids() + shift), expected)


def test_maps_without_a_channel() -> None:
    module = Encoder()
    expected = results(module, image(), ids(2, 12, 10))
    assert accelerate(module, (image(), ids(2, 12, 10))).modules == ["", "body"]
    assert_same(results(module, image(), ids(2, 12, 10)), expected)


def test_a_flag_that_changes_later() -> None:
    module = Encoder()
    accelerate(module, (image(), ids()))
    module.fault = "large"
    original = Encoder("large")
    original.load_state_dict(module.state_dict())
    assert_same(results(module, image(), ids() + 20), results(original, image(), ids() + 20))


def test_a_forward_of_the_class_that_is_replaced_later(monkeypatch: pytest.MonkeyPatch) -> None:
    module = Encoder()
    accelerate(module, (image(), ids()))
    monkeypatch.setattr(Encoder, "forward", lambda self, x, ids: x * 2)
    assert torch.equal(module(image(), ids()), image() * 2)


def test_a_forward_that_somebody_replaced_is_not_taken_for_pooling() -> None:
    module = Encoder()
    module.forward = lambda x, ids: module.body(x) * 2  # type: ignore[method-assign]
    report = accelerate(module, (image(), ids()))
    assert report.modules == ["body"]


def test_without_an_example_it_is_kept() -> None:
    report = accelerate(Encoder())
    assert report.modules == ["body"]


def test_maps_that_the_op_does_not_take_run_the_original() -> None:
    module = Encoder()
    given: list[Any] = [ids().float(), ids() > 0, ids(2, 1, 6, 10).repeat(1, 1, 2, 1)]
    expected = [results(module, image(), one) for one in given]
    accelerate(module, (image(), ids()))
    for one, value in zip(given, expected, strict=True):
        assert_same(results(module, image(), one), value)
    with pytest.raises(IndexError):
        module(image(), ids(2, 1, 6, 10))  # as the original does
