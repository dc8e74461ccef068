from __future__ import annotations

import numpy as np
import pytest

from hdgan.editor.document import Document
from hdgan.errors import ConfigError, DataError
from hdgan.styles import Style, Styles

from .conftest import IDS, LABEL


def box(document: Document, rows: slice, columns: slice) -> np.ndarray:
    mask = np.zeros(document.label.shape, bool)
    mask[rows, columns] = True
    return mask


def test_a_document_knows_the_classes_of_its_objects(document: Document) -> None:
    assert document.classes == {0: 0, 1: 1, 2000: 2, 3000: 3}
    assert document.size == (6, 4)


def test_a_document_cannot_be_changed_in_place(document: Document) -> None:
    with pytest.raises(ValueError, match="read-only"):
        document.label[0, 0] = 1
    source = IDS.astype(np.int32)
    made = Document.of(LABEL, source)
    source[:] = 9
    assert 9 not in made.classes


def test_without_instance_map_each_class_is_one_object() -> None:
    assert Document.of(LABEL).classes == {0: 0, 1: 1, 2: 2, 3: 3}


@pytest.mark.parametrize("ids", [IDS[:2], IDS[0]])
def test_maps_of_two_sizes_are_refused(ids: np.ndarray) -> None:
    with pytest.raises(DataError, match=r"shape \(4, 6\)"):
        Document.of(LABEL, ids)


def test_objects_are_found_by_pixel(document: Document) -> None:
    assert document.at(1, 1) == 2000
    assert document.at(4, 2) == 3000
    assert document.at(-5, 99) == document.at(0, 3) == 1


def test_removing_fills_by_the_nearest_surroundings(document: Document) -> None:
    after = document.remove(2000)
    assert after.label[1, 1:3].tolist() == [0, 0]
    assert set(after.label[2, 1:3].tolist()) == {1}
    np.testing.assert_array_equal(after.ids, np.where(IDS == 2000, after.label, IDS))
    assert 2000 not in after.classes
    assert 2000 not in after.styles.instances
    assert document.classes[2000] == 2


def test_filling_gives_the_result_of_a_search_over_the_whole_map() -> None:
    rng = np.random.default_rng(0)
    label = rng.integers(0, 200, (23, 31))
    mask = np.zeros(label.shape, bool)
    mask[5:20, :12] = rng.random((15, 12)) < 0.9
    filled = Document.of(label).fill(mask)
    outside = np.argwhere(~mask)
    for y, x in np.argwhere(mask):
        distances = ((outside - (y, x)) ** 2).sum(axis=1)
        nearest = outside[distances == distances.min()]
        assert filled.label[y, x] in label[tuple(nearest.T)]
    np.testing.assert_array_equal(filled.label[~mask], label[~mask])


def test_the_only_object_cannot_be_removed() -> None:
    with pytest.raises(ConfigError, match="only object"):
        Document.of(np.full((3, 3), 2)).remove(2)


def test_unknown_objects_cannot_be_edited(document: Document) -> None:
    for edit in (
        lambda: document.remove(7),
        lambda: document.copy(7, 0, 0),
        lambda: document.move(7, 0, 0),
        lambda: document.with_class(7, 1),
        lambda: document.with_style(7, None),
        lambda: document.extend(document.mask(1), 7),
    ):
        with pytest.raises(ConfigError, match="object 7 no longer"):
            edit()


def test_a_painted_object_gets_the_next_id_of_its_class(document: Document) -> None:
    style = Style(2, (1.0, 2.0))
    after, id = document.paint(box(document, np.s_[0:1], np.s_[3:6]), 2, style)
    assert id == 2001
    assert after.classes[2001] == 2
    assert after.styles.instances[2001] == style
    assert after.ids[0].tolist() == [0, 0, 0, 2001, 2001, 2001]


def test_an_object_that_is_painted_over_is_gone_with_its_style(document: Document) -> None:
    after, id = document.paint(document.mask(2000), 3)
    assert id == 3001
    assert 2000 not in after.classes
    assert after.styles.instances == {}


def test_painting_outside_is_refused(document: Document) -> None:
    with pytest.raises(ConfigError, match="draw it inside"):
        document.paint(np.zeros((4, 6), bool), 2)


def test_an_object_is_enlarged(document: Document) -> None:
    after = document.extend(box(document, np.s_[1:2], np.s_[3:4]), 2000)
    assert after.ids[1, 3] == 2000
    assert after.label[1, 3] == 2
    assert after.styles == document.styles


