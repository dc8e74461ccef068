"""The pages of the reference of the Python API: one for each public module, with every public name."""

from __future__ import annotations

import ast
import importlib
import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import docstring_parser

ROOT = Path(__file__).parents[2]
PLAIN = ("hdgan.losses", "hdgan.errors", "hdgan.data.windows", "hdgan.inference.tiled", "hdgan.inference.preview")
"""Public modules without `__all__`: their public names are the classes and functions that they define."""
ELSEWHERE = {
    "hdgan.Pipeline": "hdgan.inference.Pipeline",
    "hdgan.load": "hdgan.inference.load",
    "hdgan.accelerate": "hdgan.acceleration.accelerate",
}
"""Names that the reference describes under other ones."""
SECTIONS = {
    "Trained models": (
        "hdgan", "hdgan.inference", "hdgan.inference.tiled", "hdgan.inference.preview", "hdgan.styles", "hdgan.export",
        "hdgan.hub", "hdgan.interop", "hdgan.interop.nvidia", "hdgan.interop.cyclegan",
    ),
    "Training and evaluation": (
        "hdgan.training", "hdgan.families", "hdgan.losses", "hdgan.evaluation", "hdgan.metrics",
    ),
    "Data": ("hdgan.data", "hdgan.data.conversion", "hdgan.data.windows", "hdgan.scenes"),
    "Networks and ops": ("hdgan.models", "hdgan.nn", "hdgan.ops", "hdgan.acceleration", "hdgan.regions"),
    "Errors and files": ("hdgan.errors", "hdgan.files", "hdgan.weights"),
}  # fmt: skip
"""The public modules by what they are for, as in the navigation."""
KINDS = ("Classes", "Functions", "Values", "Modules")


def public_modules() -> list[str]:
    """The dotted names of the packages that list their public names in `__all__`, and of the modules in `PLAIN`."""
    files = sorted((ROOT / "hdgan").rglob("__init__.py"))
    return [".".join(file.relative_to(ROOT).parent.parts) for file in files if _lists_names(file)] + list(PLAIN)


def public_names(module: str) -> list[str]:
    """The public names of a module, in the order of `__all__` or of their definition."""
    found = importlib.import_module(module)
    if module not in PLAIN:
        return list(found.__all__)
    return [
        name
        for name, value in vars(found).items()
        if not name.startswith("_")
        and (inspect.isclass(value) or inspect.isroutine(value))
        and value.__module__ == module
    ]


def page_of(module: str) -> str:
    """The path of a module's page below `docs`."""
    return f"reference/python/{module}.md"


def python_pages() -> Iterator[tuple[str, str]]:
    """Path and Markdown of the page of each public module, and of the page that lists them."""
    yield "reference/python/index.md", _overview()
    for module in public_modules():
        yield page_of(module), module_page(module)


def module_page(module: str) -> str:
    """The Markdown of a module's page: what it is for, its names with a sentence on each, and the names in full."""
    found = importlib.import_module(module)
    groups: dict[str, list[str]] = {kind: [] for kind in KINDS}
    for name in public_names(module):
        if name != "__version__":
            groups[_kind(getattr(found, name))].append(name)
    parts = [f"# {module}", inspect.getdoc(found) or ""]
    if "__version__" in public_names(module):
        parts.append("`hdgan.__version__` is the version of the installed package, as a string.")
    for kind, names in groups.items():
        if names:
            parts += [f"## {kind}", *([_summary(module, names)] if kind != "Values" else [])]
            parts += [_entry(f"{module}.{name}", getattr(found, name)) for name in names]
    return "\n\n".join(part for part in parts if part) + "\n"


def _overview() -> str:
    parts = ["# Python", "Every public module, class and function. What is not listed here can change at any time."]
    for title, modules in SECTIONS.items():
        rows = [f"| [`{module}`]({module}.md) | {_sentence(importlib.import_module(module))} |" for module in modules]
        parts += [f"## {title}", "\n".join(["| module | |", "|---|---|", *rows])]
    return "\n\n".join(parts) + "\n"


def _lists_names(file: Path) -> bool:
    targets = [node.targets[0] for node in ast.parse(file.read_text("utf-8")).body if isinstance(node, ast.Assign)]
    return any(isinstance(target, ast.Name) and target.id == "__all__" for target in targets)


def _kind(value: Any) -> str:
    if inspect.isclass(value):
        return "Classes"
    if inspect.ismodule(value):
        return "Modules"
    return "Functions" if inspect.isroutine(value) else "Values"


def _summary(module: str, names: list[str]) -> str:
    rows = ["| name | description |", "|---|---|"]
    for name in names:
        sentence = _sentence(getattr(importlib.import_module(module), name)).replace("|", "\\|")
        rows.append(f"| [`{name}`][{described_as(f'{module}.{name}')}] | {sentence} |")
    return "\n".join(rows)


def _sentence(value: Any) -> str:
    """The first paragraph of the docstring of a class, function or module."""
    doc = docstring_parser.parse(inspect.getdoc(value) or "")
    return " ".join((doc.short_description or "").split())


def described_as(name: str) -> str:
    """The name by which the reference, and links to it, find a public name.

    A function that has the name of its module, such as `hdgan.ops.avg_pyramid`, is found by its place in it.
    """
    name = ELSEWHERE.get(name, name)
    module, _, own = name.rpartition(".")
    value = getattr(importlib.import_module(module), own)
    hidden = not inspect.ismodule(value) and (ROOT / Path(*name.split("."))).with_suffix(".py").is_file()
    return f"{value.__module__}.{own}" if hidden else name


def _entry(name: str, value: Any) -> str:
    """The directive that describes a name, unless it is described under another one."""
    if name in ELSEWHERE:
        return ""
    lines = [f"::: {described_as(name)}", "    options:", "      heading_level: 3", f"      heading: {name}"]
    if _kind(value) == "Values" and not isinstance(value, str):
        lines.append("      show_attribute_values: false")
    return "\n".join(lines)
