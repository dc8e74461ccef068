"""Files of networks: written whole, within the bounds of their tensors, and differences in words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import SafetensorError
from torch import nn

from hdgan.errors import CheckpointError, HdganError
from hdgan.models.spectral_norm import normalised
from hdgan.weights import modules, open_safetensors
from hdgan.weights.modules import build_described, describe_differences, metadata_of, require_fitting, save_described


def test_the_header_of_a_file_is_read_without_its_tensors(tmp_path: Path) -> None:
    save_described(tmp_path / "x.safetensors", {"a": torch.ones(2, 3).T}, {"kind": "é"})
    with open_safetensors(tmp_path / "x.safetensors") as file:
        metadata = metadata_of(tmp_path / "x.safetensors", file)
    assert (metadata["kind"], metadata["format"]) == ("é", modules.FORMAT)


def test_the_old_file_survives_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "model.safetensors"
    save_described(path, {"a": torch.ones(2)}, {})
    before = path.read_bytes()

    def fail(*_: Any) -> None:
        raise SafetensorError("I/O error: No space left on device")

    monkeypatch.setattr(modules, "save_file", fail)
    with pytest.raises(HdganError, match=r"cannot write .*model\.safetensors.*No space left"):
        save_described(path, {"a": torch.zeros(2)}, {})
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


def test_tensors_that_do_not_fit_are_named_with_the_remedy() -> None:
    require_fitting(Path("x"), {"a": (1,)}, {"a": (1,)})
    with pytest.raises(CheckpointError, match=r"^x: its tensors do not fit .* \(1 missing: a\).*: train it again$"):
        require_fitting(Path("x"), {"a": (1,)}, {}, "train it again")


def test_describe_differences() -> None:
    wanted = {"a": (1,), "b": (2,), "c": (3,), "e": (5,), "f": (6,)}
    assert describe_differences(wanted, wanted) == ""
    found = {"a": (2,), "d": (1,)}
    assert describe_differences(wanted, found) == (
        "4 missing: b, c, e, …; 1 not part of the architecture: d; 1 with another shape: a is (2,) instead of (1,)"
    )


def test_layers_are_bounded_by_the_tensors_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    made = build_described(path, lambda: nn.ModuleList(nn.Conv2d(1, 1, 1) for _ in range(500)), 1)
    assert len(made) == 500
    with pytest.raises(CheckpointError, match=r"its 1 tensor \(more layers than the file has tensors"):
        build_described(path, lambda: nn.ModuleList(nn.Conv2d(1, 1, 1) for _ in range(10**9)), 1)
    with pytest.raises(CheckpointError, match="the architecture that it describes does not fit"):
        build_described(path, lambda: nn.Conv2d(2**40, 2**40, 3), 2)


def test_layers_with_spectral_norm_are_described_without_iterations(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def build() -> nn.Module:
        return normalised(nn.Sequential(nn.Conv2d(2, 3, 3), nn.ConvTranspose2d(3, 2, 4)))

    def shapes(network: nn.Module) -> list[tuple[str, torch.Size, torch.dtype]]:
        return [(name, value.shape, value.dtype) for name, value in network.state_dict().items()]

    real = build()
    monkeypatch.setattr("torch.Tensor.norm", None)  # which every iteration calls
    described = build_described(tmp_path / "model.safetensors", build, 8)
    assert shapes(described) == shapes(real)
    assert {value.device.type for value in described.state_dict().values()} == {"meta"}
