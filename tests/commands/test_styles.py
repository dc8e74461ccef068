"""`hdgan styles`, and what it says where something is missing."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from hdgan.commands.main import main
from hdgan.families import GeneratorConfig, Pix2PixHD, Pix2PixHDConfig
from hdgan.families.saving import save_model
from hdgan.inference import load

Capture = pytest.CaptureFixture[str]


def styles(*arguments: object) -> int:
    return main(["styles", *map(str, arguments)])


def refused(capsys: Capture, *arguments: object) -> str:
    """The one line that the command fails with."""
    capsys.readouterr()
    assert styles(*arguments) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith("hdgan: error: ")
    return line


def test_from_a_run_to_its_sheet(copied: Path, capsys: Capture) -> None:
    folder = copied / "checkpoints" / "step-00000009"
    for name in ("features.npz", "styles.safetensors"):
        (folder / name).unlink()
    assert styles("encode", copied, "--device", "cpu") == 0
    assert re.search(r"\d\d instances of 6 images: .*features\.npz", capsys.readouterr().err)
    assert styles("cluster", copied, "--k", 2, "--min-area", 0.01) == 0
    assert re.search(r"8 clusters of 4 classes: .*styles\.safetensors", capsys.readouterr().err)
    bank = load(copied, device="cpu").bank
    assert {label: len(there) for label, there in bank.clusters.items()} == {0: 2, 1: 2, 2: 2, 3: 2}
    assert all(cluster.thumbnail is not None for there in bank.clusters.values() for cluster in there)
    assert styles("show", copied) == 0
    assert capsys.readouterr().out.strip() == str((folder / "styles.html").resolve())
    assert styles("show", copied, "--out", copied / "sheet.png") == 0
    assert (copied / "sheet.png").is_file()


def test_clusters_are_the_same_every_time(copied: Path) -> None:
    file = copied / "checkpoints" / "step-00000009" / "styles.safetensors"
    contents = []
    for seed in (5, 5):
        assert styles("cluster", copied, "--seed", seed, "--min-area", 0) == 0
        contents.append(file.read_bytes())
    assert contents[0] == contents[1]


def test_classes_of_small_instances_are_told(copied: Path, capsys: Capture) -> None:
    assert styles("cluster", copied, "--min-area", 0.2) == 0
    assert (
        "classes without a large enough instance, which keep the mean style of the class: class 2, class 3"
        in capsys.readouterr().err
    )
    bank = load(copied, device="cpu").bank
    assert bank.clusters.keys() == {0, 1}
    assert bank.means.keys() == {0, 1, 2, 3}


def test_what_is_missing_is_named_with_the_command_that_makes_it(copied: Path, capsys: Capture) -> None:
    folder = copied / "checkpoints" / "step-00000009"
    assert "--k is 0: give a whole number from 1" in refused(capsys, "cluster", copied, "--k", 0)
    (folder / "styles.safetensors").unlink()
    assert f"styles.safetensors does not exist: create it with `hdgan styles cluster {folder}`" in refused(
        capsys, "show", copied
    )
    (folder / "features.npz").write_bytes(b"PK")
    assert "features.npz is damaged" in refused(capsys, "cluster", copied)
    (folder / "features.npz").unlink()
    assert f"encode the training images with `hdgan styles encode {folder}`" in refused(capsys, "cluster", copied)
    assert "none is not a folder; set --root to the folder" in refused(capsys, "encode", copied, "--root", "none")
    assert "has no checkpoint 5; it has" in refused(capsys, "encode", copied, "--checkpoint", 5)


def test_features_of_another_encoder_are_refused(copied: Path, capsys: Capture) -> None:
    line = refused(capsys, "cluster", copied, "--no-ema")
    assert "was made with step-00000009 of run (encoder " in line
    assert "with the same choice of --ema or --no-ema" in line
    old, new = (copied / "checkpoints" / f"step-0000000{step}" for step in (6, 9))
    shutil.copy(new / "styles.safetensors", old / "styles.safetensors")
    line = refused(capsys, "show", copied, "--checkpoint", 6)
    assert "the styles were made with step-00000009 of run" in line
    assert "step-00000006/model.safetensors has encoder" in line


def test_a_model_without_features_is_refused(tmp_path: Path, dataset: Path, capsys: Capture) -> None:
    file = tmp_path / "x.safetensors"
    save_model(
        file, Pix2PixHD(Pix2PixHDConfig(n_labels=4, generator=GeneratorConfig(ngf=4, n_downsample=1, n_blocks=1)))
    )
    for command in ("encode", "cluster", "show"):
        line = refused(capsys, command, file, "--root", dataset)
        assert "trained without features and has no styles: train with --model.feature-channels 3" in line


def test_clusters_go_to_nvidia_and_back(copied: Path, tmp_path: Path, capsys: Capture) -> None:
    before = load(copied, device="cpu").bank
    file = tmp_path / "features_clustered_003.npy"
    assert styles("export-nvidia", copied, file) == 0
    assert np.load(file, allow_pickle=True).item().keys() == before.clusters.keys()
    assert styles("import-nvidia", copied, file) == 0
    pipeline = load(copied, device="cpu")
    assert pipeline.bank.origin.encoder == pipeline.encoder_id
    assert pipeline.bank.origin.checkpoint == "features_clustered_003.npy"
    for label, there in before.clusters.items():
        np.testing.assert_array_equal(
            [cluster.centre for cluster in there], [cluster.centre for cluster in pipeline.bank.clusters[label]]
        )
    assert "have no examples" in refused(capsys, "show", copied)
    np.save(file, {0: np.zeros((2, 3))}, allow_pickle=True)  # type: ignore[arg-type]
    assert "the styles have 3 features" in refused(capsys, "import-nvidia", copied, file)


def test_styles_of_the_weights_themselves(copied: Path, tmp_path: Path) -> None:
    """As they are without the average, from encoding to NVIDIA's file and back."""
    file = tmp_path / "features_clustered_003.npy"
    assert styles("encode", copied, "--no-ema", "--device", "cpu") == 0
    assert styles("cluster", copied, "--no-ema", "--k", "3", "--min-area", "0.01") == 0
    assert styles("export-nvidia", copied, file, "--no-ema") == 0
    assert styles("import-nvidia", copied, file, "--no-ema") == 0
    pipeline = load(copied, device="cpu", ema=False)
    assert pipeline.bank.origin.encoder == pipeline.encoder_id
    assert styles("export-nvidia", copied, file) == 2


