import dataclasses
import json
import time

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from hdgan.errors import CheckpointError, HdganError
from hdgan.families import (
    DiscriminatorConfig,
    EncoderConfig,
    GeneratorConfig,
    PatchConfig,
    Pix2Pix,
    Pix2PixConfig,
    Pix2PixHD,
    Pix2PixHDConfig,
    UNetConfig,
)
from hdgan.families.saving import load_model, read_metadata, save_model

CONFIG = Pix2PixHDConfig(
    n_labels=5,
    feature_channels=2,
    dontcare=4,
    generator=GeneratorConfig(4, 1, 1, 1, 1, "zero", "resize"),
    discriminator=DiscriminatorConfig(2, 2, 1),
    encoder=EncoderConfig(2, 1, 1),
)


@pytest.fixture
def model():
    return Pix2PixHD(CONFIG)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "model.safetensors"


def averages(model):
    return {k: v + 1 for k, v in model.state_dict().items() if not k.startswith("discriminator.")}


def assert_equal(found, expected):
    assert list(found) == list(expected)
    assert all(torch.equal(found[key], expected[key]) for key in expected)


def rewrite(path, edit):
    """Write the file again with other tensors or metadata."""
    with safe_open(path, "pt") as file:
        header = json.loads(file.metadata()["hdgan"])
    tensors = load_file(path)
    edit(tensors, header)
    save_file(tensors, path, {"hdgan": json.dumps(header)})


def test_round_trip(model, path):
    save_model(path, model, extra={"step": 7}, tensors={"styles.class_mean": torch.ones(5, 2)})
    loaded, info = load_model(path)
    assert loaded.config == CONFIG
    assert_equal(loaded.state_dict(), model.state_dict())
    assert info.metadata["step"] == 7
    assert info.metadata["format"] == 1
    assert_equal(info.tensors, {"styles.class_mean": torch.ones(5, 2)})
    assert info.missing == ()
    label = torch.zeros(1, 8, 8, dtype=torch.int64)
    features = torch.zeros(1, 2, 8, 8)
    condition = loaded.condition(label, label)
    assert torch.equal(loaded.generate(condition, features), model.generate(condition, features))


def test_metadata_is_read_without_the_networks(model, path):
    save_model(path, model, extra={"step": 7})
    assert read_metadata(path) == load_model(path)[1].metadata
    path.write_bytes(b"none")
    with pytest.raises(CheckpointError, match="not a readable safetensors file"):
        read_metadata(path)


@pytest.mark.parametrize(
    "config", [Pix2PixHDConfig(n_labels=0, instances=False), dataclasses.replace(CONFIG, dontcare=None)]
)
def test_other_configs(path, config):
    config = dataclasses.replace(config, generator=GeneratorConfig(2, 1, 1), discriminator=DiscriminatorConfig(2))
    save_model(path, Pix2PixHD(config))
    assert load_model(path)[0].config == config


def test_averages_are_taken_where_there_are_any(model, path):
    save_model(path, model, averages(model))
    averaged, raw = load_model(path)[0], load_model(path, ema=False)[0]
    assert torch.equal(averaged.generator.head.bias, model.generator.head.bias + 1)
    assert torch.equal(averaged.encoder.head.bias, model.encoder.head.bias + 1)
    assert_equal(averaged.discriminator.state_dict(), model.discriminator.state_dict())
    assert_equal(raw.state_dict(), model.state_dict())


def test_channels_last_and_half_precision_load_as_float32(model, path):
    save_model(path, model.to(memory_format=torch.channels_last).bfloat16())
    loaded, _ = load_model(path)
    assert loaded.generator.head.weight.dtype == torch.float32
    assert torch.equal(loaded.generator.head.weight, model.generator.head.weight.float())


def test_networks_that_are_absent_stay_absent(model, path):
    model.discriminator = model.encoder = None
    save_model(path, model)
    loaded, info = load_model(path)
    assert info.missing == ("discriminator", "encoder")
    assert loaded.discriminator is None
    assert loaded.encoder is None


def test_random_state_is_left_alone(model, path):
    save_model(path, model)
    before = torch.get_rng_state()
    load_model(path)
    assert torch.equal(torch.get_rng_state(), before)


def test_missing_file(tmp_path):
    with pytest.raises(CheckpointError, match=r"absent\.safetensors does not exist"):
        load_model(tmp_path / "absent.safetensors")
    with pytest.raises(CheckpointError, match="is a folder, not a file"):
        load_model(tmp_path)


