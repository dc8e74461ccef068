"""Dividing the samples of a source among the phases train and val."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath

from hdgan.config.options import option
from hdgan.data.conversion.source import ConversionOptions, RawSample, clipped, listed
from hdgan.errors import ConfigError, DataError
from hdgan.files.json import read_text
from hdgan.wording import count

VAL_FRACTION = 0.1
"""The share of val where the user gives none."""
_GROWTH = 64


def divided(samples: Sequence[RawSample], options: ConversionOptions) -> tuple[tuple[RawSample, ...], str]:
    """Give each sample a phase, unless the source has done so. One whose only phase is not train counts as undivided.

    By default, a sample belongs to val if the hash of its name is below `val_fraction` of all hashes. It then stays
    there when samples are added or removed. If all of a few samples have such hashes, all belong to train.

    Returns:
        The samples, and a line about how they were divided; empty if the source has divided them.

    Raises:
        ConfigError: the user wants to divide samples that the source has divided.
        DataError: the list of names cannot be read, or names something that is not there.
    """
    given = [name for name in ("val_fraction", "val_list") if getattr(options, name) is not None]
    if len(given) == 2:
        raise ConfigError(f"{option(given[0])} and {option(given[1])} both choose the samples of val: give only one")
    phases = {sample.phase for sample in samples}
    if "train" in phases or len(phases) > 1:
        if given:
            raise ConfigError(
                f"{option(given[0])} has no effect, since the source has the phases {', '.join(sorted(phases))}: leave "
                "it out"
            )
        return tuple(replace(sample, phase=sample.phase or "train") for sample in samples), ""
    if options.val_list is not None:
        chosen = _named(samples, options.val_list)
        how = f"as {options.val_list} says"
    else:
        fraction = VAL_FRACTION if options.val_fraction is None else options.val_fraction
        chosen = {sample.stem for sample in samples if _share(sample.stem) < fraction}
        if len(chosen) == len(samples) and fraction < 1:
            chosen = set()  # training needs samples, of which there are few
        how = f"by the hashes of their names ({option('val_fraction')} {fraction:g})"
    divided = tuple(replace(sample, phase="val" if sample.stem in chosen else "train") for sample in samples)
    return divided, f"{count(len(samples) - len(chosen), 'sample')} for train and {len(chosen)} for val, {how}"


def _share(stem: str) -> float:
    """A number from 0 to below 1 that depends on nothing but the name."""
    return int.from_bytes(hashlib.sha256(stem.encode()).digest()[:6], "big") / 2**48


def _named(samples: Sequence[RawSample], file: Path) -> set[str]:
    """The samples in a list of names, one per line: full names, with or without folders and endings."""
    text = read_text(file, _GROWTH, "a list of names", DataError)
    known = {sample.stem for sample in samples}
    last: dict[str, list[str]] = {}
    for stem in sorted(known):
        last.setdefault(PurePosixPath(stem).name, []).append(stem)
    chosen, unknown = set[str](), list[str]()
    for line in filter(None, map(str.strip, text.splitlines())):
        path = PurePosixPath(line.replace("\\", "/"))
        bare = path.with_suffix("") if path.suffix else path
        options = [name for name in dict.fromkeys([path.as_posix(), bare.as_posix()]) if name in known]
        options = options or last.get(path.name, []) or last.get(bare.name, [])
        if len(options) > 1:
            raise DataError(f"{file} names {clipped(line)}, which may be {listed(options)}: write the folder as well")
        chosen.update(options)
        unknown += [] if options else [line]
    if unknown:
        raise DataError(
            f"{file} names {listed(unknown)}, but the source has no such sample: correct the list, or remove the line"
        )
    return chosen
