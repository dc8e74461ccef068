"""classes.csv: the names and colours of the classes of a dataset, one class per line.

    label,name,color
    0,road,#804080
    1,building,#464646
    2,sky,

Lines may come in any order. A class without a colour has that of the default palette.
"""

from __future__ import annotations

import csv
import io
import os
import re
from collections.abc import Sequence
from pathlib import Path

from hdgan.config.options import option
from hdgan.data.colors import label_palette
from hdgan.data.spec import DatasetSpec
from hdgan.errors import DataError
from hdgan.files import write_text
from hdgan.files.json import read_text
from hdgan.files.remote import is_remote
from hdgan.wording import count

CLASS_FILE = "classes.csv"
"""Its name in the folder of a dataset."""
COLUMNS = ("label", "name", "color")
MOST_CLASSES = 65536
LONGEST_NAME = 200
"""Characters, beyond which a name would not fit into any table."""
_OVERRIDES = "give one class name per line, or a CSV file with the columns label,name,color"
NAME = f"a name on one line, of 1 to {LONGEST_NAME} printable characters without spaces around it"
"""What `is_name` requires, for messages."""
_GROWTH = 64
"""A field of one byte becomes an object of up to about this many bytes."""
_LABEL = re.compile("[0-9]{1,9}")
_COLOR = re.compile("#[0-9a-fA-F]{6}")


def read_classes(file: Path) -> DatasetSpec:
    """Read the names and colours of classes.

    Args:
        file: A CSV file in UTF-8 with the columns label, name and color, of which color (#rrggbb) may be missing or
            empty. Its labels are 0 to n - 1, each once, in any order.

    Raises:
        DataError: the file is missing, no regular file, too large, no such CSV, or has a value that cannot be used,
            which is named with its line.
    """
    text = read_text(file, _GROWTH, "a table", DataError)
    try:
        reader = csv.reader(io.StringIO(text, newline=""), strict=True)
        lines = [(reader.line_num, cells) for cells in reader if any(map(str.strip, cells))]
    except csv.Error as error:
        raise DataError(f"{file} is not a CSV file ({error}): {_remedy()}") from error
    if not lines:
        raise DataError(f"{file} is empty: {_remedy()}")
    if len(lines) - 1 > MOST_CLASSES:
        raise DataError(f"{file} has {len(lines) - 1} classes: hdgan takes {MOST_CLASSES} at most")
    heads = _heads(file, lines[0][1])
    return _spec_of_lines(file, heads, lines[1:])


def read_overrides(file: Path, spec: DatasetSpec) -> DatasetSpec:
    """Read the file of an option --classes.

    Args:
        file: the classes.csv of a dataset, as `read_classes` reads it, or a text file with one name per line, which
            leaves the colours. A file is of the first kind if it is called *.csv or starts with a header that has label
            and name.
        spec: classes of the model, whose number the file must have.

    Raises:
        DataError: the file cannot be read, or has another number of classes.
    """
    lines = [line.strip() for line in read_text(file, _GROWTH, "a list of names", DataError).splitlines()]
    head = {cell.strip() for line in lines[:1] for cell in line.split(",")}
    if file.suffix.lower() == ".csv" or {"label", "name"} <= head:
        found = read_classes(file)
        if found.n_labels != spec.n_labels:
            raise DataError(
                f"{file} has {count(found.n_labels, 'class')}, but the model has {spec.n_labels}: give a line for each "
                f"label from 0 to {spec.n_labels - 1}"
            )
        return found
    if len(lines) != spec.n_labels:
        raise DataError(
            f"{file} has {count(len(lines), 'line')}, but the model has {count(spec.n_labels, 'class')}: {_OVERRIDES}"
        )
    for number, line in enumerate(lines, 1):
        if not is_name(line):
            raise DataError(f"{file}, line {number}: {line[:60]!r} is no name of a class: {_OVERRIDES}")
    return DatasetSpec(tuple(lines), spec.palette)


def write_classes(file: Path, spec: DatasetSpec) -> None:
    """Write the names and colours of classes as `read_classes` reads them, in the order of their labels.

    Raises:
        HdganError: the file cannot be written.
    """
    write_text(file, classes_text(spec))


