"""What one street scene holds: ids that obey the rule, records that match them, styles that can be told apart."""

from __future__ import annotations

import numpy as np
import pytest

from hdgan.errors import ConfigError
from hdgan.scenes import SPEC, STYLES, Scene, render_scene

SKY, ROAD, PAVEMENT, BUILDING, TREE, CAR, PERSON = range(7)


# Of scenes 0, 1, 2 of seed 11 at 192x96: pixels of each class in per cent, and mean colour.
GOLDEN = (
    ((6.4, 31.9, 4.1, 40.1, 7.1, 8.2, 0.9, 0.7, 0.7), (140.0, 133.6, 131.5)),
    ((9.8, 30.3, 2.7, 31.4, 13.1, 10.7, 1.2, 0.0, 0.8), (130.7, 134.0, 127.3)),
    ((11.0, 32.3, 3.2, 25.5, 11.0, 15.1, 0.7, 0.6, 0.6), (134.9, 136.2, 136.5)),
)


@pytest.fixture(scope="module")
def scenes() -> list[Scene]:
    return [render_scene(0, "train", index, 192, 96) for index in range(36)]


def relative_colours(scenes: list[Scene], label: int, least: int) -> dict[str, np.ndarray]:
    """Mean colours [n, 3] of a class's instances of at least `least` pixels over that of their photo, by style."""
    colours: dict[str, list[np.ndarray]] = {}
    for scene in scenes:
        for instance in scene.instances:
            if instance.label == label and instance.area >= least:
                colour = scene.photo[scene.ids == instance.id].mean(0) / scene.photo.mean((0, 1))
                colours.setdefault(instance.style, []).append(colour)
    return {style: np.array(values) for style, values in colours.items()}


def test_same_scene_twice(scenes):
    again = render_scene(0, "train", 5, 192, 96)
    np.testing.assert_array_equal(again.photo, scenes[5].photo)
    np.testing.assert_array_equal(again.ids, scenes[5].ids)
    assert again.instances == scenes[5].instances


@pytest.mark.parametrize("index", range(len(GOLDEN)))
def test_scenes_look_as_ever(index):
    """Coarse, so that another numpy or Pillow passes: caches made before a change of the scenes must not be reused."""
    scene = render_scene(11, "train", index, 192, 96)
    shares = 100 * np.bincount(scene.label.ravel(), minlength=SPEC.n_labels) / scene.label.size
    expected_shares, expected_colour = GOLDEN[index]
    message = "the scenes have changed: raise VERSION in hdgan/scenes/dataset.py and record GOLDEN anew"
    np.testing.assert_allclose(shares, expected_shares, atol=0.3, err_msg=message)
    np.testing.assert_allclose(scene.photo.mean((0, 1)), expected_colour, atol=1.0, err_msg=message)


@pytest.mark.parametrize("key", [(1, "train", 5), (0, "test", 5), (0, "train", 6)], ids=["seed", "split", "index"])
def test_other_scene(scenes, key):
    assert (render_scene(*key, 192, 96).ids != scenes[5].ids).mean() > 0.05


def test_arrays(scenes):
    for scene in scenes:
        assert scene.label.shape == scene.ids.shape == (96, 192)
        assert scene.photo.shape == (96, 192, 3)
        assert (scene.label.dtype, scene.ids.dtype, scene.photo.dtype) == (np.uint8, np.int32, np.uint8)


