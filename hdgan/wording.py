"""Text: whether a file can contain it, and small pieces of English that messages share."""

from __future__ import annotations

import re

_NO_TEXT = re.compile("[\0\ud800-\udfff]")


def is_text(value: str) -> bool:
    """Whether a text file can hold a string.

    UTF-8 has no surrogates, by which Python stands for the bytes of a file name that are not UTF-8; and a NUL ends the
    text for many programs.
    """
    return _NO_TEXT.search(value) is None


def count(n: int, noun: str, plural: str = "") -> str:
    """A number with its noun in the right form: "1 image", "2 images".

    Args:
        n: how many.
        noun: its singular.
        plural: if it is not the singular with an s.
    """
    return f"{n} {noun if n == 1 else plural or noun + 's'}"
