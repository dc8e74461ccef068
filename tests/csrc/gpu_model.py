"""Predicts the time of each op on GPUs from the counts of its traffic and of its instructions.

    python -m tests.csrc.gpu_model

writes docs/gpu-model.md from the tables traffic.csv and sass.csv of this folder.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import ceil, prod
from pathlib import Path

from tests.csrc import sass, traffic
from tests.csrc.sass import Loop
from tests.csrc.traffic import Traffic

PAGE = Path(__file__).parent.parent.parent / "docs" / "gpu-model.md"
ITEM = {"float32": 4, "bfloat16": 2}
SECTOR_BYTES_OF_A_CLOCK = 64
"""That a multiprocessor gets from its caches."""
SLOTS_OF_A_CLOCK = 4
"""Warp instructions that a multiprocessor issues."""
LAUNCH = 2.5e-6
"""Seconds from the launch of a kernel to its first load, and from its last store to the next kernel."""
WAIT = 2e-6
"""Seconds from the last block's signal until the others go on, with the loads or stores that fill the pipeline again."""
HELD = 200 << 10
"""Bytes that the blocks of a multiprocessor hold."""


@dataclass(frozen=True)
class Gpu:
    name: str
    multiprocessors: int
    clock: float
    copy: float
    """Bytes a second, read and written together."""


GPUS = (
    Gpu("H200", 132, 1.75e9, 4.3e12),
    Gpu("L40S", 142, 2.2e9, 0.75e12),
)


@dataclass(frozen=True)
class Work:
    """A call at a real shape: what it must move, and the line of traffic.csv that stands for it."""

    title: str
    variant: str
    function: str
    read: float
    """Elements of the layout's dtype that are read."""
    written: float
    other: int = 0
    """Bytes of other dtypes."""
    kernels: int = 1
    waits: bool = False
    """Whether blocks hold what they read until others have read theirs."""

    def floor(self, dtype: str) -> float:
        return (self.read + self.written) * ITEM[dtype] + self.other


def norms() -> Iterator[Work]:
    shapes = [
        ("32x1024x2048", (32, 1024, 2048), 0, False),
        ("32x1024x2048-pad3", (32, 1024, 2048), 3, False),
        ("64x512x1024-pad1-residual", (64, 512, 1024), 1, True),
        ("1024x32x64-pad1-residual", (1024, 32, 64), 1, True),
    ]
    for variant, (channels, height, width), pad, residual in shapes:
        x, y = channels * height * width, channels * (height + 2 * pad) * (width + 2 * pad)
        extras = (f", pad {pad}" if pad else "") + (", residual" if residual else "")
        title = f"[1, {channels}, {height}, {width}]{extras}"
        small = variant.startswith("1024")
        yield Work(title, variant, "instance_norm_act_fwd", x * (1 + residual), y, waits=not small)
        yield Work(title, variant, "instance_norm_act_bwd", x + y, x * (1 + residual), waits=not small)


def works() -> list[Work]:
    pixels = 1024 * 2048
    pyramid, conv = 39 * pixels, 32 * pixels
    features = 64 * pixels // 4
    size = "[1, {}, 1024, 2048]".format
    return [
        *norms(),
        Work(size(39), "39x1024x2048", "avg_pyramid_fwd", pyramid, pyramid * 5 / 16),
        Work(size(39), "39x1024x2048", "avg_pyramid_bwd", pyramid * 5 / 16, pyramid),
        Work(size(36), "36x1024x2048", "encode_labels_fwd", 0, 36 * pixels, 5 * pixels),
        Work(size(3), "3x1024x2048", "instance_mean_reduce", 3 * pixels, 0, 4 * pixels),
        Work(size(3), "3x1024x2048", "instance_mean_broadcast", 0, 3 * pixels, 4 * pixels),
        Work(size(32), "32x1024x2048", "label_conv2d_fwd", 0, conv, 4 * pixels, kernels=2),
        Work(size(32), "32x1024x2048", "label_conv2d_bwd", conv, 0, 4 * pixels, kernels=3),
        Work("[1, 64, 512, 1024]", "", "l1_distance_fwd", 2 * features, 0, features, kernels=2),
        Work("[1, 64, 512, 1024]", "", "l1_distance_bwd", 0, features, features),
    ]


@dataclass(frozen=True)
class Prediction:
    """Seconds."""

    floor: float
    """That a copy of as many bytes takes."""
    memory: float
    cache: float
    issue: float
    fixed: float

    @property
    def time(self) -> float:
        return max(self.memory, self.cache, self.issue) + self.fixed

    @property
    def of_copy(self) -> float:
        return self.floor / self.time

    @property
    def bound(self) -> str:
        parts = {"memory": self.memory, "cache": self.cache, "issue": self.issue, "launch": self.fixed}
        return max(parts, key=lambda name: parts[name])


def predict(work: Work, row: Traffic, slots: float, gpu: Gpu) -> Prediction:
    """`slots` are the issue slots of the call."""
    floor = work.floor(row.dtype)
    rate = gpu.multiprocessors * gpu.clock
    rounds = ceil(work.read * ITEM[row.dtype] / (HELD * gpu.multiprocessors)) if work.waits else 0
    return Prediction(
        floor / gpu.copy,
        floor * row.memory / gpu.copy,
        floor * row.requested / (SECTOR_BYTES_OF_A_CLOCK * rate),
        slots / (SLOTS_OF_A_CLOCK * rate),
        work.kernels * LAUNCH + rounds * WAIT / 2,  # one of two blocks waits while the other moves
    )
