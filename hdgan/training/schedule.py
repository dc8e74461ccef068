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

    def learning_rate(self, step_in_stage: int, network: str = "g") -> float:
        """The rate of G (with E) or of D in a step of the stage, from 0: it rises, stays, and falls.

        The first step of a stage with warm-up and the last one of a decaying stage have a positive rate; the step
        before and the step after would have 0.
        """
        lr = self.config.lr if network == "g" or self.config.lr_d is None else self.config.lr_d
        return lr * self._fallen(step_in_stage) * self._risen(step_in_stage)

    def _risen(self, step_in_stage: int) -> float:
        """The share of the full rate during the warm-up, 1 after it."""
        warmup_steps = self.config.warmup * self.steps
        return min(1.0, (step_in_stage + 1) / warmup_steps if warmup_steps > 0 else 1.0)

    def _fallen(self, step_in_stage: int) -> float:
        """The share of the full rate during the decay, 1 before it."""
        decay_steps = 0.0 if self.config.schedule == "constant" else self.config.decay * self.steps
        left = min(1.0, (self.steps - step_in_stage) / decay_steps if decay_steps > 0 else 1.0)
        return (1 - math.cos(math.pi * left)) / 2 if self.config.schedule == "cosine" else left


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
