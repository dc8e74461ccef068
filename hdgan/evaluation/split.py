"""The samples that runs are evaluated on."""

from __future__ import annotations

from hdgan.config.options import option
from hdgan.data import DataConfig, Listing, find_pairs, find_phases, validation_phase
from hdgan.errors import DataError


def held_out_pairs(data: DataConfig, n_labels: int, phase: str | None) -> Listing:
    """The pairs to evaluate on.

    Args:
        data: with a root.
        n_labels: classes; 0 for A->B pairs.
        phase: None uses the validation phase, on which training chose its best checkpoint.

    Raises:
        DataError: there is no held-out phase, it is empty, or it has no photos.
    """
    labels = n_labels > 0
    chosen = phase or validation_phase(data, labels)
    if phase is None and chosen == data.train_phase and data.val_phase is None:
        raise DataError(
            f"{data.root} has no held-out phase, val or test, only {', '.join(find_phases(data, labels))}: add one, "
            f"or give the phase to evaluate on with {option('phase')}"
        )
    listing = find_pairs(data, chosen, labels)
    require_photos(listing, data)
    return listing


def require_photos(listing: Listing, data: DataConfig) -> None:
    """Raise DataError unless the phase has photos."""
    if listing.pairs[0].photo is None:
        raise DataError(
            f"{data.root} has no photos for phase {listing.phase}{listing.instead_of('photo')}, and images are scored "
            "against photos: add them, or give another phase"
        )
