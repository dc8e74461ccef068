"""The watch at work: it judges every step of a stage, and says what it has found where the user looks."""

from __future__ import annotations

from hdgan.errors import DivergenceError
from hdgan.progress import print_lines
from hdgan.training.health import guessing_loss
from hdgan.training.logs import Metrics
from hdgan.training.schedule import Stage
from hdgan.training.setup import RunSetup
from hdgan.training.state import StageState
from hdgan.training.trainer import StepResult


class Watch:
    """Judges the steps of a stage; does nothing if the run's health is not watched.

    Args:
        run: its setup.
        state: of the stage; what the watch remembers is in it.
        metrics: of the run; None in processes other than the main one.
    """

    def __init__(self, run: RunSetup, state: StageState, metrics: Metrics | None) -> None:
        self.run, self.state, self.metrics = run, state, metrics
        self._guessing = guessing_loss(run.config, state.model.discriminator)

    def judge(self, result: StepResult) -> None:
        """Judge a finished step; report what is wrong.

        Raises:
            DivergenceError: something is wrong, and the run is to go back.
        """
        config, stage = self.run.config, self.state.stage
        if config.health == "off":
            return
        values = {**result.losses, **result.statistics}
        for finding in self.state.health.judge(values, self._guessing, f"stages.{stage.name}"):
            if config.health == "rollback":
                where = f"step {result.step} of stage {stage.name}"
                raise DivergenceError(f"{where}: {finding.problem}", finding.remedy, finding.symptom)
            warn(self.run, stage, result.step, f"{finding.problem}; {finding.remedy}", self.metrics)


def warn(run: RunSetup, stage: Stage, step: int, text: str, metrics: Metrics | None) -> None:
    """Say what is wrong at a step of the run, on the terminal and in metrics.jsonl, from which the report takes it.

    Args:
        run: its setup.
        stage: of the step.
        step: of the run.
        text: what is wrong, and a remedy.
        metrics: of the run; None in processes other than the main one, whose console is silent.
    """
    text = f"step {step} of stage {stage.name}: {text}"
    print_lines(run.console, f"warning: {text}")
    if metrics is not None:
        metrics.event(step, stage.name, "warning", text)
