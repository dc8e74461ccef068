"""The samples of evaluation.html, and the page in a real browser: all images of a row are zoomed and moved together."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from math import nan
from pathlib import Path

import pytest
import torch
from playwright.sync_api import Page, sync_playwright

from hdgan.data.spec import DatasetSpec
from hdgan.evaluation.page import Facts, Gallery, write_results
from hdgan.metrics.confusion import ClassScore
from hdgan.metrics.scores import ABOUTS, HIGHER_IS_BETTER, METRICS, ORACLE, TITLES, RunScores
from hdgan.metrics.spectra import SpectralScores

RUNS = ("a", "<b>")
SPECTRA = SpectralScores(2.0, {"vertical streaks": 1.25, "grid of 8 pixels": -0.5}, (0.1, 0.5), (-30, -40), (-20, -45))


def write_page(folder: Path, first: SpectralScores | None = None) -> Path:
    gallery = Gallery((ORACLE, *RUNS))
    sample = {"stem": "s0", "label": torch.zeros(16, 32, dtype=torch.uint8)}
    recognised = [torch.zeros(1, 16, 32, dtype=torch.int64)] * 3
    shown = gallery.embed(0, sample, [torch.rand(1, 3, 16, 32) for _ in range(3)], recognised)  # type: ignore[arg-type]
    assert shown is not None
    gallery.samples.append(shown)
    rows = [RunScores(name, dict.fromkeys(METRICS) | {"psnr": k + 0.5}) for k, name in enumerate((ORACLE, *RUNS))]
    rows[1:] = [replace(row, spectra=spectra) for row, spectra in zip(rows[1:], (first, SPECTRA), strict=True)]
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


@pytest.mark.browser
def test_a_row_is_zoomed_and_moved_together(page: Page) -> None:
    page.locator(".made .picture").nth(1).click()
    assert page.locator(".pane p").all_inner_texts() == ["label map", ORACLE, *RUNS]
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
    page.locator(".seen .picture").nth(1).click()
    recognised = [f"{name}, recognised" for name in (ORACLE, *RUNS)]
    assert page.locator(".pane p").all_inner_texts() == ["label map", *recognised]
    page.keyboard.press("Escape")
    page.set_viewport_size({"width": 360, "height": 640})
    assert page.evaluate("document.documentElement.scrollWidth") <= 360


@pytest.mark.browser
def test_the_better_run_is_marked_and_names_stay_text(page: Page) -> None:
    assert page.locator("td.best").all_inner_texts() == ["2.50"]
    assert page.locator("tbody th").all_inner_texts() == [ORACLE, "a", "<b>"]


def test_a_run_with_spectra_has_a_chart(tmp_path: Path) -> None:
    page = write_page(tmp_path).read_text(encoding="utf-8")
    assert page.count("<svg") == 1
    assert 'aria-label="&lt;b&gt;"' in page
    assert "<strong>&lt;b&gt;</strong>" in page
    assert "vertical streaks +1.25 dB; grid of 8 pixels -0.50 dB" in page
    assert [page.count(f">{name}</span>") for name in ("generated", "photos")] == [1, 1]


def test_images_that_are_not_finite_have_no_chart(tmp_path: Path) -> None:
    broken = replace(SPECTRA, distance=nan, image=(nan, nan))
    page = write_page(tmp_path, broken).read_text(encoding="utf-8")
    assert page.count("<svg") == 1
    assert 'aria-label="&lt;b&gt;"' in page


def test_classes_are_shown_with_their_names_and_colours(tmp_path: Path) -> None:
    spec = DatasetSpec.of_colors(["<road>", "sky"], [(128, 64, 128), (0, 0, 255)])
    scores = (ClassScore(0, 30, 0.5, 0.25), ClassScore(1, 10, 1.0, None), ClassScore(2, 0, None, None))
    rows = [RunScores(name, dict.fromkeys(METRICS), classes=scores) for name in (ORACLE, "a")]
    page = write_results(tmp_path, rows, Gallery((ORACLE, "a")), Facts({}, classes=spec)).read_text(encoding="utf-8")
    assert '<span class="swatch" style="--color: #804080"></span><span>&lt;road&gt;</span></span></th>' in page
    assert '<th scope="row">class 2</th>' in page
    assert "75.00 %" in page
    lines = (tmp_path / "class_scores.csv").read_text(encoding="utf-8").splitlines()
    assert lines[:3] == [
        "run,class,label,pixels,accuracy,iou",
        "real photos,<road>,0,30,0.5,0.25",
        "real photos,sky,1,10,1.0,",
    ]


def test_every_column_is_explained(tmp_path: Path) -> None:
    page = write_page(tmp_path).read_text(encoding="utf-8")
    assert ABOUTS.keys() == TITLES.keys() == set(METRICS)
    for name, title in TITLES.items():
        assert f"<dt>{title}</dt><dd>{ABOUTS[name][:30]}".replace("'", "&#39;") in page
        assert ("higher is better" in ABOUTS[name]) == (name in HIGHER_IS_BETTER)
        assert ("lower is better" in ABOUTS[name]) == (name not in HIGHER_IS_BETTER)


def test_a_gallery_shows_the_first_samples() -> None:
    gallery = Gallery(("real photos",), limit=2)
    samples = [{"stem": f"s{k}", "label": torch.zeros(4, 400, dtype=torch.uint8)} for k in range(3)]
    shown = [
        gallery.embed(k, sample, [torch.rand(1, 3, 4, 400)], [None])  # type: ignore[arg-type]
        for k, sample in enumerate(samples)
    ]
    assert [one and one.stem for one in shown] == ["s0", "s1", None]
    assert shown[0] is not None
    label, photo = shown[0].images
    assert (label.is_map, label.url[:15]) == (True, "data:image/png;")
    assert (photo.is_map, photo.url[:16], photo.width) == (False, "data:image/jpeg;", 400)
    assert shown[0].recognised == []
