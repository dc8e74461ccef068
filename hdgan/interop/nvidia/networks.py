"""Conversion between the networks of NVIDIA/pix2pixHD and ours: state dicts whose keys are positions in nn.Sequentials.

Pads, norms and activations have positions too, so the position of a convolution follows from the architecture, and the
architecture from the positions. Only `layer_names` knows them.
"""

from __future__ import annotations

import re
from collections.abc import Generator, Iterator, Mapping
from typing import Any, Literal, overload

import torch
from torch import Tensor

from hdgan.errors import CheckpointError
from hdgan.interop import state_dicts
from hdgan.interop.state_dicts import Shapes, first_conv, numbers, out_channels
from hdgan.models import FeatureEncoder, GlobalGenerator, LocalEnhancer, MultiscaleDiscriminator
from hdgan.models.generator import Trunk
from hdgan.models.noise import Noise
from hdgan.weights.modules import tensor_shapes

Kind = Literal["generator", "discriminator", "encoder"]
Network = GlobalGenerator | LocalEnhancer | MultiscaleDiscriminator | FeatureEncoder

_BLOCK_CONVS = {"conv_block.1": "conv1", "conv_block.5": "conv2"}
_REMEDY = "use a checkpoint of NVIDIA's own code"


def layer_names(network: Network) -> dict[str, str]:
    """Name each convolution as NVIDIA's code does, in its order: NVIDIA's module name -> ours."""
    if isinstance(network, MultiscaleDiscriminator):
        return dict(_discriminator_layers(network))
    if isinstance(network, LocalEnhancer):
        return dict(_enhancer_layers(network))
    return dict(_global_layers(network))


def _trunk_layers(trunk: Trunk, ours: str) -> Generator[tuple[str, str], None, int]:
    """Yield the layers of a trunk; return the position after it."""
    yield "model.1", f"{ours}.stem"  # after the pad
    at = 4
    for i in range(len(trunk.downs)):
        yield f"model.{at}", f"{ours}.downs.{i}"
        at += 3  # convolution, norm, ReLU
    for i in range(len(trunk.blocks)):
        yield from _block_layers(f"model.{at}", f"{ours}.blocks.{i}")
        at += 1
    for i in range(len(trunk.ups)):
        yield f"model.{at}", f"{ours}.ups.{i}"
        at += 3
    return at


def _block_layers(theirs: str, ours: str) -> Iterator[tuple[str, str]]:
    return ((f"{theirs}.{key}", f"{ours}.{name}") for key, name in _BLOCK_CONVS.items())


def _global_layers(network: GlobalGenerator | FeatureEncoder) -> Iterator[tuple[str, str]]:
    end = yield from _trunk_layers(network.trunk, "trunk")
    yield f"model.{end + 1}", "head"  # after the pad


def _enhancer_layers(network: LocalEnhancer) -> Iterator[tuple[str, str]]:
    yield from _trunk_layers(network.coarse, "coarse")
    for i, enhancer in enumerate(network.enhancers):
        ours, first, second = f"enhancers.{i}", f"model{i + 1}_1", f"model{i + 1}_2"
        yield f"{first}.1", f"{ours}.stem"
        yield f"{first}.4", f"{ours}.down"
        n_blocks = len(enhancer.blocks)  # type: ignore[arg-type]
        for k in range(n_blocks):
            yield from _block_layers(f"{second}.{k}", f"{ours}.blocks.{k}")
        yield f"{second}.{n_blocks}", f"{ours}.up"
    yield f"{second}.{n_blocks + 4}", "head"  # after norm, ReLU and pad


def _discriminator_layers(network: MultiscaleDiscriminator) -> Iterator[tuple[str, str]]:
    n_scales = len(network.scales)
    for i in range(n_scales):  # NVIDIA counts the coarsest as 0
        for j in range(len(network.scales[0].convs)):  # type: ignore[arg-type]
            # In one Sequential: convolution, LeakyReLU, then convolution, norm, LeakyReLU.
            theirs = f"scale{i}_layer{j}.0" if network.intermediate_features else f"layer{i}.{max(0, 3 * j - 1)}"
            yield theirs, f"scales.{n_scales - 1 - i}.convs.{j}"


def to_state_dict(network: Network) -> dict[str, Tensor]:
    """Return the weights under NVIDIA's keys, in its order. The tensors are the network's own.

    Raises:
        CheckpointError: NVIDIA's code has no such network: resize upsampling, another padding than reflect, or noise.
    """
    for module in network.modules():
        if getattr(module, "upsample", "transposed") != "transposed":
            raise CheckpointError(
                "NVIDIA's code has no resize upsampling (upsample resize); train with upsample transposed"
            )
        if getattr(module, "pad_mode", "reflect") != "reflect":
            raise CheckpointError(
                f"NVIDIA's code pads by reflection, but this network has pad_mode {module.pad_mode}; train with "
                "pad_mode reflect"
            )
        if isinstance(module, Noise):
            raise CheckpointError("NVIDIA's generators take no noise, but this one does; train with noise 0")
    return state_dicts.renamed_state(network, layer_names(network))


