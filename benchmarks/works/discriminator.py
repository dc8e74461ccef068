"""D, three discriminators on a pyramid, forward."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from hdgan.benchmarks.runner import OF_NETWORKS, Context, Trial, Work
from hdgan.benchmarks.shapes import CONDITION_AND_IMAGE
from hdgan.benchmarks.works.networks import condition_and_index, forward_trials
from hdgan.models import MultiscaleDiscriminator


def setup(case: str, context: Context) -> Iterator[Trial]:
    condition, _ = condition_and_index(context, case)
    inputs = torch.cat([condition, context.randn(1, 3, *condition.shape[2:])], dim=1)
    return forward_trials(context, MultiscaleDiscriminator(CONDITION_AND_IMAGE), [inputs])


WORK = Work("D", {"512x256": "anywhere", "1024x512": "gpu", "2048x1024": "gpu"}, setup, OF_NETWORKS)
