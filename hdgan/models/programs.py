"""Networks that users give as programs: TorchScript, or a program of torch.export.

They are programs and run as such: only trusted files should be named.
"""

from __future__ import annotations

import hashlib
import logging
import warnings
import zipfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from hdgan.devices import is_out_of_memory
from hdgan.errors import CheckpointError, ConfigError
from hdgan.files import require_file
from hdgan.weights import require_bounded_archive, require_finite
from hdgan.wording import first_line


def read_program(path: Path, device: torch.device, what: str, formats: str = "") -> nn.Module:
    """Read a program: *.pt2 is an exported one, anything else TorchScript.

    Args:
        path: the file.
        device: on which it runs.
        what: the role of the program in messages, with its article, such as "a scorer".
        formats: further formats that the user may give for this role.

    Raises:
        CheckpointError: the file is missing, cannot be read, unpacks to more than the limit, or holds a parameter that
            is not finite.
    """
    require_file(path, CheckpointError)
    read = _exported if path.suffix == ".pt2" else _torch_script
    try:
        if not zipfile.is_zipfile(path):
            raise ValueError("it is not an archive")
        require_bounded_archive(path)
        program = read(path, device)
        require_finite(dict(program.named_parameters()), str(path))  # a buffer may well be a mask of -inf
        return program
    except CheckpointError:
        raise
    except Exception as error:  # a damaged or foreign archive can make PyTorch raise anything
        reason = first_line(error).split(". ")[0]
        raise CheckpointError(
            f"{path} cannot be read as {what} ({reason}): give {formats}a .pt2 of torch.export.save, or TorchScript"
        ) from error


def run_program(program: Any, images: Tensor, name: str, remedy: str = "") -> Any:
    """The output of a program, or of a network of another library, for images [B, 3, H, W].

    Args:
        program: what `read_program` has returned.
        images: its input.
        name: its role and file in messages, such as "the scorer x.pt2".
        remedy: what the user can do if it cannot take them; by default, for a program, how to export it.

    Raises:
        ConfigError: it cannot take them.
    """
    try:
        return program(images)
    # TorchScript's, the guards of an exported program, and what it says of inputs of another number
    except (RuntimeError, AssertionError, ValueError) as error:
        if is_out_of_memory(error):
            raise
        reason = (str(error).strip().splitlines() or [type(error).__name__])[-1]
        export = f"export it for that size, a batch of {len(images)} and this device, or with dynamic dimensions"
        raise ConfigError(
            f"{name} cannot take an image of {images.shape[3]}x{images.shape[2]}: {reason}; {remedy or export}"
        ) from error


def count_features(run: Callable[[Tensor], list[Tensor]], shapes: Iterable[tuple[int, int, int]], name: str) -> int:
    """Try the network of a perceptual loss on images, and count its features.

    Args:
        run: maps images [B, 3, H, W] to features.
        shapes: batch, height and width of the images, at least one.
        name: of the network in messages.

    Raises:
        ConfigError: features are not of each image, or no gradient of them reaches the images.
    """
    numbers = [len(_tried_features(run, shape, name)) for shape in shapes]
    return numbers[0]


class ProgramFeatures(nn.Module):
    """A program as the network of a perceptual loss.

    Args:
        path: its file. It maps images [B, 3, H, W] in [-1, 1] to one or more features [B, C, h, w], fine to coarse: a
            tensor, or a list, tuple or mapping of tensors.
        shapes: batch, height and width of images that it is tried on, at least one.

    Attributes:
        n_features: number of its features.
        digest: SHA-256 of the file.

    Raises:
        CheckpointError, ConfigError: it cannot be read, cannot take such images, or returns something else, or no
            gradient of its features reaches the images.
    """

    def __init__(self, path: Path, shapes: Iterable[tuple[int, int, int]]) -> None:
        super().__init__()
        self.name = f"the perceptual network {path}"
        self.network = read_program(path, torch.device("cpu"), "a perceptual network")
        for parameter in self.network.parameters():
            parameter.requires_grad_(False)  # TorchScript has no such method for the whole network
        self.digest = hashlib.sha256(path.read_bytes()).hexdigest()
        self.n_features = count_features(self, shapes, self.name)

    def forward(self, images: Tensor) -> list[Tensor]:
        """The features of images [B, 3, H, W] in [-1, 1], fine to coarse."""
        if torch.compiler.is_compiling():  # which traces no handling of errors
            return _features(self.network(images), self.name)
        return _features(run_program(self.network, images, self.name), self.name)


def _tried_features(run: Callable[[Tensor], list[Tensor]], shape: tuple[int, int, int], name: str) -> list[Tensor]:
    batch, height, width = shape
    images = torch.zeros(batch, 3, height, width, requires_grad=True)
    # What a backward pass would need is thrown away at once: images may be large.
    with torch.autograd.graph.saved_tensors_hooks(lambda _: None, lambda _: images):
        features = run(images)
    for number, feature in enumerate(features, start=1):
        if len(feature) != batch or not feature.requires_grad:
            found = f"is of {len(feature)} images instead of {batch}" if feature.requires_grad else "has no gradient"
            raise ConfigError(
                f"{name}: its feature {number} {found}: it must return features of floating-point numbers of each "
                "image, computed without torch.no_grad and detach"
            )
    return features


def _features(output: Any, name: str) -> list[Tensor]:
    values = list(output.values()) if isinstance(output, Mapping) else output
    features = list(values) if isinstance(values, list | tuple) else [values]
    if not features or any(not isinstance(value, Tensor) or value.dim() != 4 for value in features):
        found = [tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__ for value in features]
        raise ConfigError(f"{name} returns {found}: it must return one or more features [B, C, h, w]")
    return features


def _exported(path: Path, device: torch.device) -> nn.Module:
    from torch.export.passes import move_to_device_pass

    log = logging.getLogger("torch.export")  # it prints a traceback in addition to raising
    level = log.level
    log.setLevel(logging.CRITICAL)
    try:
        return move_to_device_pass(torch.export.load(path), str(device)).module()
    finally:
        log.setLevel(level)


def _torch_script(path: Path, device: torch.device) -> nn.Module:
    with warnings.catch_warnings():
        # PyTorch recommends torch.export instead, but a user has the file as it is.
        warnings.simplefilter("ignore", DeprecationWarning)
        return torch.jit.load(path, map_location=device).eval()
