"""A tab of the editor in a real browser."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from playwright.sync_api import Browser, Page, expect

from hdgan.editor.context import EditorContext

expect.set_options(timeout=30_000)

Serve = Callable[[EditorContext], str]
"""Start a server for a context, unless it has one, and return its address."""


class Tab:
    """A tab, and the actions of its user."""

    def __init__(self, browser: Browser, url: str) -> None:
        self.page: Page = browser.new_context(viewport={"width": 1300, "height": 900}).new_page()
        self.errors: list[str] = []
        self.elsewhere: list[str] = []
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("request", lambda request: self._note(request.url))
        self.page.goto(url)
        self.wait_for_view()

    def wait_for_view(self) -> None:
        self.page.wait_for_selector("#workspace [data-serial], #workspace[data-serial]", state="attached")

    def reload(self) -> None:
        self.page.reload()
        self.wait_for_view()

    def _note(self, url: str) -> None:
        if "//127.0.0.1:" not in url and not url.startswith(("data:", "blob:")):
            self.elsewhere.append(url)

    def pixels(self, part: str = "image") -> np.ndarray:
        """The pixels that a pane shows, [H, W, 3] int."""
        values = self.page.evaluate(
            """async (part) => {
                const image = document.querySelector(`[data-part=${part}]`);
                await image.decode();
                const canvas = new OffscreenCanvas(image.naturalWidth, image.naturalHeight);
                const context = canvas.getContext("2d");
                context.drawImage(image, 0, 0);
                return [canvas.height, canvas.width, [...context.getImageData(0, 0, canvas.width, canvas.height).data]];
            }""",
            part,
        )
        return np.array(values[2]).reshape(values[0], values[1], 4)[..., :3]

    def position(self, x: float, y: float) -> tuple[float, float]:
        """Where a pixel of the image lies on the screen."""
        canvas = self.page.locator("#workspace canvas").nth(2)
        canvas.scroll_into_view_if_needed()
        box = canvas.bounding_box()
        assert box is not None
        height, width = self.pixels().shape[:2]
        return box["x"] + (x + 0.5) * box["width"] / width, box["y"] + (y + 0.5) * box["height"] / height

    def click(self, x: float, y: float) -> None:
        self.page.mouse.click(*self.position(x, y))

    def drag(self, start: tuple[float, float], end: tuple[float, float]) -> None:
        self.page.mouse.move(*self.position(*start))
        self.page.mouse.down()
        self.page.mouse.move(*self.position(*end), steps=4)
        self.page.mouse.up()

    def wait(self, action: Callable[[], object]) -> None:
        """Do something and wait for the server's answer."""
        serial = "document.querySelector('#workspace [data-serial], #workspace[data-serial]').dataset.serial"
        before = self.page.evaluate(serial)
        action()
        self.page.wait_for_function(f"before => {serial} !== before", arg=before)

    def wait_for_outline(self) -> None:
        """Wait until the outline is loaded: the page uses it to find out what is dragged."""
        outlined = f"[data-outlined='{self.selected}']"
        self.page.wait_for_selector(f"#workspace {outlined}, #workspace{outlined}", state="attached")

    def press(self, key: str) -> None:
        self.wait(lambda: self.page.keyboard.press(key))

    @property
    def selected(self) -> str:
        return self.page.inner_text("#workspace .id")


def an_object(context: EditorContext) -> tuple[int, np.ndarray]:
    """An instance of the first sample that has clusters, and its pixels."""
    document = context.sample(0)
    id = next(id for id, label in document.classes.items() if id >= 1000 and label in context.bank.clusters)
    return id, document.mask(id)