def test_ids_follow_the_rule_of_cityscapes(scenes):
    for scene in scenes:
        np.testing.assert_array_equal(scene.label, np.where(scene.ids < 1000, scene.ids, scene.ids // 1000))
        objects = np.isin(
            scene.label, [SPEC.classes.index(name) for name in ("building", "tree", "car", "person", "pole")]
        )
        np.testing.assert_array_equal(scene.ids >= 1000, objects)


def test_instances_match_the_map(scenes):
    for scene in scenes:
        ids, areas = np.unique(scene.ids, return_counts=True)
        assert [(instance.id, instance.area) for instance in scene.instances] == list(
            zip(ids.tolist(), areas.tolist(), strict=True)
        )
        for instance in scene.instances:
            known = {(style.name, style.texture) for style in STYLES[instance.label]}
            assert (instance.style, instance.texture) in known
            assert instance.name == SPEC.classes[instance.label]


def test_every_scene_is_a_street(scenes):
    shown = np.array([[(scene.label == label).any() for label in range(SPEC.n_labels)] for scene in scenes])
    assert shown[:, [SKY, ROAD, PAVEMENT, BUILDING]].all()
    assert (shown[:, [TREE, CAR, PERSON]].mean(0) > 0.8).all()


def test_sky_is_above_the_road(scenes):
    rows = np.arange(96)[:, None]
    for scene in scenes:
        assert (rows * (scene.label == SKY)).max() < (rows + 1000 * (scene.label != ROAD)).min() + 8


def test_objects_are_not_rectangles(scenes):
    fills: dict[int, list[float]] = {TREE: [], CAR: [], PERSON: []}
    for scene in scenes:
        for instance in scene.instances:
            if instance.label in fills and instance.area > 60:
                rows, columns = np.nonzero(scene.ids == instance.id)
                fills[instance.label].append(instance.area / (np.ptp(rows) + 1) / (np.ptp(columns) + 1))
    for label, fill in fills.items():
        assert np.mean(fill) < 0.85, SPEC.classes[label]


def test_styles_are_spread_evenly(scenes):
    for label in (BUILDING, TREE, CAR, PERSON):
        styles = [i.style for scene in scenes for i in scene.instances if i.label == label]
        share = np.array([styles.count(style.name) for style in STYLES[label]]) / len(styles)
        assert share.min() > 0.5 / len(STYLES[label])
        assert share.max() < 1.6 / len(STYLES[label])


@pytest.mark.parametrize(("label", "accuracy"), [(CAR, 0.7), (TREE, 0.75)], ids=["car", "tree"])
def test_styles_can_be_told_from_the_photo(scenes, label, accuracy):
    """The nearest centre of a style in colour is mostly the instance's own, though cars have dark panes and tyres."""
    colours = relative_colours(scenes, label, least=250)
    centres = np.array([values.mean(0) for values in colours.values()])
    hits = [
        np.linalg.norm(centres - colour, axis=1).argmin() == index
        for index, values in enumerate(colours.values())
        for colour in values
    ]
    assert np.mean(hits) > accuracy


def test_style_colours_are_far_apart():
    for styles in STYLES:
        colours = np.array([style.colour for style in styles], float)
        apart = np.linalg.norm(colours[:, None] - colours[None], axis=-1)
        assert apart[~np.eye(len(styles), dtype=bool)].min() > 30
        assert len({style.name for style in styles}) == len(styles)


def test_records_name_the_colour_of_the_style(scenes):
    for instance in scenes[0].instances:
        style = next(style for style in STYLES[instance.label] if style.name == instance.style)
        assert np.abs(np.subtract(instance.colour, style.colour)).max() <= 0.1 * 255


def test_larger_picture_shows_the_same_scene(scenes):
    large = render_scene(0, "train", 3, 576, 288)
    assert (large.ids[1::3, 1::3] == scenes[3].ids).mean() > 0.95
    assert np.abs(large.photo[1::3, 1::3].mean((0, 1)) - scenes[3].photo.mean((0, 1))).max() < 4
    styles = {instance.id: instance.style for instance in large.instances}
    assert all(styles[i.id] == i.style for i in scenes[3].instances if i.area > 4)


@pytest.mark.parametrize(("width", "height"), [(16, 16), (33, 17), (301, 47), (64, 150)])
def test_any_size(width, height):
    scene = render_scene(2, "train", 0, width, height)
    assert scene.photo.shape == (height, width, 3)
    assert sum(instance.area for instance in scene.instances) == width * height


def test_palette_is_clear():
    assert SPEC.palette.shape == (SPEC.n_labels, 3)
    assert SPEC.palette.dtype == np.uint8
    apart = np.linalg.norm(SPEC.palette[:, None].astype(float) - SPEC.palette[None], axis=-1)
    assert apart[~np.eye(SPEC.n_labels, dtype=bool)].min() > 40


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0, "train", 0, 8, 128), "width is 8: give a whole number from 16 to 4096"),
        ((0, "train", 0, 256, 100_000), "height is 100000"),
        ((-1, "train", 0, 256, 128), "seed is -1"),
        ((0, "train", -2, 256, 128), "index is -2"),
    ],
)
def test_impossible_scene(arguments, message):
    with pytest.raises(ConfigError, match=message):
        render_scene(*arguments)
