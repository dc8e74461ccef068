from __future__ import annotations

import errno
import os
import re
from pathlib import Path

import numpy as np
import pytest

from hdgan.data import DataConfig, Pair, find_pairs, find_phases, match_folders, validation_phase
from hdgan.data.inspection import Requirements, check_dataset
from hdgan.data.layouts import layouts
from hdgan.errors import ConfigError, DataError
from hdgan.evaluation.split import require_photos

PICTURE = np.zeros((2, 4), np.uint8)


@pytest.fixture
def tree(tmp_path: Path, save):
    """Generate images (or, for other endings, plain files) of the given names and return their root."""

    def make(*names: str) -> Path:
        for name in names:
            if name.endswith((".png", ".jpg", ".npy")):
                save(name, PICTURE)
            else:
                (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
                (tmp_path / name).write_text("")
        return tmp_path

    return make


def listing(root: Path, phase: str = "train", labels: bool | None = None, **options):
    return find_pairs(DataConfig(root=root, **options), phase, labels)


def relative(root: Path, pair) -> dict[str, str]:
    return {part: path.relative_to(root).as_posix() for part, path in pair.files.items()}


def test_every_module_is_a_layout_of_its_name():
    assert {"ab", "cityscapes", "nvidia", "packed", "side-by-side"} <= set(layouts())
    assert all(layout.name == name for name, layout in layouts().items())
    with pytest.raises(ConfigError, match=r"data\.layout is .other.: give auto or ab or "):
        DataConfig(layout="other")


def test_nvidia_layout(tree):
    root = tree(
        "train_label/b_gtFine_labelIds.png",
        "train_label/a_label.png",
        "train_inst/a_inst.png",
        "train_inst/b_gtFine_instanceIds.png",
        "train_img/b_leftImg8bit.jpg",
        "train_img/a.png",
        "test_label/c.png",
    )
    found = listing(root, labels=True)
    assert (found.layout, found.orphans) == ("nvidia", ())
    assert [relative(root, pair) for pair in found.pairs] == [
        {"label": "train_label/a_label.png", "ids": "train_inst/a_inst.png", "photo": "train_img/a.png"},
        {
            "label": "train_label/b_gtFine_labelIds.png",
            "ids": "train_inst/b_gtFine_instanceIds.png",
            "photo": "train_img/b_leftImg8bit.jpg",
        },
    ]
    test = listing(root, "test").pairs[0]
    assert (test.stem, test.ids, test.photo) == ("c", None, None)


def test_ab_layout(tree):
    root = tree("train_A/x_A.npy", "train_B/x_B.png", "train_A/y.png", "train_B/y.png", "test_A/z.png")
    found = listing(root, labels=False)
    assert found.layout == "ab"
    assert [pair.stem for pair in found.pairs] == ["x", "y"]
    assert relative(root, found.pairs[0]) == {"input": "train_A/x_A.npy", "photo": "train_B/x_B.png"}
    assert type(found.pairs[0]) is Pair


def test_ab_layout_with_instances(tree):
    root = tree("train_A/x.png", "train_B/x.png", "train_inst/x_inst.png")
    assert relative(root, listing(root).pairs[0])["ids"] == "train_inst/x_inst.png"


def test_side_by_side_layout(tree):
    root = tree("train/1.jpg", "train/2.png", "val/1.jpg", "readme.txt")
    found = listing(root, labels=False)
    assert found.layout == "side-by-side"
    assert [pair.stem for pair in found.pairs] == ["1", "2"]
    assert all(pair.files == {"input": pair.input, "photo": pair.input} for pair in found.pairs)
    assert find_phases(DataConfig(root=root)) == ("train", "val")


def test_cityscapes_layout_takes_only_its_files(tree):
    name = "aachen/aachen_000000_000019"
    root = tree(
        f"gtFine/train/{name}_gtFine_labelIds.png",
        f"gtFine/train/{name}_gtFine_instanceIds.png",
        f"gtFine/train/{name}_gtFine_color.png",
        f"gtFine/train/{name}_gtFine_labelTrainIds.png",
        f"gtFine/train/{name}_gtFine_polygons.json",
        f"leftImg8bit/train/{name}_leftImg8bit.png",
        "gtFine/val/bonn/bonn_0_gtFine_labelIds.png",
    )
    found = listing(root, labels=True)
    assert (found.layout, found.orphans) == ("cityscapes", ())
    assert [pair.stem for pair in found.pairs] == [name]
    assert relative(root, found.pairs[0]) == {
        "label": f"gtFine/train/{name}_gtFine_labelIds.png",
        "ids": f"gtFine/train/{name}_gtFine_instanceIds.png",
        "photo": f"leftImg8bit/train/{name}_leftImg8bit.png",
    }
    assert find_phases(DataConfig(root=root)) == ("train", "val")


def test_cityscapes_layout_takes_train_ids_where_there_are_no_others(tree):
    root = tree(
        "gtFine/train/a/a_0_gtFine_labelTrainIds.png",
        "gtFine/train/a/a_0_gtFine_color.png",
        "leftImg8bit/train/a/a_0_leftImg8bit.png",
    )
    (pair,) = listing(root, labels=True).pairs
    assert (pair.stem, pair.label.name) == ("a/a_0", "a_0_gtFine_labelTrainIds.png")


def test_nvidia_layout_with_train_ids(tree):
    root = tree("train_label/a_gtFine_labelTrainIds.png", "train_img/a_leftImg8bit.png")
    assert [pair.stem for pair in listing(root).pairs] == ["a"]


@pytest.mark.parametrize(
    "names",
    [
        {"input": "x_A.png", "photo": "x_B.png"},
        {"input": "x_input.png", "ids": "x_inst.png", "photo": "x_output.png"},
        {"label": "x_label.png", "ids": "x_gtFine_instanceIds.png", "photo": "x_leftImg8bit.png"},
    ],
)
def test_folders_are_matched_by_the_rules_of_the_layouts(tree, names):
    root = tree(*(f"any_{part}/{name}" for part, name in names.items()))
    (pair,) = match_folders({part: root / f"any_{part}" for part in names}).pairs
    assert pair.stem == "x"
    assert {part: path.name for part, path in pair.files.items()} == names


def test_pgm_is_seen(tree):
    root = tree("train_label/a.png", "train_img/a.png")
    (root / "train_label" / "a.png").rename(root / "train_label" / "a.pgm")
    assert listing(root).pairs[0].label.name == "a.pgm"


def test_subfolders_are_part_of_the_name(tree):
    root = tree("train_label/a/1.png", "train_label/b/1.png", "train_img/a/1.png", "train_img/b/1.png")
    found = listing(root)
    assert [pair.stem for pair in found.pairs] == ["a/1", "b/1"]
    assert all(pair.label.parent.name == pair.photo.parent.name for pair in found.pairs)


def test_orphans_are_listed_with_what_they_lack(tree):
    root = tree(
        "train_label/a.png",
        "train_label/b.png",
        "train_inst/a.png",
        "train_inst/c.png",
        "train_img/a.png",
        "train_img/b.png",
    )
    found = listing(root)
    assert [pair.stem for pair in found.pairs] == ["a"]
    assert [(orphan.stem, orphan.missing) for orphan in found.orphans] == [
        ("b", (("instance map", root / "train_inst", None),)),
        ("c", (("label map", root / "train_label", None), ("photo", root / "train_img", None))),
    ]
    assert str(found.orphans[1]) == (
        f"{root / 'train_inst' / 'c.png'}: no label map named c in {root / 'train_label'} and no photo named c in "
        f"{root / 'train_img'}; add it, or remove the file"
    )


def test_sorted_neighbours_are_never_paired(tree):
    with pytest.raises(DataError, match=r"no two files of phase train share a name, for example .*001.*002"):
        listing(tree("train_label/001.png", "train_img/002.png"))


def test_equal_names_win_over_suffixes(tree):
    root = tree("train_A/vitamin_A.png", "train_A/vitamin_B.png", "train_B/vitamin_A.png", "train_B/vitamin_B.png")
    found = listing(root)
    assert [pair.stem for pair in found.pairs] == ["vitamin_A", "vitamin_B"]
    assert all(pair.input.name == pair.photo.name for pair in found.pairs)


@pytest.mark.parametrize("names", [("a.png", "a.jpg"), ("a.png", "a_label.png"), ("a_label.png", "a_labelIds.png")])
def test_two_files_of_one_name_are_an_error(tree, names):
    root = tree(*(f"train_label/{name}" for name in names), "train_img/a.png")
    with pytest.raises(DataError, match="have the same name, a; rename or remove one") as error:
        listing(root)
    assert all(str(root / "train_label" / name) in str(error.value) for name in names)


def test_other_files_are_ignored(tree):
    root = tree(
        "train_label/a.png",
        "train_img/a.PNG.png",
        "train_label/.DS_Store",
        "train_label/._a.png",
        "train_label/Thumbs.db",
        "train_label/notes.txt",
        "train_label/a.json",
        "train_label/.cache/a.png",
        "__MACOSX/train_label/a.png",
        "train_img/a.png",
    )
    (root / "train_img/a.PNG.png").rename(root / "train_img/b.PNG")
    (root / "train_label/a.png").rename(root / "train_label/b.png")
    (root / "train_img/a.png").unlink()
    found = listing(root)
    assert [pair.stem for pair in found.pairs] == ["b"]
    assert found.orphans == ()


def test_linked_folder_is_followed(tree, tmp_path):
    root = tree("elsewhere/a.png")
    (root / "train_label").mkdir()
    (root / "train_label" / "city").symlink_to(root / "elsewhere", target_is_directory=True)
    assert listing(root).pairs[0].stem == "city/a"


@pytest.mark.parametrize(
    ("link", "target", "names"),
    [
        ("train_label/city/back", "train_label", ("x", "y")),  # one folder under two names is no way back
        ("train_label/back", ".", ("x", "y")),
        ("other/back", "train_label", ("x",)),
    ],
)
def test_a_link_that_leads_back_is_not_followed(tree, link, target, names):
    root = tree("train_label/city/a.png", "other/b.png")
    for name in names:
        (root / "train_label" / name).symlink_to(root / "other", target_is_directory=True)
    (root / link).symlink_to(root / target, target_is_directory=True)
    assert [pair.stem for pair in listing(root).pairs] == ["city/a", *(f"{name}/b" for name in names)]


def withhold(patch, folder):
    """Make a folder unreadable, also for root."""
    real = os.scandir

    def scandir(path="."):
        if str(path).endswith(folder):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return real(path)

    patch.setattr(os, "scandir", scandir)


def test_a_folder_that_cannot_be_read_is_named(tree, monkeypatch):
    root = tree("train_label/x/a.png", "train_label/y/b.png", "train_img/x/a.png", "train_img/y/b.png")
    withhold(monkeypatch, "train_label/y")
    with pytest.raises(
        DataError, match=r"train_label/y cannot be read \(Permission denied\); make it readable, or move"
    ):
        listing(root)


def test_a_root_that_cannot_be_read_is_named(tree, monkeypatch):
    root = tree("train_label/a.png", "train_img/a.png")

    def listdir(path="."):
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(os, "listdir", listdir)
    with pytest.raises(DataError, match=r"cannot be read \(Permission denied\); make it readable") as raised:
        listing(root)
    assert str(raised.value).startswith(str(root))


def test_a_folder_beside_the_phases_may_be_unreadable(tree, monkeypatch):
    root = tree("train/a.png", "backup/b.png")
    withhold(monkeypatch, "backup")
    assert find_phases(DataConfig(root=root)) == ("train",)


def test_missing_root(tmp_path):
    with pytest.raises(DataError, match=r"none is not a folder; set data\.root"):
        listing(tmp_path / "none")
    with pytest.raises(ConfigError, match=r"set data\.root"):
        find_pairs(DataConfig(), "train")


def test_unknown_structure_names_what_is_expected(tree):
    with pytest.raises(
        DataError,
        match=r"no known structure; expected <phase>_A/ \(ab\), .* or <phase>_label/ \(nvidia\), .* \(side-by-side\)",
    ):
        listing(tree("notes.txt"))


def test_missing_phase_names_the_phases(tree):
    root = tree("train_label/a.png", "test_label/a.png")
    with pytest.raises(DataError, match=r"dev_label does not exist; the phases of .* \(nvidia\) are: test, train"):
        listing(root, "dev")


def test_empty_folder(tree):
    root = tree("train_label/notes.txt")
    with pytest.raises(DataError, match=r"train_label contains no images \(\.bmp"):
        listing(root)


@pytest.mark.parametrize(
    ("others", "named"),
    [
        (["a.gif"], "only .gif files; put the train files there, or save these as PNG"),
        (["a.GIF", "b.gif", "c.tga"], "only .gif and .tga files; "),
        (["a.b", "a.c", "b.c", "d.e", "d.f"], "only .c, .b and .e files; "),
        (["notes", "a.much-too-long-to-be-an-ending"], r".webp); put the train files there"),
        ([".hidden.gif", "@eaDir/a.gif"], r".webp); put the train files there"),
    ],
)
def test_a_folder_without_images_names_what_it_has(tree, others, named):
    with pytest.raises(DataError, match=r"train_label contains no images \(\.bmp.*" + re.escape(named)):
        listing(tree("train_label/sub/.keep", *(f"train_label/{name}" for name in others)))


def test_other_files_than_images_are_named_where_parts_are_absent(tree):
    root = tree("train_label/a.png", "train_img/a.gif", "train_inst/a.mat")
    found = listing(root)
    photos, ids = found.lacks(root, True)
    assert "has no photos for phase train (" in photos
    assert "train_img contains no images, only .gif files): training needs pairs with photos" in photos
    assert "train_inst contains no images, only .mat files): add them, or train with" in ids
    with pytest.raises(DataError, match=r"has no photos for phase train \(.*only \.gif files\), and images are scored"):
        require_photos(found, DataConfig(root=root))
    (report,) = check_dataset(DataConfig(root=root), Requirements(n_labels=1, instances=False)).phases
    (note,) = (note for note in report.notes if "instance maps" in note)
    assert "there are no instance maps (" in note
    assert "only .mat files): train with --no-instances" in note


def test_photos_of_cityscapes_may_be_other_files(tree):
    name = "train/a/a_000_gtFine_labelIds.png"
    found = listing(tree(f"gtFine/{name}", "leftImg8bit/train/a/a_000_leftImg8bit.gif"))
    assert [part for part, _ in found.others] == ["photo"]  # the folder of the instance maps is that of the label maps


def test_unknown_structure_of_other_files(tree):
    with pytest.raises(
        DataError, match=r"no known structure; expected .* It contains no images \(.*, only \.gif files"
    ):
        listing(tree("train/a.gif"))
    with pytest.raises(DataError, match=r"contains no images \(.*, only \.gif files; put the files there"):
        match_folders({"label": tree("train/a.gif") / "train"})


def test_cityscapes_folder_with_other_files_only(tree):
    root = tree("gtFine/train/a/a_gtFine_color.png")
    with pytest.raises(DataError, match=r"contains no \*_gtFine_labelIds.png"):
        listing(root)


def test_chosen_layout_that_is_not_there(tree):
    root = tree("train_label/a.png")
    with pytest.raises(DataError, match="has no <phase>_A/; expected"):
        listing(root, layout="ab")


@pytest.mark.parametrize("layout", ["auto", "ab"])
def test_labels_wanted_where_there_are_none(tree, layout):
    with pytest.raises(ConfigError, match=r"contains A-to-B images .*set model\.n_labels to 0"):
        listing(tree("train_A/a.png", "train_B/a.png"), labels=True, layout=layout)


@pytest.mark.parametrize("layout", ["auto", "nvidia"])
def test_labels_not_wanted_where_there_are_some(tree, layout):
    with pytest.raises(ConfigError, match=r"contains label maps .*set model\.n_labels to their number"):
        listing(tree("train_label/a.png"), labels=False, layout=layout)


def test_two_structures_are_told_apart_by_labels_or_an_error(tree):
    root = tree("train_label/a.png", "train_A/b.png", "train_B/b.png")
    assert listing(root, labels=True).layout == "nvidia"
    assert listing(root, labels=False).layout == "ab"
    with pytest.raises(DataError, match=r"fits the layouts ab and nvidia; set data\.layout"):
        listing(root)


@pytest.mark.parametrize(
    ("phases", "expected"), [("train test val", "val"), ("train test", "test"), ("train", "train")]
)
def test_validation_phase(tree, phases, expected):
    root = tree(*(f"{phase}_label/a.png" for phase in phases.split()))
    assert validation_phase(DataConfig(root=root)) == expected
    assert validation_phase(DataConfig(root=root, val_phase="own")) == "own"


def test_config_is_validated():
    with pytest.raises(ConfigError, match="instance_divisor is 0"):
        DataConfig(instance_divisor=0)
    with pytest.raises(ConfigError, match="workers is -1"):
        DataConfig(workers=-1)


def test_names_that_are_equal_in_unicode_are_one(tree):
    apart, composed = "cafe\N{COMBINING ACUTE ACCENT}", "café"
    root = tree(f"train_label/{apart}_label.png", f"train_img/{composed}.png")
    (pair,) = listing(root).pairs
    assert (pair.stem, pair.label.name, pair.photo.name) == (composed, f"{apart}_label.png", f"{composed}.png")


def test_an_orphan_tells_of_a_file_that_differs_in_case_only(tree):
    root = tree("train_label/a.png", "train_img/a.JPG.png", "train_label/Rome.png", "train_img/rome.png")
    (root / "train_img/a.JPG.png").rename(root / "train_img/a.JPG")
    found = listing(root)
    assert [pair.photo.name for pair in found.pairs] == ["a.JPG"]
    assert str(found.orphans[0]) == (
        f"{root / 'train_label/Rome.png'}: no photo named Rome in {root / 'train_img'}; {root / 'train_img/rome.png'} "
        "differs only in upper and lower case: rename one of them"
    )


@pytest.mark.parametrize(
    ("folders", "advice"),
    [
        (("testA", "testB"), "contains testA and testB, .*train_A and train_B"),
        (("A/val", "B/val"), "contains A and B, .*train_A and train_B"),
        (("train/input", "train/target"), "train contains input and target, .*train_A and train_B"),
        (("Images", "masks"), "contains Images and masks, .*train_img and train_label"),
        (("images/train", "labels/train"), "contains images and labels, .*train_img and train_label"),
        (("val/imgs", "val/annotations"), "val contains imgs and annotations, .*train_img and train_label"),
    ],
)
def test_folders_of_other_programs_are_no_halves(tree, folders, advice):
    root = tree(*(f"{folder}/x.png" for folder in folders))
    with pytest.raises(DataError, match=advice):
        listing(root)
    with pytest.raises(ConfigError, match=advice):
        listing(root, labels=True)
    (phase, *_) = find_phases(DataConfig(root=root))
    assert listing(root, phase, layout="side-by-side").pairs, "unless it is meant"


def test_unpaired_pictures_are_called_so(tree):
    with pytest.raises(DataError, match=r"give partners the same name, since unpaired images \(CycleGAN's\)"):
        listing(tree("train_A/horse.png", "train_B/zebra.png"))


def test_a_phase_whose_name_is_no_text_is_refused(tmp_path):
    (tmp_path / os.fsdecode(b"\xe9_label")).mkdir()
    with pytest.raises(DataError, match="the name of a phase must be UTF-8; rename the folder"):
        find_phases(DataConfig(root=tmp_path))
