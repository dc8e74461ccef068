"""Whole runs: stopped, killed, continued, extended, poisoned; each must end as if nothing had happened, or say why."""

from __future__ import annotations

import io
import itertools
import multiprocessing
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console
from safetensors.torch import load_file
from torch import Tensor

from hdgan.checkpoints import MODEL_FILE, TRAINING_FILE, best_step, checkpoint_path, find_checkpoint, list_steps
from hdgan.config.options import typed_as
from hdgan.data import SizeConfig, pack_dataset
from hdgan.errors import CheckpointError, ConfigError, DataError, TrainingError
from hdgan.families import Pix2PixHDLoss
from hdgan.families.common.batch import Objectives
from hdgan.families.pix2pixhd.losses import Pix2PixHDCriterion
from hdgan.families.saving import load_model, read_metadata, save_model
from hdgan.inference import load
from hdgan.seeding import seed_everything
from hdgan.sharding.world import World
from hdgan.training import (
    AugmentConfig,
    LogConfig,
    OptimConfig,
    TrainConfig,
    load_config,
    saving,
    setup,
    train,
    trainer,
)
from hdgan.training.ema import MovingAverage
from hdgan.training.logs import read_metrics
from hdgan.training.schedule import plan
from hdgan.training.setup import RunSetup
from hdgan.training.state import StageState
from hdgan.training.trainer import Trainer
from hdgan.training.validation import Validation

pytestmark = pytest.mark.usefixtures("plain_report")

MakeConfig = Callable[..., TrainConfig]
QUIET = Console(quiet=True)


def at_step(patch: pytest.MonkeyPatch, step: int, action: Callable[[], None]) -> None:
    """Do something at the beginning of one step."""

    def seed(*keys: int) -> None:
        if keys[2] + 1 == step:
            action()
        seed_everything(*keys)

    patch.setattr(trainer, "seed_everything", seed)


def interrupt() -> None:
    os.kill(os.getpid(), signal.SIGINT)


def losses(run: Path) -> list[dict[str, Any]]:
    """The records of the steps, without what the clock says."""
    return [
        {name: value for name, value in record.items() if name != "images_per_second"}
        for record in read_metrics(run)
        if "lr" in record
    ]


def contents(run: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    folder = checkpoint_path(run, list_steps(run)[-1])
    return load_file(folder / MODEL_FILE), torch.load(folder / TRAINING_FILE, weights_only=True)


def equal(one: Any, other: Any) -> bool:
    """Whether nested containers hold the same keys, numbers and tensors."""
    if isinstance(one, Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(equal(value, other[key]) for key, value in one.items())
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(equal, one, other))
    return bool(one == other)


def assert_same_end(run: Path, undisturbed: Path, *, measured_alike: bool = True) -> None:
    """Losses of all steps, weights, averages, styles, optimizers and pool are equal bit for bit.

    So is which step was best, unless one run measured more checkpoints than the other.
    """
    assert losses(run) == losses(undisturbed)
    (weights, training), (expected, wanted) = contents(run), contents(undisturbed)
    assert weights.keys() == expected.keys()
    assert [name for name in expected if not torch.equal(weights[name], expected[name])] == []
    best, expected_best = training.pop("best"), wanted.pop("best")
    assert equal(training, wanted)
    assert best == expected_best or not measured_alike


VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "everything": {
        "optim": OptimConfig(ema_decay=0.9, clip=0.5, pool_size=2),
        "augment": AugmentConfig(("color", "translation", "cutout"), probability=0.5, adaptive=True, speed=20),
        "loss": Pix2PixHDLoss(vgg=0.0, gan="vanilla"),
        "precision": "bfloat16",
        "memory_format": "channels_last",
        "health": "warn",
    },
    "regularised": {"loss": Pix2PixHDLoss(vgg=0.0, gan="hinge", r1=1.0, r1_every=2)},
}


