"""What `hdgan convert` takes, and that it writes whole sets, never over another's."""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from hdgan.commands.convert import convert
from hdgan.commands.main import main
from hdgan.data.spec import DatasetSpec
from hdgan.errors import CheckpointError, ConfigError, DataError, HdganError
from hdgan.families import (
    CRNConfig,
    DiscriminatorConfig,
    GeneratorConfig,
    Pix2Pix,
    Pix2PixConfig,
    Pix2PixHD,
    Pix2PixHDConfig,
    ResNetConfig,
    UNetConfig,
)
from hdgan.families.registry import build_model
from hdgan.families.saving import load_model, save_model
from hdgan.families.stored_classes import classes_entry
from hdgan.inference import load
from hdgan.interop import convert_to_nvidia, cyclegan, nvidia

HD = Pix2PixHDConfig(n_labels=3, generator=GeneratorConfig(4, 1, 1), discriminator=DiscriminatorConfig(2, 1, 2))
PLAIN = Pix2PixConfig(n_labels=0, input_channels=3, instances=False, generator=UNetConfig(2, 5, (1,)))
NAMES = ["latest_net_D.pth", "latest_net_G.pth", "opt.txt"]


@pytest.fixture
def model_file(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    save_model(tmp_path / "model.safetensors", Pix2PixHD(HD))
    return tmp_path / "model.safetensors"


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("prefix", ["_orig_mod.", "_orig_mod.module.", "module._orig_mod."])
def test_networks_that_went_through_wrappers_are_read(prefix: str, tmp_path: Path) -> None:
    theirs = {"nvidia": Pix2PixHD(HD).generator, "cyclegan": Pix2Pix(PLAIN).generator}
    for code, (name, network) in zip((nvidia, cyclegan), theirs.items(), strict=True):
        (tmp_path / name).mkdir()
        state = {f"{prefix}{key}": value for key, value in code.to_state_dict(network).items()}  # type: ignore[arg-type]
        torch.save({"state_dict": state}, tmp_path / name / "latest_net_G.pth")
        assert main(["convert", str(tmp_path / name), "--out", str(tmp_path / f"{name}.safetensors")]) == 0
        found = load_model(tmp_path / f"{name}.safetensors")[0].generator.state_dict()
        assert all(torch.equal(found[key], value) for key, value in network.state_dict().items())


@pytest.mark.parametrize("generator", [UNetConfig(2, 5, (1,)), ResNetConfig(2, 6, True), ResNetConfig(2, 6, False)])
@pytest.mark.parametrize("norm", ["batch", "instance"])
@pytest.mark.parametrize("tells", ["keys", "options", "discriminator"])
def test_a_folder_of_the_other_code_is_as_good_as_its_file(
    generator: UNetConfig | ResNetConfig, norm: Any, tells: str, tmp_path: Path
) -> None:
    if tells == "keys" and norm == "instance" and generator == ResNetConfig(2, 6, False):
        return  # NVIDIA's code can have the same network
    model = Pix2Pix(replace(PLAIN, norm=norm, generator=generator))
    folder = tmp_path / "theirs"
    folder.mkdir()
    torch.save(cyclegan.to_state_dict(model.generator), folder / "latest_net_G.pth")  # type: ignore[arg-type]
    if tells == "discriminator":
        torch.save(cyclegan.to_state_dict(model.discriminator), folder / "latest_net_D.pth")  # type: ignore[arg-type]
    elif tells == "options":
        kind = "resnet_6blocks" if isinstance(generator, ResNetConfig) else "unet_32"
        (folder / "train_opt.txt").write_text(f"---- Options ----\n      netG: {kind}  \t[default: x]\n")
    convert(folder, tmp_path / "folder.safetensors")
    convert(folder / "latest_net_G.pth", tmp_path / "file.safetensors")
    assert (tmp_path / "folder.safetensors").read_bytes() == (tmp_path / "file.safetensors").read_bytes()
    with pytest.raises(ConfigError, match=r"labels has no effect with \S+latest_net_G\.pth, a file of"):
        convert(folder, tmp_path / "other.safetensors", labels=3)


def test_a_cyclegan_has_two_generators(tmp_path: Path) -> None:
    for name in ("latest_net_G_A.pth", "latest_net_G_B.pth"):
        (tmp_path / name).write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"one of its generators: latest_net_G_A\.pth, latest_net_G_B"):
        convert(tmp_path, tmp_path / "out.safetensors")


