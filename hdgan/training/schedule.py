"""When each stage begins and ends, and the learning rate in between. Everything counts in optimizer steps."""

from __future__ import annotations

import math
from dataclasses import dataclass

from hdgan.errors import ConfigError
from hdgan.families.common.train_config import StageConfig, TrainConfig


@dataclass(frozen=True)
class Stage:
    """A stage of a run over a dataset of known size."""

    name: str
    config: StageConfig
    first_step: int
    """Steps of the run before this stage."""
    steps: int
    """Steps of this stage."""

    @property
    def last_step(self) -> int:
        return self.first_step + self.steps

    def learning_rate(self, step_in_stage: int) -> float:
        """Constant, then falling linearly; the last step of a decaying stage still has a positive rate, the next would
        have 0."""
        decay_steps = self.config.decay * self.steps
        left = self.steps - step_in_stage
        return self.config.lr * min(1.0, left / decay_steps if decay_steps > 0 else 1.0)


def plan(config: TrainConfig, dataset_size: int) -> list[Stage]:
    """Lay the stages one after the other, without those of no length.

    Raises:
        ConfigError: nothing is left.
    """
    stages: list[Stage] = []
    first = 0
    for name, stage in config.stages.items():
        images = stage.images if stage.images is not None else stage.epochs * dataset_size
        steps = math.ceil(images / stage.batch_size)
        if steps:
            stages.append(Stage(name, stage, first, steps))
            first += steps
    if not stages:
        raise ConfigError("the run has no stages: start from a preset, or set the epochs of a stage")
    return stages


def stage_at(stages: list[Stage], step: int) -> Stage | None:
    """The stage that the step after `step` belongs to; None when the run is finished."""
    return next((stage for stage in stages if step < stage.last_step), None)
