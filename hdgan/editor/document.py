"""The picture that is edited, as plain data: a label map, an instance map, and a style for each instance.

A document never changes; every operation returns a new one, which shares what it has left alone. One that changes
nothing returns the document itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from scipy.ndimage import distance_transform_edt

from hdgan.errors import ConfigError, DataError
from hdgan.ops import instance_index
from hdgan.styles import Style, Styles
from hdgan.styles.table import classes_of

_INT32 = np.iinfo(np.int32)


@dataclass(frozen=True, eq=False)
class Document:
    """What a picture is made from.

    Made by `Document.of`; the arrays are read-only.
    """

    label: np.ndarray
    """[H, W] int32."""
    ids: np.ndarray
    """[H, W] int32. Without an instance map these are the labels: each class is one instance."""
    classes: Mapping[int, int]
    """Class of every instance by id: the label that most of it has, as in `Pipeline.instances`."""
    styles: Styles = field(default_factory=Styles)
    """Of the instances; one without has the mean style of its class."""
    divisor: int = 1000
    """New ids of class c are c * divisor, c * divisor + 1, …: Cityscapes' rule."""

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
                f"the label map has shape {label.shape}, the instance map {ids.shape}: give two of one size, [H, W]"
            )
        label, ids = _frozen(label), _frozen(ids)
        return Document(label, ids, _classes(label, ids, divisor), divisor=divisor).restyled(styles or Styles())

    @property
    def size(self) -> tuple[int, int]:
        """Width and height."""
        return self.label.shape[1], self.label.shape[0]

    def at(self, x: int, y: int) -> int:
        """Id of the instance at a pixel; a point beyond the border counts as on it."""
        width, height = self.size
        return int(self.ids[min(max(y, 0), height - 1), min(max(x, 0), width - 1)])

    def mask(self, id: int) -> np.ndarray:
        """[H, W] bool, the pixels of an instance."""
        return self.ids == id

    def fill(self, mask: np.ndarray) -> Document:
        """Let what surrounds an area grow into it: each of its pixels takes label and id of the nearest one outside.

        Args:
            mask: [H, W] bool.

        Raises:
            ConfigError: nothing lies outside.
        """
        if not mask.any():
            return self
        if mask.all():
            raise ConfigError("this is the only object, so nothing is left to fill its place: paint another one first")
        # The nearest pixel outside touches the area, so one pixel more on each side holds it.
        box = box_of(mask, margin=1)
        nearest = distance_transform_edt(mask[box], return_distances=False, return_indices=True)
        label, ids = self.label.copy(), self.ids.copy()
        label[box], ids[box] = (values[box][tuple(nearest)] for values in (self.label, self.ids))
        return self._with_maps(label, ids)

    def remove(self, id: int) -> Document:
        """Take an instance away and fill its place by its surroundings.

        Raises:
            ConfigError: there is no such instance, or it is the only one.
        """
        self._require(id)
        return self.fill(self.mask(id))

    def paint(self, mask: np.ndarray, label: int, style: Style | None = None) -> tuple[Document, int]:
        """Put a new instance on top.

        Args:
            mask: [H, W] bool, its pixels.
            label: its class.
            style: of it; None for the mean of the class.

        Returns:
            The document, and the id of the new instance.

        Raises:
            ConfigError: no pixel of it lies in the picture.
        """
        if not mask.any():
            raise ConfigError("nothing of the new object lies in the picture: draw it inside")
        id = self.new_id(label)
        return self._pasted(mask, id, label, style), id

    def extend(self, mask: np.ndarray, id: int) -> Document:
        """Add an area to an instance.

        Raises:
            ConfigError: there is no such instance, or no pixel of the area lies in the picture.
        """
        self._require(id)
        if not mask.any():
            raise ConfigError("nothing of the addition lies in the picture: draw it inside")
        return self._pasted(mask, id, self.classes[id], self.styles.instances.get(id))

    def copy(self, id: int, dx: int, dy: int) -> tuple[Document, int]:
        """Put a copy of an instance elsewhere, with its labels and its style.

        Args:
            id: of the original.
            dx, dy: how far to the right and down.

        Returns:
            The document, and the id of the copy.

        Raises:
            ConfigError: there is no such instance, or the copy lies outside.
        """
        self._require(id)
        new = self.new_id(self.classes[id])
        return self._shifted_onto(self, id, new, dx, dy), new

    def move(self, id: int, dx: int, dy: int) -> Document:
        """Move an instance; its surroundings fill the place where it was.

        Raises:
            ConfigError: there is no such instance, it would lie outside, or it is the only one.
        """
        self._require(id)
        return self._shifted_onto(self.remove(id), id, id, dx, dy) if dx or dy else self

    def with_class(self, id: int, label: int) -> tuple[Document, int]:
        """Make an instance one of another class, under a new id and without style.

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
        """Give an instance a style; None gives it the mean of its class.

        Raises:
            ConfigError: there is no such instance.
        """
        self._require(id)
        others = {other: kept for other, kept in self.styles.instances.items() if other != id}
        return self.restyled(replace(self.styles, instances=others if style is None else {**others, id: style}))

    def restyled(self, styles: Styles) -> Document:
        """The same maps in other styles, but for those of ids that no instance has: a new one may get such an id."""
        there = {id: style for id, style in styles.instances.items() if id in self.classes}
        styles = replace(styles, instances=there)
        return self if styles == self.styles else replace(self, styles=styles)

    def new_id(self, label: int) -> int:
        """An id that no instance has: the next of the class, or where those are used up one beyond all ids."""
        # Below the divisor an id is a class, so class 0 has no ids of its own.
        candidates = range(label * self.divisor, (label + 1) * self.divisor) if label > 0 else range(0)
        free = next((id for id in candidates if id not in self.classes), None)
        beyond = max(*self.classes, *self.classes.values(), self.divisor) + 1
        id = beyond if free is None else free
        if id > _INT32.max:
            raise ConfigError(f"the next id would be {id}, beyond 32 bits: number the instance map anew")
        return id

    def _shifted_onto(self, ground: Document, id: int, new: int, dx: int, dy: int) -> Document:
        """Paste an instance of this document, shifted, onto another."""
        target, source = np.zeros(self.ids.shape, bool), self.mask(id)
        width, height = self.size
        to_y, from_y = _overlap(height, dy)
        to_x, from_x = _overlap(width, dx)
        target[to_y, to_x] = source[from_y, from_x]
        if not target.any():
            raise ConfigError("nothing of the object would lie in the picture: move it less far")
        labels = np.zeros_like(self.label)
        labels[to_y, to_x] = self.label[from_y, from_x]
        return ground._pasted(target, new, labels[target], self.styles.instances.get(id))

    def _pasted(self, mask: np.ndarray, id: int, label: int | np.ndarray, style: Style | None) -> Document:
        labels, ids = self.label.copy(), self.ids.copy()
        labels[mask], ids[mask] = label, id
        document = self._with_maps(labels, ids)
        # An object of several labels may become one of another class where the picture's border cuts it.
        fits = style is not None and style.label == document.classes[id]
        return document.with_style(id, style if fits else None)

    def _with_maps(self, label: np.ndarray, ids: np.ndarray) -> Document:
        """Other maps; styles of instances that are no longer there, or have become another class, go with them."""
        if np.array_equal(label, self.label) and np.array_equal(ids, self.ids):
            return self
        label, ids = _frozen(label), _frozen(ids)
        classes = _classes(label, ids, self.divisor)
        kept = {id: style for id, style in self.styles.instances.items() if classes.get(id) == self.classes[id]}
        return replace(self, label=label, ids=ids, classes=classes, styles=replace(self.styles, instances=kept))

    def _require(self, id: int) -> None:
        if id not in self.classes:
            raise ConfigError(f"there is no object {id} any more: click another one")


def box_of(mask: np.ndarray, margin: int = 0) -> tuple[slice, slice]:
    """Rows and columns of the bounding box of a mask that is not empty, and of a margin as far as the picture goes."""
    sides = (np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0)))
    rows, columns = (slice(max(int(side[0]) - margin, 0), int(side[-1]) + 1 + margin) for side in sides)
    return rows, columns


def _frozen(values: np.ndarray) -> np.ndarray:
    if values.dtype != np.int32 or values.flags.writeable:
        values = values.astype(np.int32)
        values.flags.writeable = False
    return values


def _classes(label: np.ndarray, ids: np.ndarray, divisor: int) -> dict[int, int]:
    index = instance_index(torch.tensor(ids[None]))
    labels = classes_of(index, torch.tensor(label[None]), divisor)
    return dict(zip(index.ids.tolist(), labels.tolist(), strict=True))


def _overlap(length: int, shift: int) -> tuple[slice, slice]:
    """Where a side that is shifted lands within itself, and what of it does."""
    return slice(max(shift, 0), max(length + min(shift, 0), 0)), slice(max(-shift, 0), max(length - max(shift, 0), 0))