def classes_text(spec: DatasetSpec) -> str:
    """The content of a file of these classes."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows(zip(range(spec.n_labels), spec.classes, spec.css_colors, strict=True))
    return text.getvalue()


def find_classes(root: Path, n_labels: int | None = None, *, trained: bool = False) -> DatasetSpec | None:
    """The classes of a dataset, from classes.csv in its folder; None without this file.

    Args:
        root: Folder of the dataset, here or elsewhere.
        n_labels: Number of classes that the file must have; 0 for A-to-B pairs, which have none, so that no file is
            looked for; None takes any number.
        trained: As of `require_number`.

    Raises:
        DataError: as `read_classes`, or the file has another number of classes.
    """
    file = root / CLASS_FILE
    if n_labels == 0 or not (file.exists() if is_remote(file) else os.path.lexists(file)):
        return None
    spec = read_classes(file)
    require_number(file, spec, n_labels, trained=trained)
    return spec


def require_number(file: Path, spec: DatasetSpec, n_labels: int | None, *, trained: bool = False) -> None:
    """Refuse a file with another number of classes than a model.

    Args:
        file: For the message.
        spec: Its content.
        n_labels: Number of classes of the model; None takes any number.
        trained: Whether the model is already trained, so that no option changes its number.

    Raises:
        DataError: the numbers differ.
    """
    if n_labels is None or spec.n_labels == n_labels:
        return
    classes, lines = count(spec.n_labels, "class"), f"a line for each label from 0 to {n_labels - 1}"
    if trained:
        raise DataError(
            f"{file} has {classes}, but the model was trained with {n_labels}: give the file {lines}, or use a dataset "
            "that has the classes of the model"
        )
    raise DataError(
        f"{file} has {classes}, but {option('model.n_labels')} is {n_labels}: correct the one that is wrong; the file "
        f"needs {lines}"
    )


def _heads(file: Path, cells: Sequence[str]) -> list[str]:
    """The names of the columns, checked."""
    heads = [cell.strip() for cell in cells]
    if not {"label", "name"} <= set(heads) <= set(COLUMNS) or len(set(heads)) < len(heads):
        raise DataError(f"{file}, line 1: the header is {_shown(','.join(heads))}: {_remedy()}")
    return heads


def _spec_of_lines(file: Path, heads: Sequence[str], lines: Sequence[tuple[int, Sequence[str]]]) -> DatasetSpec:
    """The classes of all lines below the header, which come with their numbers."""
    n = len(lines)
    if not n:
        raise DataError(f"{file} has a header, but no classes: add a line for each label, such as 0,road,#804080")
    names: dict[int, str] = {}
    line_of: dict[int, int] = {}
    palette = label_palette(n)
    for number, cells in lines:
        where = f"{file}, line {number}"
        if len(cells) != len(heads):
            raise DataError(
                f"{where} has {count(len(cells), 'field')}, but the header has {len(heads)}: separate the fields by "
                'commas, and put a name that contains a comma into double quotes (")'
            )
        row = {head: cell.strip() for head, cell in zip(heads, cells, strict=True)}
        label = _label(where, row["label"], n)
        if label in names:
            raise DataError(
                f"{where}: label {label} is already on line {line_of[label]}: give each label from 0 to {n - 1} once"
            )
        names[label], line_of[label] = _name(where, row["name"]), number
        if color := row.get("color"):
            palette[label] = _color(where, color)
    return DatasetSpec(tuple(names[label] for label in range(n)), palette)


def _label(where: str, text: str, n: int) -> int:
    label = int(text) if _LABEL.fullmatch(text) else -1
    if not 0 <= label < n:
        raise DataError(
            f"{where}: label is {_shown(text)}, but the file has {count(n, 'line')} below its header: number them from "
            f"0 to {n - 1}, each once"
        )
    return label


def _name(where: str, text: str) -> str:
    if not is_name(text):
        raise DataError(f"{where}: name is {_shown(text)}: give {NAME}")
    return text


def is_name(text: str) -> bool:
    """Whether a text can be the name of a class: a line of 1 to LONGEST_NAME characters without spaces around it."""
    return text.isprintable() and text == text.strip() and 1 <= len(text) <= LONGEST_NAME


def _color(where: str, text: str) -> tuple[int, int, int]:
    color = color_of(text)
    if color is None:
        raise DataError(
            f"{where}: color is {_shown(text)}: write it as #rrggbb, such as #804080, or leave the field empty"
        )
    return color


def color_of(text: str) -> tuple[int, int, int] | None:
    """Red, green and blue of a colour such as #804080, from 0 to 255; None if the text is none."""
    if not _COLOR.fullmatch(text):
        return None
    return int(text[1:3], 16), int(text[3:5], 16), int(text[5:7], 16)


def _shown(text: str) -> str:
    return repr(text if len(text) <= 60 else f"{text[:60]}…")


def _remedy() -> str:
    return "give a CSV file with the header label,name,color (or label,name) and a line for each class below it"
