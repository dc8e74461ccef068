"""CRN in the trainer: a family without discriminator."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from rich.console import Console
from safetensors.torch import load_file

import hdgan
from hdgan.checkpoints import MODEL_FILE, checkpoint_path, list_steps
from hdgan.data import DataConfig, ScenesConfig, SizeConfig
from hdgan.errors import ConfigError
from hdgan.families import CRN, CRNConfig, CRNLoss, CRNStage
from hdgan.families.common.batch import Batch
from hdgan.families.crn.losses import CRNCriterion
from hdgan.models import VGG19Features
from hdgan.models.segmenter import Segmenter, SegmenterConfig, load_segmenter, save_segmenter
from hdgan.scenes import SPEC
from hdgan.training import PRESETS, TrainConfig, train, trainer
from hdgan.training.logs import read_metrics
from hdgan.training.trainer import accumulate_gradients

MakeConfig = Callable[..., TrainConfig]
QUIET = Console(quiet=True)


@pytest.fixture(scope="module")
def vgg(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of random weights, drawn so that the deepest features are as large as the first (He et al. 2015)."""
    torch.manual_seed(0)
    network = VGG19Features(convolution=2)
    for weight in network.parameters():
        if weight.dim() == 4:
            torch.nn.init.kaiming_normal_(weight)
    file = tmp_path_factory.mktemp("weights") / "vgg.pth"
    torch.save(network.state_dict(), file)
    return file


@pytest.fixture
def make_crn(make_config: MakeConfig, vgg: Path) -> Callable[..., TrainConfig]:
    """A tiny run of two stages, the second with a module more."""

    def make(out: Path, *, n_images: int = 1, images: int = 4, **options: object) -> TrainConfig:
        coarse = CRNStage(size=SizeConfig(width=32), batch_size=2, images=images)
        return make_config(
            out,
            model=CRNConfig(n_labels=4, n_modules=2, width=1 / 256, n_images=n_images),
            loss=CRNLoss(network_weights=vgg),
            stages={"coarse": coarse, "fine": replace(coarse, size=SizeConfig(width=64), extra_modules=1)},
            **options,
        )

    return make


def inputs() -> Batch:
    torch.manual_seed(1)
    label = torch.randint(4, (2, 4, 8)).repeat_interleave(4, 1).repeat_interleave(4, 2)
    return Batch(torch.rand(2, 3, 16, 32) * 2 - 1, label, None, None)


