"""The example of styles: what its sheet shows."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from hdgan.errors import ConfigError, DataError
from hdgan.scenes import Scene


def test_the_sheet(
    example: Callable[[str], Any], scene: Scene, write_maps: Callable[[Path, Path], None], tmp_path: Path
) -> None:
    module = example("styles")
    files = tuple(tmp_path / name for name in ("label.png", "ids.png", "photo.png"))
    write_maps(files[0], files[1])
    Image.fromarray(scene.photo).save(files[2])
    module.main(tmp_path / "sheet.png", files=files, columns=3)
    with Image.open(tmp_path / "sheet.png") as image:
        sheet = np.asarray(image).astype(int)
    height, width, gap = 32, 64, module.GAP
    assert sheet.shape == (5 * (height + gap) - gap, 4 * (width + gap) - gap, 3)
    assert (sheet[height] == 255).all()

    def picture(row: int, column: int) -> np.ndarray:
        top, left = row * (height + gap), column * (width + gap)
        return sheet[top : top + height, left : left + width]

    assert (picture(0, 1) == scene.photo).all()
    drawn, from_photo = picture(1, 0), picture(0, 3)
    assert np.abs(from_photo - scene.photo).mean() < np.abs(drawn - scene.photo).mean()
    assert (picture(4, 0) == drawn).all()
    assert (picture(4, 2) == from_photo).all()
    assert all(np.abs(picture(4, 1) - end).mean() > 1 for end in (drawn, from_photo))
    assert all(np.abs(picture(row, 1) - drawn).mean() > 1 for row in (1, 2))
    car = scene.ids == max((one.area, one.id) for one in scene.instances if one.name == "car")[1]
    changed = [np.abs(picture(3, column) - picture(3, 2)) for column in (0, 1)]
    assert max(change[car].mean() for change in changed) > 20
    assert all(change[car].mean() > 2 * change[~car].mean() for change in changed)


def test_what_cannot_be_shown_is_named(
    example: Callable[[str], Any], write_maps: Callable[[Path, Path], None], tmp_path: Path
) -> None:
    module = example("styles")
    with pytest.raises(ConfigError, match="--columns is 1: give 2 or more"):
        module.main(tmp_path / "sheet.png", columns=1)
    write_maps(tmp_path / "l.png", tmp_path / "i.png")
    with pytest.raises(DataError, match=r"l\.png has no object of class 8000: give another --of-class"):
        module.main(tmp_path / "sheet.png", files=(tmp_path / "l.png", tmp_path / "i.png", tmp_path), of_class=8000)
