"""Label maps in colours."""

from __future__ import annotations

import numpy as np

from hdgan.data.colors import colorize_labels, label_palette
from hdgan.data.spec import DatasetSpec, class_name


def test_labels_that_are_no_classes_are_black() -> None:
    palette = np.array([[10, 20, 30], [40, 50, 60]], np.uint8)
    image = np.asarray(colorize_labels(np.array([[0, 1, 2, 255, -1]], np.int32), palette))
    assert image.tolist() == [[[10, 20, 30], [40, 50, 60], [0, 0, 0], [0, 0, 0], [0, 0, 0]]]


def test_without_a_palette_every_label_has_a_colour() -> None:
    image = np.asarray(colorize_labels(np.array([[1, 255]], np.uint8)))
    assert np.array_equal(image, label_palette(256)[[[1, 255]]])


def test_classes_without_names_have_their_number() -> None:
    spec = DatasetSpec.of_colors(["road"], [(128, 64, 128)])
    assert [class_name(spec, 0), class_name(spec, 1), class_name(None, 0)] == ["road", "class 1", "class 0"]
    assert spec.css_colors == ("#804080",)
