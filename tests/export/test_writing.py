"""Programs of all families, run by their runtimes and compared with the pipeline."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import hdgan
from hdgan.errors import ConfigError, HdganError
from hdgan.export import export_program
from hdgan.export.formats import FORMATS, Format, FormatName
from hdgan.families import (
    CRNConfig,
    EncoderConfig,
    GeneratorConfig,
    ModelConfig,
    Pix2PixConfig,
    Pix2PixHDConfig,
    ResNetConfig,
    UNetConfig,
    build_model,
)
from hdgan.inference import Pipeline
from hdgan.models.draws import SeededDraws, drawing_from

GENERATOR = GeneratorConfig(ngf=4, n_downsample=1, n_blocks=1, n_enhancers=1, n_blocks_local=1, upsample="resize")
ENCODER = EncoderConfig(nef=2, n_downsample=1, reduction=1)
MODELS: dict[str, ModelConfig] = {
    "features and noise": Pix2PixHDConfig(
        n_labels=5, feature_channels=2, generator=GeneratorConfig(4, 1, 0, noise=0.3), encoder=ENCODER
    ),
    "enhancer": Pix2PixHDConfig(n_labels=5, instances=False, dontcare=3, generator=GENERATOR),
    "16 bits": Pix2PixHDConfig(
        n_labels=0, input_channels=2, image_channels=1, image_depth="uint16", generator=GeneratorConfig(4, 1, 0)
    ),
    "floats": Pix2PixHDConfig(
        n_labels=3, instances=False, image_channels=2, image_depth="float32", generator=GeneratorConfig(4, 1, 0)
    ),
    "pix2pix": Pix2PixConfig(n_labels=0, instances=False, generator=UNetConfig(ngf=4, n_downs=3, dropout_levels=(0,))),
    "pix2pix-resnet": Pix2PixConfig(n_labels=3, instances=False, generator=ResNetConfig(ngf=4, n_blocks=1)),
    "crn": CRNConfig(n_labels=4, n_modules=3, width=1 / 64, n_images=2),
}


def pipeline_of(name: str, precision: Any = "float32") -> Pipeline:
    torch.manual_seed(0)
    config = MODELS[name]
    means = torch.randn(config.n_labels, config.feature_channels).tanh() if config.feature_channels else None
    return Pipeline(build_model(config), means, precision=precision)


def run_of(file: Path, format: FormatName) -> Any:
    return FORMATS[format].read(file)[0]


def blocks(batch: int, height: int, width: int, values: int) -> Tensor:
    coarse = torch.randint(values, (batch, -(-height // 3), -(-width // 3)))
    return coarse.repeat_interleave(3, 1).repeat_interleave(3, 2)[:, :height, :width].contiguous()


@pytest.mark.parametrize(
    ("name", "format"),
    [
        *((name, "onnx") for name in MODELS if name != "pix2pix"),
        ("pix2pix", "pt2"),
    ],
)
def test_a_program_makes_the_pictures_of_the_pipeline(name: str, format: FormatName, tmp_path: Path) -> None:
    pipeline = pipeline_of(name)
    config = pipeline.config
    file = tmp_path / f"x{FORMATS[format].suffix}"
    exported = export_program(pipeline, file, format, input_depth=None if config.n_labels else "uint16")
    assert exported.files == (file,)
    assert [difference.usual for difference in exported.differences] == [0, 0]
    run = run_of(file, format)
    for shape in ((3, 31, 22), (1, 16, 16), (1, 9, 14)):
        label = blocks(*shape, config.n_labels or 4).int()
        image = torch.rand(*shape, config.input_channels)
        every = {
            "label": label,
            "instance": label * 1000,
            "image": (image * 65535).round().to(torch.uint16),
            "seed": torch.tensor([5, 2**40, -3])[: shape[0]],
        }
        inputs = {spec.name: every[spec.name] for spec in exported.program.inputs}
        found = run(inputs)
        source = label if config.n_labels else (every["image"].float() / 32767.5 - 1).permute(0, 3, 1, 2)
        with drawing_from(SeededDraws(every["seed"])):
            expected = pipeline(source, label * 1000 if config.instances else None).permute(0, 2, 3, 1)
        assert str(found.dtype).removeprefix("torch.") == config.image_depth
        if config.image_depth == "float32":
            torch.testing.assert_close(found, expected * 2 - 1, rtol=0, atol=1e-4)
        else:
            white = {"uint8": 255, "uint16": 65535}[config.image_depth]
            torch.testing.assert_close(found.double(), expected.double() * white, rtol=0, atol=0.5 + white * 1e-4)


@pytest.mark.parametrize(
    ("name", "format", "precision"),
    [
        ("floats", "onnx", "float16"),
        ("features and noise", "pt2", "float16"),
        ("floats", "pt2", "bfloat16"),
        pytest.param("floats", "aoti", "bfloat16", marks=pytest.mark.slow),
    ],
)
def test_other_precisions_are_as_close_as_the_pipeline(
    name: str, format: FormatName, precision: Any, tmp_path: Path
) -> None:
    file = tmp_path / f"x{FORMATS[format].suffix}"
    exported = export_program(pipeline_of(name, precision), file, format)
    assert all(0 < difference.mean < 3 and difference.usual > 0 for difference in exported.differences)
    assert {weight.dtype for weight in exported.program.parameters()} == {getattr(torch, precision)}
    assert FORMATS[format].read(file)[1]["precision"] == precision


def test_styles_are_chosen_by_features(styled: Path, label: Path, ids: Path, tmp_path: Path) -> None:
    pipeline: Pipeline = hdgan.load(styled, device="cpu")
    file = tmp_path / "x.onnx"
    exported = export_program(pipeline, file, styles="input")
    assert exported.files == (file, tmp_path / "x.styles.json")
    table = json.loads((tmp_path / "x.styles.json").read_text())
    np.testing.assert_allclose(table["means"], pipeline.class_features, atol=1e-6)
    assert table["clusters"].keys() == {str(of) for of in pipeline.bank.clusters}

    maps = pipeline.read(label, ids)
    assert maps.label is not None
    assert maps.ids is not None
    styles = pipeline.bank.sample(pipeline.instances(maps))
    features = torch.zeros(*maps.label.shape, pipeline.config.feature_channels)
    for id, style in styles.instances.items():
        features[maps.ids == id] = torch.tensor(table["clusters"][str(style.label)][style.cluster or 0])
    found = run_of(file, "onnx")({"label": maps.label.int(), "instance": maps.ids.int(), "features": features})
    expected = pipeline(maps, styles=styles).permute(1, 2, 0) * 255
    torch.testing.assert_close(found[0].float(), expected, rtol=0, atol=0.6)


def test_the_encoder(run: Path, label: Path, ids: Path, photo: Path, tmp_path: Path) -> None:
    from PIL import Image

    pipeline: Pipeline = hdgan.load(run, device="cpu")
    file = tmp_path / "x.onnx"
    exported = export_program(pipeline, file, part="encoder")
    assert [spec.name for spec in exported.program.inputs] == ["photo", "instance"]
    instance = torch.from_numpy(np.array(Image.open(ids))).int()
    pixels = torch.from_numpy(np.array(Image.open(photo)))
    found = run_of(file, "onnx")({"photo": pixels[None], "instance": instance[None]})
    assert found.shape == (1, *instance.shape, 2)
    for id, style in pipeline.encode(photo, label, ids).instances.items():
        of_instance = found[0][instance == id]
        torch.testing.assert_close(of_instance, torch.tensor(style.feature).expand_as(of_instance), rtol=0, atol=1e-4)


def test_the_file_describes_itself(shipped: Path, tmp_path: Path) -> None:
    pipeline: Pipeline = hdgan.load("demo", device="cpu")
    export_program(pipeline, tmp_path / "x.pt2", "pt2")
    metadata = FORMATS["pt2"].read(tmp_path / "x.pt2")[1]
    assert metadata["hdgan_version"] == hdgan.__version__
    assert (metadata["family"], metadata["precision"]) == ("pix2pixhd", "float32")
    assert json.loads(metadata["trained_size"])["width"] == 32
    classes = json.loads(metadata["classes"])
    assert [entry["label"] for entry in classes] == list(range(pipeline.config.n_labels))
    assert all(entry["name"] and entry["color"].startswith("#") for entry in classes)
    assert [(entry["name"], entry["dtype"]) for entry in json.loads(metadata["inputs"])] == [
        ("label", "int32"),
        ("instance", "int32"),
    ]
    assert json.loads(metadata["outputs"])[0]["shape"] == ["batch", "height", "width", 3]
    assert int(metadata["padded_to_multiple_of"]) == 2


@pytest.mark.slow
def test_a_compiled_encoder(tmp_path: Path) -> None:
    pipeline = pipeline_of("features and noise")
    exported = export_program(pipeline, tmp_path / "x.pt2", "aoti", part="encoder")
    assert [difference.acceptable for difference in exported.differences] == [True, True]
    run, metadata = FORMATS["aoti"].read(tmp_path / "x.pt2")
    assert (metadata["least_side"], metadata["padded_to_multiple_of"]) == ("5", "4")
    instance = blocks(1, 5, 22, 4).int()
    photo = torch.randint(256, (*instance.shape, 3), dtype=torch.uint8)
    with pytest.raises(RuntimeError, match="a side has fewer than 5 pixels"):
        run({"photo": photo[:, 1:], "instance": instance[:, 1:]})
    found = run({"photo": photo, "instance": instance})
    styles = pipeline.encode(photo[0].permute(2, 0, 1) / 127.5 - 1, pipeline.read(instance, instance * 1000))
    assert found.shape == (*instance.shape, 2)
    for id, style in styles.instances.items():
        of_instance = found[instance * 1000 == id]
        torch.testing.assert_close(of_instance, torch.tensor(style.feature).expand_as(of_instance), rtol=0, atol=1e-4)


def test_without_a_compiler_nothing_is_compiled(tmp_path: Path) -> None:
    from torch._inductor import config

    none = config.patch({"cpp.cxx": (str(tmp_path / "no-compiler"),)})
    with none, pytest.raises(ConfigError, match=r"--format aoti needs a C\+\+ compiler, and none is found that works"):
        export_program(pipeline_of("floats"), tmp_path / "x.pt2", "aoti")
    assert list(tmp_path.iterdir()) == []


def test_one_of_several_images(tmp_path: Path) -> None:
    pipeline = pipeline_of("crn")
    export_program(pipeline, tmp_path / "x.pt2", "pt2", variant=1)
    label = blocks(1, 16, 16, 4).int()
    found = run_of(tmp_path / "x.pt2", "pt2")({"label": label})
    expected = pipeline(label, variant=1).permute(0, 2, 3, 1) * 255
    torch.testing.assert_close(found.float(), expected, rtol=0, atol=0.6)
    with pytest.raises(ConfigError, match="variant is 2: the model generates 2 images"):
        export_program(pipeline, tmp_path / "y.pt2", "pt2", variant=2)


def test_a_program_that_differs_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usual = FORMATS["pt2"]

    def read(file: Path) -> Any:
        run, metadata = usual.read(file)
        return lambda inputs: 255 - run(inputs), metadata

    monkeypatch.setitem(FORMATS, "pt2", Format(usual.suffix, usual.require, usual.write, read))
    with pytest.raises(HdganError, match=r"x\.pt2 is not written: for 1 map of 48x32 the program is .* levels off"):
        export_program(pipeline_of("floats"), tmp_path / "x.pt2", "pt2")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("enhancer", {"part": "encoder"}, "the model has no encoder: leave part encoder out"),
        ("enhancer", {"styles": "input"}, "trained without features: leave styles input out"),
        ("enhancer", {"input_depth": "uint16"}, "takes label maps, not images: leave input_depth out"),
        ("features and noise", {"variant": 1}, "takes a seed for each picture: leave variant out"),
        ("features and noise", {"part": "encoder", "styles": "input"}, "styles has no effect with part encoder"),
        ("features and noise", {"part": "encoder", "variant": 1}, "variant has no effect with part encoder"),
    ],
)
def test_options_without_effect_are_refused(name: str, options: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        export_program(pipeline_of(name), tmp_path / "x.pt2", "pt2", **options)
    assert list(tmp_path.iterdir()) == []


def test_formats_refuse_what_they_cannot_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pipeline = pipeline_of("floats", "bfloat16")
    for format, name, message in (
        ("onnx", "x.pt2", r"x.pt2 must end in \.onnx for format onnx"),
        ("pt2", "x.onnx", r"x.onnx must end in \.pt2 for format pt2"),
        ("onnx", "x.onnx", "no bfloat16 convolution"),
    ):
        with pytest.raises(ConfigError, match=message):
            export_program(pipeline, tmp_path / name, format)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="an onnx file, which runs on any"):
        FORMATS["onnx"].require(torch.device("cuda"), "float32")
    (tmp_path / "x.pt2").write_bytes(b"mine")
    with pytest.raises(ConfigError, match="already exists: choose another out, or delete it"):
        export_program(pipeline, tmp_path / "x.pt2", "pt2")
    assert (tmp_path / "x.pt2").read_bytes() == b"mine"
    monkeypatch.setattr("hdgan.export.formats.find_spec", lambda name: None if name == "onnxscript" else name)
    with pytest.raises(ConfigError, match="needs onnxscript: install them with `pip install onnx onnxscript"):
        export_program(pipeline_of("floats"), tmp_path / "x.onnx", "onnx")


def test_without_mean_styles_a_program_takes_features(tmp_path: Path) -> None:
    pipeline = pipeline_of("features and noise")
    pipeline.class_features = None
    with pytest.raises(ConfigError, match="does not contain the mean styles of its classes: give styles input"):
        export_program(pipeline, tmp_path / "x.pt2", "pt2")
    exported = export_program(pipeline, tmp_path / "x.pt2", "pt2", styles="input")
    assert json.loads(exported.files[1].read_text()) == {"means": [], "clusters": {}}
