"""The options of `hdgan push` that show generated images in the model card."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from rich.console import Console

from hdgan.commands.joint_input import check_inputs
from hdgan.commands.scene_choice import choose_scenes
from hdgan.commands.sources import check_sources, find_sources
from hdgan.data import Pair
from hdgan.data.colors import colorize_labels, preview
from hdgan.files import save_png
from hdgan.inference.maps import Maps
from hdgan.inference.pipeline import Pipeline
from hdgan.scenes import held_out_pairs, write_held_out

SAMPLES = "samples"
"""The folder of the pictures in the repository."""


@dataclass(frozen=True)
class SampleOptions:
    """Which inputs are shown with their generated images. Without any of these options there are no samples."""

    scenes: int | None = None
    """Number of held-out built-in scenes whose maps are shown beside the images generated from them, for a model that
    was trained on such scenes."""
    label: Path | None = None
    """Label map, or a folder of them, that is shown beside the image generated from it; the picture is uploaded."""
    instance: Path | None = None
    """Instance map, or a folder of them, paired by name."""
    input: Path | None = None
    """Input image, or a folder of them, for a model trained on A->B pairs; as --label."""

    def write(self, run: Path, pipeline: Pipeline, folder: Path, palette: np.ndarray) -> list[str]:
        """Write a picture of each input beside its generated image, numbered from 1; the names of files stay here.

        Args:
            run: the model, as it was given.
            pipeline: the same, loaded.
            folder: where the pictures go.
            palette: colours of the classes, [n, 3] uint8.

        Returns:
            The names of the pictures.

        Raises:
            ConfigError, DataError: the inputs do not suit the model, or cannot be read.
        """
        names = []
        with self._pairs(run, pipeline) as pairs:
            for number, pair in enumerate(pairs, 1):
                source = pair.label if pipeline.config.n_labels else pair.input
                assert source is not None
                maps = pipeline.read(source, pair.ids)
                image = preview(pipeline(maps, seed=0) * 2 - 1)[0]
                names.append(f"{number}.png")
                save_png(_side_by_side(_shown(maps, palette), image), folder / names[-1])
        return names

    @contextmanager
    def _pairs(self, run: Path, pipeline: Pipeline) -> Iterator[list[Pair]]:
        """The inputs; those of built-in scenes exist during the block."""
        every = {"label": self.label, "input": self.input, "ids": self.instance}
        sources = {part: path for part, path in every.items() if path is not None}
        if self.scenes is not None:
            options = [{"ids": "--instance"}.get(part, f"--{part}") for part in sources]
            chosen = choose_scenes(run, pipeline, self.scenes, Path(SAMPLES), options)
            with tempfile.TemporaryDirectory() as scratch:
                write_held_out(chosen, Path(scratch))
                yield held_out_pairs(chosen, Path(scratch))
        elif sources:
            check_sources(run, pipeline, sources)
            console = Console(stderr=True)
            pairs = find_sources(sources, console)
            if self.input is not None:
                assert pipeline.file is not None
                cut = "cut A, the left half, out of it"
                check_inputs(run, pipeline.file, pairs, console, cut, f"{cut} if it has both")
            yield pairs
        else:
            yield []


def _shown(maps: Maps, palette: np.ndarray) -> Image.Image:
    """A label map in colours, or an input image."""
    if maps.label is not None:
        return colorize_labels(maps.label[0].cpu().numpy(), palette)
    assert maps.image is not None
    return preview(maps.image[0])[0]


def _side_by_side(left: Image.Image, right: Image.Image) -> Image.Image:
    both = Image.new("RGB", (left.width + right.width, max(left.height, right.height)))
    both.paste(left, (0, 0))
    both.paste(right, (left.width, 0))
    return both
