"""Faults of one kind as few lines, where many files have them."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

MOST_ALIKE = 3
"""Faults of one kind that are printed in full, and files that are named of more."""
_NUMBERS = re.compile(r"\d+(\.\d+)?(, -?\d+(\.\d+)?)*(, \.\.\.)?")


@dataclass(frozen=True)
class FaultKind:
    """What a fault has in common with those of other files."""

    kind: str
    """Its text without names and numbers."""
    text: str
    """Its text without names. Where two faults of a kind differ in it, their numbers are different."""
    file: Path
    """The file by which it is listed."""


def kind_of(fault: str, files: Collection[Path], stem: str = "") -> FaultKind:
    """The kind of a fault.

    Args:
        fault: One line that names some of the files.
        files: Those that it may name.
        stem: The name that files share, if the fault says it after the word "named".
    """
    named = [file for file in files if str(file) in fault]
    text = fault
    for path in sorted(map(str, named), key=len, reverse=True):
        text = text.replace(path, "FILE")
    if stem:
        text = text.replace(f" named {stem} in ", " named NAME in ")
    return FaultKind(_NUMBERS.sub("N", text), text, next(iter([*named, *files])))


def grouped(faults: Sequence[str], kinds: Mapping[str, FaultKind], root: Path) -> Iterator[str]:
    """The lines to print for faults: all of a kind that few files have, else the first and the names of some others.

    Args:
        faults: One line each.
        kinds: Of the faults of single files, by their lines.
        root: Folder of the dataset; files in it are named without it.
    """
    alike: dict[str, list[str]] = {}
    for fault in faults:
        alike.setdefault(kinds[fault].kind if fault in kinds else fault, []).append(fault)
    for members in alike.values():
        if len(members) <= MOST_ALIKE:
            yield from members
            continue
        first, *others = members
        yield first
        same = len({kinds[fault].text for fault in members}) == 1
        names = ", ".join(_names((kinds[fault].file for fault in others[:MOST_ALIKE]), root))
        more = f" and {len(others) - MOST_ALIKE} more" if len(others) > MOST_ALIKE else ""
        yield f"the same{'' if same else ', but for the numbers,'} in {names}{more}"


def _names(files: Iterable[Path], root: Path) -> Iterator[str]:
    return (str(file.relative_to(root) if file.is_relative_to(root) else file) for file in files)
