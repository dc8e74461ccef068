"""The commands that errors about missing styles name are those that the model needs."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from hdgan.checkpoints import STYLES_FILE, beside, model_of
from hdgan.families import DiscriminatorConfig, EncoderConfig, GeneratorConfig, Pix2PixHD, Pix2PixHDConfig
from hdgan.families.saving import save_model
from hdgan.styles.remedies import (
    how_to_cluster,
    how_to_cluster_again,
    how_to_encode,
    how_to_encode_again,
    how_to_renew,
)

CONFIG = Pix2PixHDConfig(
    n_labels=4,
    feature_channels=2,
    generator=GeneratorConfig(ngf=4, n_downsample=1, n_blocks=1),
    encoder=EncoderConfig(nef=2, n_downsample=1),
    discriminator=DiscriminatorConfig(ndf=2, n_scales=1),
)


def saved(file: Path, data: dict[str, object] | None, encoder: bool = True) -> Path:
    torch.manual_seed(0)
    file.parent.mkdir(exist_ok=True)
    model = Pix2PixHD(CONFIG)
    model.encoder = model.encoder if encoder else None
    save_model(file, model, extra={} if data is None else {"train": {"data": data}})
    return file


@pytest.mark.parametrize("name", ["x.safetensors", "a b/model.safetensors"])
def test_commands_name_the_model_as_they_take_it(name: str, tmp_path: Path) -> None:
    file = saved(tmp_path / name, {"root": None})
    typed = f"'{file.parent}'" if "/" in name else f"{file}"
    bank = beside(file, STYLES_FILE)
    assert model_of(bank, STYLES_FILE) == file
    cluster = f"`hdgan styles cluster {typed}`"
    assert how_to_cluster(bank) == f"create it with `hdgan styles encode {typed}` and then {cluster}"
    assert how_to_renew(file) == f"create its styles with `hdgan styles encode {typed}` and {cluster}"
    beside(file, "features.npz").touch()
    assert how_to_cluster(bank) == f"create it with {cluster}"


@pytest.mark.parametrize(
    ("data", "more"), [(None, " --root FOLDER"), ({"root": "gone"}, " --root FOLDER"), ({"root": "s3://b/set"}, "")]
)
def test_the_dataset_is_asked_for_where_the_model_does_not_name_it(
    data: dict[str, object] | None, more: str, tmp_path: Path
) -> None:
    file = saved(tmp_path / "x.safetensors", data)
    assert how_to_encode(beside(file, "features.npz")).endswith(f"`hdgan styles encode {file}{more}`")
    assert how_to_cluster(beside(file, STYLES_FILE)).endswith(f"`hdgan styles cluster {file}{more}`")


def test_a_model_without_encoder_needs_one(tmp_path: Path) -> None:
    file = saved(tmp_path / "x.safetensors", None, encoder=False)
    said = how_to_cluster(beside(file, STYLES_FILE))
    assert said.startswith(f"{file} has no encoder to create it with: convert the model again with --encoder FILE, or")
    assert f"`hdgan styles import-nvidia {file} FILE`" in said


def test_a_model_that_is_not_there_is_called_run(tmp_path: Path) -> None:
    assert how_to_encode(tmp_path / "features.npz").endswith("`hdgan styles encode RUN`")


def test_a_damaged_file_names_its_model_even_a_damaged_one(tmp_path: Path) -> None:
    table, bank = tmp_path / "run" / "features.npz", tmp_path / "run" / STYLES_FILE
    assert how_to_encode_again(table).endswith("`hdgan styles encode RUN`")
    assert how_to_cluster_again(bank).endswith("`hdgan styles cluster RUN`")
    table.parent.mkdir()
    model_of(bank, STYLES_FILE).write_bytes(b"nonsense")
    assert how_to_encode_again(table).endswith(f"`hdgan styles encode {tmp_path / 'run'}`")
    assert how_to_cluster_again(bank).endswith(f"`hdgan styles cluster {tmp_path / 'run'}`")
