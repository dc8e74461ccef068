"""Trackers of experiments beside TensorBoard: wandb and mlflow, through their own libraries.

They get the config as parameters, scalars by step, the sample images, and the report. RUN/tracker.json names the run
of the tracker, in which a resume goes on. What a rollback or a kill has undone stays there, since both trackers only
add; metrics.jsonl is the record of the run.
"""

from __future__ import annotations

import importlib
import os
import secrets
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from PIL import Image
from rich.console import Console

from hdgan.config.options import option
from hdgan.config.serialization import to_plain
from hdgan.errors import ConfigError
from hdgan.families.common.train_config import TrainConfig
from hdgan.files.json import read_json, write_json
from hdgan.progress import print_lines

TRACKER_FILE = "tracker.json"
_PROJECT = "hdgan"
_AT_ONCE = 100
"""Parameters in one message to mlflow."""


@dataclass(frozen=True)
class TrackedRun:
    """What tracker.json says."""

    tracker: str
    """Its library."""
    run: str
    """The id that the tracker has given to the run."""


class Tracker(ABC):
    """A run of a tracker. If the tracker fails, a line says so, and training goes on without it.

    As a context manager, it ends the run of the tracker as failed if an error leaves the block.

    Args:
        console: where that line goes.

    Attributes:
        id: of the run.
    """

    name: str
    id: str

    def __init__(self, console: Console) -> None:
        self._console, self._active = console, True

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Log the values of a step by their names."""
        self._try(self._scalars, step, values)

    def images(self, step: int, files: Mapping[str, Path]) -> None:
        """Log the images of a step by their names."""
        self._try(self._images, step, files)

    def finish(self, report: Path, *, finished: bool) -> None:
        """Log the report, and end the run; `finished` is False for one that was asked to stop."""
        self._try(self._report, report)
        self._try(self._end, "finished" if finished else "stopped")
        self._active = False

    def __enter__(self) -> Tracker:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            self._try(self._end, "failed")
            self._active = False

    def _try(self, send: Callable[..., None], *arguments: Any) -> None:
        if not self._active:
            return
        try:
            send(*arguments)
        except Exception as error:
            self._active = False
            reason = str(error).splitlines()[:1] or [repr(error)]
            print_lines(
                self._console,
                f"{self.name} cannot log ({reason[0]}): training goes on without it, and a resume tries again",
            )

    @abstractmethod
    def _scalars(self, step: int, values: Mapping[str, float]) -> None: ...

    @abstractmethod
    def _images(self, step: int, files: Mapping[str, Path]) -> None: ...

    @abstractmethod
    def _report(self, report: Path) -> None: ...

    @abstractmethod
    def _end(self, how: str) -> None:
        """End the run: "finished", "stopped" or "failed"."""


class WandbTracker(Tracker):
    """A run of Weights & Biases; WANDB_MODE, WANDB_PROJECT and the like apply."""

    name = "wandb"

    def __init__(self, wandb: ModuleType, config: TrainConfig, run: str | None, console: Console) -> None:
        super().__init__(console)
        self._wandb = wandb
        self.id = run or secrets.token_hex(4)
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", _PROJECT),
            dir=os.environ.get("WANDB_DIR", config.out),
            id=self.id,
            name=config.out.name,
            config=dict(_parameters(to_plain(config))),
            resume="allow",
            allow_val_change=True,
        )
        # Its own step can only grow, but a run that goes back, or is resumed, takes steps again.
        self._run.define_metric("step")
        self._run.define_metric("*", step_metric="step")

    def _scalars(self, step: int, values: Mapping[str, float]) -> None:
        self._run.log({"step": step, **values})

    def _images(self, step: int, files: Mapping[str, Path]) -> None:
        images = {f"samples/{name}": self._wandb.Image(str(file)) for name, file in files.items()}
        self._run.log({"step": step, **images})

    def _report(self, report: Path) -> None:
        artifact = self._wandb.Artifact(f"report-{self.id}", type="report")
        artifact.add_file(str(report))
        self._run.log_artifact(artifact)

    def _end(self, how: str) -> None:
        self._run.finish(exit_code={"finished": 0, "stopped": 130, "failed": 1}[how])


class MLflowTracker(Tracker):
    """A run of MLflow; MLFLOW_TRACKING_URI and MLFLOW_EXPERIMENT_NAME apply."""

    name = "mlflow"

    def __init__(self, mlflow: ModuleType, config: TrainConfig, run: str | None, console: Console) -> None:
        super().__init__(console)
        self._mlflow, self._client = mlflow, mlflow.MlflowClient()
        if run is not None:
            self.id = run
            self._client.update_run(run, status="RUNNING")
            return
        self.id = self._client.create_run(self._experiment(), run_name=config.out.name).info.run_id
        # It refuses longer values; the whole config is in the report.
        parameters = [mlflow.entities.Param(name, str(value)[:500]) for name, value in _parameters(to_plain(config))]
        for begin in range(0, len(parameters), _AT_ONCE):
            self._client.log_batch(self.id, params=parameters[begin : begin + _AT_ONCE])

    def _experiment(self) -> str:
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", _PROJECT)
        known = self._client.get_experiment_by_name(name)
        return known.experiment_id if known is not None else self._client.create_experiment(name)

    def _scalars(self, step: int, values: Mapping[str, float]) -> None:
        now = int(time.time() * 1000)
        metrics = [self._mlflow.entities.Metric(name, value, now, step) for name, value in values.items()]
        self._client.log_batch(self.id, metrics=metrics)

    def _images(self, step: int, files: Mapping[str, Path]) -> None:
        for name, file in files.items():
            with Image.open(file) as image:
                self._client.log_image(self.id, image.copy(), key=name, step=step)

    def _report(self, report: Path) -> None:
        self._client.log_artifact(self.id, str(report))

    def _end(self, how: str) -> None:
        status = {"finished": "FINISHED", "stopped": "KILLED", "failed": "FAILED"}[how]
        self._client.set_terminated(self.id, status=status)


_TRACKERS = {"wandb": WandbTracker, "mlflow": MLflowTracker}


def require_tracker(config: TrainConfig) -> ModuleType | None:
    """The library of the tracker that the config asks for; None if it asks for TensorBoard alone.

    Raises:
        ConfigError: it is not installed.
    """
    name = config.log.to
    if name not in _TRACKERS:
        return None
    try:
        return importlib.import_module(name)
    except Exception as error:  # a package that does not suit another one can raise anything
        raise ConfigError(
            f"{option('log.to')} {name} needs a package that cannot be imported ({error}): install it with "
            f'`pip install -e ".[{name}]"` in the checkout of hdgan, or leave the option out'
        ) from error


def open_tracker(config: TrainConfig, resume: bool, console: Console) -> Tracker | None:
    """Begin a run of the tracker that the config asks for or, in a resume, go on in the run that has been begun.

    Raises:
        ConfigError: the tracker is not installed, or does not start.
    """
    library, file = require_tracker(config), config.out / TRACKER_FILE
    if library is None:
        return None
    name = config.log.to
    known = read_json(file, TrackedRun, "delete it to begin another run of the tracker") if file.exists() else None
    run = known.run if resume and known is not None and known.tracker == name else None
    try:
        tracker = _TRACKERS[name](library, config, run, console)
    except Exception as error:
        reason = (str(error).splitlines() or [repr(error)])[0]
        again = f", or delete {file} to begin another run of it" if run is not None else ""
        raise ConfigError(
            f"{option('log.to')} {name} does not start ({reason}): set it up as its manual says{again}, or leave the "
            "option out"
        ) from error
    write_json(file, TrackedRun(name, tracker.id))
    return tracker


def _parameters(plain: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, Any]]:
    """The options of a config by their places, such as model.generator.ngf."""
    for name, value in plain.items():
        if isinstance(value, Mapping):
            yield from _parameters(value, f"{path}{name}.")
        else:
            yield f"{path}{name}", value
