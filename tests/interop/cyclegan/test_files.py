from dataclasses import replace

import pytest
import torch

from hdgan.commands.convert import convert
from hdgan.commands.main import main
from hdgan.errors import CheckpointError, ConfigError
from hdgan.families import CRNConfig, PatchConfig, Pix2Pix, Pix2PixConfig, ResNetConfig, UNetConfig
from hdgan.families.registry import build_model
from hdgan.families.saving import load_model, save_model
from hdgan.interop import convert_from_cyclegan, convert_to_cyclegan
from hdgan.interop.cyclegan import to_state_dict
from hdgan.models import MultiscaleDiscriminator

CONFIG = Pix2PixConfig(
    n_labels=0,
    input_channels=1,
    instances=False,
    generator=UNetConfig(ngf=2, n_downs=7, dropout_levels=(1, 2)),
    discriminator=PatchConfig(ndf=3, n_layers=2),
)


def save(model, folder, ema=None):
    save_model(folder / "model.safetensors", model, ema)
    return folder / "model.safetensors"


@pytest.mark.parametrize("norm", ["batch", "instance"])
def test_round_trip_of_a_unet_with_its_discriminator(norm, tmp_path):
    config = replace(CONFIG, norm=norm)
    model = Pix2Pix(config)
    notes = convert_to_cyclegan(save(model, tmp_path), tmp_path / "theirs")
    assert notes == [
        f"options for their test.py: --netG unet_128 --norm {norm} --ngf 2 --input_nc 1 --output_nc 3",
    ]
    assert sorted(file.name for file in (tmp_path / "theirs").iterdir()) == ["latest_net_D.pth", "latest_net_G.pth"]
    notes = convert_from_cyclegan(tmp_path / "theirs" / "latest_net_G.pth", tmp_path / "back.safetensors")
    assert notes == [f"G: U-Net of 7 levels, --netG unet_128 --norm {norm} --ngf 2; with D"]
    back, info = load_model(tmp_path / "back.safetensors")
    assert back.config == config
    assert info.missing == ()
    assert info.metadata["source"] == "junyanz/pytorch-CycleGAN-and-pix2pix"
    assert all(torch.equal(value, back.state_dict()[key]) for key, value in model.state_dict().items())


@pytest.mark.parametrize(
    ("options", "levels"),
    [("no_dropout: False   ", (1, 2)), ("  no_dropout: True \t[default: None]", ()), ("norm: batch", (1, 2))],
)
@pytest.mark.parametrize("name", ["train_opt.txt", "opt.txt"])
def test_options_tell_of_dropout(options, levels, name, tmp_path):
    torch.save(to_state_dict(Pix2Pix(CONFIG).generator), tmp_path / "latest_net_G.pth")
    (tmp_path / name).write_text(f"----- Options ------\n{options}\n")
    convert_from_cyclegan(tmp_path / "latest_net_G.pth", tmp_path / "out.safetensors")
    model, info = load_model(tmp_path / "out.safetensors")
    assert model.generator.dropout_levels == levels
    assert info.missing == ("discriminator",)


@pytest.mark.parametrize("norm", ["batch", "instance"])
@pytest.mark.parametrize(("n_blocks", "dropout"), [(6, True), (9, False)])
def test_round_trip_of_a_resnet(n_blocks, dropout, norm, tmp_path):
    config = replace(CONFIG, norm=norm, generator=ResNetConfig(2, n_blocks, dropout), discriminator=PatchConfig())
    generator = Pix2Pix(config).generator
    torch.save(to_state_dict(generator), tmp_path / "latest_net_G_A.pth")
    options = f"--netG resnet_{n_blocks}blocks --norm {norm} --ngf 2" + ("" if dropout else " --no_dropout")
    assert convert_from_cyclegan(tmp_path / "latest_net_G_A.pth", tmp_path / "out.safetensors") == [
        f"G: ResNet of {n_blocks} blocks, {options}; without D"
    ]
    model, info = load_model(tmp_path / "out.safetensors")
    assert (model.config, info.missing) == (config, ("discriminator",))
    x = torch.randn(1, 1, 12, 17)
    pictures = []
    for make in (generator, lambda x: model.generate(model.condition(source=x))):
        torch.manual_seed(0)
        pictures.append(make(x))
    assert torch.equal(*pictures)
    notes = convert_to_cyclegan(tmp_path / "out.safetensors", tmp_path / "theirs", "7")
    assert notes == [f"options for their test.py: {options} --input_nc 1 --output_nc 3"]
    files = (tmp_path / "latest_net_G_A.pth", tmp_path / "theirs" / "7_net_G.pth")
    before, after = (torch.load(file, weights_only=True) for file in files)
    assert list(before) == list(after)
    assert all(torch.equal(before[key], after[key]) for key in before)


def test_other_families_are_refused(tmp_path):
    model = build_model(CRNConfig(n_labels=2, n_modules=1, width=0.01))
    with pytest.raises(CheckpointError, match="family crn: pytorch-CycleGAN-and-pix2pix has only pix2pix"):
        convert_to_cyclegan(save(model, tmp_path), tmp_path / "theirs")


