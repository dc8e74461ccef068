"""Pictures of documents, made one at a time and kept for a while."""

from __future__ import annotations

import hashlib
import json
import threading
from collections import OrderedDict

import numpy as np

from hdgan.data.colors import to_image
from hdgan.editor.document import Document
from hdgan.inference import Pipeline

KEPT_PIXELS = 64 * 2**20
"""Pixels of all pictures that are kept: as many as 32 pictures of 2048x1024."""


class Renderer:
    """Makes pictures of documents; what was made a short time ago, as before an undo, is not made again.

    The pictures are found by the document's content, so sessions may share a renderer. Threads may too.
    """

    def __init__(self, pipeline: Pipeline) -> None:
        self.pipeline = pipeline
        self._made: OrderedDict[bytes, np.ndarray] = OrderedDict()
        self._lock = threading.Lock()

    def picture(self, document: Document) -> np.ndarray:
        """The picture of a document, [H, W, 3] uint8.

        Raises:
            DataError, ConfigError, CheckpointError: as the pipeline.
        """
        key = _digest(document)
        with self._lock:
            if key not in self._made:
                self._made[key] = self._make(document)
                while sum(kept.size // 3 for kept in self._made.values()) > KEPT_PIXELS and len(self._made) > 1:
                    self._made.popitem(last=False)
            self._made.move_to_end(key)
            return self._made[key]

    def _make(self, document: Document) -> np.ndarray:
        styles = document.styles if self.pipeline.config.feature_channels else None
        picture = self.pipeline(document.label, document.ids, styles=styles, seed=0)
        return np.asarray(to_image(picture * 2 - 1).convert("RGB"))


def _digest(document: Document) -> bytes:
    """Of everything that the picture depends on."""
    digest = hashlib.blake2b(str(document.label.shape).encode(), digest_size=16)
    for values in (document.label, document.ids):
        digest.update(np.ascontiguousarray(values).data)
    digest.update(json.dumps(document.styles.to_plain(), sort_keys=True).encode())
    return digest.digest()
