"""Images that contain A and B side by side, in a folder for every phase."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from hdgan.data.config import Size
from hdgan.data.folders import LABEL_FOLDERS, PHOTO_FOLDERS, images_in, subfolders_of
from hdgan.data.headers import read_header, require_input
from hdgan.data.images import read_input, require_unit_range, to_photo
from hdgan.data.layouts import layouts
from hdgan.data.layouts._layout import FolderLayout, Part
from hdgan.data.opening import NamedArray
from hdgan.data.pairs import Arrays, Listing, Pair, PairHeader
from hdgan.errors import DataError

# Folders by which other programs distinguish the halves of pairs, and the suffixes of hdgan's own folders for them.
_FOREIGN = (
    (PHOTO_FOLDERS, LABEL_FOLDERS, "_img", "_label"),
    (("a", "input", "inputs", "source"), ("b", "output", "outputs", "target", "targets"), "_A", "_B"),
)


@dataclass(frozen=True)
class SideBySidePair(Pair):
    """One file whose left half is the input and whose right half is the photo; it is both parts."""

    def read_headers(self, map_size: Size | None = None) -> PairHeader:
        header = read_header(self.first_file)
        require_input(self.first_file, header)
        width, height = header.upright
        return PairHeader(
            {"input": (_half(self.first_file, width), height)}, {"input": header.kind, "photo": header.kind}
        )

    def read(self, size: Size | None = None, map_size: Size | None = None) -> Arrays:
        both = read_input(self.first_file)
        half = _half(self.first_file, both.shape[1])
        photo = both[:, half:]
        if self.stored:
            require_unit_range(self.first_file, photo)
        return {"input": both[:, :half], "photo": photo if self.stored else to_photo(self.first_file, photo)}


def read_input_half(path: Path) -> NamedArray:
    """Read A, the left half of a file that has A and B side by side, as `read_input` does.

    Raises:
        DataError: the file cannot be read, or has an odd width.
    """
    both = read_input(path)
    return NamedArray.of(both[:, : _half(path, both.shape[1])].copy(), str(path))


def _half(path: Path, width: int) -> int:
    if width % 2:
        raise DataError(
            f"{path} is {width} pixels wide, which cannot be split into equal halves; join A and B of equal size"
        )
    return width // 2


class SideBySide(FolderLayout):
    """Every folder of images fits this layout, so it counts only if no other layout fits."""

    rank = 2

    def _subfolders(self, folder: Path) -> list[str]:
        others = [layout for layout in layouts().values() if layout is not self]
        names = [name for name in subfolders_of(folder) if not any(layout.claims(name) for layout in others)]
        # A folder that cannot be read is no phase here; within a phase it is an error.
        return [name for name in names if any(images_in(folder / name, on_error=None))]

    def list_pairs(self, root: Path, phase: str) -> Listing:
        listing = super().list_pairs(root, phase)
        pairs = (SideBySidePair(pair.stem, input=pair.input, photo=pair.input) for pair in listing.pairs)
        return replace(listing, pairs=tuple(pairs))

    def foreign(self, root: Path) -> str | None:
        phases = self.phases(root)
        for phase in phases:
            if phase.endswith("A") and f"{phase[:-1]}B" in phases:
                return _renaming(root, phase, f"{phase[:-1]}B", "_A", "_B")
        for parent in (root, *(root / phase for phase in phases)):
            names = {name.casefold(): name for name in subfolders_of(parent)}
            for firsts, seconds, *suffixes in _FOREIGN:
                first, second = (
                    next((names[name] for name in known if name in names), "") for known in (firsts, seconds)
                )
                if first and second:
                    return _renaming(parent, first, second, *suffixes)
        return None


def _renaming(parent: Path, first: str, second: str, *suffixes: str) -> str:
    one, other = (f"train{suffix}" for suffix in suffixes)
    images = "; for an A-to-B model, train_A and train_B" if other == "train_label" else ""
    return (
        f"{parent} contains {first} and {second}, which hdgan does not recognise as pairs: name the folders of a "
        f"phase {one} and {other} (or <phase>{suffixes[0]} and <phase>{suffixes[1]}){images}, and give both files of "
        "a pair the same name; `hdgan data convert` writes such folders"
    )


LAYOUT = SideBySide("side-by-side", Part("input", "{}"))
