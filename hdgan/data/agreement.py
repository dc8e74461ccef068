"""What the processes of a run must have in common of a dataset: otherwise each would do something else."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

from hdgan.data.pairs import Pair
from hdgan.sharding.rendezvous import Rendezvous

_PAIRS_AT_ONCE = 10_000
"""Pairs in one message, which must stay below the limit of PyTorch's store, 8 MiB."""


def require_same_pairs(rendezvous: Rendezvous, pairs: Sequence[Pair], what: str) -> None:
    """Make sure that all processes have found the same pairs, by names and sizes of the files. Paths may differ.

    Args:
        rendezvous: of the processes; all of them call this.
        pairs: what this process has found.
        what: a pair is, such as "training image".

    Raises:
        ConfigError, OtherProcessError: as `Rendezvous.require_equal`.
    """
    if rendezvous.size == 1:
        return
    listing = {f"the {what} {pair.stem}": _sizes(pair) for pair in pairs}
    digest = hashlib.sha256(repr(listing).encode()).hexdigest()
    if len(set(rendezvous.all_gather(digest))) == 1:
        return
    entries = list(listing.items())
    for begin in range(0, max(rendezvous.all_gather(len(pairs))), _PAIRS_AT_ONCE):
        part = entries[begin : begin + _PAIRS_AT_ONCE]
        rendezvous.require_equal({"the number of pairs": len(pairs), **dict(part)})


def _sizes(pair: Pair) -> str:
    return ", ".join(f"{part} of {_bytes(path)} bytes" for part, path in pair.files.items())


def _bytes(path: Path) -> int | str:
    try:
        return path.stat().st_size
    except OSError:  # a link into nothing, about which the reader of the pair tells more
        return "no"
