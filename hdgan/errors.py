"""Errors that a user can act on.

The command line prints such an error as one line and exits with status 2. Any other error is a bug and keeps its
traceback. Each message names the file (if there is one), the value found, and the remedy.
"""


class HdganError(Exception):
    """Base class of all errors that the user's input or machine causes, not hdgan."""


class ConfigError(HdganError):
    """An option, or a combination of options, that cannot work.

    It is no ValueError, since the parser of the command line would catch that and print it in a box of its own.
    """


class DataError(HdganError, ValueError):
    """A dataset, or one file of it, that cannot be used."""


class CheckpointError(HdganError, RuntimeError):
    """A checkpoint that is missing, damaged, or of another architecture."""


class TrainingError(HdganError, RuntimeError):
    """Training that cannot go on: a loss that is not finite, a disk that is full."""


class OutputError(HdganError):
    """Standard output that cannot be written to, for example because a disk is full."""


class OutputClosed(OutputError):
    """Standard output whose reader has ended, as `head` does. This is no fault, but there is nothing left to do."""
