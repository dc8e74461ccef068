"""The libraries that read and write huge images. They are an optional extra, imported when a file needs them."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from types import ModuleType
from typing import Literal

from hdgan.errors import ConfigError

SlideLibrary = Literal["tifffile", "zarr"]

_NEEDED = {"tifffile": ("tifffile", "imagecodecs"), "zarr": ("zarr",)}
"""What each library takes; tifffile decompresses by imagecodecs, which bounds what a tile unpacks to."""

SLIDES_REMEDY = 'install the libraries of huge images with `pip install -e ".[slides]"` in the checkout of hdgan'


def has_slides(library: SlideLibrary) -> bool:
    """Whether a library is installed, with all that it needs."""
    return not _missing(library)


def slides(library: SlideLibrary, what: str) -> ModuleType:
    """Import a library.

    Args:
        library: which one.
        what: what needs it, for the message.

    Raises:
        ConfigError: it is not installed, or not all that it needs is.
    """
    if missing := _missing(library):
        raise ConfigError(f"{what} needs {' and '.join(missing)}: {SLIDES_REMEDY}")
    return import_module(library)


def _missing(library: SlideLibrary) -> list[str]:
    return [name for name in _NEEDED[library] if find_spec(name) is None]
