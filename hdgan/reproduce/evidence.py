"""evidence.md from the raw rows alone: the tables, and which orders came out as tested and which did not.

The same rows give the same page.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from statistics import mean, stdev

from scipy.stats import ttest_1samp

from hdgan.errors import DataError
from hdgan.files import atomic_file
from hdgan.reproduce.plan import ROWS, TABLES, Table
from hdgan.reproduce.results import REAL, Result, read_csv

PAGE = "evidence.md"
EVIDENCE = "evidence"
"""Folder beside the page: one CSV and one picture a scale."""
COLUMNS = {
    "miou": ("mean IoU ↑", 3),
    "pixel_accuracy": ("pixel accuracy ↑", 3),
    "psnr": ("PSNR, dB ↑", 2),
    "ssim": ("SSIM ↑", 3),
    "lpips": ("LPIPS ↓", 3),
    "fid": ("FID ↓", 1),
    "kid": ("KID ↓", 4),
    "scorer_fid": ("FID of the scorer's features ↓", 2),
}
"""Metrics of the tables: their heading and digits."""
ORDERED_BY = "miou"
HARDLY = 0.05
"""IoU of real photos below which the scorer is said not to know a class."""

_INTRODUCTION = """# Evidence

pix2pixHD's comparisons and ablations (Wang et al., CVPR 2018, [arXiv 1711.11585](https://arxiv.org/abs/1711.11585)) at
a small scale, on the built-in street scenes. `hdgan reproduce` trains and scores all runs; `hdgan reproduce report`
writes this page from the rows in `evidence/` and nothing else.

How to read it:

- Tables show mean ± standard deviation over seeds. The scorer says how much of the label maps can be recognised in the
  pictures. Real photos, scored by the same network, are the row to compare with; they are no upper bound, as a picture
  can be plainer than a photo.
- All rows of a scale see as many training pictures. They have one learning rate and one schedule of it, whatever their
  authors used, and are scored at the end of training, by the averaged weights. A row differs from pix2pixHD in what its
  table names and in nothing else.
- The perceptual loss has no ImageNet weights: it compares the features of a small segmentation network that was trained
  on the training scenes (`--loss.scorer`). The scorer is another such network, of another seed: no loss sees the judge,
  but it is of the judge's kind.
