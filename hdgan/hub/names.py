"""The names of models on the hub, and of their folders in its cache."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from hdgan.errors import CheckpointError, ConfigError

PREFIX = "hf:"
_PART = r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]*[A-Za-z0-9_])?"
_REPOSITORY = re.compile(rf"{_PART}/{_PART}")
_CACHED = re.compile(r"models--(.+)--(.+)")
"""A folder of the cache: the hub refuses names that contain two hyphens in a row."""


@dataclass(frozen=True)
class HubModel:
    """A model on the hub."""

    repository: str
    """OWNER/NAME."""
    revision: str | None = None
    """Branch, tag or commit; None for the branch main."""

    def __str__(self) -> str:
        return f"{PREFIX}{self.repository}" + (f"@{self.revision}" if self.revision else "")


def hub_name(path: Path) -> str | None:
    """The text hf:OWNER/NAME[@REVISION] that a path stands for; None for any other path.

    `Path` keeps it as it is, but for the separators of Windows.
    """
    text = path.as_posix()
    return text if text.startswith(PREFIX) else None


def parse_hub_name(text: str) -> HubModel:
    """The model that a text hf:OWNER/NAME[@REVISION] names.

    Raises:
        CheckpointError: it is written in another way.
    """
    repository, at, revision = text.removeprefix(PREFIX).partition("@")
    if not is_repository(repository) or bool(at) != bool(revision) or ".." in revision:
        raise CheckpointError(
            f"{text:.300} does not name a model on the Hugging Face Hub: write {PREFIX}OWNER/NAME or "
            f"{PREFIX}OWNER/NAME@REVISION, where the revision is a branch, a tag or a commit"
        )
    return HubModel(repository, revision or None)


def is_repository(text: str) -> bool:
    """Whether the hub could have a repository OWNER/NAME of this name."""
    allowed = _REPOSITORY.fullmatch(text) and "--" not in text and ".." not in text and not text.endswith(".git")
    return bool(allowed) and len(text) <= 96


def require_repository(text: str) -> None:
    """Refuse what `is_repository` says the hub cannot have.

    Raises:
        ConfigError: it is not OWNER/NAME.
    """
    if not is_repository(text):
        raise ConfigError(f"{text:.300} is no name of a repository on the Hugging Face Hub: write OWNER/NAME")


def cached_name(model: Path) -> HubModel | None:
    """The model that a file in the cache of the hub belongs to, by the names of its folders; None for other files.

    Args:
        model: a model file, such as models--OWNER--NAME/snapshots/COMMIT/model.safetensors.
    """
    snapshot, snapshots, folder = [*model.absolute().parents, Path(), Path(), Path()][:3]
    found = _CACHED.fullmatch(folder.name) if snapshots.name == "snapshots" else None
    return HubModel(f"{found[1]}/{found[2]}", snapshot.name) if found else None
