"""Models of label maps train and generate without their one-hot tensor."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from hdgan.families import (
    CRNConfig,
    CRNLoss,
    DiscriminatorConfig,
    EncoderConfig,
    GeneratorConfig,
    ModelConfig,
    PatchConfig,
    Pix2PixConfig,
    Pix2PixHDConfig,
    Pix2PixHDLoss,
    Pix2PixLoss,
    ResNetConfig,
    UNetConfig,
    build_model,
)
from hdgan.families.common.augmentation import Augmentation
from hdgan.families.common.batch import Batch
from hdgan.families.common.losses import LossConfig
from hdgan.families.common.pool import FakePool
from hdgan.models.blocks import recomputing
from hdgan.ops import LabelPlanes, backend
from hdgan.training.trainer import accumulate_gradients

N_LABELS, HEIGHT, WIDTH = 11, 24, 40
"""Nothing else in these models has 11 or 12 channels."""
PATCH = PatchConfig(ndf=4, n_layers=1)
FAMILIES: dict[str, tuple[ModelConfig, LossConfig]] = {
    "pix2pixhd": (
        Pix2PixHDConfig(
            n_labels=N_LABELS,
            feature_channels=2,
            generator=GeneratorConfig(ngf=8, n_downsample=1, n_blocks=1, n_blocks_local=1, n_enhancers=1),
            discriminator=DiscriminatorConfig(ndf=4, n_layers=1, n_scales=3),
            encoder=EncoderConfig(nef=2, n_downsample=1),
        ),
        Pix2PixHDLoss(vgg=0.0),
    ),
    "U-Net": (
        Pix2PixConfig(n_labels=N_LABELS, generator=UNetConfig(ngf=4, n_downs=3), discriminator=PATCH),
        Pix2PixLoss(),
    ),
    "ResNet": (
        Pix2PixConfig(n_labels=N_LABELS, generator=ResNetConfig(ngf=4, n_blocks=1), discriminator=PATCH),
        Pix2PixLoss(),
    ),
    "CRN": (CRNConfig(n_labels=N_LABELS, n_modules=3, width=1 / 128), CRNLoss()),
}


class Planes(TorchDispatchMode):
    """Counts the tensors inside that have a channel for each class."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor) and tensor.dim() == 4 and tensor.shape[2] != tensor.shape[3]:
                self.count += tensor.shape[1] in (N_LABELS, N_LABELS + 1)
        return result


class Image(nn.Module):
    """The image in the place of each of five features."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, x: Tensor) -> list[Tensor]:
        return [self.scale * x] * 5


def step_and_generate(name: str, memory_format: torch.memory_format, dtype: torch.dtype) -> int:
    """Take gradients twice, so that the pool returns what it keeps, and generate; count the tensors of planes."""
    config, loss = FAMILIES[name]
    torch.manual_seed(0)
    model = build_model(config).to(memory_format=memory_format)  # type: ignore[call-overload]
    criterion = loss.criterion(Image() if name == "CRN" else None, FakePool(1), Augmentation())
    # Of areas so large that they are looked up on a CPU.
    label = torch.randint(N_LABELS, (2, 2, 2)).repeat_interleave(HEIGHT // 2, 1).repeat_interleave(WIDTH // 2, 2)
    photo = (torch.rand(2, 3, HEIGHT, WIDTH) * 2 - 1).contiguous(memory_format=memory_format)
    batch = Batch(photo, label, None, label)
    networks = [list(network.parameters()) for network in (model.generator, model.discriminator) if network is not None]
    with Planes() as seen, torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
        for _ in range(2):
            with recomputing():
                objectives = criterion(model, batch)
            accumulate_gradients(objectives, networks[0], networks[-1], 1)
        with torch.inference_mode():
            condition = model.condition(label, label)
            image = model.generate(condition, model.encode(photo, label))
    assert image.shape == photo.shape
    assert all(p.grad is not None for p in networks[0] if p.dim() == 4)
    return seen.count


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("name", FAMILIES)
def test_no_one_hot_tensor_is_made(
    name: str, memory_format: torch.memory_format, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(LabelPlanes, "dense", None)  # which operators call unseen
    assert step_and_generate(name, memory_format, dtype) == 0


@pytest.mark.parametrize("name", FAMILIES)
def test_plain_pytorch_makes_it(name: str) -> None:
    with backend("eager"):
        assert step_and_generate(name, torch.contiguous_format, torch.float32) > 8
