from __future__ import annotations

import pytest

from hdgan.errors import ConfigError
from hdgan.files.slides import has_slides, slides


@pytest.mark.parametrize(
    ("library", "installed", "missing"),
    [
        ("tifffile", (), "tifffile and imagecodecs"),
        ("tifffile", ("tifffile", "zarr"), "imagecodecs"),
        ("zarr", ("tifffile", "imagecodecs"), "zarr"),
    ],
)
def test_what_is_missing_is_named_with_the_command_that_installs_it(monkeypatch, library, installed, missing):
    monkeypatch.setattr("hdgan.files.slides.find_spec", lambda name: object() if name in installed else None)
    assert not has_slides(library)
    with pytest.raises(ConfigError, match=rf'^reading a\.tif needs {missing}: .*`pip install -e "\.\[slides\]"`'):
        slides(library, "reading a.tif")


@pytest.mark.slides
@pytest.mark.parametrize("library", ["tifffile", "zarr"])
def test_an_installed_library_is_imported(library):
    assert has_slides(library)
    assert slides(library, "a test").__name__ == library