def test_a_copy_has_the_style_of_its_original(document: Document) -> None:
    after, id = document.copy(2000, 2, 1)
    assert id == 2001
    assert after.styles.instances[2001] == document.styles.instances[2000]
    np.testing.assert_array_equal(after.mask(2001), box(document, np.s_[2:4], np.s_[3:5]))
    np.testing.assert_array_equal(after.mask(2000), document.mask(2000))


def test_moving_over_the_border_clips(document: Document) -> None:
    after = document.move(2000, -2, 0)
    np.testing.assert_array_equal(after.mask(2000), box(document, np.s_[1:3], np.s_[0:1]))
    assert after.label[1, 1:3].tolist() == [0, 0]
    assert after.styles.instances[2000] == document.styles.instances[2000]


@pytest.mark.parametrize("shift", [(6, 0), (-3, 0), (0, 4), (0, -3), (99, 99)])
def test_moving_out_of_the_image_is_refused(document: Document, shift: tuple[int, int]) -> None:
    with pytest.raises(ConfigError, match="move it less far"):
        document.move(2000, *shift)


def test_another_class_means_another_id_and_no_style(document: Document) -> None:
    after, id = document.with_class(2000, 3)
    assert id == 3001
    assert after.classes == {0: 0, 1: 1, 3000: 3, 3001: 3}
    assert after.styles.instances == {}
    assert document.with_class(2000, 2) == (document, 2000)


def test_styles_are_set_and_removed(document: Document) -> None:
    style = Style(3, (1.0, 1.0), 0)
    after = document.with_style(3000, style)
    assert after.styles.instances == {**document.styles.instances, 3000: style}
    assert after.styles.encoder == "encoder"
    assert after.label is document.label
    assert after.with_style(2000, None).styles.instances == {3000: style}


def test_styles_of_unknown_instances_are_dropped(document: Document) -> None:
    foreign = {3001: Style(3, (9.0, 9.0)), 7: Style(7, (9.0, 9.0))}
    styles = Styles({**document.styles.instances, **foreign}, "encoder")
    for opened in (document.restyled(styles), Document.of(LABEL, IDS, styles)):
        assert opened.styles == document.styles
        painted, id = opened.paint(box(document, np.s_[0:1], np.s_[0:2]), 3)
        assert id == 3001
        assert painted.styles == document.styles


def test_an_object_that_changes_class_loses_its_style() -> None:
    label = np.array([[2, 3, 3, 2, 2, 0]])
    document = Document.of(label, np.where(label > 0, 9, 0), Styles({9: Style(2, (1.0,))}))
    assert document.classes[9] == 2
    cut = document.move(9, -3, 0)
    assert cut.classes[9] == 2
    assert 9 in cut.styles.instances
    cut = document.move(9, 3, 0)
    assert cut.label.tolist() == [[0, 0, 0, 2, 3, 3]]
    assert cut.classes[9] == 3
    assert cut.styles.instances == {}
    covered, _ = document.paint(label == 2, 1)
    assert covered.classes[9] == 3
    assert covered.styles.instances == {}


def test_an_edit_that_changes_nothing_returns_the_document(document: Document) -> None:
    style = document.styles.instances[2000]
    for same in (
        document.with_style(2000, style),
        document.with_style(3000, None),
        document.restyled(Styles(dict(document.styles.instances), "encoder")),
        document.extend(document.mask(2000), 2000),
        document.extend(document.mask(3000), 3000),
        document.move(2000, 0, 0),
        document.fill(np.zeros(document.label.shape, bool)),
    ):
        assert same is document


def test_new_ids_follow_the_rule_of_their_class_until_none_is_left(document: Document) -> None:
    assert document.new_id(1) == 1000
    assert document.new_id(2) == 2001
    # Ids below the divisor are classes, so class 0 has none of its own.
    assert document.new_id(0) == 3001
    small = Document.of(np.array([[1, 1, 2]]), np.array([[2, 3, 5]]), divisor=2)
    assert small.new_id(1) == 6


def test_ids_end_with_32_bits() -> None:
    full = Document.of(np.array([[0, 1]]), np.array([[0, 2**31 - 1]]))
    with pytest.raises(ConfigError, match="above 32 bits"):
        full.new_id(0)
