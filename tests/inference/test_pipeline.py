"""One image out, whatever form the maps come in, and a clear word where they cannot be used."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import hdgan
from hdgan.checkpoints import find_checkpoint
from hdgan.data import read_map
from hdgan.errors import CheckpointError, ConfigError, DataError
from hdgan.families import EncoderConfig, GeneratorConfig, Pix2PixHD, Pix2PixHDConfig
from hdgan.families.saving import CLASS_MEAN, load_model, save_model
from hdgan.inference import ImageRequest, Pipeline, load


@pytest.fixture(scope="module")
def pipeline(run: Path) -> Pipeline:
    return load(run, device="cpu")


def make(**options: object) -> Pipeline:
    """A pipeline around new weights."""
    torch.manual_seed(0)
    small = GeneratorConfig(ngf=4, n_downsample=1, n_blocks=1)
    config = Pix2PixHDConfig(generator=small, encoder=EncoderConfig(nef=2, n_downsample=1), **options)  # type: ignore[arg-type]
    return Pipeline(Pix2PixHD(config))


FORMS: dict[str, Callable[[Path], object]] = {
    "path": lambda path: path,
    "text": str,
    "Pillow": Image.open,
    "array": lambda path: read_map(path),
    "uint16": lambda path: read_map(path).astype(np.uint16),
    "int64": lambda path: torch.from_numpy(read_map(path).astype(np.int64)),
    "torch.uint16": lambda path: torch.from_numpy(read_map(path).astype(np.uint16)),
    "[1, H, W]": lambda path: torch.from_numpy(read_map(path).astype(np.int32))[None],
    "[1, 1, H, W]": lambda path: torch.from_numpy(read_map(path).astype(np.int32))[None, None],
}


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("form", FORMS)
def test_all_forms_of_maps_make_one_picture(pipeline: Pipeline, label: Path, ids: Path, form: str) -> None:
    expected = pipeline(label, ids)
    assert expected.shape == (3, 16, 32)
    assert expected.dtype == torch.float32
    assert 0 <= expected.min() < expected.max() <= 1
    picture = pipeline(FORMS[form](label), FORMS[form](ids))  # type: ignore[arg-type]
    assert torch.equal(picture.view_as(expected), expected)
    assert picture.dim() == (4 if form.startswith("[") else 3)


def test_maps_can_be_read_once(pipeline: Pipeline, label: Path, ids: Path, photo: Path) -> None:
    maps = pipeline.read(label, ids)
    assert torch.equal(pipeline(maps), pipeline(label, ids))
    assert pipeline.instances(maps) == pipeline.instances(label, ids)
    styles = pipeline.encode(photo, maps)
    assert torch.equal(pipeline(maps, styles=styles), pipeline(label, ids, photo=photo))
    assert pipeline.complete(styles, maps) == styles
    with pytest.raises(ConfigError, match=rf"the maps of {label} have already been read: do not give an instance map"):
        pipeline(maps, ids)


def test_photos_in_all_forms_give_one_style(pipeline: Pipeline, label: Path, ids: Path, photo: Path) -> None:
    expected = pipeline(label, ids, photo=photo)
    with Image.open(photo) as image:
        array = np.asarray(image)
        given = [str(photo), image, image.convert("RGBA"), array, torch.from_numpy(array / 127.5 - 1).permute(2, 0, 1)]
        for form in given:
            torch.testing.assert_close(pipeline(label, ids, photo=form), expected)  # type: ignore[arg-type]
        grey = pipeline(label, ids, photo=image.convert("L"))
    assert grey.shape == expected.shape


def test_a_photo_gives_its_instances_their_style(pipeline: Pipeline, label: Path, ids: Path, photo: Path) -> None:
    styled = pipeline(label, ids, photo=photo)
    assert not torch.allclose(styled, pipeline(label, ids), atol=1e-4)
    maps = [torch.from_numpy(read_map(path).astype(np.int64))[None] for path in (label, ids)]
    pixels = torch.from_numpy(np.asarray(Image.open(photo)) / 127.5 - 1).permute(2, 0, 1).float()[None]
    with torch.no_grad():
        features = pipeline.model.encode(pixels, maps[1])
        picture = pipeline.model.generate(pipeline.model.condition(*maps), features)
    torch.testing.assert_close(styled, (picture[0] + 1) / 2)


def test_without_a_photo_each_class_has_its_mean_style(pipeline: Pipeline, run: Path, label: Path, ids: Path) -> None:
    means = load_model(find_checkpoint(run))[1].tensors[CLASS_MEAN]
    maps = [torch.from_numpy(read_map(path).astype(np.int64))[None] for path in (label, ids)]
    features = torch.zeros(1, 2, 16, 32)
    for k in range(4):
        features[0, :, maps[0][0] == k] = means[k][:, None]
    with torch.no_grad():
        picture = pipeline.model.generate(pipeline.model.condition(*maps), features)
    torch.testing.assert_close(pipeline(label, ids), (picture[0] + 1) / 2)


@pytest.mark.parametrize("size", [(1, 1), (1, 7), (5, 2), (17, 31)])
def test_pictures_have_the_size_of_their_maps(pipeline: Pipeline, size: tuple[int, int]) -> None:
    label = torch.arange(size[0] * size[1]).view(size) % 4
    picture = pipeline(label, label * 1000)
    assert picture.shape == (3, *size)
    assert bool(picture.isfinite().all())


def test_a_batch_equals_its_pictures(pipeline: Pipeline) -> None:
    label = torch.randint(4, (3, 12, 20), generator=torch.Generator().manual_seed(0))
    together = pipeline(label, label)
    assert together.shape == (3, 3, 12, 20)
    for k in range(3):
        torch.testing.assert_close(together[k], pipeline(label[k], label[k]))


def test_no_graph_is_kept(pipeline: Pipeline, label: Path, ids: Path) -> None:
    assert not pipeline(label, ids).requires_grad
    assert not any(parameter.requires_grad for parameter in pipeline.model.parameters())
    assert pipeline.model.discriminator is None
    assert not pipeline.model.training


def test_what_comes_out_can_be_trained_on(pipeline: Pipeline, label: Path, ids: Path) -> None:
    picture = pipeline(label, ids)
    layer = torch.nn.Conv2d(3, 1, 3)
    layer(picture).sum().backward()
    assert layer.weight.grad is not None
    assert layer.weight.grad.abs().max() > 0
    before = picture.clone()
    assert torch.equal(picture.mul_(2), 2 * before)
    picture.requires_grad_().sum().backward()
    assert picture.grad is not None
    maps = pipeline.read(label, ids)
    assert maps.label is not None
    (torch.ones(maps.label.shape, requires_grad=True) * maps.label).sum().backward()


@pytest.mark.parametrize(("precision", "most"), [("bfloat16", 0.05), ("float16", 0.01)])
def test_other_precisions_are_close(
    run: Path, pipeline: Pipeline, label: Path, ids: Path, precision: Any, most: float
) -> None:
    picture = load(run, device="cpu", precision=precision)(label, ids)
    assert picture.dtype == torch.float32
    assert not torch.equal(picture, pipeline(label, ids))
    torch.testing.assert_close(picture, pipeline(label, ids), rtol=0, atol=most)


def test_averaged_weights_unless_told_otherwise(run: Path, pipeline: Pipeline, label: Path, ids: Path) -> None:
    raw = load(str(run), device="cpu", ema=False)
    assert not torch.equal(raw(label, ids), pipeline(label, ids))
    assert torch.equal(hdgan.load(run, checkpoint=9, device="cpu")(label, ids), pipeline(label, ids))
    assert not torch.equal(hdgan.load(run, checkpoint=6, device="cpu")(label, ids), pipeline(label, ids))


def test_spectral_norm_is_taken_off_and_pictures_repeat(label: Path, ids: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    small = GeneratorConfig(ngf=4, n_downsample=1, n_blocks=1, spectral_norm=True)
    model = Pix2PixHD(Pix2PixHDConfig(generator=small))
    save_model(tmp_path / "model.safetensors", model)
    pipeline = load(tmp_path / "model.safetensors", device="cpu")
    picture = pipeline(label, ids)
    assert torch.equal(pipeline(label, ids), picture)
    assert {type(m) for m in pipeline.model.generator.modules() if hasattr(m, "weight")} <= {
        torch.nn.Conv2d, torch.nn.ConvTranspose2d
    }  # fmt: skip
    expected = Pipeline(model)(label, ids)  # with its norms
    torch.testing.assert_close(picture, expected, rtol=1e-4, atol=1e-5)


def test_a_model_without_features(label: Path, ids: Path, photo: Path) -> None:
    pipeline = make(n_labels=4)
    assert pipeline(label, ids).shape == (3, 16, 32)
    with pytest.raises(ConfigError, match="trained without features"):
        pipeline(label, ids, photo=photo)


def test_a_model_without_instances_takes_styles_per_class(label: Path, photo: Path) -> None:
    pipeline = make(n_labels=4, instances=False, feature_channels=2)
    assert pipeline(label, photo=photo).shape == (3, 16, 32)
    with pytest.raises(ConfigError, match=r"does not contain the mean styles .* give a photo"):
        pipeline(label)


def test_a_model_trained_on_pairs(photo: Path) -> None:
    pipeline = make(n_labels=0, instances=False)
    expected = pipeline(photo)
    assert expected.shape == (3, 16, 32)
    with Image.open(photo) as image:
        array = np.asarray(image)
        for form in (image, array, torch.from_numpy((array / 127.5 - 1).astype(np.float32)).permute(2, 0, 1)):
            torch.testing.assert_close(pipeline(form), expected)
        with pytest.raises(DataError, match="the given Image has 1 channel, but the model takes 3"):
            pipeline(image.convert("L"))
    with pytest.raises(DataError, match="give float"):
        pipeline(torch.zeros(3, 8, 8, dtype=torch.int64))


BYTES = torch.linspace(0, 255, 3 * 8 * 8, dtype=torch.float64).view(3, 8, 8)


def as_array(image: torch.Tensor) -> np.ndarray:
    return image.permute(1, 2, 0).numpy()


@pytest.mark.parametrize("form", [lambda image: image, as_array, lambda image: image[None].half()])
def test_floats_have_the_range_of_the_images_of_the_training(
    form: Callable[[torch.Tensor], Any], tmp_path: Path
) -> None:
    model = make(n_labels=0, instances=False).model
    message = r"the given (Tensor|ndarray): this input has values from 0 to 255; scale them to \[-1, 1\]"
    for depth in ("uint8", "uint16"):
        of_integers = Pipeline(model, input_depth=depth)
        for take in (of_integers, of_integers.read):
            with pytest.raises(DataError, match=message):
                take(form(BYTES))
        with pytest.raises(DataError, match=message):
            list(of_integers.stream([ImageRequest(form(BYTES))]))
        assert of_integers(form(BYTES / 127.5 - 1)).shape[-2:] == (8, 8)
    np.save(tmp_path / "x.npy", as_array(BYTES))
    with pytest.raises(DataError, match=r"x\.npy: this input has values from 0 to 255; scale them to"):
        of_integers(tmp_path / "x.npy")
    for free in (Pipeline(model), Pipeline(model, input_depth="float32")):
        assert bool(free(form(BYTES)).isfinite().all())
        with pytest.raises(DataError, match=r"the given (Tensor|ndarray): input contains nan or inf; replace them"):
            free(form(BYTES * torch.nan))


def test_rounding_may_leave_the_range() -> None:
    pipeline = Pipeline(make(n_labels=0, instances=False).model, input_depth="uint8")
    image = torch.full((3, 8, 8), 255.0) * (1 / 127.5) - 1 + 2**-23
    assert image.max() > 1
    assert pipeline(image).shape == (3, 8, 8)


def test_a_model_trained_on_pairs_with_instances(photo: Path, ids: Path) -> None:
    pipeline = make(n_labels=0, feature_channels=2)
    assert pipeline(photo, ids, photo=photo).shape == (3, 16, 32)
    styled = Pipeline(pipeline.model, torch.ones(1, 2))
    assert styled(photo, ids).shape == (3, 16, 32)


def test_dontcare_is_no_wrong_label() -> None:
    pipeline = make(n_labels=4, instances=False, dontcare=255)
    label = torch.zeros(8, 8, dtype=torch.uint8)
    label[2:4] = 255
    assert bool(pipeline(label).isfinite().all())


def test_pictures_of_one_bit_are_maps() -> None:
    pipeline = make(n_labels=2, instances=False)
    mask = np.eye(8, dtype=bool)
    expected = pipeline(mask.astype(np.uint8))
    for form in (Image.fromarray(mask), mask, mask[..., None], torch.from_numpy(mask)):
        assert torch.equal(pipeline(form), expected)
    batch = np.stack([mask, ~mask])
    assert torch.equal(pipeline(batch), pipeline(batch.astype(np.uint8)))
    with_instances = make(n_labels=2)
    expected = with_instances(mask.astype(np.uint8), mask.astype(np.uint8))
    for form in (mask, torch.from_numpy(mask)):
        assert torch.equal(with_instances(mask, form), expected)


WRONG: dict[str, tuple[object, object, str]] = {
    "label too high": (
        torch.full((8, 8), 4),
        torch.zeros(8, 8, dtype=torch.int64),
        "Tensor contains label 4, .* 0 to 3",
    ),
    "label below 0": (torch.full((8, 8), -1), torch.zeros(8, 8, dtype=torch.int64), "contains label -1"),
    "float": (torch.zeros(8, 8), None, r"label map is of type torch\.float32: give integers"),
    "float array": (np.zeros((8, 8)), None, "the given ndarray: this label map has mode float64"),
    "colour": (Image.new("RGB", (8, 8)), None, "label map has mode RGB"),
    "dimensions": (torch.zeros(8, dtype=torch.int64), None, r"label map has shape \(8,\): give \[H, W\]"),
    "empty": (torch.zeros(0, 8, dtype=torch.int64), None, r"label map has shape \(0, 8\)"),
    "sizes": (np.zeros((8, 6), np.uint8), np.zeros((8, 8), np.uint8), "is 6x8, but the given ndarray is 8x8"),
    "batches": (np.zeros((2, 8, 6), np.uint8), np.zeros((8, 6), np.uint8), "6x8 in a batch of 2, but .* is 6x8:"),
    "no ids": (np.zeros((8, 8), np.uint8), None, "trained with instance maps: give one for the given ndarray"),
    "missing": (Path("nowhere.png"), None, r"nowhere\.png does not exist"),
    "a list": ([[0, 1]], None, "label map is given as list: give a path, Pillow image, array or tensor"),
}


@pytest.mark.parametrize("case", WRONG)
def test_input_that_cannot_be_used_is_named(pipeline: Pipeline, case: str) -> None:
    label, ids, complaint = WRONG[case]
    with pytest.raises((DataError, ConfigError), match=complaint) as caught:
        pipeline(label, ids)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)


def test_photos_that_do_not_fit_are_named(pipeline: Pipeline, label: Path, ids: Path) -> None:
    with pytest.raises(DataError, match=r"s0_label\.png is 32x16, but the given ndarray is 8x8"):
        pipeline(label, ids, photo=np.zeros((8, 8, 3), np.uint8))
    with pytest.raises(DataError, match="the given ndarray has 1 channel: give a photo with 3"):
        pipeline(label, ids, photo=np.zeros((16, 32), np.float32))
    of_other_kinds = {
        r"array of shape \(1, 16, 32, 3\); save \[H, W\] or \[H, W, C\]": np.zeros((1, 16, 32, 3), np.uint8),
        r"a photo of type int64; save it with 8 or 16 bits per channel": np.zeros((16, 32, 3), np.int64),
        r"the photo has .* type torch\.uint8: give float \[C, H, W\] or \[B, C, H, W\] in \[-1, 1\]$": (
            torch.zeros(3, 16, 32, dtype=torch.uint8)
        ),
        r"the given Tensor: this photo has values from 0 to 255; scale them to": torch.eye(32)[None, :16] * 255,
        r"the given Tensor: photo contains nan or inf": torch.full((3, 16, 32), torch.nan),
        r"the given ndarray: this photo has values from 0 to 1\.5; scale": np.eye(32)[:16, :, None] * 1.5,
        r"the given ndarray: photo contains nan or inf": np.full((16, 32, 3), np.inf),
        r"shape \(0, 32, 3\)|shape \(3, 0, 32\)": np.zeros((0, 32, 3), np.uint8),
        "given as list": [[0]],
    }
    for complaint, photo in of_other_kinds.items():
        with pytest.raises(DataError, match=complaint):
            pipeline(label, ids, photo=photo)  # type: ignore[arg-type]


def test_what_cannot_be_loaded_is_named(tmp_path: Path, run: Path) -> None:
    with pytest.raises(CheckpointError, match="nowhere does not exist"):
        load(tmp_path / "nowhere")
    with pytest.raises(ConfigError, match="not a device"):
        load(run, device="toaster")
    with pytest.raises(ConfigError, match="precision is 'float8': give float32, bfloat16 or float16"):
        load(run, device="cpu", precision="float8")  # type: ignore[arg-type]
