"""Single-file pages, rendered from a template inside the shell that all pages share."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from hdgan.files import write_text


def write_page(template: str, content: Mapping[str, Any], file: Path) -> Path:
    """Render a page and write it.

    Args:
        template: its path in this package, such as "training/report.html". It extends "reporting/page.html", which has
            the head, the style sheet and the header. It fills the blocks `title`, `kind` (of page), `heading`, `lead`
            (what the page shows), and `main`, and may fill `style`, `state`, `progress` and `after`.
        content: the names that the template uses, except `written`, the time of writing, and `version`, which every
            page has.
        file: to write. Text in the page is escaped, and the page loads nothing from elsewhere.

    Returns:
        `file`.

    Raises:
        HdganError: the file cannot be written. An earlier page is unchanged.
    """
    templates = Environment(
        loader=PackageLoader("hdgan", ""), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    written = datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z")
    page = templates.get_template(template).render(content, written=written, version=version("hdgan"))
    write_text(file, page)
    return file