def test_damaged_file(model, path):
    save_model(path, model)
    whole = path.read_bytes()
    for content in (b"", b"PK\3\4 not ours", whole[:100], whole[: len(whole) // 2], whole[:-1]):
        path.write_bytes(content)
        with pytest.raises(CheckpointError, match=rf"\({len(content)} bytes\) is not a readable safetensors file"):
            load_model(path)


def test_file_of_another_program(path):
    save_file({"weight": torch.ones(2)}, path)
    with pytest.raises(CheckpointError, match="was not written by hdgan"):
        load_model(path)
    for header in ("{", "[]", "{}", '{"format": "x"}'):
        save_file({"weight": torch.ones(2)}, path, {"hdgan": header})
        with pytest.raises(CheckpointError, match="metadata is damaged"):
            load_model(path)


def test_newer_format(model, path):
    save_model(path, model)
    rewrite(path, lambda _, header: header.update(format=2, version="9.0"))
    with pytest.raises(CheckpointError, match=r"has format 2, written by hdgan 9\.0; .* upgrade hdgan"):
        load_model(path)


@pytest.mark.parametrize(
    ("edit", "says"),
    [
        (lambda t, _: t.pop("generator.head.bias"), r"\(1 missing: generator\.head\.bias\)"),
        (lambda t, _: t.update({"encoder.more": torch.ones(1)}), r"1 not part of the architecture: encoder\.more"),
        (
            lambda t, _: t.update({"generator.head.bias": torch.ones(4)}),
            r"1 with another shape: generator\.head\.bias is \(4,\) instead of \(3,\)",
        ),
        (
            lambda t, _: [t.pop(k) for k in list(t) if k.startswith("generator.")],
            r"missing: generator\.\S+, \S+, \S+, …\)",
        ),
        (lambda t, _: t.pop("ema.generator.head.bias"), r"1 missing: ema\.generator\.head\.bias"),
        (lambda t, _: t.update({"ema.teacher.bias": torch.ones(1)}), r"architecture: ema\.teacher\.bias"),
        (lambda _, h: h["model"]["generator"].update(ngf=8), r"instead of"),
        (lambda _, h: h["model"]["generator"].update(colour=1), r"model: unknown option generator\.colour"),
        (lambda _, h: h["model"]["generator"].update(ngf="8"), r"generator\.ngf is '8': give a whole number from 1"),
        (lambda _, h: h["model"]["generator"].update(ngf=3), r"ngf is 3"),
        (lambda _, h: h.pop("model"), r"model: the content is None: give a table of"),
    ],
)
def test_tensors_and_architecture_that_do_not_fit(model, path, edit, says):
    save_model(path, model, averages(model))
    rewrite(path, edit)
    with pytest.raises(CheckpointError, match=says) as caught:
        load_model(path)
    assert str(path) in str(caught.value)
    assert len(str(caught.value)) < 700


def test_options_that_an_older_file_lacks_keep_their_defaults(path):
    config = dataclasses.replace(CONFIG, dontcare=None, instance_divisor=1000)
    save_model(path, Pix2PixHD(config))
    rewrite(path, lambda _, header: header["model"].pop("instance_divisor"))
    assert load_model(path)[0].config == config


@pytest.mark.parametrize("name", ["generator.head.bias", "ema.generator.head.bias", "styles.class_mean"])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e300])
def test_numbers_that_are_not_finite_are_refused(model, path, name, value):
    save_model(path, model, averages(model), tensors={"styles.class_mean": torch.ones(5, 2)})
    wrong = torch.full((5, 2) if name.startswith("styles") else (3,), value, dtype=torch.float64)
    rewrite(path, lambda tensors, _: tensors.update({name: wrong}))
    with pytest.raises(CheckpointError, match=rf"model\.safetensors: {name} contains numbers that are NaN or infinite"):
        load_model(path, ema=name.startswith("ema."))


def test_mean_styles_of_other_features_are_refused(model, path):
    save_model(path, model, tensors={"styles.class_mean": torch.ones(5, 3)})
    with pytest.raises(CheckpointError, match=r"styles\.class_mean has shape \(5, 3\) instead of \(classes, 2\)"):
        load_model(path)


def test_weights_of_another_type_are_refused(model, path):
    save_model(path, model)
    rewrite(path, lambda tensors, _: tensors.update({"generator.head.bias": torch.ones(3, dtype=torch.int64)}))
    with pytest.raises(CheckpointError, match=r"generator\.head\.bias is torch\.int64 instead of torch\.float32"):
        load_model(path)


@pytest.mark.parametrize("value", [10**4, 10**6, 10**9, 10**30])
@pytest.mark.parametrize(
    "name",
    [
        "n_labels", "feature_channels", "generator.ngf", "generator.n_downsample", "generator.n_blocks",
        "generator.n_enhancers", "generator.n_blocks_local", "discriminator.ndf", "discriminator.n_layers",
        "discriminator.n_scales", "encoder.nef", "encoder.n_downsample",
    ],
)  # fmt: skip
def test_an_architecture_of_absurd_numbers_is_refused_before_it_is_built(model, path, name, value):
    save_model(path, model)

    def edit(_, header):
        *tables, field = name.split(".")
        table = header["model"]
        for part in tables:
            table = table[part]
        table[field] = value

    rewrite(path, edit)
    began = time.monotonic()
    with pytest.raises(CheckpointError, match=r"model\.safetensors") as caught:
        load_model(path)
    assert len(str(caught.value)) < 700
    assert time.monotonic() - began < 5


def test_a_new_file_takes_the_place_of_no_other(model, path):
    path.write_text("precious")
    with pytest.raises(HdganError, match=r"model\.safetensors already exists"):
        save_model(path, model, new=True)
    assert path.read_text() == "precious"
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_weights_of_another_type_are_loaded_as_float32(model, path):
    for scale in (1e-30, 1.0, 1e30):
        for weight in model.parameters():
            weight.data.normal_(0, scale)
        save_model(path, model, ema=averages(model), dtype=torch.bfloat16)
        loaded, _ = load_model(path, ema=False)
        assert_equal(loaded.state_dict(), {k: v.bfloat16().float() for k, v in model.state_dict().items()})
        averaged, _ = load_model(path)
        assert torch.equal(averaged.generator.head.weight, model.generator.head.weight + 1)


def test_only_weights_change_their_type(path):
    unet, patch = UNetConfig(2, 5, (), spectral_norm=True), PatchConfig(2, 1)
    model = Pix2Pix(Pix2PixConfig(n_labels=3, instances=False, generator=unet, discriminator=patch))
    weights, before = dict(model.named_parameters()), model.state_dict()
    assert {key.rpartition(".")[2] for key in before.keys() - weights.keys()} >= {"_u", "_v", "running_var"}
    save_model(path, model, tensors={"more": torch.ones(1)}, dtype=torch.bfloat16)
    found = {key: value.dtype for key, value in load_file(path).items()}
    assert found.pop("more") == torch.float32
    assert found == {key: torch.bfloat16 if key in weights else value.dtype for key, value in before.items()}
