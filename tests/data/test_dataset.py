from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from hdgan.data import DataConfig, PairedDataset, SizeConfig, find_pairs
from hdgan.errors import ConfigError, DataError


def dataset(
    root: Path, n_labels: int, phase: str = "train", size: SizeConfig | None = None, **options
) -> PairedDataset:
    train = options.pop("train", False)
    seed = options.pop("seed", 0)
    data = DataConfig(root=root, **options)
    pairs = find_pairs(data, phase, n_labels > 0).pairs
    return PairedDataset(pairs, data, size or SizeConfig(), n_labels, train=train, seed=seed)


def test_sample_of_label_maps(nvidia):
    sample = dataset(nvidia, 4)[2]
    y, x = np.mgrid[:8, :12]
    assert sample["stem"] == "s2"
    assert (sample["label"].dtype, sample["ids"].dtype, sample["photo"].dtype) == (
        torch.uint8,
        torch.int32,
        torch.uint8,
    )
    assert (sample["label"].numpy() == (x + y + 2) % 4).all()
    assert (sample["ids"].numpy() == 70000 + 100 * y + x).all()
    assert (sample["photo"].numpy() == np.stack([(x + y + 2) % 4, x, y])).all()
    assert "input" not in sample


def test_absent_parts_are_absent(nvidia):
    assert dataset(nvidia, 4, "test")[0].keys() == {"stem", "label", "ids"}


def test_parts_stay_aligned_through_crop_and_flip(nvidia):
    data = dataset(nvidia, 4, size=SizeConfig(crop_width=7, crop_height=5), train=True)
    flips = set()
    for position in range(40):
        sample = data[position, position % 5]
        label, x, y = sample["photo"].long()
        assert label.shape == (5, 7)
        assert (sample["label"] == label).all()
        assert (sample["ids"] == 70000 + 100 * y + x).all()
        flips.add(bool(x[0, 0] > x[0, 1]))
    assert flips == {False, True}


def test_jitter_moves_training_pictures_alone(nvidia):
    size = SizeConfig(width=12, height=8, jitter=4)
    jittered = dataset(nvidia, 4, size=size, train=True)
    assert {tuple(jittered[position, 0]["photo"].shape) for position in range(5)} == {(3, 8, 12)}
    assert len({jittered[position, 0]["label"].numpy().tobytes() for position in range(20)}) > 5
    still = dataset(nvidia, 4, size=size)
    assert (still[0]["photo"] == dataset(nvidia, 4, size=size.whole)[0]["photo"]).all()


def test_geometry_depends_on_seed_and_position_alone(nvidia):
    size = SizeConfig(crop_width=4)
    one, again, other = (dataset(nvidia, 4, size=size, train=True, seed=seed) for seed in (3, 3, 4))

    def corners(data: PairedDataset) -> list[int]:
        return [int(data[position, 0]["ids"][0, 0]) for position in range(30)]

    assert corners(one) == corners(again) != corners(other)
    assert len(set(corners(one))) > 10


def test_no_flip(nvidia):
    data = dataset(nvidia, 4, train=True, flip=False)
    assert all(int(data[position, 0]["ids"][0, 0]) == 70000 for position in range(10))


def test_evaluation_is_centred_and_never_mirrored(nvidia):
    data = dataset(nvidia, 4, size=SizeConfig(crop_width=4, crop_height=2))
    assert {int(data[position, 0]["ids"][0, 0]) for position in range(10)} == {70304}


def test_dataset_survives_pickling(nvidia):
    data = dataset(nvidia, 4, size=SizeConfig(crop_width=4), train=True)
    again = pickle.loads(pickle.dumps(data))
    assert all((again[9, 1][part] == data[9, 1][part]).all() for part in ("label", "ids", "photo"))


def test_ab_pair(save, tmp_path):
    values = np.arange(12 * 4, dtype=np.uint16).reshape(3, 4, 4) * 1000
    save("train_A/a.npy", values)
    save("train_B/a.png", np.zeros((3, 4, 3), np.uint8))
    data = dataset(tmp_path, 0, train=True, flip=False)
    assert data.input_channels == 4
    sample = data[0]
    assert (sample["input"].shape, sample["input"].dtype) == ((4, 3, 4), torch.float32)
    torch.testing.assert_close(sample["input"].permute(1, 2, 0), torch.tensor(values / 32767.5 - 1).float())
    assert "label" not in sample


def test_side_by_side_pair(save, tmp_path):
    left = np.full((3, 4, 3), 255, np.uint8)
    right = np.arange(36, dtype=np.uint8).reshape(3, 4, 3)
    save("train/a.png", np.concatenate([left, right], axis=1))
    sample = dataset(tmp_path, 0, train=True, flip=False)[0]
    assert sample["input"].unique().tolist() == [1]
    assert (sample["photo"].permute(1, 2, 0).numpy() == right).all()


