"""Going back to a good checkpoint: what is undone, what stays, and that no kill changes the end."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from rich.console import Console
from torch import Tensor

from hdgan.checkpoints import MODEL_FILE, STYLES_FILE, checkpoint_path, list_steps, read_best
from hdgan.errors import CheckpointError, TrainingError
from hdgan.seeding import seed_everything
from hdgan.training import (
    LogConfig,
    OptimConfig,
    TrainConfig,
    health,
    load_config,
    loop,
    rollback,
    saving,
    train,
    trainer,
)
from hdgan.training.logs import Metrics, read_metrics
from hdgan.training.state import StageState
from tests.training.test_loop import at_step, contents, equal, interrupt

pytestmark = pytest.mark.usefixtures("plain_report")

MakeConfig = Callable[..., TrainConfig]
QUIET = Console(quiet=True)
BAD_STEP = 25


@pytest.fixture
def make_watched(make_config: MakeConfig) -> MakeConfig:
    """A stage of 30 steps and one of 3, with a checkpoint every 10 steps, which may go back."""

    def make(out: Path, **options: Any) -> TrainConfig:
        log = LogConfig(
            metrics_every=1, samples_every=5, samples=1, checkpoint_every=10, val_images=1, style_images=1, keep=1
        )
        usual = {"health": "rollback", "log": log, "optim": OptimConfig(ema_decay=0.9, pool_size=2)}
        config = make_config(out, **usual | options)
        first = replace(config.stages["global"], images=60)
        return replace(config, stages={"global": first, "joint": config.stages["joint"]})

    return make


def spoil(patch: pytest.MonkeyPatch, step: int = BAD_STEP, times: int = 1, factor: float = 1e4) -> None:
    """Multiply the gradients of a step, until the run has gone back for so many times."""
    take = trainer.forward_backward

    def spoilt(config: TrainConfig, state: StageState, *arguments: Any) -> Tensor:
        losses = take(config, state, *arguments)
        if state.step + 1 == step and state.health.rollbacks < times:
            for parameter in state.g_parameters:
                if parameter.grad is not None:
                    parameter.grad.mul_(factor)
        return losses

    patch.setattr(trainer, "forward_backward", spoilt)


def records(run: Path) -> list[dict[str, Any]]:
    """The records of a run, without what the clock says."""
    return [{k: v for k, v in record.items() if k != "images_per_second"} for record in read_metrics(run)]


def assert_same_end(run: Path, undisturbed: Path) -> None:
    """All records, weights, averages, optimizers, pool and memory of the watch are equal bit for bit."""
    assert records(run) == records(undisturbed)
    assert list_steps(run) == list_steps(undisturbed)
    (weights, training), (expected, wanted) = contents(run), contents(undisturbed)
    assert [name for name in expected if not torch.equal(weights[name], expected[name])] == []
    assert equal(training, wanted)
    assert read_best(run) == read_best(undisturbed)


def test_a_bad_batch_is_undone(make_watched: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    console = Console(record=True, file=io.StringIO(), width=400)
    config = make_watched(tmp_path / "run")
    spoil(monkeypatch)
    train(config, console=console)
    steps = [record["step"] for record in records(config.out) if "lr" in record]
    assert steps == list(range(1, 34))
    rates = {record["step"]: record["lr"] for record in records(config.out) if "lr" in record}
    [event] = [record for record in records(config.out) if "event" in record]
    assert (event["event"], event["step"], event["rollbacks"]) == ("rollback", 20, 1)
    assert event["text"].startswith("step 25 of stage global: the gradient of G is ")
    assert event["text"].endswith(
        "back to step 20 with G's learning rate at 0.5 and D's at 0.5 of the configured one (rollback 1 of at most 3)"
    )
    assert event["text"] in console.export_text()
    stage = config.stages["global"]
    assert rates[20] == pytest.approx(stage.lr * (30 - 19) / 15)
    assert rates[21] == pytest.approx(0.5 * stage.lr * (30 - 20) / 15)
    assert rates[33] < 0.5 * config.stages["joint"].lr  # the next stage keeps the lower rate
    _, training = contents(config.out)
    assert training["health"]["rollbacks"] == 1
    assert training["health"]["good"] == 33
    samples = sorted(int(path.name) for path in (config.out / "samples/global").glob("0*"))
    assert samples == [5, 10, 15, 20, 25, 30]


def test_what_was_written_after_the_checkpoint_is_gone_at_once(
    make_watched: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Right after the rollback, before any step is taken again."""
    config = make_watched(tmp_path / "run")
    spoil(monkeypatch, 29)
    seen: dict[str, Any] = {}
    go_back = loop.roll_back

    def looked_at(*arguments: Any) -> StageState:
        state = go_back(*arguments)
        seen["steps"] = [record["step"] for record in read_metrics(config.out)]
        seen["samples"] = sorted(int(path.name) for path in (config.out / "samples/global").glob("0*"))
        seen["state"] = state.step, state.best is not None and state.best[0], state.health.rollbacks
        return state

    monkeypatch.setattr(loop, "roll_back", looked_at)
    train(config, console=QUIET)
    assert max(seen["steps"]) == 20
    assert seen["samples"] == [5, 10, 15, 20]
    assert seen["state"][0] == 20
    assert seen["state"][2] == 1


