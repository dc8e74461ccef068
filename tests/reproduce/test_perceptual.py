"""The network of the perceptual loss is loaded, and tried, before anything runs."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from hdgan.commands.main import main
from hdgan.errors import ConfigError, HdganError
from hdgan.models.vgg import VGG19Features
from hdgan.reproduce.perceptual import TWIN_NETWORK, choose_network
from hdgan.reproduce.scales import SCALES, Scale
from tests.models.test_programs import Levels, write_script


def test_without_a_choice_it_is_the_twin(scale: Scale) -> None:
    network = choose_network(None, None, scale)
    assert network == TWIN_NETWORK
    assert (network.is_twin, network.options, network.digest) == (True, {}, "")


def test_a_program_is_known_by_name_and_digest(program: Path, scale: Scale, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(program.parent)
    network = choose_network(program.name, None, scale)
    assert (network.name, network.n_features, network.is_twin) == (program.name, 2, False)
    assert network.options == {"loss.network": program}
    moved = program.rename(program.with_name("moved.pt"))
    assert choose_network(str(moved), None, scale).digest == network.digest
    write_script(moved, Levels())  # of other weights
    assert choose_network(str(moved), None, scale).digest != network.digest


def test_weights_of_vgg19_are_its_own_option(tmp_path: Path) -> None:
    file = tmp_path / "vgg19.pth"
    torch.save(VGG19Features().state_dict(), file)
    network = choose_network("vgg19", file, SCALES["small"])
    assert network.options == {"loss.network": "vgg19", "loss.network_weights": file}
    assert (network.name, network.n_features, len(network.digest)) == ("vgg19", 5, 12)


def test_files_are_found_from_other_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save(VGG19Features().state_dict(), "vgg19.pth")
    network = choose_network("vgg19", Path("vgg19.pth"), SCALES["small"])
    assert network.options["loss.network_weights"] == tmp_path / "vgg19.pth"


def test_a_network_that_needs_larger_images_is_refused(scale: Scale) -> None:
    says = r"network vgg19 needs images of 16 pixels on each side, but size tiny begins training at 16x8"
    with pytest.raises(ConfigError, match=says):
        choose_network("vgg19", None, scale)


def refused(capsys: pytest.CaptureFixture[str], out: Path, *arguments: str) -> str:
    """The error of a command that has written nothing."""
    assert main(["reproduce", "--out", str(out), *arguments]) == 2
    assert not out.exists()
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    return error


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--network", "none.pt"], "--network none.pt does not exist: give vgg19, timm:NAME, "),
        (
            ["--network-weights", "w.pth"],
            "--network-weights w.pth has no effect without --network: give --network vgg19",
        ),
        (
            ["--network", "vgg19", "--network-weights", "none.pth"],
            "none.pth do not exist: download ",
        ),
        (
            ["--network", "none.pt", "--network-weights", "w.pth"],
            "--network-weights w.pth applies only to vgg19 or a network of timm: give --network",
        ),
        (["--network", "timm:no-such-network"], "--network timm:no-such-network"),
    ],
)
def test_bad_input_is_refused_before_anything_runs(
    arguments: list[str], says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    error = refused(capsys, tmp_path / "out", *arguments)
    assert says in error
    assert "--loss." not in error


def test_a_file_that_is_no_program_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "network.pt"
    file.write_text("no archive")
    assert f"{file} cannot be read as a perceptual network" in refused(capsys, tmp_path / "out", "--network", str(file))


def test_a_program_that_cannot_take_the_images_is_refused(tmp_path: Path, scale: Scale) -> None:
    file = tmp_path / "network.pt"
    write_script(file, nn.Conv2d(3, 4, 16))
    with pytest.raises(HdganError, match=r"network\.pt cannot take an image of 16x8"):
        choose_network(str(file), None, scale)
