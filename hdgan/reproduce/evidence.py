"""evidence.md, made from the raw rows: tables, and which orders the seeds support, reverse or leave undecided.

The same rows always give the same page. Remarks, which somebody has written beside them, are shown as they are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean, stdev

from hdgan.errors import DataError
from hdgan.files import write_text
from hdgan.files.json import read_text
from hdgan.reproduce.chart import Scores, write_chart
from hdgan.reproduce.conditions import COLUMNS, Measured, conditions
from hdgan.reproduce.plan import ROWS, TABLES, Table
from hdgan.reproduce.results import REAL, Result, load_requested, read_results, remedy
from hdgan.reproduce.strips import find_strips
from hdgan.reproduce.verdicts import SIGNIFICANT, PairTest, values, verdicts_of
from hdgan.wording import count, markdown_table

PAGE = "evidence.md"
EVIDENCE = "evidence"
"""Folder next to the page: for each scale a CSV file, a JSON file of what was requested, a folder of images, a chart,
and remarks."""
CHARTED = ("miou", "scorer_fid", "spectrum", "pattern", "instance_edges")
"""The metrics of the chart, as far as there are any."""
HARDLY = 0.05
"""IoU of real photos below which the page says that the scorer hardly finds a class."""

_INTRODUCTION = """\
pix2pixHD's comparisons and ablations (Wang et al., CVPR 2018, [arXiv 1711.11585](https://arxiv.org/abs/1711.11585)) at
a small scale, on the built-in street scenes. `hdgan reproduce` trains and scores all runs; `hdgan reproduce report`
writes this page from what is in `evidence/` and nothing else: the rows, and remarks where there are some.

How to read it:

- Tables show mean ± standard deviation over seeds. The scorer recognises classes in the images, and the segmentation
  scores compare them with the label maps. Real photos, scored by the same network, are the row to compare with. They
  are no upper bound, since an image can be plainer than a photo.
- All rows of a scale see the same number of training images, with the same learning rate, which falls over the last
  of them, whatever their authors used. They are scored at the end of training, with the averaged weights. An ablation
  differs from pix2pixHD only in what its table names. G1 alone also has another schedule, a single stage at the full
  resolution. pix2pix and CRN have their own networks and losses.
- An order is tested pair by pair, by mean IoU and, where a table says so, by another score, over the seeds that all its
  rows have. It is supported if a two-sided paired t-test has p < {significant} and the difference has the tested sign
  for every seed, and reversed if it has the other sign. Otherwise it is not decided; a single seed never decides. p is
  not corrected for the number of comparisons, which is {pairs} for each scale.
