"""Weights of junyanz/pytorch-CycleGAN-and-pix2pix as a checkpoint of hdgan, and back."""

from __future__ import annotations

import re
from pathlib import Path

import torch

from hdgan.errors import CheckpointError
from hdgan.files import atomic_file
from hdgan.interop.cyclegan import (
    Generator,
    load_discriminator,
    load_generator,
    their_dropout_levels,
    to_state_dict,
)
from hdgan.interop.nvidia_folder import read_pth
from hdgan.models import (
    MultiscaleDiscriminator,
    PatchConfig,
    Pix2Pix,
    Pix2PixConfig,
    ResNetConfig,
    UNetConfig,
    UNetGenerator,
)
from hdgan.models.saving import load_model, save_model

_NAMES = {7: "unet_128", 8: "unet_256"}


def convert_from_cyclegan(file: Path, out: Path) -> list[str]:
    """Write a generator of pytorch-CycleGAN-and-pix2pix as a pix2pix model from picture to picture.

    Args:
        file: `latest_net_G.pth`, `latest_net_G_A.pth`, or whatever holds the state dict of a netG. D is taken from
            `*_net_D.pth` where that lies beside `*_net_G.pth`. Whether a U-Net was trained with dropout stands in
            `train_opt.txt` or `opt.txt` beside it; without those, it was.
        out: checkpoint to write, *.safetensors.

    Returns:
        What was found and assumed, one sentence each.

    Raises:
        CheckpointError: a file that is missing, damaged, or no network of theirs, or a D that is not G's.
    """
    generator = load_generator(read_pth(file), dropout=_trained_with_dropout(file.parent), where=str(file))
    beside = file.with_name(file.name.replace("_net_G.", "_net_D."))
    discriminator = None
    if beside != file and beside.is_file():
        discriminator = load_discriminator(read_pth(beside), where=str(beside))
    config = _config(generator, discriminator, beside)
    with torch.device("meta"):
        model = Pix2Pix(config)
    model.generator, model.discriminator = generator, discriminator
    save_model(out, model, extra={"source": "junyanz/pytorch-CycleGAN-and-pix2pix"})
    return [f"G: {_network_options(generator)}; {'with' if discriminator else 'without'} D"]


def _trained_with_dropout(folder: Path) -> bool:
    for options in (folder / "train_opt.txt", folder / "opt.txt"):
        if options.is_file():
            text = options.read_text(encoding="utf-8", errors="replace")
            return re.search(r"^\s*no_dropout:\s*True", text, re.MULTILINE) is None
    return True


def _config(generator: Generator, d: MultiscaleDiscriminator | None, where: Path) -> Pix2PixConfig:
    """The config of the networks; errors about D start with `where`."""
    g = generator
    patch = PatchConfig()
    if d is not None:
        if d.in_channels != g.in_channels + g.out_channels or d.norm != g.norm:
            raise CheckpointError(
                f"{where} reads {d.in_channels} channels and has {d.norm} norm, which is no D for G with "
                f"{g.in_channels} in, {g.out_channels} out and {g.norm} norm; move it away, or take both from one run"
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
        folder: to write into, usually `checkpoints/<name>` of their code; made if absent.
        epoch: the first part of the files' names.
        ema: take the averaged weights where there are any.

    Returns:
        The options for their test.py, and what it cannot know.

    Raises:
        CheckpointError: the checkpoint cannot be loaded, or their code has no such network.
        HdganError: the folder cannot be written.
    """
    model, _ = load_model(path, ema=ema)
    if not isinstance(model, Pix2Pix):
        raise CheckpointError(
            f"{path} is a model of the family {model.config.family}: pytorch-CycleGAN-and-pix2pix has only pix2pix"
        )
    networks = {"G": model.generator, "D": model.discriminator}
    states = {letter: to_state_dict(network) for letter, network in networks.items() if network is not None}
    for letter, state in states.items():
        # Through a file object: given a name, torch reports a full disk as an internal error.
        with atomic_file(folder / f"{epoch}_net_{letter}.pth") as temporary, temporary.open("wb") as file:
            torch.save(state, file)
    g, channels = model.generator, model.config.condition_channels
    notes = [f"options for their test.py: {_network_options(g)} --input_nc {channels} --output_nc {g.out_channels}"]
    if model.config.n_labels or model.config.instances:
        notes.append(f"their data sets are pictures: the {channels} input planes are yours to make")
    if isinstance(g, UNetGenerator) and g.dropout_levels:
        theirs = their_dropout_levels(len(g.downs))
        if g.dropout_levels != theirs:
            notes.append(f"dropout stands at levels {g.dropout_levels} here, there at {theirs}")
    return notes


def _network_options(g: Generator) -> str:
    """The options with which their code builds a generator."""
    if isinstance(g, UNetGenerator):
        n_downs = len(g.downs)
        name, dropout = _NAMES.get(n_downs, f"(none has num_downs {n_downs})"), bool(g.dropout_levels)
    else:
        name, dropout = f"resnet_{len(g.blocks)}blocks", g.dropout
    return f"--netG {name} --norm {g.norm} --ngf {g.ngf}{'' if dropout else ' --no_dropout'}"
