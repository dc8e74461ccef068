"""`hdgan convert`: checkpoints of other implementations to hdgan's and back."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import tyro

from hdgan.checkpoints import find_checkpoint
from hdgan.errors import ConfigError
from hdgan.interop.cyclegan_file import convert_from_cyclegan, convert_to_cyclegan
from hdgan.interop.nvidia_folder import convert_from_nvidia, convert_to_nvidia


def convert(
    source: Annotated[Path, tyro.conf.Positional],
    out: Path,
    to: Literal["hdgan", "nvidia", "cyclegan"] = "hdgan",
    epoch: str = "latest",
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
        out: the checkpoint to write, *.safetensors; with --to nvidia or cyclegan, the folder.
        to: direction.
        epoch: the first part of their file names, such as latest or 100.
        labels: classes of the label maps, 0 for pictures; left out, opt.txt says so, or it is inferred.
        instances: whether the network sees instance boundaries; left out, opt.txt says so, or it is inferred.
        encoder: a *_net_E.pth outside the folder.
        ema: with --to nvidia or cyclegan, take the averaged weights where there are any.

    Returns:
        0.

    Raises:
        ConfigError: an option of the other direction.
    """
    if to == "hdgan" and source.suffix == ".safetensors":
        raise ConfigError(f"{source} is a checkpoint of hdgan: give --to nvidia or --to cyclegan")
    given = {"labels": labels, "instances": instances, "encoder": encoder}
    given = {name: value for name, value in given.items() if value is not None}
    if given and (to != "hdgan" or source.is_file()):
        what = f"--to {to}: the checkpoint says it" if to != "hdgan" else "a single file: its G reads pictures"
        raise ConfigError(f"--{next(iter(given))} has no meaning with {what}; leave it out")
    if to != "hdgan":
        back = {"nvidia": convert_to_nvidia, "cyclegan": convert_to_cyclegan}[to]
        notes = back(find_checkpoint(source), out, epoch, ema=ema)
    elif not ema:
        raise ConfigError("--no-ema has no meaning with --to hdgan: other code keeps no averages; leave it out")
    elif source.is_file():
        notes = convert_from_cyclegan(source, out)
    else:
        notes = convert_from_nvidia(source, out, epoch, labels=labels, instances=instances, encoder=encoder)
    print("\n".join([*notes, f"wrote {out}"]))
    return 0
