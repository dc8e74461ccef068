"""Weights of junyanz/pytorch-CycleGAN-and-pix2pix as a checkpoint of hdgan, and back."""

from __future__ import annotations

import re
from pathlib import Path

import torch

from hdgan.errors import CheckpointError
from hdgan.files import atomic_file
from hdgan.interop.cyclegan import load_discriminator, load_generator, their_dropout_levels, to_state_dict
from hdgan.interop.nvidia_folder import read_pth
from hdgan.models import (
    AdversarialModel,
    GeneratorConfig,
    GlobalGenerator,
    ModelConfig,
    MultiscaleDiscriminator,
    PatchConfig,
    Pix2Pix,
    Pix2PixConfig,
    Pix2PixHD,
    Pix2PixHDConfig,
    UNetConfig,
    UNetGenerator,
)
from hdgan.models.saving import load_model, save_model

_NAMES = {7: "unet_128", 8: "unet_256"}


def convert_from_cyclegan(file: Path, out: Path) -> list[str]:
    """Write a generator of pytorch-CycleGAN-and-pix2pix as a checkpoint of hdgan, a model from picture to picture.

    A U-Net becomes a pix2pix model, with the discriminator of `*_net_D.pth` where that lies beside `*_net_G.pth`. A
    ResNet generator becomes a pix2pixHD model without discriminator.

    Args:
        file: `latest_net_G.pth`, `latest_net_G_A.pth`, or whatever holds the state dict of a netG. Whether a U-Net was
            trained with dropout stands in `train_opt.txt` or `opt.txt` beside it; without those, it was.
        out: checkpoint to write, *.safetensors.

    Returns:
        What was found and assumed, one sentence each.

    Raises:
        CheckpointError: a file that is missing, damaged, or no network that hdgan has.
    """
    notes: list[str] = []
    state = read_pth(file)
    generator = load_generator(state, dropout=_trained_with_dropout(file.parent), where=str(file))
    beside = file.with_name(file.name.replace("_net_G.", "_net_D."))
    model: AdversarialModel
    if isinstance(generator, GlobalGenerator):
        notes.append(f"a ResNet generator with {len(generator.trunk.blocks)} blocks: a pix2pixHD model without D")
        model = _resnet_model(generator)
    else:
        discriminator = None
        if beside != file and beside.is_file():
            discriminator = load_discriminator(read_pth(beside), where=str(beside))
        levels = ", ".join(map(str, generator.dropout_levels))
        notes.append(
            f"a U-Net with {len(generator.downs)} levels, {generator.norm} norm and "
            f"{f'dropout at levels {levels}' if levels else 'no dropout'}; {'with' if discriminator else 'without'} D"
        )
        model = _unet_model(generator, discriminator, beside)
    save_model(out, model, extra={"source": "junyanz/pytorch-CycleGAN-and-pix2pix"})
    return notes


def _trained_with_dropout(folder: Path) -> bool:
    for options in (folder / "train_opt.txt", folder / "opt.txt"):
        if options.is_file():
            text = options.read_text(encoding="utf-8", errors="replace")
            return re.search(r"^\s*no_dropout:\s*True", text, re.MULTILINE) is None
    return True


def _resnet_model(generator: GlobalGenerator) -> Pix2PixHD:
    stem, head = generator.trunk.stem, generator.head
    config = Pix2PixHDConfig(
        n_labels=0,
        input_channels=stem.in_channels,
        image_channels=head.out_channels,
        instances=False,
        generator=GeneratorConfig(stem.out_channels, len(generator.trunk.downs), len(generator.trunk.blocks)),
    )
    with torch.device("meta"):
        model = Pix2PixHD(config, with_discriminator=False)
    model.generator = generator
    return model


def _unet_model(generator: UNetGenerator, discriminator: MultiscaleDiscriminator | None, where: Path) -> Pix2Pix:
    first, last = generator.downs[0], generator.ups[-1]
    assert isinstance(first, torch.nn.Conv2d)
    assert isinstance(last, torch.nn.ConvTranspose2d)
    d = PatchConfig()
    if discriminator is not None:
        seen, convs = discriminator.in_channels, discriminator.scales[0].convs
        if seen != first.in_channels + last.out_channels or discriminator.norm != generator.norm:
            raise CheckpointError(
                f"{where} reads {seen} channels and has {discriminator.norm} norm, which is no D for G with "
                f"{first.in_channels} in, {last.out_channels} out and {generator.norm} norm; move it away, or take "
                "both from one run"
            )
        d = PatchConfig(convs[0].out_channels, len(convs) - 2)  # type: ignore[index,arg-type,union-attr]
    config = Pix2PixConfig(
        n_labels=0,
        input_channels=first.in_channels,
        image_channels=last.out_channels,
        instances=False,
        norm=generator.norm,
        generator=UNetConfig(first.out_channels, len(generator.downs), generator.dropout_levels),
        discriminator=d,
    )
    with torch.device("meta"):
        model = Pix2Pix(config)
    model.generator, model.discriminator = generator, discriminator
    return model


def convert_to_cyclegan(path: Path, folder: Path, epoch: str = "latest", *, ema: bool = True) -> list[str]:
    """Write a checkpoint of hdgan as the files that pytorch-CycleGAN-and-pix2pix loads.

    Args:
        path: checkpoint of hdgan: a pix2pix model, or a pix2pixHD model whose generator is a ResNet of theirs.
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
    generator, discriminator = model.generator, model.discriminator
    if not isinstance(generator, (UNetGenerator, GlobalGenerator)):
        raise CheckpointError(
            f"{path} is a model of the family {model.config.family} with a {type(generator).__name__}: "
            "pytorch-CycleGAN-and-pix2pix has U-Nets and ResNet generators"
        )
    states = {"G": to_state_dict(generator)}
    if isinstance(generator, UNetGenerator) and isinstance(discriminator, MultiscaleDiscriminator):
        states["D"] = to_state_dict(discriminator)
    for letter, state in states.items():
        # Through a file object: given a name, torch reports a full disk as an internal error.
        with atomic_file(folder / f"{epoch}_net_{letter}.pth") as temporary, temporary.open("wb") as file:
            torch.save(state, file)
    return _notes(generator, model.config)


def _notes(generator: UNetGenerator | GlobalGenerator, config: ModelConfig) -> list[str]:
    """The options with which their test.py runs a generator, and what it does otherwise."""
    notes = []
    if config.n_labels or config.instances:
        notes.append(f"their data sets are pictures: the {config.condition_channels} input planes are yours to make")
    if isinstance(generator, GlobalGenerator):
        ngf = generator.trunk.stem.out_channels
        network = f"--netG resnet_{len(generator.trunk.blocks)}blocks --norm instance --no_dropout"
    else:
        ngf, n_downs, levels = generator.ngf, len(generator.downs), generator.dropout_levels
        network = f"--netG {_NAMES.get(n_downs, f'(none has num_downs {n_downs})')} --norm {generator.norm}"
        network += "" if levels else " --no_dropout"
        if levels and levels != their_dropout_levels(n_downs):
            notes.append(f"dropout stands at levels {levels} here, there at {their_dropout_levels(n_downs)}")
    channels = f"--input_nc {config.condition_channels} --output_nc {config.image_channels} --ngf {ngf}"
    return [f"options for their test.py: {network} {channels}", *notes]
