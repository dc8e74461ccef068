from __future__ import annotations

import json
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from hdgan.cli import main
from hdgan.data import DataConfig, PairedDataset, SizeConfig, find_pairs, find_phases, make_loader, pack_dataset
from hdgan.data.check import check_dataset
from hdgan.data.packed import ENDING, INDEX, encode, read_packed, verify
from hdgan.data.quick_check import quick_check
from hdgan.errors import ConfigError, DataError, HdganError

RNG = np.random.default_rng(0)
SIZES = (SizeConfig(width=20), SizeConfig(width=16, height=8))


@pytest.fixture
def street(save, tmp_path: Path) -> Path:
    """Four training triples of noise, 37x23, the ids negative, of 8, 16 and 17 bits; a test pair without photo."""
    for i, (low, high) in enumerate([(-5, 40), (0, 256), (0, 65536), (0, 70000)]):
        save(f"street/train_label/city/{i}_label.png", RNG.integers(0, 4, (23, 37), dtype=np.uint8))
        save(f"street/train_inst/city/{i}_inst.tif", RNG.integers(low, high, (23, 37), dtype=np.int32))
        save(f"street/train_img/city/{i}_img.png", RNG.integers(0, 256, (23, 37, 3), dtype=np.uint8))
    save("street/test_label/t.png", RNG.integers(0, 4, (23, 37), dtype=np.uint8))
    save("street/test_inst/t.png", RNG.integers(0, 4, (23, 37), dtype=np.uint8))
    return tmp_path / "street"


@pytest.fixture
def packed(street: Path, tmp_path: Path) -> Path:
    """`street` in 20x12 and 16x8."""
    return pack_into(street, tmp_path / "packed", *SIZES)


def pack_into(root: Path, out: Path, *sizes: SizeConfig, **options) -> Path:
    n_labels = options.pop("n_labels", 4)
    pack_dataset(DataConfig(root=root, **options), out, sizes or (SizeConfig(),), n_labels)
    return out


def dataset(root: Path, size: SizeConfig, n_labels: int = 4, phase: str = "train", **options) -> PairedDataset:
    data = DataConfig(root=root, **options)
    pairs = find_pairs(data, phase, n_labels > 0).pairs
    return PairedDataset(pairs, data, size, n_labels, train=phase == "train", seed=3)


def assert_same_samples(one: PairedDataset, other: PairedDataset) -> None:
    assert len(one) == len(other)
    for position in range(12):
        key = (position, position % len(one))
        theirs, ours = one[key], other[key]
        assert theirs.keys() == ours.keys()
        assert theirs.pop("stem") == ours.pop("stem")
        for part, tensor in theirs.items():
            assert tensor.dtype == ours[part].dtype
            assert torch.equal(tensor, ours[part]), part


@pytest.mark.parametrize(
    "size",
    [
        SizeConfig(width=20),
        SizeConfig(width=20, height=12),
        SizeConfig(width=16, height=8),
        SizeConfig(width=20, crop_width=7, crop_height=5),
        SizeConfig(width=16, height=8, crop_width=8),
        SizeConfig(width=16, height=8, jitter=4),
    ],
)
def test_samples_equal_those_of_the_source(street, packed, size):
    assert find_pairs(DataConfig(root=packed), "train").layout == "packed"
    assert_same_samples(dataset(street, size), dataset(packed, size))
    assert_same_samples(dataset(street, size, phase="test"), dataset(packed, size, phase="test"))


@pytest.mark.parametrize("photo_filter", ["bicubic", "lanczos"])
def test_the_size_of_the_source_serves_every_size(street, tmp_path, photo_filter):
    packed = pack_into(street, tmp_path / "packed", photo_filter=photo_filter)
    for size in (SizeConfig(), SizeConfig(crop_width=9), SizeConfig(width=50, crop_width=9), SizeConfig(height=5)):
        for wanted in ("bicubic", "lanczos"):
            assert_same_samples(dataset(street, size, photo_filter=wanted), dataset(packed, size, photo_filter=wanted))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_inputs_of_any_type(save, tmp_path, dtype):
    for i in range(3):
        values = RNG.integers(0, 256, (9, 14, 5)).astype(dtype) * (255 if dtype == np.uint16 else 1)
        save(f"ab/train_A/{i}.npy", values)
        save(f"ab/train_B/{i}.png", RNG.integers(0, 256, (9, 14, 3), dtype=np.uint8))
    size = SizeConfig(width=11, crop_width=6)
    packed = pack_into(tmp_path / "ab", tmp_path / "packed", SizeConfig(width=11), n_labels=0)
    assert dataset(packed, size, 0).input_channels == 5
    assert_same_samples(dataset(tmp_path / "ab", size, 0), dataset(packed, size, 0))


