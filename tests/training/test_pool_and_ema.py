"""The pool of generated images and the moving average."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from hdgan.checkpoints import find_checkpoint
from hdgan.errors import CheckpointError
from hdgan.families import Pix2PixHD, Pix2PixHDConfig
from hdgan.families.common.pool import FakePool
from hdgan.families.saving import load_model
from hdgan.models.inputs import LabelInput, NetworkInput
from hdgan.ops import LabelPlanes, label_planes
from hdgan.training.ema import MovingAverage


def test_a_full_pool_returns_old_pictures_half_the_time_and_keeps_the_new_ones() -> None:
    torch.manual_seed(0)
    pool = FakePool(4)
    filling = torch.arange(4.0).view(4, 1, 1, 1)
    assert torch.equal(pool.query(-filling, filling)[1], filling)
    old = 0
    for value in range(4, 404):
        picture = torch.full((1, 1, 1, 1), float(value))
        condition, returned = pool.query(-picture, picture)
        assert condition == -returned
        held = {float(image) for _, image in pool.pairs}
        if returned.item() != value:
            old += 1
            assert value in held
            assert returned.item() not in held
        assert len(held) == 4
    assert 150 < old < 250


def test_a_pool_empties_when_the_size_of_pictures_changes() -> None:
    pool = FakePool(2)
    pool.query(torch.zeros(2, 1, 4, 4), torch.zeros(2, 3, 4, 4))
    condition, image = torch.ones(1, 1, 8, 8), torch.ones(1, 3, 8, 8)
    found = pool.query(condition, image)
    assert torch.equal(found[0], condition)
    assert torch.equal(found[1], image)
    assert [(tuple(condition.shape), tuple(image.shape)) for condition, image in pool.pairs] == [((1, 8, 8), (3, 8, 8))]


LABELS = Pix2PixHDConfig(n_labels=4)
IMAGES = Pix2PixHDConfig(n_labels=0, input_channels=2, instances=False)


def drawn(config: Pix2PixHDConfig, batch: int) -> tuple[NetworkInput, torch.Tensor]:
    """Conditions, and generated images of them."""
    fakes = torch.rand(batch, 3, 6, 8)
    if not config.n_labels:
        return torch.rand(batch, 2, 6, 8), fakes
    label, ids = torch.randint(-1, 5, (batch, 6, 8)), torch.randint(3, (batch, 6, 8))
    return LabelInput(label_planes(label, ids, config.n_labels)), fakes


def exchanged(pool: FakePool, condition: NetworkInput, fakes: torch.Tensor) -> torch.Tensor:
    """What comes out of a pool, as one dense tensor."""
    torch.manual_seed(1)  # draws more than 0.5: an old image comes back
    old, images = pool.exchange(condition, fakes)
    return torch.cat([old.dense() if isinstance(old, LabelInput) else old, images], dim=1)


@pytest.mark.parametrize("config", [LABELS, IMAGES], ids=["labels", "images"])
def test_a_pool_goes_on_from_its_state(config: Pix2PixHDConfig) -> None:
    pool, other = FakePool(2), FakePool(2)
    pool.exchange(*drawn(config, 2))
    state = pool.state()
    other.load(state["pool"], state["pool_conditions"], config, torch.device("cpu"))
    condition, fakes = drawn(config, 4)
    expected = exchanged(pool, condition, fakes)
    assert torch.equal(exchanged(other, condition, fakes), expected)
    assert not torch.equal(expected[:, -3:], fakes)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    "config", [LABELS, IMAGES, replace(LABELS, instances=False)], ids=["labels", "images", "alone"]
)
def test_a_pool_goes_on_from_the_state_of_earlier_versions(config: Pix2PixHDConfig, dtype: torch.dtype) -> None:
    """They kept dense conditions and images in one tensor."""
    pool, other = FakePool(2), FakePool(2)
    condition, fakes = drawn(config, 2)
    if isinstance(condition, LabelInput) and not config.instances:
        condition = LabelInput(LabelPlanes(condition.planes.codes % 5, 4, edges=False))
    pool.exchange(condition, fakes.to(dtype))
    dense = condition.dense() if isinstance(condition, LabelInput) else condition
    joined = torch.cat([dense.to(dtype), fakes.to(dtype)], dim=1)
    other.load(list(joined), None, config, torch.device("cpu"))
    for mine, theirs in zip(other.pairs, pool.pairs, strict=True):
        assert all(part.untyped_storage().nbytes() == part.nbytes for part in mine)
        for found, expected in zip(mine, theirs, strict=True):
            torch.testing.assert_close(
                found, expected.to(found.dtype), rtol=0, atol=1e-2 if dtype != torch.float32 else 0
            )
    if config.n_labels:
        assert all(torch.equal(mine[0], theirs[0]) for mine, theirs in zip(other.pairs, pool.pairs, strict=True))


@pytest.mark.parametrize(
    ("config", "images", "conditions"),
    [
        (LABELS, [torch.zeros(7, 2, 2)], None),
        (LABELS, [torch.zeros(0, 2, 2)], None),
        (LABELS, [torch.zeros(4)], None),
        (LABELS, [torch.zeros(())], None),
        (LABELS, [torch.zeros(3, 2, 2)], []),
        (LABELS, [torch.zeros(3, 2, 2)], [torch.full((2, 2), 10, dtype=torch.int32)]),
        (LABELS, [torch.zeros(3, 2, 2)], [torch.full((2, 2), -1, dtype=torch.int32)]),
        (LABELS, [torch.zeros(3, 2, 2)], [torch.zeros(2, 2)]),
        (LABELS, [torch.zeros(3, 2, 2)], [torch.zeros(2, 3, dtype=torch.int32)]),
        (IMAGES, [torch.zeros(3, 2, 2)], [torch.zeros(2, 2, dtype=torch.int32)]),
        (IMAGES, [torch.zeros(1, 2, 2)], [torch.zeros(2, 2, 2)]),
    ],
)
def test_a_state_of_another_model_is_refused(
    config: Pix2PixHDConfig, images: list[torch.Tensor], conditions: list[torch.Tensor] | None
) -> None:
    with pytest.raises(CheckpointError, match=r"the pool of generated images in the checkpoint is not of a model with"):
        FakePool(2).load(images, conditions, config, torch.device("cpu"))


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
    pool.query(torch.zeros(8, 3, 3, dtype=torch.int32), torch.zeros(8, 2, 3, 3))
    assert all(part.untyped_storage().nbytes() == part.nbytes for part in pool.pairs[0])


def test_the_average_has_the_memory_format_of_the_model(model: Pix2PixHD) -> None:
    source = model.to(memory_format=torch.channels_last)
    average = MovingAverage(source, 0.9)
    assert average.model.discriminator is None
    strides = {name: parameter.stride() for name, parameter in source.named_parameters()}
    assert all(strides[name] == parameter.stride() for name, parameter in average.model.named_parameters())


def test_a_pool_takes_label_planes_alone() -> None:
    condition, fakes = drawn(LABELS, 2)
    assert isinstance(condition, LabelInput)
    for other in (condition._replace(features=fakes), condition._replace(level=1)):
        with pytest.raises(ValueError, match="FakePool: expected label planes alone, at the full resolution"):
            FakePool(2).exchange(other, fakes)
