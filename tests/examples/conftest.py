"""The scripts of examples/ as modules."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from PIL import Image

from hdgan.scenes import Scene, render_scene

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture
def example() -> Iterator[Callable[[str], Any]]:
    """Load a script by its name, as a module of its own."""
    before = set(sys.modules)

    def load(name: str) -> ModuleType:
        spec = importlib.util.spec_from_file_location(f"hdgan_examples_{name}", EXAMPLES / f"{name}.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = module  # where dataclasses look for the module of a class
        spec.loader.exec_module(module)
        return module

    yield load
    for name in set(sys.modules) - before:
        if name.startswith("hdgan_examples_"):
            del sys.modules[name]


@pytest.fixture(scope="session")
def scene() -> Scene:
    """A held-out scene with two large cars, 64x32."""
    return render_scene(0, "test", 4, 64, 32)


@pytest.fixture
def write_maps(scene: Scene) -> Callable[[Path, Path], None]:
    """Write the maps of the scene into two files."""

    def write(label: Path, ids: Path) -> None:
        for path, array in ((label, scene.label), (ids, scene.ids.astype(np.uint16))):
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(array).save(path)

    return write
