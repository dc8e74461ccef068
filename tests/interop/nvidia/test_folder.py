import dataclasses
from pathlib import Path

import pytest
import torch
import tyro

from hdgan.commands.convert import convert
from hdgan.errors import CheckpointError, ConfigError
from hdgan.families import DiscriminatorConfig, EncoderConfig, GeneratorConfig, Pix2PixHD, Pix2PixHDConfig
from hdgan.families.saving import load_model, save_model
from hdgan.interop import convert_from_nvidia, convert_to_nvidia, to_state_dict

CONFIG = Pix2PixHDConfig(
    n_labels=7,
    feature_channels=3,
    generator=GeneratorConfig(ngf=8, n_downsample=2, n_blocks=1, n_enhancers=1, n_blocks_local=2),
    discriminator=DiscriminatorConfig(ndf=4, n_layers=2, n_scales=3),
    encoder=EncoderConfig(nef=4, n_downsample=2),
)


@pytest.fixture
def make(tmp_path):
    """Write a model of a config as a folder of NVIDIA's files."""

    def make(config=CONFIG):
        model = Pix2PixHD(config)
        save_model(tmp_path / "model.safetensors", model)
        convert_to_nvidia(tmp_path / "model.safetensors", tmp_path / "nvidia")
        return model, tmp_path / "nvidia"

    return make


def assert_equal(a, b):
    first, second = a.state_dict(), b.state_dict()
    assert list(first) == list(second)
    assert all(torch.equal(first[key], second[key]) for key in first)


@pytest.mark.parametrize(
    "config",
    [
        CONFIG,
        Pix2PixHDConfig(
            n_labels=0, instances=False, generator=GeneratorConfig(4, 1, 1), discriminator=DiscriminatorConfig(2)
        ),
        dataclasses.replace(CONFIG, feature_channels=0, discriminator=DiscriminatorConfig(4, 3, 1, False)),
        dataclasses.replace(CONFIG, encoder=EncoderConfig(4, 2, reduction=1)),
        dataclasses.replace(CONFIG, image_channels=1),
        dataclasses.replace(CONFIG, image_channels=5),
    ],
)
def test_round_trip_keeps_config_and_weights(make, tmp_path, config):
    if not config.feature_channels:
        config = dataclasses.replace(config, encoder=EncoderConfig())
    model, folder = make(config)
    convert_from_nvidia(folder, tmp_path / "back.safetensors")
    back, info = load_model(tmp_path / "back.safetensors")
    assert back.config == config
    assert info.missing == ()
    assert_equal(model, back)


def test_without_opt_txt_the_networks_tell(make, tmp_path):
    _, folder = make()
    (folder / "opt.txt").unlink()
    notes = convert_from_nvidia(folder, tmp_path / "back.safetensors")
    assert load_model(tmp_path / "back.safetensors")[0].config == CONFIG
    assert "inferred" in notes[0]
    assert notes[1] == "G's 11 input channels: 7 labels, a boundary map, 3 features"


@pytest.mark.parametrize(
    ("channels", "labels", "instances", "picture"),
    [(36, 35, True, 3), (3, 0, False, 3), (4, 0, True, 3), (2, 1, True, 3)],
)
def test_generator_alone(tmp_path, channels, labels, instances, picture):
    config = Pix2PixHDConfig(n_labels=channels, instances=False, generator=GeneratorConfig(2, 1, 1))
    torch.save(to_state_dict(Pix2PixHD(config).generator), tmp_path / "latest_net_G.pth")
    convert_from_nvidia(tmp_path, tmp_path / "out.safetensors")
    model, info = load_model(tmp_path / "out.safetensors")
    assert (model.config.n_labels, model.config.instances) == (labels, instances)
    assert model.config.input_channels == picture
    assert model.discriminator is None
    assert info.missing == ("discriminator",)


def test_arguments_tell_what_the_files_do_not(make, tmp_path):
    model, folder = make()
    for name in ("opt.txt", "latest_net_D.pth", "latest_net_E.pth"):
        (folder / name).rename(tmp_path / name)
    convert_from_nvidia(folder, tmp_path / "out.safetensors", labels=7)
    without, info = load_model(tmp_path / "out.safetensors")
    assert without.config.feature_channels == 3
    assert info.missing == ("discriminator", "encoder")
    convert_from_nvidia(folder, tmp_path / "with.safetensors", encoder=tmp_path / "latest_net_E.pth")
    assert_equal(load_model(tmp_path / "with.safetensors")[0].encoder, model.encoder)


def test_other_lines_of_opt_txt_are_ignored(make, tmp_path):
    _, folder = make()
    text = (folder / "opt.txt").read_text()
    (folder / "opt.txt").write_text(text.replace("label_nc", "name: a: b\nmax_dataset_size: inf\nlabel_nc"))
    convert_from_nvidia(folder, tmp_path / "out.safetensors")
    assert load_model(tmp_path / "out.safetensors")[0].config == CONFIG