- These are minutes on small drawn scenes, not days on Cityscapes. What differs from the paper may be due to that."""


def write_evidence(docs: Path) -> Path:
    """Write docs/evidence.md from docs/evidence/*.csv.

    Raises:
        DataError: there are no rows, or they are of another version.
    """
    files = sorted((docs / EVIDENCE).glob("*.csv"))
    if not files:
        raise DataError(f"{docs / EVIDENCE} holds no rows (*.csv): run hdgan reproduce with --docs {docs} first")
    scales = [results for file in files if (results := read_csv(file))]
    page = docs / PAGE
    with atomic_file(page) as temporary:
        temporary.write_text(page_text(scales, docs), encoding="utf-8")
    return page


def page_text(scales: Sequence[Sequence[Result]], docs: Path) -> str:
    """The page for the results of each scale; pictures are shown if they lie beside the rows."""
    parts = [_INTRODUCTION]
    for results in scales:
        first = results[0]
        parts += [f"## {first.scale}: {first.width}x{first.height}", _conditions(results), _summary(results)]
        if (docs / EVIDENCE / f"{first.scale}.png").is_file():
            caption = "The first held-out scenes, and what the runs of seed 0 make of their label maps"
            parts.append(f"![{caption}]({EVIDENCE}/{first.scale}.png)\n\n*{caption}.*")
        for table in TABLES:
            parts += _section(table, results)
        parts.append(_recognition(results))
    return "\n\n".join(parts) + "\n"


def _conditions(results: Sequence[Result]) -> str:
    """What the numbers were measured with."""
    runs = [result for result in results if result.row != REAL]
    first = results[0]
    seeds = sorted({run.seed for run in runs if run.seed is not None})
    machines = sorted({f"{run.device} ({run.cores} cores), PyTorch {run.torch}, hdgan {run.hdgan}" for run in runs})
    side_by_side = _range(run.jobs for run in runs)
    threads = _range(run.threads for run in runs)
    hours = sum(run.seconds for run in runs) / 3600
    lines = [
        f"{len(runs)} runs of {len({run.row for run in runs})} models, seeds {', '.join(map(str, seeds))}. Each trains "
        f"on {first.train_scenes} scenes for {_range(run.steps for run in runs)} steps, {first.images} pictures, and "
        f"is scored on {first.held_out} held-out scenes.",
        f"Measured on {'; '.join(machines)}; {side_by_side} runs side by side, {threads} CPU threads each. All steps "
        f"of training together took {hours:.1f} hours of runs, {_range(round(run.seconds) for run in runs)} s a run.",
    ]
    missing = {note for run in runs for note in run.notes.split("; ") if note}
    lines += [f"Not had: {note}." for note in sorted(missing)]
    return "\n\n".join(lines)


def _summary(results: Sequence[Result]) -> str:
    """One line for each order that is tested: first those that came out otherwise."""
    verdicts = [verdict for table in TABLES if (verdict := judge(table, results)) is not None]
    if not verdicts:
        return "No order can be tested yet."
    groups = {
        "Did not come out as tested": [verdict for verdict in verdicts if not verdict.holds],
        "Came out as tested": [verdict for verdict in verdicts if verdict.holds],
    }
    parts = []
    for heading, group in groups.items():
        lines = [f"- {verdict.title}: {verdict.text}" for verdict in group]
        parts.append("\n".join([f"**{heading}:**", "", *(lines or ["- nothing."])]))
    return "\n\n".join(parts)


def _section(table: Table, results: Sequence[Result]) -> list[str]:
    """Heading, what the paper says, rows, and how they compare."""
    rows = [row for row in table.rows if any(result.row == row for result in results)]
    if not rows:
        return []
    parts = [f"### {table.title}", table.paper, _rows([REAL, *rows], results)]
    verdict = judge(table, results)
    if verdict is not None:
        parts.append("\n".join([f"Tested: {verdict.text}", "", *(f"- {line}" for line in verdict.pairs)]))
    return parts


def _rows(names: Sequence[str], results: Sequence[Result]) -> str:
    columns = [name for name in COLUMNS if any(_values(results, row, name) for row in names)]
    lines = [["model", "seeds", *(COLUMNS[name][0] for name in columns), "parameters of G", "s a run"]]
    for name in names:
        own = [result for result in results if result.row == name]
        if not own:
            continue
        cells = [_spread(list(_values(results, name, column).values()), COLUMNS[column][1]) for column in columns]
        if name == REAL:
            lines.append(["real photos", "", *cells, "", ""])
        else:
            size, seconds = f"{own[0].parameters / 1e6:.2f} M", f"{mean(result.seconds for result in own):.0f}"
            lines.append([ROWS[name].title, str(len(own)), *cells, size, seconds])
    return _table(lines)


def _recognition(results: Sequence[Result]) -> str:
    """IoU of each class for every row."""
    classes = [name for name in results[0].metrics if name.startswith("iou_")]
    names = [REAL, *(row for row in ROWS if any(result.row == row for result in results))]
    lines = [["IoU", *(name.removeprefix("iou_") for name in classes)]]
    for name in names:
        cells = [_spread(list(_values(results, name, column).values()), 2) for column in classes]
        lines.append([_title(name), *cells])
    weak = [name.removeprefix("iou_") for name in classes if (results[0].metrics[name] or 0) < HARDLY]
    note = f"The scorer hardly finds these classes even in real photos: {', '.join(weak)}." if weak else ""
    return "\n\n".join(filter(None, ["### Classes", note, _table(lines)]))


@dataclass(frozen=True)
class Verdict:
    """Whether rows came out in an order."""

    title: str
    """Of the table."""
    holds: bool
    """Over the mean of the seeds that all rows have."""
    text: str
    pairs: tuple[str, ...]
    """Each two neighbours of the tested order."""


def judge(table: Table, results: Sequence[Result]) -> Verdict | None:
    """Compare the rows of a table by mean IoU with the order that is tested; None without one, or without its rows."""
    scores = {row: _values(results, row, ORDERED_BY) for row in table.expected}
    seeds = [seed for seed in next(iter(scores.values()), ()) if all(seed in found for found in scores.values())]
    if not seeds:
        return None
    means = {row: mean(scores[row][seed] for seed in seeds) for row in table.expected}
    tested = _order(table.expected)
    found = sorted(means, key=lambda row: -means[row])
    holds = _falls([means[row] for row in table.expected])
    agreeing = [seed for seed in seeds if _falls([scores[row][seed] for row in table.expected])]
    over = "" if len(seeds) == 1 else f" over the mean of {len(seeds)} seeds"
    said = "holds" if holds else f"does not hold: {_order(found)}"
    numbers = ", ".join(f"{ROWS[row].title} {means[row]:.3f}" for row in found)
    text = f"{tested} in mean IoU **{said}**{over} ({numbers}); the tested order is that of {_of(agreeing, seeds)}."
    pairs = tuple(
        _pair(better, worse, [scores[better][seed] - scores[worse][seed] for seed in seeds])
        for better, worse in pairwise(table.expected)
    )
    return Verdict(table.title, holds, text, pairs)


def _pair(better: str, worse: str, differences: Sequence[float]) -> str:
    """How one row compares with another, seed by seed."""
    line = f"{ROWS[better].title} - {ROWS[worse].title}: {mean(differences):+.3f}"
    if len(differences) > 1:
        above = sum(difference > 0 for difference in differences)
        line += f" ± {stdev(differences):.3f}, above 0 in {above} of {len(differences)} seeds"
    if len(differences) > 1 and stdev(differences) > 1e-9:  # equal differences, rounding aside, have no test
        p = ttest_1samp(differences, 0, alternative="greater").pvalue
        line += f"; one-sided paired t-test, p = {p:.2g}"
    return f"{line}."


def _values(results: Sequence[Result], row: str, metric: str) -> dict[int | None, float]:
    """A metric of a row by seed, where it could be had."""
    own = {result.seed: result.metrics.get(metric) for result in results if result.row == row}
    return {seed: value for seed, value in own.items() if value is not None}


def _title(row: str) -> str:
    return "real photos" if row == REAL else ROWS[row].title


def _order(rows: Iterable[str]) -> str:
    return " > ".join(ROWS[row].title for row in rows)


def _falls(values: Sequence[float]) -> bool:
    return all(first > second for first, second in pairwise(values))


def _of(some: Sequence[object], all_: Sequence[object]) -> str:
    return f"{len(some)} of {len(all_)} seed{'s' * (len(all_) > 1)}"


def _spread(values: Sequence[float], digits: int) -> str:
    """Mean ± standard deviation; empty without values."""
    if not values:
        return ""
    deviation = f" ± {stdev(values):.{digits}f}" if len(values) > 1 else ""
    return f"{mean(values):.{digits}f}{deviation}"


def _range(values: Iterable[int]) -> str:
    found = sorted(set(values))
    return str(found[0]) if len(found) == 1 else f"{found[0]} to {found[-1]}"


def _table(lines: Sequence[Sequence[str]]) -> str:
    rows = [lines[0], ["---"] * len(lines[0]), *lines[1:]]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)