def regularised(config: TrainConfig) -> TrainConfig:
    """With spectral norm on both networks, two learning rates, warm-up and a cosine."""
    model: Any = config.model
    generator, discriminator = (replace(part, spectral_norm=True) for part in (model.generator, model.discriminator))
    model = replace(model, generator=generator, discriminator=discriminator)
    rates: dict[str, Any] = {"lr_d": 4e-4, "schedule": "cosine", "warmup": 0.4}
    return replace(config, model=model, stages={name: replace(s, **rates) for name, s in config.stages.items()})


@pytest.fixture(scope="module", params=VARIANTS)
def variant(
    plain_report: None,
    request: pytest.FixtureRequest,
    make_config: MakeConfig,
    tmp_path_factory: pytest.TempPathFactory,
) -> TrainConfig:
    """A finished, undisturbed run: plain, or with all that has a state of its own."""
    config = make_config(tmp_path_factory.mktemp("undisturbed") / "run", **VARIANTS[request.param])
    if request.param == "everything":
        stages = {name: replace(stage, micro_batch=1) for name, stage in config.stages.items()}
        data = replace(config.data, photo="stored", rotate=15.0, color_jitter=0.2)
        model: Any = config.model
        model = replace(model, generator=replace(model.generator, noise=0.3))
        config = replace(config, stages=stages, data=data, model=model)
    if request.param == "regularised":
        config = regularised(config)
    train(config, console=QUIET)
    return config


def interrupted(config: TrainConfig, out: Path, step: int) -> Path:
    """Train, press Ctrl-C in a step, and check that exactly this step is the last one."""
    with pytest.MonkeyPatch.context() as patch:
        at_step(patch, step, interrupt)
        train(replace(config, out=out), console=QUIET)
    assert list_steps(out)[-1] == step
    return out


@pytest.mark.parametrize("step", [5, 8], ids=["in enhancer", "in joint"])
def test_an_interrupted_run_whose_images_workers_read_ends_as_an_undisturbed_one(
    variant: TrainConfig, tmp_path: Path, step: int
) -> None:
    config = replace(variant, data=replace(variant.data, workers=1))
    out = interrupted(config, tmp_path / "run", step)
    train(load_config(out), resume=True, console=QUIET)
    assert_same_end(out, variant.out)


def test_a_run_interrupted_at_every_step(variant: TrainConfig, tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGINT)
    out = interrupted(variant, tmp_path / "run", 1)
    for step in range(2, 10):
        with pytest.MonkeyPatch.context() as patch:
            at_step(patch, step, interrupt)
            train(load_config(out), resume=True, console=QUIET)
    assert_same_end(out, variant.out)
    assert signal.getsignal(signal.SIGINT) is before


