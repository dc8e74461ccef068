"""A sheet of the clusters of every class, as a page or a PNG: each row shows the examples of one cluster."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from hdgan.data.spec import DatasetSpec, class_name
from hdgan.errors import ConfigError
from hdgan.files import save_png
from hdgan.reporting.images import JPEG_QUALITY, data_url
from hdgan.reporting.page import write_page
from hdgan.styles.bank import StyleBank
from hdgan.styles.crops import SIZE, Cropper

_GAP, _TITLE, _LEFT = 6, 30, 64
"""Pixels of the PNG: between crops, above a class for its name, and left of the crops for their cluster."""
_ClusterRow = tuple[int, int | None, list[Image.Image]]
"""Number of a cluster in its class, instances in it, crops."""


def write_sheet(
    bank: StyleBank, cropper: Cropper, path: Path, spec: DatasetSpec | None = None, examples: int = 8
) -> None:
    """Write a sheet of all clusters, with the examples that are nearest to each centre.

    Args:
        bank: clusters with examples.
        cropper: of the photos that were encoded.
        path: .html, which needs no other file, or .png.
        spec: names and colours of the classes; without it they are numbered.
        examples: of each cluster, at most.

    Raises:
        ConfigError: the path has another ending, or the clusters have no examples.
        DataError: a photo is no longer there.
        HdganError: the file cannot be written.
    """
    kind = path.suffix.lower()
    if kind not in (".html", ".png"):
        raise ConfigError(f"{path} must end in .html or .png")
    shown = [example for clusters in bank.clusters.values() for c in clusters for example in c.examples[:examples]]
    if not shown:
        raise ConfigError(
            "the clusters have no examples (NVIDIA's file has none): create them with `hdgan styles cluster`"
        )
    crops = cropper.crops(shown)
    colors = () if spec is None else spec.css_colors
    classes = [
        (
            class_name(spec, label),
            colors[label] if label < len(colors) else "",
            [(k, c.count, [crops[example] for example in c.examples[:examples]]) for k, c in enumerate(clusters)],
        )
        for label, clusters in sorted(bank.clusters.items())
    ]
    if kind == ".png":
        save_png(_draw(classes), path)
        return
    url = partial(data_url, kind="JPEG", quality=JPEG_QUALITY)
    content = {"checkpoint": bank.origin.checkpoint, "classes": classes, "url": url, "size": SIZE}
    write_page("evaluation/style_sheet.html", content, path)


def _draw(classes: list[tuple[str, str, list[_ClusterRow]]]) -> Image.Image:
    """Draw all classes, one below the other."""
    step, font = SIZE + _GAP, ImageFont.load_default(14)
    rows = [row for *_, clusters in classes for row in clusters]
    columns = max(len(crops) for _, _, crops in rows)
    sheet = Image.new("RGB", (_LEFT + columns * step, len(classes) * _TITLE + len(rows) * step), "white")
    draw, y = ImageDraw.Draw(sheet), 0
    for name, _, clusters in classes:
        draw.text((_GAP, y + 6), name, "black", ImageFont.load_default(17))
        y += _TITLE
        for number, count, crops in clusters:
            draw.text((_GAP, y + SIZE // 2 - 16), str(number), "black", font)
            draw.text((_GAP, y + SIZE // 2), f"{count} x", (110, 110, 110), font)
            for column, image in enumerate(crops):
                sheet.paste(image, (_LEFT + column * step, y))
            y += step
    return sheet
