"""Checkpoints: complete or absent, strict when read, and only as many as wanted."""

from __future__ import annotations

import errno
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from hdgan.checkpoints import MODEL_FILE, TRAINING_FILE, best_step, checkpoint_path, list_steps
from hdgan.errors import CheckpointError, TrainingError
from hdgan.families import CRNConfig, ModelConfig, Pix2PixConfig, ResNetConfig, UNetConfig
from hdgan.families.registry import family_of
from hdgan.ops import label_planes
from hdgan.training import LogConfig, TrainConfig, checkpoint
from hdgan.training.checkpoint import mark_and_prune, read_training_state, remove_leftovers, restore, save_checkpoint
from hdgan.training.schedule import plan
from hdgan.training.state import StageState

MakeConfig = Callable[..., TrainConfig]


@pytest.fixture
def config(make_config: MakeConfig, tmp_path: Path) -> TrainConfig:
    return make_config(tmp_path, log=LogConfig(keep=2))


@pytest.fixture
def state(config: TrainConfig) -> StageState:
    return StageState(config, plan(config, 6)[0], torch.device("cpu"))


def save(config: TrainConfig, state: StageState, step: int, best: tuple[int, float] | None = None) -> Path:
    state.step, state.best = step, best
    return save_checkpoint(config.out, config, state, {})


def test_a_checkpoint_brings_everything_back(config: TrainConfig, state: StageState) -> None:
    for parameter in state.model.parameters():
        parameter.grad = torch.ones_like(parameter)
    for optimizer in state.optimizers.values():
        optimizer.step()
    state.ema.update(0)
    state.pool.pairs = [(torch.randint(10, (4, 4), dtype=torch.int32), torch.rand(3, 4, 4))]
    folder = save(config, state, 2, best=(1, 0.25))
    other = StageState(config, state.stage, torch.device("cpu"))
    assert not torch.equal(other.model.generator.head.weight, state.model.generator.head.weight)
    restore(folder, other, read_training_state(folder))
    for mine, theirs in ((other.model, state.model), (other.ema.model, state.ema.model)):
        for name, weight in theirs.state_dict().items():
            assert torch.equal(mine.state_dict()[name], weight)
    for name in ("optimizer_g", "optimizer_d", "pool", "pool_conditions"):
        torch.testing.assert_close(other.training_state()[name], state.training_state()[name], rtol=0, atol=0)
    assert (other.step, other.best) == (2, (1, 0.25))


def test_the_latest_and_the_best_are_kept(config: TrainConfig, state: StageState) -> None:
    for step, best in ((1, (1, 0.5)), (2, (2, 0.1)), (3, (2, 0.1)), (4, (2, 0.1)), (5, (2, 0.1))):
        save(config, state, step, best)
        assert json.loads((config.out / "checkpoints" / "best.json").read_text()) == {
            "step": best[0], "stage": "global", "val_l1": best[1]
        }  # fmt: skip
    assert list_steps(config.out) == [2, 4, 5]
    save(config, state, 6, (6, 0.05))
    assert list_steps(config.out) == [5, 6]
    assert best_step(config.out) == 6


@pytest.mark.parametrize("name", ["features.npz", "styles.safetensors"])
def test_a_checkpoint_with_styles_is_kept(config: TrainConfig, state: StageState, name: str) -> None:
    (save(config, state, 1) / name).touch()
    for step in (2, 3, 4, 5):
        save(config, state, step)
    assert list_steps(config.out) == [1, 4, 5]


def test_what_a_killed_process_left_is_finished(config: TrainConfig, state: StageState) -> None:
    for step in (1, 2, 3):
        save(config, state, step, (1, 0.5))
    # Killed between the folder of step 4 and best.json, and in the middle of other files.
    folder = checkpoint_path(config.out, 4)
    folder.mkdir()
    (folder / MODEL_FILE).touch()
    leftovers = [folder.with_name(f".{folder.name}.{rest}") for rest in ("0000000a.tmp", "0000000b.hdtmp.old")]
    for leftover in leftovers:
        leftover.mkdir()
        (leftover / MODEL_FILE).write_bytes(b"half")
    samples = config.out / "samples" / "global" / "00000004"
    samples.mkdir(parents=True)
    leftovers += [config.out / "checkpoints" / ".best.json.0000000c.tmp", samples / ".0.png.0000000d.hdtmp"]
    leftovers += [config.out / f".{name}.0000000e.tmp" for name in ("metrics.jsonl", "config.json", "report.html")]
    foreign = [config.out / ".notes.tmp", config.out / "elsewhere" / ".step.tmp", config.out / "x.json.tmp"]
    foreign[1].parent.mkdir()
    for file in leftovers[2:] + foreign:
        file.write_text("{")
    remove_leftovers(config.out)
    assert not any(leftover.exists() for leftover in leftovers)
    assert all(file.exists() for file in foreign)
    state.step, state.best = 4, (4, 0.1)
    mark_and_prune(config.out, config, state)
    assert best_step(config.out) == 4
    assert list_steps(config.out) == [3, 4]


