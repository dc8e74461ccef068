"""Where pictures to evaluate on, and to train the scorer on, are found."""

from __future__ import annotations

from dataclasses import replace

from rich.console import Console
from rich.progress import Progress

from hdgan.data import DataConfig, Listing, find_pairs, find_phases, validation_phase
from hdgan.data.scenes import CLASSES, ensure_scenes
from hdgan.errors import ConfigError, DataError


def with_scenes(data: DataConfig, n_labels: int, console: Console) -> DataConfig:
    """Data with a root: without one, that of the built-in scenes, which are rendered if they are not there.

    Raises:
        ConfigError: the scenes have another number of classes.
    """
    if data.root is not None:
        return data
    if n_labels != len(CLASSES):
        raise ConfigError(
            f"the built-in scenes have {len(CLASSES)} classes, not {n_labels}: name the dataset with --root"
        )
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("rendering street scenes (once; they are kept in a cache)", total=None)
        root = ensure_scenes(data.scenes, progress=lambda done, total: bar.update(task, completed=done, total=total))
    return replace(data, root=root, layout="nvidia")


def held_out_pairs(data: DataConfig, n_labels: int, phase: str | None) -> Listing:
    """The pairs to evaluate on.

    Args:
        data: with a root.
        n_labels: classes; 0 for A->B pairs.
        phase: None takes the validation phase, which training chose its best checkpoint by.

    Raises:
        DataError: there is no held-out phase, it is empty, or it has no photos.
    """
    labels = n_labels > 0
    chosen = phase or validation_phase(data, labels)
    if phase is None and chosen == data.train_phase and data.val_phase is None:
        raise DataError(
            f"{data.root} has no held-out phase, val or test, only {', '.join(find_phases(data, labels))}: add one, or "
            "name the phase to evaluate on with --phase"
        )
    listing = find_pairs(data, chosen, labels)
    require_photos(listing, data)
    return listing


def require_photos(listing: Listing, data: DataConfig) -> None:
    """Raise DataError unless the phase has photos."""
    if listing.pairs[0].photo is None:
        raise DataError(
            f"{data.root} has no photos for phase {listing.phase}: pictures are scored against them; add the photos or "
            "name another phase"
        )
