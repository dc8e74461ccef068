"""Small pieces of English that messages share."""

from __future__ import annotations


def count(n: int, noun: str, plural: str = "") -> str:
    """A number with its noun in the right form: "1 picture", "2 pictures".

    Args:
        n: how many.
        noun: in the singular.
        plural: where it is not the singular with an s.
    """
    return f"{n} {noun if n == 1 else plural or noun + 's'}"
