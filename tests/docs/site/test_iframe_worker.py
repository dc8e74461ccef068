"""The stand-in for a worker, with which the search works in pages that were opened as files."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from docs.site.sources import DOCS

PAGE = """<body><script src="iframe-worker.js"></script><script>
const worker = new Worker("./worker.js");
worker.onmessage = ({data}) => { document.title = data.answer; worker.terminate(); };
worker.postMessage({question: 20});
</script>"""
WORKER = "self.onmessage = ({data}) => self.postMessage({answer: String(data.question + 22)});"


@pytest.mark.browser
def test_a_worker_of_a_page_that_is_a_file_answers(chromium: str, tmp_path: Path) -> None:
    from playwright.sync_api import sync_playwright

    shutil.copy(DOCS / "site" / "iframe-worker.js", tmp_path)
    (tmp_path / "page.html").write_text(PAGE)
    (tmp_path / "worker.js").write_text(WORKER)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page()
        page.goto((tmp_path / "page.html").as_uri())
        page.wait_for_function("document.title === '42'")
        page.wait_for_function("document.querySelector('iframe') === null")
        browser.close()
