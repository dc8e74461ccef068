"""What a file says about its program, as text by name."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import hdgan
from hdgan.data import SizeConfig
from hdgan.data.spec import DatasetSpec
from hdgan.export.programs import ModelProgram, TensorSpec
from hdgan.families import ModelConfig


def metadata_of(
    program: ModelProgram,
    config: ModelConfig,
    precision: str,
    least_side: int,
    trained: SizeConfig | None,
    classes: DatasetSpec | None,
) -> dict[str, str]:
    """The metadata of a program; the values that are not plain words are JSON.

    Args:
        program: the program.
        config: of its model.
        precision: of its weights.
        least_side: pixels a side of the smallest maps that it takes.
        trained: the size of the training images, where it is known.
        classes: of the dataset, where they are known.
    """
    found = {
        "hdgan_version": hdgan.__version__,
        "family": config.family,
        "precision": precision,
        "inputs": _described(program.inputs),
        "outputs": _described([program.output]),
        "padded_to_multiple_of": str(program.multiple),
        "least_side": str(least_side),
    }
    if trained is not None and (trained.width or trained.height):
        found["trained_size"] = json.dumps({"width": trained.width, "height": trained.height})
    if config.n_labels:
        found["classes"] = json.dumps(_classes(config.n_labels, classes))
    if config.dontcare is not None:
        found["dontcare"] = str(config.dontcare)
    return found


def _described(specs: Sequence[TensorSpec]) -> str:
    plain = [
        {"name": spec.name, "dtype": spec.dtype, "shape": list(spec.shape), "meaning": spec.meaning} for spec in specs
    ]
    return json.dumps(plain)


def _classes(n_labels: int, spec: DatasetSpec | None) -> list[dict[str, Any]]:
    """Label, and where they are known name and colour, of each class."""
    if spec is None:
        return [{"label": label} for label in range(n_labels)]
    known = zip(spec.classes, spec.css_colors, strict=True)
    return [{"label": label, "name": name, "color": color} for label, (name, color) in enumerate(known)]
