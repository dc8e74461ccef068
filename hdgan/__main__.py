"""The programs `hdgan` and `hdgan-train`. `python -m hdgan` is the same as `hdgan`, and torchrun starts training this
way."""

import sys
from typing import NoReturn

from hdgan.commands.process import run


def main() -> NoReturn:
    """Run `hdgan`."""
    run("hdgan.commands.main:main", sys.argv[1] if len(sys.argv) > 1 else "")


def train_main() -> NoReturn:
    """Run `hdgan-train`."""
    run("hdgan.commands.main:train_main", "train")


if __name__ == "__main__":
    main()
