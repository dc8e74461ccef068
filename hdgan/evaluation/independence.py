"""What makes scores say less than they seem to: a run that knows pictures or scorer, a scorer that knows pictures."""

from __future__ import annotations

import filecmp
from collections.abc import Mapping
from pathlib import Path

from hdgan.config.serialization import from_plain
from hdgan.data import DataConfig
from hdgan.families.saving import read_metadata
from hdgan.inference.pipeline import Pipeline
from hdgan.scenes import scenes_folder
from hdgan.training.config import TrainConfig
from hdgan.training.run_folder import training_of


def about_runs(runs: Mapping[str, Pipeline], data: DataConfig, phase: str) -> list[str]:
    """Name the runs that were trained on this phase of this dataset, as far as their files say; at most one warning.

    Args:
        runs: by name, each loaded from a file.
        data: what they are scored on, with its root.
        phase: of it.
    """
    learned = [name for name, run in runs.items() if (own := _training_of(run)) and _is_of(own.data, data, phase)]
    if not learned:
        return []
    return [f"Trained on these very pictures, phase {phase}: {', '.join(learned)}. Their scores are not held-out ones."]


def about_scorer(scorer: Path, runs: Mapping[str, Pipeline], data: DataConfig, phase: str) -> list[str]:
    """Name the runs whose loss had this scorer's features, and say if the scorer was trained on these pictures.

    Args:
        scorer: its file.
        runs, data, phase: as of `about_runs`.
    """
    warnings = []
    against = [name for name, run in runs.items() if (own := _training_of(run)) and _has_in_loss(own, scorer)]
    if against:
        warnings.append(
            f"Trained against this very scorer, by --loss.scorer: {', '.join(against)}. Their mean IoU, pixel accuracy "
            "and scorer FID are not independent ones: take a scorer of another seed."
        )
    if scorer.suffix == ".safetensors" and (about := read_metadata(scorer).get("trained_on")):
        seen = from_plain(DataConfig, about.get("data"), f"{scorer}, trained_on")
        if _is_of(seen, data, phase):
            warnings.append(
                f"The scorer {scorer} was trained on these very pictures, phase {phase}: what it recognises in the "
                "real photos, it knows."
            )
    return warnings


def _training_of(run: Pipeline) -> TrainConfig | None:
    """None of a file that does not say."""
    assert run.file is not None
    metadata = read_metadata(run.file)
    return training_of(run.file, metadata, run.config)[0] if "train" in metadata else None


def _is_of(seen: DataConfig, data: DataConfig, phase: str) -> bool:
    assert data.root is not None
    root = seen.root or scenes_folder(seen.scenes)
    return phase == seen.train_phase and root.resolve() == data.root.resolve()


def _has_in_loss(training: TrainConfig, scorer: Path) -> bool:
    """By the content of the loss's network where that is still there, else by its path."""
    network: Path | None = getattr(training.loss, "scorer", None)
    if network is None:
        return False
    if network.is_file():
        return filecmp.cmp(network, scorer, shallow=False)
    return network.resolve() == scorer.resolve()
