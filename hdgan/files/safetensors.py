"""Opening a safetensors file within limits."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from hdgan.errors import CheckpointError, HdganError
from hdgan.files import require_file
from hdgan.files.limits import require_bounded

_GROWTH = 128
"""A decoded header takes at most this many times its bytes in memory, including its entries for empty tensors."""

_REMEDY = (
    "copy it again, or convert a checkpoint of NVIDIA/pix2pixHD or pytorch-CycleGAN-and-pix2pix with `hdgan convert`"
)


@contextmanager
def open_safetensors(
    path: Path, device: str = "cpu", remedy: str = _REMEDY, error: type[HdganError] = CheckpointError
) -> Iterator[Any]:
    """Open a file for reading; the library compares every tensor's place with the size of the file.

    Args:
        path: the file.
        device: where its tensors go.
        remedy: what the user can do about a damaged file.
        error: what is raised.

    Raises:
        HdganError: of the given class, if the file is missing, no ordinary file, no safetensors file, or its header is
            larger than the limit.
    """
    require_file(path, error)
    try:
        with path.open("rb") as raw:
            length = int.from_bytes(raw.read(8), "little")
        size = path.stat().st_size
        if length <= size:  # the library refuses a longer one
            require_bounded(path, length * _GROWTH, f"a file with a header of {length} bytes", error)
        with safe_open(path, framework="pt", device=device) as file:
            yield file
    except (SafetensorError, OSError) as problem:
        raise error(
            f"{path} ({path.stat().st_size} bytes) is not a readable safetensors file ({problem}); it is truncated or "
            f"has another format: {remedy}"
        ) from problem
