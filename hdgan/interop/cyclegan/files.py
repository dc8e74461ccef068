"""Weights of junyanz/pytorch-CycleGAN-and-pix2pix as a checkpoint of hdgan, and back."""

from __future__ import annotations

import re
from pathlib import Path

import torch

from hdgan.checkpoints import require_new_checkpoint
from hdgan.errors import CheckpointError
from hdgan.families import PatchConfig, Pix2Pix, Pix2PixConfig, ResNetConfig, UNetConfig
from hdgan.families.saving import load_model, save_model
from hdgan.families.stored_inputs import StoredInputs, inputs_entry
from hdgan.interop.cyclegan.networks import (
    Generator,
    is_theirs,
    load_discriminator,
    load_generator,
    their_dropout_levels,
    to_state_dict,
)
from hdgan.interop.files import (
    network_file,
    notes_on_spectral_norm,
    require_no_networks,
    write_networks,
)
from hdgan.interop.state_dicts import tensors_of
from hdgan.models import MultiscaleDiscriminator, UNetGenerator
from hdgan.weights import read_weights

_NAMES = {
    "U-Net of 7 levels": "unet_128",
    "U-Net of 8 levels": "unet_256",
    "ResNet of 6 blocks": "resnet_6blocks",
    "ResNet of 9 blocks": "resnet_9blocks",
}
"""The --netG of the generators that their code can build."""


def convert_from_cyclegan(file: Path, out: Path) -> list[str]:
    """Write a generator of pytorch-CycleGAN-and-pix2pix as a pix2pix model from image to image.

    Args:
        file: `latest_net_G.pth`, `latest_net_G_A.pth`, or another file with the state dict of a netG. D is taken from
            `*_net_D.pth` if that is next to `*_net_G.pth`. `train_opt.txt` or `opt.txt` next to it says whether a U-Net
            was trained with dropout; without these, dropout is assumed.
        out: checkpoint to write, *.safetensors, which must not exist.

    Returns:
        What was found and assumed, one sentence each.

    Raises:
        CheckpointError: a file is missing, damaged, or not one of their networks, or D was not trained with G.
        ConfigError: `out` exists or has another ending.
    """
    require_new_checkpoint(out)
    generator = load_generator(read_weights(file), dropout=_trained_with_dropout(file.parent), where=str(file))
    beside = file.with_name(file.name.replace("_net_G.", "_net_D."))
    discriminator = None
    if beside != file and beside.is_file():
        discriminator = load_discriminator(read_weights(beside), where=str(beside))
    config = _config(generator, discriminator, beside)
    with torch.device("meta"):
        model = Pix2Pix(config)
    model.generator, model.discriminator = generator, discriminator
    extra = {"source": "junyanz/pytorch-CycleGAN-and-pix2pix", **inputs_entry(StoredInputs("uint8"))}
    save_model(out, model, extra=extra, new=True)
    return [f"G: {_kind(generator)}, {_network_options(generator)}; {'with' if discriminator else 'without'} D"]


def find_generator(folder: Path, epoch: str) -> Path | None:
    """The file of the generator in a folder of their code; None if another code wrote the folder.

    Args:
        folder: their `checkpoints/<name>`.
        epoch: the first part of the file's name.

    Raises:
        CheckpointError: the folder holds the generators of a CycleGAN, or the file of G cannot be read.
    """
    file = network_file(folder, epoch, "G")
    if not file.exists():
        both = sorted(path.name for path in folder.glob("*_net_G_[AB].pth"))
        if both:
            raise CheckpointError(
                f"{folder} is that of a CycleGAN: give the file of one of its generators: {', '.join(both)}"
            )
        return None
    kind = re.search(r"^\s*netG:\s*(\w+)", _options(folder), re.MULTILINE)
    if kind:
        return file if kind[1].startswith(("unet_", "resnet_")) else None
    discriminator = network_file(folder, epoch, "D")
    if discriminator.is_file() and "model.0.weight" in tensors_of(read_weights(discriminator), str(discriminator)):
        return file
    return file if is_theirs(read_weights(file), str(file)) else None


