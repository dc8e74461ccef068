"""E, the feature encoder with its average over instances, forward."""

from __future__ import annotations

from collections.abc import Iterator

from hdgan.benchmarks.runner import OF_NETWORKS, Context, Trial, Work
from hdgan.benchmarks.shapes import FEATURES
from hdgan.benchmarks.works.networks import SIZES, condition_and_index, forward_trials
from hdgan.models import FeatureEncoder


def setup(case: str, context: Context) -> Iterator[Trial]:
    _, index = condition_and_index(context, case)
    photo = context.randn(1, 3, *SIZES[case])
    return forward_trials(context, FeatureEncoder(3, FEATURES), [photo], index)


WORK = Work("E", {"512x256": "anywhere", "1024x512": "gpu", "2048x1024": "gpu"}, setup, OF_NETWORKS)