@overload
def load_network(
    state_dict: Mapping[str, Tensor], kind: Literal["generator"] = ..., *, where: str = ...
) -> GlobalGenerator | LocalEnhancer: ...
@overload
def load_network(
    state_dict: Mapping[str, Tensor], kind: Literal["discriminator"], *, where: str = ...
) -> MultiscaleDiscriminator: ...
@overload
def load_network(state_dict: Mapping[str, Tensor], kind: Literal["encoder"], *, where: str = ...) -> FeatureEncoder: ...
def load_network(
    state_dict: Mapping[str, Tensor], kind: Kind = "generator", *, where: str = "the state dict"
) -> Network:
    """Build the network whose weights a state dict of NVIDIA/pix2pixHD holds, and load it strictly.

    The architecture follows from keys and shapes alone. Accepts the prefixes of DataParallel and torch.compile, half
    precision (the result is float32) and the running statistics that instance norms wrote before PyTorch 0.4.
    An encoder is a generator without residual blocks, so the two cannot be distinguished.

    Args:
        state_dict: as read from `latest_net_G.pth` and the like.
        kind: what it is expected to hold.
        where: what the error message starts with, usually the file.

    Raises:
        CheckpointError: batch norms, another kind of network, or tensors that are unknown, missing or do not fit.
    """
    tensors = _clean(state_dict, kind, where)
    shapes = tensor_shapes(tensors)
    with torch.device("meta"):
        network = (
            _build_discriminator(shapes, where) if kind == "discriminator" else _build_generator(shapes, kind, where)
        )
    state_dicts.load_strictly(network, layer_names(network), tensors, where, f"{kind} of pix2pixHD", _REMEDY)
    return network


def _clean(state_dict: Any, kind: Kind, where: str) -> dict[str, Tensor]:
    tensors = state_dicts.tensors_of(state_dict, where)
    found = _kind(tensors)
    if found is None:
        some = ", ".join(list(tensors)[:3]) or "none"
        raise CheckpointError(
            f"{where} does not contain a network of pix2pixHD (keys: {some}); give a file such as latest_net_G.pth"
        )
    if found not in (kind, "generator or encoder") or (kind == "discriminator" and found != kind):
        raise CheckpointError(f"{where} looks like a {found}, not {_a(kind)}; give the file of the {kind}")
    norm, tensors = state_dicts.norm_of(tensors)
    if norm == "batch":
        raise CheckpointError(
            f"{where} was trained with batch norms (--norm batch), which hdgan's pix2pixHD does not have; train with "
            "--norm instance"
        )
    return tensors


def _a(kind: str) -> str:
    return f"an {kind}" if kind == "encoder" else f"a {kind}"


def _kind(keys: Mapping[str, Any]) -> str | None:
    if any(re.match(r"scale\d+_layer\d+\.|layer\d+\.", key) for key in keys):
        return "discriminator"
    if any("conv_block" in key or re.match(r"model\d+_[12]\.", key) for key in keys):
        return "generator"
    return "generator or encoder" if any(re.match(r"model\.\d+\.", key) for key in keys) else None


def _build_generator(shapes: Shapes, kind: Kind, where: str) -> Network:
    def count(layers: int) -> int:
        # The keys of a foreign file may contain any number, but no network has more layers than tensors.
        return min(max(0, layers), len(shapes))

    ngf, in_channels = first_conv(shapes, "model.1.weight", where, _REMEDY)
    n_enhancers = len(numbers(r"model(\d+)_[12]\.", shapes))
    blocks = numbers(r"model\.(\d+)\.conv_block", shapes)
    if blocks:
        # Their positions count, not their number, so that a missing tensor is reported as missing.
        n_downsample = count((min(blocks) - 4) // 3)
        n_blocks = count(max(blocks) - 4 - 3 * n_downsample + 1)
    else:
        n_convs = len(numbers(r"model\.(\d+)\.weight", shapes))
        n_downsample = count((n_convs - (1 if n_enhancers else 2) + 1) // 2)  # beside stem and last: as many down as up
        n_blocks = 0
    n_local = len(numbers(r"model1_2\.(\d+)\.conv_block", shapes))
    head = f"model{n_enhancers}_2.{n_local + 4}" if n_enhancers else f"model.{5 + 6 * n_downsample + n_blocks}"
    channels = in_channels, out_channels(shapes, head)
    if kind == "encoder":
        return FeatureEncoder(*channels, ngf, n_downsample)
    if n_enhancers == 0:
        return GlobalGenerator(*channels, ngf, n_downsample, n_blocks)
    finest = max(1, ngf // 2**n_enhancers)
    return LocalEnhancer(*channels, finest, n_downsample, n_blocks, n_enhancers, n_local)


def _build_discriminator(shapes: Shapes, where: str) -> MultiscaleDiscriminator:
    features = any(key.startswith("scale") for key in shapes)
    first = "scale0_layer0.0.weight" if features else "layer0.0.weight"
    ndf, in_channels = first_conv(shapes, first, where, _REMEDY)
    n_scales = len(numbers(r"scale(\d+)_" if features else r"layer(\d+)\.", shapes))
    n_convs = len(numbers(r"scale\d+_layer(\d+)\." if features else r"layer\d+\.(\d+)\.weight", shapes))
    return MultiscaleDiscriminator(in_channels, ndf, max(1, n_convs - 2), n_scales, features)
