"""State dicts of other codes, and the files that their codes read."""

from __future__ import annotations

import filecmp
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hdgan.errors import CheckpointError, ConfigError
from hdgan.files import new_files
from hdgan.weights import plain_names, require_finite

RUNNING_STATISTICS = (".running_mean", ".running_var", ".num_batches_tracked")


def require_new_checkpoint(out: Path) -> None:
    """Raise ConfigError unless `out` is the name of a checkpoint that does not exist."""
    if out.suffix != ".safetensors":
        raise ConfigError(f"--out {out} must end in .safetensors: it is a checkpoint of hdgan")
    if out.exists():
        raise ConfigError(f"{out} exists already: name another --out, or delete it")


def require_no_networks(folder: Path, epoch: str, letters: str = "G") -> None:
    """Raise ConfigError if a folder has a network of this epoch: those of two models would be taken for one.

    Args:
        folder: may not exist.
        epoch: the first part of the files' names.
        letters: of the networks. G stands for all, since it is written last.
    """
    for letter in letters:
        _refuse_existing(folder / f"{epoch}_net_{letter}.pth")


def _refuse_existing(file: Path) -> None:
    if file.exists():
        raise ConfigError(f"{file} exists already: name another --out or --epoch, or delete it")


def write_networks(
    folder: Path, epoch: str, states: Mapping[str, Mapping[str, Tensor]], beside: Mapping[str, bytes] | None = None
) -> None:
    """Write each state dict, by its letter, to `<epoch>_net_<letter>.pth`: all of them, or none.

    What a killed command left of the same set is completed.

    Args:
        folder: made if absent.
        epoch: the first part of the files' names.
        states: that of G, and others.
        beside: further files by their names, which may be there already with the same content.

    Raises:
        ConfigError: the folder has networks of this epoch, or another file of one of the names.
        HdganError: the folder cannot be written.
    """
    require_no_networks(folder, epoch, "".join({"G", "D", "E"} - (states.keys() - {"G"})))
    with new_files(folder, last=f"{epoch}_net_G.pth") as temporary:
        for name, content in (beside or {}).items():
            (temporary / name).write_bytes(content)
        for letter, state in states.items():
            # Through a file object: given a name, torch reports a full disk as an internal error.
            with (temporary / f"{epoch}_net_{letter}.pth").open("wb") as file:
                torch.save(state, file)
        for new in temporary.iterdir():
            there = folder / new.name
            if there.exists() and not (there.is_file() and filecmp.cmp(new, there, shallow=False)):
                _refuse_existing(there)


def tensors_of(state_dict: Any, where: str) -> dict[str, Tensor]:
    """The tensors of a state dict, their names without what DataParallel and torch.compile put before them.

    Raises:
        CheckpointError: it is none, or holds something else as well.
    """
    if not isinstance(state_dict, Mapping):
        raise CheckpointError(
            f"{where} is a {type(state_dict).__name__}, not a state dict; save network.state_dict() instead"
        )
    for key, value in state_dict.items():
        if not isinstance(key, str):
            raise CheckpointError(f"{where}: {key!r} is no name of a tensor; save network.state_dict() instead")
        if not isinstance(value, Tensor):
            raise CheckpointError(
                f"{where}: {key!r} is a {type(value).__name__}, not a tensor; save network.state_dict() on its own"
            )
        if value.layout != torch.strided or value.is_meta or value.is_nested:
            raise CheckpointError(f"{where}: {key} is no dense tensor with values; save the weights as dense tensors")
    return plain_names(state_dict, where)


def require_weights(tensors: Mapping[str, Tensor], where: str) -> None:
    """Refuse weights that are no floating-point numbers, or not finite.

    Raises:
        CheckpointError: the first.
    """
    for key, value in tensors.items():
        if not value.is_floating_point():
            raise CheckpointError(
                f"{where}: {key} is {value.dtype}, not floating point; use the unquantised checkpoint"
            )
    require_finite(tensors, where)


def first_conv(shapes: Mapping[str, tuple[int, ...]], key: str, where: str, remedy: str) -> tuple[int, int]:
    """Output and input channels of a network's first convolution, whose weight is `key`.

    Raises:
        CheckpointError: it has none, which ends in `remedy`.
    """
    shape = shapes.get(key, ())
    if len(shape) != 4 or 0 in shape:
        found = f"has shape {shape}" if key in shapes else "is missing"
        raise CheckpointError(f"{where}: {key}, the first convolution, {found}; {remedy}")
    return shape[0], shape[1]
