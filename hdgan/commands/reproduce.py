"""`hdgan reproduce`."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from rich.console import Console

from hdgan.reproduce.evidence import write_evidence
from hdgan.reproduce.plan import SCALES
from hdgan.reproduce.run import reproduce as run_all


def reproduce(
    *,
    size: Literal["small", "gpu"] = "small",
    seeds: int = 3,
    out: Path | None = None,
    jobs: int | None = None,
    device: str = "auto",
    docs: Path | None = None,
) -> int:
    """Train and score the models of the paper's comparisons and ablations on the built-in scenes.

    pix2pix, CRN and pix2pixHD; losses; one against three discriminators; G1 alone against G1 + enhancer; without and
    with instance boundaries; without and with features. It ends in evidence.md: tables of mean ± spread over seeds,
    pictures, and what did not come out as in the paper.

    Ctrl-C saves; the same command goes on, also after a kill. `hdgan reproduce report [DOCS]` writes the page again
    from its rows.

    Args:
        size: small for two CPU cores (128x64, about an hour), gpu for a data-centre GPU (256x128).
        seeds: runs of each model.
        out: folder of the runs; without it runs/reproduce-SIZE.
        jobs: runs side by side; without it one a core, or 4 on a GPU.
        device: auto, cpu, cuda or cuda:N.
        docs: folder that evidence.md and its rows are written to when all runs are done; without it, and until then,
            the folder of the runs. Rows of more runs there are not replaced.
    """
    console = Console()
    out = out or Path("runs") / f"reproduce-{size}"
    outcome = run_all(SCALES[size], out, seeds=seeds, jobs=jobs, device=device, docs=docs, console=console)
    if outcome.page is not None:
        print(outcome.page.resolve())
    if not outcome.finished:
        print(f"saved, {outcome.done} of {outcome.total} runs are done; go on with the same command")
    return 0 if outcome.finished else 130


def report(docs: Path = Path("docs"), /) -> int:
    """Write evidence.md again from the rows beside it.

    Args:
        docs: folder of the page, with the rows in evidence/*.csv.
    """
    print(write_evidence(docs).resolve())
    return 0
