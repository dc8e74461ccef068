"""The names and colours of classes in the file of a model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hdgan.data.spec import DatasetSpec
from hdgan.errors import CheckpointError
from hdgan.families import DiscriminatorConfig, GeneratorConfig, Pix2PixHD, Pix2PixHDConfig
from hdgan.families.saving import load_model, save_model
from hdgan.families.stored_classes import classes_entry, stored_classes

SPEC = DatasetSpec.of_colors(["road", "sky & sea"], [(128, 64, 128), (0, 1, 255)])
FILE = Path("model.safetensors")


def test_a_file_keeps_names_and_colours(tmp_path: Path) -> None:
    config = Pix2PixHDConfig(n_labels=2, generator=GeneratorConfig(4, 1, 1), discriminator=DiscriminatorConfig(2, 1, 1))
    save_model(tmp_path / FILE, Pix2PixHD(config), extra=classes_entry(SPEC))
    _, info = load_model(tmp_path / FILE)
    found = stored_classes(tmp_path / FILE, info.metadata, 2)
    assert found is not None
    assert found.classes == SPEC.classes
    assert found.palette.dtype == np.uint8
    assert np.array_equal(found.palette, SPEC.palette)


def test_files_of_earlier_versions_have_no_names() -> None:
    assert classes_entry(None) == {}
    assert stored_classes(FILE, {"train": {}}, 2) is None


@pytest.mark.parametrize(
    ("entry", "complaint"),
    [
        ("road", r"model\.safetensors, classes: .* is 'road': give a list"),
        ([{"name": "road"}], "color"),
        ([{"name": "road", "color": "red"}] * 2, "color='red'.*, which is no name with a colour"),
        ([{"name": "", "color": "#000000"}] * 2, "name=''.*, which is no name with a colour"),
        ([{"name": "a\nb", "color": "#000000"}] * 2, "which is no name with a colour such as #804080; it is damaged"),
        (classes_entry(SPEC)["classes"][:1], "names 1 class, but its model has 2; it is damaged or was edited"),
    ],
)
def test_a_damaged_entry_is_refused(entry: Any, complaint: str) -> None:
    with pytest.raises(CheckpointError, match=complaint):
        stored_classes(FILE, {"classes": entry}, 2)
