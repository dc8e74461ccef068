"""What `hdgan push` puts into a repository: the files of a model, and its card."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from hdgan.checkpoints import MODEL_FILE, STYLES_FILE, beside, find_checkpoint, read_best, run_of
from hdgan.commands.class_choice import given_classes
from hdgan.commands.push_card import CardFacts, model_card
from hdgan.commands.push_samples import SAMPLES, SampleOptions
from hdgan.commands.scene_choice import scenes_of
from hdgan.commands.sources import trained_size
from hdgan.editor.palette import choose_palette
from hdgan.errors import ConfigError, call
from hdgan.families.saving import read_metadata
from hdgan.files import write_text
from hdgan.hub import is_repository
from hdgan.inference.one_file import export_model
from hdgan.inference.pipeline import Pipeline, load

CARD, CONFIG = "README.md", "config.json"


@dataclass(frozen=True)
class ContentOptions:
    """Which model is pushed, and what its card says beside what its file says."""

    checkpoint: str = "latest"
    """Which one of a run: latest, best, or a step."""
    ema: bool = True
    """Use the averaged weights."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Type of the weights in the file. With bfloat16, which is loaded as float32 again, the file is half as large."""
    crops: bool = False
    """Also push the crops of training photos that show the clusters of styles, and the names of these photos."""
    card: bool = True
    """Write the model card. --no-card leaves the README.md that the repository has as it is."""
    license: str | None = None
    """Licence of the weights by its name on the hub, such as apache-2.0 or cc-by-nc-4.0."""
    dataset: tuple[str, ...] = ()
    """Datasets of the hub that the model was trained on, OWNER/NAME each."""
    classes: Path | None = None
    """Names of the classes, if the model has none or other ones: a classes.csv, or a text file with one name per line.
    They go into the model's file and into its card."""
    device: str = "auto"
    """Where samples are generated: auto, cpu, cuda or cuda:N."""

    def check(self) -> None:
        """Refuse what the hub would not take.

        Raises:
            ConfigError: the licence or a dataset has no name of the hub, or has no effect without a card.
        """
        for name in ("license", "dataset"):
            if not self.card and getattr(self, name):
                raise ConfigError(f"--{name} has no effect with --no-card: leave one of them out")
        if self.license is not None and not re.fullmatch(r"[a-z0-9][a-z0-9.+-]*", self.license):
            raise ConfigError(
                f"--license {self.license:.100} is no name of a licence on the hub: give one such as apache-2.0, or "
                "other"
            )
        for name in self.dataset:
            if not is_repository(name):
                raise ConfigError(f"--dataset {name:.100} is no name of a dataset on the hub: give OWNER/NAME")

    def write(self, run: Path, repository: str, samples: SampleOptions, folder: Path) -> CardFacts:
        """Write all files of the repository, load the model from them, and generate the samples with it.

        Args:
            run: the model, as it was given.
            repository: OWNER/NAME, for the card.
            samples: that the card shows.
            folder: where the files go.

        Returns:
            What the card says.

        Raises:
            HdganError: the model, an option or a sample cannot be used, or a file cannot be written.
        """
        source = find_checkpoint(run, self.checkpoint)
        file, dtype = folder / MODEL_FILE, getattr(torch, self.dtype)
        export_model(
            source,
            file,
            dtype,
            ema=self.ema,
            data_paths=False,
            examples=self.crops,
            classes=given_classes(source, self.classes),
        )
        if self.crops and not (folder / STYLES_FILE).exists():
            raise ConfigError(f"--crops has no effect, since {run} has no clusters of styles: leave it out")
        # What is wrong with the new files was wrong with those that the user knows.
        call(file, str(source))
        call(folder / STYLES_FILE, str(beside(source, STYLES_FILE)))
        pipeline = load(folder, device=self.device)
        facts = self._facts(run, repository, samples, source, pipeline)
        write_text(folder / CONFIG, json.dumps(facts.metadata, indent=2) + "\n")
        if self.card:
            write_text(folder / CARD, model_card(facts))
        return facts

    def _facts(self, run: Path, repository: str, samples: SampleOptions, source: Path, pipeline: Pipeline) -> CardFacts:
        file = pipeline.file
        assert file is not None
        classes = pipeline.classes
        metadata, n_labels = read_metadata(file), pipeline.config.n_labels
        has_styles = (file.parent / STYLES_FILE).exists()
        return CardFacts(
            repository,
            pipeline.config,
            metadata,
            parameters=sum(weight.numel() for weight in pipeline.model.generator.parameters()),
            size=trained_size(file),
            on_scenes=scenes_of(pipeline) is not None,
            classes=classes,
            clusters=sum(map(len, pipeline.bank.clusters.values())) if has_styles else 0,
            measured=_measured(source, metadata.get("step")),
            samples=samples.write(run, pipeline, file.parent / SAMPLES, choose_palette(n_labels, classes).colors),
            license=self.license,
            datasets=self.dataset,
        )


def _measured(source: Path, step: object) -> dict[str, float]:
    """What its run has measured of a checkpoint, if it is the best one."""
    run = run_of(source.parent.absolute())
    best = None if run is None else read_best(run)
    return {} if best is None or best.step != step else best.values