def _options(folder: Path) -> str:
    """The options of a training as their code wrote them; empty if there are none."""
    for options in (folder / "train_opt.txt", folder / "opt.txt"):
        if options.is_file():
            with options.open(encoding="utf-8", errors="replace") as file:
                return file.read(2**20)  # it has some hundred lines
    return ""


def _trained_with_dropout(folder: Path) -> bool:
    return re.search(r"^\s*no_dropout:\s*True", _options(folder), re.MULTILINE) is None


def _config(generator: Generator, d: MultiscaleDiscriminator | None, where: Path) -> Pix2PixConfig:
    """The config of the networks; errors about D start with `where`."""
    g = generator
    patch = PatchConfig()
    if d is not None:
        if d.in_channels != g.in_channels + g.out_channels or d.norm != g.norm:
            raise CheckpointError(
                f"{where} reads {d.in_channels} channels and has {d.norm} norm, so it is not the D of this G with "
                f"{g.in_channels} in, {g.out_channels} out and {g.norm} norm; move it away, or take both files from "
                "one run"
            )
        convs = d.scales[0].convs
        patch = PatchConfig(convs[0].out_channels, len(convs) - 2)  # type: ignore[index,arg-type,union-attr]
    return Pix2PixConfig(
        n_labels=0,
        input_channels=g.in_channels,
        image_channels=g.out_channels,
        instances=False,
        norm=g.norm,
        generator=UNetConfig(g.ngf, len(g.downs), g.dropout_levels)
        if isinstance(g, UNetGenerator)
        else ResNetConfig(g.ngf, len(g.blocks), g.dropout),
        discriminator=patch,
    )


def convert_to_cyclegan(path: Path, folder: Path, epoch: str = "latest", *, ema: bool = True) -> list[str]:
    """Write a checkpoint of hdgan as the files that pytorch-CycleGAN-and-pix2pix loads.

    Args:
        path: checkpoint of hdgan, a pix2pix model.
        folder: to write into, usually `checkpoints/<name>` of their code; created if absent.
        epoch: the first part of the files' names.
        ema: use the averaged weights if there are any.

    Returns:
        The options for their test.py, and notes about what it cannot know.

    Raises:
        CheckpointError: the checkpoint cannot be loaded, or their code has no such network.
        ConfigError: the folder has networks of this epoch.
        HdganError: the folder cannot be written.
    """
    require_no_networks(folder, epoch)
    model, _ = load_model(path, ema=ema)
    if not isinstance(model, Pix2Pix):
        raise CheckpointError(
            f"{path} is a model of the family {model.config.family}: pytorch-CycleGAN-and-pix2pix has only pix2pix"
        )
    networks = {"G": model.generator, "D": model.discriminator}
    states = {letter: to_state_dict(network) for letter, network in networks.items() if network is not None}
    write_networks(folder, epoch, states)
    g, channels = model.generator, model.config.condition_channels
    notes = [f"options for their test.py: {_network_options(g)} --input_nc {channels} --output_nc {g.out_channels}"]
    if _kind(g) not in _NAMES:
        notes.append(f"their --netG has no {_kind(g)}: add one to define_G in their models/networks.py")
    if model.config.n_labels or model.config.instances:
        notes.append(f"their datasets are images: you have to create the {channels} input planes yourself")
    if model.config.image_depth != "uint8":
        notes.append("their code writes images of 8 bits, and so does a model that is converted back")
    if isinstance(g, UNetGenerator) and g.dropout_levels:
        theirs = their_dropout_levels(len(g.downs))
        if g.dropout_levels != theirs:
            notes.append(f"dropout is at levels {g.dropout_levels} here, but at {theirs} there")
    return [*notes, *notes_on_spectral_norm(model.config)]


def _kind(g: Generator) -> str:
    return f"U-Net of {len(g.downs)} levels" if isinstance(g, UNetGenerator) else f"ResNet of {len(g.blocks)} blocks"


def _network_options(g: Generator) -> str:
    """The options with which their code builds a generator, without --netG if it has no such generator."""
    name = _NAMES.get(_kind(g))
    dropout = bool(g.dropout_levels) if isinstance(g, UNetGenerator) else g.dropout
    return f"{f'--netG {name} ' if name else ''}--norm {g.norm} --ngf {g.ngf}{'' if dropout else ' --no_dropout'}"
