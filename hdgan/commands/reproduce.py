"""`hdgan reproduce`."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from rich.console import Console

from hdgan.config.options import typed_as
from hdgan.reproduce.evidence import write_evidence
from hdgan.reproduce.plan import ROWS
from hdgan.reproduce.run import reproduce as run_all
from hdgan.reproduce.scales import SCALES

_TYPED = {
    "loss.network": "--network",
    "loss.network_weights": "--network-weights",
}
"""The options of the perceptual network, which are called otherwise by `hdgan train`."""


def reproduce(
    *,
    size: Literal["small", "medium", "gpu"] = "small",
    seeds: int = 3,
    out: Path | None = None,
    jobs: int | None = None,
    device: str = "auto",
    docs: Path | None = None,
    rows: tuple[str, ...] = tuple(ROWS),
    again: bool = False,
    network: str | None = None,
    network_weights: Path | None = None,
    dry_run: bool = False,
) -> int:
    """Train and score the models of the paper's comparisons and ablations on the built-in scenes.

    They compare pix2pix, CRN and pix2pixHD; the losses; one and three discriminators; G1 alone and G1 with an enhancer;
    training without and with instance boundaries, and without and with features. The result is evidence.md: tables of
    mean ± standard deviation over seeds, images, and what differs from the paper.

    Every run is an ordinary `hdgan train` and `hdgan evaluate`. Ctrl-C saves. The same command continues from there,
    even after it was killed. `hdgan reproduce report [DOCS]` writes the page again from its rows.

    Args:
        size: small for two CPU cores (128x64, one to two hours); medium for two CPU cores with avx512_bf16 or AMX
            (256x128, estimated at 6 hours); gpu for a data-centre GPU (256x128).
        seeds: runs of each model.
        out: folder of the runs; by default runs/reproduce-SIZE.
        jobs: runs at the same time; by default one per core, or on a GPU one per two cores, up to 8.
        device: auto, cpu, cuda or cuda:N.
        docs: folder that evidence.md and its rows are written to when all runs are done; until then, or by default,
            they go to the folder of the runs. Runs whose rows are there already, made with the same options and
            networks, are not trained again, so another machine can go on with the rows of the first. The networks that
            this needs are kept beside them. No rows get lost.
        rows: names of the rows of the tables that are trained. Tables are shown that have at least two of their rows.
        again: train also runs whose rows are in the folder of --docs.
        network: network whose features the perceptual losses compare, as in `hdgan train --loss.network`: vgg19,
            timm:NAME, or the file of a program that you trust. By default a small segmentation network is trained
            first, which differs from the scorer only in its seed. This favours models with such a loss. All runs in a
            folder use the same network.
        network_weights: file of the weights of vgg19 or timm's network; by default they are downloaded.
        dry_run: print the commands of the work that is left, and do nothing except for loading --network. To train a
            variant of a row, add options to its command, and another --out. Run hdgan reproduce afterwards to collect
            the scores of the rows themselves.
    """
    out = out or Path("runs") / f"reproduce-{size}"
    with typed_as(_TYPED):
        ended = run_all(
            SCALES[size], out, seeds=seeds, jobs=jobs, device=device, docs=docs, network=network,
            network_weights=network_weights, rows=rows, again=again, dry_run=dry_run, console=Console(stderr=dry_run),
        )  # fmt: skip
    if dry_run:
        print(*ended.commands, sep="\n", end="\n" if ended.commands else "")
        return 0
    if ended.page is not None:
        print(ended.page.resolve())
    if not ended.finished:
        print(f"saved; {ended.done} of {ended.total} runs are done; repeat the command to continue")
    return 0 if ended.finished else 130


def report(docs: Path = Path("docs"), /) -> int:
    """Write evidence.md again from the rows next to it.

    What you have written about the rows of a size, as Markdown in evidence/SIZE.txt, is shown below its findings.

    Args:
        docs: folder of the page, with the rows in evidence/*.csv.
    """
    print(write_evidence(docs).resolve())
    return 0
