"""After an edit, its regions are those of the whole picture with the statistics of before."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from hdgan.errors import ConfigError, DataError
from hdgan.inference import Pipeline
from hdgan.inference.preview import MARGIN, Edit, Preview
from hdgan.models.draws import drawing_from
from hdgan.regions import Box, RegionRun, RegionStorage, RegionTensor, Source
from hdgan.regions.draws import RegionDraws
from hdgan.regions.evaluation import evaluate
from hdgan.seeding import seeded
from hdgan.styles import Style, Styles
from tests.inference.test_tiled import CONFIGS, IDS, LABEL, PHOTO, pipeline_of
from tests.regions.helpers import Held

BOXES = {
    "inside": Box(40, 52, 60, 80),
    "corner": Box(0, 5, 0, 9),
    "end": Box(90, 110, 130, 147),
    "whole": Box(0, 110, 0, 147),
}


@dataclass(frozen=True)
class Input:
    """The arguments of a call."""

    source: np.ndarray
    ids: np.ndarray | None
    styles: Styles | None = None

    @staticmethod
    def of(pipeline: Pipeline) -> Input:
        config = pipeline.config
        return Input(LABEL if config.n_labels else PHOTO, IDS if config.instances or config.feature_channels else None)

    def repainted(self, box: Box) -> Input:
        """With another class, object or image in a box."""
        rows, columns = slice(*box.rows), slice(*box.columns)
        source, ids = self.source.copy(), None if self.ids is None else self.ids.copy()
        source[rows, columns] = (source[rows, columns].astype(int) + 1) % (6 if source.ndim == 2 else 256)
        if ids is not None:
            ids[rows, columns] = 60000
        return replace(self, source=source, ids=ids)

    def __call__(self, function: Any, **options: Any) -> Any:
        given = {} if self.styles is None else {"styles": self.styles}
        return function(self.source, self.ids, **given, **options)


def with_kept_statistics(pipeline: Pipeline, before: Input, after: Input, seed: int, variant: int) -> Tensor:
    """The whole edited picture, normalised by the statistics of the one before."""

    def run_on(what: Input, **options: Any) -> tuple[RegionRun, Tensor]:
        run = RegionRun(RegionStorage(2**32, Path(tempfile.gettempdir())), side=1000, **options)
        given = pipeline.given(pipeline.read(what.source, what.ids), None, what.styles)
        sources = [
            None if pixels is None else RegionTensor.of(Source(Held(pixels), pixels.shape, pixels.dtype), run)
            for pixels in given
        ]
        chosen = 0 if pipeline.config.variants is None else variant
        with torch.no_grad(), seeded(pipeline.device, seed, variant), drawing_from(RegionDraws(run)):
            image = pipeline.image(*sources, variant=chosen)
            assert isinstance(image, RegionTensor)
            return run, evaluate(image.node, image.node.box)[0]

    run, _ = run_on(before)
    return run_on(after, given=run.statistics)[1]


def assert_regions_are_of(edit: Edit, expected: Tensor, before: Tensor, tolerance: float = 1e-4) -> None:
    inside = torch.zeros(expected.shape[1:], dtype=torch.bool)
    for box, pixels in edit.regions():
        part = (slice(None), slice(*box.rows), slice(*box.columns))
        torch.testing.assert_close(pixels, expected[part], rtol=0, atol=tolerance)
        inside[part[1:]] = True
    image = edit.image()
    torch.testing.assert_close(image[:, inside], expected[:, inside], rtol=0, atol=tolerance)
    assert torch.equal(image[:, ~inside], before[:, ~inside])


def options_of(pipeline: Pipeline) -> dict[str, int]:
    return {"seed": 5, "variant": 0 if pipeline.config.variants == 1 else 1}


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", CONFIGS)
def test_the_recorded_image_is_that_of_a_call(name: str, precision: str) -> None:
    pipeline = pipeline_of(CONFIGS[name], precision=precision)
    given, options = Input.of(pipeline), options_of(pipeline)
    assert torch.equal(given(Preview(pipeline).record, **options), given(pipeline, **options))


@pytest.mark.parametrize("place", BOXES)
@pytest.mark.parametrize("name", CONFIGS)
def test_regions_are_those_of_the_whole_picture_with_the_statistics_of_before(name: str, place: str) -> None:
    pipeline = pipeline_of(CONFIGS[name])
    given, options, box = Input.of(pipeline), options_of(pipeline), BOXES[place]
    preview = Preview(pipeline)
    before = given(preview.record, **options)
    edited = given.repainted(box)
    edit = edited(preview.edit)
    margin = Box(box.top - MARGIN, box.bottom + MARGIN, box.left - MARGIN, box.right + MARGIN)
    assert edit.boxes == [margin.within(Box(0, 110, 0, 147))]
    assert_regions_are_of(edit, with_kept_statistics(pipeline, given, edited, **options), before)
    assert (edit.image() != before).any()


def test_regions_under_autocast() -> None:
    pipeline = pipeline_of(CONFIGS["G2 with features"], precision="bfloat16")
    given, options = Input.of(pipeline), options_of(pipeline)
    preview = Preview(pipeline)
    before = given(preview.record, **options)
    edited = given.repainted(BOXES["inside"])
    exact = pipeline_of(CONFIGS["G2 with features"])
    expected = with_kept_statistics(exact, given, edited, **options)
    shown = edited(preview.edit).image()[:, 40:52, 60:80]
    error = (shown - expected[:, 40:52, 60:80]).abs().mean()
    assert error < 0.2 * (before[:, 40:52, 60:80] - expected[:, 40:52, 60:80]).abs().mean()


@pytest.mark.parametrize("part", ["label", "ids", "style"])
def test_each_part_of_an_edit_is_found(part: str) -> None:
    pipeline = pipeline_of(CONFIGS["G2 with features"])
    options = options_of(pipeline)
    id = int(IDS[50, 70])
    rows, columns = (np.flatnonzero((id == IDS).any(axis)) for axis in (1, 0))
    given = Input(LABEL, IDS, Styles({id: Style(int(LABEL[50, 70]), (0.1, 0.2, 0.3))}))
    if part == "style":
        edited = replace(given, styles=Styles({id: Style(int(LABEL[50, 70]), (-2.0, 3.0, 1.0))}))
        place = Box(int(rows[0]), int(rows[-1]) + 1, int(columns[0]), int(columns[-1]) + 1)
    else:
        place = Box(100, 103, 20, 25)
        label, ids = LABEL.copy(), IDS.copy()
        if part == "label":
            label[100:103, 20:25] = (label[100:103, 20:25] + 1) % 6
        else:
            ids[100:103, 20:25] = 60000
        edited = replace(given, source=label, ids=ids)
    preview = Preview(pipeline, margin=3)
    before = given(preview.record, **options)
    edit = edited(preview.edit)
    assert len(edit.boxes) == 1
    assert edit.boxes[0] == Box(place.top - 3, place.bottom + 3, place.left - 3, place.right + 3).within(
        Box(0, 110, 0, 147)
    )
    assert_regions_are_of(edit, with_kept_statistics(pipeline, given, edited, **options), before)
    assert (edit.image() != before).any()


def test_edits_in_a_row_and_back() -> None:
    pipeline = pipeline_of(CONFIGS["G2 with features"])
    given, options = Input.of(pipeline), options_of(pipeline)
    preview = Preview(pipeline, margin=2)
    before = given(preview.record, **options)
    first = given.repainted(Box(4, 10, 4, 10))
    second = first.repainted(Box(95, 99, 130, 140))
    for edited, boxes in (
        (first, [Box(2, 12, 2, 12)]),
        (second, [Box(2, 12, 2, 12), Box(93, 101, 128, 142)]),
        (first, [Box(2, 12, 2, 12)]),
    ):
        edit = edited(preview.edit)
        assert edit.boxes == boxes
        assert_regions_are_of(edit, with_kept_statistics(pipeline, given, edited, **options), before)
    edit = given(preview.edit)
    assert (edit.boxes, edit.regions(), edit.share) == ([], [], 0)
    assert torch.equal(edit.image(), before)
    again = second(preview.record, **options)
    edit = first(preview.edit)
    assert edit.boxes == [Box(93, 101, 128, 142)]
    assert_regions_are_of(edit, with_kept_statistics(pipeline, second, first, **options), again)


def test_many_places_become_one_region() -> None:
    pipeline = pipeline_of(CONFIGS["G1"])
    given, preview = Input.of(pipeline), Preview(pipeline, margin=0)
    given(preview.record)
    edited = given
    for top in (0, 64):
        for left in (0, 64, 128):
            edited = edited.repainted(Box(top, top + 2, left, left + 2))
    assert len(edited(preview.edit).boxes) == 6
    for left in (32, 96):
        edited = edited.repainted(Box(34, 36, left, left + 2))
    assert edited(preview.edit).boxes == [Box(0, 66, 0, 130)]


def test_without_a_seed_the_noise_is_that_of_the_recorded_image() -> None:
    pipeline = pipeline_of(CONFIGS["U-Net with instance norm"])
    dropping = pipeline_of(replace(pipeline.config, generator=replace(pipeline.config.generator, dropout_levels=(0,))))
    for model in (dropping, pipeline_of(CONFIGS["G2 with features"])):
        given, preview = Input.of(model), Preview(model, margin=1000)
        before = given(preview.record)
        edit = given.repainted(Box(0, 1, 0, 1))(preview.edit)
        assert edit.boxes == [Box(0, 110, 0, 147)]
        # Only the coarsest levels reach the far corner, with one pixel of many.
        assert (edit.image() - before)[:, 60:, 80:].abs().mean() < 0.02
        assert (given(model) - before)[:, 60:, 80:].abs().mean() > 0.05


def test_a_recording_that_is_ended_leaves_the_one_before() -> None:
    class Newer(Exception):
        pass

    calls = 0

    def check() -> None:
        nonlocal calls
        calls += 1
        if calls > 10:
            raise Newer

    pipeline = pipeline_of(CONFIGS["G2 with features"])
    given, options = Input.of(pipeline), options_of(pipeline)
    preview = Preview(pipeline)
    before = given(preview.record, **options)
    edited = given.repainted(BOXES["inside"])
    with pytest.raises(Newer):
        edited(preview.record, **options, check=check)
    edit = edited(preview.edit)
    assert_regions_are_of(edit, with_kept_statistics(pipeline, given, edited, **options), before)


def test_what_is_no_edit_of_the_recorded_image() -> None:
    pipeline = pipeline_of(CONFIGS["CRN"])
    preview = Preview(pipeline)
    assert preview.edit(LABEL) is None
    preview.record(LABEL)
    assert preview.edit(LABEL[:, :-1]) is None
    assert preview.edit(LABEL, IDS) is None
    with pytest.raises(DataError, match=r"label 9"):
        preview.edit(np.full_like(LABEL, 9))


def test_a_change_of_dtype_is_no_edit() -> None:
    preview = Preview(pipeline_of(CONFIGS["CRN"]))
    preview.record(LABEL)
    edit = preview.edit(LABEL.astype(np.uint16))
    assert edit is not None
    assert edit.boxes == []


def test_errors() -> None:
    pipeline = pipeline_of(CONFIGS["G1"])
    with pytest.raises(DataError, match=r"is a batch of 2: give one map"):
        Preview(pipeline).record(np.stack([LABEL, LABEL]), np.stack([IDS, IDS]))
    small = Preview(pipeline, max_memory=2**20)
    with pytest.raises(ConfigError, match=r"features of an image of 147x110 take .*, more than the 1.0 MiB"):
        small.record(LABEL, IDS)
    assert small.edit(LABEL, IDS) is None
    with pytest.raises(ConfigError, match="seed is -1"):
        Preview(pipeline).record(LABEL, IDS, seed=-1)


def test_a_model_of_unknown_operations_is_refused() -> None:
    pipeline = pipeline_of(CONFIGS["CRN"])
    pipeline.model.generator.register_forward_hook(lambda module, args, image: image.roll(1, 3))
    with pytest.raises(ConfigError, match="the network uses roll"):
        Preview(pipeline).record(LABEL)


def test_the_features_are_counted_before_there_are_any() -> None:
    pipeline = pipeline_of(CONFIGS["G2 with features"])
    given, preview = Input.of(pipeline), Preview(pipeline)
    given(preview.record)
    assert preview._shown is not None
    held: dict[int, int] = {}
    stack = [preview._shown.node]
    while stack:
        node = stack.pop()
        if node.held is not None and node.inputs:
            held[id(node)] = node.bytes(node.box)
        stack += node.inputs
    limit = sum(held.values())
    given(Preview(pipeline, max_memory=limit + 2**18).record)  # with the noise
    with pytest.raises(ConfigError):
        given(Preview(pipeline, max_memory=limit - 1).record)
