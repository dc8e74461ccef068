"""NVIDIA's own networks, read from the user's checkout of NVIDIA/pix2pixHD. None of its code is here."""

from __future__ import annotations

import importlib.util
import sys
from functools import cache, partial
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import nn

from hdgan.errors import ConfigError
from hdgan.interop.nvidia import Network, to_state_dict
from hdgan.models import FeatureEncoder, GlobalGenerator, LocalEnhancer, MultiscaleDiscriminator

_CLASSES = ("GlobalGenerator", "LocalEnhancer", "MultiscaleDiscriminator", "Encoder")


@cache
def load_reference(path: Path) -> Any:
    """The module models/networks.py of a checkout.

    Raises:
        ConfigError: the folder is no checkout of NVIDIA/pix2pixHD.
    """
    file = path / "models" / "networks.py"
    remedy = "give a folder made by git clone https://github.com/NVIDIA/pix2pixHD"
    if not file.is_file():
        raise ConfigError(f"--reference {path} has no models/networks.py: {remedy}")
    module = _import(file, remedy)
    missing = [name for name in _CLASSES if not hasattr(module, name)]
    if missing:
        raise ConfigError(f"--reference {path}: models/networks.py has no {', '.join(missing)}: {remedy}")
    return module


def _import(file: Path, remedy: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location("pix2pixhd_reference", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # It imports torchvision for VGG19, which is not used here and need not be installed.
    stand_in = importlib.util.find_spec("torchvision") is None
    if stand_in:
        sys.modules["torchvision"] = ModuleType("torchvision")
        sys.modules["torchvision"].models = None  # type: ignore[attr-defined]
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # the file may be any program
        raise ConfigError(f"--reference: {file} cannot be imported ({error!r}): {remedy}") from error
    finally:
        if stand_in:
            del sys.modules["torchvision"]
    return module


def build_reference(path: Path, network: Network) -> nn.Module:
    """NVIDIA's counterpart of a network of ours, with the same weights, on the same device in the same dtype.

    Raises:
        ConfigError: as `load_reference`.
    """
    theirs, norm = load_reference(path), partial(nn.InstanceNorm2d, affine=False)
    built: nn.Module
    if isinstance(network, MultiscaleDiscriminator):
        first: Any = network.scales[0].convs[0]  # type: ignore[index]
        layers = len(network.scales[0].convs) - 2  # type: ignore[arg-type]
        built = theirs.MultiscaleDiscriminator(
            first.in_channels, first.out_channels, layers, norm, False, len(network.scales), True
        )
    elif isinstance(network, LocalEnhancer):
        trunk, enhancers = network.coarse, network.enhancers
        built = theirs.LocalEnhancer(
            trunk.stem.in_channels, network.head.out_channels, network.head.in_channels, len(trunk.downs),
            len(trunk.blocks), len(enhancers), len(enhancers[0].blocks), norm,  # type: ignore[arg-type]
        )  # fmt: skip
    else:
        assert isinstance(network, (GlobalGenerator, FeatureEncoder))
        trunk, channels = network.trunk, (network.trunk.stem.in_channels, network.head.out_channels)
        width, depth = trunk.stem.out_channels, len(trunk.downs)
        if isinstance(network, FeatureEncoder):
            built = theirs.Encoder(*channels, width, depth, norm)
        else:
            built = theirs.GlobalGenerator(*channels, width, depth, len(trunk.blocks), norm)
    built.load_state_dict(to_state_dict(network))
    weight = next(network.parameters())
    return built.to(weight.device, weight.dtype)
