"""Whole calls of `reproduce` at a tiny scale."""

from __future__ import annotations

from pathlib import Path

import torch
from rich.console import Console

from hdgan.models.segmenter import Segmenter, SegmenterConfig, save_segmenter
from hdgan.reproduce.jobs import Folder
from hdgan.reproduce.run import Reproduction, reproduce
from hdgan.scenes import SPEC

QUIET = Console(quiet=True)


def network(folder: Folder, name: str, seed: int) -> None:
    """Write an untrained one."""
    torch.manual_seed(seed)
    save_segmenter(folder.network(name), Segmenter(SegmenterConfig(SPEC.n_labels, width=2)))


def run(
    folder: Folder, *rows: str, seeds: int = 1, docs: Path | None = None, again: bool = False, console: Console = QUIET
) -> Reproduction:
    return reproduce(
        folder.scale, folder.root, seeds=seeds, jobs=2, device="cpu", docs=docs, rows=rows, again=again, console=console
    )


def contents(folder: Path) -> dict[Path, int]:
    return {file: file.stat().st_mtime_ns for file in folder.rglob("*") if file.is_file()}
