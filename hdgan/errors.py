"""Errors that a user can act on.

The command line prints such an error as one line and exits with status 2. Any other error is a bug and keeps its
traceback. Each message names the file (if there is one), the value found, and the remedy.
"""


class HdganError(Exception):
    """Base class of all errors that are caused by the user's input or machine, not by hdgan."""


class ConfigError(HdganError):
    """An option, or a combination of options, that cannot work.

    It is not a ValueError, since the command-line parser would catch that and print it in a box.
    """


class DataError(HdganError, ValueError):
    """A dataset, or one file of it, that cannot be used."""


class CheckpointError(HdganError, RuntimeError):
    """A checkpoint that is missing, damaged, or of another architecture."""


class TrainingError(HdganError, RuntimeError):
    """Training that cannot continue: a loss that is not finite, a disk that is full."""


class DivergenceError(TrainingError):
    """Training that has failed in itself: a loss that is not finite, or a collapse that the watch has found.

    Args:
        problem: step, stage, and what is wrong there.
        remedy: what the user can do.
        symptom: what the watch calls it.
    """

    def __init__(self, problem: str, remedy: str, symptom: str = "not_finite") -> None:
        super().__init__(f"{problem}; {remedy}")
        self.problem, self.remedy, self.symptom = problem, remedy, symptom


class OtherProcessError(HdganError):
    """Another process of the run cannot go on; the message says why.

    Args:
        message: why.
        told: a process on this machine prints the reason already.
    """

    def __init__(self, message: str, told: bool = False) -> None:
        super().__init__(message)
        self.told = told


class OutputError(HdganError):
    """Standard output that cannot be written to, for example because a disk is full."""


class OutputClosed(OutputError):
    """Standard output whose reader has closed it, as `head` does. This is not a fault, but there is nothing left to
    do."""
