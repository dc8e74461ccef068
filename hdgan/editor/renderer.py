"""Images of documents, generated one at a time and cached."""

from __future__ import annotations

import hashlib
import json
from collections import OrderedDict

import numpy as np

from hdgan.data.colors import to_image
from hdgan.editor.document import Document
from hdgan.inference import Pipeline

CACHE_PIXELS = 64 * 2**20
"""Pixels of all cached images: those of 32 images of 2048x1024."""


class Renderer:
    """Generates the images of documents. Recent images are cached, so that undo does not generate them again.

    Images are found by the content of the document, so sessions can share a renderer. Threads have to take turns, as
    `SessionStore` lets them.

    Args:
        pipeline: the model.
    """

    def __init__(self, pipeline: Pipeline) -> None:
        self.pipeline = pipeline
        self._cache: OrderedDict[bytes, np.ndarray] = OrderedDict()

    def render(self, document: Document) -> np.ndarray:
        """The image of a document, [H, W, 3] uint8.

        Raises:
            DataError, ConfigError, CheckpointError: as `Pipeline`.
        """
        key = _digest(document)
        if key not in self._cache:
            self._cache[key] = self._generate(document)
            while sum(image.size // 3 for image in self._cache.values()) > CACHE_PIXELS and len(self._cache) > 1:
                self._cache.popitem(last=False)
        self._cache.move_to_end(key)
        return self._cache[key]

    def _generate(self, document: Document) -> np.ndarray:
        styles = document.styles if self.pipeline.config.feature_channels else None
        image = self.pipeline(document.label, document.ids, styles=styles, seed=0)
        return np.asarray(to_image(image * 2 - 1).convert("RGB"))


def _digest(document: Document) -> bytes:
    """A hash of everything that the image depends on."""
    digest = hashlib.blake2b(str(document.label.shape).encode(), digest_size=16)
    for values in (document.label, document.ids):
        digest.update(np.ascontiguousarray(values).data)
    digest.update(json.dumps(document.styles.to_plain(), sort_keys=True).encode())
    return digest.digest()
