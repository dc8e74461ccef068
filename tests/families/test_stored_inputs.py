"""What the file of an A->B model says of its training images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from hdgan.errors import CheckpointError
from hdgan.families import DiscriminatorConfig, GeneratorConfig, Pix2PixHD, Pix2PixHDConfig
from hdgan.families.saving import load_model, save_model
from hdgan.families.stored_inputs import StoredInputs, inputs_entry, stored_inputs

FILE = Path("model.safetensors")


@pytest.mark.parametrize("inputs", [StoredInputs("uint8", "side-by-side", (0.5, 2.0)), StoredInputs("float32")])
def test_a_file_keeps_what_is_known(tmp_path: Path, inputs: StoredInputs) -> None:
    config = Pix2PixHDConfig(n_labels=0, generator=GeneratorConfig(4, 1, 1), discriminator=DiscriminatorConfig(2, 1, 1))
    save_model(tmp_path / FILE, Pix2PixHD(config), extra=inputs_entry(inputs))
    assert stored_inputs(tmp_path / FILE, load_model(tmp_path / FILE)[1].metadata) == inputs


def test_files_of_earlier_versions_say_nothing() -> None:
    assert inputs_entry(None) == {}
    assert stored_inputs(FILE, {"train": {}}) == StoredInputs(None, None, None)


@pytest.mark.parametrize(
    ("entry", "complaint"),
    [
        ("uint8", r"model\.safetensors, inputs"),
        ({"depth": "int8"}, "depth is 'int8'"),
        ({"aspects": [0, 1]}, "aspects"),
    ],
)
def test_a_damaged_entry_is_refused(entry: Any, complaint: str) -> None:
    with pytest.raises(CheckpointError, match=complaint):
        stored_inputs(FILE, {"inputs": entry})
