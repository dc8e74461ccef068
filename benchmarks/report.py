"""`hdgan bench report`: tables and plots from the rows, put into README.md and docs/benchmarks.md."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import groupby
from pathlib import Path

from hdgan.benchmarks.plots import draw_roofline, draw_speedups
from hdgan.benchmarks.rows import CHECKOUT, Measurement, folder_for, path_for, read
from hdgan.benchmarks.runner import GRAPH, IMPLEMENTATIONS
from hdgan.errors import ConfigError
from hdgan.files import write_text
from hdgan.wording import count, markdown_table

BEGIN, END = "<!-- begin: hdgan bench report -->", "<!-- end: hdgan bench report -->"
OURS = ("cpu", "cuda", "triton", GRAPH, "hdgan")
NONE_YET = "No results yet: `hdgan bench` measures, `hdgan bench report` writes this.\n"
PAGE = "benchmarks.md"


def report(out: Path | None = None, publish: bool = False, root: Path | None = None) -> int:
    """Write tables and plots from the rows of all devices.

    They are written to benchmarks.md in the folder of the rows, or with --publish to README.md and docs/benchmarks.md
    of a checkout, between their markers.

    Args:
        out: folder of the rows, one CSV file for each device; if left out, hdgan-bench in the current folder.
        publish: write the pages of a checkout from the rows in its benchmarks/results.
        root: folder of the checkout for --publish; if left out, the checkout that this hdgan is from.
    """
    if root is not None and not publish:
        raise ConfigError(f"--root {root} gives the checkout for --publish: add --publish, or leave --root out")
    root = root or CHECKOUT
    return _published(root, folder_for(out, publish, root)) if publish else _own(folder_for(out, publish))


def _own(folder: Path) -> int:
    devices = _devices(folder)
    if not devices:
        raise ConfigError(f"{folder} contains no rows: run `hdgan bench` first, or give their folder with --out")
    _draw(devices, folder)
    page = folder / PAGE
    write_text(page, f"# Benchmarks\n\n{summary(devices)}\n\n{details(devices)}\n")
    print(page)
    return 0


def _published(root: Path, folder: Path) -> int:
    devices = _devices(folder)
    pages = {"README.md": headlines(devices), f"docs/{PAGE}": f"{summary(devices)}\n\n{details(devices)}"}
    for name in pages:  # before the first is written
        require_markers(root / name)
    _draw(devices, root / "docs")
    for name, text in pages.items():
        insert(root / name, text)
        print(root / name)
    return 0


def _devices(folder: Path) -> list[list[Measurement]]:
    return [rows for path in sorted(folder.glob("*.csv")) if (rows := read(path))]


def _draw(devices: Sequence[Sequence[Measurement]], folder: Path) -> None:
    """Draw the plots where a page in `folder` looks for them."""
    for rows in devices:
        for draw, kind in ((draw_roofline, "roofline"), (draw_speedups, "speed-up")):
            draw(rows, folder / plot_name(rows, kind))


def require_markers(page: Path) -> None:
    """Raise ConfigError if a page has no place for a report."""
    if not page.is_file():
        raise ConfigError(f"{page} does not exist: run this in a checkout of hdgan, or give one with --root")
    text = page.read_text(encoding="utf-8")
    if text.count(BEGIN) != 1 or text.count(END) != 1 or text.index(BEGIN) > text.index(END):
        raise ConfigError(
            f"{page}: expected one line {BEGIN} and after it one line {END}; put them where the tables go"
        )


def insert(page: Path, report: str) -> None:
    """Replace what is between a page's markers by a report."""
    text = page.read_text(encoding="utf-8")
    before, after = text[: text.index(BEGIN) + len(BEGIN)], text[text.index(END) :]
    write_text(page, f"{before}\n\n{report.strip()}\n\n{after}")


def plot_name(rows: Sequence[Measurement], kind: str) -> str:
    return f"benchmarks/{path_for(Path(), rows[0].device).stem}-{kind}.svg"


