"""Errors that a user can act on.

The command line prints these as one line and exits with status 2; anything else is a bug and keeps its traceback.
Each message names the file (where there is one), the value found, and the remedy.
"""


class HdganError(Exception):
    """Base of all errors caused by the user's input or machine rather than by hdgan."""


class ConfigError(HdganError):
    """An option, or a combination of options, that cannot work.

    No ValueError, since the command line's parser would catch that and print it in a box of its own.
    """


class DataError(HdganError, ValueError):
    """A dataset, or one file of it, that cannot be used."""


class CheckpointError(HdganError, RuntimeError):
    """A checkpoint that is missing, damaged, or of another architecture."""


class TrainingError(HdganError, RuntimeError):
    """Training that cannot go on: a loss that is not finite, a disk that is full."""


class OutputError(HdganError):
    """Standard output that cannot be written to: a disk that is full."""


class OutputClosed(OutputError):
    """Standard output whose reader has gone, as `head` does: no fault, but nothing is left to do."""
