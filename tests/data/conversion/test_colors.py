"""Label maps whose colours are classes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hdgan.data import DatasetSpec
from hdgan.data.class_file import read_classes, write_classes
from hdgan.data.conversion import count_colors
from hdgan.data.conversion.colors import likely_classes
from hdgan.errors import ConfigError, DataError

from .conftest import COLORS

RNG = np.random.default_rng(0)
LABELS = {name: RNG.integers(0, 4, (6, 8), dtype=np.uint8) for name in "abc"}


@pytest.fixture
def colored(save, root: Path) -> Path:
    """Three photos with maps of colours: RGB, a palette, and RGB with opacity."""
    for name, label in LABELS.items():
        save(f"source/images/train/{name}.jpg", RNG.integers(0, 255, (6, 8, 3), dtype=np.uint8))
        picture = Image.fromarray(COLORS[label])
        (root / "labels/train").mkdir(parents=True, exist_ok=True)
        if name == "b":
            indices = Image.fromarray(label[:, :] ^ 1)  # other indices than the labels
            indices.putpalette(COLORS[np.arange(4) ^ 1].tobytes())
            picture = indices
        if name == "c":
            picture.putalpha(255)
        picture.save(root / "labels/train" / f"{name}_L.png")
    return root


def test_colors_become_labels(colored, convert, classes, maps, tmp_path) -> None:
    report = convert(classes=classes, dontcare="void")
    for name, label in LABELS.items():
        assert np.array_equal(maps(f"train/{name}")[0], label)
        photo = f"{name}.jpg"
        assert (tmp_path / "out/train_img" / photo).read_bytes() == (colored / "images/train" / photo).read_bytes()
    assert report.spec is not None
    assert read_classes(tmp_path / "out/classes.csv").classes == ("sky", "road", "car", "void")
    assert report.summary.dontcare == 3
    assert report.summary.pixels == {str(k): sum(int((x == k).sum()) for x in LABELS.values()) for k in range(4)}
    assert report.summary.width == 8


def test_a_palette_that_was_found_leads_back_to_the_map(colored, convert, maps, tmp_path) -> None:
    counted = count_colors(colored)
    pixels = [sum(int((label == k).sum()) for label in LABELS.values()) for k in range(4)]
    assert sorted(pixels, reverse=True) == list(counted.pixels)
    assert counted.left_out == 0
    assert counted.files == 3
    assert counted.spec.classes == ("class 0", "class 1", "class 2", "class 3")
    write_classes(tmp_path / "found.csv", counted.spec)
    convert(classes=tmp_path / "found.csv")
    for name, label in LABELS.items():
        assert np.array_equal(counted.spec.palette[maps(f"train/{name}")[0]], COLORS[label])


def test_an_unknown_colour_is_placed_and_counted(colored, convert, save, classes, tmp_path) -> None:
    label = COLORS[LABELS["a"]].copy()
    label[2, 3:5] = 1, 2, 3
    label[4, 0] = 9, 9, 9
    file = save("source/labels/train/a_L.png", label)
    with pytest.raises(DataError) as error:
        convert(classes=classes)
    assert str(file) in str(error.value)
    assert "2 colours that no class of" in str(error.value)
    assert "#010203 (2 pixels), #090909 (1 pixel), first at x 3, y 2" in str(error.value)
    assert not (tmp_path / "out").exists()


def test_nearest_counts_what_was_not_exact(colored, convert, save, classes, maps, tmp_path) -> None:
    label = COLORS[LABELS["a"]].astype(np.int32)
    label[2, 3:5] = COLORS[2] + [3, 4, 0]
    save("source/labels/train/a_L.png", label.astype(np.uint8))
    with pytest.raises(DataError, match=r"1 colour that no class of .* has within a distance of 4: #cb0400"):
        convert(classes=classes, nearest=4)
    report = convert(classes=classes, nearest=5)
    expected = LABELS["a"].copy()
    expected[2, 3:5] = 2
    assert np.array_equal(maps("train/a")[0], expected)
    assert report.summary.inexact == 2
    assert (tmp_path / "out/inexact.csv").read_text() == f"phase,sample,pixels,percent\ntrain,a,2,{200 / 48:.4f}\n"


def test_colours_need_their_list(colored, convert) -> None:
    with pytest.raises(ConfigError, match=r"`hdgan data palette .*source --out classes.csv` writes it"):
        convert()


def test_two_classes_of_one_colour_are_refused(colored, convert, tmp_path) -> None:
    write_classes(tmp_path / "twice.csv", DatasetSpec(("sky", "road"), COLORS[[0, 0]]))
    with pytest.raises(DataError, match="sky and road both have the colour #0a141e"):
        convert(classes=tmp_path / "twice.csv")


def test_opacity_that_varies_is_refused(colored, convert, save, classes) -> None:
    picture = np.dstack([COLORS[LABELS["a"]], np.full((6, 8), 255, np.uint8)])
    picture[0, 0, 3] = 0
    save("source/labels/train/a_L.png", picture)
    with pytest.raises(DataError, match="is transparent in places, which hides colours"):
        convert(classes=classes)


def test_too_many_colours_are_explained(save, root) -> None:
    noisy = np.repeat(COLORS[:2], 600, axis=0).reshape(2, 600, 3).copy()
    noisy[0, :300] = RNG.integers(0, 256, (300, 3))
    file = save("source/a.png", noisy)
    with pytest.raises(DataError) as error:
        count_colors(root)
    message = str(error.value)
    assert f"{file}, with 3" in message
    assert "Export the maps again as PNG without antialiasing" in message
    assert "perhaps 2: #0a141f, #0a141e" in message
    counted = count_colors(root, top=2)
    assert np.array_equal(counted.spec.palette, COLORS[[1, 0]])
    assert counted.left_out == 300
    Image.fromarray(noisy).save(root / "a.jpg", quality=95)
    (root / "a.png").unlink()
    with pytest.raises(DataError, match="is a JPEG, which changes colours"):
        count_colors(root)


def test_likely_classes_end_where_the_counts_fall() -> None:
    assert likely_classes([1000, 900, 500, 3, 2, 2, 1]) == 3
    assert likely_classes([5]) == 1


def test_a_folder_without_pictures_is_refused(root) -> None:
    root.mkdir()
    with pytest.raises(DataError, match="contains no images"):
        count_colors(root)