def test_notes_say_what_their_code_does_otherwise(tmp_path):
    config = replace(CONFIG, n_labels=4, instances=True, generator=UNetConfig(ngf=2, n_downs=6))
    notes = convert_to_cyclegan(save(Pix2Pix(config), tmp_path), tmp_path / "theirs")
    assert notes[0] == "options for their test.py: --norm batch --ngf 2 --input_nc 5 --output_nc 3"
    assert notes[1].startswith("their --netG has no U-Net of 6 levels: add one to define_G")
    assert notes[2].startswith("their datasets are images: you have to create the 5 input planes")
    assert notes[3] == "dropout is at levels (0, 1, 2) here, but at (1,) there"
    config = replace(CONFIG, generator=ResNetConfig(2, 3))
    notes = convert_to_cyclegan(save(Pix2Pix(config), tmp_path), tmp_path / "resnet")
    assert "--netG" not in notes[0]
    assert notes[1:] == ["their --netG has no ResNet of 3 blocks: add one to define_G in their models/networks.py"]


def test_spectral_norm_is_taken_off(tmp_path):
    network = replace(CONFIG.generator, spectral_norm=True, dropout_levels=())
    model = Pix2Pix(replace(CONFIG, generator=network)).eval()
    notes = convert_to_cyclegan(save(model, tmp_path), tmp_path / "theirs")
    assert notes[1] == "G had spectral norm: the files hold the divided weights, which train on without it"
    (tmp_path / "theirs" / "opt.txt").write_text("no_dropout: True")
    convert_from_cyclegan(tmp_path / "theirs" / "latest_net_G.pth", tmp_path / "back.safetensors")
    back, _ = load_model(tmp_path / "back.safetensors")
    x = torch.randn(1, model.config.condition_channels, 128, 128)
    torch.testing.assert_close(back.generator(x), model.generator(x), rtol=1e-4, atol=1e-5)


def test_averages_or_not(tmp_path):
    model = Pix2Pix(CONFIG)
    ema = {key: value + 1 for key, value in model.state_dict().items() if key.startswith("generator.")}
    file = save(model, tmp_path, ema)
    for averaged in (True, False):
        convert_to_cyclegan(file, tmp_path, str(averaged), ema=averaged)
        bias = torch.load(tmp_path / f"{averaged}_net_G.pth", weights_only=True)["model.model.3.bias"]
        assert torch.equal(bias, model.generator.ups[-1].bias.detach() + averaged)


@pytest.mark.parametrize(
    "discriminator",
    [MultiscaleDiscriminator(3, 2, 3, 1, False, "batch", 1), MultiscaleDiscriminator(4, 2, 3, 1, False, padding=1)],
)
def test_a_discriminator_of_another_run(discriminator, tmp_path):
    torch.save(to_state_dict(Pix2Pix(CONFIG).generator), tmp_path / "latest_net_G.pth")
    torch.save(to_state_dict(discriminator), tmp_path / "latest_net_D.pth")
    with pytest.raises(
        CheckpointError, match=r"latest_net_D\.pth reads .* so it is not the D of this G with 1 in, 3 out and batch"
    ):
        convert_from_cyclegan(tmp_path / "latest_net_G.pth", tmp_path / "out.safetensors")


def test_command(tmp_path, capsys):
    file, back = save(Pix2Pix(CONFIG), tmp_path), tmp_path / "back.safetensors"
    assert main(["convert", str(file), "--to", "cyclegan", "--out", str(tmp_path / "theirs")]) == 0
    assert main(["convert", str(tmp_path / "theirs" / "latest_net_G.pth"), "--out", str(back)]) == 0
    printed = capsys.readouterr().out
    assert "--netG unet_128" in printed
    assert f"wrote {back}" in printed
    with pytest.raises(ConfigError, match=r"back\.safetensors already exists"):
        convert(file, back)
    with pytest.raises(ConfigError, match="--labels has no effect with a single file"):
        convert(tmp_path / "theirs" / "latest_net_G.pth", back, labels=3)
    with pytest.raises(ConfigError, match="--epoch has no effect with a single file"):
        convert(tmp_path / "theirs" / "latest_net_G.pth", back, epoch="100")
    with pytest.raises(CheckpointError, match=r"100_net_G\.pth does not exist"):
        convert(tmp_path / "theirs" / "100_net_G.pth", back)
    with pytest.raises(ConfigError, match="--instances has no effect with --to cyclegan"):
        convert(file, tmp_path / "theirs", to="cyclegan", instances=True)


@pytest.mark.parametrize("name", ["latest_net_G.pth", "latest_net_D.pth"])
def test_nothing_is_overwritten(name, tmp_path):
    file, theirs = save(Pix2Pix(CONFIG), tmp_path), tmp_path / "theirs"
    theirs.mkdir()
    (theirs / name).write_text("precious")
    with pytest.raises(ConfigError, match=rf"{name} already exists: choose another out or epoch"):
        convert_to_cyclegan(file, theirs)
    assert [path.read_text() for path in theirs.iterdir()] == ["precious"]
    convert_to_cyclegan(file, theirs, "7")
    with pytest.raises(ConfigError, match=r"model\.safetensors already exists: choose another out"):
        convert_from_cyclegan(theirs / "7_net_G.pth", file)
    with pytest.raises(ConfigError, match=r"model\.pt must end in \.safetensors"):
        convert_from_cyclegan(theirs / "7_net_G.pth", tmp_path / "model.pt")
