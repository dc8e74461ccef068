"""Packed samples: equal to those of the source, and guarded against damage."""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.numpy import save_file

from hdgan.config.serialization import to_plain
from hdgan.data import DataConfig, SizeConfig, find_pairs, find_phases, make_loader, pack_dataset
from hdgan.data.inspection import check_dataset, quick_check
from hdgan.data.packed import encode, verify_packed
from hdgan.data.packed_index import ENDING, INDEX, About, Stored
from hdgan.errors import ConfigError, DataError

from .packing import RNG, SIZES, assert_same_samples, dataset, pack_into


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
    types = [pair.read()["ids"].dtype for pair in pairs]
    assert types == [np.int32, np.uint8, np.uint16, np.int32]
    photo = pairs[0].read()["photo"]
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
    assert max(report.labels) == 3
    assert {phase.phase: (phase.layout, phase.pairs) for phase in report.phases} == {
        "test": ("packed", 1),
        "train": ("packed", 4),
    }
    assert report.phases[1].sizes == {(20, 12): 4}
    assert any("contains label 3, but model.n_labels is 3" in fault for fault in check_dataset(config, 3).faults)
    with pytest.raises(DataError, match=r"contains label 3, but model\.n_labels is 3"):
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
        (
            lambda path: flip_byte(path, 8),
            r"2\.safetensors .* is not a readable safetensors file .*: repeat the hdgan data",
        ),
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
    label = RNG.integers(0, 4, (3, 4), dtype=np.uint8)
    path.write_bytes(encode({(4, 3): {"label": label}}, About("a", (4, 3), ((4, 3),), 0)))
    stored = np.frombuffer(zlib.compress(bytes(length)), np.uint8)
    about = json.loads(safe_open(path, "np").metadata()["hdgan"])
    tensor = about["tensors"]["label@4x3"]
    assert to_plain(verify_packed(path)) == about
    named = f"label@4x3 {tensor['type']} {tensor['shape']}".encode()
    save_file({"label@4x3": stored}, path, {"hdgan": json.dumps(about | {"tensors": {"label@4x3": {
        **tensor, "crc32": zlib.crc32(stored.data, zlib.crc32(named))
    }}})})  # fmt: skip
    with pytest.raises(
        DataError, match=r"a\.safetensors cannot be read \(a map of 12 bytes does not inflate to that length"
    ):
        verify_packed(path)


def test_a_size_that_is_not_stored(packed):
    config = DataConfig(root=packed)
    report = quick_check(find_pairs(config, "train"), config, 4)
    report.require_size(SizeConfig(width=20), batch=4)
    message = (
        r"0\.safetensors is packed in 20x12, 16x8, but training needs 37x23: set stages\.STAGE\.size\.width 20, or "
        r"pack again with 37x23 too"
    )
    with pytest.raises(DataError, match=message):
        report.require_size(SizeConfig())
    with pytest.raises(DataError, match=message):
        dataset(packed, SizeConfig())[0]


def test_another_filter(packed):
    config = DataConfig(root=packed, photo_filter="lanczos")
    with pytest.raises(ConfigError, match=r"with bicubic, not lanczos: set data\.photo_filter bicubic"):
        quick_check(find_pairs(config, "train"), config, 4).require_size(SizeConfig(width=20))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": None}, "is of format None, version 2"),
        (
            {"version": 3},
            "is of format hdgan-packed, version 3, but this hdgan reads hdgan-packed, versions 1 to 2: pack again",
        ),
        ({"format": "other"}, "is of format other, version 2"),
        ({"complete": None, "settings": {}}, r"packed\.json: complete is None: give true or false"),
        ({"phases": {"train": {}}}, r"packed\.json: option phases\.train\.parts, phases\.train\.samples is missing"),
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
    with pytest.raises(DataError, match=r"packed\.json: option settings is missing"):
        pack_dataset(DataConfig(root=street), packed)


