"""Make docs/editor.png: `python -m docs.pictures.editor RUN`.

RUN is a model of the built-in scenes with clusters, such as demo. An object of a held-out scene is selected and
restyled in Chromium.
"""

from __future__ import annotations

import io
import shutil
import sys
from pathlib import Path

import numpy as np
from PIL import Image
from playwright.sync_api import sync_playwright

from hdgan.editor.context import EditorContext, open_context
from hdgan.editor.web.app import launch
from hdgan.files import save_png
from hdgan.inference import load

COLOURS = 128
MAX_PIXELS = 1_000_000


def main(run: str) -> None:
    """Write the screenshot."""
    context = open_context(load(run, device="cpu"), MAX_PIXELS, out=Path("edits"))
    page, url = launch(context)
    screenshot = take_screenshot(url, *largest_car(context))
    page.close(verbose=False)
    save_png(screenshot.convert("RGB").quantize(COLOURS), Path(__file__).parents[1] / "editor.png")


def largest_car(context: EditorContext) -> tuple[float, float]:
    """A point on the largest car of the first held-out scene, as fractions of width and height."""
    document = context.sample(0)
    car = context.palette.names.index("car")
    cars = [document.mask(id) for id, label in document.classes.items() if label == car]
    y, x = np.argwhere(max(cars, key=np.sum)).mean(axis=0)
    return x / document.size[0], y / document.size[1]


def take_screenshot(url: str, x: float, y: float) -> Image.Image:
    """Select the object at a point, give it its class's second cluster, and take a screenshot of the page."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1180, "height": 650})
        page.goto(url)
        page.wait_for_selector("[data-part=image][src]")
        box = page.locator("#workspace canvas").nth(2).bounding_box()
        assert box is not None
        page.mouse.click(box["x"] + x * box["width"], box["y"] + y * box["height"])
        page.locator("#workspace .styles button").nth(2).click()
        page.wait_for_selector("#workspace .style:text('cluster 1')")
        page.mouse.move(0, 0)
        page.wait_for_timeout(500)  # transitions of the buttons
        screenshot = page.screenshot()
        browser.close()
    return Image.open(io.BytesIO(screenshot))


if __name__ == "__main__":
    main(*sys.argv[1:])
