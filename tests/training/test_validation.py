"""What checkpoints are measured by, and which is best."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from rich.console import Console

from hdgan.checkpoints import best_step
from hdgan.data import DataConfig, SizeConfig
from hdgan.errors import ConfigError, DataError
from hdgan.evaluation import ScorerTraining, train_scorer
from hdgan.families import PatchConfig, Pix2Pix, Pix2PixConfig, Pix2PixLoss, UNetConfig
from hdgan.inference import load
from hdgan.metrics.confusion import Confusion
from hdgan.metrics.scorer import load_scorer
from hdgan.training import LogConfig, TrainConfig, train, write_report
from hdgan.training.datasets import open_data
from hdgan.training.examples import Examples
from hdgan.training.logs import read_metrics
from hdgan.training.validation import Validation, is_better

MakeConfig = Callable[..., TrainConfig]
QUIET = Console(quiet=True)
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def scorer(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("scorer") / "scorer.safetensors"
    training = ScorerTraining(steps=5, width=2)
    return train_scorer(DataConfig(root=dataset, workers=0), 4, SizeConfig(), out, training, device="cpu")


def validated(config: TrainConfig, run: Path) -> tuple[dict[str, float], Examples, torch.nn.Module]:
    data = open_data(config, QUIET)
    examples = Examples(data.validation(SizeConfig()), config, CPU)
    model = load(run, device="cpu").model
    return Validation(config, data, CPU)(model, examples), examples, model


def test_l1_is_the_mean_distance_to_the_photos(make_config: MakeConfig, run: Path, tmp_path: Path) -> None:
    values, examples, model = validated(make_config(tmp_path, log=LogConfig(val_images=9)), run)
    distances = [(examples.generate(model, one, 0) - one.photo).abs().mean() for one in examples.inputs(9)]  # type: ignore[arg-type]
    assert len(distances) == 2
    assert values == {"val_l1": pytest.approx(float(torch.stack(distances).mean()))}


def test_psnr_is_that_of_the_pictures(make_config: MakeConfig, run: Path, tmp_path: Path) -> None:
    values, examples, model = validated(make_config(tmp_path, log=LogConfig(best="psnr")), run)
    # Differences are twice as large in [-1, 1] as in [0, 1].
    errors = [((examples.generate(model, one, 0) - one.photo) / 2).square().mean() for one in examples.inputs(9)]  # type: ignore[arg-type]
    assert values["val_psnr"] == pytest.approx(float((-10 * torch.stack(errors).log10()).mean()), abs=1e-3)
    assert set(values) == {"val_l1", "val_psnr"}


def test_mean_iou_is_what_the_scorer_recognises(
    make_config: MakeConfig, run: Path, scorer: Path, tmp_path: Path
) -> None:
    values, examples, model = validated(make_config(tmp_path, log=LogConfig(best="miou", scorer=scorer)), run)
    network, counts = load_scorer(scorer, 4, CPU), Confusion(4)
    for one in examples.inputs(9):
        assert one.label is not None
        counts.add(counts.count(one.label, network(examples.generate(model, one, 0))))  # type: ignore[arg-type]
    assert values["val_miou"] == counts.mean_iou


def test_which_of_two_values_is_better() -> None:
    assert is_better("l1", 0.1, 0.2)
    assert is_better("scorer_fid", 1.0, 2.0)
    assert is_better("miou", 0.2, 0.1)
    assert is_better("psnr", 20.0, 19.0)
    assert not is_better("ssim", 0.5, 0.5)


@pytest.mark.usefixtures("plain_report")
def test_a_run_keeps_what_is_best_by_the_metric_chosen(
    make_config: MakeConfig, scorer: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ious = iter([0.1, 0.3, 0.2, 0.1, 0.1, 0.1, 0.4, 0.6, 0.5])
    monkeypatch.setattr(Validation, "__call__", lambda *_: {"val_l1": 0.5, "val_miou": next(ious)})
    log = LogConfig(best="miou", scorer=scorer, checkpoint_every=1, keep=1, style_images=1)
    config = make_config(tmp_path / "run", log=log)
    train(config, console=QUIET)
    assert best_step(config.out) == 8
    best = json.loads((config.out / "checkpoints" / "best.json").read_text())
    assert best == {"step": 8, "stage": "joint", "val_miou": 0.6}
    measured = [record for record in read_metrics(config.out) if "val_miou" in record]
    assert [record["val_l1"] for record in measured] == [0.5] * 9
    page = write_report(config.out).read_text(encoding="utf-8")
    assert "Best validation mean IoU" in page
    assert "0.6000" in page


def longer(config: TrainConfig, **log: object) -> TrainConfig:
    """One checkpoint more, of step 10, with other options of its log."""
    stages = {name: replace(stage, images=6 if name != "joint" else 8) for name, stage in config.stages.items()}
    return replace(config, stages=stages, log=replace(config.log, **log))  # type: ignore[arg-type]


@pytest.mark.usefixtures("plain_report")
@pytest.mark.parametrize("change", ["nothing", "metric", "scorer", "pictures"])
def test_a_best_of_another_kind_is_replaced_on_a_resume(
    change: str,
    make_config: MakeConfig,
    scorer: Path,
    dataset: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    values = {"val_l1": 0.5, "val_miou": 0.9, "val_pixel_accuracy": 0.9}
    monkeypatch.setattr(Validation, "__call__", lambda *_: dict(values))
    file = Path(shutil.copy(scorer, tmp_path / "scorer.safetensors"))
    config = make_config(tmp_path / "run", log=LogConfig(best="miou", scorer=file, style_images=1))
    train(config, console=QUIET)
    before = best_step(config.out)
    values |= {"val_miou": 0.1, "val_pixel_accuracy": 0.1}  # worse, if they could be compared
    if change == "scorer":  # another file under the same name
        file.unlink()
        data = DataConfig(root=dataset, workers=0)
        train_scorer(data, 4, SizeConfig(), file, ScorerTraining(1, width=2, seed=1), device="cpu")
    options: dict[str, dict[str, object]] = {"metric": {"best": "pixel_accuracy"}, "pictures": {"val_images": 1}}
    train(longer(config, **options.get(change, {})), resume=True, console=QUIET)
    best = json.loads((config.out / "checkpoints" / "best.json").read_text())
    assert (best["step"] == before) == (change == "nothing")
    assert set(best) == {"step", "stage", "val_pixel_accuracy" if change == "metric" else "val_miou"}


def test_a_metric_that_cannot_be_had_is_refused_before_the_first_step(
    make_config: MakeConfig, scorer: Path, dataset: Path, tmp_path: Path
) -> None:
    def config(**log: object) -> TrainConfig:
        return make_config(tmp_path / "run", log=LogConfig(**log))  # type: ignore[arg-type]

    with pytest.raises(ConfigError, match=r"log\.best miou needs log\.scorer FILE: train one with"):
        config(best="miou")
    with pytest.raises(
        ConfigError, match=r"scorer\.safetensors applies only to log\.best miou, pixel_accuracy or scorer_fid"
    ):
        config(scorer=scorer)
    nine = train_scorer(
        DataConfig(root=dataset, workers=0), 9, SizeConfig(), tmp_path / "nine.safetensors", ScorerTraining(1, width=1)
    )
    with pytest.raises(ConfigError, match="has 9 classes, but the label maps have 4"):
        train(config(best="miou", scorer=nine), console=QUIET)
    with pytest.raises(
        ConfigError, match=r"--log\.best ssim cannot be measured here \(stage global: its window needs images"
    ):
        train(config(best="ssim"), console=QUIET)
    with pytest.raises(ConfigError, match=r"--log\.best scorer_fid cannot be measured here \(stage .* a single image"):
        train(config(best="scorer_fid", scorer=scorer, val_images=1), console=QUIET)
    assert not (tmp_path / "run" / "config.json").exists()


def test_a_damaged_validation_picture_shows_before_the_first_step(
    make_config: MakeConfig, make_data: Callable[..., Path], tmp_path: Path
) -> None:
    root = make_data("data", test=6)
    picture = root / "test_img" / "s4_img.png"
    picture.write_bytes(picture.read_bytes()[:-200])
    config = make_config(tmp_path / "run", log=LogConfig(val_images=5))
    config = replace(config, data=replace(config.data, root=root))
    with pytest.raises(DataError, match="s4_img"):
        train(config, console=QUIET)
    assert not (config.out / "config.json").exists()


def test_the_same_weights_have_the_same_value(make_config: MakeConfig, tmp_path: Path) -> None:
    """Whatever was drawn before, although noise makes each image another one."""
    network = Pix2PixConfig(n_labels=4, generator=UNetConfig(ngf=2, n_downs=3), discriminator=PatchConfig(ndf=2))
    config = make_config(tmp_path, stages={}, model=network, loss=Pix2PixLoss())
    data, model = open_data(config, QUIET), Pix2Pix(network)
    examples = Examples(data.validation(SizeConfig()), config, CPU)
    validation, state = Validation(config, data, CPU), torch.get_rng_state()
    first = validation(model, examples)
    assert torch.equal(torch.get_rng_state(), state)
    torch.rand(7)
    assert validation(model, examples) == first
    one = next(examples.inputs(1))
    pictures = [examples.generate(model, one, index) for index in (0, 0, 1)]
    assert torch.equal(pictures[0], pictures[1])
    assert not torch.equal(pictures[0], pictures[2])
    other = Examples(examples.dataset, replace(config, seed=config.seed + 1), CPU)
    assert not torch.equal(other.generate(model, one, 0), pictures[0])
