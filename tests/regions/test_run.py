"""Statistics of the whole image from its tiles, and where pixels lie between the passes."""

from __future__ import annotations

import gc
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from hdgan.errors import HdganError
from hdgan.ops import instance_norm_act
from hdgan.regions import Box, RegionRun, RegionStorage, RegionTensor, Source, Statistics
from hdgan.regions.boxes import tiles
from hdgan.regions.evaluation import working_bytes
from hdgan.regions.run import PlaneMoments
from hdgan.regions.storage import InMemory, OnDisk
from tests.regions.helpers import Held, run_in

WEIGHT = torch.linspace(0.5, 2, 6)


def normed(x: Tensor) -> Tensor:
    y = instance_norm_act(F.conv2d(x, torch.ones(6, 6, 3, 3), padding=1), activation="leaky_relu", pad=2)
    z = F.conv2d(y, torch.ones(6, 6, 5, 5))
    return instance_norm_act(z, WEIGHT, -WEIGHT, residual=y, pad=1, pad_mode="zero")


NETWORKS: dict[str, Callable[[Tensor], Tensor]] = {
    "instance norms": normed,
    "batch norm": lambda x: F.batch_norm(x, None, None, WEIGHT, WEIGHT, training=True),
    "running statistics": lambda x: F.batch_norm(x, WEIGHT, WEIGHT, training=False),
    "group norm": lambda x: F.group_norm(x, 2, WEIGHT, WEIGHT, eps=1e-3),
    "layer norm": lambda x: F.group_norm(x, 1),
}


def given() -> Tensor:
    generator = torch.Generator().manual_seed(0)
    # The mean is large, and left and right differ, so that sums of squares or of single tiles would be wrong.
    return torch.randn(1, 6, 40, 57, generator=generator) + 100 + torch.linspace(0, 5, 57)


def whole_of(run: RegionRun, function: Callable[[Tensor], Tensor], pixels: Tensor) -> Tensor:
    """What a function makes of an image that is computed in tiles."""
    made = function(RegionTensor.of(Source(Held(pixels), pixels.shape, pixels.dtype), run))
    assert isinstance(made, RegionTensor)
    result = torch.full(made.shape, torch.nan)
    for box, part in run.computed(made.node):
        result[..., slice(*box.rows), slice(*box.columns)] = part
    return result


@pytest.mark.parametrize("limit", [2**30, 60_000, 0], ids=["memory", "both", "disk"])
@pytest.mark.parametrize("side", [None, 64, 16, 7])
@pytest.mark.parametrize("name", NETWORKS)
def test_norms_use_the_statistics_of_the_whole(name: str, side: int | None, limit: int, tmp_path: Path) -> None:
    pixels, function = given(), NETWORKS[name]
    made = whole_of(run_in(limit, tmp_path, side=side), function, pixels)
    torch.testing.assert_close(made, function(pixels), rtol=1e-4, atol=2e-4)
    assert list(tmp_path.iterdir()) == [], "scratch files have no name, so that none can be left behind"


def test_moments_of_parts_are_those_of_the_whole() -> None:
    pixels = given()
    merged = PlaneMoments.none(pixels.shape, torch.device("cpu"))
    for box in tiles(40, 57, 9):
        merged = merged.merged(PlaneMoments.of(pixels[..., slice(*box.rows), slice(*box.columns)]))
    wide = pixels.double()
    torch.testing.assert_close(merged.mean, wide.mean((2, 3)), rtol=1e-8, atol=0)
    torch.testing.assert_close(merged.squares / merged.n, wide.var((2, 3), correction=0), rtol=1e-5, atol=0)


def test_moments_survive_an_outlier_in_the_corner() -> None:
    pixels = 100 + torch.rand(1, 2, 64, 64, generator=torch.Generator().manual_seed(0))
    pixels[..., 0, 0] = -1e4
    wide = pixels.double()
    found = PlaneMoments.of(pixels)
    torch.testing.assert_close(found.mean, wide.mean((2, 3)), rtol=1e-8, atol=0)
    torch.testing.assert_close(found.squares / found.n, wide.var((2, 3), correction=0), rtol=1e-6, atol=0)


def test_statistics_of_another_run_need_no_pass_and_keep_nothing() -> None:
    pixels = given()
    first = run_in(side=16)
    expected = whole_of(first, normed, pixels)
    assert len(first.statistics) == 2
    second = run_in(0, Path("/does/not/exist"), side=16, given=first.statistics)
    torch.testing.assert_close(whole_of(second, normed, pixels), expected, rtol=1e-5, atol=1e-5)


def test_rehearsal_counts_the_work_and_the_space_of_the_run(tmp_path: Path) -> None:
    def counted(rehearsal: bool) -> tuple[int, int]:
        total = 0

        def add(work: int) -> None:
            nonlocal total
            total += work

        storage = RegionStorage(50_000, tmp_path, rehearsal)
        run = RegionRun(storage, side=16, rehearsal=rehearsal, progress=add)
        whole_of(run, normed, given())
        return total, storage.most_on_disk

    assert counted(True) == counted(False)
    assert counted(True)[1] > 0


def test_memory_is_given_back_when_nothing_needs_the_pixels() -> None:
    storage = RegionStorage(2**30, Path())
    run = RegionRun(storage, side=16)
    for _ in range(3):
        whole_of(run, normed, given())
        gc.collect()
        assert storage.in_memory == 0


def test_tiles_are_as_large_as_the_working_memory_allows() -> None:
    x = RegionTensor.of(Source(Held(torch.empty(0)), (1, 4, 5000, 5000), torch.float32), run_in())
    node = F.conv2d(x, torch.ones(8, 4, 3, 3), padding=1).node  # type: ignore[attr-defined]
    sides = []
    for working in (2**30, 2**22, 2**18):
        side = run_in(working=working).side_for(node)
        sides.append(side)
        assert working_bytes(node, Box(1000, 1000 + side, 1000, 1000 + side)) <= working
    assert sides == [1024, 256, 64]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.uint8, torch.bool, torch.uint16])
@pytest.mark.parametrize("shape", [(1, 3, 20, 31), (1, 20, 31), (1, 1, 20, 31)])
def test_pixels_come_back_from_memory_and_disk(shape: tuple[int, ...], dtype: torch.dtype, tmp_path: Path) -> None:
    pixels = torch.randint(0, 2, shape).to(dtype)
    for held in (InMemory(shape, dtype), OnDisk(shape, dtype, tmp_path)):
        for box in tiles(20, 31, 8):
            held.write(box, pixels[..., slice(*box.rows), slice(*box.columns)])
        for box in (Box(0, 20, 0, 31), Box(3, 17, 0, 31), Box(5, 6, 7, 30)):
            assert torch.equal(held.read(box), pixels[..., slice(*box.rows), slice(*box.columns)])


def test_missing_scratch_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(HdganError, match=r"gone: a scratch file cannot be written"):
        OnDisk((1, 3, 4, 4), torch.float32, tmp_path / "gone")


def test_statistics_are_kept_in_double_precision() -> None:
    run = run_in(side=16)
    whole_of(run, normed, given())
    assert all(isinstance(found, Statistics) and found.mean.dtype == torch.float64 for found in run.statistics)
