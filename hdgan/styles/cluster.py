"""K-means over the features of each class (paper, section 3.4)."""

from __future__ import annotations

from typing import Annotated

import numpy as np
from annotated_types import Interval
from sklearn.cluster import KMeans

from hdgan.config.options import option
from hdgan.config.serialization import check_value
from hdgan.errors import DataError
from hdgan.styles.bank import Cluster, Example, StyleBank
from hdgan.styles.table import FeatureTable
from hdgan.wording import count

MIN_AREA = 1 / 256
"""Share of its image that an instance must cover. E's features of smaller ones mostly describe their surroundings."""
EXAMPLES = 12
"""Maximum number of examples per cluster."""
Clusters = Annotated[int, Interval(ge=1, le=10**5)]
PartShare = Annotated[float, Interval(ge=0, lt=1)]
KMeansSeed = Annotated[int, Interval(ge=0, lt=2**32)]
_DECIMALS = 5
"""Features that agree in this many decimals count as equal. Smaller differences come from rounding of means."""


def cluster(
    table: FeatureTable, k: int = 10, *, min_area: float = MIN_AREA, seed: int = 0, dontcare: int | None = None
) -> StyleBank:
    """Find the styles of every class.

    Args:
        table: from `hdgan.inference.encoding`.
        k: clusters of each class. A class with fewer different features has one cluster for each of them.
        min_area: instances that cover a smaller share of their image are left out. NVIDIA's code uses 1/64.
        seed: the same seed gives the same clusters.
        dontcare: label whose instances are left out.

    Returns:
        Clusters, in each class the largest first, and means over instances of all sizes.

    Raises:
        ConfigError: k, min_area or seed is out of range.
        DataError: the table has no instance that is large enough.
    """
    check_value(Clusters, k, "k")
    check_value(PartShare, min_area, "min_area")
    check_value(KMeansSeed, seed, "seed")
    used = np.ones(len(table), bool) if dontcare is None else table.label != dontcare
    large = used & (table.share >= min_area)
    if not large.any():
        raise DataError(
            f"no instance of {count(len(table.stem), 'image')} covers {option('min_area')} {min_area} of its image: "
            f"lower {option('min_area')}"
        )
    labels = np.unique(table.label[used]).tolist()
    chosen = {label: np.flatnonzero(large & (table.label == label)) for label in labels}
    return StyleBank(
        {label: _clusters(table, rows, k, seed) for label, rows in chosen.items() if len(rows)},
        {label: table.feature[table.label == label].mean(0, dtype=np.float64).astype(np.float32) for label in labels},
        table.feature[used].mean(0, dtype=np.float64).astype(np.float32),
        table.origin,
    )


def assign(features: np.ndarray, k: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """K-means with the largest cluster first.

    Args:
        features: [N, F], N at least 1.
        k: clusters; there are fewer if there are fewer different features.
        seed: of the initial centres.

    Returns:
        The cluster of each feature, [N] int64, and the centres of the clusters, [K, F] float32.
    """
    values = features.astype(np.float64)
    k = min(k, len(np.unique(values.round(_DECIMALS), axis=0)))
    found = KMeans(k, n_init=10, random_state=seed).fit(values)
    counts = np.bincount(found.labels_, minlength=k)
    order = np.lexsort((*found.cluster_centers_.T[::-1], -counts))
    used = order[: np.count_nonzero(counts)]  # K-means may leave a cluster empty
    return np.argsort(order)[found.labels_], found.cluster_centers_[used].astype(np.float32)


def _clusters(table: FeatureTable, rows: np.ndarray, k: int, seed: int) -> tuple[Cluster, ...]:
    features = table.feature[rows]
    which, centres = assign(features, k, seed)
    found = []
    for number, centre in enumerate(centres):
        members = np.flatnonzero(which == number)
        distances = np.linalg.norm(features[members] - centre, axis=1)
        nearest = rows[members[np.argsort(distances, kind="stable")[:EXAMPLES]]]
        found.append(Cluster(centre, len(members), tuple(_example(table, row) for row in nearest)))
    return tuple(found)


def _example(table: FeatureTable, row: int) -> Example:
    picture = table.picture[row]
    box = table.box[row] / np.tile(table.size[picture], 2)
    return Example(str(table.stem[picture]), int(table.id[row]), tuple(box.round(5).tolist()))
