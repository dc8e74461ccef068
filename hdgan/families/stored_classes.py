"""The classes of a model in its file: their names and colours, as the metadata entry `classes`, in order of label."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hdgan.config.serialization import from_plain
from hdgan.data.class_file import color_of, is_name
from hdgan.data.spec import DatasetSpec
from hdgan.errors import CheckpointError
from hdgan.wording import count

ENTRY = "classes"


@dataclass(frozen=True)
class StoredClass:
    """A class in the metadata of a model's file."""

    name: str
    color: str
    """As #rrggbb."""


def classes_entry(spec: DatasetSpec | None) -> dict[str, Any]:
    """The classes as an entry for the metadata of a model's file; no entry where they are not known."""
    if spec is None:
        return {}
    named = zip(spec.classes, spec.css_colors, strict=True)
    return {ENTRY: [{"name": name, "color": color} for name, color in named]}


def stored_classes(file: Path, metadata: Mapping[str, Any], n_labels: int) -> DatasetSpec | None:
    """The classes that the metadata of a model's file name; None if they name none, as in files of earlier versions.

    Args:
        file: for messages.
        metadata: of the file.
        n_labels: number of classes of the model.

    Raises:
        CheckpointError: the entry is damaged, or has another number of classes.
    """
    if ENTRY not in metadata:
        return None
    found = from_plain(list[StoredClass], metadata[ENTRY], f"{file}, {ENTRY}")
    colors = [color_of(entry.color) for entry in found]
    for entry, color in zip(found, colors, strict=True):
        if color is None or not is_name(entry.name):
            raise CheckpointError(
                f"{file}: {ENTRY} contains {entry!s:.150}, which is no name with a colour such as #804080; it is "
                "damaged or was edited: use another checkpoint"
            )
    if len(found) != n_labels:
        raise CheckpointError(
            f"{file} names {count(len(found), 'class')}, but its model has {n_labels}; it is damaged or was edited: "
            "use another checkpoint"
        )
    return DatasetSpec.of_colors([entry.name for entry in found], [color for color in colors if color is not None])