@pytest.mark.parametrize("broken", [MODEL_FILE, TRAINING_FILE])
def test_a_full_disk_leaves_the_checkpoints_before_as_they_were(
    config: TrainConfig, state: StageState, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    first = save(config, state, 1)
    before = {path: path.read_bytes() for path in first.iterdir()}

    def write_half(path: Path) -> None:
        path.write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    if broken == MODEL_FILE:
        monkeypatch.setattr(checkpoint, "save_model", lambda path, *_, **__: write_half(path))
    else:
        monkeypatch.setattr(torch, "save", lambda _, path: write_half(path))
    message = (
        r"checkpoint \S+step-00000002 could not be written: .*No space left.*the last good checkpoint is \S+00001$"
    )
    with pytest.raises(TrainingError, match=message):
        save(config, state, 2)
    assert {path: path.read_bytes() for path in first.iterdir()} == before
    assert [path.name for path in (config.out / "checkpoints").iterdir()] == ["step-00000001"]


def test_a_write_that_pytorch_reports_in_its_own_words(
    config: TrainConfig, state: StageState, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fall_short(*_: object) -> None:
        raise RuntimeError("[enforce fail at inline_container.cc] . unexpected pos 576 vs 534")

    monkeypatch.setattr(torch, "save", fall_short)
    message = r"step-00000001: it could not be written completely; free space .*; there is no earlier one"
    with pytest.raises(TrainingError, match=message):
        save(config, state, 1)
    assert list_steps(config.out) == []


@pytest.mark.parametrize("kept", [0, 10, 0.5])
def test_a_damaged_training_state_is_named(config: TrainConfig, state: StageState, kept: float) -> None:
    folder = save(config, state, 1)
    content = (folder / TRAINING_FILE).read_bytes()
    (folder / TRAINING_FILE).write_bytes(content[: int(kept if kept != 0.5 else len(content) / 2)])
    with pytest.raises(CheckpointError, match=r"training\.pt .*; or delete the folder .*step-00000001"):
        read_training_state(folder)


def change(folder: Path, **parts: Any) -> None:
    """Write training.pt with other parts; None leaves a part out."""
    content = torch.load(folder / TRAINING_FILE, weights_only=True) | parts
    torch.save({name: part for name, part in content.items() if part is not None}, folder / TRAINING_FILE)


def test_pools_of_earlier_versions_are_read(config: TrainConfig, state: StageState) -> None:
    """They have dense conditions and images in one tensor."""
    label, ids = torch.randint(4, (2, 8, 16)), torch.randint(3, (2, 8, 16))
    condition, fakes = label_planes(label, ids, 4), torch.rand(2, 3, 8, 16)
    folder = save(config, state, 1)
    change(folder, pool=list(torch.cat([condition.dense(), fakes], dim=1)), pool_conditions=None)
    restore(folder, state, read_training_state(folder))
    codes, images = map(torch.stack, zip(*state.pool.pairs, strict=True))
    assert torch.equal(codes, condition.codes)
    assert torch.equal(images, fakes)
    change(folder, pool=[torch.rand(9, 8, 16)])
    with pytest.raises(
        CheckpointError, match="pool of generated images in the checkpoint is not of a model with 5 chan"
    ):
        restore(folder, state, read_training_state(folder))


@pytest.mark.parametrize(
    ("parts", "says"),
    [
        ({"stage": None}, r"training\.pt: option stage is missing"),
        ({"optimizer_g": None}, r"training\.pt: option optimizer_g is missing"),
        ({"stage": 3}, r"training\.pt: stage is 3: give text"),
        ({"step": "1"}, r"training\.pt: step is '1': give a whole number from 0"),
        ({"step": 10**30}, "step is a number of more than 29 digits"),
        ({"step": 2}, r"training\.pt is from step 2"),
        ({"first_step": 2}, "is from step 1, in a stage that began at step 2"),
        ({"best": (1, float("nan"))}, r"best\[1\] is nan: give a number"),
        ({"pool": [1]}, r"pool\[0\] is 1: give a table of StoredTensor"),
        ({"pool_conditions": [1]}, r"pool_conditions\[0\] is 1: give a table of StoredTensor"),
        ({"optimizer_g": []}, r"optimizer_g is \[\]: give a table of Optimizer"),
        ({"optimizer_g": {"state": {"0": {}}, "param_groups": []}}, "optimizer_g.state is '0': give a whole number"),
        ({"optimizer_g": {"state": {0: {"step": 1}}, "param_groups": []}}, r"option optimizer_g\.state\.0\.exp_avg"),
    ],
)
def test_a_training_state_of_other_parts_is_named(
    config: TrainConfig, state: StageState, parts: dict[str, Any], says: str
) -> None:
    folder = save(config, state, 1)
    change(folder, **parts)
    with pytest.raises(CheckpointError, match=rf"{says}.*; or delete the folder .*step-00000001 to resume from"):
        read_training_state(folder)


@pytest.mark.parametrize("wrong", ["shape", "not finite", "number", "missing"])
def test_moments_of_other_parameters_are_refused(config: TrainConfig, state: StageState, wrong: str) -> None:
    for parameter in state.model.parameters():
        parameter.grad = torch.ones_like(parameter)
    for optimizer in state.optimizers.values():
        optimizer.step()
    state.step += 1
    folder = save(config, state, 1)
    saved = torch.load(folder / TRAINING_FILE, weights_only=True)["optimizer_g"]
    first = saved["state"][0]["exp_avg"]
    saved["state"][0]["exp_avg"] = {"shape": first[:1], "not finite": first * torch.nan}.get(wrong, first)
    if wrong == "number":
        saved["state"][9999] = saved["state"][0]
    if wrong == "missing":
        saved["param_groups"] = [{"lr": 1.0}]
    change(folder, optimizer_g=saved)
    other = StageState(config, state.stage, torch.device("cpu"))
    with pytest.raises(
        CheckpointError, match=r"does not train the same networks as stage global of the new config \(.*\)"
    ):
        restore(folder, other, read_training_state(folder))


def test_another_architecture_is_named_option_by_option(
    make_config: MakeConfig, config: TrainConfig, state: StageState
) -> None:
    folder = save(config, state, 1)
    generator = replace(config.model.generator, n_blocks=2, upsample="resize")
    wider = replace(config, model=replace(config.model, generator=generator))
    other = StageState(wider, plan(wider, 6)[0], torch.device("cpu"))
    message = (
        r"does not have the architecture of the run's config: "
        r"generator\.n_blocks is 1 in the checkpoint, 2 in the config, "
        r"generator\.upsample is transposed in the checkpoint, resize in the config; .*init_from"
    )
    with pytest.raises(CheckpointError, match=message):
        restore(folder, other, read_training_state(folder))


@pytest.mark.parametrize(
    ("wanted", "says"),
    [
        (
            Pix2PixConfig(n_labels=4, generator=ResNetConfig(ngf=2, n_blocks=1)),
            "generator.ngf is 1 in the checkpoint, 2 in the config, "
            "generator.kind is unet in the checkpoint, resnet in the config; ",
        ),
        (
            CRNConfig(n_labels=4, n_modules=2, width=1 / 64),
            "family is pix2pix in the checkpoint, crn in the config, "
            "instances is True in the checkpoint, False in the config; ",
        ),
    ],
)
def test_another_kind_of_network_is_named(
    make_config: MakeConfig, tmp_path: Path, wanted: ModelConfig, says: str
) -> None:
    def started(model: ModelConfig) -> tuple[TrainConfig, StageState]:
        usual = next(iter(family_of(model).presets.values()))()
        stage = replace(next(iter(usual.stages.values())), images=6)
        config = make_config(tmp_path, model=model, loss=usual.loss, stages={"global": stage})
        return config, StageState(config, plan(config, 6)[0], torch.device("cpu"))

    config, state = started(Pix2PixConfig(n_labels=4, generator=UNetConfig(ngf=1, n_downs=2)))
    folder = save(config, state, 1)
    with pytest.raises(CheckpointError, match=f"does not have the architecture of the run's config: {says}"):
        restore(folder, started(wanted)[1], read_training_state(folder))
