"""Make docs/editor.png: python docs/editor_picture.py RUN

RUN is a run of the demo with clusters. An object of a held-out scene is selected and restyled in Chromium.
"""

from __future__ import annotations

import io
import shutil
import sys
from pathlib import Path

import numpy as np
from PIL import Image
from playwright.sync_api import sync_playwright

from hdgan.editor.app import build, launch
from hdgan.editor.studio import Studio, open_studio
from hdgan.files import save_png

COLOURS = 128


def main(run: str) -> None:
    """Write the picture beside this file."""
    studio = open_studio(Path(run), device="cpu", out=Path("edits"))
    blocks = build(studio)
    shot = take(launch(blocks), *largest_car(studio))
    blocks.close(verbose=False)
    save_png(shot.convert("RGB").quantize(COLOURS), Path(__file__).with_name("editor.png"))


def largest_car(studio: Studio) -> tuple[float, float]:
    """A point on the largest car of the first held-out scene, as shares of width and height."""
    document = studio.sample(0)
    car = studio.legend.names.index("car")
    cars = [document.mask(id) for id, label in document.classes.items() if label == car]
    y, x = np.argwhere(max(cars, key=np.sum)).mean(axis=0)
    return x / document.size[0], y / document.size[1]


def take(url: str, x: float, y: float) -> Image.Image:
    """Select the object at a point, give it its class's second cluster, and photograph the page."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1180, "height": 650})
        page.goto(url)
        page.wait_for_selector("[data-part=picture][src]")
        box = page.locator("#stage canvas").nth(2).bounding_box()
        assert box is not None
        page.mouse.click(box["x"] + x * box["width"], box["y"] + y * box["height"])
        page.locator("#stage .styles button").nth(2).click()
        page.wait_for_selector("#stage .style:text('cluster 1')")
        page.mouse.move(0, 0)
        page.wait_for_timeout(500)  # transitions of the buttons
        shot = page.screenshot()
        browser.close()
    return Image.open(io.BytesIO(shot))


if __name__ == "__main__":
    main(*sys.argv[1:])
