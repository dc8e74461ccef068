"""`hdgan convert`: checkpoints of other implementations to hdgan's and back."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

import tyro

from hdgan.checkpoints import find_checkpoint
from hdgan.errors import CheckpointError, ConfigError
from hdgan.interop.cyclegan_file import convert_from_cyclegan, convert_to_cyclegan
from hdgan.interop.nvidia_folder import convert_from_nvidia, convert_to_nvidia


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

    Args:
        source: of NVIDIA/pix2pixHD a folder with latest_net_G.pth and the like; of pytorch-CycleGAN-and-pix2pix the
            file of a generator, latest_net_G.pth or the like; with --to nvidia or cyclegan, a run or checkpoint of
            hdgan.
        out: the checkpoint to write, *.safetensors; with --to nvidia or cyclegan, the folder. Nothing is overwritten.
        to: direction.
        epoch: the first part of their file names, such as latest, which is the default, or 100.
        labels: classes of the label maps, 0 for pictures; left out, opt.txt says so, or it is inferred.
        instances: whether the network sees instance boundaries; left out, opt.txt says so, or it is inferred.
        encoder: a *_net_E.pth outside the folder.
        ema: with --to nvidia or cyclegan, take the averaged weights where there are any.

    Returns:
        0.

    Raises:
        ConfigError: an option that has no meaning for this source or direction, or what would be written exists.
        CheckpointError: the source does not exist, or cannot be converted.
    """
    if to == "hdgan" and source.suffix == ".safetensors":
        raise ConfigError(f"{source} is a checkpoint of hdgan: give --to nvidia or --to cyclegan")
    given = {"labels": labels, "instances": instances, "encoder": encoder}
    if to == "hdgan" and source.is_file():
        _refuse(given | {"epoch": epoch}, "a single file: its G reads pictures, and it is of one epoch")
    elif to != "hdgan":
        _refuse(given, f"--to {to}: the checkpoint says it")
    epoch = epoch or "latest"
    if to != "hdgan":
        back = {"nvidia": convert_to_nvidia, "cyclegan": convert_to_cyclegan}[to]
        notes = back(find_checkpoint(source), out, epoch, ema=ema)
    elif not ema:
        raise ConfigError("--no-ema has no meaning with --to hdgan: other code keeps no averages; leave it out")
    elif not source.exists():
        raise CheckpointError(f"{source} does not exist; check the path")
    elif source.is_file():
        notes = convert_from_cyclegan(source, out)
    else:
        notes = convert_from_nvidia(source, out, epoch, labels=labels, instances=instances, encoder=encoder)
    print("\n".join([*notes, f"wrote {out}"]))
    return 0


def _refuse(options: Mapping[str, object], what: str) -> None:
    for name, value in options.items():
        if value is not None:
            raise ConfigError(f"--{name} has no meaning with {what}; leave it out")
