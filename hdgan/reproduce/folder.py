"""The folder of `hdgan reproduce`: what lies where, and that it belongs to one scale.

OUT/scale.json                      the scale of all runs
    networks/scorer.safetensors     judges pictures
    networks/perceptual.safetensors gives the perceptual loss its features
    networks/*.json                 what their training took
    runs/ROW-SEED/                  an ordinary training run, and besides it
    runs/ROW-SEED/record.json       what it took, and which perceptual network it trains with
    runs/ROW-SEED/result.json       its scores, and the digests of what they follow from
    runs/ROW-SEED/scenes/           what it makes of the first held-out scenes
    logs/, locks/                   what the process of each job printed; that none runs twice
    results.csv                     the rows of the page
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from hdgan.config.options import option
from hdgan.config.serialization import to_plain
from hdgan.errors import ConfigError
from hdgan.files import atomic_file
from hdgan.files.json import read_json
from hdgan.reproduce.plan import Scale
from hdgan.reproduce.record import digest

SCORER, PERCEPTUAL = "scorer", "perceptual"
NETWORKS = {SCORER: 0, PERCEPTUAL: 1}
"""Networks that are trained first, on real pictures alone, and their seeds: the loss is not taken of the judge."""


@dataclass(frozen=True)
class Folder:
    """Where everything of one `hdgan reproduce` lies."""

    root: Path

    def network(self, name: str) -> Path:
        return self.root / "networks" / f"{name}.safetensors"

    def run(self, row: str, seed: int) -> Path:
        return self.root / "runs" / f"{row}-{seed}"

    def result(self, row: str, seed: int) -> Path:
        return self.run(row, seed) / "result.json"

    def record(self, name: str, seed: int) -> Path:
        """Of a network, or of the run of a row."""
        return self.network(name).with_suffix(".json") if name in NETWORKS else self.run(name, seed) / "record.json"

    def digest(self, name: str) -> str:
        """Of a network's file."""
        return digest(self.network(name).read_bytes())

    def scenes(self, row: str, seed: int) -> Path:
        return self.run(row, seed) / "scenes"

    def log(self, job: str) -> Path:
        return self.root / "logs" / f"{job}.txt"

    def lock(self, job: str) -> Path:
        file = self.root / "locks" / job
        file.parent.mkdir(parents=True, exist_ok=True)
        return file

    @property
    def results(self) -> Path:
        return self.root / "results.csv"

    @property
    def scale_file(self) -> Path:
        return self.root / "scale.json"

    def claim(self, scale: Scale) -> None:
        """Keep the folder to one scale.

        Raises:
            ConfigError: it holds runs of another.
        """
        if self.scale_file.exists() and (found := self.scale()) != scale:
            other = "another version of it" if found.name == scale.name else f"size {found.name}"
            raise ConfigError(
                f"{self.root} holds runs of {other}, not of size {scale.name}: name another {option('out')}"
            )
        with atomic_file(self.scale_file) as temporary:
            temporary.write_text(json.dumps(to_plain(scale), indent=2) + "\n", encoding="utf-8")

    def scale(self) -> Scale:
        """The scale of its runs.

        Raises:
            CheckpointError: its file is missing or damaged.
        """
        return read_json(self.scale_file, Scale, f"name another {option('out')}")
