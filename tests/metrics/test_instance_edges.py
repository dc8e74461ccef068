"""Edges between touching objects of one class, against pictures whose edges are known."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from hdgan.metrics.instance_edges import InstanceEdges

HEIGHT, WIDTH = 24, 32
BORDER = 16
"""The first column of the second object."""


@pytest.fixture
def maps() -> tuple[Tensor, Tensor]:
    """Two objects of class 1 side by side, above a ground of class 0."""
    label = torch.zeros(1, HEIGHT, WIDTH, dtype=torch.uint8)
    label[:, :16, 4:28] = 1
    ids = label.int()
    ids[:, :16, BORDER:28] *= 2
    return label, ids


def picture(left: float, right: float, line: float | None = None) -> Tensor:
    """The objects in two greys, with a dark line between them."""
    image = torch.zeros(1, 3, HEIGHT, WIDTH)
    image[..., :BORDER] = left
    image[..., BORDER:] = right
    if line is not None:
        image[..., BORDER : BORDER + 1] = line
    return image


def score(image: Tensor, photo: Tensor, maps: tuple[Tensor, Tensor], dontcare: int | None = None) -> float | None:
    edges = InstanceEdges(dontcare)
    edges.add(edges.measure(image, photo, *maps))
    return edges.score()


def test_edges_are_relative_to_those_of_the_photo(maps: tuple[Tensor, Tensor]) -> None:
    photo = picture(0.2, 0.6)
    assert score(photo, photo, maps) == 1
    assert score(picture(0.2, 0.3), photo, maps) == pytest.approx(0.25)
    assert score(picture(0.4, 0.4), photo, maps) == 0


def test_an_outline_is_an_edge(maps: tuple[Tensor, Tensor]) -> None:
    assert score(picture(0.5, 0.5, line=0.3), picture(0.2, 0.6), maps) == pytest.approx(2 * 0.2 / 0.4)


def test_a_soft_step_counts_like_a_sharp_one(maps: tuple[Tensor, Tensor]) -> None:
    soft = picture(0.2, 0.6)
    soft[..., BORDER - 1], soft[..., BORDER] = 0.3, 0.5
    assert score(soft, picture(0.2, 0.6), maps) == pytest.approx(1)


def test_texture_and_noise_are_no_edges(maps: tuple[Tensor, Tensor]) -> None:
    photo = picture(0.2, 0.6)
    stripes = torch.arange(WIDTH) % 2 * 0.1
    assert score(picture(0.4, 0.4) + stripes, photo, maps) == pytest.approx(0, abs=1e-6)
    tall = [one.repeat(1, 100, 1) for one in maps]
    noise = 0.1 * torch.rand(1, 3, 100 * HEIGHT, WIDTH, generator=torch.Generator().manual_seed(0))
    noisy = picture(0.4, 0.4).repeat(1, 1, 100, 1) + noise
    assert score(noisy, photo.repeat(1, 1, 100, 1), (tall[0], tall[1])) == pytest.approx(0, abs=0.01)


def test_both_directions_count_alike(maps: tuple[Tensor, Tensor]) -> None:
    label, ids = maps
    image, photo = picture(0.2, 0.3), picture(0.2, 0.6)
    assert score(image.mT, photo.mT, (label.mT, ids.mT)) == score(image, photo, maps)


def test_only_boundaries_within_a_class_count(maps: tuple[Tensor, Tensor]) -> None:
    """The label map tells those between classes; pixels without a class have no objects."""
    label, ids = maps
    image, photo = picture(0.2, 0.3), picture(0.2, 0.6)
    different = label.clone()
    different[..., BORDER:] *= 2
    assert score(image, photo, (different, ids)) is None
    assert score(image, photo, (label, label.int())) is None
    assert score(image, photo, maps, dontcare=1) is None
    assert score(image, photo, maps, dontcare=0) == pytest.approx(0.25)


def test_photos_without_edges_are_no_reference(maps: tuple[Tensor, Tensor]) -> None:
    assert score(picture(0.2, 0.3), picture(0.4, 0.4), maps) is None


def test_every_row_of_pixels_counts_alike(maps: tuple[Tensor, Tensor]) -> None:
    label, ids = maps
    lower, edges = ids.clone(), InstanceEdges(None)
    lower[:, 4:] = 0
    photo = picture(0.2, 0.6)
    edges.add(edges.measure(picture(0.2, 0.6), photo, label, ids))
    edges.add(edges.measure(picture(0.4, 0.4), photo, label, lower))
    assert edges.score() == pytest.approx(16 / 20)


def test_images_narrower_than_a_row_have_none() -> None:
    tiny = torch.zeros(1, 3, 2, 3)
    assert score(tiny, tiny, (torch.ones(1, 2, 3), torch.arange(6).view(1, 2, 3))) is None
