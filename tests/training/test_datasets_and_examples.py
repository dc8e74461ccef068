"""What is checked before the first step, the samples, the validation measure, and the mean styles."""

from __future__ import annotations

import io
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console

from hdgan.checkpoints import find_checkpoint
from hdgan.config.bounds import Depth
from hdgan.data import DataConfig, PairedDataset, SizeConfig, find_pairs
from hdgan.data.headers import read_header
from hdgan.errors import ConfigError, DataError
from hdgan.families import Pix2PixHD, Pix2PixHDLoss, Pix2PixHDTrainConfig
from hdgan.families.saving import CLASS_MEAN, load_model
from hdgan.families.stored_inputs import StoredInputs
from hdgan.ops import instance_index
from hdgan.training import TrainConfig, load_config, train
from hdgan.training.datasets import open_data, resolved
from hdgan.training.examples import Examples, mean_styles

MakeConfig = Callable[..., TrainConfig]
MakeData = Callable[..., Path]
CPU = torch.device("cpu")


def opened(config: TrainConfig, root: Path, **data: object) -> tuple[object, str]:
    output = io.StringIO()
    config = replace(config, data=replace(config.data, root=root, **data))
    return open_data(config, Console(file=output, width=400)), output.getvalue()


def test_a_run_trains_on_one_phase_and_measures_on_another(
    make_config: MakeConfig, dataset: Path, tmp_path: Path
) -> None:
    found, said = opened(make_config(tmp_path), dataset)
    assert (len(found.train_pairs), len(found.val_pairs), found.val_phase) == (6, 2, "test")  # type: ignore[attr-defined]
    assert found.inputs is None  # type: ignore[attr-defined]
    assert said == ""
    size = SizeConfig(width=16)
    assert found.training(size, 0).train  # type: ignore[attr-defined]
    assert not found.validation(size).train  # type: ignore[attr-defined]
    assert len(found.reference(size)) == 6  # type: ignore[attr-defined]


@pytest.mark.parametrize("part", ["img", "inst"])
def test_samples_show_training_pictures_where_held_out_ones_lack_a_part(
    make_config: MakeConfig, make_data: MakeData, tmp_path: Path, part: str
) -> None:
    root = make_data()
    shutil.rmtree(root / f"test_{part}")
    found, said = opened(make_config(tmp_path), root)
    assert found.val_pairs == found.train_pairs  # type: ignore[attr-defined]
    assert f"phase test has no {'photos' if part == 'img' else 'instance maps'}" in said


def test_faults_of_held_out_pictures_are_found_before_the_first_step(
    make_config: MakeConfig, make_data: MakeData, tmp_path: Path
) -> None:
    root = make_data()
    Image.fromarray(np.full((16, 32), 9, np.uint8)).save(root / "test_label" / "s1_label.png")
    with pytest.raises(DataError, match=r"test_label.s1_label\.png contains label 9, but model\.n_labels is 4"):
        opened(make_config(tmp_path), root)


def test_orphans_are_told(make_config: MakeConfig, make_data: MakeData, tmp_path: Path) -> None:
    root = make_data()
    (root / "train_img" / "s3_img.png").unlink()
    found, said = opened(make_config(tmp_path), root)
    assert len(found.train_pairs) == 5  # type: ignore[attr-defined]
    assert said.splitlines() == [
        f"1 name of train lacks a partner and will not be used, for example {root / 'train_label' / 's3_label.png'}, "
        f"{root / 'train_inst' / 's3_inst.tif'}: no photo named s3 in {root / 'train_img'}; add it, or remove the file"
    ]