def test_a_truncated_index(packed):
    truncate(packed / INDEX)
    with pytest.raises(DataError, match=r"packed\.json is damaged \(.*\): remove its folder and pack again"):
        find_pairs(DataConfig(root=packed), "train")


def edited(packed: Path, edit: Callable[[dict], object]) -> None:
    index = json.loads((packed / INDEX).read_text())
    edit(index)
    (packed / INDEX).write_text(json.dumps(index))


def sample(index: dict) -> dict:
    return index["phases"]["train"]["samples"][1]


NAMES = ["../x", "/x", "a/../../x", "..\\x", "C:x", "C:\\x", "a\0", "", ".", "a/", "./a", "\ud800"]


@pytest.mark.parametrize("name", NAMES)
def test_no_name_in_an_index_leads_out(street, packed, tmp_path, name):
    outside = tmp_path / "x" / f"0{ENDING}"
    outside.parent.mkdir()
    outside.write_bytes(b"of somebody else")
    stem = (packed / INDEX).read_text()
    edited(packed, lambda index: sample(index).update(stem=name))
    for use in (
        lambda: find_pairs(DataConfig(root=packed), "train"),
        lambda: pack_dataset(DataConfig(root=street), packed),
    ):
        with pytest.raises(DataError, match=r"packed\.json"):
            use()
    (packed / INDEX).write_text(stem)
    edited(packed, lambda index: index["phases"].update({name: index["phases"].pop("test")}))
    with pytest.raises(DataError, match=r"packed\.json"):
        pack_dataset(DataConfig(root=street), packed)
    assert outside.read_bytes() == b"of somebody else"


def test_no_link_leads_out(street, packed, tmp_path):
    (packed / "train").rename(tmp_path / "elsewhere")
    (packed / "train").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    before = sorted(path.name for path in (tmp_path / "elsewhere" / "city").iterdir())
    for use in (
        lambda: find_pairs(DataConfig(root=packed), "test"),
        lambda: pack_dataset(DataConfig(root=street), packed, SIZES, 4),
    ):
        with pytest.raises(
            DataError,
            match=r"city is a link that leads out of .*packed: put the folder itself there, "
            r"or remove",
        ):
            use()
    edited(packed, lambda index: index.update(phases={}, complete=False))
    with pytest.raises(DataError, match="city is a link that leads out of"):
        pack_dataset(DataConfig(root=street), packed, SIZES, 4)
    assert sorted(path.name for path in (tmp_path / "elsewhere" / "city").iterdir()) == before


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("source", "garbage", r"phases\.train\.samples\[1\]\.source is 'garbage': give a list of 2"),
        ("source", [0, 5], r"samples\[1\]\.source\[0\] is 0: give a whole number from 1"),
        ("sizes", [[20, 10**40]], r"packed\.json"),
        ("sizes", [[20, -12]], r"samples\[1\]\.sizes\[0\]\[1\] is -12: give a whole number from 1"),
        ("sizes", [], r"samples\[1\]: sizes is empty"),
        ("bytes", "many", r"samples\[1\]\.bytes is 'many': give a whole number"),
        ("channels", None, r"samples\[1\]\.channels is None: give a whole number"),
        ("stem", "city/0", r"phases\.train: it lists city/0 twice"),
        ("colour", 1, r"unknown option phases\.train\.samples\[1\]\.colour"),
    ],
)
def test_a_wrong_field_of_the_index_is_named(packed, field, value, message):
    edited(packed, lambda index: sample(index).update({field: value}))
    with pytest.raises(DataError, match=message):
        check_dataset(DataConfig(root=packed), 4)


