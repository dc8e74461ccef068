"""`hdgan convert`: checkpoints of other implementations to hdgan's and back."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

import tyro

from hdgan.checkpoints import MODEL_FILE, find_checkpoint, is_folder, list_steps
from hdgan.errors import ConfigError
from hdgan.families.saving import read_metadata
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
) -> int:
    """Convert checkpoints of NVIDIA/pix2pixHD or of pytorch-CycleGAN-and-pix2pix to hdgan, or back.

    NVIDIA's code can hold models of pix2pixHD with transposed upsampling and reflection padding. All presets train such
    models except the demo: train that with --model.generator.upsample transposed. pytorch-CycleGAN-and-pix2pix can hold
    models of pix2pix, U-Net or ResNet. Neither can hold a CRN. Of a network with spectral norm, they get the divided
    weights, which compute the same.

    Args:
        source: for NVIDIA/pix2pixHD, a folder with files such as latest_net_G.pth; for pytorch-CycleGAN-and-pix2pix,
            such a folder or the file of a generator; with --to nvidia or cyclegan, a run or checkpoint of hdgan.
        out: the checkpoint to write, *.safetensors; with --to nvidia or cyclegan, the folder. Nothing is overwritten.
        to: direction.
        epoch: the first part of their file names, such as latest, which is the default, or 100.
        labels: number of classes in the label maps, 0 for images; by default as opt.txt says, or inferred.
        instances: whether the network sees instance boundaries; by default as opt.txt says, or inferred.
        encoder: a *_net_E.pth outside the folder.
        ema: with --to nvidia or cyclegan, use the averaged weights if there are any.

    Returns:
        0.

    Raises:
        ConfigError: an option has no effect for this source or direction, or an output file already exists.
        CheckpointError: the source does not exist, or cannot be converted.
    """
    settings = {"labels": labels, "instances": instances, "encoder": encoder}
    chosen = epoch or "latest"
    if to != "hdgan":
        _refuse(settings, f"--to {to}: the checkpoint says which it is")
        back = {"nvidia": convert_to_nvidia, "cyclegan": convert_to_cyclegan}[to]
        notes = back(find_checkpoint(source), out, chosen, ema=ema)
    elif not ema:
        raise ConfigError("--no-ema has no effect with --to hdgan, since other code keeps no averages: leave it out")
    else:
        _refuse_hdgans(source)
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


def _refuse_hdgans(source: Path) -> None:
    """Refuse a run or checkpoint of hdgan as a source, and say how to convert it."""
    if is_folder(source):
        ours = (source / MODEL_FILE).is_file() or bool(list_steps(source))
    elif ours := source.suffix == ".safetensors":
        with open_safetensors(source) as file:
            ours = "hdgan" in (file.metadata() or {})
    if not ours:
        return
    model = read_metadata(find_checkpoint(source)).get("model")
    family = model.get("family", "pix2pixhd") if isinstance(model, Mapping) else None
    remedy = {"pix2pixhd": "give --to nvidia", "pix2pix": "give --to cyclegan"}
    advice = remedy.get(str(family), "neither NVIDIA's code nor pytorch-CycleGAN-and-pix2pix has such a model")
    raise ConfigError(f"{source} is already a checkpoint of hdgan, a model of the family {family}: {advice}")


def _refuse(options: Mapping[str, object], what: str) -> None:
    for name, value in options.items():
        if value is not None:
            raise ConfigError(f"--{name} has no effect with {what}; leave it out")
