"""What an evaluation leaves: scores.csv, classes.csv, and evaluation.html, one file that needs no other."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from PIL import Image
from torch import Tensor

from hdgan.data import Sample
from hdgan.data.colors import colorize_labels, data_url, preview, to_image
from hdgan.files import atomic_file
from hdgan.metrics.scores import HIGHER_IS_BETTER, TITLES, RunScores, notes_of, shown

PAGE = "evaluation.html"
SCORES = "scores.csv"
CLASSES = "classes.csv"
LOSSLESS_PIXELS = 320
"""Up to this width pictures stay PNG."""


@dataclass(frozen=True)
class Picture:
    """An embedded picture."""

    title: str
    source: str
    width: int
    height: int
    is_map: bool


@dataclass(frozen=True)
class Example:
    """One label map or input with the pictures that were made from it; beside them what the scorer saw in each."""

    stem: str
    pictures: list[Picture]
    recognised: list[Picture]


@dataclass(frozen=True)
class Facts:
    """What is said about an evaluation beside its scores."""

    lines: dict[str, str]
    """For example the number of pictures and the scorer."""
    remarks: tuple[str, ...] = ()
    """Sentences on how to read the scores."""
    class_names: tuple[str, ...] = ()
    """By label; a class without name is shown by its number."""
    columns: dict[str, Any] = field(default_factory=dict)
    """Further columns of scores.csv and classes.csv, the same in every row."""

    def class_name(self, label: int) -> str:
        return self.class_names[label] if label < len(self.class_names) else str(label)


@dataclass
class Gallery:
    """The pictures that the page shows, the first of the split.

    Args:
        names: of the pictures of each sample: the photo, then the runs.
        palette: colours of the classes, [n_classes, 3] uint8; None takes a general one.
        limit: samples that are kept.
    """

    names: Sequence[str]
    palette: np.ndarray | None = None
    limit: int = 8
    examples: list[Example] = field(default_factory=list)

    def add(self, sample: Sample, pictures: Sequence[Tensor], recognised: Sequence[Tensor | None]) -> None:
        """Keep a sample, unless there are enough.

        Args:
            sample: what the pictures were made from.
            pictures: [1, 3, H, W] in [0, 1], in the order of the names.
            recognised: the classes that the scorer saw in each, [1, H, W], or None.
        """
        if len(self.examples) >= self.limit:
            return
        if "label" in sample:
            source = _embedded("label map", colorize_labels(sample["label"].numpy(), self.palette), is_map=True)
        else:
            image, part = preview(sample["input"])
            source = _embedded(f"input ({part})" if part else "input", image)
        shown = [_embedded(name, to_image(p[0] * 2 - 1)) for name, p in zip(self.names, pictures, strict=True)]
        seen = [
            _embedded(f"{name}, recognised", colorize_labels(labels[0].cpu().numpy(), self.palette), is_map=True)
            for name, labels in zip(self.names, recognised, strict=True)
            if labels is not None
        ]
        self.examples.append(Example(sample["stem"], [source, *shown], seen))


def write_results(out: Path, rows: list[RunScores], gallery: Gallery, facts: Facts) -> Path:
    """Write scores.csv, classes.csv (with label maps and a scorer) and evaluation.html.

    Args:
        out: folder; files of these names in it are replaced, and classes.csv is removed if there is none to write.
        rows: the oracle first.
        gallery: pictures.
        facts: what else is said about the evaluation.

    Returns:
        The page.

    Raises:
        HdganError: a file cannot be written.
    """
    scores = [[row.name, *row.metrics.values(), *facts.columns.values(), _joined(row.notes)] for row in rows]
    _write_csv(out / SCORES, ["run", *rows[0].metrics, *facts.columns, "notes"], scores)
    if rows[0].classes:
        heads = ["run", "class", "label", "pixels", "accuracy", "iou", *facts.columns]
        classes = [
            [row.name, facts.class_name(c.label), c.label, c.pixels, c.accuracy, c.iou, *facts.columns.values()]
            for row in rows
            for c in row.classes
        ]
        _write_csv(out / CLASSES, heads, classes)
    else:
        (out / CLASSES).unlink(missing_ok=True)  # of an earlier evaluation
    templates = Environment(
        loader=PackageLoader("hdgan.evaluation", ""), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    page = templates.get_template(PAGE).render(_content(rows, gallery, facts))
    with atomic_file(out / PAGE) as temporary:
        temporary.write_text(page, encoding="utf-8")
    return out / PAGE


def _content(rows: list[RunScores], gallery: Gallery, facts: Facts) -> dict[str, Any]:
    total = max(sum(score.pixels for score in rows[0].classes), 1)
    return {
        "names": [row.name for row in rows],
        "written": datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z"),
        "facts": facts.lines,
        "titles": TITLES,
        "higher": HIGHER_IS_BETTER,
        "oracle": rows[0],
        "runs": rows[1:],
        "best": {name: _best(rows, name) for name in TITLES},
        "notes": notes_of(rows),
        "remarks": facts.remarks,
        "shown": shown,
        "classes": [
            (facts.class_name(score.label), score.pixels / total, [row.classes[k].iou for row in rows])
            for k, score in enumerate(rows[0].classes)
        ],
        "examples": gallery.examples,
    }


def _best(rows: Sequence[RunScores], name: str) -> float | None:
    """The best value among the runs; None where there is nothing to choose."""
    values = [value for row in rows[1:] if (value := row.metrics[name]) is not None]
    if len(values) < 2:
        return None
    return max(values) if name in HIGHER_IS_BETTER else min(values)


def _joined(notes: dict[str, str]) -> str:
    """Why fields are empty, in one field."""
    return "; ".join(f"{name}: {reason}" for name, reason in notes.items())


def _write_csv(file: Path, heads: Sequence[str], lines: Sequence[Sequence[Any]]) -> None:
    with atomic_file(file) as temporary, temporary.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(heads)
        writer.writerows(lines)  # None becomes an empty field


def _embedded(title: str, image: Image.Image, is_map: bool = False) -> Picture:
    """Maps stay exact, large photos become JPEG."""
    source = data_url(image, "PNG" if is_map or image.width <= LOSSLESS_PIXELS else "JPEG", optimize=True, quality=92)
    return Picture(title, source, image.width, image.height, is_map)
