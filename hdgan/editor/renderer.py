"""Images of documents, generated one at a time and cached."""

from __future__ import annotations

import hashlib
import json
from collections import OrderedDict
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from torch import Tensor

from hdgan.data.colors import to_image
from hdgan.editor.document import Document
from hdgan.errors import ConfigError
from hdgan.inference import Pipeline
from hdgan.inference.preview import Preview
from hdgan.styles import Styles

CACHE_PIXELS = 64 * 2**20
"""Pixels of all cached images: those of 32 images of 2048x1024."""
MOST_SHARE = 0.25
"""Of an image that a preview may compute. The whole takes little longer than more of it."""


class Shown(NamedTuple):
    """An image of a document.

    Attributes:
        image: [H, W, 3] uint8.
        exact: whether all of it was generated; otherwise it is a preview.
    """

    image: np.ndarray
    exact: bool


class Renderer:
    """Generates the images of documents. Recent images are cached, so that undo does not generate them again.

    Images are found by the content of the document, so sessions can share a renderer. Threads have to take turns, as
    `SessionStore` lets them.

    Args:
        pipeline: the model.
        preview: shows edits of the image that was generated last; None for images without previews.
    """

    def __init__(self, pipeline: Pipeline, preview: Preview | None = None) -> None:
        self.pipeline = pipeline
        self._preview = preview
        self._recorded: np.ndarray | None = None
        """The image that `preview` has recorded."""
        self._cache: OrderedDict[bytes, Shown] = OrderedDict()

    def render(self, document: Document, check: Callable[[], None] = lambda: None) -> np.ndarray:
        """The image of a document, [H, W, 3] uint8.

        Args:
            document: the document.
            check: called again and again while the image is generated, if edits of it can be shown. What it raises
                ends the call.

        Raises:
            DataError, ConfigError, CheckpointError: as `Pipeline`.
        """
        key = _digest(document)
        if key not in self._cache or not self._cache[key].exact:
            self._keep(key, Shown(self._generate(document, check), exact=True))
        self._cache.move_to_end(key)
        return self._cache[key].image

    def show(self, document: Document) -> Shown:
        """The image of a document as soon as there is one: a preview if the document is a small edit of the last one.

        Raises:
            DataError, ConfigError, CheckpointError: as `Pipeline`.
        """
        key = _digest(document)
        if key not in self._cache:
            previewed = self._previewed(document)
            if previewed is None:
                return Shown(self.render(document), exact=True)
            self._keep(key, Shown(previewed, exact=False))
        self._cache.move_to_end(key)
        return self._cache[key]

    def _keep(self, key: bytes, shown: Shown) -> None:
        self._cache[key] = shown
        self._cache.move_to_end(key)
        while sum(kept.image.size // 3 for kept in self._cache.values()) > CACHE_PIXELS and len(self._cache) > 1:
            self._cache.popitem(last=False)

    def _generate(self, document: Document, check: Callable[[], None]) -> np.ndarray:
        if self._preview is not None:
            try:
                image = self._preview.record(
                    document.label, document.ids, styles=self._styles(document), seed=0, check=check
                )
            except ConfigError:  # no previews of this model, or of so large an image; or an error that comes again
                pass
            else:
                self._recorded = _pixels(image)
                return self._recorded
        return _pixels(self.pipeline(document.label, document.ids, styles=self._styles(document), seed=0))

    def _previewed(self, document: Document) -> np.ndarray | None:
        """The recorded image with the regions that a document changes; None if it is no small edit of it."""
        if self._preview is None or self._recorded is None:
            return None
        edit = self._preview.edit(document.label, document.ids, styles=self._styles(document))
        if edit is None or edit.share > MOST_SHARE:
            return None
        image = self._recorded.copy()
        for box, pixels in edit.regions():
            image[slice(*box.rows), slice(*box.columns)] = _pixels(pixels)
        return image

    def _styles(self, document: Document) -> Styles | None:
        return document.styles if self.pipeline.config.feature_channels else None


def _pixels(image: Tensor) -> np.ndarray:
    """[C, H, W] in [0, 1] as [H, W, 3] uint8."""
    return np.asarray(to_image(image * 2 - 1).convert("RGB"))


def _digest(document: Document) -> bytes:
    """A hash of everything that the image depends on."""
    digest = hashlib.blake2b(str(document.label.shape).encode(), digest_size=16)
    for values in (document.label, document.ids):
        digest.update(np.ascontiguousarray(values).data)
    digest.update(json.dumps(document.styles.to_plain(), sort_keys=True).encode())
    return digest.digest()
