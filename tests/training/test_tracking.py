"""Trackers: what they get, what a resume goes on in, and what happens without them."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from hdgan.checkpoints import list_steps
from hdgan.config.options import typed_as
from hdgan.errors import CheckpointError, ConfigError
from hdgan.training import TrainConfig, load_config, train
from hdgan.training.logs import read_metrics
from tests.training.test_loop import at_step, interrupt

pytestmark = pytest.mark.usefixtures("plain_report")

MakeConfig = Callable[..., TrainConfig]
QUIET = Console(quiet=True)


@pytest.fixture
def make_tracked(make_config: MakeConfig) -> MakeConfig:
    """One stage of three steps, with samples of the second one."""

    def make(out: Path, tracker: str) -> TrainConfig:
        config = make_config(out)
        log = replace(config.log, to=tracker, samples_every=2)
        return replace(config, log=log, stages={"global": config.stages["global"]})

    return make


class Wandb(ModuleType):
    """A stand-in for the library, with what hdgan calls."""

    def __init__(self) -> None:
        super().__init__("wandb")
        self.runs: list[dict[str, Any]] = []
        self.logged: list[dict[str, Any]] = []
        self.steps: list[tuple[str, str | None]] = []
        self.artifacts: list[SimpleNamespace] = []
        self.ends: list[int] = []
        self.broken = False

    def init(self, **options: Any) -> Wandb:
        self.runs.append(options)
        return self

    def define_metric(self, name: str, step_metric: str | None = None) -> None:
        self.steps.append((name, step_metric))

    def log(self, values: dict[str, Any]) -> None:
        if self.broken:
            raise ConnectionError("no route to host")
        self.logged.append(values)

    def Image(self, file: str) -> Path:
        assert Path(file).is_file()
        return Path(file)

    def Artifact(self, name: str, type: str) -> SimpleNamespace:
        files: list[str] = []
        return SimpleNamespace(name=name, type=type, files=files, add_file=files.append)

    def log_artifact(self, artifact: SimpleNamespace) -> None:
        self.artifacts.append(artifact)

    def finish(self, exit_code: int) -> None:
        self.ends.append(exit_code)


@pytest.fixture
def wandb(monkeypatch: pytest.MonkeyPatch) -> Wandb:
    library = Wandb()
    monkeypatch.setitem(sys.modules, "wandb", library)
    for name in ("WANDB_PROJECT", "WANDB_DIR"):
        monkeypatch.delenv(name, raising=False)
    return library


def test_wandb_gets_config_scalars_samples_and_report(make_tracked: MakeConfig, wandb: Wandb, tmp_path: Path) -> None:
    config = make_tracked(tmp_path / "run", "wandb")
    train(config, console=QUIET)
    [run] = wandb.runs
    assert (run["project"], run["name"], run["dir"], run["resume"]) == ("hdgan", "run", config.out, "allow")
    assert run["config"]["model.generator.ngf"] == 4
    assert run["config"]["stages.global.lr"] == config.stages["global"].lr
    assert wandb.steps == [("step", None), ("*", "step")]
    scalars = [values for values in wandb.logged if "lr" in values]
    recorded = [record for record in read_metrics(config.out) if "lr" in record]
    assert scalars == [{k: v for k, v in record.items() if k != "stage"} for record in recorded]
    assert [values["step"] for values in wandb.logged if "samples/global/0" in values] == [2, 3]
    [artifact] = wandb.artifacts
    assert (artifact.type, artifact.files) == ("report", [str(config.out / "report.html")])
    assert wandb.ends == [0]
    assert json.loads((config.out / "tracker.json").read_text()) == {"tracker": "wandb", "run": run["id"]}


def test_a_resume_goes_on_in_the_same_run(
    make_tracked: MakeConfig, wandb: Wandb, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = make_tracked(tmp_path / "run", "wandb")
    with monkeypatch.context() as patch:
        at_step(patch, 1, interrupt)
        assert not train(config, console=QUIET).finished
    train(load_config(config.out), resume=True, console=QUIET)
    first, second = wandb.runs
    assert first["id"] == second["id"]
    assert wandb.ends == [130, 0]
    assert [values["step"] for values in wandb.logged if "lr" in values] == [1, 2, 3]


def test_a_run_that_fails_ends_as_failed(make_tracked: MakeConfig, wandb: Wandb, tmp_path: Path) -> None:
    config = make_tracked(tmp_path / "run", "wandb")
    stages = {"global": replace(config.stages["global"], lr=1e9)}
    with pytest.raises(RuntimeError, match=r"is nan|is inf"):
        train(replace(config, stages=stages), console=QUIET)
    assert wandb.ends == [1]


def test_a_tracker_that_fails_ends_no_training(make_tracked: MakeConfig, wandb: Wandb, tmp_path: Path) -> None:
    console = Console(record=True, file=io.StringIO(), width=300)
    wandb.broken = True
    config = make_tracked(tmp_path / "run", "wandb")
    assert train(config, console=console).finished
    said = console.export_text()
    assert said.count("wandb cannot log (no route to host): training goes on without it") == 1
    assert [record["step"] for record in read_metrics(config.out) if "lr" in record] == [1, 2, 3]


class MLflow(ModuleType):
    """A stand-in for the library and its client, with what hdgan calls."""

    def __init__(self) -> None:
        super().__init__("mlflow")
        self.entities = SimpleNamespace(
            Param=lambda key, value: (key, value), Metric=lambda key, value, now, step: (key, value, step)
        )
        self.params: dict[str, str] = {}
        self.metrics: list[tuple[str, float, int]] = []
        self.images: list[tuple[str, int, tuple[int, int]]] = []
        self.artifacts: list[str] = []
        self.states: list[str] = []
        self.experiments: list[str] = []

    def MlflowClient(self) -> MLflow:
        return self

    def get_experiment_by_name(self, name: str) -> None:
        return None

    def create_experiment(self, name: str) -> str:
        self.experiments.append(name)
        return "7"

    def create_run(self, experiment: str, run_name: str) -> SimpleNamespace:
        assert experiment == "7"
        self.states.append(f"begun {run_name}")
        return SimpleNamespace(info=SimpleNamespace(run_id="abc"))

    def update_run(self, run: str, status: str) -> None:
        if run != "abc":
            raise ValueError(f"Run {run} not found")
        self.states.append(status)

    def log_batch(self, run: str, metrics: Any = (), params: Any = ()) -> None:
        assert run == "abc"
        assert len(params) <= 100
        self.metrics += metrics
        self.params |= dict(params)

    def log_image(self, run: str, image: Any, key: str, step: int) -> None:
        self.images.append((key, step, image.size))

    def log_artifact(self, run: str, file: str) -> None:
        self.artifacts.append(file)

    def set_terminated(self, run: str, status: str) -> None:
        self.states.append(status)


@pytest.fixture
def mlflow(monkeypatch: pytest.MonkeyPatch) -> MLflow:
    library = MLflow()
    monkeypatch.setitem(sys.modules, "mlflow", library)
    monkeypatch.delenv("MLFLOW_EXPERIMENT_NAME", raising=False)
    return library


def test_mlflow_gets_the_same(
    make_tracked: MakeConfig, mlflow: MLflow, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = make_tracked(tmp_path / "run", "mlflow")
    with monkeypatch.context() as patch:
        at_step(patch, 2, interrupt)
        train(config, console=QUIET)
    train(load_config(config.out), resume=True, console=QUIET)
    assert mlflow.experiments == ["hdgan"]
    assert mlflow.params["model.generator.ngf"] == "4"
    assert [step for name, _, step in mlflow.metrics if name == "lr"] == [1, 2, 3]
    assert mlflow.images == [("global/0", 2, (16, 8)), ("global/0", 3, (16, 8))]
    assert mlflow.artifacts == [str(config.out / "report.html")] * 2
    assert mlflow.states == ["begun run", "KILLED", "RUNNING", "FINISHED"]


def test_a_run_that_the_tracker_does_not_know(make_tracked: MakeConfig, mlflow: MLflow, tmp_path: Path) -> None:
    config = make_tracked(tmp_path / "run", "mlflow")
    train(config, console=QUIET)
    (config.out / "tracker.json").write_text('{"tracker": "mlflow", "run": "xyz"}')
    with (
        typed_as(),
        pytest.raises(
            ConfigError,
            match=r"--log\.to mlflow does not start \(Run xyz not found\): .* or delete .*tracker\.json to begin",
        ),
    ):
        train(config, resume=True, console=QUIET)
    (config.out / "tracker.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"tracker\.json is damaged.*delete it to begin another run"):
        train(config, resume=True, console=QUIET)


@pytest.mark.parametrize("name", ["wandb", "mlflow"])
def test_a_tracker_that_is_not_installed(
    make_tracked: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """It is noticed before anything is read or written."""
    monkeypatch.setitem(sys.modules, name, None)
    config = make_tracked(tmp_path / "run", name)
    with (
        typed_as(),
        pytest.raises(ConfigError, match=rf"--log\.to {name} needs a package .* `pip install -e \"\.\[{name}\]\"`"),
    ):
        train(replace(config, data=replace(config.data, root=tmp_path / "nowhere")), console=QUIET)
    assert not config.out.exists()


@pytest.mark.wandb
def test_the_real_wandb_offline(make_tracked: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path / "wandb-files"))
    (tmp_path / "wandb-files").mkdir()
    console = Console(record=True, file=io.StringIO(), width=300)
    config = make_tracked(tmp_path / "run", "wandb")
    with monkeypatch.context() as patch:
        at_step(patch, 2, interrupt)
        train(config, console=console)
    train(load_config(config.out), resume=True, console=console)
    assert "cannot log" not in console.export_text()
    identity = json.loads((config.out / "tracker.json").read_text())["run"]
    folders = list((tmp_path / "wandb-files").glob("wandb/offline-run-*"))
    assert folders
    assert all(folder.name.endswith(identity) for folder in folders)
    assert any(folder.rglob("*.png") for folder in folders)


@pytest.mark.mlflow
def test_the_real_mlflow_in_a_database(
    make_tracked: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow import MlflowClient

    uri = f"sqlite:///{tmp_path}/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    monkeypatch.chdir(tmp_path)  # where it puts artifacts
    console = Console(record=True, file=io.StringIO(), width=300)
    config = make_tracked(tmp_path / "run", "mlflow")
    with monkeypatch.context() as patch:
        at_step(patch, 2, interrupt)
        train(config, console=console)
    train(load_config(config.out), resume=True, console=console)
    assert "cannot log" not in console.export_text()
    client = MlflowClient(tracking_uri=uri)
    identity = json.loads((config.out / "tracker.json").read_text())["run"]
    run = client.get_run(identity)
    assert run.info.status == "FINISHED"
    assert run.data.params["model.generator.ngf"] == "4"
    history = client.get_metric_history(identity, "g_gan")
    recorded = [record["g_gan"] for record in read_metrics(config.out) if "lr" in record]
    assert [(point.step, point.value) for point in history] == list(zip([1, 2, 3], recorded, strict=True))
    names = {artifact.path for artifact in client.list_artifacts(identity)}
    assert {"report.html", "images"} <= names
    assert list_steps(config.out)[-1] == 3
