"""What a model's file says of the input images that an A->B model was trained on, as the metadata entry `inputs`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from annotated_types import Interval

from hdgan.config.bounds import Depth
from hdgan.config.serialization import from_plain, to_plain

ENTRY = "inputs"
Aspect = Annotated[float, Interval(gt=0, le=10**6)]
"""Width divided by height."""


@dataclass(frozen=True)
class StoredInputs:
    """The input images of a training; None where something is not known, as of files of earlier versions."""

    depth: Depth | None = None
    """Type of their numbers; float32 if some are floats, whose range is free."""
    layout: str | None = None
    """Layout of the dataset that they are from."""
    aspects: tuple[Aspect, Aspect] | None = None
    """Those of the narrowest and of the widest file, before it is scaled; of A alone where a file has A and B."""


def inputs_entry(inputs: StoredInputs | None) -> dict[str, Any]:
    """The entry for the metadata of a model's file; no entry for a model of label maps."""
    return {} if inputs is None else {ENTRY: to_plain(inputs)}


def stored_inputs(file: Path, metadata: Mapping[str, Any]) -> StoredInputs:
    """What the metadata of a model's file say of its inputs.

    Args:
        file: for messages.
        metadata: of the file.

    Raises:
        CheckpointError: the entry is damaged.
    """
    if ENTRY not in metadata:
        return StoredInputs()
    inputs: StoredInputs = from_plain(StoredInputs, metadata[ENTRY], f"{file}, {ENTRY}")
    return inputs
