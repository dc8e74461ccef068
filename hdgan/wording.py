"""Text: whether a file can contain it, and small pieces of English that messages share."""

from __future__ import annotations

import re
from collections.abc import Sequence

_NO_TEXT = re.compile("[\0\ud800-\udfff]")


def is_text(value: str) -> bool:
    """Whether a text file can hold a string.

    UTF-8 has no surrogates, by which Python stands for the bytes of a file name that are not UTF-8; and a NUL ends the
    text for many programs.
    """
    return _NO_TEXT.search(value) is None


def count(n: int, noun: str) -> str:
    """A number with its noun, given in the singular, in the right form: "1 image", "2 images", "2 classes"."""
    return f"{n} {noun}{'' if n == 1 else 'es' if noun.endswith('s') else 's'}"


def first_line(error: BaseException) -> str:
    """The first line of an error's message, or the name of its class if it has none."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def memory_size(n_bytes: float) -> str:
    """A number of bytes in GiB, or in MiB if it is smaller than one GiB."""
    return f"{n_bytes / 2**30:.2f} GiB" if n_bytes >= 2**30 else f"{n_bytes / 2**20:.1f} MiB"


def markdown_table(header: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """A table of a Markdown page."""
    rows = [header, ["---"] * len(header), *lines]
    return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |" for row in rows)
