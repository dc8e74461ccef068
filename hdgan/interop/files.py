"""The files that a conversion writes: a checkpoint of hdgan, or files such as `<epoch>_net_G.pth` for other code."""

from __future__ import annotations

import filecmp
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from hdgan.config.options import option
from hdgan.errors import ConfigError
from hdgan.families import Pix2PixConfig, Pix2PixHDConfig
from hdgan.files import new_files


def network_file(folder: Path, epoch: str, letter: str) -> Path:
    """The file that both other codes write for a network.

    Args:
        folder: `checkpoints/<name>` of the other code.
        epoch: the first part of the name, such as latest or 100.
        letter: G, D or E.
    """
    return folder / f"{epoch}_net_{letter}.pth"


def require_no_networks(folder: Path, epoch: str, letters: str = "G") -> None:
    """Raise ConfigError if a folder has a network of this epoch, so that networks of two models are not mixed.

    Args:
        folder: need not exist.
        epoch: the first part of the files' names.
        letters: of the networks. G stands for all, since it is written last.
    """
    for letter in letters:
        _refuse_existing(network_file(folder, epoch, letter))


def _refuse_existing(file: Path) -> None:
    if file.exists():
        raise ConfigError(f"{file} already exists: choose another {option('out')} or {option('epoch')}, or delete it")


def write_networks(
    folder: Path, epoch: str, states: Mapping[str, Mapping[str, Tensor]], beside: Mapping[str, bytes] | None = None
) -> None:
    """Write each state dict, by its letter, to `<epoch>_net_<letter>.pth`: all of them, or none.

    If a killed command left a part of the same set, the rest is added.

    Args:
        folder: created if absent.
        epoch: the first part of the files' names.
        states: must contain that of G.
        beside: further files by their names. They may already exist with the same content.

    Raises:
        ConfigError: the folder has networks of this epoch, or another file of one of the names.
        HdganError: the folder cannot be written.
    """
    require_no_networks(folder, epoch, "".join({"G", "D", "E"} - (states.keys() - {"G"})))
    with new_files(folder, last=network_file(folder, epoch, "G").name) as temporary:
        for name, content in (beside or {}).items():
            (temporary / name).write_bytes(content)
        for letter, state in states.items():
            # Through a file object: given a name, torch reports a full disk as an internal error.
            with network_file(temporary, epoch, letter).open("wb") as file:
                torch.save(state, file)
        for new in temporary.iterdir():
            there = folder / new.name
            if there.exists() and not (there.is_file() and filecmp.cmp(new, there, shallow=False)):
                _refuse_existing(there)


def notes_on_spectral_norm(config: Pix2PixHDConfig | Pix2PixConfig) -> list[str]:
    """What to know of the files of a model of which other code has no spectral norm."""
    parts = {"G": config.generator.spectral_norm, "D": config.discriminator.spectral_norm}
    names = [name for name, normalised in parts.items() if normalised]
    if not names:
        return []
    return [f"{' and '.join(names)} had spectral norm: the files hold the divided weights, which train on without it"]
