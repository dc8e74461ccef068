"""The files of packed samples: made from the files of a pair, or kept where these have not changed since."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from hdgan.data.config import DataConfig, SizeConfig
from hdgan.data.folders import as_text
from hdgan.data.packed import encode, verify_packed
from hdgan.data.packed_index import About, Entry, Settings, sample_path
from hdgan.data.pairs import Pair, size_of
from hdgan.data.transforms import apply_geometry, sample_geometry, scaled_size
from hdgan.errors import DataError
from hdgan.files import atomic_file


class Packer:
    """Makes the files of samples.

    Args:
        config: `root`, `dontcare` and `photo_filter` are used.
        layout: Of the dataset.
        sizes: Sizes to store.
        n_labels: Number of classes that labels must stay below; None accepts any.
    """

    def __init__(self, config: DataConfig, layout: str, sizes: tuple[SizeConfig, ...], n_labels: int | None) -> None:
        assert config.root is not None
        self.root = config.root
        self.config, self.n_labels = config, n_labels
        self.sizes = tuple(size.whole for size in sizes)
        # An asterisk is the side that follows from the aspect ratio.
        stored = ", ".join(f"{size.width or '*'}x{size.height or '*'}" for size in self.sizes)
        self.settings = Settings(as_text(str(config.root.absolute())), layout, config.photo_filter, stored)

    def pixels(self, source: tuple[int, int]) -> int:
        """Pixels stored for a sample whose files are of size `source`."""
        return sum(width * height for width, height in {scaled_size(source, size) for size in self.sizes})

    def encoded(self, pair: Pair) -> tuple[bytes, About]:
        """The packed file of a pair, and its metadata."""
        files = self._files(pair)
        arrays = pair.read()
        pair.check_labels(arrays.get("label"), self.n_labels, self.config.dontcare)
        source = size_of(next(iter(arrays.values())))
        geometries = [sample_geometry(source, size) for size in self.sizes]
        sized = {geometry.size: apply_geometry(arrays, geometry, self.config.photo_filter) for geometry in geometries}
        about = About(
            pair.stem,
            source,
            tuple(sorted(sized, key=lambda size: size[0] * size[1], reverse=True)),
            arrays["input"].shape[2] if "input" in arrays else 0,
            files,
            # All labels of the source: scaling may drop one that a later packing refuses.
            tuple(np.unique(arrays["label"]).tolist()) if "label" in arrays else (),
        )
        return encode(sized, about), about

    def write(self, folder: Path, pair: Pair, replacing: Callable[[Path], None]) -> tuple[Entry, bool]:
        """Write the file of a pair in the folder of its phase, unless it is there, after a call of `replacing`.

        Returns:
            The entry of the index, and whether the file was there.
        """
        path = sample_path(folder, pair.stem)
        about = self._present(path, pair)
        was_there = about is not None
        if about is None:
            content, about = self.encoded(pair)
            replacing(path)
            with atomic_file(path) as temporary:
                temporary.write_bytes(content)
        return Entry(about.stem, about.source, about.sizes, about.channels, path.stat().st_size), was_there

    def _present(self, path: Path, pair: Pair) -> About | None:
        """Metadata of a file that is whole and was made from the pair's files as they are now; else None.

        Raises:
            DataError: the pair's files hold a label that this packing refuses.
        """
        try:
            about = verify_packed(path)
        except DataError:
            return None
        if about.stem != pair.stem or about.files != self._files(pair) or about.labels is None:
            return None
        if about.labels:
            pair.check_labels(np.array(about.labels), self.n_labels, self.config.dontcare)
        return about

    def _files(self, pair: Pair) -> dict[str, tuple[str, int, int]]:
        """Part -> name below the dataset's folder, bytes, and time of the last change in nanoseconds."""
        stats = {part: (path, path.stat()) for part, path in pair.files.items()}
        return {
            part: (as_text(path.relative_to(self.root).as_posix()), stat.st_size, stat.st_mtime_ns)
            for part, (path, stat) in stats.items()
        }
