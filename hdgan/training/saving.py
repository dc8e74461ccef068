"""What a stage writes while it trains: samples, measurements and checkpoints, also before an error ends it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from rich.console import Console

from hdgan.checkpoints import list_steps
from hdgan.devices import enough_memory
from hdgan.errors import DivergenceError, HdganError, TrainingError
from hdgan.progress import print_lines
from hdgan.training.checkpoint import require_finite, save_checkpoint
from hdgan.training.examples import Examples, mean_styles
from hdgan.training.health import SPOT
from hdgan.training.logs import Metrics, ProgressDisplay
from hdgan.training.report import write_report
from hdgan.training.setup import RunSetup
from hdgan.training.spots import spot_share
from hdgan.training.state import StageState
from hdgan.training.trainer import Trainer
from hdgan.training.validation import is_better, record_name
from hdgan.training.watch import warn
from hdgan.wording import count


class Saver:
    """Writes the output of one stage. The main process writes, and the others wait for its checkpoints.

    Args:
        run: its setup.
        state: of the stage.
        metrics: of the run; None in processes other than the main one.
        display: shows progress of long work.
    """

    def __init__(self, run: RunSetup, state: StageState, metrics: Metrics | None, display: ProgressDisplay) -> None:
        self.run, self.state, self.metrics, self.display = run, state, metrics, display
        size, config, device = state.stage.config.size, run.config, run.world.device
        self.examples = Examples(run.data.validation(size), config, device, run.data.palette)
        self.references = Examples(run.data.reference(size), config, device)

    def write_samples(self) -> None:
        """Write sample images of this step."""
        state, config = self.state, self.run.config
        with self.display.between_steps() as progress:
            progress("writing sample images", 0, 0)
            folder = config.out / "samples" / state.stage.name
            self.examples.write(state.ema.model, folder, state.step, config.log.samples)
        if self.metrics is not None and self.metrics.tracker is not None:
            written = (folder / f"{state.step:08d}").glob("*.png")
            self.metrics.tracker.images(state.step, {f"{state.stage.name}/{file.stem}": file for file in written})

    def begin(self) -> None:
        """Make sure that a rollback has a checkpoint to go back to: that of the resume, or one of the first weights."""
        health = self.state.health
        if self.run.config.health != "rollback":
            health.good = None  # should a resume turn rollbacks on again, it starts from its own checkpoint
        elif health.good is None:
            health.good = self.state.step
            if self.state.step == 0:
                self.checkpoint(measure=False)

    def checkpoint(self, *, measure: bool) -> None:
        """Measure and save on the main process while the others wait; the step may become the last one of the stage.

        A checkpoint that is written only because of a request to stop is not measured. The stop is therefore not
        delayed, and the same checkpoints are measured, and the same one is best, as in an uninterrupted run.

        Raises:
            DivergenceError: a weight or a measurement is not finite. It is raised in all processes.
        """
        world, problem, ends = self.run.world, None, False
        if world.is_main:
            try:
                ends = self._save(measure=measure)
            except DivergenceError as error:
                problem = error
        ends, failed = world.any(ends, problem is not None)
        if failed:
            raise problem or DivergenceError("the main process cannot save", "its message says why")
        self._settle(measured=measure, ends=ends)

    @contextmanager
    def keeping_last_step(self, trainer: Trainer) -> Iterator[None]:
        """Save what has been trained before an error that the user can fix ends the run.

        If an image cannot be read, for training or for samples, a data worker is killed, or memory does not suffice for
        gradients, the state is that after the last step, once that is finished. A TrainingError is different: it says
        that the state is not worth saving, or that it cannot be saved.

        After a request to stop, the run ends as requested without the error, which the same request may have caused.
        """
        try:
            yield
        except TrainingError:
            raise
        except HdganError:
            world, state = self.run.world, self.state
            saves = world.is_main and state.step_in_stage > 0 and not trainer.updating
            try:
                if not trainer.updating:
                    trainer.finish()
                if saves:
                    self._save_last_step()
            finally:
                if trainer.all_failed:  # torchrun ends all processes soon after the first one ends
                    world.barrier()
            if not (saves and trainer.stop.requested and world.size == 1):
                raise

    def _save(self, *, measure: bool) -> bool:
        """Save a checkpoint; returns whether the stage ends with it before its time."""
        state, config, data = self.state, self.run.config, self.run.data
        self._require_finite_weights()
        with self.display.between_steps() as progress:
            if measure:
                values = self.run.validation(state.ema.model, self.examples, progress)
                self._record(values | self._spots())
            progress("measuring mean styles", 0, 0)
            tensors = mean_styles(state.ema.model, self.references, config.log.style_images)
        ends = measure and state.step < state.stage.last_step and state.stale >= (config.log.patience or math.inf)
        if ends:
            self._report_early_end()
        self._settle(measured=measure, ends=ends)
        save_checkpoint(config.out, config, state, tensors, data.classes, data.inputs)
        if measure and state.step < self.run.stages[-1].last_step:  # `train` itself writes the last report
            _report_so_far(config.out, self.run.console)
        return ends

    def _settle(self, *, measured: bool, ends: bool) -> None:
        """Note in the state what a checkpoint decides, in the main process before it is saved.

        Only a scheduled checkpoint, which is measured, can be the one to go back to. A run that was interrupted then
        goes back to the same one as an undisturbed run.

        A stage that ends early jumps to its last step. Its only checkpoint is that of the jump, so a resume finds
        either nothing of the end or all of it, and later stages keep their numbers.
        """
        state = self.state
        if ends:
            state.step, state.stale = state.stage.last_step, 0
        if measured and self.run.config.health == "rollback" and state.health.is_good:
            state.health.good = state.step

    def _report_early_end(self) -> None:
        state, log = self.state, self.run.config.log
        best = f" since step {state.best[0]}" if state.best is not None else ""
        text = (
            f"stage {state.stage.name} ends after step {state.step} instead of {state.stage.last_step}: "
            f"{record_name(log.best)} has not improved{best}, for {count(state.stale, 'checkpoint')}"
        )
        print_lines(self.run.console, text)
        self.display.skip(state.stage.last_step - state.step)
        if self.metrics is not None:
            self.metrics.event(state.stage.last_step, state.stage.name, "early_end", text)

    def _save_last_step(self) -> None:
        config, state, data = self.run.config, self.state, self.run.data
        if state.step not in list_steps(config.out):
            self._require_finite_weights()
            try:
                with enough_memory("computing the mean styles needs more memory"):
                    tensors = mean_styles(state.ema.model, self.references, config.log.style_images)
            except HdganError:  # perhaps of the same image or memory; the next checkpoint has them again
                tensors = {}
            save_checkpoint(config.out, config, state, tensors, data.classes, data.inputs)
        message = f"saved after step {state.step}: hdgan-train --resume {config.out} continues from there"
        print_lines(self.run.console, message)

    def _spots(self) -> dict[str, float]:
        """Look for spots in G's feature maps of the first validation image, if the run's health is watched."""
        model = self.state.ema.model
        if self.run.config.health == "off":
            return {}
        [inputs] = self.examples.inputs(1)
        share = spot_share(model.generator, lambda: self.examples.generate(model, inputs, 0))
        if share > SPOT:
            text = (
                f"the largest pixel has {share:.0%} of the variance of the planes of a layer of G, as the droplets of "
                "instance norm have: they grow slowly and show as spots in the images; train at another size, or with "
                "another norm if the model has one"
            )
            warn(self.run, self.state.stage, self.state.step, text, self.metrics)
        return {"spots": share}

    def _record(self, values: dict[str, float]) -> None:
        """Log what validation measured, and note whether this checkpoint is the best one so far."""
        state, metric, chosen_by = self.state, self.run.config.log.best, self.run.validation.chosen_by
        require_finite(self.run.config.out, state.stage, state.step, values)
        value = values[record_name(metric)]
        suspect = self.run.config.health == "rollback" and not state.health.is_good
        # Values of another metric, scorer or set of images, which a resume may change, are not comparable.
        if state.best is None or state.best_by != chosen_by or is_better(metric, value, state.best[1]):
            if not suspect:  # a rollback would take it away
                state.best, state.best_by, state.stale = (state.step, value), chosen_by, 0
        elif self.run.config.log.patience is not None:
            state.stale += 1
        if self.metrics is not None:
            self.metrics.write(state.step, state.stage.name, values)

    def _require_finite_weights(self) -> None:
        state = self.state
        largest = torch.stack([parameter.detach().abs().max() for parameter in state.model.parameters()]).max()
        require_finite(self.run.config.out, state.stage, state.step, {"the largest weight": float(largest)})


def _report_so_far(run: Path, console: Console) -> None:
    """Write the report while training goes on; an error in the report must not end training."""
    try:
        write_report(run)
    except Exception as error:
        print_lines(
            console,
            f"the report could not be written ({error!r}); training continues; write the report later with: hdgan "
            f"report {run}",
        )