def test_side_by_side(save, tmp_path):
    for i in range(3):
        save(f"both/train/{i}.png", RNG.integers(0, 256, (9, 28, 3), dtype=np.uint8))
    packed = pack_into(tmp_path / "both", tmp_path / "packed", SizeConfig(width=11), n_labels=0)
    assert_same_samples(dataset(tmp_path / "both", SizeConfig(width=11), 0), dataset(packed, SizeConfig(width=11), 0))


def test_maps_are_stored_in_the_least_type_and_pictures_are_views(packed):
    pairs = find_pairs(DataConfig(root=packed), "train").pairs
    types = [read_packed(pair.packed)["ids"].dtype for pair in pairs]
    assert types == [np.int32, np.uint8, np.uint16, np.int32]
    photo = read_packed(pairs[0].packed)["photo"]
    assert photo.shape == (12, 20, 3)
    assert photo.transpose(2, 0, 1).flags.c_contiguous
    assert not photo.flags.owndata


@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_many_workers_read_the_same(packed, start):
    data = dataset(packed, SizeConfig(width=20, crop_width=9))
    options = {"stop": 8, "batch": 2, "seed": 1}
    alone = list(make_loader(data, **options))
    shared = list(make_loader(data, **options, workers=2, multiprocessing_context=start))
    assert [batch["stem"] for batch in alone] == [batch["stem"] for batch in shared]
    for one, other in zip(alone, shared, strict=True):
        assert all(torch.equal(one[part], other[part]) for part in ("label", "ids", "photo"))


def test_check_and_quick_check(packed):
    config = DataConfig(root=packed)
    assert find_phases(config) == ("test", "train")
    report = check_dataset(config, 4)
    assert report.faults == []
    assert report.n_labels == 4
    assert {phase.phase: (phase.layout, phase.pairs) for phase in report.phases} == {
        "test": ("packed", 1),
        "train": ("packed", 4),
    }
    assert report.phases[1].sizes == {(20, 12): 4}
    assert any("holds label 3, but n_labels is 3" in fault for fault in check_dataset(config, 3).faults)
    with pytest.raises(DataError, match="holds label 3, but n_labels is 3"):
        quick_check(find_pairs(config, "train"), config, 3)


def flip_byte(path: Path, at: int) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (truncate, r"2\.safetensors has \d+ bytes, but was written with \d+; repeat the hdgan data pack"),
        (lambda path: flip_byte(path, -1), r"2\.safetensors: \w+@\w+ differs from its checksum; repeat the hdgan data"),
        (lambda path: flip_byte(path, 8), r"2\.safetensors cannot be read \(.*\); repeat the hdgan data pack"),
        (Path.unlink, r"2\.safetensors does not exist; repeat the hdgan data pack"),
    ],
)
def test_damage_is_told_and_mended(street, packed, damage: Callable[[Path], None], message):
    path = packed / "train" / "city" / f"2{ENDING}"
    whole = path.read_bytes()
    damage(path)
    (fault,) = check_dataset(DataConfig(root=packed), 4).faults
    with pytest.raises(DataError, match=message):
        raise DataError(fault)
    with pytest.raises(DataError, match=r"2\.safetensors"):
        [dataset(packed, size)[2] for size in SIZES]
    report = pack_dataset(DataConfig(root=street), packed, SIZES, 4)
    assert (report.samples, report.kept) == (5, 4)
    assert path.read_bytes() == whole


def test_every_byte_is_guarded(street, tmp_path):
    packed = pack_into(street, tmp_path / "packed", SizeConfig(width=5))
    path = packed / "train" / "city" / f"1{ENDING}"
    start = 8 + int.from_bytes(path.read_bytes()[:8], "little")
    for at in range(start, path.stat().st_size, 7):
        flip_byte(path, at)
        with pytest.raises(DataError, match="checksum"):
            dataset(packed, SizeConfig(width=5))[1]
        flip_byte(path, at)
    assert dataset(packed, SizeConfig(width=5))[1]["stem"] == "city/1"