@pytest.mark.parametrize("config", [HD, PLAIN, CRNConfig(n_labels=2, n_modules=1, width=0.01)])
def test_a_run_of_ours_becomes_a_file_for_use(config: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "run" / "checkpoints" / "step-00000009"
    folder.mkdir(parents=True)
    save_model(folder / "model.safetensors", build_model(config))
    files = [tmp_path / f"{k}.safetensors" for k in range(3)]
    for source, out in zip((tmp_path / "run", folder, folder / "model.safetensors"), files, strict=True):
        assert main(["convert", str(source), "--out", str(out), "--dtype", "bfloat16"]) == 0
        assert capsys.readouterr().out.splitlines()[-1] == f"wrote {out}"
    assert len({file.read_bytes() for file in files}) == 1
    found, expected = load_model(files[0])[0].generator, load_model(folder / "model.safetensors")[0].generator
    weights = dict(expected.named_parameters())
    for key, value in expected.state_dict().items():
        assert torch.equal(found.state_dict()[key], value.bfloat16().float() if key in weights else value)


def test_a_model_of_hdgan_is_converted_by_its_name(shipped: Path) -> None:
    assert main(["convert", "demo", "--out", "copy.safetensors"]) == 0
    found, expected = load_model(Path("copy.safetensors"))[0], load_model(shipped)[0]
    assert found.config == expected.config
    assert load_model(Path("copy.safetensors"))[1].missing == ("discriminator",)


def test_options_without_effect_are_refused(model_file: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.safetensors"
    with pytest.raises(ConfigError, match="--dtype has no effect with --to nvidia, which writes float32; leave it out"):
        convert(model_file, tmp_path / "theirs", "nvidia", dtype="bfloat16")
    with pytest.raises(ConfigError, match="--epoch has no effect with a checkpoint of hdgan; leave it out"):
        convert(model_file, out, epoch="3")
    convert(model_file, tmp_path / "theirs", "nvidia")
    with pytest.raises(ConfigError, match="--dtype has no effect with a checkpoint of other code"):
        convert(tmp_path / "theirs", out, dtype="float32")
    with pytest.raises(ConfigError, match="--no-ema has no effect on a checkpoint of other code"):
        convert(tmp_path / "theirs", out, ema=False)


def test_what_nvidias_code_cannot_hold_is_told_with_what_to_train(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "model.safetensors"
    save_model(
        file, Pix2PixHD(replace(HD, generator=replace(HD.generator, upsample="resize", pad_mode="zero", noise=1)))
    )
    with pytest.raises(CheckpointError, match=r"upsample.*transposed.*pad.mode reflect.*noise 0"):
        convert_to_nvidia(file, tmp_path / "theirs")
    assert main(["convert", str(file), "--to", "nvidia", "--out", str(tmp_path / "theirs")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith(
        "--model.generator.upsample transposed --model.generator.pad-mode reflect --model.generator.noise 0"
    )
    assert not (tmp_path / "theirs").exists()


def test_what_exists_is_told_in_the_words_of_the_command_line(
    model_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    convert_to_nvidia(model_file, tmp_path / "theirs")
    for to, source, out, says in (
        ("hdgan", "theirs", "model.safetensors", "--out"),
        ("nvidia", "model.safetensors", "theirs", "--out or --epoch"),
    ):
        assert main(["convert", str(tmp_path / source), "--out", str(tmp_path / out), "--to", to]) == 2
        assert f" already exists: choose another {says}, or delete it" in capsys.readouterr().err


def test_weights_that_are_not_finite_go_in_no_direction(model_file: Path, tmp_path: Path) -> None:
    convert_to_nvidia(model_file, tmp_path / "theirs")
    file = tmp_path / "theirs" / "latest_net_D.pth"
    state = torch.load(file, weights_only=True)
    state["scale0_layer0.0.bias"] = state["scale0_layer0.0.bias"].double() + 1e300
    torch.save(state, file)
    with pytest.raises(
        CheckpointError, match=r"latest_net_D\.pth: scale0_layer0\.0\.bias contains numbers that are NaN"
    ):
        convert(tmp_path / "theirs", tmp_path / "out.safetensors")
    model = load_model(model_file)[0]
    with torch.no_grad():
        model.generator.head.bias[0] = float("nan")  # type: ignore[union-attr,index]
    save_model(model_file, model)
    with pytest.raises(CheckpointError, match=r"generator\.head\.bias contains numbers that are NaN .*\(1 of 3\)"):
        convert_to_nvidia(model_file, tmp_path / "out")
    generator = cyclegan.to_state_dict(Pix2Pix(PLAIN).generator)  # type: ignore[arg-type]
    generator["model.model.0.weight"] = generator["model.model.0.weight"] / 0
    torch.save(generator, tmp_path / "G.pth")
    with pytest.raises(CheckpointError, match=r"G\.pth: model\.model\.0\.weight contains numbers that are NaN"):
        convert(tmp_path / "G.pth", tmp_path / "out.safetensors")
    assert names_in(tmp_path) == ["G.pth", "model.safetensors", "theirs"]


@pytest.mark.parametrize("written", [0, 1, 2])
def test_a_set_that_was_not_finished_is_completed_by_a_repeat(
    written: int, model_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "theirs"
    convert_to_nvidia(model_file, folder, "20")
    before = set(names_in(folder))
    link, left = os.link, [written]

    def killed(*arguments: Any, **options: Any) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt
        link(*arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(os, "link", killed)
        with pytest.raises(KeyboardInterrupt):
            convert_to_nvidia(model_file, folder)
    assert before <= set(names_in(folder)) < {*before, *NAMES}
    assert "latest_net_G.pth" not in names_in(folder)
    convert_to_nvidia(model_file, folder)
    assert set(names_in(folder)) == {*before, *NAMES}
    with pytest.raises(ConfigError, match=r"latest_net_G\.pth already exists"):
        convert_to_nvidia(model_file, folder)


def test_a_new_folder_is_complete_or_absent(model_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", killed)
        with pytest.raises(KeyboardInterrupt):
            convert_to_nvidia(model_file, tmp_path / "theirs")
    assert names_in(tmp_path) == ["model.safetensors"]
    convert_to_nvidia(model_file, tmp_path / "theirs")
    assert names_in(tmp_path / "theirs") == NAMES


def test_a_folder_that_appears_meanwhile_is_not_replaced(
    model_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rename = Path.rename

    def late(path: Path, target: Path) -> Path:
        target.mkdir()
        (target / "latest_net_G.pth").write_text("another's")
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", late)
    with pytest.raises(HdganError, match=r"latest_net_G\.pth already exists"):
        convert_to_nvidia(model_file, tmp_path / "theirs")
    assert (tmp_path / "theirs" / "latest_net_G.pth").read_text() == "another's"
    assert names_in(tmp_path / "theirs") == ["latest_net_G.pth"]


@pytest.fixture
def small_files() -> Iterator[None]:
    """No file can grow beyond 2000 bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.fixture
def _theirs(model_file: Path, tmp_path: Path) -> None:
    convert_to_nvidia(model_file, tmp_path / "theirs")


@pytest.mark.usefixtures("_theirs", "small_files")
@pytest.mark.parametrize(("to", "source"), [("nvidia", "model.safetensors"), ("hdgan", "theirs")])
def test_a_limit_of_file_size_is_one_line_and_leaves_nothing(
    to: str, source: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["convert", str(tmp_path / source), "--out", str(tmp_path / "out.safetensors"), "--to", to]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("hdgan: error: cannot write ")
    assert len(printed.err.splitlines()) == 1
    assert names_in(tmp_path) == ["model.safetensors", "theirs"]


def test_names_of_classes_are_kept_or_given(tmp_path: Path) -> None:
    kept = DatasetSpec.of_colors(("a", "b", "c"), ((1, 2, 3), (4, 5, 6), (7, 8, 9)))
    model, names = tmp_path / "model.safetensors", tmp_path / "names"
    save_model(model, Pix2PixHD(HD), extra=classes_entry(kept))

    def converted(name: str, *options: str) -> DatasetSpec | None:
        assert main(["convert", str(model), "--out", str(tmp_path / name), *options]) == 0
        return load(tmp_path / name, device="cpu").classes

    same = converted("same.safetensors")
    assert same is not None
    assert (same.classes, same.css_colors) == (kept.classes, kept.css_colors)
    names.write_text("x\ny\nz\n")
    renamed = converted("renamed.safetensors", "--classes", str(names))
    assert renamed is not None
    assert (renamed.classes, renamed.css_colors) == (("x", "y", "z"), kept.css_colors)
    names.write_text("x\n")
    with pytest.raises(DataError, match="names has 1 line, but the model has 3 classes"):
        convert(model, tmp_path / "new.safetensors", classes=names)
    with pytest.raises(
        ConfigError, match="--classes has no effect with --to nvidia, whose files name no classes; leave"
    ):
        convert(model, tmp_path / "new", to="nvidia", classes=names)
    save_model(tmp_path / "images.safetensors", Pix2Pix(PLAIN))
    with pytest.raises(ConfigError, match=r"--classes \S+ has no effect: \S+images\.safetensors translates images"):
        convert(tmp_path / "images.safetensors", tmp_path / "new.safetensors", classes=names)