def test_side_by_side_of_odd_width(save, tmp_path):
    save("train/a.png", np.zeros((3, 5, 3), np.uint8))
    with pytest.raises(DataError, match=r"a\.png is 5 pixels wide, which cannot be split into equal halves"):
        dataset(tmp_path, 0)[0]


def test_inputs_of_different_channels(save, tmp_path):
    for name, shape in (("a", (3, 4)), ("b", (3, 4, 3))):
        save(f"train_A/{name}.png", np.zeros(shape, np.uint8))
        save(f"train_B/{name}.png", np.zeros((3, 4, 3), np.uint8))
    with pytest.raises(
        DataError,
        match=r"b\.png has 3 channel.*a\.png has 1; save all inputs with the same number of "
        r"channels",
    ):
        dataset(tmp_path, 0)[1]


@pytest.mark.parametrize(
    ("values", "n_labels", "dontcare", "message"),
    [
        (
            [0, 35],
            35,
            None,
            r"l\.png contains label 35, but model\.n_labels is 35; set model\.n_labels to at least 36, or data",
        ),
        (
            [0, 40, 255],
            35,
            255,
            r"contains label 40, but model\.n_labels is 35 \(data\.dontcare is 255\); set model\.n_labels to at",
        ),
        (list(range(20)), 4, None, r"contains label 4, 5, 6, 7, 8, \.\.\., but"),
    ],
)
def test_label_out_of_range(save, tmp_path, values, n_labels, dontcare, message):
    save("train_label/l.png", np.array([values], np.uint8))
    with pytest.raises(DataError, match=message):
        dataset(tmp_path, n_labels, dontcare=dontcare)[0]


def test_labels_that_do_not_count_are_not_sorted(save, tmp_path, monkeypatch):
    save("train_label/l.png", np.full((2, 3), 255, np.uint8))
    monkeypatch.setattr(np, "unique", lambda *_: pytest.fail("sorted the pixels that do not count"))
    assert dataset(tmp_path, 4, dontcare=255)[0]["label"].unique().tolist() == [255]


def test_constructor_decodes_nothing(save, tmp_path):
    path = save("train_A/a.png", np.zeros((32, 32, 4), np.uint8))
    save("train_B/a.png", np.zeros((32, 32, 3), np.uint8))
    path.write_bytes(path.read_bytes()[:60])
    assert dataset(tmp_path, 0).input_channels == 4


def test_negative_label(save, tmp_path):
    save("train_label/l.npy", np.array([[0, -1]]))
    with pytest.raises(DataError, match=r"contains label -1; labels start at 0: set data\.dontcare"):
        dataset(tmp_path, 4)[0]
    assert dataset(tmp_path, 4, dontcare=-1)[0]["label"].tolist() == [[0, -1]]


@pytest.mark.parametrize(
    ("n_labels", "dontcare", "dtype"),
    [(256, 255, torch.uint8), (300, None, torch.int32), (4, 300, torch.int32), (4, None, torch.uint8)],
)
def test_label_type_holds_every_value(save, tmp_path, n_labels, dontcare, dtype):
    values = np.array([[0, 3, dontcare if dontcare is not None else n_labels - 1]], np.uint16)
    save("train_label/l.png", values)
    label = dataset(tmp_path, n_labels, dontcare=dontcare)[0]["label"]
    assert label.dtype == dtype
    assert label.tolist() == values.tolist()


@pytest.mark.parametrize("part", ["inst", "img"])
def test_files_of_different_size(nvidia, save, part):
    name = "s0_inst.tif" if part == "inst" else "s0_img.png"
    save(f"train_{part}/{name}", np.zeros((8, 11), np.int32 if part == "inst" else np.uint8))
    with pytest.raises(DataError, match=rf"s0_label\.png is 12x8, but .*{name} is 11x8; make them the same size"):
        dataset(nvidia, 4)[0]


def test_crop_larger_than_the_picture_names_the_file(nvidia):
    with pytest.raises(DataError, match=r"s0_label\.png: the crop of 16x16 is larger than the image, which is 12x8"):
        dataset(nvidia, 4, size=SizeConfig(crop_width=16))[0]


def test_corrupt_file_names_the_file(nvidia):
    path = nvidia / "train_img" / "s1_img.png"
    path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(DataError, match=r"s1_img\.png cannot be read"):
        dataset(nvidia, 4)[1]


def test_dataset_refuses_what_cannot_work(nvidia):
    data, size = DataConfig(root=nvidia), SizeConfig()
    pairs = find_pairs(data, "test").pairs
    with pytest.raises(DataError, match="has no pairs"):
        PairedDataset([], data, size, 4)
    with pytest.raises(DataError, match="s0 has no photo; training needs"):
        PairedDataset(pairs, data, size, 4, train=True)
    with pytest.raises(ConfigError, match=r"model\.n_labels is 0, but the dataset contains label maps"):
        PairedDataset(pairs, data, size, 0)
