"""Networks as safetensors files that describe their architecture: the part that all networks of hdgan share."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from hdgan.errors import CheckpointError
from hdgan.files import atomic_file
from hdgan.files.json import parse_json
from hdgan.weights.state import require_finite
from hdgan.wording import count

M = TypeVar("M", bound=nn.Module)

FORMAT = 1
"""Version of the files. It is increased when older versions of hdgan could not read newer files."""
_EXAMPLES = 3
"""How many tensors of each kind are named where a file does not fit."""


def save_described(path: Path, tensors: Mapping[str, Tensor], header: Mapping[str, Any], *, new: bool = False) -> None:
    """Write tensors with a header, which `metadata_of` reads, so that a crash leaves the old file or the new one.

    Args:
        path: usually *.safetensors.
        tensors: by their names, on any device.
        header: what JSON can hold. The version of the format and of hdgan are added.
        new: the file must not exist, not even at the moment when this one is complete.

    Raises:
        HdganError: the file cannot be written, or with `new` it exists.
    """
    stored = {key: value.detach().cpu().contiguous() for key, value in tensors.items()}
    text = json.dumps({**header, "format": FORMAT, "version": version("hdgan")})
    with atomic_file(path, new=new) as temporary:
        save_file(stored, temporary, {"hdgan": text})


def tensor_shapes(tensors: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    """The shape of each tensor by its name."""
    return {key: tuple(value.shape) for key, value in tensors.items()}


def digest_of_tensors(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 of the names and values of tensors, in their order, as hexadecimal digits."""
    digest = hashlib.sha256()
    for name, value in tensors.items():
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def shapes_of(file: Any) -> dict[str, tuple[int, ...]]:
    """The shape of each tensor in an open file, by its name. No tensor is read."""
    return {key: tuple(file.get_slice(key).get_shape()) for key in file.keys()}  # noqa: SIM118


_COMPUTING = (
    nn.init.normal_,
    nn.init.uniform_,
    nn.init.kaiming_normal_,
    nn.init.kaiming_uniform_,
    torch.Tensor.normal_,  # this one and the next are spectral norm's, which calls them over thirty times for a layer
    nn.functional.normalize,
)
"""Functions that change the numbers of their first argument, not its shape."""


class _FewTensors(TorchFunctionMode):
    """Stops the construction of modules that have more tensors than allowed, and computes no weights for them.

    Tensors without memory hold no numbers, and PyTorch imports its whole compiler to draw some into them.
    """

    def __init__(self, most: int) -> None:
        super().__init__()
        self.left = most

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is torch.empty:
            self.left -= 1
            if self.left < 0:
                raise ValueError("more layers than the file has tensors")
        if func in _COMPUTING:
            return args[0] if args else (kwargs or {})["tensor"]
        return func(*args, **(kwargs or {}))


def build_described(path: Path, build: Callable[[], M], n_tensors: int) -> M:
    """Create the modules that a file describes, on the device "meta".

    A damaged or foreign file may describe any number of layers of any size.

    Args:
        path: the file, for the message.
        build: creates the modules.
        n_tensors: number of tensors in the file. The modules may have some more, since they
            include networks that are not in the file.

    Raises:
        CheckpointError: the file describes far more layers than it has tensors, or impossible layers.
    """
    try:
        with torch.device("meta"), _FewTensors(1000 + 4 * n_tensors):
            return build()
    except (RuntimeError, TypeError, ValueError, OverflowError) as error:
        reason = (str(error).splitlines() or [""])[0]
        raise CheckpointError(
            f"{path}: the architecture that it describes does not fit its {count(n_tensors, 'tensor')} "
            f"({reason:.100}); it is damaged or was edited: use another checkpoint"
        ) from error


def load_tensors(
    path: Path, file: Any, network: nn.Module, names: Mapping[str, str], device: str | torch.device
) -> None:
    """Move a network from the device "meta" to another, with the tensors of an open file.

    Args:
        path: the file, for messages.
        file: the open file.
        network: as `build_described` made it; its shapes must be those in the file.
        names: the name in the file of each tensor of the network.
        device: where the network goes.

    Raises:
        CheckpointError: a tensor is not finite, or only one of file and network has a floating-point type.
    """
    expected = network.state_dict()
    tensors = {key: file.get_tensor(name) for key, name in names.items()}
    for key, value in tensors.items():
        if value.is_floating_point() != expected[key].is_floating_point():
            raise CheckpointError(
                f"{path}: {names[key]} is {value.dtype} instead of {expected[key].dtype}; it is damaged or was edited: "
                "use another checkpoint"
            )
    require_finite({names[key]: value for key, value in tensors.items()}, str(path))
    # Each tensor is a copy in the network's own dtype. `to_empty` would import sympy to find out how its memory lies.
    own = {key: value.to(device, expected[key].dtype, copy=True) for key, value in tensors.items()}
    network.load_state_dict(own, assign=True)


def metadata_of(path: Path, file: Any) -> dict[str, Any]:
    """What an open file says about its content.

    Raises:
        CheckpointError: hdgan did not write it, the entry is damaged, or a newer version wrote it.
    """
    text = (file.metadata() or {}).get("hdgan")
    if text is None:
        raise CheckpointError(
            f"{path} was not written by hdgan (no hdgan entry in its metadata); give a checkpoint of hdgan"
        )
    metadata = parse_json(text, f"{path}: the hdgan entry of its metadata", "copy the file again")
    try:
        written_format = metadata["format"]
        newer = written_format > FORMAT
    except (TypeError, KeyError) as error:
        raise CheckpointError(
            f"{path}: the hdgan entry in its metadata is damaged ({error!r}); copy the file again"
        ) from error
    if newer:
        raise CheckpointError(
            f"{path} has format {written_format}, written by hdgan {metadata.get('version')}; this hdgan "
            f"{version('hdgan')} reads formats up to {FORMAT}: upgrade hdgan"
        )
    return metadata


def require_fitting(
    path: Path,
    expected: Mapping[str, tuple[int, ...]],
    found: Mapping[str, tuple[int, ...]],
    remedy: str = "use another checkpoint",
) -> None:
    """Raise CheckpointError unless the tensors of a file have the names and shapes that its architecture requires."""
    differences = describe_differences(expected, found)
    if differences:
        raise CheckpointError(
            f"{path}: its tensors do not fit the architecture that it describes ({differences}); it is damaged or was "
            f"edited: {remedy}"
        )


def describe_differences(expected: Mapping[str, tuple[int, ...]], found: Mapping[str, tuple[int, ...]]) -> str:
    """One line that says how the tensors of a file differ from those of an architecture; empty if they do not.

    Args:
        expected: shapes of the architecture by key.
        found: shapes in the file by key.
    """
    missing = [key for key in expected if key not in found]
    unknown = [key for key in found if key not in expected]
    reshaped = [
        f"{k} is {found[k]} instead of {shape}" for k, shape in expected.items() if found.get(k, shape) != shape
    ]
    kinds = {"missing": missing, "not part of the architecture": unknown, "with another shape": reshaped}
    return "; ".join(f"{len(keys)} {kind}: {_some(keys)}" for kind, keys in kinds.items() if keys)


def _some(keys: Sequence[str]) -> str:
    return ", ".join(keys[:_EXAMPLES]) + (", …" if len(keys) > _EXAMPLES else "")
