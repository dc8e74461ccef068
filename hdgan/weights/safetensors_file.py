"""Opening a safetensors file within bounds."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from hdgan.errors import CheckpointError
from hdgan.files import require_file
from hdgan.files.limits import require_bounded

_GROWTH = 128
"""A header takes at most this many times its bytes once all in it is decoded, tensors without numbers included."""

_REMEDY = (
    "copy it again, or convert a checkpoint of NVIDIA/pix2pixHD or pytorch-CycleGAN-and-pix2pix with `hdgan convert`"
)


@contextmanager
def open_safetensors(path: Path, device: str = "cpu", remedy: str = _REMEDY) -> Iterator[Any]:
    """Open a file for reading; the library compares every tensor's place with the size of the file.

    Args:
        path: the file.
        device: where its tensors go.
        remedy: what the user can do about a damaged file.

    Raises:
        CheckpointError: it is missing, no ordinary file, no safetensors file, or its header is larger than the limit.
    """
    require_file(path, CheckpointError)
    try:
        with path.open("rb") as raw:
            length = int.from_bytes(raw.read(8), "little")
        size = path.stat().st_size
        if length <= size:  # what is larger, the library refuses
            require_bounded(path, length * _GROWTH, f"a file with a header of {length} bytes", CheckpointError)
        with safe_open(path, framework="pt", device=device) as file:
            yield file
    except (SafetensorError, OSError) as error:
        raise CheckpointError(
            f"{path} ({path.stat().st_size} bytes) is not a readable safetensors file ({error}); it is truncated or of "
            f"another format: {remedy}"
        ) from error
