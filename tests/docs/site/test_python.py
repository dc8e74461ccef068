"""Every public name is in the reference."""

from __future__ import annotations

import importlib
import inspect
import re

import pytest

from docs.site.python import ELSEWHERE, SECTIONS, described_as, module_page, public_modules, public_names


def test_every_public_module_is_in_one_section() -> None:
    assert {"hdgan", "hdgan.ops", "hdgan.interop.nvidia", "hdgan.losses"} <= set(public_modules())
    assert sorted(module for modules in SECTIONS.values() for module in modules) == sorted(public_modules())


@pytest.mark.parametrize("module", public_modules())
def test_every_public_name_is_on_the_page_of_its_module(module: str) -> None:
    page = module_page(module)
    headings = re.findall(r"(?m)^      heading: (.*)$", page)
    elsewhere = [name for name in ELSEWHERE if name.rpartition(".")[0] == module]
    assert sorted([*headings, *elsewhere]) == sorted(
        f"{module}.{name}" for name in public_names(module) if name != "__version__"
    )
    assert all(f"`{name.rpartition('.')[2]}`][{ELSEWHERE[name]}]" in page for name in elsewhere)


@pytest.mark.parametrize("module", public_modules())
def test_public_classes_and_functions_have_docstrings(module: str) -> None:
    found = importlib.import_module(module)
    values = {name: getattr(found, name) for name in public_names(module)}
    described = {name: value for name, value in values.items() if inspect.isclass(value) or inspect.isroutine(value)}
    assert [name for name, value in described.items() if not (value.__doc__ or "").strip()] == []


def test_a_function_with_the_name_of_its_module_is_found_there() -> None:
    assert described_as("hdgan.ops.avg_pyramid") == "hdgan.ops.avg_pyramid.avg_pyramid"
    assert described_as("hdgan.ops.pad2d") == "hdgan.ops.pad2d"
    assert described_as("hdgan.load") == "hdgan.inference.load"