def test_other_epoch(make, tmp_path):
    _, folder = make()
    for file in folder.glob("latest_*"):
        file.rename(file.with_name(file.name.replace("latest", "20")))
    with pytest.raises(CheckpointError, match="choose epoch from: 20"):
        convert_from_nvidia(folder, tmp_path / "out.safetensors")
    convert_from_nvidia(folder, tmp_path / "out.safetensors", "20")
    assert load_model(tmp_path / "out.safetensors")[1].metadata["epoch"] == "20"


def test_averaged_weights_go_to_nvidia(tmp_path):
    model = Pix2PixHD(CONFIG)
    ema = {key: value + 1 for key, value in model.state_dict().items() if key.startswith("generator.")}
    save_model(tmp_path / "model.safetensors", model, ema)
    for averaged in (True, False):
        convert_to_nvidia(tmp_path / "model.safetensors", tmp_path, str(averaged), ema=averaged)
        bias = torch.load(tmp_path / f"{averaged}_net_G.pth", weights_only=True)["model.1.bias"]
        assert torch.equal(bias, model.generator.coarse.stem.bias.detach() + averaged)


def test_spectral_norm_is_taken_off(tmp_path):
    config = dataclasses.replace(
        CONFIG,
        generator=dataclasses.replace(CONFIG.generator, spectral_norm=True),
        discriminator=dataclasses.replace(CONFIG.discriminator, spectral_norm=True),
    )
    model = Pix2PixHD(config).eval()
    save_model(tmp_path / "model.safetensors", model)
    notes = convert_to_nvidia(tmp_path / "model.safetensors", tmp_path / "nvidia")
    assert notes[1:] == ["G and D had spectral norm: the files hold the divided weights, which train on without it"]
    convert_from_nvidia(tmp_path / "nvidia", tmp_path / "back.safetensors")
    back, _ = load_model(tmp_path / "back.safetensors")
    assert back.config == CONFIG
    x = torch.randn(1, 11, 16, 16)
    torch.testing.assert_close(back.generator(x), model.generator(x), rtol=1e-4, atol=1e-5)
    x = x.new_zeros(1, 11, 32, 32).normal_()
    pairs = zip(back.discriminator(x), model.discriminator(x), strict=True)
    for ours, expected in ((a, b) for found, wanted in pairs for a, b in zip(found, wanted, strict=True)):
        torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-4)


def test_notes_name_flags_and_what_nvidia_lacks(tmp_path):
    config = dataclasses.replace(
        CONFIG, dontcare=3, instance_divisor=100, image_depth="uint16", encoder=EncoderConfig(4, 2, reduction=1)
    )
    save_model(tmp_path / "model.safetensors", Pix2PixHD(config))
    flags, *others = convert_to_nvidia(tmp_path / "model.safetensors", tmp_path / "nvidia")
    assert {"--netG local", "--ngf 4", "--label_nc 7", "--instance_feat"} <= {
        f"--{f}".strip() for f in flags.split("--")
    }
    expected = ("dontcare", "// 100", "8 bits", "halved 1")
    assert [word in note for word, note in zip(expected, others, strict=True)] == [True] * 4


def test_command(make, tmp_path, capsys):
    _, folder = make()
    assert convert(folder, tmp_path / "a.safetensors") == 0
    assert convert(tmp_path / "a.safetensors", tmp_path / "b", to="nvidia") == 0
    printed = capsys.readouterr().out
    assert "7 labels" in printed
    assert "--netG local" in printed
    assert sorted(p.name for p in (tmp_path / "b").iterdir()) == sorted(p.name for p in folder.iterdir())


def test_command_takes_averages_or_not(tmp_path):
    model = Pix2PixHD(CONFIG)
    ema = {key: value + 1 for key, value in model.state_dict().items() if key.startswith("generator.")}
    save_model(tmp_path / "a.safetensors", model, ema)
    for options, added in (([], 1), (["--no-ema"], 0)):
        arguments = [str(tmp_path / "a.safetensors"), "--out", str(tmp_path / str(added)), "--to", "nvidia", *options]
        assert tyro.cli(convert, args=arguments) == 0
        bias = torch.load(tmp_path / str(added) / "latest_net_G.pth", weights_only=True)["model.1.bias"]
        assert torch.equal(bias, model.generator.coarse.stem.bias.detach() + added)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"to": "nvidia", "labels": 3}, "--labels"),
        ({"to": "nvidia", "instances": False}, "--instances"),
        ({"to": "nvidia", "encoder": Path("E.pth")}, "--encoder"),
        ({"ema": False}, "--no-ema"),
    ],
)
def test_options_of_the_other_direction_are_refused(tmp_path, options, named):
    with pytest.raises(ConfigError, match=f"^{named} has no effect (with|on)"):
        convert(tmp_path, tmp_path / "out", **options)