def headlines(devices: Sequence[Sequence[Measurement]]) -> str:
    """One line for each benchmark, of the GPUs if one was measured, else of the CPUs.

    It is that of forward and backward pass in bfloat16 on GPUs and in float32 on CPUs, where these were measured.
    """
    gpus = [rows for rows in devices if rows[0].cuda]
    parts = []
    for rows in gpus or devices:
        usual = ("bfloat16" if gpus else "float32", "-")
        chosen = []
        for _, group in _by(rows, "benchmark"):
            measured = sorted(group, key=lambda row: (row.direction != "both", row.dtype not in usual))
            same = [r for r in measured if (r.direction, r.dtype) == (measured[0].direction, measured[0].dtype)]
            chosen.append(_headline(same, _KNOWN))
        header = ["benchmark", "case", "eager, ms", "hdgan, ms", "speed-up", *_KNOWN.values()]
        lines = [line[: len(header)] for line in chosen if line]
        parts += [f"**{rows[0].device}**, {_environment(rows)}:", markdown_table(header, lines)]
    return "\n\n".join(parts) or NONE_YET


_KNOWN = {"compile": "torch.compile", "nvidia": "NVIDIA's code"}
"""Columns of README.md, whose readers may not know the others."""


def summary(devices: Sequence[Sequence[Measurement]]) -> str:
    """A table for each device: the longest case of each benchmark, dtype and pass, with all speed-ups."""
    parts = []
    for rows in devices:
        others = [name for name in _OTHERS if any(_column(row) == name for row in rows)]
        header = ["benchmark", "case", "eager, ms", "hdgan, ms", "speed-up", *others, "of ceiling"]
        lines = [_headline(list(group), others) for _, group in _by(rows, "benchmark", "dtype", "direction")]
        parts += [
            f"**{rows[0].device}**, {_environment(rows)}:",
            markdown_table(header, [line for line in lines if line]),
        ]
    return "\n\n".join(parts) or NONE_YET


_OTHERS = ("eager NHWC", *(name for name in IMPLEMENTATIONS if name not in (*OURS, "eager")))
"""Columns of what ours are compared with, besides eager NCHW, which everything is compared with."""


def _column(row: Measurement) -> str:
    return f"eager {row.layout}" if row.implementation == "eager" else row.implementation


def _headline(rows: list[Measurement], others: Iterable[str]) -> list[str] | None:
    """The line of a benchmark, dtype and pass, of the case that takes eager PyTorch longest. None if ours has none.

    Only speed-ups are compared, each of which is of one run, since rows may come from several runs.
    """
    compared = [row for row in rows if row.speedup is not None and not _is_baseline(row)]
    ours = [row for row in compared if row.implementation in OURS]
    if not ours:
        return None
    longest = max(ours, key=_eager_ms)
    fastest: dict[str, Measurement] = {}
    for row in sorted((row for row in compared if row.case == longest.case), key=lambda row: row.speedup or 0):
        fastest["hdgan" if row.implementation in OURS else _column(row)] = row
    best = fastest["hdgan"]
    return [
        best.benchmark,
        ", ".join((best.case, best.direction, best.dtype)).removesuffix(", -"),
        _ms(_eager_ms(best)),
        f"{_ms(best.median_ms)} ({best.implementation} {best.layout})".replace(" -)", ")"),
        f"{best.speedup:.2f}x",
        *(_speedup(fastest.get(name)) for name in others),
        "" if best.ceiling_percent is None else f"{best.ceiling_percent:.0f} % {best.bound}",
    ]


def _speedup(row: Measurement | None) -> str:
    if row is None:
        return ""
    return f"{row.speedup:.2f}x" if row.implementation == "eager" else f"{row.speedup:.2f}x ({row.layout})"


def _eager_ms(row: Measurement) -> float:
    """The time of eager NCHW in the run of a row that has a speed-up."""
    return row.median_ms * (row.speedup or 0)


def _is_baseline(row: Measurement) -> bool:
    return row.implementation == "eager" and row.layout in ("NCHW", "-")


