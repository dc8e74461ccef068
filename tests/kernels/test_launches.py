"""How the launchers of hdgan.kernels launch their kernels, which do not run here."""

import importlib
from pathlib import Path

import pytest
from triton.runtime.jit import KernelInterface

from hdgan.kernels import common
from tests.kernels.compile_aot import PROCESSORS, images

ROOT = Path(__file__).parent.parent.parent
STEMS = [file.stem for file in sorted((ROOT / "kernels").glob("[!_]*.py")) if file.stem != "common"]


@pytest.mark.parametrize("stem", STEMS)
def test_every_launch_has_the_common_options(stem, monkeypatch):
    made = {}

    def note(kernel, grid):
        return lambda *arguments, **options: made.setdefault(kernel.fn.__name__, []).append(options)

    monkeypatch.setattr(KernelInterface, "__getitem__", note)
    monkeypatch.setattr(common, "processors", lambda x: PROCESSORS)
    module = importlib.import_module(f"hdgan.kernels.{stem}")
    for make in images():
        for launcher, arguments in importlib.import_module(f"tests.ops.test_{stem}").launches(make):
            getattr(module, f"{stem}_{launcher}")(*arguments)
    assert set(made) == {name for name in vars(module) if name.endswith("_kernel")}
    for name, launches in made.items():
        for options in launches:
            assert options.items() >= common.OPTIONS.items(), name
