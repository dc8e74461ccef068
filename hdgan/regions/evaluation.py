"""The pixels of a region: what it depends on is found first, and then computed, each node once."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from torch import Tensor

from hdgan.regions.boxes import Box
from hdgan.regions.nodes import Node


def evaluate(node: Node, box: Box) -> Tensor:
    """The pixels [B, …, H, W] of a box of an image.

    What is held is read; all else is computed from it. Results are freed as soon as nothing needs them any more.
    """
    order = _below(node, lambda n: n.held is not None)
    wanted = _wanted(order, {node: box})
    users = _users(order)
    values: dict[Node, Tensor] = {}
    for n in order:
        place = wanted[n]
        if n.held is not None:
            values[n] = n.held.read(place)
            continue
        boxes = n.reads(place)
        inputs = [_crop(values[i], wanted[i], b) for i, b in zip(n.inputs, boxes, strict=True)]
        values[n] = n.compute(place, inputs, boxes)
        del inputs
        for i in n.inputs:
            users[i] -= 1
            if not users[i]:
                del values[i]
    return values[node]


class RegionChanges:
    """What becomes of an image after its sources were changed in some boxes, while all statistics stay as they were.

    Of features that were kept, only what the changes reach is computed again, and of that only what the
    asked region depends on.

    Args:
        node: the image, made by a run with `keep_features`.
    """

    def __init__(self, node: Node) -> None:
        self._node = node
        self._order = _below(node, lambda n: False)
        self._sources: dict[Node, Box] = {}
        self._reached: dict[Node, Box] = {}

    def add(self, source: Node, box: Box) -> None:
        """Say that the pixels which a source holds now are others in a box than those of the run."""
        self._sources[source] = self._sources.get(source, _NOTHING).hull(box)
        self._reached = dict(self._sources)
        for n in self._order:
            for k, i in enumerate(n.inputs):
                if self._reached[i].area:
                    self._reached[n] = self._reached.get(n, _NOTHING).hull(n.writes(k, self._reached[i]))
            self._reached.setdefault(n, _NOTHING)

    @property
    def reached(self) -> Box:
        """The part of the image that may be another now, statistics aside."""
        return self._reached.get(self._node, _NOTHING)

    def evaluate(self, box: Box) -> Tensor:
        """The pixels of a box of the image."""
        wanted = {self._node: box}
        for n in reversed(self._order):
            if n in wanted and self._computed(n, wanted[n]).area:
                for i, part in zip(n.inputs, n.reads(self._computed(n, wanted[n])), strict=True):
                    wanted[i] = wanted[i].hull(part) if i in wanted else part
        values: dict[Node, Tensor] = {}
        for n in self._order:
            if n not in wanted:
                continue
            place, part = wanted[n], self._computed(n, wanted[n])
            if n.held is not None:
                values[n] = n.held.read(place)
            if part.area:
                boxes = n.reads(part)
                made = n.compute(
                    part, [_crop(values[i], wanted[i], b) for i, b in zip(n.inputs, boxes, strict=True)], boxes
                )
                values[n] = made if part == place else _pasted(values[n], place, made, part)
        return values[self._node]

    def _computed(self, n: Node, place: Box) -> Box:
        """The part of a box that has to be computed: all of what is not kept, else where it has changed."""
        if not n.inputs:
            return _NOTHING
        return place if n.held is None else place.within(self._reached[n])


_NOTHING = Box(0, 0, 0, 0)


def _pasted(pixels: Tensor, place: Box, made: Tensor, part: Box) -> Tensor:
    rows, columns = part.slices(place)
    pixels = pixels.clone()
    pixels[..., rows, columns] = made
    return pixels


def working_bytes(node: Node, box: Box) -> int:
    """Memory that `evaluate` takes at most: of all that a box depends on, as if nothing was freed."""
    order = _below(node, lambda n: n.held is not None)
    return sum(n.bytes(place) for n, place in _wanted(order, {node: box}).items())


def sources_of(node: Node) -> list[Node]:
    """The images that are held from which a node is computed."""
    return [n for n in _below(node, lambda n: n.held is not None) if n.held is not None]


def _below(node: Node, stop: Callable[[Node], bool]) -> list[Node]:
    """A node and all that it is computed from, each after its inputs; inputs of one that stops are left out."""
    order: list[Node] = []
    seen: set[Node] = set()
    stack: list[tuple[Node, bool]] = [(node, False)]
    while stack:
        n, ready = stack.pop()
        if ready:
            order.append(n)
        elif n not in seen:
            seen.add(n)
            stack.append((n, True))
            if not stop(n):
                stack += [(i, False) for i in n.inputs]
    return order


def _wanted(order: list[Node], boxes: Mapping[Node, Box]) -> dict[Node, Box]:
    """The box that is needed of each node."""
    wanted = dict(boxes)
    for n in reversed(order):
        if n.held is None:
            for i, box in zip(n.inputs, n.reads(wanted[n]), strict=True):
                wanted[i] = wanted[i].hull(box) if i in wanted else box
    return wanted


def _users(order: list[Node]) -> dict[Node, int]:
    users = dict.fromkeys(order, 0)
    for n in order:
        if n.held is None:
            for i in n.inputs:
                users[i] += 1
    return users


def _crop(value: Tensor, has: Box, box: Box) -> Tensor:
    if has == box:
        return value
    rows, columns = box.slices(has)
    return value[..., rows, columns]