def test_a_run_that_fails_before_its_first_checkpoint_begins_again(
    make_watched: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = make_watched(tmp_path / "run")
    spoil(monkeypatch, 3, factor=float("nan"))
    result = train(config, console=QUIET)
    assert result.finished
    first, *_ = records(config.out)
    assert (first["event"], first["step"]) == ("rollback", 0)
    assert first["text"].startswith("step 3 of stage global: grad_g is nan: back to step 0 ")


@pytest.mark.parametrize("factor", [1e4, float("inf")])
def test_the_last_rollback_does_not_help(
    make_watched: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, factor: float
) -> None:
    config = make_watched(tmp_path / "run", health_rollbacks=2)
    spoil(monkeypatch, times=9, factor=factor)
    problem = "the gradient of G is .* times its usual norm" if factor == 1e4 else "grad_g is (inf|nan)"
    with pytest.raises(TrainingError, match=rf"^step 25 of stage global: {problem}.*, after 2 rollbacks; "):
        train(config, console=QUIET)
    assert [record["rollbacks"] for record in records(config.out) if "event" in record] == [1, 2]
    _, training = contents(config.out)
    assert (training["step"], training["health"]["rate_g"]) == (20, 0.25)
    # Somebody who finds the cause goes on from there.
    monkeypatch.undo()
    assert train(load_config(config.out), resume=True, console=QUIET).finished


def test_a_run_interrupted_at_every_step_goes_back_alike(
    make_watched: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A resumed run judges by what its checkpoint remembers, and goes back as far as an undisturbed one."""
    undisturbed = make_watched(tmp_path / "undisturbed")
    spoil(monkeypatch)
    train(undisturbed, console=QUIET)
    config = replace(undisturbed, out=tmp_path / "run")
    resume = False
    stop = {7, 20, 23, 24, 32}
    for _ in range(len(stop) + 1):
        with monkeypatch.context() as patch:

            def seed(*keys: int) -> None:
                if keys[2] + 1 in stop:
                    stop.discard(keys[2] + 1)
                    interrupt()
                seed_everything(*keys)

            patch.setattr(trainer, "seed_everything", seed)
            if train(config, resume=resume, console=QUIET).finished:
                break
        resume = True
    assert not stop
    assert_same_end(config.out, undisturbed.out)


class Killed(BaseException):
    """In place of SIGKILL: nothing catches it."""


def kills() -> Iterator[tuple[str, Callable[[pytest.MonkeyPatch], None]]]:
    """Moments of a rollback at which the process dies, once."""

    def dying(module: Any, name: str, *, after: bool, number: int = 1) -> Callable[[pytest.MonkeyPatch], None]:
        def plant(patch: pytest.MonkeyPatch) -> None:
            plain, calls = getattr(module, name), iter(range(1, 1000))

            def die(*arguments: Any, **options: Any) -> Any:
                due = next(calls) == number
                if due and not after:
                    raise Killed
                result = plain(*arguments, **options)
                if due:
                    raise Killed
                return result

            patch.setattr(module, name, die)

        return plant

    yield "before", dying(rollback, "_remove_samples", after=False)
    yield "samples are gone", dying(rollback, "_remove_samples", after=True)
    yield "restored", dying(rollback, "saved_state", after=True)
    yield "metrics are cut", dying(Metrics, "rewind", after=True)
    yield "recorded", dying(rollback, "_record", after=True)
    yield "saved", dying(rollback, "finish_saving", after=False)
    yield "done", dying(rollback, "finish_saving", after=True)


@pytest.mark.parametrize("plant", [plant for _, plant in kills()], ids=[name for name, _ in kills()])
def test_a_kill_at_any_moment_of_a_rollback_changes_nothing(
    make_watched: MakeConfig,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    plant: Callable[[pytest.MonkeyPatch], None],
) -> None:
    spoil(monkeypatch)
    undisturbed, config = make_watched(tmp_path / "undisturbed"), make_watched(tmp_path / "run")
    train(undisturbed, console=QUIET)
    with monkeypatch.context() as patch:
        plant(patch)
        with pytest.raises(Killed):
            train(config, console=QUIET)
    train(load_config(config.out), resume=True, console=QUIET)
    assert_same_end(config.out, undisturbed.out)


def test_a_checkpoint_with_a_symptom_is_neither_good_nor_best(
    make_watched: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """G saturates from step 15 on, which counts at step 24: the checkpoint of step 20 is not the one to go back to."""
    take = trainer.forward_backward

    def saturated(config: TrainConfig, state: StageState, *arguments: Any) -> Tensor:
        values = take(config, state, *arguments)
        if state.step + 1 >= 15 and not state.health.rollbacks:
            values[-4] = 1.0
        return values

    monkeypatch.setattr(trainer, "forward_backward", saturated)
    monkeypatch.setitem(health.LASTING, "saturated", 10)
    config = make_watched(tmp_path / "run")
    before: dict[str, Any] = {}

    def looked_at(*arguments: Any) -> StageState:
        before["checkpoints"], before["best"] = list_steps(config.out), read_best(config.out)
        return go_back(*arguments)

    go_back = loop.roll_back
    monkeypatch.setattr(loop, "roll_back", looked_at)
    train(config, console=QUIET)
    [event] = [record for record in records(config.out) if "event" in record]
    assert event["text"].startswith("step 24 of stage global: 100% of the values of G's images are beyond ±0.99")
    assert event["step"] == 10
    assert before["checkpoints"] == [10, 20]  # one is kept as the latest, one to go back to
    assert before["best"].step == 10


def test_styles_of_a_later_checkpoint_are_kept(
    make_watched: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are the user's work: the checkpoint that they belong to is no longer the run's, but it is not deleted."""
    console = Console(record=True, file=io.StringIO(), width=400)
    config = make_watched(tmp_path / "run")
    later = checkpoint_path(config.out, 30)
    saves = saving.save_checkpoint

    def styled(run: Path, *arguments: Any) -> Path:
        folder = saves(run, *arguments)
        if folder == later and not later.with_name(f"{later.name}-undone").exists():
            (folder / STYLES_FILE).write_bytes(b"styles")
        return folder

    monkeypatch.setattr(saving, "save_checkpoint", styled)
    monkeypatch.setattr(health.Health, "is_good", property(lambda self: self.judged < 30))
    spoil(monkeypatch, 31, factor=float("nan"))
    assert train(config, console=console).finished
    kept = later.with_name("step-00000030-undone")
    assert (kept / STYLES_FILE).read_bytes() == b"styles"
    assert (kept / MODEL_FILE).is_file()
    assert list_steps(config.out) == [33]
    assert f"{later} has styles: it is kept as {kept}" in console.export_text()


def test_a_damaged_checkpoint_does_not_cost_the_later_ones(
    make_watched: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = make_watched(tmp_path / "run")
    go_back = loop.roll_back

    def damaged(*arguments: Any) -> StageState:
        (checkpoint_path(config.out, 20) / MODEL_FILE).write_bytes(b"damaged")
        return go_back(*arguments)

    monkeypatch.setattr(loop, "roll_back", damaged)
    monkeypatch.setattr(health.Health, "is_good", property(lambda self: self.judged < 30))
    spoil(monkeypatch, 31, factor=float("nan"))
    with pytest.raises(CheckpointError, match="step-00000020"):
        train(config, console=QUIET)
    assert list_steps(config.out) == [20, 30]


def test_rollbacks_that_are_turned_on_again_do_not_undo_what_was_trained_without(
    make_watched: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = make_watched(tmp_path / "run")

    def train_to(step: int, watch: Literal["off", "rollback"]) -> None:
        with monkeypatch.context() as patch:
            at_step(patch, step, interrupt)
            train(replace(config, health=watch), resume=bool(list_steps(config.out)), console=QUIET)

    train_to(12, "rollback")
    train_to(22, "off")
    assert list_steps(config.out)[-1] == 22
    spoil(monkeypatch, factor=float("nan"))
    train(config, resume=True, console=QUIET)
    [event] = [record for record in records(config.out) if "event" in record]
    assert event["step"] == 22
