"""The Markdown that the site is built from: the pages of `docs`, those of the repository's root, and the reference."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

from docs.site.commands import command_pages, preset_pages
from docs.site.python import page_of, public_modules, python_pages
from hdgan.commands.main import COMMANDS
from hdgan.training import PRESETS

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
FROM_ROOT = {
    "README.md": "readme.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "examples/README.md": "examples.md",
}
"""Files of the repository that are pages of the site, and their names there."""
BESIDE = ("LICENSE", "CITATION.cff", "examples/*.ipynb", "examples/*.jpg", "examples/*.py")
"""Files of the repository that pages link to, which are copied as they are."""
_LINK = re.compile(r"(!?)\[((?:[^\[\]]|\[[^\[\]]*\])*)\]\(([^)\s]+)\)")
_FENCE = re.compile(r"(^```.*?^```[ \t]*$|`[^`\n]*\]\([^`\n]*`)", re.MULTILINE | re.DOTALL)
"""A block of code, or code in a line, in which something looks like a link."""


def write_sources(out: Path) -> None:
    """Write the Markdown and the pictures of the whole site into a folder, whose content is replaced."""
    shutil.rmtree(out, ignore_errors=True)
    for name, text in pages():
        page = out / name
        page.parent.mkdir(parents=True, exist_ok=True)
        page.write_text(text, encoding="utf-8")
    for source, name in _files():
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, out / name)


def write_changed(out: Path, since: float) -> None:
    """Write again what people have changed since a time, in seconds since the epoch."""
    for source, name in written_pages().items():
        if source.stat().st_mtime >= since:
            (out / name).write_text(relinked(source.read_text(encoding="utf-8"), source, name), encoding="utf-8")


def pages() -> Iterator[tuple[str, str]]:
    """Path in the site and Markdown of every page."""
    for source, name in written_pages().items():
        yield name, relinked(source.read_text(encoding="utf-8"), source, name)
    yield from python_pages()
    yield from command_pages()
    yield from preset_pages()


def reference_paths() -> list[str]:
    """The paths of the pages of the reference, for which nothing has to be rendered."""
    commands = ["index", "train", *dict.fromkeys(command.split()[0] for command in COMMANDS)]
    return [
        *("reference/python/index.md", *map(page_of, public_modules())),
        *(f"reference/commands/{name}.md" for name in commands),
        *(f"reference/presets/{name}.md" for name in ("index", *PRESETS)),
    ]


def written_pages() -> dict[Path, str]:
    """The pages that people write, and their paths in the site."""
    own = {source: source.relative_to(DOCS).as_posix() for source in sorted(DOCS.rglob("*.md"))}
    return own | {ROOT / name: page for name, page in FROM_ROOT.items()}


def relinked(text: str, source: Path, name: str) -> str:
    """A page whose links lead to where the site has the files.

    A link to a file of the repository that the site does not have becomes its text.
    """

    def replaced(link: re.Match[str]) -> str:
        target, _, anchor = link[3].partition("#")
        if "://" in target or target.startswith("mailto:") or not target:
            return link[0]
        place = _place((source.parent / target).resolve())
        if place is None:
            return link[2]
        relative = Path(os.path.relpath(place, Path(name).parent)).as_posix()
        return f"{link[1]}[{link[2]}]({relative}{'#' if anchor else ''}{anchor})"

    parts = _FENCE.split(text)
    return "".join(part if number % 2 else _LINK.sub(replaced, part) for number, part in enumerate(parts))


def _place(file: Path) -> str | None:
    """The path in the site of a file of the repository."""
    place = written_pages().get(file)
    if place is not None:
        return place
    if file.is_relative_to(DOCS) and (reference := file.relative_to(DOCS).as_posix()) in reference_paths():
        return reference
    return next((name for source, name in _files() if source == file), None)


def _files() -> Iterator[tuple[Path, str]]:
    """What is copied as it is: pictures, tables, the style sheet and script of the site, and the files in `BESIDE`."""
    for source in sorted(DOCS.rglob("*")):
        if source.suffix in (".png", ".svg", ".jpg", ".csv", ".css", ".js"):
            yield source, source.relative_to(DOCS).as_posix()
    for pattern in BESIDE:
        for source in sorted(ROOT.glob(pattern)):
            yield source, source.relative_to(ROOT).as_posix()