def test_a_model_of_hdgan_keeps_its_clusters(shipped: Path, tmp_path: Path, capsys: Capture) -> None:
    assert styles("encode", "demo", "--device", "cpu") == 0
    assert Path("demo.features.npz").is_file()
    np.save(tmp_path / "x.npy", {0: np.zeros((1, 2))}, allow_pickle=True)  # type: ignore[arg-type]
    for arguments in (("cluster", "demo"), ("import-nvidia", "demo", tmp_path / "x.npy")):
        line = refused(capsys, *arguments)
        assert "the model demo comes with hdgan, and its clusters of styles do not change: make a copy" in line
    assert [path.name for path in shipped.parent.iterdir()] == ["model.safetensors"]
    assert main(["convert", "demo", "--out", "demo.safetensors"]) == 0  # as the message says
    assert styles("encode", "demo.safetensors", "--device", "cpu") == 0
    assert styles("cluster", "demo.safetensors", "--k", 2, "--min-area", 0) == 0
    assert styles("show", "demo.safetensors", "--out", "sheet.html") == 0


def test_help_of_each_command(capsys: Capture) -> None:
    for command in ("encode", "cluster", "show", "measure", "import-nvidia", "export-nvidia"):
        with pytest.raises(SystemExit) as stop:
            styles(command, "--help")
        assert stop.value.code == 0
        shown = " ".join(capsys.readouterr().out.replace("│", "").split())
        assert "Run folder, checkpoint folder or .safetensors file; demo, the model that comes with hdgan; or" in shown
        assert "or hf:OWNER/NAME, a model on the Hugging Face Hub." in shown
