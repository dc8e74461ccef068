from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from hdgan.data import DataConfig, PairedDataset, SizeConfig, find_pairs, photo_to_unit_range
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


@pytest.fixture
def deep(save, tmp_path: Path) -> Path:
    """Three pairs 12x8: an RGB input, and a photo of five channels of 16 bits, 1000 * channel + 100 * y + x."""
    y, x = np.mgrid[:8, :12]
    for i in range(3):
        save(f"train_A/{i}.png", np.full((8, 12, 3), 40 * i, np.uint8))
        save(f"train_B/{i}.npy", np.stack([1000 * c + 100 * y + x for c in range(5)], axis=2).astype(np.uint16))
    return tmp_path


def test_photos_as_stored(deep):
    data = dataset(deep, 0, photo="stored")
    photo = data[1]["photo"]
    assert data.photo_kind == (5, "uint16")
    assert (photo.dtype, photo.shape) == (torch.float32, (5, 8, 12))
    assert photo_to_unit_range(photo) is photo
    assert ((photo + 1) * 32767.5).round()[3, 2, 7] == 3207


def test_photos_of_8_bits_as_stored_stay_8_bits(save, tmp_path):
    grey = np.arange(96, dtype=np.uint8).reshape(8, 12)
    save("train_label/a.png", np.zeros((8, 12), np.uint8))
    save("train_img/a.png", grey)
    photo = dataset(tmp_path, 1, photo="stored")[0]["photo"]
    assert photo.dtype == torch.uint8
    assert np.array_equal(photo.numpy(), grey[None])
    assert torch.equal(photo_to_unit_range(photo), photo.float() / 127.5 - 1)
    assert dataset(tmp_path, 1)[0]["photo"].shape == (3, 8, 12), "RGB is the default"


def test_side_by_side_photos_as_stored(save, tmp_path):
    both = np.arange(2 * 8 * 2, dtype=np.uint16).reshape(2, 8, 2)
    save("train/a.npy", both)
    data = dataset(tmp_path, 0, photo="stored")
    assert data.photo_kind == (2, "uint16")
    assert np.array_equal(((data[0]["photo"] + 1) * 32767.5).round().numpy(), both[:, 4:].transpose(2, 0, 1))
    save("train/a.npy", np.full((2, 8, 2), 1.5, np.float32))
    floats = dataset(tmp_path, 0, photo="stored")
    with pytest.raises(DataError, match=r"a\.npy: this photo has values from 1\.5 to 1\.5; scale them to"):
        floats[0]


@pytest.mark.parametrize(
    ("array", "found"),
    [
        (np.zeros((8, 12, 4), np.uint16), "4 channels of 16 bits"),
        (np.zeros((8, 12, 5), np.uint8), "5 channels of 8 bits"),
        (np.zeros((8, 12, 5), np.float32), "5 channels of float32"),
    ],
)
def test_photos_that_differ_in_kind(deep, save, array, found):
    save("train_B/2.npy", array)
    with pytest.raises(
        DataError, match=rf"2\.npy has {found}, but .*0\.npy has 5 channels of 16 bits; save all photos alike"
    ):
        dataset(deep, 0, photo="stored")[2]


def test_parts_stay_aligned_through_rotation(nvidia):
    data = dataset(nvidia, 4, size=SizeConfig(crop_width=7, crop_height=5), train=True, rotate=25)
    plain = dataset(nvidia, 4, size=SizeConfig(crop_width=7, crop_height=5), train=True)
    differ = 0
    for position in range(20):
        sample, unturned = data[position, position % 5], plain[position, position % 5]
        _, x, y = sample["photo"].long()
        ids = sample["ids"].long() - 70000
        assert ((ids % 100 - x).abs() <= 1).float().mean() > 0.8
        assert ((ids // 100 - y).abs() <= 1).float().mean() > 0.8
        differ += not torch.equal(sample["ids"], unturned["ids"])
    assert differ > 15


def test_color_jitter_changes_training_photos_alone(nvidia):
    jittered, plain = (dataset(nvidia, 4, train=True, color_jitter=strength) for strength in (0.5, 0.0))
    again = pickle.loads(pickle.dumps(jittered))
    for position in range(5):
        one, other, same = (data[position, position] for data in (jittered, plain, again))
        assert torch.equal(one["label"], other["label"])
        assert torch.equal(one["ids"], other["ids"])
        assert not torch.equal(one["photo"], other["photo"])
        assert torch.equal(one["photo"], same["photo"])
    assert torch.equal(dataset(nvidia, 4, color_jitter=0.5)[0]["photo"], dataset(nvidia, 4)[0]["photo"]), (
        "only training images change"
    )


def test_color_jitter_of_pairs_changes_both_alike(save, tmp_path):
    image = np.random.default_rng(0).integers(0, 256, (8, 12, 3), dtype=np.uint8)
    for part in "AB":
        save(f"train_{part}/0.png", image)
    sample = dataset(tmp_path, 0, train=True, color_jitter=0.4)[3, 0]
    assert torch.equal(sample["input"], photo_to_unit_range(sample["photo"]))


@pytest.mark.parametrize("part", ["train_A", "train_B"])
def test_color_jitter_of_floats_is_refused(deep, save, part):
    for i in range(3):
        for path in deep.glob(f"{part}/{i}.*"):
            path.unlink()
        save(f"{part}/{i}.npy", np.zeros((8, 12, 2), np.float32))
    dataset(deep, 0, photo="stored", color_jitter=0.1)
    with pytest.raises(
        ConfigError, match=rf"data\.color_jitter is 0\.1, but .*{part}.0\.npy holds floats: set it to 0"
    ):
        dataset(deep, 0, photo="stored", color_jitter=0.1, train=True)


def test_color_jitter_of_one_input_of_floats_is_refused(save, tmp_path):
    """All others are of 8 bits, and the headers of all files are not read."""
    for name, dtype in (("0", np.uint8), ("1", np.float32)):
        save(f"train_A/{name}.npy", np.zeros((4, 6, 3), dtype))
        save(f"train_B/{name}.png", np.zeros((4, 6, 3), np.uint8))
    data = dataset(tmp_path, 0, color_jitter=0.1, train=True)
    assert data[0]["input"].shape == (3, 4, 6)
    with pytest.raises(DataError, match=r"train_A.1\.npy holds floats: set data\.color_jitter to 0, or save integers"):
        data[1]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"photo": "grey"}, r"data\.photo is 'grey'"),
        ({"rotate": 181.0}, r"data\.rotate is 181\.0"),
        ({"rotate": -1.0}, r"data\.rotate is -1\.0"),
        ({"color_jitter": 1.0}, r"data\.color_jitter is 1\.0"),
    ],
)
def test_options_out_of_their_bounds(options, message):
    with pytest.raises(ConfigError, match=message):
        DataConfig(**options)


@pytest.mark.parametrize("size", [SizeConfig(), SizeConfig(width=9), SizeConfig(width=20, crop_width=8)])
def test_rgb_photos_are_the_same_either_way(nvidia, size):
    rgb, stored = (
        dataset(nvidia, 4, size=size, train=True, photo=photo, rotate=20, color_jitter=0.2)
        for photo in ("rgb", "stored")
    )
    for position in range(5):
        assert torch.equal(rgb[position, position]["photo"], stored[position, position]["photo"])
