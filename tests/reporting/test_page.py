"""The shell of all pages."""

from __future__ import annotations

from pathlib import Path

import pytest
from jinja2 import UndefinedError

from hdgan.errors import HdganError
from hdgan.reporting.page import write_page

CONTENT = {"checkpoint": "<b>step 9", "classes": [], "size": 96}


def test_a_page_is_in_the_shell_and_text_in_it_is_escaped(tmp_path: Path) -> None:
    file = write_page("evaluation/style_sheet.html", CONTENT, tmp_path / "sheet.html")
    page = file.read_text(encoding="utf-8")
    assert page.startswith("<!doctype html>")
    assert page.rstrip().endswith("</html>")
    assert "&lt;b&gt;step 9</title>" in page
    assert "<b>" not in page
    assert "--curve-0: #" in page
    assert ".cluster {" in page
    assert "{%" not in page


def test_a_page_that_cannot_be_made_leaves_the_old_one(tmp_path: Path) -> None:
    file = tmp_path / "sheet.html"
    file.write_text("old")
    with pytest.raises(UndefinedError):
        write_page("evaluation/style_sheet.html", {}, file)
    assert file.read_text() == "old"
    assert list(tmp_path.iterdir()) == [file]
    with pytest.raises(HdganError, match=r"sheet\.html"):
        write_page("evaluation/style_sheet.html", CONTENT, file / "sheet.html")
