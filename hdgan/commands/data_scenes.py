"""`hdgan data scenes`: the built-in street scenes as a dataset of one's own."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from hdgan.config.options import typed_as
from hdgan.data.config import ScenesConfig
from hdgan.progress import print_lines, showing_progress
from hdgan.scenes import SPEC, write_scenes

_TYPED = {f"data.scenes.{name}": f"--{name}" for name in vars(ScenesConfig())}


def scenes(
    out: Path, /, *, width: int = 256, height: int = 128, train: int = 200, test: int = 20, seed: int = 0
) -> int:
    """Render street scenes into a folder, as a dataset to try things on.

    The folder has label maps, instance maps and images as training reads them, the true style of each instance as JSON,
    and the names and colours of the classes in classes.csv. It is written as a whole or not at all.

    Args:
        out: Folder to write. It must not exist.
        width: Width of the images in pixels.
        height: Height of the images in pixels.
        train: Number of training scenes.
        test: Number of held-out scenes.
        seed: The same seed and size give the same scenes.

    Returns:
        Exit status 0.
    """
    console = Console(stderr=True)
    with typed_as(_TYPED):
        config = ScenesConfig(width=width, height=height, train=train, test=test, seed=seed)
        with showing_progress(console) as progress:
            write_scenes(config, out, lambda done, total: progress("rendering street scenes", done, total))
    print_lines(console, f"{train} training and {test} held-out scenes of {SPEC.n_labels} classes: {out}")
    return 0
