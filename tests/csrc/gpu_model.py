"""Predicts the time of each op on GPUs from the counts of its traffic and of its instructions.

    python -m tests.csrc.gpu_model

writes docs/gpu-model.md from the tables traffic.csv and sass.csv of this folder.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import ceil
from pathlib import Path

from tests.csrc import sass, traffic
from tests.csrc.sass import Loop, bytes_of
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
"""Seconds from the last block's signal until the stores of the others flow."""
HELD = 200 << 10
"""Bytes that the blocks of a multiprocessor hold."""


@dataclass(frozen=True)
class Gpu:
    name: str
    multiprocessors: int
    clock: float
    copy: float
    """Bytes a second, read and written together."""


NORM = "instance_norm_act_{}_{{layout}}_kernel<{{type}}{{lanes}}>"
PYRAMID = "avg_pyramid_{}_kernel<Access<{{type}}, {{width}}> >"
BROADCAST = "instance_mean_broadcast{last}_kernel<{type}>"
L1 = "l1_distance_{}_kernel<{{type}}, {{width}}>"
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
    kernel: str
    """The kernel that moves nearly all of it, with {layout}, {type} and {width}, the elements of 16 bytes."""
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
        yield Work(title, variant, "instance_norm_act_fwd", NORM.format("fwd"), x * (1 + residual), y, waits=not small)
        yield Work(
            title, variant, "instance_norm_act_bwd", NORM.format("bwd"), x + y, x * (1 + residual), waits=not small
        )


def works() -> list[Work]:
    pixels = 1024 * 2048
    pyramid, features = 39 * pixels, 16 * pixels
    size = "[1, {}, 1024, 2048]".format
    maps, labels = "3x1024x2048", "36x1024x2048"
    by_plane = "encode_labels_{plane_or_pixel}_kernel<unsigned {word}>"
    return [
        *norms(),
        Work(size(39), "39x1024x2048", "avg_pyramid_fwd", PYRAMID.format("fwd"), pyramid, pyramid * 5 / 16),
        Work(size(39), "39x1024x2048", "avg_pyramid_bwd", PYRAMID.format("bwd"), pyramid * 5 / 16, pyramid),
        Work(size(36), labels, "encode_labels_fwd", by_plane, 0, 36 * pixels, 5 * pixels),
        Work(size(3), maps, "instance_mean_reduce", "instance_mean_reduce_kernel<{type}>", 3 * pixels, 0, 4 * pixels),
        Work(size(3), maps, "instance_mean_broadcast", BROADCAST, 0, 3 * pixels, 4 * pixels),
        Work("[1, 64, 512, 1024]", "", "l1_distance_fwd", L1.format("fwd"), 2 * features, 0, features, kernels=2),
        Work("[1, 64, 512, 1024]", "", "l1_distance_bwd", L1.format("bwd"), 0, features, features),
    ]


def kernel_of(work: Work, layout: str, dtype: str) -> str:
    return work.kernel.format(
        layout=layout,
        type={"float32": "float", "bfloat16": "bf16"}[dtype],
        width=16 // ITEM[dtype],
        word={"float32": "int", "bfloat16": "short"}[dtype],
        plane_or_pixel="planes" if layout == "nchw" else "pixels",
        lanes="" if layout == "nchw" else f", {16 // ITEM[dtype]}",
        last="" if layout == "nchw" else "_last",
    )


def slots_of(work: Work, layout: str, dtype: str, loops: list[Loop]) -> float:
    """Issue slots of a call, by the hot loops of its kernel with accesses of 16 bytes.

    What is read goes through the cheapest loop that only reads and, where it is kept in shared memory, through the
    cheapest that works on it there. What is written goes through the cheapest loop that writes it, or the dearest where
    there are padding and residual. Of these loops, those that write what shared memory holds come first.
    """
    mine = [loop for loop in loops if loop.kernel == kernel_of(work, layout, dtype) and "x16" in loop.widths]
    reading = [loop.slots / bytes_of(loop.loads) for loop in mine if loop.loads and not loop.stores]
    held = [loop.slots / bytes_of(loop.shared) for loop in mine if not loop.loads and not loop.stores]
    writers = [loop for loop in mine if "x16" in loop.stores]
    from_held = [loop for loop in writers if loop.shared and not loop.loads]
    from_memory = [loop for loop in writers if loop.loads]
    writing = [loop.slots / bytes_of(loop.stores) for loop in from_held or from_memory or writers]
    of_read = min(reading, default=0.0) + min(held, default=0.0)
    of_written = (max if "pad" in work.variant else min)(writing, default=0.0)
    return (work.read * of_read + work.written * of_written) * ITEM[dtype] / 32


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


# --- the page ---

INTRODUCTION = f"""# What the CUDA kernels are predicted to reach

**Predictions, not measurements.** No GPU made a number on this page; `python -m tests.csrc.gpu_model` writes it from
counts. The last column waits for a device: `benchmarks/run_gpu.sh` measures these calls.

The time of a call is the longest of the first three of these, and the fourth, which overlaps with none of them:

- **memory:** the bytes that pass between memory and a cache of the GPU's size, by the rate of a copy;
- **cache:** the 32-byte sectors that all warps ask for, by {SECTOR_BYTES_OF_A_CLOCK} bytes a clock and multiprocessor;
- **issue:** the instructions of the hot loops, by {SLOTS_OF_A_CLOCK} a clock and multiprocessor;
- **launch:** {LAUNCH * 1e6:g} µs for each kernel, and {WAIT * 1e6 / 2:g} µs for each round of a kernel whose blocks
  wait for each other, as one of two blocks of a multiprocessor waits while the other loads or stores. A round is as
  much as all blocks hold, {HELD >> 10} KiB a multiprocessor.

"Of copy" is the time in which the GPU copies as many bytes as the call has to read and write at least, by this time.
The bytes and sectors come from `tests/csrc/traffic.csv`, which the tests count on emulated kernels, for images of 1/33
of the size on an emulated GPU of 1/33 of the size of an H200. Its cache gives up first what was used longest ago, or
what was stored with the hint that it is not read again. The L40S, whose cache is larger and whose blocks hold less,
gets the same counts. Instructions come from `tests/csrc/sass.csv`, read from the code for sm_90.

The model leaves out how many loads are in flight, conflicts of shared memory, and clocks that fall under load.
label_conv2d and instance_index are not predicted: their tables do not grow with the image, so that counts at a small
one say little of a large one.
"""


def rows_of(gpu: Gpu) -> Iterator[str]:
    table = traffic.read_table()
    _, loops = sass.read_table()
    yield f"## {gpu.name}"
    yield ""
    yield f"{gpu.multiprocessors} multiprocessors at {gpu.clock / 1e9:g} GHz; a copy moves {gpu.copy / 1e12:g} TB/s."
    yield ""
    yield "| call | shape | layout | dtype | predicted, µs | bound by | of copy, predicted | of copy, measured |"
    yield "|---|---|---|---|---:|---|---:|---:|"
    for work in works():
        for row in table.values():
            if (row.variant, row.function) != (work.variant, work.function):
                continue
            made = predict(work, row, slots_of(work, row.layout, row.dtype, list(loops.values())), gpu)
            layout = row.layout.upper() or "any"
            yield (
                f"| {work.function} | {work.title} | {layout} | {row.dtype} | {made.time * 1e6:.0f} | {made.bound} "
                f"| {made.of_copy:.0%} | |"
            )
    yield ""


def page() -> str:
    return "\n".join([INTRODUCTION, *(line for gpu in GPUS for line in rows_of(gpu))])


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