def test_stops_and_resumes_as_if_nothing_had_happened(
    make_crn: Callable[..., TrainConfig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def in_one_go(config: TrainConfig) -> dict[str, torch.Tensor]:
        train(config, console=QUIET)
        return load_file(checkpoint_path(config.out, list_steps(config.out)[-1]) / MODEL_FILE)

    whole = in_one_go(make_crn(tmp_path / "whole", n_images=2))
    config = make_crn(tmp_path / "stopped", n_images=2)

    class Stop(Exception):
        pass

    def stop(*keys: int) -> None:
        if keys[2] + 1 == 4:
            raise Stop
        seed(*keys)

    config = replace(config, log=replace(config.log, checkpoint_every=1))
    with monkeypatch.context() as patch:
        seed = trainer.seed_everything
        patch.setattr(trainer, "seed_everything", stop)
        with pytest.raises(Stop):
            train(config, console=QUIET)
    assert list_steps(config.out)[-1] == 3  # in the second stage
    train(config, console=QUIET, resume=True)
    resumed = load_file(checkpoint_path(config.out, 4) / MODEL_FILE)
    assert list(resumed) == list(whole)
    assert all(torch.equal(resumed[key], value) for key, value in whole.items())
    assert not any("discriminator" in key for key in whole)

    records = [record for record in read_metrics(config.out) if "lr" in record]
    assert {"g_perceptual", "l1_image", "l1_feature_1", "l1_feature_5"} <= set(records[0])
    assert not any(name.startswith("d_") for name in records[0])
    pipeline = hdgan.load(config.out, device="cpu")
    assert isinstance(pipeline.model, CRN)
    assert pipeline.model.config.growth == {"module": 3}
    assert (config.out / "report.html").is_file()


def test_learns_the_built_in_scenes(tmp_path: Path, vgg: Path, make_config: MakeConfig) -> None:
    config = make_config(
        tmp_path / "run",
        model=CRNConfig(n_labels=SPEC.n_labels, n_modules=3, width=1 / 64),
        loss=CRNLoss(network_weights=vgg),
        data=DataConfig(scenes=ScenesConfig(width=64, height=32, train=4, test=2), workers=0),
        stages={"coarse": CRNStage(size=SizeConfig(width=64), images=40, lr=2e-3, decay=0.0)},
    )
    train(config, console=QUIET)
    losses = [record["l1_image"] for record in read_metrics(config.out) if "lr" in record]
    assert len(losses) == 40
    assert sum(losses[-8:]) < 0.8 * sum(losses[:8])


@pytest.mark.parametrize("n_images", [1, 3])
def test_micro_batches_have_the_gradients_of_the_batch(vgg: Path, n_images: int) -> None:
    torch.manual_seed(0)
    model = CRN(CRNConfig(n_labels=4, n_modules=3, width=1 / 128, n_images=n_images)).double()
    config = CRNLoss(network_weights=vgg)
    # In double precision no difference between two images changes its sign, and with it a gradient.
    criterion = CRNCriterion(config, config.load_perceptual().double())
    whole_batch = replace(inputs(), photo=inputs().photo.double())
    parameters = list(model.generator.parameters())
    gradients = []
    for micro_batch in (None, 1):
        parts = list(whole_batch.split(micro_batch))
        for part in parts:
            objectives = criterion(model, part)
            assert objectives.discriminator is None
            assert objectives.parts.shape == (len(criterion.names),)
            accumulate_gradients(objectives, parameters, [], len(parts))
        gradients.append([p.grad for p in parameters])
        model.zero_grad()
    for whole, divided in zip(*gradients, strict=True):
        assert whole is not None
        torch.testing.assert_close(divided, whole, rtol=1e-6, atol=1e-12)


def test_pixels_of_no_class_count(vgg: Path) -> None:
    """With one image more classes change nothing; so all pixels must be in the masks of several."""
    config = CRNLoss(network_weights=vgg)
    criterion = CRNCriterion(config, config.load_perceptual())
    batch = inputs()
    one, two = (CRN(CRNConfig(n_labels=4, dontcare=3, n_modules=2, width=1 / 128, n_images=n)) for n in (1, 2))
    two.generator.levels.load_state_dict(one.generator.levels.state_dict())
    for parameter, of_one in zip(two.generator.head.parameters(), one.generator.head.parameters(), strict=True):
        parameter.data = torch.cat([of_one, of_one]).detach()
    torch.testing.assert_close(criterion(two, batch).parts, criterion(one, batch).parts)


def test_the_network_is_the_authors(vgg: Path, tmp_path: Path) -> None:
    network = CRNLoss(network_weights=vgg).load_perceptual()
    assert sum(isinstance(layer, torch.nn.AvgPool2d) for layer in network.modules()) == 4
    assert [feature.shape[1] for feature in network(torch.rand(1, 3, 16, 16))] == [64, 128, 256, 512, 512]
    with pytest.raises(ConfigError, match="do not exist"):
        CRNLoss(network_weights=tmp_path / "missing.pth").load_perceptual()


def test_a_scorer_instead_of_vgg(tmp_path: Path) -> None:
    scorer = tmp_path / "scorer.safetensors"
    torch.manual_seed(0)
    save_segmenter(scorer, Segmenter(SegmenterConfig(n_labels=4, width=4)))
    config = CRNLoss(network=str(scorer))
    model = CRN(CRNConfig(n_labels=4, n_modules=2, width=1 / 128))
    batch = inputs()
    _, *distances = CRNCriterion(config, config.load_perceptual())(model, batch).parts
    fake = model.images(model.condition(batch.label))[:, 0]
    network = load_segmenter(scorer)
    expected = [F.l1_loss(a, b) for a, b in zip(network.features(fake), network.features(batch.photo), strict=True)]
    torch.testing.assert_close(torch.stack(distances), torch.stack([F.l1_loss(fake, batch.photo), *expected]))


def test_preset_follows_the_authors() -> None:
    config = PRESETS["crn"]()
    coarse, fine = config.stages.values()
    assert (coarse.epochs, coarse.batch_size, coarse.lr, coarse.decay) == (200, 1, 1e-4, 0.0)
    assert (coarse.size.width, fine.size.width, fine.extra_modules, fine.epochs) == (512, 1024, 1, 20)
    assert (config.optim.beta1, config.optim.beta2) == (0.9, 0.999)
    assert fine.model(config.model).growth == {"module": 8}
