"""The results of an evaluation: scores.csv, class_scores.csv, and evaluation.html, a page that needs no other file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import isfinite
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from hdgan.data import Sample
from hdgan.data.colors import colorize_labels, preview
from hdgan.data.spec import DatasetSpec, class_name
from hdgan.files.csv import write_csv
from hdgan.metrics.scores import ABOUTS, HIGHER_IS_BETTER, TITLES, RunScores, notes_of, shown
from hdgan.reporting.charts import Chart, draw_spectra
from hdgan.reporting.images import EmbeddedImage, embed
from hdgan.reporting.page import write_page

PAGE = "evaluation.html"
SCORES = "scores.csv"
CLASSES = "class_scores.csv"
FORMER_CLASSES = "classes.csv"
"""What earlier versions called it, which now is the name of a file of names (`hdgan.data.class_file`)."""


@dataclass(frozen=True)
class ShownSample:
    """One sample on the page."""

    stem: str
    images: list[EmbeddedImage]
    """The label map or input, the photo, and the image of each run."""
    recognised: list[EmbeddedImage]
    """The classes that the scorer recognised in the photo and in the image of each run. Empty without a scorer."""


@dataclass(frozen=True)
class Facts:
    """What the page says about an evaluation in addition to its scores."""

    lines: dict[str, str]
    """For example the number of samples and the scorer."""
    remarks: tuple[str, ...] = ()
    """Sentences on how to read the scores."""
    from_labels: bool = True
    """Whether images are generated from label maps rather than from images."""
    classes: DatasetSpec | None = None
    """Names and colours of the classes, where they are known."""
    columns: dict[str, Any] = field(default_factory=dict)
    """Further columns of scores.csv and class_scores.csv, with the same value in every row."""


@dataclass
class Gallery:
    """The samples that the page shows, the first of the split.

    Args:
        names: of the images of each sample: the photo, then the runs.
        palette: colours of the classes, [n_classes, 3] uint8; None takes a general one.
        limit: number of samples that are kept.
    """

    names: Sequence[str]
    palette: np.ndarray | None = None
    limit: int = 8
    samples: list[ShownSample] = field(default_factory=list)

    def embed(
        self, index: int, sample: Sample, images: Sequence[Tensor], recognised: Sequence[Tensor | None]
    ) -> ShownSample | None:
        """What the page shows of a sample; None for one beyond the limit.

        Args:
            index: of the sample in the split.
            sample: what the images were made from.
            images: [1, C, H, W] float in [0, 1], in the order of the names.
            recognised: the classes that the scorer recognised in each, [1, H, W] integer, or None.
        """
        if index >= self.limit:
            return None
        if "label" in sample:
            source = self._embed_labels(sample["label"], "label map")
        else:
            source = _embed_preview(sample["input"], "input")
        made = [_embed_preview(one[0] * 2 - 1, name) for name, one in zip(self.names, images, strict=True)]
        seen = [
            self._embed_labels(labels[0], f"{name}, recognised")
            for name, labels in zip(self.names, recognised, strict=True)
            if labels is not None
        ]
        return ShownSample(sample["stem"], [source, *made], seen)

    def _embed_labels(self, labels: Tensor, title: str) -> EmbeddedImage:
        return embed(colorize_labels(labels.cpu().numpy(), self.palette), title, is_map=True)


def _embed_preview(image: Tensor, title: str) -> EmbeddedImage:
    shown, part = preview(image)
    return embed(shown, f"{title} ({part})" if part else title)


def write_results(out: Path, rows: list[RunScores], gallery: Gallery, facts: Facts) -> Path:
    """Write scores.csv, class_scores.csv (with label maps and a scorer) and evaluation.html.

    Args:
        out: folder. Files of these names in it are replaced, and class_scores.csv is removed if there is none to write.
        rows: the oracle first.
        gallery: the samples that the page shows.
        facts: what else the page says about the evaluation.

    Returns:
        The page.

    Raises:
        HdganError: a file cannot be written.
    """
    scores = [[row.name, *row.metrics.values(), *facts.columns.values(), _joined(row.notes)] for row in rows]
    write_csv(out / SCORES, ["run", *rows[0].metrics, *facts.columns, "notes"], scores)
    if rows[0].classes:
        heads = ["run", "class", "label", "pixels", "accuracy", "iou", *facts.columns]
        named = facts.classes is not None
        classes = [
            [
                row.name,
                class_name(facts.classes, c.label) if named else c.label,
                c.label,
                c.pixels,
                c.accuracy,
                c.iou,
                *facts.columns.values(),
            ]
            for row in rows
            for c in row.classes
        ]
        write_csv(out / CLASSES, heads, classes)
    else:
        (out / CLASSES).unlink(missing_ok=True)  # of an earlier evaluation
    return write_page(f"evaluation/{PAGE}", _content(rows, gallery, facts), out / PAGE)


def _content(rows: list[RunScores], gallery: Gallery, facts: Facts) -> dict[str, Any]:
    total = max(sum(score.pixels for score in rows[0].classes), 1)
    colors = () if facts.classes is None else facts.classes.css_colors
    return {
        "names": [row.name for row in rows],
        "facts": facts.lines,
        "titles": TITLES,
        "abouts": [(TITLES[name], ABOUTS[name]) for name in TITLES],
        "from_labels": facts.from_labels,
        "spec": facts.classes,
        "higher": HIGHER_IS_BETTER,
        "oracle": rows[0],
        "runs": rows[1:],
        "best": {name: _best(rows, name) for name in TITLES},
        "notes": notes_of(rows),
        "remarks": facts.remarks,
        "shown": shown,
        "classes": [
            (
                class_name(facts.classes, score.label),
                colors[score.label] if score.label < len(colors) else None,
                score.pixels / total,
                [row.classes[k].iou for row in rows],
            )
            for k, score in enumerate(rows[0].classes)
        ],
        "charts": _spectra(rows[1:]),
        "samples": gallery.samples,
    }


def _spectra(runs: Sequence[RunScores]) -> list[Chart]:
    """A chart for each run whose spectra are finite, with its patterns below the name."""
    known = [(run.name, run.spectra) for run in runs if run.spectra is not None and isfinite(run.spectra.distance)]
    levels = [level for _, spectra in known for level in (*spectra.image, *spectra.photo)]
    return [
        draw_spectra(
            name,
            "; ".join(f"{pattern} {excess:+.2f} dB" for pattern, excess in spectra.patterns.items()),
            spectra.frequencies,
            {"generated": spectra.image, "photos": spectra.photo},
            (min(levels), max(levels)),
        )
        for name, spectra in known
    ]


def _best(rows: Sequence[RunScores], name: str) -> float | None:
    """The best value of the runs; None if fewer than two have a value."""
    values = [value for row in rows[1:] if (value := row.metrics[name]) is not None]
    if len(values) < 2:
        return None
    return max(values) if name in HIGHER_IS_BETTER else min(values)


def _joined(notes: dict[str, str]) -> str:
    """The reasons why fields are empty, in one field."""
    return "; ".join(f"{name}: {reason}" for name, reason in notes.items())
