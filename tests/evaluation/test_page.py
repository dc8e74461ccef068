"""evaluation.html in a real browser: all pictures of a row are zoomed and moved together."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from playwright.sync_api import Page, sync_playwright

from hdgan.evaluation.page import Facts, Gallery, write_results
from hdgan.metrics.scores import METRICS, ORACLE, RunScores

pytestmark = pytest.mark.browser
RUNS = ("a", "<b>")


def write_page(folder: Path) -> Path:
    gallery = Gallery((ORACLE, *RUNS))
    sample = {"stem": "s0", "label": torch.zeros(16, 32, dtype=torch.uint8)}
    gallery.add(sample, [torch.rand(1, 3, 16, 32) for _ in range(3)], [None] * 3)  # type: ignore[arg-type]
    rows = [RunScores(name, dict.fromkeys(METRICS) | {"psnr": k + 0.5}) for k, name in enumerate((ORACLE, *RUNS))]
    return write_results(folder, rows, gallery, Facts({"pictures": "1"}))


@pytest.fixture
def page(chromium: str, tmp_path: Path) -> Iterator[Page]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1200, "height": 800})
        errors: list[str] = []
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(write_page(tmp_path).as_uri())
        yield page
        assert errors == []
        browser.close()


def transforms(page: Page) -> set[str]:
    return set(page.eval_on_selector_all(".pane img", "images => images.map(image => image.style.transform)"))


def test_a_row_is_zoomed_and_moved_together(page: Page) -> None:
    page.locator(".picture").nth(2).click()
    assert page.locator(".pane").count() == 4
    assert transforms(page) == {"translate(0%, 0%) scale(1)"}
    box = page.locator(".pane").nth(1).bounding_box()
    assert box is not None
    middle = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(*middle)
    page.keyboard.press("+")
    (zoomed,) = transforms(page)
    assert zoomed.endswith("scale(1.25)")
    page.mouse.down()
    page.mouse.move(middle[0] - 20, middle[1])
    page.mouse.up()
    (moved,) = transforms(page)
    assert moved.endswith("scale(1.25)")
    assert moved != zoomed
    page.keyboard.press("0")
    assert transforms(page) == {"translate(0%, 0%) scale(1)"}
    page.keyboard.press("Escape")
    assert not page.locator("dialog").is_visible()


def test_the_better_run_is_marked_and_names_stay_text(page: Page) -> None:
    assert page.locator("td.best").all_inner_texts() == ["2.50"]
    assert page.locator("tbody th").all_inner_texts() == [ORACLE, "a", "<b>"]
