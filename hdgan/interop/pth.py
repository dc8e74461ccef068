"""State dicts of other codes, and the .pth files that hold them."""

from __future__ import annotations

import pickle
import struct
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hdgan.errors import CheckpointError, ConfigError
from hdgan.files import atomic_file

RUNNING_STATISTICS = (".running_mean", ".running_var", ".num_batches_tracked")


# A damaged pickle is a program of damaged instructions, which fail in any of these ways.
_OF_DAMAGE = (
    RuntimeError, EOFError, OSError, ValueError, LookupError, struct.error, AssertionError, TypeError, AttributeError,
)  # fmt: skip


def read_pth(path: Path) -> Mapping[str, Tensor]:
    """What `torch.save` wrote, weights only.

    Raises:
        CheckpointError: the file is missing, damaged, or holds other Python objects.
    """
    if not path.is_file():
        raise CheckpointError(f"{path} does not exist; check the path")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what a damaged file seems to say
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if "GLOBAL" in str(error) or "Unsupported class" in str(error):
            raise CheckpointError(
                f"{path} holds Python objects, not just weights, and loading them could run any code; "
                "write it again where it was made with torch.save(network.state_dict(), …)"
            ) from error
        raise _damaged(path) from error
    except _OF_DAMAGE as error:
        raise _damaged(path) from error


def _damaged(path: Path) -> CheckpointError:
    return CheckpointError(f"{path} ({path.stat().st_size} bytes) is truncated or no PyTorch file; copy it again")


def require_new_checkpoint(out: Path) -> None:
    """Raise ConfigError unless `out` is the name of a checkpoint that does not exist."""
    if out.suffix != ".safetensors":
        raise ConfigError(f"--out {out} must end in .safetensors: it is a checkpoint of hdgan")
    if out.exists():
        raise ConfigError(f"{out} exists already: name another --out, or delete it")


def require_no_networks(folder: Path, epoch: str) -> None:
    """Raise ConfigError if a folder has a network of this epoch: those of two models would be taken for one."""
    for file in (folder / f"{epoch}_net_{letter}.pth" for letter in "GDE"):
        if file.exists():
            raise ConfigError(f"{file} exists already: name another --out or --epoch, or delete it")


def write_networks(folder: Path, epoch: str, states: Mapping[str, Mapping[str, Tensor]]) -> None:
    """Write each state dict, by its letter, to `<epoch>_net_<letter>.pth`.

    Raises:
        HdganError: the folder cannot be written.
    """
    for letter, state in states.items():
        # Through a file object: given a name, torch reports a full disk as an internal error.
        with atomic_file(folder / f"{epoch}_net_{letter}.pth") as temporary, temporary.open("wb") as file:
            torch.save(state, file)


def tensors_of(state_dict: Any, where: str) -> dict[str, Tensor]:
    """The tensors of a state dict, their keys without DataParallel's `module.`.

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
    return {key.removeprefix("module."): value for key, value in state_dict.items()}


def require_floats(tensors: Mapping[str, Tensor], where: str) -> None:
    """Refuse weights that are no floating-point numbers.

    Raises:
        CheckpointError: the first.
    """
    for key, value in tensors.items():
        if not value.is_floating_point():
            raise CheckpointError(
                f"{where}: {key} is {value.dtype}, not floating point; use the unquantised checkpoint"
            )


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
