"""What the check of a built site finds."""

from __future__ import annotations

from pathlib import Path

from docs.site.check import faults

PAGE = """<h1 id="top">A</h1> <a href="b.html#there">b</a> <a href="b.html#gone">b</a> <a href="c.html">c</a>
<a href="https://example.org">elsewhere</a> <a href="#top">top</a> <img src="a%20b.png"> <img src="d.png">
<script src="https://example.org/x.js"></script> <link rel="stylesheet" href="//example.org/x.css">
<link rel="canonical" href="https://example.org/a.html">"""


def test_faults_are_links_that_lead_nowhere_and_content_from_elsewhere(tmp_path: Path) -> None:
    (tmp_path / "a.html").write_text(PAGE)
    (tmp_path / "b.html").write_text('<h2 id="there">B</h2>')
    (tmp_path / "a b.png").touch()
    assert faults(tmp_path) == [
        "a.html loads https://example.org/x.js",
        "a.html loads //example.org/x.css",
        "a.html: b.html#gone: the page has no such anchor",
        "a.html: c.html does not exist",
        "a.html: d.png does not exist",
    ]
