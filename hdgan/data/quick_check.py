"""What is cheap to check before the first step of training: the headers of all files, the pixels of a few."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from hdgan.config.options import option
from hdgan.data.config import DataConfig, SizeConfig
from hdgan.data.dataset import check_sizes, half_of, read_pair
from hdgan.data.headers import Header, read_header, require_input, require_map, require_photo, shown_size
from hdgan.data.layouts import Listing, Pair
from hdgan.data.packed import require_listed
from hdgan.data.transforms import Filter, draw_geometry
from hdgan.devices import available_cores
from hdgan.errors import DataError
from hdgan.wording import count

_Result = TypeVar("_Result")


@dataclass(frozen=True)
class QuickReport:
    """What the headers of a phase tell.

    Attributes:
        sizes: Each (width, height) in pixels, with the first pair that has it; of packed pairs, that of their source.
        counts: Number of pairs of each size.
        channels: Channels of the A-to-B inputs; 0 without.
        photo_filter: What pictures will be scaled with.
        warnings: One line each.
    """

    sizes: dict[tuple[int, int], Pair]
    counts: Counter[tuple[int, int]]
    channels: int
    photo_filter: Filter
    warnings: tuple[str, ...] = ()

    def require_size(self, size: SizeConfig, batch: int = 1) -> None:
        """Check that samples can be made in one size.

        Args:
            size: The crop must fit every picture.
            batch: With more than one sample a batch all must come out of `size` alike.

        Raises:
            DataError: one of them does not, or is packed in other sizes.
            ConfigError: they are packed with another filter.
        """
        require_size(self.sizes, size, self.photo_filter, batch)


def quick_check(
    listing: Listing,
    data: DataConfig,
    n_labels: int | None,
    *,
    full: int = 3,
    progress: Callable[[str, int, int], None] = lambda task, done, total: None,
) -> QuickReport:
    """Read size and mode of every file from its header, and decode a few pairs, spread over the dataset.

    Args:
        listing: From `find_pairs`.
        data: `dontcare` and `photo_filter` are used.
        n_labels: Number of classes; 0 for A-to-B; None accepts any label.
        full: Number of pairs that are decoded.
        progress: Called with what is done, pairs done and pairs in all.

    Raises:
        DataError: the first fault, how many more were seen, and the command that lists all.
    """
    faults: list[str] = []
    sizes: dict[tuple[int, int], Pair] = {}
    counts: Counter[tuple[int, int]] = Counter()
    channels: dict[int, Pair] = {}
    turned = []
    told_of = in_threads(_from_headers, listing.pairs)
    for done, (pair, told) in enumerate(zip(listing.pairs, told_of, strict=True), start=1):
        progress(f"{listing.phase} (headers)", done, len(listing.pairs))
        if isinstance(told, DataError):
            faults.append(str(told))
            continue
        sizes.setdefault(told.size, pair)
        counts[told.size] += 1
        if channels and told.channels not in channels:
            faults.append(different_channels(pair, told.channels, next(iter(channels))))
        channels.setdefault(told.channels, pair)
        turned += [pair] if told.turned else []
    for index in sorted({round(i) for i in np.linspace(0, len(listing.pairs) - 1, max(1, full))}):
        try:
            read_pair(listing.pairs[index], n_labels, data.dontcare)
        except DataError as error:
            faults.append(str(error))
    if faults:
        faults = list(dict.fromkeys(faults))
        more = f"at least {len(faults) - 1} more: " if len(faults) > 1 else ""
        raise DataError(f"{faults[0]} ({more}list all with {_check_command(listing, data, n_labels)})")
    return QuickReport(sizes, counts, next(iter(channels)), data.photo_filter, tuple(_warnings(listing, turned)))


def require_size(sizes: Mapping[tuple[int, int], Pair], size: SizeConfig, photo_filter: Filter, batch: int = 1) -> None:
    """As `QuickReport.require_size`, of the sizes of files, each with a pair that has it."""
    outcomes: dict[tuple[int, int], Pair] = {}
    for source, pair in sizes.items():
        try:
            outcomes.setdefault(draw_geometry(source, size).size, pair)
        except DataError as error:
            raise DataError(f"{next(iter(pair.files.values()))}: {error}") from None
        if pair.packed is not None:
            pair.packed.stored_for(size, photo_filter)
    if batch > 1 and len(outcomes) > 1:
        (first, one), (second, other) = list(outcomes.items())[:2]
        raise DataError(
            f"{one.stem} is {first[0]}x{first[1]} and {other.stem} is {second[0]}x{second[1]} in one batch; "
            f"{alike_in_a_batch()}"
        )


def different_channels(pair: Pair, channels: int, usual: int) -> str:
    """The fault of an A-to-B input with other channels than those before it."""
    return f"{pair.input} has {count(channels, 'channel')}, others {usual}; save all inputs alike"


def alike_in_a_batch() -> str:
    """The remedy for samples of one batch that differ in size."""
    width, height, crop = (option(f"stages.STAGE.size.{name}") for name in ("width", "height", "crop_width"))
    return f"set {width} and {height}, or {crop}, or {option('stages.STAGE.batch_size')} 1"


def is_turned(header: Header, used: tuple[int, int]) -> bool:
    """Whether a photo read with (width, height) `used` was turned upright."""
    return header.orientation != 1 and used == header.upright


def in_threads(
    function: Callable[[Pair], _Result], pairs: Sequence[Pair], threads: int | None = None
) -> Iterator[_Result]:
    """Map over pairs in their order; reading and decoding leave the interpreter's lock, so threads are enough."""
    pool = ThreadPoolExecutor(threads or min(8, available_cores()))
    try:
        yield from pool.map(function, pairs)
    finally:
        pool.shutdown(cancel_futures=True)