def test_a_discriminator_that_ends_in_a_sigmoid_is_noted(make, tmp_path):
    _, folder = make()
    path = folder / "opt.txt"
    assert not any("sigmoid" in note for note in convert_from_nvidia(folder, tmp_path / "a.safetensors"))
    path.write_text(path.read_text().replace("no_lsgan: False", "no_lsgan: True"))
    assert any("D ends in a sigmoid" in note for note in convert_from_nvidia(folder, tmp_path / "b.safetensors"))


@pytest.mark.parametrize("name", ["latest_net_G.pth", "latest_net_D.pth", "latest_net_E.pth", "opt.txt"])
def test_no_file_of_a_folder_is_overwritten(tmp_path, name):
    config = dataclasses.replace(CONFIG, feature_channels=0)  # without E: one in the folder would be taken for its own
    save_model(tmp_path / "model.safetensors", Pix2PixHD(config))
    folder = tmp_path / "theirs"
    folder.mkdir()
    (folder / name).write_text("precious")
    with pytest.raises(ConfigError, match=rf"{name} already exists.*: choose another out"):
        convert(tmp_path / "model.safetensors", folder, to="nvidia")
    assert {file.name: file.read_text() for file in folder.iterdir()} == {name: "precious"}


def test_epochs_of_one_network_share_a_folder(make, tmp_path):
    _, folder = make()
    convert_to_nvidia(tmp_path / "model.safetensors", folder, "20")
    assert len(list(folder.glob("*_net_G.pth"))) == 2


def test_no_checkpoint_is_overwritten(make, tmp_path):
    _, folder = make()
    before = (tmp_path / "model.safetensors").read_bytes()
    with pytest.raises(ConfigError, match=r"model\.safetensors already exists: choose another out"):
        convert(folder, tmp_path / "model.safetensors")
    assert (tmp_path / "model.safetensors").read_bytes() == before
    with pytest.raises(ConfigError, match=r"out \S+model must end in \.safetensors"):
        convert(folder, tmp_path / "model")
    assert not (tmp_path / "model").exists()


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("norm: instance", "norm: batch", "norm is batch"),
        ("label_nc: 7", "label_nc: many", "label_nc is 'many', not a whole number"),
        ("label_nc: 7", f"label_nc: {'7' * 6000}", "label_nc is '7{59}, not a whole number of at most 9 digits"),
        ("no_instance: False", "no_instance: 0", "not True or False"),
        ("label_nc: 7", "label_nc: 8", "8 channels, which is not 8 labels and a boundary map"),
        ("no_instance: False", "no_instance: True", "not 7 labels alone"),
        ("instance_feat: True", "instance_feat: False", "do not match"),
        ("feat_num: 3", "feat_num: 2", "do not match"),
    ],
)
def test_opt_txt_that_does_not_fit(make, tmp_path, old, new, says):
    _, folder = make()
    path = folder / "opt.txt"
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(CheckpointError, match=says):
        convert_from_nvidia(folder, tmp_path / "out.safetensors")


def test_a_folder_in_place_of_opt_txt(make, tmp_path):
    _, folder = make()
    (folder / "opt.txt").unlink()
    (folder / "opt.txt").mkdir()
    with pytest.raises(CheckpointError, match=r"opt\.txt is a folder"):
        convert_from_nvidia(folder, tmp_path / "out.safetensors")


def test_opt_txt_out_of_bounds(make, tmp_path):
    _, folder = make()
    path = folder / "opt.txt"
    path.write_text(path.read_text() + "n_layers_D: 999\n")
    (folder / "latest_net_D.pth").unlink()
    with pytest.raises(
        CheckpointError, match=r"a model that hdgan cannot build: model\.discriminator\.n_layers is 999"
    ):
        convert_from_nvidia(folder, tmp_path / "out.safetensors")


def test_networks_of_different_runs(make, tmp_path):
    _, folder = make()
    other = Pix2PixHD(dataclasses.replace(CONFIG, n_labels=9))
    torch.save(to_state_dict(other.discriminator), folder / "latest_net_D.pth")
    with pytest.raises(CheckpointError, match="G 11 in 3 out, D 13 in"):
        convert_from_nvidia(folder, tmp_path / "out.safetensors")


def test_missing_sources(tmp_path):
    with pytest.raises(CheckpointError, match="not a folder"):
        convert_from_nvidia(tmp_path / "absent", tmp_path / "out.safetensors")
    with pytest.raises(CheckpointError, match="latest_net_G"):
        convert_from_nvidia(tmp_path, tmp_path / "out.safetensors")
    with pytest.raises(CheckpointError, match="does not exist"):
        convert_to_nvidia(tmp_path / "absent.safetensors", tmp_path)
