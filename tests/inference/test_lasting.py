"""Styles that last over the frames of a video."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from hdgan.errors import CheckpointError, ConfigError
from hdgan.inference import Pipeline, load
from hdgan.inference.lasting import lasting_styles
from hdgan.styles import Styles


@pytest.fixture(scope="module")
def pipeline(styled: Path) -> Pipeline:
    return load(styled, device="cpu")


def test_an_instance_keeps_its_style_and_others_get_the_mean(
    pipeline: Pipeline, label: Path, ids: Path, photo: Path
) -> None:
    styles = pipeline.encode(photo, label, ids)
    of = lasting_styles(pipeline, styles)
    maps = pipeline.read(label, ids)
    assert of(maps) == styles
    assert maps.label is not None
    assert maps.ids is not None
    moved = replace(maps, label=maps.label.roll(5, -1), ids=maps.ids.roll(5, -1))
    assert of(moved).instances == styles.instances
    label_map, id_map = moved.label.clone(), moved.ids.clone()
    new, other = sorted(styles.instances)[-2:]
    id_map[id_map == new] = 3500
    label_map[id_map == other] = 0
    changed = replace(moved, label=label_map, ids=id_map)
    assert of(changed).instances.keys() == styles.instances.keys() - {new, other}
    means = pipeline.complete(of(changed), changed).instances
    assert pipeline.class_features is not None
    for id, of_class in ((3500, styles.instances[new].label), (other, 0)):
        np.testing.assert_allclose(means[id].feature, pipeline.class_features[of_class], rtol=1e-6)


def test_styles_of_another_encoder_are_refused(pipeline: Pipeline) -> None:
    with pytest.raises(CheckpointError, match="the styles are of encoder"):
        lasting_styles(pipeline, Styles({}, "0123456789abcdef"))


def test_a_model_without_means_has_no_style_for_what_comes_later(styled: Path) -> None:
    pipeline = load(styled, device="cpu")
    pipeline.class_features = None
    with pytest.raises(ConfigError, match="which instances of later frames get: give --styles random"):
        lasting_styles(pipeline, Styles({}))
