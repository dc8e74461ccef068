"""What all sessions of an editor share: the model, the class palette, the held-out samples and the output folder."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from PIL import Image
from rich.console import Console

from hdgan.checkpoints import MODEL_FILE, output_beside, run_of
from hdgan.data import PairedDataset
from hdgan.editor.document import Document
from hdgan.editor.palette import ClassPalette, choose_palette
from hdgan.editor.renderer import Renderer
from hdgan.errors import ConfigError, DataError, HdganError
from hdgan.families.saving import read_metadata
from hdgan.families.stored_classes import stored_classes
from hdgan.inference import Pipeline
from hdgan.inference.preview import Preview
from hdgan.losses import rgb_obstacle
from hdgan.scenes import held_out_only
from hdgan.styles import Style, StyleBank
from hdgan.training.datasets import open_data
from hdgan.training.known_classes import classes_of_data
from hdgan.training.run_folder import training_of


@dataclass(frozen=True, eq=False)
class EditorContext:
    """A trained model, ready for editing."""

    pipeline: Pipeline
    palette: ClassPalette
    folder: Path
    """Where documents are saved."""
    max_pixels: int
    """Largest size of a document that is opened from files."""
    samples: PairedDataset | None = None
    """Held-out samples to start from."""
    why_no_samples: str = ""
    preview_memory: int = 0
    """Bytes that the features of images may take, of which edits are previewed; 0 for no previews."""

    @cached_property
    def renderer(self) -> Renderer:
        # The features of the last image stay until those of the next one are complete.
        preview = Preview(self.pipeline, max_memory=self.preview_memory // 2) if self.preview_memory else None
        return Renderer(self.pipeline, preview)

    @property
    def notes(self) -> tuple[str, ...]:
        """What this model cannot do, each with its remedy."""
        notes = [] if self.samples else [f"There are no held-out images to start from: {self.why_no_samples}."]
        try:
            self.bank  # noqa: B018
        except HdganError as error:
            notes.append(f"There are no styles to choose from: {error}.")
        return tuple(notes)

    @property
    def bank(self) -> StyleBank:
        """As `Pipeline.bank`. As long as there is none, each access looks for its file again."""
        return self.pipeline.bank

    def choices(self, label: int) -> list[tuple[Style, Image.Image | None]]:
        """The styles of a class, each with its thumbnail if it has one. Without clusters the list is empty."""
        try:
            clusters = self.bank.clusters.get(label, ())
        except HdganError:
            return []
        return [(self.bank.style(label, k), cluster.thumbnail) for k, cluster in enumerate(clusters)]

    def new_style(self, id: int, label: int) -> Style | None:
        """A random style of the class for a new instance; None if the class has no clusters."""
        if not self.choices(label):
            return None
        return self.bank.sample({id: label}).instances[id]

    def sample(self, number: int) -> Document:
        """A held-out sample. If the model has an encoder, the instances have the styles of the sample's photo.

        Raises:
            DataError: there is no such sample, or its files cannot be used.
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


def open_context(
    pipeline: Pipeline,
    max_pixels: int,
    *,
    root: Path | None = None,
    out: Path | None = None,
    classes: Path | None = None,
    preview_gib: float = 0,
    console: Console | None = None,
) -> EditorContext:
    """Prepare a model that `hdgan.load` returned for editing.

    Args:
        pipeline: the model.
        max_pixels, root, out, classes, preview_gib: options of `hdgan edit`.
        console: where warnings about the dataset are printed.

    Raises:
        ConfigError: the model does not generate grey or RGB images from label maps.
        DataError: the file of class names cannot be used.
    """
    file, model = pipeline.file, pipeline.config
    assert file is not None
    if not model.n_labels:
        raise ConfigError(f"{file} translates images, which have no objects to edit: give a model of label maps")
    if obstacle := rgb_obstacle(model.image_channels, f"those of {file}"):
        raise ConfigError(f"the editor {obstacle}: use hdgan generate")
    metadata = read_metadata(file)
    samples, why_no_samples, spec = None, "", stored_classes(file, metadata, model.n_labels)
    try:
        config, size = training_of(file, metadata, model, root)
        spec = classes_of_data(config.data, file, model)
        config = replace(config, data=held_out_only(config.data), stages={})
        samples = open_data(config, console or Console(quiet=True), trained=True).validation(size)
    except HdganError as error:  # the model can still edit the user's own files
        why_no_samples = str(error)
    palette = choose_palette(model.n_labels, spec, classes)
    folder = out or output_folder(file)
    memory = int(preview_gib * 2**30) if pipeline.device.type == "cpu" else 0
    return EditorContext(pipeline, palette, folder, max_pixels, samples, why_no_samples, memory)


def output_folder(model: Path) -> Path:
    """Where documents are saved: in the run of a model, since training may delete checkpoints, else as `output_beside`
    says."""
    run = run_of(model.parent.resolve()) if model.name == MODEL_FILE else None
    return output_beside(model, "edits") if run is None else run / "edits"
