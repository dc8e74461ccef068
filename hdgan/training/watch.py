"""The watch at work: it judges every step of a stage, and says what it has found where the user looks."""

from __future__ import annotations

from hdgan.errors import DivergenceError
from hdgan.progress import print_lines
from hdgan.training.health import guessing_loss
from hdgan.training.logs import Metrics
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
            where = f"step {result.step} of stage {stage.name}"
            if config.health == "rollback":
                raise DivergenceError(f"{where}: {finding.problem}", finding.remedy, finding.symptom)
            self._warn(result.step, f"{where}: {finding.problem}; {finding.remedy}")

    def _warn(self, step: int, text: str) -> None:
        print_lines(self.run.console, f"warning: {text}")
        if self.metrics is not None:
            self.metrics.event(step, self.state.stage.name, "warning", text)