@pytest.mark.parametrize("length", [11, 13, 1 << 20])
def test_no_map_inflates_beyond_its_size(tmp_path, length):
    path = tmp_path / f"a{ENDING}"
    path.write_bytes(encode({(4, 3): {"label": RNG.integers(0, 4, (3, 4), dtype=np.uint8)}}, {}))
    stored = np.frombuffer(zlib.compress(bytes(length)), np.uint8)
    about = json.loads(safe_open(path, "np").metadata()["hdgan"])
    tensor = about["tensors"]["label@4x3"]
    assert verify(path) == about
    named = f"label@4x3 {tensor['type']} {tensor['shape']}".encode()
    save_file({"label@4x3": stored}, path, {"hdgan": json.dumps(about | {"tensors": {"label@4x3": {
        **tensor, "crc32": zlib.crc32(stored.data, zlib.crc32(named))
    }}})})  # fmt: skip
    with pytest.raises(
        DataError, match=r"a\.safetensors cannot be read \(a map of 12 bytes does not inflate to so many"
    ):
        verify(path)


def test_only_what_changed_is_packed_again(street, packed, save):
    save("street/train_label/city/1_label.png", np.full((23, 37), 2, np.uint8))
    for part in ("label", "inst", "img"):
        next((street / f"train_{part}" / "city").glob("0_*")).unlink()
    half_written = packed / "train" / "city" / f".0{ENDING}.0123abcd.tmp"
    half_written.touch()
    foreign = [
        packed / "runs" / "a" / "checkpoints" / "100" / "model.safetensors",
        packed / "train" / f"mine{ENDING}",
        packed / "train" / "city" / f".0{ENDING}.tmp",
        packed / "train" / "city" / f".mine{ENDING}.0123abcd.tmp",
        packed / "other" / "city" / f"0{ENDING}",
    ]
    for path in foreign:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    report = pack_dataset(DataConfig(root=street), packed, SIZES, 4)
    assert (report.samples, report.kept) == (4, 3)
    data = dataset(packed, SizeConfig(width=20))
    assert [pair.stem for pair in data.pairs] == ["city/1", "city/2", "city/3"]
    assert (data[0]["label"] == 2).all()
    assert not half_written.exists()
    assert all(path.exists() for path in foreign)
    assert not (packed / "train" / "city" / f"0{ENDING}").exists()


def test_labels_of_what_is_kept_are_checked_again(nvidia, save, tmp_path):
    label = np.zeros((8, 12), np.uint8)
    label[0, 0] = 9
    save("train_label/s3_label.png", label)  # which no look at a few samples finds
    out, size = tmp_path / "packed", SizeConfig(width=3)
    pack_into(nvidia, out, size, n_labels=None)
    assert all(9 not in dataset(out, size, 10)[i]["label"] for i in range(5)), "the file must not tell"
    with pytest.raises(DataError, match=r"s3_label\.png holds label 9, but n_labels is 4; set n_labels to at least 10"):
        pack_into(nvidia, out, size)
    report = pack_dataset(DataConfig(root=nvidia, dontcare=9), out, [size], 4)
    assert (report.samples, report.kept) == (7, 7)


def test_a_sample_that_does_not_tell_its_labels_is_packed_again(street, packed):
    path = packed / "train" / "city" / f"1{ENDING}"
    whole = path.read_bytes()
    about = verify(path)
    del about["labels"]
    save_file(load_file(path), path, {"hdgan": json.dumps(about)})
    report = pack_dataset(DataConfig(root=street), packed, SIZES, 4)
    assert (report.samples, report.kept) == (5, 4)
    assert path.read_bytes() == whole


def test_an_interrupted_packing_goes_on(street, tmp_path):
    out, config = tmp_path / "packed", DataConfig(root=street)

    def interrupt(phase: str, done: int, total: int) -> None:
        if phase == "train" and done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pack_dataset(config, out, threads=1, progress=interrupt)
    with pytest.raises(DataError, match=r"is not packed to its end: repeat the hdgan data pack of .*street, which"):
        find_pairs(DataConfig(root=out), "train")
    report = pack_dataset(config, out)
    assert report.samples == 5
    assert 3 <= report.kept < 5
    assert_same_samples(dataset(street, SizeConfig()), dataset(out, SizeConfig()))


