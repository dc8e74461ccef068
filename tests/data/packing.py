"""Packed datasets, and what they are compared with."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from hdgan.data import DataConfig, PairedDataset, SizeConfig, find_pairs, pack_dataset

RNG = np.random.default_rng(0)
SIZES = (SizeConfig(width=20), SizeConfig(width=16, height=8))


def pack_into(root: Path, out: Path, *sizes: SizeConfig, **options) -> Path:
    n_labels = options.pop("n_labels", 4)
    pack_dataset(DataConfig(root=root, **options), out, sizes or (SizeConfig(),), n_labels)
    return out


def dataset(root: Path, size: SizeConfig, n_labels: int = 4, phase: str = "train", **options) -> PairedDataset:
    data = DataConfig(root=root, **options)
    pairs = find_pairs(data, phase, n_labels > 0).pairs
    return PairedDataset(pairs, data, size, n_labels, train=phase == "train", seed=3)


def assert_same_samples(one: PairedDataset, other: PairedDataset) -> None:
    assert len(one) == len(other)
    for position in range(12):
        key = (position, position % len(one))
        theirs, ours = one[key], other[key]
        assert theirs.keys() == ours.keys()
        assert theirs.pop("stem") == ours.pop("stem")
        for part, tensor in theirs.items():
            assert tensor.dtype == ours[part].dtype
            assert torch.equal(tensor, ours[part]), part
