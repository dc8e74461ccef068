"""The scene that is edited, as plain data: a label map, an instance map, and a style for each instance.

A document never changes. Every operation returns a new one, which shares its unchanged parts with the old one. An
operation without effect returns the document itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from scipy.ndimage import distance_transform_edt, find_objects, shift

from hdgan.errors import ConfigError, DataError
from hdgan.ops import instance_index
from hdgan.styles import Style, Styles
from hdgan.styles.table import classes_of

_INT32 = np.iinfo(np.int32)


@dataclass(frozen=True, eq=False)
class Document:
    """What an image is generated from. `Document.of` makes one; its arrays are read-only."""

    label: np.ndarray
    """[H, W] int32."""
    ids: np.ndarray
    """[H, W] int32. Without an instance map these are the labels: each class is one instance."""
    classes: Mapping[int, int]
    """Class of every instance by id: the label of most of its pixels, as in `Pipeline.instances`."""
    styles: Styles = field(default_factory=Styles)
    """Styles of the instances; an instance without one has the mean style of its class."""
    divisor: int = 1000
    """New ids of class c are c * divisor, c * divisor + 1, …: the rule of Cityscapes."""

    @staticmethod
    def of(
        label: np.ndarray, ids: np.ndarray | None = None, styles: Styles | None = None, divisor: int = 1000
    ) -> Document:
        """Make a document of integer maps [H, W].

        Raises:
            DataError: the maps differ in size or are empty.
        """
        ids = label if ids is None else ids
        if label.ndim != 2 or label.size == 0 or ids.shape != label.shape:
            raise DataError(
                f"the label map has shape {label.shape} and the instance map {ids.shape}: give two maps [H, W] of the "
                "same size"
            )
        label, ids = _frozen(label), _frozen(ids)
        return Document(label, ids, _classes(label, ids, divisor), divisor=divisor).restyled(styles or Styles())

    @property
    def size(self) -> tuple[int, int]:
        """Width and height."""
        return self.label.shape[1], self.label.shape[0]

    def at(self, x: int, y: int) -> int:
        """Id of the instance at a pixel. A point outside the map is moved to its border."""
        width, height = self.size
        return int(self.ids[min(max(y, 0), height - 1), min(max(x, 0), width - 1)])

    def mask(self, id: int) -> np.ndarray:
        """The pixels of an instance, [H, W] bool."""
        return self.ids == id

    def fill(self, mask: np.ndarray) -> Document:
        """Fill an area from its surroundings: each pixel takes label and id of the nearest pixel outside.

        Args:
            mask: [H, W] bool.

        Raises:
            ConfigError: the area is the whole map.
        """
        if not mask.any():
            return self
        if mask.all():
            raise ConfigError("this is the only object, so nothing can fill its place: paint another one first")
        # The nearest pixel outside touches the area, so a margin of one pixel contains it.
        box = bounding_box(mask, margin=1)
        nearest = distance_transform_edt(mask[box], return_distances=False, return_indices=True)
        label, ids = self.label.copy(), self.ids.copy()
        label[box], ids[box] = (values[box][tuple(nearest)] for values in (self.label, self.ids))
        return self._with_maps(label, ids)

    def remove(self, id: int) -> Document:
        """Remove an instance and fill its place from its surroundings.

        Raises:
            ConfigError: there is no such instance, or it is the only one.
        """
        self._require(id)
        return self.fill(self.mask(id))

    def paint(self, mask: np.ndarray, label: int, style: Style | None = None) -> tuple[Document, int]:
        """Add a new instance on top of the others.

        Args:
            mask: [H, W] bool, its pixels.
            label: its class.
            style: its style; None for the mean style of the class.

        Returns:
            The document, and the id of the new instance.

        Raises:
            ConfigError: the mask is empty.
        """
        id = self.new_id(label)
        return self._pasted(mask, id, label, style), id

    def extend(self, mask: np.ndarray, id: int) -> Document:
        """Add an area to an instance.

        Raises:
            ConfigError: there is no such instance, or the mask is empty.
        """
        self._require(id)
        return self._pasted(mask, id, self.classes[id], self.styles.instances.get(id))

    def copy(self, id: int, dx: int, dy: int) -> tuple[Document, int]:
        """Add a shifted copy of an instance, with its labels and its style.

        Args:
            id: the original.
            dx, dy: pixels to the right and down.

        Returns:
            The document, and the id of the copy.

        Raises:
            ConfigError: there is no such instance, or the copy would lie outside the image.
        """
        self._require(id)
        new = self.new_id(self.classes[id])
        return self._shifted_onto(self, id, new, dx, dy), new

    def move(self, id: int, dx: int, dy: int) -> Document:
        """Move an instance and fill its old place from its surroundings.

        Raises:
            ConfigError: there is no such instance, it would lie outside the image, or it is the only one.
        """
        self._require(id)
        return self._shifted_onto(self.remove(id), id, id, dx, dy) if dx or dy else self

    def with_class(self, id: int, label: int) -> tuple[Document, int]:
        """Change the class of an instance, which gets a new id and no style.

        Returns:
            The document, and the new id.

        Raises:
            ConfigError: there is no such instance.
        """
        self._require(id)
        if self.classes[id] == label:
            return self, id
        return self.paint(self.mask(id), label)

    def with_style(self, id: int, style: Style | None) -> Document:
        """Set the style of an instance; None is the mean style of its class.

        Raises:
            ConfigError: there is no such instance.
        """
        self._require(id)
        others = {other: kept for other, kept in self.styles.instances.items() if other != id}
        return self.restyled(replace(self.styles, instances=others if style is None else {**others, id: style}))

    def restyled(self, styles: Styles) -> Document:
        """The same maps with other styles. Those of unknown ids are dropped: a new instance could get such an id."""
        known = {id: style for id, style in styles.instances.items() if id in self.classes}
        styles = replace(styles, instances=known)
        return self if styles == self.styles else replace(self, styles=styles)

    def new_id(self, label: int) -> int:
        """An unused id: the next one of the class, or one above all ids if the class has none left."""
        # Ids below the divisor are classes, so class 0 has no ids of its own.
        candidates = range(label * self.divisor, (label + 1) * self.divisor) if label > 0 else range(0)
        free = next((id for id in candidates if id not in self.classes), None)
        id = max(*self.classes, *self.classes.values(), self.divisor) + 1 if free is None else free
        if id > _INT32.max:
            raise ConfigError(f"the next instance id would be {id}, above 32 bits: renumber the instance map")
        return id

    def _shifted_onto(self, target: Document, id: int, new: int, dx: int, dy: int) -> Document:
        """Paste an instance of this document, shifted, into another document as the instance `new`."""
        mask, labels = (shift(values, (dy, dx), order=0) for values in (self.mask(id), self.label))
        return target._pasted(mask, new, labels[mask], self.styles.instances.get(id))

    def _pasted(self, mask: np.ndarray, id: int, label: int | np.ndarray, style: Style | None) -> Document:
        if not mask.any():
            raise ConfigError("this would lie outside the image: draw it inside, or move it less far")
        labels, ids = self.label.copy(), self.ids.copy()
        labels[mask], ids[mask] = label, id
        document = self._with_maps(labels, ids)
        # An object of several labels can change its class when the border of the image cuts it.
        fits = style is not None and style.label == document.classes[id]
        return document.with_style(id, style if fits else None)

    def _with_maps(self, label: np.ndarray, ids: np.ndarray) -> Document:
        """Replace the maps, and drop the styles of instances that are gone or have changed their class."""
        if np.array_equal(label, self.label) and np.array_equal(ids, self.ids):
            return self
        label, ids = _frozen(label), _frozen(ids)
        classes = _classes(label, ids, self.divisor)
        kept = {id: style for id, style in self.styles.instances.items() if classes.get(id) == self.classes[id]}
        return replace(self, label=label, ids=ids, classes=classes, styles=replace(self.styles, instances=kept))

    def _require(self, id: int) -> None:
        if id not in self.classes:
            raise ConfigError(f"object {id} no longer exists: click another one")


def bounding_box(mask: np.ndarray, margin: int = 0) -> tuple[slice, ...]:
    """Rows and columns of the bounding box of a mask that is not empty, enlarged by a margin."""
    (box,) = find_objects(mask.view(np.int8))
    return tuple(slice(max(side.start - margin, 0), side.stop + margin) for side in box)


def _frozen(values: np.ndarray) -> np.ndarray:
    if values.dtype != np.int32 or values.flags.writeable:
        values = values.astype(np.int32)
        values.flags.writeable = False
    return values


def _classes(label: np.ndarray, ids: np.ndarray, divisor: int) -> dict[int, int]:
    index = instance_index(torch.tensor(ids[None]))
    labels = classes_of(index, torch.tensor(label[None]), divisor)
    return dict(zip(index.ids.tolist(), labels.tolist(), strict=True))