def test_an_interrupted_repacking_does_not_pass_as_whole(street, packed, save):
    config = DataConfig(root=street)
    for i in range(4):
        save(f"street/train_img/city/{i}_img.png", RNG.integers(0, 256, (23, 37, 3), dtype=np.uint8))
    for part in ("label", "inst", "img"):
        next((street / f"train_{part}" / "city").glob("3_*")).unlink()

    def interrupt(phase: str, done: int, total: int) -> None:
        if phase == "train":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pack_dataset(config, packed, SIZES, 4, threads=1, progress=interrupt)
    with pytest.raises(DataError, match=r"is not packed to its end: repeat the hdgan data pack of .*street, which"):
        find_pairs(DataConfig(root=packed), "train")
    with pytest.raises(
        ConfigError, match=r"packed is not packed to its end, in which .*: name train too, or no --phase"
    ):
        pack_dataset(config, packed, SIZES, 4, ["test"])
    report = pack_dataset(config, packed, SIZES, 4)
    assert report.samples == 4
    assert_same_samples(dataset(street, SIZES[0]), dataset(packed, SIZES[0]))
    assert not (packed / "train" / "city" / f"3{ENDING}").exists(), "the index forgot what it listed"


def test_what_is_listed_stays_usable_while_another_phase_is_packed(street, packed, save):
    for part in ("label", "inst"):
        save(f"street/val_{part}/v.png", RNG.integers(0, 4, (23, 37), dtype=np.uint8))

    def interrupt(phase: str, done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pack_dataset(DataConfig(root=street), packed, SIZES, 4, ["val"], progress=interrupt)
    assert find_phases(DataConfig(root=packed)) == ("test", "train")


def test_phases_can_be_packed_one_by_one(street, tmp_path):
    out, config = tmp_path / "packed", DataConfig(root=street)
    pack_dataset(config, out, phases=["train"])
    assert find_phases(DataConfig(root=out)) == ("train",)
    with pytest.raises(DataError, match="was packed without phase test; it holds: train"):
        find_pairs(DataConfig(root=out), "test")
    pack_dataset(config, out, phases=["test"])
    assert find_phases(DataConfig(root=out)) == ("test", "train")


def test_a_size_that_is_not_stored(packed):
    config = DataConfig(root=packed)
    report = quick_check(find_pairs(config, "train"), config, 4)
    report.require_size(SizeConfig(width=20), batch=4)
    message = (
        r"0\.safetensors is packed in 20x12, 16x8, but 37x23 is wanted: set --stages\.STAGE\.size\.width 20, or pack "
        "again with 37x23 too"
    )
    with pytest.raises(DataError, match=message):
        report.require_size(SizeConfig())
    with pytest.raises(DataError, match=message):
        dataset(packed, SizeConfig())[0]


def test_another_filter(packed):
    config = DataConfig(root=packed, photo_filter="lanczos")
    with pytest.raises(ConfigError, match=r"with bicubic, not lanczos: set --data\.photo-filter bicubic"):
        quick_check(find_pairs(config, "train"), config, 4).require_size(SizeConfig(width=20))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": None}, "is of format None, version 1"),
        ({"version": 2}, "is of format hdgan-packed, version 2; this hdgan reads hdgan-packed, version 1: pack again"),
        ({"format": "other"}, "is of format other, version 1"),
        ({"complete": None, "settings": {}}, r"packed\.json cannot be read \('source'\); remove its folder"),
        ({"phases": {"train": {}}}, r"packed\.json cannot be read \(.*\); remove its folder and pack again"),
    ],
)
def test_an_index_that_cannot_be_used(street, packed, change, message):
    index = packed / INDEX
    index.write_text(json.dumps({**json.loads(index.read_text()), **change}))
    with pytest.raises(DataError, match=message):
        find_pairs(DataConfig(root=packed), "train")
    if "phases" in change:
        with pytest.raises(DataError, match=message):
            pack_dataset(DataConfig(root=street), packed, SIZES)


def test_an_index_without_settings(packed, street):
    index = json.loads((packed / INDEX).read_text())
    del index["settings"]
    (packed / INDEX).write_text(json.dumps(index))
    with pytest.raises(DataError, match=r"packed\.json lacks settings; remove its folder and pack again"):
        pack_dataset(DataConfig(root=street), packed)


