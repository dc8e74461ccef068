"""What the run of a row is, and that a run that was begun is that one."""

from __future__ import annotations

import json

from hdgan.checkpoints import list_steps
from hdgan.config.options import option
from hdgan.config.serialization import to_plain
from hdgan.errors import ConfigError
from hdgan.reproduce.folder import PERCEPTUAL, Folder
from hdgan.reproduce.plan import run_config
from hdgan.reproduce.record import digest, load_record
from hdgan.training import TrainConfig, load_config


def wanted_config(
    folder: Folder, row: str, seed: int, *, device: str = "auto", threads: int | None = None
) -> TrainConfig:
    """What the run of a row and a seed trains."""
    network, out = folder.network(PERCEPTUAL), folder.run(row, seed)
    return run_config(folder.scale(), row, seed, out=out, perceptual=network, device=device, threads=threads)


def perceptual_digest(folder: Folder, config: TrainConfig) -> str:
    """Of the network that a run's perceptual loss takes its features from; empty without that loss."""
    return folder.digest(PERCEPTUAL) if getattr(config.loss, "scorer", None) else ""


def config_digest(config: TrainConfig) -> str:
    """Of what a run's result follows from: paths and the machine aside, which may change from call to call."""
    plain = to_plain(config)
    for name in ("out", "device", "threads"):
        del plain[name]
    if plain["loss"].get("scorer"):
        plain["loss"]["scorer"] = PERCEPTUAL
    return digest(json.dumps(plain, sort_keys=True).encode())


def is_trained(folder: Folder, row: str, seed: int) -> bool:
    """Whether the last checkpoint is the last of the run."""
    return list_steps(folder.run(row, seed))[-1:] == [folder.scale().steps]


def require_same(folder: Folder, row: str, seed: int) -> None:
    """See that a run, if it was begun, is the wanted one.

    Raises:
        ConfigError: it has another config, or trains with another perceptual network.
    """
    run, wanted = folder.run(row, seed), wanted_config(folder, row, seed)
    if not list_steps(run):
        return
    remedy = f"delete that folder to train the run again, or name another {option('out')}"
    if config_digest(load_config(run)) != config_digest(wanted):
        raise ConfigError(f"{run} was begun by another version of hdgan, with other options: {remedy}")
    record = load_record(folder.record(row, seed))
    if record and record.perceptual != (found := perceptual_digest(folder, wanted)):
        network = f"{folder.network(PERCEPTUAL)} ({found})"
        raise ConfigError(f"{run} was trained with the perceptual network {record.perceptual}, not {network}: {remedy}")
