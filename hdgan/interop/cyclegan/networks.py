"""Conversion between the networks of junyanz/pytorch-CycleGAN-and-pix2pix and ours: `netG` and, for pix2pix, `netD`.

Its U-Net is nested: each level contains the next one between its two convolutions. Its ResNet generators count
positions in one nn.Sequential, as NVIDIA's networks do.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from hdgan.errors import CheckpointError
from hdgan.families.pix2pix.model import patch_gan
from hdgan.interop import state_dicts
from hdgan.interop.state_dicts import Shapes, first_conv, numbers, out_channels
from hdgan.models import MultiscaleDiscriminator, ResNetGenerator, UNetGenerator
from hdgan.models.options import NormKind
from hdgan.weights.modules import tensor_shapes

Generator = UNetGenerator | ResNetGenerator
Network = Generator | MultiscaleDiscriminator

LEAST_DOWNS = 5
"""The fewest levels that their U-Net can have: unet_128 has 7, unet_256 has 8."""
_NAMES = {UNetGenerator: "U-Net", ResNetGenerator: "ResNet generator", MultiscaleDiscriminator: "PatchGAN"}
_REMEDY = "use a netG or netD of pytorch-CycleGAN-and-pix2pix"
_BLOCKS = r"model\.(\d+)\.conv_block\."
_UNET = re.compile(r"model\.model\.(?:1\.model\.)?(?:3\.model\.)*\d+\.")


def layer_names(network: Network) -> dict[str, str]:
    """Name each convolution and norm as their code does, in its order: their module name -> ours."""
    if isinstance(network, MultiscaleDiscriminator):
        return dict(_discriminator_layers(network))
    return dict(_unet_layers(network) if isinstance(network, UNetGenerator) else _resnet_layers(network))


def _unet_layers(network: UNetGenerator) -> Iterator[tuple[str, str]]:
    last = len(network.downs) - 1
    levels = ["model.model", *("model.model.1.model" + ".3.model" * i for i in range(last))]
    for i, level in enumerate(levels):  # but for the outermost, LeakyReLU comes first; the norm follows
        yield f"{level}.{int(i > 0)}", f"downs.{i}"
        if 0 < i < last:
            yield f"{level}.2", f"down_norms.{i - 1}"
    for i, level in enumerate(reversed(levels)):
        at = 3 if i in (0, last) else 5
        yield f"{level}.{at}", f"ups.{i}"
        if i < last:
            yield f"{level}.{at + 1}", f"up_norms.{i}"


def _resnet_layers(network: ResNetGenerator) -> Iterator[tuple[str, str]]:
    n_downs, n_blocks = len(network.downs), len(network.blocks)
    yield "model.1", "stem"  # after the pad
    yield "model.2", "down_norms.0"
    for i in range(n_downs):  # convolution, norm, ReLU
        yield f"model.{4 + 3 * i}", f"downs.{i}"
        yield f"model.{5 + 3 * i}", f"down_norms.{i + 1}"
    at, second = 4 + 3 * n_downs, 6 if network.dropout else 5
    for i in range(n_blocks):  # pad, convolution, norm, ReLU, dropout or not, pad, convolution, norm
        for position, name in {1: "conv1", 2: "norm1", second: "conv2", second + 1: "norm2"}.items():
            yield f"model.{at + i}.conv_block.{position}", f"blocks.{i}.{name}"
    at += n_blocks
    for i in range(n_downs):
        yield f"model.{at + 3 * i}", f"ups.{i}"
        yield f"model.{at + 3 * i + 1}", f"up_norms.{i}"
    yield f"model.{at + 3 * n_downs + 1}", "head"  # after the pad


def _discriminator_layers(network: MultiscaleDiscriminator) -> Iterator[tuple[str, str]]:
    convs = len(network.scales[0].convs)  # type: ignore[arg-type]
    for i in range(convs):  # convolution, LeakyReLU, then convolution, norm, LeakyReLU
        yield f"model.{max(0, 3 * i - 1)}", f"scales.0.convs.{i}"
        if 0 < i < convs - 1:
            yield f"model.{3 * i}", f"scales.0.norms.{i - 1}"


def to_state_dict(network: Network) -> dict[str, Tensor]:
    """Return the weights under their keys, in their order. The tensors are the network's own.

    Raises:
        CheckpointError: their code has no such network.
    """
    if isinstance(network, UNetGenerator) and len(network.downs) < LEAST_DOWNS:
        raise CheckpointError(
            f"their U-Net has {LEAST_DOWNS} levels or more, but this one has {len(network.downs)}; train with n_downs "
            f"{LEAST_DOWNS} or more"
        )
    if isinstance(network, MultiscaleDiscriminator) and (len(network.scales) != 1 or network.padding != 1):
        raise CheckpointError("their PatchGAN has one scale and padding 1, so this is not a D of pix2pix")
    return state_dicts.renamed_state(network, layer_names(network))


def their_dropout_levels(n_downs: int) -> tuple[int, ...]:
    """Decoder levels at which their U-Net has dropout: those between the innermost and the four outermost.

    In the paper it is at the innermost three, (0, 1, 2).
    """
    return tuple(range(1, n_downs - 4))


def load_generator(
    state_dict: Mapping[str, Tensor], *, dropout: bool = True, where: str = "the state dict"
) -> Generator:
    """Build the generator whose weights a `netG` state dict holds, and load it strictly.

    The architecture follows from keys and shapes, but for the U-Net's dropout, which has no weights. Accepts the
    prefixes of DataParallel and torch.compile, half precision (the result is float32) and the running statistics that
    their instance norms once wrote.

    Args:
        state_dict: of unet_128, unet_256, or any depth from 5 levels; resnet_6blocks or resnet_9blocks.
        dropout: whether a U-Net was trained with dropout, that is, without --no_dropout. The keys of a ResNet show
            this.
        where: what the error message starts with, usually the file.

    Raises:
        CheckpointError: another network, or tensors that are unknown, missing or do not fit.
    """
    tensors, norm = _tensors_and_norm(state_dict, where)
    if _has_norms_of_nvidia(tensors, norm):
        raise CheckpointError(
            f"{where} has batch norms after convolutions with biases, as NVIDIA/pix2pixHD trains with --norm batch; "
            "pytorch-CycleGAN-and-pix2pix has no biases there, and hdgan's pix2pixHD no batch norms: train with "
            "--norm instance"
        )
    shapes = tensor_shapes(tensors)
    nested = any(_UNET.match(key) for key in shapes)
    with torch.device("meta"):
        network = _build_unet(shapes, norm, dropout, where) if nested else _build_resnet(shapes, norm, where)
    _load(network, tensors, where)
    return network


def is_theirs(state_dict: Mapping[str, Tensor], where: str) -> bool:
    """Whether a `netG` is certainly from their code and not from NVIDIA's, whose keys look similar.

    U-Nets are theirs, and so are ResNets of two downsamplings with dropout, or with batch norms after convolutions
    without biases. With instance norms and without dropout, a ResNet could be from either code.

    Args:
        state_dict: as read.
        where: what the error message starts with, usually the file.

    Raises:
        CheckpointError: it is not a state dict.
    """
    tensors, norm = _tensors_and_norm(state_dict, where)
    if any(_UNET.match(key) for key in tensors):
        return True
    if _has_norms_of_nvidia(tensors, norm):
        return False
    first_block = min(numbers(_BLOCKS, tensors), default=0)
    return first_block == 10 and (norm == "batch" or _blocks_have_dropout(tensor_shapes(tensors)))


def _has_norms_of_nvidia(tensors: Mapping[str, Tensor], norm: NormKind) -> bool:
    """Whether the first convolution of a ResNet has a bias that a batch norm follows.

    NVIDIA's convolutions always have biases. Theirs have none in front of batch norms.
    """
    return norm == "batch" and "model.1.bias" in tensors


def _build_unet(shapes: Shapes, norm: NormKind, dropout: bool, where: str) -> UNetGenerator:
    ngf, in_channels = first_conv(shapes, "model.model.0.weight", where, _REMEDY)
    depth = max(key.count(".3.model") for key in shapes) + 2
    n_downs = min(max(LEAST_DOWNS, depth), len(shapes))  # the keys of a foreign file may nest to any depth
    levels = their_dropout_levels(n_downs) if dropout else ()
    return UNetGenerator(in_channels, out_channels(shapes, "model.model.3"), ngf, n_downs, norm, levels)


def _build_resnet(shapes: Shapes, norm: NormKind, where: str) -> ResNetGenerator:
    ngf, in_channels = first_conv(shapes, "model.1.weight", where, _REMEDY)
    # The last position counts, not the number of blocks, so that a missing tensor is reported as missing.
    n_blocks = min(max(numbers(_BLOCKS, shapes), default=9) - 9, len(shapes))
    channels = in_channels, out_channels(shapes, f"model.{17 + n_blocks}")
    return ResNetGenerator(*channels, ngf, max(0, n_blocks), norm, _blocks_have_dropout(shapes))


def _blocks_have_dropout(shapes: Shapes) -> bool:
    """Whether a dropout layer shifts the second convolution of each block by one position."""
    return any(".conv_block.6.weight" in key and len(shape) == 4 for key, shape in shapes.items())


def load_discriminator(state_dict: Mapping[str, Tensor], *, where: str = "the state dict") -> MultiscaleDiscriminator:
    """Build the PatchGAN (--netD basic or n_layers) whose weights a `netD` state dict holds, and load it strictly.

    Raises:
        CheckpointError: another network, or tensors that are unknown, missing or do not fit.
    """
    tensors, norm = _tensors_and_norm(state_dict, where)
    shapes = tensor_shapes(tensors)
    ndf, in_channels = first_conv(shapes, "model.0.weight", where, _REMEDY)
    n_layers = max(1, sum(len(shape) == 4 for shape in shapes.values()) - 2)
    with torch.device("meta"):
        network = patch_gan(in_channels, ndf, n_layers, norm)
    _load(network, tensors, where)
    return network


def _tensors_and_norm(state_dict: Mapping[str, Tensor], where: str) -> tuple[dict[str, Tensor], NormKind]:
    """The tensors that our network also has, and the norm that they belong to."""
    norm, tensors = state_dicts.norm_of(state_dicts.tensors_of(state_dict, where))
    if norm == "batch":  # whose count of batches PyTorch did not save before 0.4.1
        means = [key for key in tensors if key.endswith(".running_mean")]
        tensors = {key.replace("running_mean", state_dicts.BATCHES): torch.tensor(0) for key in means} | tensors
    return tensors, norm


def _load(network: Network, tensors: Mapping[str, Tensor], where: str) -> None:
    what = f"{_NAMES[type(network)]} of pytorch-CycleGAN-and-pix2pix"
    remedy = "use a checkpoint of its own code; for NVIDIA/pix2pixHD, give the folder"
    state_dicts.load_strictly(network, layer_names(network), tensors, where, what, remedy)
