"""`hdgan convert`: checkpoints of other implementations to hdgan's and back, and runs to files for use."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

import torch
import tyro

from hdgan.checkpoints import MODEL_FILE, find_checkpoint, is_folder, list_steps, locate
from hdgan.commands.class_choice import given_classes
from hdgan.errors import ConfigError
from hdgan.inference.one_file import export_model
from hdgan.interop.cyclegan.files import convert_from_cyclegan, convert_to_cyclegan, find_generator
from hdgan.interop.nvidia.folder import convert_from_nvidia, convert_to_nvidia
from hdgan.weights import open_safetensors


def convert(
    source: Annotated[Path, tyro.conf.Positional],
    out: Path,
    to: Literal["hdgan", "nvidia", "cyclegan"] = "hdgan",
    epoch: str | None = None,
    labels: int | None = None,
    instances: bool | None = None,
    encoder: Path | None = None,
    ema: bool = True,
    dtype: Literal["float32", "bfloat16"] | None = None,
    classes: Path | None = None,
) -> int:
    """Convert checkpoints of NVIDIA/pix2pixHD or of pytorch-CycleGAN-and-pix2pix to hdgan, or back.

    A run of hdgan that is converted to hdgan becomes one file for use, without the discriminator. The clusters of its
    styles are written beside it. The names and colours of its classes are kept.

    NVIDIA's code can hold models of pix2pixHD with transposed upsampling, reflection padding and no noise. All presets
    train such models except the demo, which needs --model.generator.upsample transposed. pytorch-CycleGAN-and-pix2pix
    can hold models of pix2pix, U-Net or ResNet. Neither can hold a CRN. Of a network with spectral norm, they get the
    divided weights, which compute the same.

    Args:
        source: for NVIDIA/pix2pixHD, a folder with files such as latest_net_G.pth; for pytorch-CycleGAN-and-pix2pix,
            such a folder or the file of a generator; or a run or checkpoint of hdgan, or hf:OWNER/NAME.
        out: the checkpoint to write, *.safetensors; with --to nvidia or cyclegan, the folder. Nothing is overwritten.
        to: the code that will read the result.
        epoch: the first part of their file names, such as latest, which is the default, or 100.
        labels: number of classes in the label maps, 0 for images; by default as opt.txt says, or inferred.
        instances: whether the network sees instance boundaries; by default as opt.txt says, or inferred.
        encoder: a *_net_E.pth outside the folder.
        ema: of a run or checkpoint of hdgan, use the averaged weights if there are any.
        dtype: from hdgan to hdgan, the type of the weights in the file, by default float32. With bfloat16, which is
            loaded as float32 again, the file is half as large.
        classes: from hdgan to hdgan, other names and colours of the classes for the file: a classes.csv, or a text file
            with one name per line.

    Returns:
        0.

    Raises:
        ConfigError: an option has no effect for this source or direction, or an output file already exists.
        CheckpointError: the source does not exist, or cannot be converted.
    """
    source, chosen = locate(source), epoch or "latest"
    settings = {"labels": labels, "instances": instances, "encoder": encoder}
    if to != "hdgan":
        _refuse(settings, f"--to {to}: the checkpoint says which it is")
        _refuse({"dtype": dtype}, f"--to {to}, which writes float32")
        _refuse({"classes": classes}, f"--to {to}, whose files name no classes")
        back = {"nvidia": convert_to_nvidia, "cyclegan": convert_to_cyclegan}[to]
        notes = back(find_checkpoint(source), out, chosen, ema=ema)
    elif _is_of_hdgan(source):
        _refuse(settings | {"epoch": epoch}, "a checkpoint of hdgan")
        model, weights = find_checkpoint(source), getattr(torch, dtype or "float32")
        notes = export_model(model, out, weights, ema=ema, classes=given_classes(model, classes))
    else:
        _refuse({"dtype": dtype}, "a checkpoint of other code, whose weights keep their type")
        _refuse({"classes": classes}, "a checkpoint of other code, but with the file that is written from it")
        if not ema:
            raise ConfigError(
                "--no-ema has no effect on a checkpoint of other code, which keeps no averages: leave it out"
            )
        if not source.is_dir():
            _refuse(settings | {"epoch": epoch}, "a single file, which is of one epoch and whose G reads images")
            notes = convert_from_cyclegan(source, out)
        elif file := find_generator(source, chosen):
            _refuse(settings, f"{file}, a file of pytorch-CycleGAN-and-pix2pix whose G reads images")
            notes = convert_from_cyclegan(file, out)
        else:
            notes = convert_from_nvidia(source, out, chosen, labels=labels, instances=instances, encoder=encoder)
    print("\n".join([*notes, f"wrote {out}"]))
    return 0


def _is_of_hdgan(source: Path) -> bool:
    """Whether a file or folder is a run or checkpoint of hdgan."""
    if is_folder(source):
        return (source / MODEL_FILE).is_file() or bool(list_steps(source))
    if source.suffix != ".safetensors":
        return False
    with open_safetensors(source) as file:
        return "hdgan" in (file.metadata() or {})


def _refuse(options: Mapping[str, object], what: str) -> None:
    for name, value in options.items():
        if value is not None:
            raise ConfigError(f"--{name} has no effect with {what}; leave it out")
