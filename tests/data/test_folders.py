from __future__ import annotations

import os
from pathlib import Path

import pytest

from hdgan.data.folders import as_text, images_in, name_of, subfolders_of
from hdgan.wording import is_text


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("bonn/rue.2.png", "bonn/rue.2"),
        ("gru\N{COMBINING DIAERESIS}n.tif", "grün"),
        (os.fsdecode(b"stra\xdfe/m\xfcll.jpg"), "stra%DFe/m%FCll"),
    ],
)
def test_names_are_composed_text(file, name):
    assert name_of(Path(file)) == name
    assert is_text(name)
    assert is_text(file) == (as_text(file) == file)


def test_folders_of_servers_and_systems_hold_no_pictures(tmp_path):
    for folder in ("city", "@eaDir", ".thumbnails", "__MACOSX", "lost+found", "$RECYCLE.BIN", "city/@EADIR/1.png"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "small.png").touch()
    (tmp_path / "Thumbs.db").touch()
    assert subfolders_of(tmp_path) == ["city"]
    assert list(images_in(tmp_path)) == [tmp_path / "city" / "small.png"]
