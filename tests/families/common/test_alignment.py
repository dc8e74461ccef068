"""Photos shifted to where they are nearest to the generated image."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file
from torch import Tensor

from hdgan.checkpoints import MODEL_FILE, checkpoint_path
from hdgan.errors import ConfigError
from hdgan.families import build_model
from hdgan.families.common.alignment import aligned, best_shifts
from hdgan.families.common.augmentation import Augmentation
from hdgan.families.common.batch import Batch
from hdgan.families.common.pool import FakePool
from hdgan.training import TrainConfig, train
from tests.conftest import N_LABELS

MakeConfig = Callable[..., TrainConfig]
SHIFTS = [(0, 0), (3, -2), (-1, 3), (-3, -3)]


def moved(scene: Tensor, shifts: list[tuple[int, int]]) -> Tensor:
    """Cut 20x30 pixels of each scene [B, C, 26, 36], whose middle lies that many rows and columns further down."""
    return torch.stack(
        [one[:, 3 - row : 23 - row, 3 - column : 33 - column] for one, (row, column) in zip(scene, shifts, strict=True)]
    )


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_each_photo_moves_to_its_image(memory_format: torch.memory_format) -> None:
    torch.manual_seed(0)
    scene = torch.rand(4, 3, 26, 36)
    fake = moved(scene, [(0, 0)] * 4).requires_grad_()
    photo = moved(scene, SHIFTS).contiguous(memory_format=memory_format)
    assert best_shifts(photo, fake + 0.2 * torch.randn(fake.shape), 3).tolist() == [list(shift) for shift in SHIFTS]
    found, (length,) = aligned(photo, fake, 3)
    assert length.item() == pytest.approx((13**0.5 + 10**0.5 + 18**0.5) / 4)
    assert found.is_contiguous(memory_format=memory_format)
    assert not found.requires_grad
    assert torch.equal(found[..., 3:-3, 3:-3], fake.detach()[..., 3:-3, 3:-3])
    # The photo of the second scene lies 3 rows too far down: its last rows are mirrored, as are its first columns.
    assert torch.equal(found[1, :, -3:, 2:], photo[1, :, -4:-1, :-2].flip(1))
    assert torch.equal(found[1, :, :-3, :2], photo[1, :, 3:, 1:3].flip(2))


def test_pixels_beyond_the_largest_shift_stay_away() -> None:
    scene = torch.rand(4, 3, 26, 36)
    shifts = best_shifts(moved(scene, SHIFTS), moved(scene, [(0, 0)] * 4), 1)
    assert shifts.abs().max() <= 1
    assert shifts[0].tolist() == [0, 0]


def test_without_a_shift_the_photo_is_the_photo() -> None:
    photo = torch.rand(1, 3, 8, 8)
    found, length = aligned(photo, torch.rand(1, 3, 8, 8), 0)
    assert found is photo
    assert length == []


def test_a_step_under_autocast_moves_as_one_in_float32() -> None:
    scene = torch.rand(4, 3, 26, 36)
    photo, fake = moved(scene, SHIFTS), moved(scene, [(0, 0)] * 4)
    with torch.autocast("cpu", torch.bfloat16):
        found, _ = aligned(photo, fake.bfloat16(), 3)
    assert torch.equal(found, aligned(photo, fake, 3)[0])


def test_among_equally_near_shifts_the_smallest_is_taken() -> None:
    stripes = (torch.arange(24) % 4 < 2).float().expand(1, 3, 16, 24)
    assert best_shifts(stripes, stripes.roll(1, 3) + 0.1, 3).tolist() == [[0, -1]]
    assert best_shifts(torch.ones(1, 3, 16, 24), torch.zeros(1, 3, 16, 24), 3).tolist() == [[0, 0]]


def test_every_loss_compares_with_the_moved_photo(
    make_family_config: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A step with a largest shift is a step on photos that were moved before."""
    config = make_family_config(tmp_path / "run")
    name = type(config.loss).__module__

    def losses(max_shift: int, move: Callable[[Tensor], Tensor]) -> Tensor:
        monkeypatch.setattr(f"{name}.aligned", lambda photo, *_: (move(photo) if max_shift else photo, []))
        torch.manual_seed(0)
        model = build_model(replace(config.model, feature_channels=0) if without else config.model)
        loss = replace(config.loss, max_shift=max_shift)
        label = torch.randint(N_LABELS, (2, 16, 32))
        photo = torch.rand(2, 3, 16, 32) * 2 - 1
        photo = photo if max_shift else move(photo)
        criterion = loss.criterion(loss.load_perceptual(), FakePool(0), Augmentation())
        return criterion(model, Batch(photo, label, None, label)).parts

    without = config.model.feature_channels > 0  # an encoder sees the photo as it is
    assert torch.equal(losses(2, lambda photo: photo.roll(1, 2)), losses(0, lambda photo: photo.roll(1, 2)))


def test_shifts_that_cannot_be_are_refused(make_family_config: MakeConfig, tmp_path: Path) -> None:
    config = make_family_config(tmp_path / "run")
    with pytest.raises(ConfigError, match=r"loss\.max_shift is 65: give a whole number from 0 to 64"):
        replace(config.loss, max_shift=65)
    config = replace(config, loss=replace(config.loss, max_shift=10))
    complaint = r"loss\.max_shift is 10, but some training images have a side of 20 pixels: give at most 9, or train at"
    with pytest.raises(ConfigError, match=complaint):
        config.resolved([64, 20])
    assert config.resolved([64, 21]).loss == config.loss


def test_a_run_with_shifts_continues_exactly(make_family_config: MakeConfig, tmp_path: Path) -> None:
    runs = []
    for name, sittings in (("whole", [4]), ("halves", [2, 4])):
        config = make_family_config(tmp_path / name, images=8)
        (last,) = list(config.stages)[-1:]
        config = replace(config, loss=replace(config.loss, max_shift=1), stages={last: config.stages[last]})
        for number, steps in enumerate(sittings):
            stage = replace(config.stages[last], images=2 * steps, decay=0.0)
            train(replace(config, stages={last: stage}), resume=number > 0, console=Console(quiet=True))
        runs.append(load_file(checkpoint_path(config.out, 4) / MODEL_FILE))
    assert all(torch.equal(tensor, runs[1][name]) for name, tensor in runs[0].items())
