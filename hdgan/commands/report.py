"""`hdgan report`: the report of a run."""

from __future__ import annotations

from pathlib import Path

from hdgan.training.report import write_report


def report(run: Path, /) -> int:
    """Write report.html of a run in its current state: during training, or after it was killed.

    Args:
        run: folder of the run.
    """
    print(write_report(run).resolve())
    return 0
