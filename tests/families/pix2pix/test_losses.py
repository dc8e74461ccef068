"""The step of pix2pix against the paper's, written out here a second time; and whole runs."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from rich.console import Console
from safetensors.torch import load_file
from torch import Tensor

import hdgan
from hdgan.checkpoints import find_checkpoint
from hdgan.commands.main import main
from hdgan.config.serialization import to_plain
from hdgan.data import DataConfig, PairedDataset, SizeConfig, find_pairs
from hdgan.evaluation.comparison import data_of
from hdgan.families import (
    PatchConfig,
    Pix2Pix,
    Pix2PixConfig,
    Pix2PixLoss,
    Pix2PixStage,
    Pix2PixTrainConfig,
    ResNetConfig,
    UNetConfig,
)
from hdgan.families.common.augmentation import Augmentation
from hdgan.families.common.batch import Batch
from hdgan.families.common.pool import FakePool
from hdgan.families.pix2pix.losses import Pix2PixCriterion
from hdgan.families.saving import load_model, save_model
from hdgan.ops import LabelPlanes
from hdgan.training import PRESETS, LogConfig, OptimConfig, TrainConfig, load_config, train
from hdgan.training.datasets import open_data, resolved
from hdgan.training.schedule import plan
from hdgan.training.state import StageState
from hdgan.training.trainer import accumulate_gradients

MODEL = Pix2PixConfig(
    n_labels=4,
    instances=False,
    generator=UNetConfig(ngf=4, n_downs=3),
    discriminator=PatchConfig(ndf=4, n_layers=2),
)


def make_inputs(seed: int = 0, batch: int = 2) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    label = torch.randint(4, (batch, 16, 24), generator=generator)
    return Batch(torch.rand(batch, 3, 16, 24, generator=generator).double() * 2 - 1, label, None, None)


def plain_objectives(model: Pix2Pix, inputs: Batch, gan: str, l1: float) -> tuple[Tensor, Tensor, list[Tensor]]:
    """G's objective, D's, and their parts, with D run anew for each."""
    assert model.discriminator is not None
    assert inputs.label is not None
    condition = F.one_hot(inputs.label.long(), 4).movedim(3, 1).double().contiguous()
    fake = model.generator(condition)

    def score(image: Tensor) -> Tensor:
        assert model.discriminator is not None
        return model.discriminator(torch.cat([condition, image], dim=1))[0][-1]

    def loss(score: Tensor, real: bool) -> Tensor:
        if gan == "lsgan":
            return (score - float(real)).square().mean()
        return F.softplus(-score if real else score).mean()

    g_gan, g_l1 = loss(score(fake), True), l1 * (fake - inputs.photo).abs().mean()
    d_real, d_fake = loss(score(inputs.photo), True), loss(score(fake.detach()), False)
    return g_gan + g_l1, (d_real + d_fake) / 2, [g_gan, g_l1, d_real, d_fake]


@pytest.mark.parametrize("gan", ["vanilla", "lsgan"])
@pytest.mark.parametrize("norm", ["batch", "instance"])
def test_objectives_and_gradients_are_the_papers(norm: str, gan: str) -> None:
    torch.manual_seed(0)
    ours = Pix2Pix(replace(MODEL, norm=norm)).double()  # type: ignore[arg-type]
    plain, inputs = copy.deepcopy(ours), make_inputs()
    criterion = Pix2PixCriterion(Pix2PixLoss(gan=gan, l1=10.0), FakePool(0), Augmentation())  # type: ignore[arg-type]
    assert criterion.names == ("g_gan", "g_l1", "d_real", "d_fake")

    torch.manual_seed(7)
    objectives = criterion(ours, inputs)
    g_parameters, d_parameters = (list(network.parameters()) for network in (ours.generator, ours.discriminator))  # type: ignore[union-attr]
    accumulate_gradients(objectives, g_parameters, d_parameters, 1)  # type: ignore[arg-type]

    torch.manual_seed(7)
    generator, discriminator, parts = plain_objectives(plain, inputs, gan, 10.0)
    torch.testing.assert_close(objectives.parts.float(), torch.stack(parts).float(), rtol=1e-5, atol=1e-6)
    expected = dict(plain.named_parameters())
    for name, value in ours.named_parameters():
        objective = generator if name.startswith("generator.") else discriminator
        (grad,) = torch.autograd.grad(objective, expected[name], retain_graph=True, allow_unused=True)
        assert (grad is None) == (value.grad is None), name
        if grad is not None and value.grad is not None:
            torch.testing.assert_close(value.grad, grad, rtol=1e-4, atol=1e-6)


def test_without_l1() -> None:
    criterion = Pix2PixCriterion(Pix2PixLoss(l1=0.0), FakePool(0), Augmentation())
    assert criterion.names == ("g_gan", "d_real", "d_fake")
    objectives = criterion(Pix2Pix(MODEL), replace(make_inputs(), photo=make_inputs().photo.float()))
    assert objectives.parts.shape == (3,)
    assert objectives.generator.detach() == objectives.parts[0]


def test_pool_shows_d_old_pictures() -> None:
    model, pool = Pix2Pix(MODEL), FakePool(2)
    criterion = Pix2PixCriterion(Pix2PixLoss(), pool, Augmentation())
    first = replace(make_inputs(), photo=make_inputs().photo.float())
    criterion(model, first)
    assert [(tuple(codes.shape), tuple(fake.shape)) for codes, fake in pool.pairs] == [((16, 24), (3, 16, 24))] * 2
    codes, fakes = map(torch.stack, zip(*pool.pairs, strict=True))
    pool.query = lambda *_: (codes, fakes)  # type: ignore[method-assign]
    old = torch.cat([LabelPlanes(codes, 4, False).dense(), fakes], dim=1)
    objectives = criterion(model, replace(make_inputs(1), photo=make_inputs(1).photo.float()))
    assert model.discriminator is not None
    expected = F.softplus(model.discriminator(old)[0][-1]).mean()
    torch.testing.assert_close(objectives.parts[3], expected.detach(), rtol=1e-5, atol=1e-6)


def make_config(out: Path, root: Path, **options: Any) -> TrainConfig:
    stage = Pix2PixStage(size=SizeConfig(width=48, height=24), images=6, batch_size=2)
    config = Pix2PixTrainConfig(
        out=out,
        model=replace(MODEL, n_labels=4, instances=True, generator=UNetConfig(ngf=4)),
        data=DataConfig(root=root, workers=0),
        stages={"global": stage},
        loss=Pix2PixLoss(),
        optim=OptimConfig(ema_decay=0.5),
        log=LogConfig(metrics_every=1, samples_every=3, samples=1, checkpoint_every=2, val_images=1),
        device="cpu",
    )
    return replace(config, **options)


def test_a_run_resumes_bit_for_bit(dataset: Path, tmp_path: Path) -> None:
    def config(name: str, images: int) -> TrainConfig:
        size = SizeConfig(width=48, height=24)
        return make_config(
            tmp_path / name,
            dataset,
            stages={"global": Pix2PixStage(size=size, images=images, batch_size=2, decay=0.0)},
        )

    whole, quiet = config("whole", 6), Console(quiet=True)
    train(whole, console=quiet)
    train(config("parts", 2), console=quiet)
    for images in (4, 6):
        assert train(config("parts", images), resume=True, console=quiet).step == images // 2
    resumed, straight = (load_file(find_checkpoint(tmp_path / name)) for name in ("parts", "whole"))
    assert list(resumed) == list(straight)
    assert all(torch.equal(resumed[key], value) for key, value in straight.items())
    assert any(key.startswith("ema") for key in straight)
    model = load_model(find_checkpoint(whole.out), ema=False)[0]
    assert model.state_dict()["generator.up_norms.0.num_batches_tracked"] == 3
    assert isinstance(model.config, Pix2PixConfig)
    assert model.config.generator.n_downs == 4
    assert load_config(whole.out).model == whole.model


def test_averages_take_the_statistics_over(dataset: Path, tmp_path: Path) -> None:
    config = make_config(tmp_path / "run", dataset)
    train(config, console=Console(quiet=True))
    file = find_checkpoint(config.out)
    averaged, trained = (load_model(file, ema=ema)[0].state_dict() for ema in (True, False))
    buffers = [key for key in averaged if "running" in key or "tracked" in key]
    assert any(key.startswith("generator.") for key in buffers)
    assert all(torch.equal(averaged[key], trained[key]) for key in buffers)
    assert not torch.equal(averaged["generator.downs.0.weight"], trained["generator.downs.0.weight"])


def test_pictures_by_seed(dataset: Path, tmp_path: Path) -> None:
    config = make_config(tmp_path / "run", dataset)
    train(config, console=Console(quiet=True))
    pipeline = hdgan.load(config.out, device="cpu")
    label = torch.randint(4, (20, 33))
    ids = torch.randint(6, (20, 33))
    state = torch.get_rng_state()
    pictures = [pipeline(label, ids, seed=seed) for seed in (1, 1, 2)]
    assert torch.equal(torch.get_rng_state(), state)
    assert pictures[0].shape == (3, 20, 33)
    assert torch.equal(pictures[0], pictures[1])
    assert not torch.equal(pictures[0], pictures[2])
    assert not torch.equal(pipeline(label, ids), pipeline(label, ids))
    sources = [str(config.out), "--label", str(dataset / "test_label"), "--instance", str(dataset / "test_inst")]
    for name, seed in (("a", "3"), ("b", "3"), ("c", "4")):
        assert main(["generate", *sources, "--out", str(tmp_path / name), "--seed", seed, "--device", "cpu"]) == 0
    first, second, other = (
        [file.read_bytes() for file in sorted((tmp_path / name).iterdir())] for name in ("a", "b", "c")
    )
    assert first == second
    assert first != other


@pytest.mark.parametrize(("name", "n_labels", "root"), [("pix2pix", 35, "cityscapes"), ("pairs-pix2pix", 0, "pairs")])
def test_presets_are_the_papers(name: str, n_labels: int, root: str) -> None:
    config = PRESETS[name]()
    assert config.loss == Pix2PixLoss(gan="vanilla", l1=100.0)
    assert (config.model.n_labels, config.model.instances) == (n_labels, False)
    assert config.data.root == Path("datasets") / root
    (stage,) = plan(config, 10)
    assert (stage.config.batch_size, stage.config.lr, stage.steps) == (1, 2e-4, 2000)
    assert stage.learning_rate(1000) == 2e-4
    assert 0 < stage.learning_rate(1999) < 1e-6
    assert (stage.config.size, stage.config.size.training.width) == (SizeConfig(256, 256, jitter=30), 286)


def test_depth_is_that_of_the_smallest_stage(dataset: Path, tmp_path: Path) -> None:
    small, large = (
        Pix2PixStage(size=SizeConfig(width=40, height=24)),
        Pix2PixStage(size=SizeConfig(width=80, height=48)),
    )
    config = make_config(tmp_path, dataset, stages={"one": small, "two": large})
    config = resolved(config, open_data(config, Console(quiet=True)))
    states = [StageState(config, stage, torch.device("cpu")) for stage in plan(config, 6)]
    assert [state.model.config.generator.n_downs for state in states] == [4, 4]  # type: ignore[attr-defined]
    states[1].take_over(states[0].model)


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        (SizeConfig(), 4),
        (SizeConfig(width=64), 5),
        (SizeConfig(height=64), 6),
        (SizeConfig(width=64, height=64, jitter=8), 6),
        (SizeConfig(width=128, crop_width=9), 3),
    ],
)
def test_depth_is_that_of_the_shortest_side(size: SizeConfig, expected: int, dataset: Path, tmp_path: Path) -> None:
    config = make_config(tmp_path, dataset, stages={"one": Pix2PixStage(size=size)})
    data = open_data(config, Console(quiet=True))
    assert data.train_sizes == ((32, 16),)
    model = resolved(config, data).model
    assert isinstance(model, Pix2PixConfig)
    assert model.generator == UNetConfig(ngf=4, n_downs=expected)
    assert resolved(replace(config, model=model), data).model == model


def test_command_line_turns_dropout_off(dataset: Path, tmp_path: Path) -> None:
    arguments = [
        "train", "pix2pix", "--out", str(tmp_path / "run"), "--data.root", str(dataset), "--data.workers", "0",
        "--model.n-labels", "4", "--model.generator.ngf", "2", "--model.generator.dropout-levels",
        "--model.norm", "instance", "--model.discriminator.ndf", "2", "--device", "cpu",
        "--stages.global.images", "1", "--stages.global.size.width", "32", "--stages.global.size.height", "32",
    ]  # fmt: skip
    assert main(arguments) == 0
    model = load_model(find_checkpoint(tmp_path / "run"))[0]
    assert isinstance(model, Pix2Pix)
    assert (model.config.norm, model.generator.dropout_levels) == ("instance", ())
    assert len(model.generator.downs) == 5


def test_command_line_trains_a_resnet_generator(dataset: Path, tmp_path: Path) -> None:
    arguments = [
        "train", "pix2pix-resnet", "--out", str(tmp_path / "run"), "--data.root", str(dataset), "--data.workers", "0",
        "--model.n-labels", "4", "--model.generator.ngf", "2", "--model.generator.n-blocks", "1",
        "--model.generator.no-dropout", "--model.discriminator.ndf", "2", "--device", "cpu",
        "--stages.global.images", "1", "--stages.global.size.width", "32", "--stages.global.size.height", "32",
    ]  # fmt: skip
    assert main(arguments) == 0
    config = load_model(find_checkpoint(tmp_path / "run"))[0].config
    assert isinstance(config, Pix2PixConfig)
    assert config.generator == ResNetConfig(ngf=2, n_blocks=1, dropout=False)
    report = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    assert ">generator.kind</th><td>resnet<small>default unet<" in report


def test_the_preset_is_evaluated_at_the_size_of_its_crops(dataset: Path, tmp_path: Path) -> None:
    config = replace(PRESETS["pix2pix"](), model=MODEL, data=DataConfig(root=dataset))
    file = tmp_path / "model.safetensors"
    save_model(file, Pix2Pix(MODEL), extra={"train": to_plain(config), "stage": "global"})
    data, size = data_of(hdgan.load(file, device="cpu"))
    held_out = PairedDataset(find_pairs(data, "test").pairs, data, size, 4)
    assert held_out[0]["photo"].shape == (3, 256, 256)