def details(devices: Sequence[Sequence[Measurement]]) -> str:
    """All rows: for each device and benchmark a table of cases by implementations, and another one of memory."""
    parts = []
    for rows in devices:
        parts += [f"## {rows[0].device}", _environment(rows) + ".", _ceilings(rows)]
        for kind, what in (
            ("roofline", "Achieved rates under the ceilings"),
            ("speed-up", "Speed-ups over eager NCHW"),
        ):
            parts.append(f"![{what}]({plot_name(rows, kind)})")
        for (benchmark,), group in _by(rows, "benchmark"):
            measured = list(group)
            parts += [f"### {benchmark}", _times(measured)]
            memory = _memory(measured)
            parts += [memory] if memory else []
    return "\n\n".join(parts) or NONE_YET


def _times(rows: Sequence[Measurement]) -> str:
    """Median in ms, 20 and 80 % quantiles, speed-up over eager NCHW, and percent of the ceiling."""
    names = [name for name in IMPLEMENTATIONS if any(row.implementation == name for row in rows)]
    lines = []
    for key, group in _by(rows, "case", "direction", "dtype", "layout"):
        found = {row.implementation: row for row in group}
        lines.append([*key, *(_cell(found[name]) if name in found else "" for name in names)])
    return markdown_table(["case", "pass", "dtype", "layout", *names], lines)


def _cell(row: Measurement) -> str:
    parts = [f"{_ms(row.median_ms)} ({_ms(row.q20_ms)}-{_ms(row.q80_ms)})"]
    parts += [] if row.speedup is None else [f"{row.speedup:.2f}x"]
    parts += [] if row.ceiling_percent is None else [f"{row.ceiling_percent:.0f} %"]
    return ", ".join(parts)


def _memory(rows: Sequence[Measurement]) -> str:
    """MB kept for backward and, on GPUs, the peak."""
    rows = [row for row in rows if row.saved_bytes is not None]
    names = [name for name in IMPLEMENTATIONS if any(row.implementation == name for row in rows)]
    lines = []
    for key, group in _by(rows, "case", "dtype", "layout"):
        found = {row.implementation: row for row in group}
        lines.append([*key, *(_megabytes(found[name]) if name in found else "" for name in names)])
    header = ["kept for backward (peak), MB", "dtype", "layout", *names]
    return markdown_table(header, lines) if lines else ""


def _megabytes(row: Measurement) -> str:
    assert row.saved_bytes is not None
    peak = "" if row.peak_bytes is None else f" ({row.peak_bytes / 1e6:.1f})"
    return f"{row.saved_bytes / 1e6:.1f}{peak}"


def _ceilings(rows: Sequence[Measurement]) -> str:
    dtypes = {row.dtype: row for row in rows if row.dtype != "-"}
    matmul = ", ".join(f"{row.matmul_tflop_s:.3g} TFLOP/s in {dtype}" for dtype, row in dtypes.items())
    return f"Ceilings of the same runs: copy {rows[-1].copy_gb_s:.3g} GB/s; matmul {matmul or 'not measured'}."


def _environment(rows: Sequence[Measurement]) -> str:
    """The versions that rows were measured with: those of the newest row, for each version of PyTorch and allocator."""
    newest: dict[tuple[object, ...], Measurement] = {}
    for row in sorted(rows, key=lambda row: row.date, reverse=True):
        newest.setdefault((row.torch, row.cuda, row.triton, row.threads, row.allocator), row)
    return "; other rows by ".join(_versions(row) for row in newest.values())


def _versions(row: Measurement) -> str:
    cuda = f" with CUDA {row.cuda}, triton {row.triton}" if row.cuda else f" on {count(row.threads, 'thread')}"
    allocator = f", {row.allocator}" if row.allocator and not row.cuda else ""
    return f"PyTorch {row.torch}{cuda}{allocator}, hdgan {row.hdgan}, {row.date}"


def _by(rows: Iterable[Measurement], *names: str) -> Iterable[tuple[tuple[str, ...], Iterable[Measurement]]]:
    """Groups of rows that are equal in some columns, in the order in which the groups first appear."""

    def key(row: Measurement) -> tuple[str, ...]:
        return tuple(getattr(row, name) for name in names)

    rows = list(rows)
    order = list(dict.fromkeys(map(key, rows)))
    return groupby(sorted(rows, key=lambda row: order.index(key(row))), key)


def _ms(value: float) -> str:
    return f"{value:.3g}" if value < 1000 else f"{value:.0f}"
