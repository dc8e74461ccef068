"""The pages of the site, their links and their places in the navigation."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from docs.site.sources import (
    DOCS,
    FROM_ROOT,
    ROOT,
    reference_paths,
    relinked,
    write_changed,
    write_sources,
    written_pages,
)


def test_links_lead_to_where_the_site_has_the_files() -> None:
    def in_readme(text: str) -> str:
        return relinked(text, ROOT / "README.md", "readme.md")

    assert in_readme("[a](docs/training.md#x) [b](CHANGELOG.md)") == "[a](training.md#x) [b](changelog.md)"
    assert in_readme("![a [b]](docs/demo.png)") == "![a [b]](demo.png)"
    assert in_readme("[a](https://b.c/d.md) [e](#f)") == "[a](https://b.c/d.md) [e](#f)"
    assert in_readme("[`a`](hdgan/losses.py)") == "`a`"
    assert in_readme("`[a](docs/training.md)`\n```\n[a](docs/training.md)\n```\n").count("docs/training.md") == 2
    page = relinked("[a](../../README.md#b) [c](../design.md)", DOCS / "how-to" / "add-an-op.md", "how-to/add-an-op.md")
    assert page == "[a](../readme.md#b) [c](../design.md)"
    home = relinked("[a](reference/commands/index.md) [b](reference/none.md)", DOCS / "index.md", "index.md")
    assert home == "[a](reference/commands/index.md) b"


def test_every_page_is_in_the_navigation_once() -> None:
    navigation = (ROOT / "mkdocs.yml").read_text(encoding="utf-8").partition("\nnav:\n")[2]
    listed = re.findall(r"([\w./-]+\.md)", navigation)
    assert sorted(listed) == sorted([*written_pages().values(), *reference_paths()])


def test_pages_that_are_edited_are_written_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = tmp_path / "page.md"
    page.write_text("before")
    monkeypatch.setattr("docs.site.sources.written_pages", lambda: {page: "written.md"})
    write_changed(tmp_path, since=page.stat().st_mtime + 1)
    assert not (tmp_path / "written.md").exists()
    write_changed(tmp_path, since=page.stat().st_mtime)
    assert (tmp_path / "written.md").read_text() == "before"


def test_sources_are_complete(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("docs.site.sources.pages", lambda: [("a/b.md", "text")])
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "old.md").touch()
    write_sources(tmp_path / "out")
    names = {file.relative_to(tmp_path / "out").as_posix() for file in (tmp_path / "out").rglob("*") if file.is_file()}
    assert {"a/b.md", "demo.png", "site/extra.css", "site/iframe-worker.js", "LICENSE"} <= names
    assert "old.md" not in names
    assert {"README.md", "CHANGELOG.md", "CONTRIBUTING.md"} <= set(FROM_ROOT)
