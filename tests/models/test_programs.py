"""Programs as networks of a perceptual loss; tests/metrics/test_scorer.py has those that score."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from hdgan.errors import CheckpointError, ConfigError
from hdgan.models.programs import ProgramFeatures

SHAPES = [(2, 16, 32)]


class Levels(nn.Module):
    """Two features, the second at half of the resolution, in a container of a given kind."""

    def __init__(self, container: Callable[[list[Tensor]], Any] = list) -> None:
        super().__init__()
        self.fine, self.coarse = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 6, 3, 2, padding=1)
        self.container = container

    def forward(self, images: Tensor) -> Any:
        fine = self.fine(images).relu()
        return self.container([fine, self.coarse(fine).relu()])


def write_script(path: Path, network: nn.Module) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.jit.trace(network, torch.zeros(1, 3, 16, 32), strict=False).save(path)
    return path


def write_program(path: Path, network: nn.Module) -> Path:
    torch.export.save(torch.export.export(network, (torch.zeros(2, 3, 16, 32),)), path)
    return path


Write = Callable[[Path, nn.Module], Path]
BOTH = pytest.mark.parametrize(("write", "name"), [(write_script, "n.pt"), (write_program, "n.pt2")])


@BOTH
@pytest.mark.parametrize("container", [list, tuple, lambda features: dict(zip("ab", features, strict=True))])
def test_a_program_returns_its_features(write: Write, name: str, container: Any, tmp_path: Path) -> None:
    network = Levels(container)
    file = write(tmp_path / name, network)
    program = ProgramFeatures(file, SHAPES)
    images = torch.rand(2, 3, 16, 32).requires_grad_()
    features = program(images)
    assert program.n_features == 2
    assert program.digest == hashlib.sha256(file.read_bytes()).hexdigest()
    for found, expected in zip(features, Levels.forward(network, images) if container is list else [], strict=False):
        torch.testing.assert_close(found, expected)
    assert [feature.shape for feature in features] == [(2, 4, 16, 32), (2, 6, 8, 16)]
    sum(feature.sum() for feature in features).backward()
    assert images.grad is not None
    assert bool(images.grad.abs().sum() > 0)
    assert not any(parameter.requires_grad for parameter in program.parameters())


def test_a_single_tensor_is_one_feature(tmp_path: Path) -> None:
    program = ProgramFeatures(write_script(tmp_path / "n.pt", nn.Conv2d(3, 4, 3)), SHAPES)
    assert program.n_features == 1
    assert [feature.shape for feature in program(torch.zeros(1, 3, 8, 8))] == [(1, 4, 6, 6)]


@BOTH
def test_what_returns_no_features_is_told(write: Write, name: str, tmp_path: Path) -> None:
    file = write(tmp_path / name, nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten()))
    complaint = rf"the perceptual network .*{name} returns \[\(2, 1680\)\]: it must return one or more features \[B, C"
    with pytest.raises(ConfigError, match=complaint):
        ProgramFeatures(file, SHAPES)


class Detached(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        return images.detach() * 2


class Whole(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        return images.float() > 0


class OfTheBatch(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        return images.sum(0, keepdim=True)


class InPlace(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        return images.sub_(0.5) * 2


@BOTH
@pytest.mark.parametrize(
    ("network", "complaint"),
    [
        (Detached(), r"its feature 1 has no gradient: it must return features of floating-point numbers"),
        (Whole(), r"its feature 1 has no gradient: it must return features of floating-point numbers"),
        (OfTheBatch(), r"its feature 1 is of 1 images instead of 2"),
        (InPlace(), r"cannot take an image of 32x16: .*in-place operation"),
    ],
)
def test_what_a_loss_cannot_use_is_told(
    write: Write, name: str, network: nn.Module, complaint: str, tmp_path: Path
) -> None:
    """Without a gradient the loss would change nothing, and images that a program overwrites are those of the step."""
    with pytest.raises(ConfigError, match=rf"the perceptual network .*{name}:? {complaint}"):
        ProgramFeatures(write(tmp_path / name, network), SHAPES)


def test_a_program_of_two_inputs_is_told(tmp_path: Path) -> None:
    class Sum(nn.Module):
        def forward(self, one: Tensor, other: Tensor) -> Tensor:
            return one + other

    torch.export.save(torch.export.export(Sum(), (torch.zeros(2, 3, 16, 32),) * 2), tmp_path / "n.pt2")
    with pytest.raises(ConfigError, match=r"network .*n\.pt2 cannot take an image of 32x16: .* same number and type"):
        ProgramFeatures(tmp_path / "n.pt2", SHAPES)


def test_a_shape_that_a_program_does_not_take_is_told(tmp_path: Path) -> None:
    file = write_program(tmp_path / "n.pt2", Levels())
    complaint = r"network .*n\.pt2 cannot take an image of 32x16: .*; export it for that size, a batch of 3 and this"
    with pytest.raises(ConfigError, match=complaint):
        ProgramFeatures(file, [(2, 16, 32), (3, 16, 32)])


@pytest.mark.parametrize("name", ["n.pt", "n.pt2"])
def test_a_file_that_is_no_program_is_one_line(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text("nothing of the kind")
    with pytest.raises(
        CheckpointError, match=r"cannot be read as a perceptual network \(it is not an archive\): give a"
    ):
        ProgramFeatures(tmp_path / name, SHAPES)


@BOTH
def test_programs_run_as_a_step_runs_them(write: Write, name: str, tmp_path: Path) -> None:
    """Compiled, under autocast, in the other memory format."""
    program = ProgramFeatures(write(tmp_path / name, Levels()), SHAPES)
    images = torch.rand(2, 3, 16, 32)
    expected = program(images)
    program.to(torch.device("cpu"), memory_format=torch.channels_last)  # type: ignore[call-overload]
    with torch.autocast("cpu", torch.bfloat16):
        found = program(images.contiguous(memory_format=torch.channels_last))
    for feature, wanted in zip(found, expected, strict=True):
        assert feature.dtype == torch.bfloat16
        torch.testing.assert_close(feature.float(), wanted, atol=0.02, rtol=0.02)
    program.compile(backend="eager")
    for feature, wanted in zip(program(images), expected, strict=True):
        torch.testing.assert_close(feature, wanted)