@dataclass(frozen=True)
class _Told:
    size: tuple[int, int]
    channels: int = 0
    turned: bool = False


def _from_headers(pair: Pair) -> _Told | DataError:
    """What the headers of a pair's files tell, or the first fault that they show."""
    try:
        if pair.packed is not None:
            pair.packed.require_whole()
            require_listed(pair.packed)
            return _Told(pair.packed.source, pair.packed.channels)
        headers = {part: read_header(path) for part, path in pair.files.items()}
        for part, header in headers.items():
            if part == "input":
                require_input(pair.files[part], header)
            elif part != "photo":
                require_map(pair.files[part], header, "label map" if part == "label" else "instance map")
            elif not pair.side_by_side:
                require_photo(pair.files[part], header)
        channels = headers["input"].input_channels if "input" in headers else 0
        if pair.side_by_side:
            width, height = headers["input"].upright
            return _Told((half_of(pair.files["input"], width), height), channels)
        sizes = {part: header.upright if part == "input" else header.size for part, header in headers.items()}
        photo = headers.get("photo")
        if photo is not None:
            sizes["photo"] = shown_size(photo, next(iter(sizes.values())))
        turned = photo is not None and is_turned(photo, sizes["photo"])
        return _Told(check_sizes(pair, sizes), channels, turned)
    except DataError as error:
        return error


def _warnings(listing: Listing, turned: Sequence[Pair]) -> Iterator[str]:
    if listing.orphans:
        names, lack = count(len(listing.orphans), "name"), "lacks" if len(listing.orphans) == 1 else "lack"
        yield f"{names} of {listing.phase} {lack} a partner and will not be used, for example {listing.orphans[0]}"
    if turned:
        what = f"{count(len(turned), 'photo')} of {listing.phase} will be turned upright by the EXIF orientation"
        yield f"{what}, for example {turned[0].photo}"


def _check_command(listing: Listing, data: DataConfig, n_labels: int | None) -> str:
    """What to type to see every fault that this check would find."""
    options = {
        "--layout": None if data.layout == "auto" else data.layout,
        "--phase": listing.phase,
        "--n-labels": n_labels,
        "--dontcare": data.dontcare,
    }
    given = [f"{name} {value}" for name, value in options.items() if value is not None]
    return " ".join(["hdgan data check", shlex.quote(str(data.root)), *given])
