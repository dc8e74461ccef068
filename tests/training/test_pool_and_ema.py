"""The pool of generated images and the moving average."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from hdgan.checkpoints import find_checkpoint
from hdgan.families import Pix2PixHD
from hdgan.families.common.pool import FakePool
from hdgan.families.saving import load_model
from hdgan.training.ema import MovingAverage


def test_a_full_pool_returns_old_pictures_half_the_time_and_keeps_the_new_ones() -> None:
    torch.manual_seed(0)
    pool = FakePool(4)
    filling = torch.arange(4.0).view(4, 1, 1, 1)
    assert torch.equal(pool.query(filling), filling)
    old = 0
    for value in range(4, 404):
        picture = torch.full((1, 1, 1, 1), float(value))
        returned = pool.query(picture)
        held = {float(p) for p in pool.images}
        if returned.item() != value:
            old += 1
            assert value in held
            assert returned.item() not in held
        assert len(held) == 4
    assert 150 < old < 250


def test_a_pool_empties_when_the_size_of_pictures_changes() -> None:
    pool = FakePool(2)
    pool.query(torch.zeros(2, 1, 4, 4))
    assert torch.equal(pool.query(torch.ones(1, 1, 8, 8)), torch.ones(1, 1, 8, 8))
    assert [tuple(p.shape) for p in pool.images] == [(1, 8, 8)]


def test_a_pool_goes_on_from_its_state() -> None:
    pool, other = FakePool(2), FakePool(2)
    pool.query(torch.rand(2, 1, 2, 2))
    other.load(pool.state(), torch.device("cpu"))
    new = torch.rand(4, 1, 2, 2)
    torch.manual_seed(3)
    expected = pool.query(new)
    torch.manual_seed(3)
    assert torch.equal(other.query(new), expected)


@pytest.fixture
def model(run: Path) -> Pix2PixHD:
    return load_model(find_checkpoint(run))[0]


def test_the_average_follows_its_formula(model: Pix2PixHD) -> None:
    average = MovingAverage(model, decay=0.3)
    expected = {name: value.double() for name, value in model.state_dict().items()}
    for step in range(6):
        with torch.no_grad():
            for parameter in model.parameters():
                parameter += 0.1 * (step + 1)
        average.update(step)
        decay = min(0.3, (1 + step) / (10 + step))
        expected = {
            name: decay * value + (1 - decay) * model.state_dict()[name].double() for name, value in expected.items()
        }
    for name, value in average.state_dict().items():
        torch.testing.assert_close(value.double(), expected[name], rtol=1e-5, atol=1e-6)
    assert not any(name.startswith("discriminator.") for name in average.state_dict())
    assert not any(p.requires_grad for p in average.model.parameters())


def test_the_average_starts_anew_from_the_weights_of_the_moment(model: Pix2PixHD) -> None:
    average = MovingAverage(model, decay=0.9)
    with torch.no_grad():
        model.generator.head.weight.add_(1)
    assert not torch.equal(average.model.generator.head.weight, model.generator.head.weight)
    average.reset()
    assert torch.equal(average.model.generator.head.weight, model.generator.head.weight)
    assert average.model.generator.head.weight.data_ptr() != model.generator.head.weight.data_ptr()


def test_a_pool_does_not_hold_the_batch_of_its_pictures() -> None:
    pool = FakePool(1)
    pool.query(torch.zeros(8, 2, 3, 3))
    assert pool.images[0].untyped_storage().nbytes() == pool.images[0].nbytes


def test_the_average_has_the_memory_format_of_the_model(model: Pix2PixHD) -> None:
    source = model.to(memory_format=torch.channels_last)
    average = MovingAverage(source, 0.9)
    assert average.model.discriminator is None
    strides = {name: parameter.stride() for name, parameter in source.named_parameters()}
    assert all(strides[name] == parameter.stride() for name, parameter in average.model.named_parameters())
