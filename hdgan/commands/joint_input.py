"""Files for --input that may have A and B side by side, as the files of a dataset of that layout do."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from typing import Literal, TypeVar

from rich.console import Console

from hdgan.data import Pair
from hdgan.data.config import Size
from hdgan.data.headers import read_header
from hdgan.data.inspection import in_threads
from hdgan.data.layouts import side_by_side
from hdgan.errors import ConfigError, DataError
from hdgan.families.saving import read_metadata
from hdgan.families.stored_inputs import stored_inputs
from hdgan.inference.engine import ImageRequest
from hdgan.progress import print_lines

InputHas = Literal["A", "AB"]
"""What the files of an input show: the input alone, or with the photo on its right."""
_TWICE = 1.9
"""How much wider for its height than the widest input a file is at least that shows two of them."""
_RequestT = TypeVar("_RequestT", bound=ImageRequest)


def check_choice(input_has: InputHas | None, given: bool, tiled: bool) -> None:
    """Refuse --input-has where it has no effect.

    Args:
        input_has: its value.
        given: whether there is an --input.
        tiled: whether images are made in tiles.

    Raises:
        ConfigError: it has none.
    """
    if input_has is not None and not given:
        raise ConfigError(f"--input-has {input_has} has no effect without --input: leave it out")
    if input_has == "AB" and tiled:
        raise ConfigError("--input-has AB does not work in tiles: cut A, the left half, out of each file")


def check_inputs(run: Path, file: Path, pairs: Sequence[Pair], console: Console, remedy: str, note: str) -> None:
    """Refuse inputs of a model whose training files had A and B side by side that look like such files themselves.

    Where the size does not tell, a note says once that the files are taken to be A alone.

    Args:
        run: the model, as it was given.
        file: of the model.
        pairs: their inputs are looked at. Files that cannot be read are left to those who read them.
        console: where the note goes.
        remedy: what to do about such a file.
        note: what to do if it is one.

    Raises:
        ConfigError: a file is twice as wide for its height as the widest input of the training.
    """
    aspects = _aspects_of_joint_training(file)
    if aspects is None:
        return
    least, greatest = aspects
    unclear: list[Pair] = []
    for pair, size in zip(pairs, in_threads(_size, pairs), strict=True):
        if size is None:
            continue
        aspect = size[0] / size[1]
        if aspect >= _TWICE * greatest:
            raise ConfigError(
                f"{pair.input} is {size[0]}x{size[1]}, twice as wide for its height as the inputs of {run}, which was "
                f"trained on files that have A and B side by side: {remedy}"
            )
        if aspect >= _TWICE * least:
            unclear.append(pair)
    if unclear:
        print_lines(console, f"{unclear[0].input} is taken to be A alone, without B on its right: {note}")


def note_joint_frames(file: Path, name: str, size: Size, console: Console) -> None:
    """Print a note if the frames of a video may have A and B side by side. A video may be wide for other reasons.

    Args:
        file: of the model.
        name: of the first frame.
        size: of all frames.
        console: where the note goes.
    """
    aspects = _aspects_of_joint_training(file)
    if aspects is not None and size[0] / size[1] >= _TWICE * aspects[0]:
        print_lines(
            console,
            f"{name} is {size[0]}x{size[1]}, and the model was trained on files that have A and B side by side: "
            "all of it is taken to be A; cut A, the left half, out of each frame if it has both",
        )


def _aspects_of_joint_training(file: Path) -> tuple[float, float] | None:
    """The least and the greatest width for its height of the inputs that a model was trained on; None if its files did
    not have A and B side by side, or if it does not say."""
    trained = stored_inputs(file, read_metadata(file))
    return trained.aspects if trained.layout == side_by_side.LAYOUT.name else None


def _size(pair: Pair) -> Size | None:
    try:
        return None if pair.input is None else read_header(pair.input).upright
    except DataError:
        return None


def with_left_halves(requests: Iterable[_RequestT]) -> Iterator[_RequestT]:
    """The same requests of the left halves of their files, each of which is read when its first request is asked for.

    Raises:
        DataError: a file cannot be read, or has an odd width.
    """
    for path, of_one in groupby(requests, key=lambda request: request.source):
        assert isinstance(path, Path)
        half = side_by_side.read_input_half(path)
        yield from (replace(request, source=half) for request in of_one)
