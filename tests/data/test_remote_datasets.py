"""Datasets on storage: the same pairs, samples, reports and packed files as those of the folder they are copies of."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import fsspec
import numpy as np
import pytest
import torch

from hdgan.data import (
    DataConfig,
    DatasetSpec,
    SizeConfig,
    find_pairs,
    find_phases,
    make_loader,
    match_folders,
    pack_dataset,
)
from hdgan.data.class_file import CLASS_FILE, find_classes, write_classes
from hdgan.data.colors import label_palette
from hdgan.data.images import read_input, read_map, read_photo
from hdgan.data.inspection import check_dataset, quick_check
from hdgan.data.layouts import packed as packed_layout
from hdgan.data.packed import verify_packed
from hdgan.data.packed_index import INDEX
from hdgan.data.windows import open_map
from hdgan.errors import DataError
from hdgan.files import remote_tensors, storage
from hdgan.files.remote import RemotePath, located

from .packing import RNG, SIZES, assert_same_samples, dataset, pack_into

Put = Callable[[Path], Path]


def names(root: Path, **options) -> dict[str, list]:
    config = DataConfig(root=root, **options)
    return {phase: [pair.stem for pair in find_pairs(config, phase).pairs] for phase in find_phases(config)}


def test_folders_are_listed_alike(in_memory: Put, save, tmp_path: Path) -> None:
    for phase in ("train", "val"):
        for name in ("b", "a", "city/c", ".hidden/d", "@eaDir/e"):
            save(f"set/{phase}_label/{name}_label.png", np.zeros((2, 4), np.uint8))
            save(f"set/{phase}_img/{name}_img.png", np.zeros((2, 4, 3), np.uint8))
    save("set/train_label/orphan.png", np.zeros((2, 4), np.uint8))
    (tmp_path / "set" / "train_img" / "notes.txt").write_text("")
    url = in_memory(tmp_path / "set")
    assert names(url) == names(tmp_path / "set") == {"train": ["a", "b", "city/c"], "val": ["a", "b", "city/c"]}
    listing = find_pairs(DataConfig(root=url), "train")
    root = located(url, "")
    assert listing.pairs[2].label == root / "train_label" / "city" / "c_label.png"
    assert [str(orphan.files[0]) for orphan in listing.orphans] == [f"{root}/train_label/orphan.png"]
    folders = {"label": root / "train_label", "photo": root / "train_img"}
    assert [pair.stem for pair in match_folders(folders).pairs] == ["a", "b", "city/c"]


def test_a_place_without_a_dataset_is_named(in_memory: Put, tmp_path: Path) -> None:
    (tmp_path / "set" / "images").mkdir(parents=True)
    (tmp_path / "set" / "images" / "a.txt").write_text("")
    url = in_memory(tmp_path / "set")
    with pytest.raises(DataError, match=r"^memory://\w+/set has no known structure; expected"):
        find_phases(DataConfig(root=url))
    with pytest.raises(DataError, match=r"^memory://\w+/set/no is no folder that the server lists; set data\.root"):
        find_phases(DataConfig(root=url / "no"))


@pytest.mark.parametrize("prefix", ["", "simplecache::"])
def test_samples_are_those_of_the_folder(
    in_memory: Put, street: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, prefix: str
) -> None:
    monkeypatch.setenv("HDGAN_CACHE", str(tmp_path / "cache"))
    url = Path(prefix + str(in_memory(street)))
    for phase in ("train", "test"):
        size = SizeConfig(width=20, crop_width=7)
        assert_same_samples(dataset(street, size, phase=phase), dataset(url, size, phase=phase))


@pytest.mark.parametrize("ending", ["png", "npy", "tif", "jpg"])
def test_files_of_all_kinds(in_memory: Put, save, tmp_path: Path, ending: str) -> None:
    values = RNG.integers(0, 200, (6, 9), dtype=np.uint8)
    save(f"set/a.{ending}", np.stack([values] * 3, 2) if ending == "jpg" else values)
    path = located(in_memory(tmp_path / "set"), "") / f"a.{ending}"
    read = read_photo if ending == "jpg" else read_map
    assert np.array_equal(read(path), read(tmp_path / "set" / f"a.{ending}"))
    assert np.array_equal(read_input(path), read_input(tmp_path / "set" / f"a.{ending}"))
    with pytest.raises(DataError, match=rf"^memory://.*/b\.{ending} does not exist"):
        read(path.with_stem("b"))
    fsspec.filesystem("memory").pipe_file(str(path), b"damaged")
    RemotePath(path).forget()
    with pytest.raises(DataError, match=rf"^memory://.*/a\.{ending} cannot be read"):
        read(path)


def test_an_array_in_columns_and_one_cut_short(in_memory: Put, tmp_path: Path) -> None:
    values = np.asfortranarray(np.arange(60, dtype=np.uint16).reshape(5, 12))
    np.save(tmp_path / "a.npy", values)
    path = located(in_memory(tmp_path), "") / "a.npy"
    assert np.array_equal(read_map(path), values)
    fsspec.filesystem("memory").pipe_file(str(path), (tmp_path / "a.npy").read_bytes()[:-3])
    RemotePath(path).forget()
    with pytest.raises(DataError, match="is longer than the 117 bytes in the file"):
        read_map(path)


def test_files_read_by_windows_are_refused(in_memory: Put, save, tmp_path: Path) -> None:
    save("a.png", np.zeros((2, 4), np.uint8))
    with pytest.raises(DataError, match="is not on this machine, and tiles are read from local files: copy it"):
        open_map(located(in_memory(tmp_path), "") / "a.png")


@pytest.mark.parametrize("head", [300, 2**18])
@pytest.mark.parametrize("prefix", ["", "simplecache::"])
def test_packed_samples_are_those_of_the_folder(
    in_memory: Put, packed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, prefix: str, head: int
) -> None:
    monkeypatch.setenv("HDGAN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(remote_tensors, "_HEAD", head)
    url = Path(prefix + str(in_memory(packed)))
    for size in (SizeConfig(width=20), SizeConfig(width=16, height=8)):
        assert_same_samples(dataset(packed, size), dataset(url, size))


def test_packed_inputs_of_floats(in_memory: Put, save, tmp_path: Path) -> None:
    for i in range(2):
        save(f"ab/train_A/{i}.npy", RNG.random((9, 14, 5), dtype=np.float32))
        save(f"ab/train_B/{i}.png", RNG.integers(0, 256, (9, 14, 3), dtype=np.uint8))
    packed = pack_into(tmp_path / "ab", tmp_path / "packed", SizeConfig(width=11), n_labels=0)
    url = in_memory(packed)
    ours = dataset(url, SizeConfig(width=11), 0)
    assert (ours.input_channels, ours.photo_kind) == (5, (3, "uint8"))
    assert_same_samples(dataset(packed, SizeConfig(width=11), 0), ours)
    listing = find_pairs(DataConfig(root=url), "train")
    report = quick_check(listing, DataConfig(root=url), 0)
    assert report.channels == {5: 2}


def test_reading_a_packed_sample_takes_one_request(
    in_memory: Put, street: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = in_memory(pack_into(street, tmp_path / "packed", SizeConfig(width=20)))
    config = DataConfig(root=url)
    listing = find_pairs(config, "train")
    requests = []
    ask = storage._ask
    monkeypatch.setattr(storage, "_ask", lambda url, request: requests.append(url) or ask(url, request))
    quick_check(listing, config, 4, full=1)
    assert requests == [str(listing.pairs[0].first_file)]  # the sizes of the others are known from the listing
    samples = dataset(url, SizeConfig(width=20))
    requests.clear()
    assert samples[1]["stem"] == "city/1"
    assert requests == [str(samples.pairs[1].first_file)]


def test_workers_read_from_storage(in_memory: Put, packed: Path) -> None:
    """They are forked, or they would not see the memory of this process."""
    data, size = dataset(in_memory(packed), SizeConfig(width=20)), SizeConfig(width=20)
    loader = make_loader(data, stop=8, batch=2, workers=2, multiprocessing_context="fork")
    expected = make_loader(dataset(packed, size), stop=8, batch=2)
    for ours, theirs in zip(loader, expected, strict=True):
        assert ours["stem"] == theirs["stem"]
        assert torch.equal(ours["photo"], theirs["photo"])


def test_checks_report_the_same(in_memory: Put, scenes: Path, spoil: Callable[[], None], tmp_path: Path) -> None:
    def report(root: Path) -> list:
        found = check_dataset(DataConfig(root=root), 3)
        name = str(found.root)
        return [[fault.replace(name, "ROOT") for fault in phase.faults] for phase in found.phases]

    spoil()
    assert report(in_memory(scenes)) == report(scenes)
    assert len(report(scenes)[0]) == 4


def test_a_packed_set_is_checked_whole(in_memory: Put, packed: Path) -> None:
    url = in_memory(packed)
    assert check_dataset(DataConfig(root=url), 4).faults == []
    memory, root = fsspec.filesystem("memory"), located(url, "")
    file = f"{root}/train/city/1.safetensors"
    content = memory.cat_file(file)
    memory.pipe_file(file, content[:-2] + b"??")
    (fault,) = check_dataset(DataConfig(root=url), 4).faults
    assert fault == f"{file}: {fault.split(': ')[1].split()[0]} differs from its checksum; {packed_layout.REPEAT}"
    memory.pipe_file(file, content[:-2])
    with pytest.raises(DataError, match=rf"^{file} has {len(content) - 2} bytes, but was written with {len(content)}"):
        quick_check(find_pairs(DataConfig(root=url), "train"), DataConfig(root=url), 4)
    pairs = find_pairs(DataConfig(root=url), "train").pairs
    memory.rm(file)
    for read in (pairs[1].read, pairs[1].read_headers, partial(verify_packed, pairs[1].first_file)):
        RemotePath(pairs[1].first_file).forget()
        with pytest.raises(DataError, match=rf"^{file} does not exist; repeat the hdgan data pack"):
            read()


def test_an_index_that_has_changed_is_read_again(in_memory: Put, street: Path, tmp_path: Path) -> None:
    url = in_memory(pack_into(street, tmp_path / "packed", *SIZES))
    assert find_phases(DataConfig(root=url)) == ("test", "train")
    other = pack_into(street, tmp_path / "other", *SIZES, layout="nvidia")
    text = (other / INDEX).read_text().replace('"test"', '"val"')
    fsspec.filesystem("memory").pipe_file(f"{located(url, '')}/{INDEX}", text.encode())
    assert find_phases(DataConfig(root=url)) == ("train", "val")


def test_packing_from_storage(in_memory: Put, street: Path, packed: Path, tmp_path: Path) -> None:
    url, out = in_memory(street), tmp_path / "copy"
    report = pack_dataset(DataConfig(root=url), out, SIZES, 4)
    assert (report.samples, report.kept) == (5, 0)
    assert_same_samples(dataset(packed, SizeConfig(width=20)), dataset(out, SizeConfig(width=20)))
    assert pack_dataset(DataConfig(root=url), out, SIZES, 4).kept == 5
    file = f"{located(url, '')}/train_img/city/1_img.png"
    fsspec.filesystem("memory").pipe_file(file, fsspec.filesystem("memory").cat_file(file))
    assert pack_dataset(DataConfig(root=url), out, SIZES, 4).kept == 4  # its time has changed
    index = (out / INDEX).read_text()
    assert f'"source": "{located(url, "")}"' in index


@pytest.mark.remote
def test_names_of_classes_on_storage(in_memory: Put, street: Path, tmp_path: Path) -> None:
    spec = DatasetSpec(("road", "car", "sky", "tree"), label_palette(4))
    without, folder = in_memory(street), tmp_path / "named"
    shutil.copytree(street, folder)
    write_classes(folder / CLASS_FILE, spec)
    url = in_memory(folder)
    assert find_classes(DataConfig(root=Path(without)).root) is None
    found = find_classes(DataConfig(root=Path(url)).root, 4)
    assert found is not None
    assert found.classes == spec.classes
    pack_into(Path(url), tmp_path / "again", SizeConfig(width=20))
    assert (tmp_path / "again" / CLASS_FILE).read_bytes() == (folder / CLASS_FILE).read_bytes()


def test_a_web_server(serve: Callable[[Path], str], street: Path, packed: Path) -> None:
    root = Path(serve(street.parent))
    size = SizeConfig(width=20)
    assert names(root / "street") == names(street)
    for folder in (street, packed):
        assert_same_samples(dataset(folder, size), dataset(root / folder.name, size))
    loader = make_loader(dataset(root / "packed", size), stop=4, batch=2, workers=2)
    assert [batch["stem"] for batch in loader] == [
        batch["stem"] for batch in make_loader(dataset(packed, size), stop=4, batch=2)
    ]
    assert check_dataset(DataConfig(root=root / "packed"), 4).faults == []


def test_photos_read_as_stored(in_memory: Put, save, tmp_path: Path) -> None:
    for i in range(2):
        save(f"set/train_label/{i}.png", np.zeros((6, 9), np.uint8))
        save(f"set/train_img/{i}.tif", RNG.integers(0, 60000, (6, 9)).astype(np.uint16))
    config = DataConfig(root=tmp_path / "set", photo="stored")
    pack_dataset(config, tmp_path / "packed", (SizeConfig(),), 1)
    for folder in ("set", "packed"):
        url = in_memory(tmp_path / folder)
        report = quick_check(find_pairs(replace(config, root=url), "train"), replace(config, root=url), 1)
        assert report.photo_kind == (1, "uint16")
        size = SizeConfig()
        assert_same_samples(dataset(tmp_path / folder, size, 1, photo="stored"), dataset(url, size, 1, photo="stored"))


def test_names_of_classes_are_read_and_packed(in_memory: Put, nvidia: Path, tmp_path: Path) -> None:
    url = in_memory(nvidia)
    assert find_classes(located(url, ""), 4) is None
    (nvidia / "classes.csv").write_text("label,name\n0,a\n1,b\n2,c\n3,d\n")
    url = in_memory(nvidia)
    spec = find_classes(located(url, ""), 4)
    assert spec is not None
    assert spec.classes == ("a", "b", "c", "d")
    pack_dataset(DataConfig(root=url), tmp_path / "packed", SIZES, 4)
    assert (tmp_path / "packed" / "classes.csv").read_bytes() == (nvidia / "classes.csv").read_bytes()
