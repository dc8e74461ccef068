"""G1 and G2, the global generator and the one with a local enhancer, forward."""

from __future__ import annotations

from collections.abc import Iterator

from hdgan.benchmarks.runner import OF_NETWORKS, Context, Trial, Work
from hdgan.benchmarks.shapes import CONDITION
from hdgan.benchmarks.works.networks import condition_and_index, forward_trials
from hdgan.models import GlobalGenerator, LocalEnhancer


def setup(case: str, context: Context, kind: type[GlobalGenerator] | type[LocalEnhancer]) -> Iterator[Trial]:
    size, _, width = case.partition(", ngf ")
    condition, _ = condition_and_index(context, size)
    return forward_trials(context, kind(CONDITION, ngf=int(width)), [condition])


G1 = Work(
    "G1",
    {"512x256, ngf 32": "anywhere", "1024x512, ngf 64": "gpu"},
    lambda case, context: setup(case, context, GlobalGenerator),
    OF_NETWORKS,
)
G2 = Work(
    "G2",
    {"512x256, ngf 16": "anywhere", "2048x1024, ngf 32": "gpu"},
    lambda case, context: setup(case, context, LocalEnhancer),
    OF_NETWORKS,
)