@pytest.mark.parametrize(("field", "value"), [("source", [64, 48]), ("sizes", [[20, 12]]), ("channels", 3)])
def test_an_index_that_disagrees_with_the_files_is_told_before_training(packed, field, value):
    edited(packed, lambda index: sample(index).update({field: value}))
    config = DataConfig(root=packed)
    message = rf"1\.safetensors: {field} is .*, but packed\.json says .*; repeat the hdgan data pack"
    with pytest.raises(DataError, match=message):
        quick_check(find_pairs(config, "train"), config, 4, full=1)
    assert re.search(message, check_dataset(config, 4).faults[0])


def test_a_map_that_claims_to_be_huge_is_refused_before_it_is_inflated(tmp_path):
    path = tmp_path / f"a{ENDING}"
    holds = Stored("<i4", (65536, 65536))
    about = About("a", (65536, 65536), ((65536, 65536),), 0, tensors={"ids@65536x65536": holds})
    stored = np.frombuffer(zlib.compress(bytes(1000)), np.uint8)
    named = f"ids@65536x65536 {holds.type} {list(holds.shape)}".encode()
    about.tensors["ids@65536x65536"] = replace(holds, crc32=zlib.crc32(stored.data, zlib.crc32(named)))
    save_file({"ids@65536x65536": stored}, path, {"hdgan": json.dumps(to_plain(about))})
    with pytest.raises(
        DataError, match=r"map of 65536x65536 pixels, which takes 16\.0 GiB of memory, more than the limit"
    ):
        verify_packed(path)


def deep(save, root: Path, dtype: str = "uint16") -> Path:
    """Two pairs 12x8 with photos of five channels."""
    for i in range(2):
        save(root / f"train_A/{i}.png", RNG.integers(0, 256, (8, 12, 3), dtype=np.uint8))
        save(root / f"train_B/{i}.npy", RNG.integers(0, 2 if dtype == "float32" else 256, (8, 12, 5)).astype(dtype))
    return root


@pytest.mark.parametrize("size", [SizeConfig(), SizeConfig(width=6), SizeConfig(width=20)])
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_photos_as_stored_are_packed_as_stored(save, tmp_path, size, dtype):
    root = deep(save, tmp_path / "deep", dtype)
    out = pack_into(root, tmp_path / "packed", size, n_labels=0, photo="stored")
    packed, files = (dataset(place, size, 0, photo="stored", rotate=20) for place in (out, root))
    assert packed.photo_kind == (5, dtype)
    assert_same_samples(packed, files)


@pytest.mark.parametrize(("packed", "wanted"), [("rgb", "stored"), ("stored", "rgb")])
def test_photos_packed_in_another_way_are_refused(street, tmp_path, packed, wanted):
    out = pack_into(street, tmp_path / "packed", photo=packed)
    with pytest.raises(ConfigError, match=f"was packed with photos as {packed}, not {wanted}: set data.photo {packed}"):
        find_pairs(DataConfig(root=out, photo=wanted), "train")
    with pytest.raises(ConfigError, match=f"was packed with photo {packed}, not {wanted}: choose another"):
        pack_into(street, out, photo=wanted)


def test_an_index_of_version_1_is_read_and_continued(street, packed):
    def age(index: dict) -> None:
        index["version"] = 1
        del index["settings"]["photo"]

    edited(packed, age)
    assert_same_samples(dataset(packed, SIZES[0]), dataset(street, SIZES[0]))
    report = pack_dataset(DataConfig(root=street), packed, SIZES, 4)
    assert (report.samples, report.kept) == (5, 5)
    assert json.loads((packed / INDEX).read_text())["version"] == 2


def test_a_packed_photo_that_is_not_rgb_needs_the_index_to_say_so(save, tmp_path):
    out = pack_into(deep(save, tmp_path / "deep"), tmp_path / "packed", n_labels=0, photo="stored")
    edited(out, lambda index: index["settings"].update(photo="rgb"))
    with pytest.raises(DataError, match=r"its photo has 5 channels of 16 bits, but packed\.json says 3 channels of 8"):
        quick_check(find_pairs(DataConfig(root=out), "train"), DataConfig(root=out), 0, full=1)
