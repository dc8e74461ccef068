"""What `hdgan data pack` writes: packed.json, the index, and one safetensors file for each sample."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from hdgan.config.options import option
from hdgan.data.config import Size, SizeConfig
from hdgan.data.image_kind import RGB
from hdgan.data.layouts._layout import Layout
from hdgan.data.packed import kinds_of, open_packed, read_packed, verify_packed
from hdgan.data.packed_index import INDEX, REPEAT, About, Entry, is_packed, read_index, sample_path
from hdgan.data.pairs import Arrays, Listing, Pair, PairHeader
from hdgan.data.transforms import Filter, scaled_size
from hdgan.errors import ConfigError, DataError
from hdgan.files.remote import RemotePath, is_remote


@dataclass(frozen=True)
class PackedPair(Pair):
    """One packed sample, whose file is all of its parts."""

    entry: Entry = field(kw_only=True)
    """Its entry in the index."""
    photo_filter: Filter = field(kw_only=True)
    """The filter with which images were scaled."""

    def read_headers(self, map_size: Size | None = None) -> PairHeader:
        self._require_whole()
        if is_remote(self.first_file) and self.input is None and not self.stored:
            # The index says all that a header would, which takes a request. Every read compares the two.
            return PairHeader(dict.fromkeys(self.files, self.entry.source), {"photo": RGB} if self.photo else {})
        with open_packed(self.first_file, self.entry.bytes, whole=False) as (_, about):
            self._require_listed(about)
        return PairHeader(dict.fromkeys(self.files, self.entry.source), kinds_of(about))

    def verify(self) -> None:
        self._require_listed(verify_packed(self.first_file))

    def read(self, size: Size | None = None, map_size: Size | None = None) -> Arrays:
        size = size or self.entry.sizes[0]
        one = len(self.entry.sizes) == 1
        with open_packed(self.first_file, self.entry.bytes, whole=one) as (file, about):
            self._require_listed(about)
            return read_packed(self.first_file, file, about, tuple(self.files), size)

    def stored_size(self, size: SizeConfig, photo_filter: Filter) -> Size:
        """As for `Pair`. Samples have the same pixels as those from the source files."""
        source, sizes = self.entry.source, self.entry.sizes
        scaled = scaled_size(source, size)
        if source in sizes and (scaled not in sizes or photo_filter != self.photo_filter):
            return source
        if scaled not in sizes:
            stored = ", ".join(f"{width}x{height}" for width, height in sizes)
            raise DataError(
                f"{self.first_file} is packed in {stored}, but training needs {scaled[0]}x{scaled[1]}: set "
                f"{option('stages.STAGE.size.width')} {sizes[0][0]}, or pack again with {scaled[0]}x{scaled[1]} too"
            )
        if photo_filter != self.photo_filter:
            raise ConfigError(
                f"{self.first_file} was packed with {self.photo_filter}, not {photo_filter}: set "
                f"{option('data.photo_filter')} {self.photo_filter}, or pack again"
            )
        return scaled

    def _require_whole(self) -> None:
        """Raise DataError unless the file exists and has the length with which it was written."""
        path = self.first_file
        try:
            found = path.stat().st_size
            if found is None:  # of a server that does not tell it; reading compares it
                return
        except FileNotFoundError:
            raise DataError(f"{path} does not exist; {REPEAT}") from None
        except OSError as error:
            raise DataError(f"{str(path)[:300]} cannot be read ({error.strerror}); {REPEAT}") from error
        if found != self.entry.bytes:
            raise DataError(f"{path} has {found} bytes, but was written with {self.entry.bytes}; {REPEAT}")

    def _require_listed(self, about: About) -> None:
        """Raise DataError unless the file's own description agrees with the index."""
        for name in ("stem", "source", "sizes", "channels"):
            listed, found = getattr(self.entry, name), getattr(about, name)
            if listed != found:
                raise DataError(f"{self.first_file}: {name} is {found}, but {INDEX} says {listed}; {REPEAT}")
        kind = kinds_of(about).get("photo", RGB)
        if not self.stored and kind != RGB:
            raise DataError(f"{self.first_file}: its photo has {kind}, but {INDEX} says {RGB}; {REPEAT}")


class PackedLayout(Layout):
    """A folder with an index is packed, whatever else lies in it."""

    name, rank, pattern = "packed", 0, f"{INDEX}, which hdgan data pack writes"

    def fits(self, root: Path) -> bool:
        return is_packed(root)

    def phases(self, root: Path) -> tuple[str, ...]:
        return tuple(sorted(read_index(root).phases))

    def has_labels(self, root: Path) -> bool:
        return any("label" in phase.parts for phase in read_index(root).phases.values())

    def list_pairs(self, root: Path, phase: str) -> Listing:
        index = read_index(root)
        if phase not in index.phases:
            raise DataError(f"{root} was packed without phase {phase}; it contains: {', '.join(sorted(index.phases))}")
        found, photo_filter = index.phases[phase], index.settings.photo_filter
        stored = index.settings.photo == "stored"
        if isinstance(root, RemotePath):
            (root / phase).files_below()  # the sizes of all files in few requests, where the server tells them
        pairs = []
        for entry in found.samples:
            files = dict.fromkeys(found.parts, sample_path(root / phase, entry.stem))
            pairs.append(PackedPair(entry.stem, **files, entry=entry, photo_filter=photo_filter, stored=stored))
        return Listing(self.name, phase, tuple(pairs))


LAYOUT = PackedLayout()
