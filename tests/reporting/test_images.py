"""Images that are embedded in pages."""

from __future__ import annotations

import base64
import io

import numpy as np
import pytest
from PIL import Image

from hdgan.reporting.images import LOSSLESS_PIXELS, EmbeddedImage, data_url, embed


def noise(width: int, height: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 255, (height, width, 3), np.uint8))


def content(url: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2])))


@pytest.mark.parametrize(
    ("width", "is_map", "kind"),
    [(LOSSLESS_PIXELS, False, "PNG"), (LOSSLESS_PIXELS + 1, False, "JPEG"), (LOSSLESS_PIXELS + 1, True, "PNG")],
)
def test_maps_and_small_photos_are_exact(width: int, is_map: bool, kind: str) -> None:
    image = noise(width, 8)
    embedded = embed(image, "real", is_map)
    assert embedded == EmbeddedImage("real", embedded.url, width, 8, is_map, None)
    assert embedded.url.startswith(f"data:image/{kind.lower()};base64,")
    shown = content(embedded.url)
    assert shown.size == image.size
    assert np.array_equal(shown, image) == (kind == "PNG")


def test_a_large_image_is_reduced_and_its_size_kept() -> None:
    image = noise(100, 40)
    embedded = embed(image, "label", True, largest=50)
    assert (embedded.width, embedded.height, embedded.reduced) == (100, 40, (50, 20))
    shown = content(embedded.url)
    assert shown.size == (50, 20)
    colours = {tuple(colour) for colour in np.asarray(image).reshape(-1, 3).tolist()}
    assert {tuple(colour) for colour in np.asarray(shown).reshape(-1, 3).tolist()} <= colours  # no colour is a mixture
    assert image.size == (100, 40)
    assert embed(image, "label", True, largest=100).reduced is None


def test_options_of_the_writer_apply() -> None:
    image = noise(64, 64)
    assert len(data_url(image, "JPEG", quality=10)) < len(data_url(image, "JPEG", quality=90))
