"""Checks of the built site: every link and anchor in it exists, and no page loads anything from elsewhere."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

LOADED = {"script": "src", "img": "src", "iframe": "src", "source": "src", "video": "src", "audio": "src"}
"""Elements whose content a browser loads with the page, and the attribute with its address."""
LOADED_LINKS = ("stylesheet", "icon", "preload", "preconnect", "dns-prefetch", "manifest", "modulepreload")
"""Kinds of `link` elements that make a browser load, or look up, their address."""


@dataclass
class Page(HTMLParser):
    """The addresses and anchors of one page."""

    links: list[str] = field(default_factory=list)
    loaded: list[str] = field(default_factory=list)
    anchors: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        super().__init__()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        self.anchors |= {values[name] for name in ("id", "name") if name in values}
        if tag == "a" and "href" in values:
            self.links.append(values["href"])
        elif tag in LOADED and LOADED[tag] in values:
            self.loaded.append(values[LOADED[tag]])
        elif tag == "link" and set(values.get("rel", "").split()) & set(LOADED_LINKS):
            self.loaded.append(values.get("href", ""))


@cache
def read_page(file: Path) -> Page:
    page = Page()
    page.feed(file.read_text(encoding="utf-8"))
    return page


def faults(site: Path) -> list[str]:
    """One line for every address that leads nowhere, and for everything that a page loads from another host."""
    found = []
    for file in sorted(site.rglob("*.html")):
        if file.name == "404.html":  # its addresses are absolute, for a server
            continue
        page, name = read_page(file), file.relative_to(site).as_posix()
        found += [f"{name} loads {address}" for address in page.loaded if urlsplit(address).netloc]
        for address in (*page.links, *page.loaded):
            parts = urlsplit(address)
            if parts.scheme or parts.netloc:
                continue
            target = file if not parts.path else Path(os.path.normpath(file.parent / unquote(parts.path)))
            anchor = unquote(parts.fragment)
            if not target.is_file():
                found.append(f"{name}: {address} does not exist")
            elif anchor and target.suffix == ".html" and anchor not in read_page(target).anchors:
                found.append(f"{name}: {address}: the page has no such anchor")
    return list(dict.fromkeys(found))
