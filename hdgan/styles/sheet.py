"""Pictures of the clusters: crops of their examples, as thumbnails and on one sheet."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from PIL import Image, ImageDraw, ImageFont

from hdgan.data import PairedDataset
from hdgan.data.colors import data_url
from hdgan.errors import ConfigError, DataError
from hdgan.files import atomic_file, save_png
from hdgan.styles.bank import Example, StyleBank

SIZE = 96
"""Pixels of a thumbnail's side."""
_MARGIN = 0.2
_GAP, _LINE, _LEFT = 6, 22, 64


class Cutter:
    """Cuts examples out of the training pictures.

    Args:
        dataset: the pictures that were encoded, of any size.
    """

    def __init__(self, dataset: PairedDataset) -> None:
        self.dataset = dataset
        self.positions = {pair.stem: k for k, pair in enumerate(dataset.pairs)}

    def cut(self, examples: Iterable[Example]) -> dict[Example, Image.Image]:
        """Square crops of SIZE pixels, with what is around the instance in pale grey. Each picture is read once.

        Raises:
            DataError: a picture is no longer there.
        """
        by_stem: dict[str, list[Example]] = {}
        for example in examples:
            by_stem.setdefault(example.stem, []).append(example)
        return {example: crop for stem, there in by_stem.items() for example, crop in self._cut_from(stem, set(there))}

    def _cut_from(self, stem: str, examples: set[Example]) -> Iterator[tuple[Example, Image.Image]]:
        if stem not in self.positions:
            raise DataError(
                f"the training pictures have no {stem}, which was encoded: encode them again with `hdgan styles encode`"
            )
        sample = self.dataset[self.positions[stem]]
        photo = sample["photo"].numpy().transpose(1, 2, 0)
        ids = (sample["ids"] if "ids" in sample else sample["label"]).numpy()
        for example in examples:
            yield example, crop(photo, ids == example.id, example.box)


def crop(photo: np.ndarray, mask: np.ndarray, box: tuple[float, float, float, float]) -> Image.Image:
    """Cut one instance out of a photo, or of one larger than the photo's shorter side the middle.

    Args:
        photo: [H, W, 3] uint8.
        mask: [H, W] bool, its pixels.
        box: left, top, right, bottom as shares of width and height.
    """
    pale = 170 + photo.mean(axis=2, keepdims=True) // 4
    image = Image.fromarray(np.where(mask[..., None], photo, pale).astype(np.uint8))
    left, right = box[0] * image.width, box[2] * image.width
    top, bottom = box[1] * image.height, box[3] * image.height
    side = min(image.width, image.height, max(1, round(max(right - left, bottom - top) * (1 + _MARGIN))))
    x = round(min(max((left + right - side) / 2, 0), image.width - side))
    y = round(min(max((top + bottom - side) / 2, 0), image.height - side))
    return image.crop((x, y, x + side, y + side)).resize((SIZE, SIZE), Image.Resampling.LANCZOS)


def write_sheet(bank: StyleBank, cutter: Cutter, path: Path, names: tuple[str, ...] = (), examples: int = 8) -> None:
    """Write a sheet of all clusters: per class a row each, with the examples nearest to the centre.

    Args:
        bank: clusters with examples.
        cutter: of the pictures that were encoded.
        path: .html (self-contained) or .png.
        names: of the classes; without them they are numbered.
        examples: of each cluster, at most.

    Raises:
        ConfigError: another ending, or clusters without examples.
        DataError: a picture is no longer there.
    """
    if path.suffix.lower() not in (".html", ".png"):
        raise ConfigError(f"{path} must end in .html or .png")
    shown = [example for there in bank.clusters.values() for c in there for example in c.examples[:examples]]
    if not shown:
        raise ConfigError(
            "the clusters name no examples (NVIDIA's file has none): make them with `hdgan styles cluster`"
        )
    crops = cutter.cut(shown)
    classes = [
        (
            names[label] if label < len(names) else f"class {label}",
            [(k, c.count, [crops[example] for example in c.examples[:examples]]) for k, c in enumerate(there)],
        )
        for label, there in sorted(bank.clusters.items())
    ]
    if path.suffix.lower() == ".png":
        save_png(_paint(classes), path)
        return
    environment = Environment(loader=PackageLoader("hdgan.styles", "."), autoescape=True, undefined=StrictUndefined)
    text = environment.get_template("sheet.html").render(
        checkpoint=bank.origin.checkpoint,
        classes=classes,
        picture=partial(data_url, kind="JPEG", quality=88),
        size=SIZE,
    )
    with atomic_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


_Class = tuple[str, list[tuple[int, int | None, list[Image.Image]]]]


def _paint(classes: list[_Class]) -> Image.Image:
    """All classes, one below the other."""
    blocks = [_paint_class(*entry) for entry in classes]
    sheet = Image.new("RGB", (max(b.width for b in blocks), sum(b.height for b in blocks)), "white")
    y = 0
    for block in blocks:
        sheet.paste(block, (0, y))
        y += block.height
    return sheet


def _paint_class(name: str, clusters: list[tuple[int, int | None, list[Image.Image]]]) -> Image.Image:
    columns = max(len(crops) for _, _, crops in clusters)
    step = SIZE + _GAP
    block = Image.new("RGB", (_LEFT + columns * step, _LINE + 8 + len(clusters) * step), "white")
    draw, font = ImageDraw.Draw(block), ImageFont.load_default(14)
    draw.text((_GAP, 6), name, "black", ImageFont.load_default(17))
    for row, (k, count, crops) in enumerate(clusters):
        y = _LINE + 8 + row * step
        draw.text((_GAP, y + SIZE // 2 - 16), str(k), "black", font)
        draw.text((_GAP, y + SIZE // 2), f"{count} x", (110, 110, 110), font)
        for column, picture in enumerate(crops):
            block.paste(picture, (_LEFT + column * step, y))
    return block