def test_headers_are_read_once(
    make_config: MakeConfig, dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[Path] = []
    monkeypatch.setattr("hdgan.data.pairs.read_header", lambda path: read.append(path) or read_header(path))
    config = make_config(tmp_path)
    assert len(config.stages) == 3
    opened(config, dataset)
    assert len(read) == len(set(read)) == 3 * (6 + 2)


def test_sizes_must_agree_within_the_batch_of_one_process(
    make_config: MakeConfig, make_data: MakeData, tmp_path: Path
) -> None:
    root = make_data(train=2)
    for folder, ending in (("train_label", "_label.png"), ("train_inst", "_inst.tif"), ("train_img", "_img.png")):
        file = root / folder / f"s1{ending}"
        Image.open(file).resize((32, 24), Image.Resampling.NEAREST).save(file)
    config = make_config(tmp_path)
    stages = {"global": replace(config.stages["global"], batch_size=2, micro_batch=1)}
    with pytest.raises(DataError, match="s0 is 16x8 and s1 is 16x12 in the same batch"):
        opened(replace(config, stages=stages), root)
    alone = replace(config, stages=stages, data=DataConfig(root=root, workers=0))
    assert len(open_data(alone, Console(quiet=True), processes=2).train_pairs) == 2


def test_the_model_must_suit_the_channels(make_config: MakeConfig, tmp_path: Path) -> None:
    for part in ("A", "B"):
        (tmp_path / f"train_{part}").mkdir()
        Image.fromarray(np.zeros((16, 32), np.uint8)).save(tmp_path / f"train_{part}" / "x.png")
    config = make_config(tmp_path)
    model = replace(config.model, n_labels=0, instances=False, feature_channels=0)
    with pytest.raises(ConfigError, match=r"x\.png has 1 channel, but model\.input_channels is 3: set it to 1"):
        opened(replace(config, model=model), tmp_path)
    found, _ = opened(replace(config, model=replace(model, input_channels=1)), tmp_path)
    assert found.val_phase == "train"  # type: ignore[attr-defined]
    with pytest.raises(ConfigError, match=r"model\.image_channels is 1"):
        opened(replace(config, model=replace(model, input_channels=1, image_channels=1)), tmp_path)


def of_pairs(config: TrainConfig) -> TrainConfig:
    """A run on pairs of images, one by one."""
    model = replace(config.model, n_labels=0, instances=False, feature_channels=0)
    return replace(config, model=model, stages={"global": replace(config.stages["global"], batch_size=1)})


@pytest.mark.parametrize(
    ("second", "depth"), [(np.uint8, "uint8"), (np.uint16, "uint16"), (np.float32, "float32"), (np.float64, "float32")]
)
def test_the_inputs_of_a_run_are_described(
    make_config: MakeConfig, tmp_path: Path, second: type[np.number], depth: Depth
) -> None:
    for part in ("A", "B"):
        (tmp_path / f"train_{part}").mkdir()
    for name, dtype, width in (("x", np.uint8, 16), ("y", second, 32)):
        np.save(tmp_path / "train_A" / f"{name}.npy", np.zeros((16, width, 3), dtype))
        Image.new("RGB", (width, 16)).save(tmp_path / "train_B" / f"{name}.png")
    found, _ = opened(of_pairs(make_config(tmp_path)), tmp_path)
    assert found.inputs == StoredInputs(depth, "ab", (1.0, 2.0))  # type: ignore[attr-defined]


def test_joint_files_are_described_by_their_halves(make_config: MakeConfig, tmp_path: Path) -> None:
    (tmp_path / "train").mkdir()
    for name, width in (("x", 32), ("y", 80)):
        Image.new("RGB", (width, 16)).save(tmp_path / "train" / f"{name}.png")
    found, _ = opened(of_pairs(make_config(tmp_path)), tmp_path)
    assert found.inputs == StoredInputs("uint8", "side-by-side", (1.0, 2.5))  # type: ignore[attr-defined]


@pytest.fixture
def model(run: Path) -> Pix2PixHD:
    return load_model(find_checkpoint(run))[0].requires_grad_(False)


def examples(dataset: Path, phase: str = "train") -> Examples:
    data = DataConfig(root=dataset)
    pairs = find_pairs(data, phase, labels=True).pairs
    return Examples(PairedDataset(pairs, data, SizeConfig(), 4), Pix2PixHDTrainConfig(), CPU)


def test_mean_styles_count_each_instance_once(model: Pix2PixHD, dataset: Path) -> None:
    found = mean_styles(model, examples(dataset), count=3)
    values: dict[int, list[torch.Tensor]] = {label: [] for label in range(4)}
    for inputs in examples(dataset).inputs(3):
        features = model.encode(inputs.photo, instance_index(inputs.ids))[0]
        for instance in inputs.ids[0].unique().tolist():
            label = instance // 1000 if instance >= 1000 else instance
            values[label].append(features[:, inputs.ids[0] == instance][:, 0])
    for label, vectors in values.items():
        torch.testing.assert_close(found[CLASS_MEAN][label], torch.stack(vectors).mean(0))


@pytest.mark.parametrize("first", [0, 5000, -7])
def test_an_instance_has_the_class_under_it_and_a_class_without_has_the_mean_of_all(
    model: Pix2PixHD, make_data: MakeData, first: int
) -> None:
    root = make_data(train=1)
    ids = np.full((16, 32), first, np.int32)
    ids[:, 16:] += 1  # ids that tell no class by Cityscapes' rule
    Image.fromarray(ids).save(root / "train_inst" / "s0_inst.tif")
    label = np.zeros((16, 32), np.uint8)
    label[:, 16:] = 2
    Image.fromarray(label).save(root / "train_label" / "s0_label.png")
    found = mean_styles(model, examples(root), count=1)
    (inputs,) = examples(root).inputs(1)
    features = model.encode(inputs.photo, instance_index(inputs.ids))[0]
    left, right = features[:, 0, 0], features[:, 0, -1]
    overall = (left + right) / 2
    torch.testing.assert_close(found[CLASS_MEAN], torch.stack([left, overall, right, overall]))


def test_samples_are_what_the_averaged_model_makes(run: Path, model: Pix2PixHD, dataset: Path, tmp_path: Path) -> None:
    held_out = examples(dataset, "test")
    held_out.write(model, tmp_path, 7, 2)
    names = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.png")}
    sources = {f"inputs/{k}_{name}.png" for k in (0, 1) for name in ("label", "instances", "real")}
    assert names == sources | {"00000007/0.png", "00000007/1.png"}
    inputs = next(held_out.inputs(1))
    expected = ((held_out.generate(model, inputs, 0)[0] + 1) * 127.5).round().byte().permute(1, 2, 0).numpy()
    with Image.open(tmp_path / "00000007" / "0.png") as image:
        np.testing.assert_allclose(np.asarray(image, np.int16), expected, atol=1)
    with Image.open(tmp_path / "inputs" / "0_real.png") as image, Image.open(dataset / "test_img/s0_img.png") as photo:
        np.testing.assert_array_equal(np.asarray(image), np.asarray(photo))


def test_missing_instance_maps_are_told_with_the_option(
    make_config: MakeConfig, make_data: MakeData, tmp_path: Path
) -> None:
    root = make_data()
    shutil.rmtree(root / "train_inst")
    with pytest.raises(DataError, match=r"no instance maps for phase train: .* train with model\.instances=False"):
        opened(make_config(tmp_path), root)


@pytest.fixture
def deep(make_data: MakeData) -> Path:
    """Data whose photos have two channels of 16 bits."""
    root = make_data()
    for path in root.glob("*_img/*.png"):
        np.save(path.with_suffix(".npy"), np.asarray(Image.open(path))[..., :2].astype(np.uint16) * 257)
        path.unlink()
    return root


def test_photos_as_stored_decide_the_channels_of_the_model(make_config: MakeConfig, deep: Path, tmp_path: Path) -> None:
    config = make_config(tmp_path)
    found, _ = opened(config, deep, photo="stored")
    model = resolved(config, found).model  # type: ignore[arg-type]
    assert (model.image_channels, model.image_depth, model.is_rgb) == (2, "uint16", False)
    with pytest.raises(ConfigError, match=r"but the photos have 2 channels: set loss\.vgg 0"):
        resolved(replace(config, loss=Pix2PixHDLoss()), found)  # type: ignore[arg-type]
    other = replace(config, model=replace(config.model, image_channels=5))
    with pytest.raises(ConfigError, match=r"s0_img\.npy has 2 channels of 16 bits, but model\.image_channels is 5"):
        opened(other, deep, photo="stored")


def test_photos_of_all_phases_must_be_alike(make_config: MakeConfig, deep: Path, tmp_path: Path) -> None:
    for path in (deep / "test_img").iterdir():
        np.save(path, np.zeros((16, 32, 2), np.uint8))
    with pytest.raises(
        DataError, match=r"test_img.s0_img\.npy has 2 channels of 8 bits, .*train_img.*of 16 bits; save"
    ):
        opened(make_config(tmp_path), deep, photo="stored")


def test_samples_show_some_channels_in_8_bits(stored_run: Path) -> None:
    samples = sorted((stored_run / "samples").rglob("*.png"))
    assert {path.parent.name for path in samples} == {"inputs", "00000001"}
    for path in samples:
        with Image.open(path) as image:
            assert image.mode in ("L", "RGB")


def test_color_jitter_of_floats_is_refused_before_any_work(stored_run: Path, tmp_path: Path) -> None:
    config = load_config(stored_run)
    config = replace(config, out=tmp_path / "run", data=replace(config.data, color_jitter=0.1))
    floats = load_model(find_checkpoint(stored_run))[0].config.image_depth == "float32"
    if floats:
        with pytest.raises(ConfigError, match=r"data\.color_jitter is 0\.1, but .* holds floats"):
            train(config, console=Console(quiet=True))
        assert not (tmp_path / "run").exists()
    else:
        train(config, console=Console(quiet=True))
        assert (tmp_path / "run" / "report.html").is_file()
