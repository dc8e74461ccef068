from __future__ import annotations

import pytest

from hdgan.data import DataConfig, PairedDataset, SizeConfig, find_pairs, measure_loading
from hdgan.errors import ConfigError


def dataset(root) -> PairedDataset:
    data = DataConfig(root=root)
    return PairedDataset(find_pairs(data, "train").pairs, data, SizeConfig(), 4, train=True)


@pytest.mark.parametrize(("workers", "batch"), [(0, 1), (0, 3), (1, 2)])
def test_images_a_second_are_those_of_the_timed_batches(nvidia, monkeypatch, workers, batch):
    times = iter([10.0, 12.0])
    monkeypatch.setattr("hdgan.data.speed.time.perf_counter", lambda: next(times))
    # 7 images are rounded up to whole batches.
    timed = {1: 7, 2: 8, 3: 9}[batch]
    assert measure_loading(dataset(nvidia), images=7, batch=batch, workers=workers) == timed / 2


def test_nothing_to_time(nvidia):
    with pytest.raises(ConfigError, match="cannot time 0 images in batches of 1: give 1 or more"):
        measure_loading(dataset(nvidia), images=0)