- These runs take minutes on small drawn scenes, not days on Cityscapes. That may explain differences from the paper."""

_OVERVIEW = "The conclusion about each order, the mean difference and the number of seeds; the sections below say more."

_STRIPS = "The first held-out scenes, and what each model makes of their label maps and instance maps:"

_CHART = "The scores of every seed; a stroke is the mean of a row, and the dashed line is the score of real photos"

_LIKE_THE_SCORER = (
    "The perceptual loss has no ImageNet weights. It compares the features of a network that differs from the scorer "
    "only in its seed, which favours the rows with this loss: {}."
)


def write_evidence(docs: Path) -> Path:
    """Write docs/evidence.md, and a chart for each scale, from docs/evidence/*.csv.

    Raises:
        DataError: there are no rows, or they are damaged or of another version, or remarks cannot be read. The page is
            then unchanged.
        HdganError: the page or a chart cannot be written.
    """
    files = sorted((docs / EVIDENCE).glob("*.csv"))
    if not files:
        raise DataError(f"{docs / EVIDENCE} contains no rows (*.csv): run `hdgan reproduce --docs {docs}` first")
    scales = [_measured(file) for file in files]
    remarks = {file.stem: _remarks(file.with_suffix(".txt")) for file in files}
    for file, measured in zip(files, scales, strict=True):
        _draw(file.with_suffix(".svg"), measured.results)
    page = docs / PAGE
    write_text(page, page_text(scales, docs, remarks))
    return page


def _draw(chart: Path, results: Sequence[Result]) -> None:
    rows = [row for row in ROWS if any(result.row == row for result in results)]
    panels: dict[str, Scores] = {}
    oracle: dict[str, float | None] = {}
    for metric in CHARTED:
        heading, scores = COLUMNS[metric][0], {row: values(results, row, metric) for row in rows}
        if any(scores.values()):
            panels[heading] = {ROWS[row].title: list(of_row.values()) for row, of_row in scores.items()}
            oracle[heading] = values(results, REAL, metric).get(None)
    if panels:
        write_chart(chart, panels, oracle)


def _measured(file: Path) -> Measured:
    """Read the CSV file of a scale, and the JSON file next to it of what was requested."""
    measured = Measured(read_results(file), load_requested(file))
    unknown = sorted({*measured.requested.rows, *(run.row for run in measured.runs)} - ROWS.keys())
    if unknown:
        raise DataError(
            f"{file}, or the JSON file next to it, contains rows that this version of hdgan does not know: "
            f"{', '.join(unknown)[:200]}; {remedy(file)}"
        )
    return measured


def page_text(scales: Sequence[Measured], docs: Path, remarks: Mapping[str, str] | None = None) -> str:
    """The text of the page, with remarks by scale; it shows the images next to the rows."""
    pairs = sum(len(table.metrics) * len(table.tested) * (len(table.tested) - 1) // 2 for table in TABLES)
    parts = ["# Evidence", *filter(None, map(_incomplete, scales)), *filter(None, map(_not_requested, scales))]
    parts.append(_INTRODUCTION.format(significant=SIGNIFICANT, pairs=pairs))
    parts += _overview(scales) if len(scales) > 1 else []
    for measured in scales:
        results, first = measured.results, measured.results[0]
        parts += [f"## {first.scale}: {first.width}x{first.height}", conditions(measured), _summary(results)]
        if remark := (remarks or {}).get(first.scale):
            parts.append(remark)
        parts += _images(docs, measured)
        if (docs / EVIDENCE / f"{first.scale}.svg").is_file():
            parts.append(_figure(f"{EVIDENCE}/{first.scale}.svg", _CHART))
        for table in TABLES:
            parts += _section(table, results)
        parts.append(_recognition(results))
    return "\n\n".join(parts) + "\n"


def _remarks(file: Path) -> str:
    """What somebody has written about the rows of a scale, in Markdown; empty if there is no such file."""
    return read_text(file, 1, "a file of remarks", DataError).strip() if file.exists() else ""


def _images(docs: Path, measured: Measured) -> list[str]:
    """The strips of images next to the rows; nothing without any."""
    runs = [(run.row, run.seed) for run in measured.runs if run.seed is not None]
    strips = find_strips(docs / EVIDENCE / measured.scale, runs)
    figures = [_figure(file.relative_to(docs).as_posix(), title) for title, file in strips.items()]
    return [_STRIPS, *figures] if figures else []


def _figure(file: str, caption: str) -> str:
    return f"![{caption}]({file})\n\n*{caption}.*"


def _incomplete(measured: Measured) -> str:
    """A line about the runs that are missing; empty if none is."""
    found = {(run.row, run.seed) for run in measured.runs}
    missing = [run for run in measured.requested.runs if run not in found]
    if not missing:
        return ""
    seeds = {row: [str(seed) for name, seed in missing if name == row] for row in measured.requested.rows}
    names = [f"{ROWS[row].title} seed {', '.join(of_row)}" for row, of_row in seeds.items() if of_row]
    total = len(measured.requested.runs)
    return f"**Incomplete: {total - len(missing)} of {total} runs of {measured.scale}; missing: {'; '.join(names)}.**"


def _not_requested(measured: Measured) -> str:
    """A line about the rows that were left out; empty if none was."""
    left_out = [experiment.title for row, experiment in ROWS.items() if row not in measured.requested.rows]
    if not left_out:
        return ""
    return (
        f"**Rows of {measured.scale} that were not asked for (`--rows`): {', '.join(left_out)}. Tables with fewer than "
        "two rows are left out.**"
    )


def _overview(scales: Sequence[Measured]) -> list[str]:
    """A table with the conclusion of each scale about each order; nothing if none is tested."""
    found = [{pair.order: pair for _, pair in _tested(measured.results)} for measured in scales]
    claimed = {order: pair.claimed for pairs in found for order, pair in pairs.items()}
    lines = []
    for order in sorted(claimed, key=lambda order: not claimed[order]):
        cells = [
            f"{pair.conclusion}, {mean(pair.differences):+.3f}, {count(len(pair.differences), 'seed')}" if pair else "-"
            for pair in (pairs.get(order) for pairs in found)
        ]
        lines.append([order, "yes" if claimed[order] else "no", *cells])
    sizes = (f"{first.scale}, {first.width}x{first.height}" for first in (measured.results[0] for measured in scales))
    return ["## All scales", _OVERVIEW, markdown_table(["order", "in the paper", *sizes], lines)] if lines else []


def _tested(results: Sequence[Result]) -> list[tuple[str, PairTest]]:
    """The tested pairs of all tables, each with the title of its table."""
    verdicts = ((table.title, verdict) for table in TABLES for verdict in verdicts_of(table, results))
    return [(title, pair) for title, verdict in verdicts for pair in verdict.pairs]


def _summary(results: Sequence[Result]) -> str:
    """A line for each tested pair, grouped by its conclusion; what differs from the paper comes first."""
    found = _tested(results)
    if not found:
        return "No order can be tested yet."
    groups = {
        "Not as in the paper": lambda pair: pair.claimed and pair.conclusion == "reversed",
        "In the paper, not decided here": lambda pair: pair.claimed and pair.conclusion == "not decided",
        "As in the paper": lambda pair: pair.claimed and pair.conclusion == "supported",
        "Tested additionally, by us; not said by the paper": lambda pair: not pair.claimed,
    }
    parts = []
    for heading, belongs in groups.items():
        lines = [f"- {title}: {pair.text}." for title, pair in found if belongs(pair)]
        parts.append("\n".join([f"**{heading}:**", "", *(lines or ["- nothing."])]))
    return "\n\n".join(parts)


def _section(table: Table, results: Sequence[Result]) -> list[str]:
    """Heading, what the paper says, rows, and tests of a table; nothing for fewer than two rows."""
    rows = [row for row in table.rows if any(result.row == row for result in results)]
    if len(rows) < 2:
        return []
    parts = [f"### {table.title}", table.paper, _rows([REAL, *rows], results)]
    networks = {result.perceptual_network for result in results if result.row in rows}
    if table.favoured and any(network is not None and network.is_twin for network in networks):
        parts.append(_LIKE_THE_SCORER.format(table.favoured))
    for verdict in verdicts_of(table, results):
        pairs = [f"- {pair.text}{'' if pair.claimed else ' (not in the paper)'}." for pair in verdict.pairs]
        parts.append("\n".join([f"Tested: {verdict.text}", "", *pairs]))
    return parts


def _rows(names: Sequence[str], results: Sequence[Result]) -> str:
    columns = [name for name in COLUMNS if any(values(results, row, name) for row in names)]
    header = ["model", "seeds", *(COLUMNS[name][0] for name in columns), "parameters of G", "CPU s per run"]
    lines = []
    for name in names:
        own = [result for result in results if result.row == name]
        if not own:
            continue
        cells = [_spread(list(values(results, name, column).values()), COLUMNS[column][1]) for column in columns]
        if name == REAL:
            lines.append(["real photos", "", *cells, "", ""])
        else:
            kept = [result.cpu_seconds for result in own if result.cpu_seconds is not None]
            lines.append(
                [ROWS[name].title, str(len(own)), *cells, f"{own[0].parameters / 1e6:.2f} M", _spread(kept, 0)]
            )
    return markdown_table(header, lines)


def _recognition(results: Sequence[Result]) -> str:
    """A table with the IoU of each class in every row."""
    classes = list(dict.fromkeys(name for result in results for name in result.metrics if name.startswith("iou_")))
    names = [REAL, *(row for row in ROWS if any(result.row == row for result in results))]
    lines = []
    for name in names:
        cells = [_spread(list(values(results, name, column).values()), 2) for column in classes]
        lines.append(["real photos" if name == REAL else ROWS[name].title, *cells])
    table = markdown_table(["IoU", *(name.removeprefix("iou_") for name in classes)], lines)
    real = next((result.metrics for result in results if result.row == REAL), {})
    weak = [name.removeprefix("iou_") for name in classes if (iou := real.get(name)) is not None and iou < HARDLY]
    note = f"The scorer hardly finds these classes even in real photos: {', '.join(weak)}." if weak else ""
    return "\n\n".join(filter(None, ["### Classes", note, table]))


def _spread(values: Sequence[float], digits: int) -> str:
    """Mean ± standard deviation; empty without values."""
    if not values:
        return ""
    deviation = f" ± {stdev(values):.{digits}f}" if len(values) > 1 else ""
    return f"{mean(values):.{digits}f}{deviation}"
