"""What all sessions of an editor share: the model, its classes and styles, and where pictures come from and go."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Literal

from PIL import Image
from rich.console import Console

from hdgan.checkpoints import MODEL_FILE, beside, find_checkpoint, run_of
from hdgan.data import PairedDataset
from hdgan.editor.document import Document
from hdgan.editor.legend import Legend, legend_of
from hdgan.editor.render import Renderer
from hdgan.errors import ConfigError, DataError, HdganError
from hdgan.families.saving import read_metadata
from hdgan.inference import Pipeline, load
from hdgan.scenes import spec_of
from hdgan.styles import Style, StyleBank
from hdgan.training.datasets import open_data
from hdgan.training.run_folder import training_of
from hdgan.wording import count

MAX_PIXELS = 2048 * 1024 * 2
"""Of a picture that is opened."""


@dataclass(frozen=True, eq=False)
class Studio:
    """A trained model, ready to be edited with."""

    pipeline: Pipeline
    legend: Legend
    folder: Path
    """Where pictures are saved."""
    samples: PairedDataset | None = None
    """Held-out pictures to start from."""
    why_no_samples: str = ""
    max_pixels: int = MAX_PIXELS

    @cached_property
    def renderer(self) -> Renderer:
        """Of all sessions."""
        return Renderer(self.pipeline)

    @property
    def notes(self) -> tuple[str, ...]:
        """What cannot be done with this model, and the remedy."""
        notes = [] if self.samples else [f"There are no pictures to start from: {self.why_no_samples}."]
        try:
            self.pipeline.bank  # noqa: B018
        except HdganError as error:
            notes.append(f"There are no styles to choose from: {error}.")
        return tuple(notes)

    @property
    def bank(self) -> StyleBank:
        """As `Pipeline.bank`, looked for again as long as there is none."""
        return self.pipeline.bank

    def choices(self, label: int) -> list[tuple[Style, Image.Image | None]]:
        """The styles of a class, with a thumbnail where there is one; none for a model that has no clusters."""
        try:
            clusters = self.bank.clusters.get(label, ())
        except HdganError:
            return []
        return [(self.bank.style(label, k), cluster.thumbnail) for k, cluster in enumerate(clusters)]

    def new_style(self, id: int, label: int) -> Style | None:
        """What an instance that has just been painted looks like: drawn from its class, or None where nothing is."""
        if not self.choices(label):
            return None
        return self.bank.sample({id: label}).instances[id]

    def sample(self, number: int) -> Document:
        """A held-out picture, in the styles of its photo where the model has E.

        Raises:
            DataError: there is no such picture, or it cannot be used.
        """
        if self.samples is None or not 0 <= number < len(self.samples):
            raise DataError(f"there is no sample {number}: {self.why_no_samples or 'choose another one'}")
        sample = self.samples[number]
        ids = sample["ids"].numpy() if "ids" in sample else None
        document = Document.of(sample["label"].numpy(), ids, divisor=self.pipeline.config.instance_divisor)
        if "photo" in sample and self.pipeline.model.encoder is not None:
            photo = sample["photo"].numpy().transpose(1, 2, 0)
            return document.restyled(self.pipeline.encode(photo, document.label, document.ids))
        return document


def open_studio(
    run: Path,
    *,
    checkpoint: str = "latest",
    root: Path | None = None,
    out: Path | None = None,
    classes: Path | None = None,
    max_pixels: int = MAX_PIXELS,
    device: str = "auto",
    precision: Literal["float32", "bfloat16"] = "float32",
    ema: bool = True,
    console: Console | None = None,
) -> Studio:
    """Load a model for editing; the options are those of `hdgan edit`.

    Raises:
        CheckpointError: there is no such checkpoint.
        ConfigError: the model takes no label maps.
        DataError: the file of class names cannot be used.
    """
    file = find_checkpoint(run, checkpoint)
    pipeline = load(file, device=device, precision=precision, ema=ema)
    if not pipeline.config.n_labels:
        raise ConfigError(
            f"{file} makes pictures from pictures, which have no objects: edit with a model of label maps"
        )
    channels = pipeline.config.image_channels
    if channels not in (1, 3):
        raise ConfigError(
            f"{file} makes pictures of {count(channels, 'channel')}, but the editor shows 1 or 3: use hdgan generate"
        )
    samples, why_no_samples, spec = None, "", None
    try:
        config, size = training_of(file, read_metadata(file), pipeline.config, root)
        spec = spec_of(config.data)
        samples = open_data(replace(config, stages={}), console or Console(quiet=True)).validation(size)
    except HdganError as error:  # the model can still be used on the user's own files
        why_no_samples = str(error)
    return Studio(
        pipeline,
        legend_of(pipeline.config.n_labels, spec, classes),
        out or edits_of(file),
        samples,
        why_no_samples,
        max_pixels,
    )


def edits_of(model: Path) -> Path:
    """Where pictures are saved: in the run of a model, whose checkpoints training may delete, or beside its file."""
    run = run_of(model.parent.resolve()) if model.name == MODEL_FILE else None
    return beside(model, "edits") if run is None else run / "edits"