def test_a_truncated_index(packed):
    truncate(packed / INDEX)
    with pytest.raises(DataError, match=r"packed\.json cannot be read \(.*\); remove its folder and pack again"):
        find_pairs(DataConfig(root=packed), "train")


def test_layout_and_labels_must_suit(packed, street):
    with pytest.raises(ConfigError, match=r"holds label maps \(layout packed\); set n_labels"):
        find_pairs(DataConfig(root=packed), "train", labels=False)
    with pytest.raises(DataError, match=r"has no packed\.json; make a packed dataset with: hdgan data pack"):
        find_pairs(DataConfig(root=street, layout="packed"), "train")


def test_folders_that_cannot_be_written(street, packed, tmp_path, monkeypatch):
    config = DataConfig(root=street)
    with pytest.raises(ConfigError, match="street exists and is no packed dataset: choose another --out, or remove it"):
        pack_dataset(config, street)
    with pytest.raises(ConfigError, match=r"was packed with sizes 20x\*, 16x8, not 30x\*: choose another --out"):
        pack_dataset(config, packed, [SizeConfig(width=30)])
    with pytest.raises(ConfigError, match="was packed with photo_filter bicubic, not lanczos"):
        pack_into(street, packed, SizeConfig(width=20), photo_filter="lanczos")
    with pytest.raises(ConfigError, match="packed is packed already: name the folder that it was packed from"):
        pack_dataset(DataConfig(root=packed), tmp_path / "again")
    usage = type("Usage", (), {"free": 1000})
    monkeypatch.setattr("hdgan.data.pack.shutil.disk_usage", lambda path: usage)
    with pytest.raises(HdganError, match=r"new needs about \d\d\.\d kB, but 1\.0 kB are free: free space, choose"):
        pack_dataset(config, tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_other_phases_give_no_space(street, tmp_path, monkeypatch):
    out, config = tmp_path / "packed", DataConfig(root=street)
    pack_dataset(config, out, phases=["train"])
    monkeypatch.setattr("hdgan.data.pack.shutil.disk_usage", lambda path: type("Usage", (), {"free": 0}))
    with pytest.raises(HdganError, match=r"packed needs about .*, but 0 bytes are free"):
        pack_dataset(config, out, phases=["test"])


def test_faults_of_the_source_are_told(street, save, tmp_path):
    with pytest.raises(DataError, match="holds label 3, but n_labels is 3"):
        pack_dataset(DataConfig(root=street), tmp_path / "packed", n_labels=3)
    save("street/train_inst/city/2_inst.npy", np.full((23, 37), 2**31, np.int64))
    (street / "train_inst/city/2_inst.tif").unlink()
    with pytest.raises(DataError, match="do not fit in 32 bits"):
        pack_dataset(DataConfig(root=street), tmp_path / "packed")


def test_the_command(street, tmp_path, capsys):
    out = tmp_path / "packed"
    command = ["data", "pack", str(street), "--out", str(out), "--width", "20", "16", "--height", "12", "8"]
    assert main([*command, "--workers", "1"]) == 0
    shown = capsys.readouterr()
    assert "5 samples, " in shown.out
    assert f"train with --data.root {out}" in " ".join(shown.out.split())
    assert "5 samples, about " in shown.err
    assert main(["data", "check", str(out)]) == 0
    assert dataset(out, SizeConfig(width=16, height=8))[0]["photo"].shape == (3, 8, 16)
    for options, message in (
        (["--width", "20", "16", "--height", "12"], "2 widths, but 1 heights: give one height for each width, or none"),
        (["--workers", "0"], "--workers 0: give 1 or more"),
    ):
        assert main(["data", "pack", str(street), "--out", str(tmp_path / "other"), *options]) == 2
        assert message in capsys.readouterr().err


def test_heights_alone_keep_the_aspect_ratio(street, tmp_path):
    assert main(["data", "pack", str(street), "--out", str(tmp_path / "packed"), "--height", "12"]) == 0
    (first, *_) = find_pairs(DataConfig(root=tmp_path / "packed"), "train").pairs
    assert first.packed is not None
    assert first.packed.sizes == ((19, 12),)
    assert replace(first.packed, sizes=((1, 1),)).source == (37, 23)
