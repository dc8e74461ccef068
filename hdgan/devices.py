"""Which device to run on."""

from __future__ import annotations

import torch

from hdgan.errors import ConfigError


def choose_device(device: str, local_rank: int = 0) -> torch.device:
    """Turn a device option into a device that exists.

    Raises:
        ConfigError: it does not.
    """
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        chosen = torch.device(device)
    except RuntimeError as error:
        raise ConfigError(f"--device {device} is not a device: give auto, cpu, cuda or cuda:N") from error
    if chosen.type == "cuda":
        count = torch.cuda.device_count()
        chosen = torch.device("cuda", local_rank if chosen.index is None else chosen.index)
        if chosen.index >= count:
            raise ConfigError(
                f"--device {device} needs CUDA device {chosen.index}, but PyTorch sees {count}: use --device cpu"
            )
        torch.cuda.set_device(chosen)
    return chosen
