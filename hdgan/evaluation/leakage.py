"""Warnings of data leakage: a run or scorer that was trained on the test samples, or a run that was trained with the
scorer."""

from __future__ import annotations

import filecmp
from collections.abc import Mapping
from pathlib import Path

from hdgan.config.serialization import from_plain
from hdgan.data import DataConfig
from hdgan.families.common.train_config import TrainConfig
from hdgan.families.saving import read_metadata
from hdgan.files import same_path
from hdgan.inference.pipeline import Pipeline
from hdgan.scenes import scenes_folder
from hdgan.training.run_folder import training_of


def runs_that_saw(runs: Mapping[str, Pipeline], data: DataConfig, phase: str) -> list[str]:
    """Warn about runs that were trained on this phase of this dataset, according to their files.

    Args:
        runs: by name, each loaded from a file.
        data: the dataset that the runs are scored on, with its root.
        phase: its phase.

    Returns:
        One sentence, or none.
    """
    names = [name for name, run in runs.items() if (own := _training_of(run)) and _trains_on(own.data, data, phase)]
    if not names:
        return []
    return [
        f"Trained on exactly these images, phase {phase}: {', '.join(names)}. Their scores are not held-out scores."
    ]


def scorer_leaks(scorer: Path, runs: Mapping[str, Pipeline], data: DataConfig, phase: str) -> list[str]:
    """Warn about runs whose loss used this scorer's features, and about a scorer that was trained on these samples.

    Args:
        scorer: its file.
        runs, data, phase: as of `runs_that_saw`.

    Returns:
        Up to two sentences.
    """
    warnings = []
    names = [name for name, run in runs.items() if (own := _training_of(run)) and _has_in_loss(own, scorer)]
    if names:
        warnings.append(
            f"Trained with this scorer as the loss network: {', '.join(names)}. Their mean IoU, "
            "pixel accuracy and scorer FID are not independent of it: use a scorer trained with another seed."
        )
    if scorer.suffix == ".safetensors" and (about := read_metadata(scorer).get("trained_on")):
        known = from_plain(DataConfig, about.get("data"), f"{scorer}, trained_on")
        if _trains_on(known, data, phase):
            warnings.append(
                f"The scorer {scorer} was trained on exactly these images, phase {phase}: it has already seen the "
                "real photos."
            )
    return warnings


def _training_of(run: Pipeline) -> TrainConfig | None:
    """The config of a run's training; None if its file does not have it."""
    assert run.file is not None
    metadata = read_metadata(run.file)
    return training_of(run.file, metadata, run.config)[0] if "train" in metadata else None


def _trains_on(training: DataConfig, data: DataConfig, phase: str) -> bool:
    assert data.root is not None
    root = training.root or scenes_folder(training.scenes)
    return phase == training.train_phase and same_path(root, data.root)


def _has_in_loss(training: TrainConfig, scorer: Path) -> bool:
    """Whether the loss's network is the scorer, by the content of its file, or by its path if the file is gone."""
    network = training.loss.network_file
    if network is None:
        return False
    if network.is_file():
        return filecmp.cmp(network, scorer, shallow=False)
    return same_path(network, scorer)
