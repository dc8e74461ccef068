"""What must be equal in all processes of a run: otherwise each would train something else, or wait forever.

The paths of data and of files may differ from machine to machine; the contents may not. Options that do not change the
result, such as the number of threads, are not compared. All functions raise as `Rendezvous.require_equal` does.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from hdgan.checkpoints import MODEL_FILE, checkpoint_path, find_checkpoint
from hdgan.config.options import option
from hdgan.config.serialization import to_plain
from hdgan.families.common.train_config import TrainConfig
from hdgan.sharding.rendezvous import START_TIMEOUT, Rendezvous
from hdgan.training.schedule import Stage

_FREE = ("out", "device", "threads", "init_from", "data.root", "data.workers")
"""Options that may differ; the contents behind `init_from` and `data.root` are compared instead."""


def require_same_run(rendezvous: Rendezvous, config: TrainConfig, *, resume: bool) -> None:
    """Make sure that all processes have been started in the same way."""
    if rendezvous.size == 1:
        return
    facts = {
        "the version of hdgan": version("hdgan"),
        "the version of PyTorch": torch.__version__,
        option("resume"): resume,
        **{option(name): value for name, value in _options(config, "") if name not in _FREE},
    }
    if config.init_from is not None and not resume:  # a resume does not read it
        facts[option("init_from")] = content_of(find_checkpoint(config.init_from))
    rendezvous.require_equal(facts, START_TIMEOUT)


def require_same_plan(rendezvous: Rendezvous, config: TrainConfig, stages: Sequence[Stage]) -> None:
    """Make sure that all processes build the same networks, for stages of the same length."""
    facts = {f"the number of steps of stage {stage.name}": stage.steps for stage in stages}
    model = {option(name): value for name, value in _options(config.model, "model.")}
    rendezvous.require_equal({**facts, **model})


def require_same_network(rendezvous: Rendezvous, config: TrainConfig) -> None:
    """Make sure that all processes compare the features of the same network, wherever each has found its weights."""
    digest = getattr(config.loss, "network_digest", None)
    rendezvous.require_equal({f"the SHA-256 of the network of {option('loss.network')}": digest})


def require_same_checkpoint(rendezvous: Rendezvous, run: Path, step: int) -> None:
    """Make sure that all processes continue from the same checkpoint of a run."""
    if rendezvous.size > 1:
        content = content_of(checkpoint_path(run, step) / MODEL_FILE)
        rendezvous.require_equal({"the last saved step": step, "its checkpoint": content})


def _options(config: Any, path: str) -> Iterator[tuple[str, Any]]:
    """All options below a config by their path in it; a file counts by its content."""
    named = config if isinstance(config, Mapping) else {f.name: getattr(config, f.name) for f in fields(config)}
    for name, value in named.items():
        if is_dataclass(value) or isinstance(value, Mapping):
            yield from _options(value, f"{path}{name}.")
        elif isinstance(value, Path) and value.is_file():
            yield path + name, content_of(value)
        else:
            yield path + name, to_plain(value)


def content_of(file: Path) -> str:
    """What messages call a file by its content."""
    digest = hashlib.sha256()
    with file.open("rb") as opened:
        while part := opened.read(2**20):
            digest.update(part)
    return f"a file of SHA-256 {digest.hexdigest()[:16]}"
