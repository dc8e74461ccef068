"""`hdgan.evaluation.evaluate`: rows, oracle, and runs that cannot be compared."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console

from hdgan.config.serialization import to_plain
from hdgan.data import DataConfig, PairedDataset, SizeConfig, find_pairs
from hdgan.data.spec import DatasetSpec
from hdgan.errors import CheckpointError, ConfigError, DataError
from hdgan.evaluation import evaluate
from hdgan.evaluation.comparison import open_comparison
from hdgan.families import GeneratorConfig, Pix2Pix, Pix2PixConfig, Pix2PixHD, Pix2PixHDConfig, UNetConfig
from hdgan.families.pix2pixhd.losses import Pix2PixHDLoss
from hdgan.families.saving import save_model
from hdgan.families.stored_classes import classes_entry
from hdgan.inference import Pipeline, load
from hdgan.metrics.confusion import Confusion
from hdgan.metrics.scorer import load_scorer
from hdgan.metrics.scores import METRICS, OF_PHOTOS, ORACLE
from hdgan.models.segmenter import load_segmenter, save_segmenter

MakeData = Callable[..., Path]
N_LABELS = 4


def tiny(file: Path, *, extra: dict[str, Any] | None = None, **options: Any) -> Path:
    """A model with new weights that needs no run."""
    torch.manual_seed(0)
    config = Pix2PixHDConfig(generator=GeneratorConfig(ngf=4, n_downsample=1, n_blocks=1), **options)
    save_model(file, Pix2PixHD(config), extra=extra)
    return file


def recognised(scorer: Path, pictures: list[torch.Tensor], labels: list[torch.Tensor]) -> Confusion:
    network, counts = load_scorer(scorer, N_LABELS, torch.device("cpu")), Confusion(N_LABELS)
    for picture, label in zip(pictures, labels, strict=True):
        counts.add(counts.count(label, network(picture * 2 - 1)))
    return counts


def test_the_oracle_and_each_run_have_a_row(run: Path, scorer: Path, dataset: Path, tmp_path: Path) -> None:
    other = tiny(tmp_path / "other.safetensors", n_labels=N_LABELS)
    oracle, first, second = evaluate([run, other], scorer=scorer, device="cpu")
    assert [row.name for row in (oracle, first, second)] == [ORACLE, "finished", "other.safetensors"]
    assert all(tuple(row.metrics) == METRICS for row in (oracle, first, second))

    held_out = PairedDataset(find_pairs(DataConfig(root=dataset), "test", True).pairs, DataConfig(), SizeConfig(), 4)
    samples = [held_out[k] for k in range(2)]
    labels = [sample["label"][None] for sample in samples]
    photos = [sample["photo"][None] / 255 for sample in samples]
    expected = recognised(scorer, photos, labels)
    assert oracle.metrics["miou"] == expected.mean_iou
    assert oracle.metrics["pixel_accuracy"] == expected.pixel_accuracy
    assert list(oracle.classes) == expected.classes()
    assert all(oracle.metrics[name] is None and name in oracle.notes for name in OF_PHOTOS)

    pipeline = load(run, device="cpu")
    pictures = [(pipeline(s["label"][None], s["ids"][None]) * 255).round() / 255 for s in samples]
    assert first.metrics["miou"] == recognised(scorer, pictures, labels).mean_iou
    psnr = [float(-10 * (one - photo).square().mean().log10()) for one, photo in zip(pictures, photos, strict=True)]
    assert first.metrics["psnr"] == pytest.approx(sum(psnr) / 2, abs=1e-3)
    for row in (first, second):
        assert all(row.metrics[name] is not None for name in ("miou", "pixel_accuracy", "psnr", "ssim", "scorer_fid"))
    assert first.notes["lpips"] == "its AlexNet needs images of at least 32 pixels per side"
    assert first.notes["spectrum"] == "its tiles need images of at least 64 pixels per side"


def test_checkpoint_size_and_number_of_pictures_can_be_chosen(run: Path, scorer: Path) -> None:
    def row(**options: Any) -> dict[str, float | None]:
        return evaluate([run], scorer=scorer, device="cpu", **options)[1].metrics

    latest = row()
    for options in ({"checkpoint": "6"}, {"size": SizeConfig(width=20)}, {"max_images": 1}, {"phase": "train"}):
        assert row(**options)["psnr"] != latest["psnr"]
    assert row(max_images=9) == latest


def test_random_styles_are_drawn_for_every_instance(styled: Path, dataset: Path, tmp_path: Path) -> None:
    plain = tiny(tmp_path / "plain.safetensors", n_labels=N_LABELS)
    _, mean, plain_mean = evaluate([styled, plain], root=dataset, device="cpu")
    _, drawn, plain_drawn = evaluate([styled, plain], root=dataset, styles="random", device="cpu")
    assert plain_drawn.metrics == plain_mean.metrics
    assert drawn.metrics["psnr"] != mean.metrics["psnr"]

    pipeline, ratios = load(styled, device="cpu"), []
    held_out = PairedDataset(find_pairs(DataConfig(root=dataset), "test", True).pairs, DataConfig(), SizeConfig(), 4)
    for k in range(2):
        label, ids = held_out[k]["label"], held_out[k]["ids"]
        styles = pipeline.bank.sample(pipeline.instances(label, ids), seed=k)
        made = (pipeline(label, ids, styles=styles) * 255).round() / 255
        ratios.append(float(-10 * (made - held_out[k]["photo"] / 255).square().mean().log10()))
    assert drawn.metrics["psnr"] == pytest.approx(sum(ratios) / 2, abs=1e-3)


def test_random_styles_need_features_and_clusters(run: Path, dataset: Path, tmp_path: Path) -> None:
    plain = tiny(tmp_path / "plain.safetensors", n_labels=N_LABELS)
    with pytest.raises(ConfigError, match=r"styles random has no effect on runs without features: leave it out"):
        evaluate([plain], root=dataset, styles="random", device="cpu")
    with pytest.raises(CheckpointError, match=r"styles\.safetensors does not exist: create it with `hdgan styles"):
        evaluate([run], styles="random", device="cpu")
    with pytest.raises(ConfigError, match=r"styles is 'photo'"):
        evaluate([run], styles="photo", device="cpu")  # type: ignore[arg-type]


def test_without_a_scorer_the_rest_goes_on(run: Path) -> None:
    oracle, row = evaluate([run], device="cpu")
    assert row.metrics["psnr"] is not None
    for name in ("miou", "pixel_accuracy"):
        assert (oracle.metrics[name], row.metrics[name]) == (None, None)
        assert row.notes[name] == "no scorer: give --scorer FILE, or --train-scorer"
    assert row.notes["scorer_fid"] == "needs the features of hdgan's own scorer: --train-scorer"
    assert row.classes == ()


def test_runs_without_labels_have_no_segmentation_score(dataset: Path, tmp_path: Path) -> None:
    root = tmp_path / "pairs"
    for phase in ("train", "test"):
        shutil.copytree(dataset / f"{phase}_img", root / f"{phase}_A")
        shutil.copytree(dataset / f"{phase}_img", root / f"{phase}_B")
    model = tiny(tmp_path / "model.safetensors", n_labels=0, instances=False)
    with pytest.raises(ConfigError, match=r"scorer \S+none\.pt2 needs label maps, and A->B runs have none"):
        evaluate([model], scorer=tmp_path / "none.pt2", root=root, device="cpu")
    _, row = evaluate([model], root=root, device="cpu")
    assert (row.metrics["miou"], row.notes["miou"]) == (None, "no labels")
    assert row.metrics["psnr"] is not None
    assert row.metrics["ssim"] is not None


def test_pictures_that_a_run_was_trained_on_are_told(run: Path, dataset: Path, tmp_path: Path) -> None:
    other = tiny(tmp_path / "other.safetensors", n_labels=N_LABELS)
    copy = Path(shutil.copytree(dataset, tmp_path / "copy"))
    for phase, root, told in (("train", None, True), ("test", None, False), ("train", copy, False)):
        said, out = StringIO(), tmp_path / f"{phase}-{told}"
        evaluate([run, other], phase=phase, root=root, device="cpu", out=out, console=Console(file=said))
        page = (out / "evaluation.html").read_text(encoding="utf-8")
        warning = "Trained on exactly these images, phase train: finished. Their scores are not held-out scores."
        assert (warning in " ".join(said.getvalue().split())) == (warning in page) == told
        assert f"<dt>phase</dt><dd>{phase}</dd>" in page


def test_a_scorer_that_run_or_pictures_know_is_told(
    run: Path, scorer: Path, make_config: Callable[..., Any], dataset: Path, tmp_path: Path
) -> None:
    config = make_config(tmp_path / "run")
    gone = tmp_path / "gone.safetensors"
    copy, other = (Path(shutil.copy(scorer, tmp_path / f"{name}.safetensors")) for name in ("copy", "other"))
    save_segmenter(other, load_segmenter(other), {"trained_on": {"data": {"root": str(tmp_path)}}})

    def trained_with(loss_scorer: Path) -> Path:
        known = to_plain(replace(config, loss=Pix2PixHDLoss(vgg=1.0, network=str(loss_scorer))))
        extra = {"train": known, "stage": "joint"}
        return tiny(tmp_path / "model.safetensors", extra=extra, n_labels=N_LABELS)

    def said(model: Path, scorer: Path, phase: str = "test") -> str:
        console, out = StringIO(), tmp_path / "out"
        evaluate([model, run], scorer=scorer, phase=phase, device="cpu", out=out, console=Console(file=console))
        page = (out / "evaluation.html").read_text(encoding="utf-8")
        found = " ".join(console.getvalue().split())
        assert ("this very scorer" in found) == ("this very scorer" in page)
        assert ("scorer.safetensors was trained on" in found) == ("scorer.safetensors was trained on" in page)
        return found

    against = "Trained with this scorer as the loss network: model.safetensors. Their mean IoU"
    assert against in said(trained_with(copy), scorer)
    assert "this very scorer" not in said(trained_with(other), scorer)
    shutil.copy(scorer, gone)
    model = trained_with(gone)
    gone.unlink()
    assert "this very scorer" not in said(model, scorer)
    shutil.copy(other, gone)
    assert against in said(model, gone)
    assert f"{scorer} was trained on exactly these images, phase train: " in said(model, scorer, phase="train")
    assert "was trained on" not in said(model, other, phase="train")


def test_all_pictures_are_checked_before_the_first_is_made(
    run: Path, dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = Path(shutil.copytree(dataset, tmp_path / "data"))
    monkeypatch.setattr(Pipeline, "__call__", lambda *_, **__: pytest.fail("an image was made"))
    (root / "test_img" / "s1_img.png").write_bytes(b"nothing of the kind")
    with pytest.raises(DataError, match=r"s1_img\.png"):
        evaluate([run], root=root, device="cpu")


def test_a_small_picture_anywhere_leaves_out_ssim(dataset: Path, tmp_path: Path) -> None:
    root, model = tmp_path / "data", tiny(tmp_path / "model.safetensors", n_labels=N_LABELS, instances=False)
    for part in ("label", "img"):
        (root / f"test_{part}").mkdir(parents=True)
        for stem, height in (("s0", 16), ("s1", 10)):
            pixels = np.zeros((height, 32, 3) if part == "img" else (height, 32), np.uint8)
            Image.fromarray(pixels).save(root / f"test_{part}" / f"{stem}.png")
    _, row = evaluate([model], root=root, phase="test", device="cpu")
    assert (row.metrics["ssim"], row.notes["ssim"]) == (None, "its window needs images of at least 11 pixels per side")
    assert row.metrics["psnr"] is not None
    assert evaluate([model], root=root, phase="test", max_images=1, device="cpu")[1].metrics["ssim"] is not None


def test_runs_of_other_classes_are_refused(run: Path, tmp_path: Path) -> None:
    other = tiny(tmp_path / "other.safetensors", n_labels=9)
    with pytest.raises(
        ConfigError, match=r"finished has 4 classes and \S+other\.safetensors has 9 classes: runs can only be"
    ):
        evaluate([run, other], device="cpu")
    pairs = tiny(tmp_path / "pairs.safetensors", n_labels=0, instances=False)
    with pytest.raises(ConfigError, match=r"has 4 classes and \S+pairs\.safetensors has images as its input"):
        evaluate([run, pairs], device="cpu")


def test_bad_input_is_one_line(run: Path, scorer: Path, make_data: MakeData, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(CheckpointError, match=r"empty contains no checkpoint: give the folder of a training run"):
        evaluate([tmp_path / "empty"])
    with pytest.raises(ConfigError, match="no run is given"):
        evaluate([])
    with pytest.raises(ConfigError, match=r"max_images is 0: give a whole number from 1"):
        evaluate([run], max_images=0)
    with pytest.raises(ConfigError, match=r"a run is given twice"):
        evaluate([run, run], device="cpu")
    alone = tiny(tmp_path / "alone.safetensors", n_labels=N_LABELS)
    with pytest.raises(ConfigError, match=r"alone\.safetensors does not say what it was trained on: give the dataset"):
        evaluate([alone], device="cpu")


def test_a_run_that_cannot_be_scored_is_named_at_once(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Pipeline, "__call__", lambda *_, **__: pytest.fail("an image was made"))
    plain = tiny(tmp_path / "plain.safetensors", n_labels=N_LABELS, dontcare=255)
    for name, options, message in (
        ("grey", {"image_channels": 1}, r"grey\.safetensors generates images with image_channels 1, but photos have 3"),
        (
            "styled",
            {"feature_channels": 2},
            r"styled\.safetensors was trained with features, but its file does not contain the mean",
        ),
        ("strict", {}, r"strict\.safetensors cannot take label 255, which is not a class for \S+plain\.safetensors"),
    ):
        options = {"dontcare": 255 if options else None, **options}
        model = tiny(tmp_path / f"{name}.safetensors", n_labels=N_LABELS, **options)
        with pytest.raises(ConfigError, match=message):
            evaluate([plain, model], root=dataset, device="cpu")


def test_out_of_memory_names_the_run(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(Pipeline, "__call__", fail)
    with pytest.raises(
        ConfigError,
        match=r"out of memory: the run finished with an image of 32x16; use a smaller "
        r"--wi",
    ):
        evaluate([run], device="cpu")


def test_a_split_that_cannot_be_scored_is_one_line(run: Path, make_data: MakeData) -> None:
    root = make_data()
    with pytest.raises(DataError, match=r"val_label does not exist; the phases of \S+ \(nvidia\) are: test, train"):
        evaluate([run], root=root, phase="val", device="cpu")
    for file in (root / "test_inst").iterdir():
        file.unlink()
    with pytest.raises(ConfigError, match=r"finished was trained with instance maps, but s0 and its split have none"):
        evaluate([run], root=root, device="cpu")
    for file in (root / "test_img").iterdir():
        file.unlink()
    with pytest.raises(DataError, match=r"has no photos for phase test, and images are scored against photos"):
        evaluate([run], root=root, device="cpu")
    for file in (root / "test_label").iterdir():
        file.unlink()
    with pytest.raises(DataError, match=r"test_label contains no images"):
        evaluate([run], root=root, device="cpu")
    shutil.rmtree(root / "test_label")
    with pytest.raises(DataError, match=r"has no held-out phase, val or test, only train: add one, or give the phase"):
        evaluate([run], root=root, device="cpu")
    assert len(evaluate([run], root=root, phase="train", device="cpu")) == 2


def test_a_model_with_noise_is_scored_alike_each_time(dataset: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    file = tmp_path / "noisy.safetensors"
    save_model(file, Pix2Pix(Pix2PixConfig(n_labels=4, instances=False, generator=UNetConfig(ngf=4, n_downs=4))))
    first, again = (evaluate([file], root=dataset, device="cpu")[1].metrics["psnr"] for _ in range(2))
    assert first == again


def test_the_names_of_the_data_are_taken_before_those_of_a_run(make_data: MakeData, tmp_path: Path) -> None:
    root = make_data(train=1, test=1)
    kept = DatasetSpec.of_colors(("a", "b", "c", "d"), [(0, 0, 0)] * N_LABELS)
    plain = tiny(tmp_path / "plain.safetensors", n_labels=N_LABELS)
    named = tiny(tmp_path / "named.safetensors", n_labels=N_LABELS, extra=classes_entry(kept))
    for runs, names in (([plain], None), ([plain, named], kept.classes)):
        spec = open_comparison(runs, root=root, device="cpu", console=Console(quiet=True)).spec
        assert (spec and spec.classes) == names
    (root / "classes.csv").write_text("label,name\n0,a\n1,b\n2,x\n3,d\n")
    comparison = open_comparison([plain, named], root=root, device="cpu", console=Console(quiet=True))
    assert comparison.spec is not None
    assert comparison.spec.classes == ("a", "b", "x", "d")
    (note,) = comparison.warnings
    assert "calls label 2 'x', but the run named.safetensors was trained with 'c': if only the name" in note
    (root / "classes.csv").write_text("label,name\n0,a\n1,b\n2,x\n")
    with pytest.raises(
        DataError, match=r"classes\.csv has 3 classes, but the model was trained with 4: give the file a"
    ):
        open_comparison([plain], root=root, device="cpu", console=Console(quiet=True))