def test_a_second_interrupt_stops_at_once(make_config: MakeConfig, tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        at_step(patch, 2, lambda: [interrupt(), interrupt()])  # type: ignore[arg-type, return-value]
        with pytest.raises(KeyboardInterrupt):
            train(make_config(tmp_path / "run"), console=QUIET)
    assert list_steps(tmp_path / "run") == []


def test_resuming_a_finished_run_changes_nothing(run: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(run, tmp_path / "copy")
    train(replace(load_config(run), out=copy), resume=True, console=QUIET)
    assert_same_end(copy, run)
    assert best_step(copy) == best_step(run)


def test_a_finished_run_can_be_extended(make_config: MakeConfig, tmp_path: Path) -> None:
    def with_length(out: str, images: int) -> TrainConfig:
        config = make_config(tmp_path / out)
        joint = replace(config.stages["joint"], decay=0.0, images=images)
        return replace(config, stages=config.stages | {"joint": joint})

    train(with_length("long", 10), console=QUIET)
    train(with_length("short", 6), console=QUIET)
    train(with_length("short", 10), resume=True, console=QUIET)
    assert list_steps(tmp_path / "short")[-1] == 11
    assert_same_end(tmp_path / "short", tmp_path / "long")


def test_metrics_after_the_checkpoint_of_a_resume_are_dropped(run: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(run, tmp_path / "copy")
    shutil.rmtree(checkpoint_path(copy, 9))
    train(replace(load_config(run), out=copy), resume=True, console=QUIET)
    assert [record["step"] for record in losses(copy)] == list(range(1, 10))
    assert_same_end(copy, run)


def test_a_resume_cannot_change_the_architecture(run: Path) -> None:
    config = load_config(run)
    wider = replace(config, model=replace(config.model, encoder=replace(config.model.encoder, nef=4)))
    with pytest.raises(
        CheckpointError, match=r"does not have the architecture .* encoder\.nef is 2 in the checkpoint, 4 in"
    ):
        train(wider, resume=True, console=QUIET)
    renamed = replace(config, stages={"other": config.stages["joint"]})
    with pytest.raises(CheckpointError, match="stage joint, which the run's config no longer contains"):
        train(renamed, resume=True, console=QUIET)


@pytest.mark.parametrize("which", ["run", "checkpoint"])
def test_a_run_starts_from_the_weights_of_another(
    run: Path, make_config: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, which: str
) -> None:
    source = run if which == "run" else checkpoint_path(run, 9) / MODEL_FILE
    config = make_config(tmp_path / "new", init_from=source)
    config = replace(config, stages={"joint": config.stages["joint"]})
    begun: dict[str, Tensor] = {}

    def remember(self: Trainer, batch: Any) -> None:
        if self.state.step == 0:
            begun.update({name: value.clone() for name, value in self.state.model.state_dict().items()})
        train_step(self, batch)

    train_step = Trainer.train_step
    monkeypatch.setattr(Trainer, "train_step", remember)
    train(config, console=QUIET)
    saved = load_file(checkpoint_path(run, 9) / MODEL_FILE)
    assert begun
    assert all(torch.equal(value, saved[name]) for name, value in begun.items())
    assert list_steps(config.out) == [3]


@pytest.mark.parametrize("part", ["generator", "discriminator"])
def test_weights_with_and_without_spectral_norm_do_not_mix(
    run: Path, make_config: MakeConfig, tmp_path: Path, part: str
) -> None:
    config = make_config(tmp_path / "new", init_from=run)
    model: Any = config.model
    network = replace(getattr(model, part), spectral_norm=True)
    config = replace(config, model=replace(model, **{part: network}), stages={"joint": config.stages["joint"]})
    says = rf"has a {part} without spectral norm: use model\.{part}\.spectral_norm=False$"
    with pytest.raises(ConfigError, match=says):
        train(config, console=QUIET)
    with pytest.raises(CheckpointError, match=rf"{part}\.spectral_norm is False in the checkpoint, True in the config"):
        train(replace(load_config(run), model=config.model), resume=True, console=QUIET)


def test_generators_with_and_without_noise_do_not_mix(run: Path, make_config: MakeConfig, tmp_path: Path) -> None:
    plain = make_config(tmp_path / "plain")
    model: Any = plain.model
    noisy = replace(plain, out=tmp_path / "noisy", model=replace(model, generator=replace(model.generator, noise=0.3)))
    with pytest.raises(ConfigError, match=r"has a generator without noise: use model\.generator\.noise 0$"):
        train(replace(noisy, init_from=run, stages={"joint": noisy.stages["joint"]}), console=QUIET)
    train(replace(noisy, stages={"global": noisy.stages["global"]}), console=QUIET)
    with pytest.raises(ConfigError, match=r"has a generator with noise: use model\.generator\.noise 0\.3$"):
        train(replace(plain, init_from=noisy.out), console=QUIET)


def test_a_smaller_run_begins_a_larger_one(run: Path, make_config: MakeConfig, tmp_path: Path) -> None:
    config = make_config(tmp_path / "small")
    train(replace(config, stages={"global": config.stages["global"]}), console=QUIET)
    larger = replace(make_config(tmp_path / "large"), init_from=tmp_path / "small")
    larger = replace(larger, stages={"enhancer": config.stages["enhancer"]})
    train(larger, console=QUIET)
    small, large = (contents(tmp_path / name)[0] for name in ("small", "large"))
    assert torch.equal(large["generator.coarse.stem.weight"], small["generator.trunk.stem.weight"])
    with pytest.raises(ConfigError, match="has 1 enhancer, but stage global has 0: a run can only grow"):
        train(make_config(tmp_path / "back", init_from=run), console=QUIET)
    wider = replace(config, out=tmp_path / "wide", init_from=tmp_path / "small")
    wider = replace(wider, model=replace(config.model, generator=replace(config.model.generator, ngf=8)))
    with pytest.raises(
        ConfigError, match=r"does not have the architecture of stage global: size mismatch for head\.weight.*\.$"
    ):
        train(wider, console=QUIET)


def test_the_best_checkpoint_of_the_latest_stage_is_kept(
    make_config: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    distances = iter([0.5, 0.01, 0.4, 0.3, 0.2, 0.25, 0.6, 0.7, 0.8])
    monkeypatch.setattr(Validation, "__call__", lambda *_: {"val_l1": next(distances)})
    config = make_config(tmp_path / "run", log=LogConfig(checkpoint_every=1, keep=1, style_images=1))
    train(config, console=QUIET)
    assert best_step(config.out) == 7
    assert list_steps(config.out) == [7, 9]
    measured = [record["val_l1"] for record in read_metrics(config.out) if "val_l1" in record]
    assert measured == [0.5, 0.01, 0.4, 0.3, 0.2, 0.25, 0.6, 0.7, 0.8]


def test_a_best_checkpoint_that_is_gone_is_forgotten(
    run: Path, make_config: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = make_config(tmp_path / "run", log=LogConfig(checkpoint_every=1, keep=1, style_images=1))
    distances = iter([0.5] * 6 + [0.1, 0.2, 0.3, 0.4])
    monkeypatch.setattr(Validation, "__call__", lambda *_: {"val_l1": next(distances)})
    train(config, console=QUIET)
    assert best_step(config.out) == 7
    shutil.rmtree(checkpoint_path(config.out, 7))
    train(config, resume=True, console=QUIET)
    assert best_step(config.out) is None
    assert find_checkpoint(config.out).parent.name == "step-00000009"
    longer = replace(config.stages["joint"], images=8)
    train(replace(config, stages=config.stages | {"joint": longer}), resume=True, console=QUIET)
    assert best_step(config.out) == 10


def test_a_resume_from_other_weights_is_refused(run: Path, make_config: MakeConfig, tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError,
        match=r"init_from elsewhere has no effect on a run that has already started: "
        r"leave it out",
    ):
        train(replace(load_config(run), init_from=Path("elsewhere")), resume=True, console=QUIET)
    config = make_config(tmp_path / "new", init_from=run)
    interrupted(replace(config, stages={"joint": config.stages["joint"]}), config.out, 1)
    with pytest.raises(ConfigError, match=rf"init_from None has no effect .* started from {run}: leave it out"):
        train(replace(load_config(config.out), init_from=None), resume=True, console=QUIET)
    assert train(load_config(config.out), resume=True, console=QUIET).finished


def test_samples_of_a_run_without_checkpoint_do_not_stay(
    make_config: MakeConfig, make_data: Callable[..., Path], tmp_path: Path
) -> None:
    config = make_config(tmp_path / "run", images=2)
    old = config.out / "samples" / "global" / "inputs" / "0_real.png"
    old.parent.mkdir(parents=True)
    old.write_bytes(b"old")
    (config.out / "samples" / "gone").mkdir()
    train(config, console=QUIET)
    assert old.read_bytes() != b"old"
    assert (config.out / "samples" / "gone").is_dir()  # no run had begun here: it is the user's
    shutil.rmtree(config.out / "checkpoints")
    train(config, console=QUIET)
    assert sorted(path.name for path in (config.out / "samples").iterdir()) == ["enhancer", "global", "joint"]
    other = replace(config.data, root=make_data(size=(48, 16)))
    stages = config.stages | {"joint": replace(config.stages["joint"], images=4)}
    train(replace(config, data=other, stages=stages), resume=True, console=QUIET)
    with Image.open(config.out / "samples" / "joint" / "inputs" / "0_real.png") as image:
        assert image.size != (32, 16)


def snapshot(run: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in (run / "checkpoints").rglob("*") if path.is_file()}


@pytest.mark.parametrize("part", ["g_gan", "d_real"])
def test_a_loss_that_is_not_finite_stops_the_run(
    variant: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, part: str
) -> None:
    config = replace(variant, out=tmp_path / "run", log=replace(variant.log, checkpoint_every=1))
    plain, kept, poisoned = Pix2PixHDCriterion.__call__, {}, False

    def poison() -> None:
        nonlocal poisoned
        poisoned = True
        kept.update(snapshot(config.out))

    def spoilt(self: Pix2PixHDCriterion, *arguments: Any) -> Objectives:
        objectives = plain(self, *arguments)
        if poisoned:
            objectives.parts[self.names.index(part)] = float("nan")
        return objectives

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Pix2PixHDCriterion, "__call__", spoilt)
        at_step(patch, 5, poison)
        message = rf"^step 5 of stage enhancer: {part} is nan; the last good checkpoint is \S+step-00000004: resume"
        with pytest.raises(TrainingError, match=message):
            train(config, console=QUIET)
    assert snapshot(config.out) == kept
    train(config, resume=True, console=QUIET)
    assert_same_end(config.out, variant.out, measured_alike=False)


def test_a_loss_that_is_not_finite_is_that_of_its_step(
    make_config: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is read while the next step runs, but the message and the log are those of its own step."""
    plain, poisoned = Pix2PixHDCriterion.__call__, False

    def poison() -> None:
        nonlocal poisoned
        poisoned = True

    def spoilt(self: Pix2PixHDCriterion, *arguments: Any) -> Objectives:
        objectives = plain(self, *arguments)
        return replace(objectives, parts=objectives.parts * float("nan")) if poisoned else objectives

    monkeypatch.setattr(Pix2PixHDCriterion, "__call__", spoilt)
    at_step(monkeypatch, 5, poison)
    config = make_config(tmp_path / "run")
    with pytest.raises(TrainingError, match=r"^step 5 of stage enhancer: g_gan is nan.*step-00000003: resume"):
        train(config, console=QUIET)
    assert [record["step"] for record in losses(config.out)] == [1, 2, 3, 4]


def test_a_picture_that_cannot_be_read_does_not_save_a_step_that_failed(
    make_config: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The loss of the last step is only read once the next batch is missing."""

    def spoilt(self: Pix2PixHDCriterion, *arguments: Any) -> Objectives:
        objectives = plain(self, *arguments)
        return replace(objectives, parts=objectives.parts * float("nan")) if steps == 2 else objectives

    def batches(*arguments: Any) -> Iterator[Any]:
        nonlocal steps
        for batch in itertools.islice(all_batches(*arguments), 2):
            steps += 1
            yield batch
        raise DataError("an image cannot be read")

    plain, all_batches, steps = Pix2PixHDCriterion.__call__, RunSetup.batches, 0
    monkeypatch.setattr(Pix2PixHDCriterion, "__call__", spoilt)
    monkeypatch.setattr(RunSetup, "batches", batches)
    config = make_config(tmp_path / "run")
    with pytest.raises(TrainingError, match=r"^step 2 of stage global: g_gan is nan.*there is no checkpoint yet"):
        train(config, console=QUIET)
    assert list_steps(config.out) == []


@pytest.mark.parametrize("network", ["generator", "discriminator"])
def test_weights_that_are_not_finite_are_never_saved(
    make_config: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, network: str
) -> None:
    """A gradient that overflows spoils the weights while the losses of its step are still fine."""
    config = make_config(tmp_path / "run", log=LogConfig(checkpoint_every=1))
    take, steps = trainer.forward_backward, 0

    def overflow(config: TrainConfig, state: StageState, *arguments: Any) -> Tensor:
        nonlocal steps
        steps += 1
        parts = take(config, state, *arguments)
        if steps == 2:
            chosen = state.d_parameters[-2] if network == "discriminator" else state.g_parameters[0]
            assert chosen.grad is not None
            chosen.grad.fill_(float("inf"))
        return parts

    monkeypatch.setattr(trainer, "forward_backward", overflow)
    with pytest.raises(TrainingError, match=r"^step 2 of stage global: .*the largest weight is nan.*00000001: resume"):
        train(config, console=QUIET)
    assert list_steps(config.out) == [1]
    assert all(bool(tensor.isfinite().all()) for tensor in contents(config.out)[0].values())


def test_a_learning_rate_that_is_far_too_high(make_config: MakeConfig, tmp_path: Path) -> None:
    config = make_config(tmp_path / "run")
    stages = {name: replace(stage, lr=1e9) for name, stage in config.stages.items()}
    with pytest.raises(TrainingError, match=r"step [23] of stage global: .* is (nan|inf).*there is no checkpoint yet"):
        train(replace(config, stages=stages), console=QUIET)
    assert list_steps(config.out) == []


def test_a_disk_that_is_really_full(variant: TrainConfig, tmp_path: Path) -> None:
    """The system refuses to make files larger than the first stage's: writes of the second fall short half-way."""
    import resource

    config = replace(variant, out=tmp_path / "run", log=replace(variant.log, keep=9))
    first = interrupted(config, config.out, 3)
    largest = max(path.stat().st_size for path in checkpoint_path(first, 3).iterdir())
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (largest + 100, hard))
    try:
        with pytest.raises(
            TrainingError, match=r"step-00000006 could not be written: .*the last good .*step-00000003$"
        ):
            train(config, resume=True, console=QUIET)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert [path.name for path in (config.out / "checkpoints").glob("*step*")] == ["step-00000003"]
    train(config, resume=True, console=QUIET)
    assert_same_end(config.out, variant.out)


def test_a_to_b_pairs_without_labels_or_features(make_config: MakeConfig, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for part in ("A", "B"):
        (tmp_path / f"train_{part}").mkdir()
        for i in range(3):
            photo = rng.integers(0, 256, (13, 21, 3), dtype=np.uint8)
            Image.fromarray(photo).save(tmp_path / f"train_{part}" / f"{i}.png")
    config = make_config(tmp_path / "run", images=2, batch_size=1)
    config = replace(
        config,
        model=replace(config.model, n_labels=0, instances=False, feature_channels=0),
        data=replace(config.data, root=tmp_path),
        stages={"global": replace(config.stages["global"], size=replace(config.stages["global"].size, width=None))},
    )
    report = train(config, console=QUIET).report
    assert report == config.out / "report.html"
    assert report.is_file()
    with Image.open(config.out / "samples" / "global" / "00000002" / "0.png") as image:
        assert image.size == (21, 13)
    assert sorted(path.name for path in (config.out / "samples/global/inputs").iterdir()) == [
        "0_input.png",
        "0_real.png",
    ]
    metadata = read_metadata(find_checkpoint(config.out))
    assert metadata["inputs"] == {"depth": "uint8", "layout": "ab", "aspects": [21 / 13, 21 / 13]}
    assert load(config.out, device="cpu").input_depth == "uint8"


def test_the_batch_must_divide(make_config: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = make_config(tmp_path / "run")
    stages = {"global": replace(config.stages["global"], batch_size=6, micro_batch=4)}
    with pytest.raises(ConfigError, match=r"stages\.global\.micro_batch 4 does not divide the 6 images"):
        train(replace(config, stages=stages), console=QUIET)
    world = World(0, 4, torch.device("cpu"))
    stage = plan(replace(config, stages=stages), 6)[0]
    with pytest.raises(ConfigError, match=r"stages\.global\.batch_size 6 cannot be split over 4 processes"):
        setup.check_batch(stage, world)


@pytest.mark.slow
def test_a_run_killed_at_random_moments_ends_as_an_undisturbed_one(
    make_config: MakeConfig,
    to_arguments: Callable[[TrainConfig], list[str]],
    start: Callable[..., subprocess.Popen[str]],
    tmp_path: Path,
) -> None:
    rng = np.random.default_rng(0)
    config = make_config(tmp_path / "undisturbed", log=LogConfig(metrics_every=1, checkpoint_every=1, val_images=1))
    train(config, console=QUIET)
    out = tmp_path / "killed"
    arguments = to_arguments(replace(config, out=out))
    for step in sorted(rng.choice(np.arange(1, 9), 2, replace=False)):
        process = start("train", *arguments)
        # A checkpoint is being written, or has been, when the process dies.
        while process.poll() is None and not any((out / "checkpoints").glob(f"*step-{step:08}*")):
            time.sleep(0.001)
        time.sleep(rng.uniform(0, 0.03))
        process.kill()
        output = process.communicate()[0]
        assert process.returncode == -signal.SIGKILL, output
        arguments = ["--resume", str(out)] if list_steps(out) else arguments
    train(load_config(out), resume=True, console=QUIET)
    assert_same_end(out, config.out)
    assert best_step(out) == best_step(config.out)
    assert list_steps(out) == list_steps(config.out)
    assert not list(out.rglob(".*.hdtmp*"))


def test_a_checkpoint_on_the_way_out_is_not_measured(make_config: MakeConfig, tmp_path: Path) -> None:
    out = interrupted(make_config(tmp_path / "x"), tmp_path / "run", 2)
    assert list_steps(out) == [2]
    assert best_step(out) is None
    assert not any("val_l1" in record for record in read_metrics(out))


def test_weights_without_a_discriminator_say_so(run: Path, make_config: MakeConfig, tmp_path: Path) -> None:
    model, _ = load_model(find_checkpoint(run), ema=False)
    model.discriminator = None
    save_model(tmp_path / "weights.safetensors", model)
    console = Console(record=True, quiet=False, file=io.StringIO(), width=200)
    config = make_config(tmp_path / "run")
    joint = replace(config, stages={"joint": config.stages["joint"]}, init_from=tmp_path / "weights.safetensors")
    train(joint, console=console)
    assert "contains no discriminator, which starts from new weights" in console.export_text()


def test_a_reader_that_is_killed_in_the_middle_of_a_step(
    make_config: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def kill_readers() -> None:
        readers = multiprocessing.active_children()
        assert readers
        for reader in readers:
            reader.kill()
            reader.join()

    config = make_config(tmp_path / "run", images=20)
    at_step(monkeypatch, 2, kill_readers)
    with pytest.raises(DataError, match=r"was killed.*data\.workers 0"):
        train(replace(config, data=replace(config.data, workers=1)), console=QUIET)
    [step] = list_steps(config.out)
    assert step >= 2  # batches that were read before may have been used, no step is half done
    monkeypatch.undo()
    train(replace(load_config(config.out), out=config.out), resume=True, console=QUIET)
    train(replace(config, out=tmp_path / "undisturbed"), console=QUIET)
    assert_same_end(config.out, tmp_path / "undisturbed")


@pytest.mark.parametrize("where", ["gradients", "update"])
def test_memory_that_does_not_suffice(
    make_config: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    """Before weights have moved, the last whole step is saved; in the middle of an update, they may be of two steps."""

    def fail() -> None:
        torch.empty(10**15)

    target, name = {"gradients": (trainer, "forward_backward"), "update": (MovingAverage, "update")}[where]
    at_call(monkeypatch, target, name, 3, fail)
    config = make_config(tmp_path / "run")
    with (
        typed_as(),
        pytest.raises(ConfigError, match=r"stage global.* memory of cpu: --precision bfloat16, .*micro-batch 1"),
    ):
        train(config, console=QUIET)
    assert list_steps(config.out) == ([2] if where == "gradients" else [])
    if where == "gradients":
        monkeypatch.undo()
        train(load_config(config.out), resume=True, console=QUIET)
        train(replace(config, out=tmp_path / "undisturbed"), console=QUIET)
        assert_same_end(config.out, tmp_path / "undisturbed")


def test_a_packed_dataset_trains_to_the_same_weights(
    run: Path, make_config: MakeConfig, dataset: Path, tmp_path: Path
) -> None:
    config = make_config(tmp_path / "run")
    sizes = sorted({stage.size for stage in config.stages.values()}, key=lambda size: size.width or 0)
    pack_dataset(config.data, tmp_path / "packed", sizes, config.model.n_labels)
    train(replace(config, data=replace(config.data, root=tmp_path / "packed", workers=1)), console=QUIET)
    assert_same_end(tmp_path / "run", run)


def test_a_stage_of_a_size_that_is_not_packed(make_config: MakeConfig, tmp_path: Path) -> None:
    config = make_config(tmp_path / "run")
    pack_dataset(config.data, tmp_path / "packed", [SizeConfig(width=16)])
    with pytest.raises(
        DataError, match=r"is packed in 16x8, but training needs 32x16: set stages\.STAGE\.size\.width 16"
    ):
        train(replace(config, data=replace(config.data, root=tmp_path / "packed")), console=QUIET)


def at_call(monkeypatch: pytest.MonkeyPatch, target: Any, name: str, number: int, action: Callable[[], None]) -> None:
    """Run an action before a function or method is called for the given time."""
    method, calls = getattr(target, name), iter(range(1, 10**6))

    def called(*arguments: object) -> object:
        if next(calls) == number:
            action()
        return method(*arguments)

    monkeypatch.setattr(target, name, called)


def damage(picture: Path) -> bytes:
    """Cut an image's file in half; returns what it was."""
    content = picture.read_bytes()
    picture.write_bytes(content[: len(content) // 2])
    return content


@pytest.mark.parametrize("cause", ["training", "samples", "measure", "styles"])
def test_an_error_that_the_user_can_fix_loses_no_step(
    variant: TrainConfig, make_data: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cause: str
) -> None:
    """The state after the last step is saved: fixed and resumed, the run ends as if nothing had happened."""
    data = replace(variant.data, root=make_data())
    log = replace(variant.log, samples_every=2 if cause == "samples" else 100, samples=1)
    log = replace(log, checkpoint_every=2 if cause in ("measure", "styles") else 100)
    config = replace(variant, out=tmp_path / "run", data=data, log=log)
    name, step = ("test_img/s0_img.png", 2) if cause in ("samples", "measure") else ("train_img/s1_img.png", 1)
    picture = tmp_path / "data" / name
    if cause == "styles":  # of the training image that no step has used so far
        monkeypatch.setattr(saving, "mean_styles", lambda *_: (_ for _ in ()).throw(DataError(f"{picture} cannot")))
        step = 2
    kept: list[bytes] = []
    at_step(monkeypatch, step, lambda: kept.append(damage(picture)) if cause != "styles" else None)
    console = Console(record=True, file=io.StringIO(), width=200)
    with pytest.raises(DataError, match=picture.name):
        train(config, console=console)
    saved = list_steps(config.out)
    assert len(saved) == 1
    assert saved == [2] or cause == "training"
    assert f"saved after step {saved[0]}: hdgan-train --resume {config.out}" in console.export_text()
    monkeypatch.undo()
    if kept:
        picture.write_bytes(kept[0])
    train(load_config(config.out), resume=True, console=QUIET)
    assert losses(config.out) == losses(variant.out)
    (weights, _), (expected, _) = contents(config.out), contents(variant.out)
    assert [key for key in expected if not torch.equal(weights[key], expected[key])] == []


def test_a_reader_that_dies_while_the_run_is_to_stop(
    make_config: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def batches(*_: object) -> Iterator[Any]:
        yield from itertools.islice(plain(*_), 1)
        interrupt()
        raise DataError("a process that reads images was killed")

    plain = RunSetup.batches
    monkeypatch.setattr(RunSetup, "batches", batches)
    result = train(make_config(tmp_path / "run"), console=QUIET)
    assert (result.finished, result.step) == (False, 1)
    assert list_steps(tmp_path / "run") == [1]
