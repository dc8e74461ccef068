"""A model as one file for use and for passing on: without what only training needs, and with its styles."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path, PureWindowsPath
from typing import Any

import torch

from hdgan.checkpoints import STYLES_FILE, beside, require_new_checkpoint
from hdgan.config.options import option
from hdgan.config.urls import is_url
from hdgan.data.spec import DatasetSpec
from hdgan.errors import ConfigError
from hdgan.families import ImageModel
from hdgan.families.saving import load_model, save_model
from hdgan.families.stored_classes import classes_entry
from hdgan.styles.bank import StyleBank
from hdgan.styles.table import Origin, fingerprint
from hdgan.training.known_classes import classes_to_keep
from hdgan.wording import count


def export_model(
    source: Path,
    out: Path,
    dtype: torch.dtype = torch.float32,
    *,
    ema: bool = True,
    data_paths: bool = True,
    examples: bool = True,
    classes: DatasetSpec | None = None,
) -> list[str]:
    """Write generator and encoder of a model to a new file, and its clusters of styles to one beside it.

    The description of the training goes with them, so that commands find the dataset, the size of its images and the
    network of the loss. Other absolute paths in it, such as that of the run, are cut to their last part.

    Args:
        source: a model file.
        out: the new file, *.safetensors. If it is called model.safetensors, its folder is a checkpoint folder.
        dtype: of the weights in the file: torch.float32, or torch.bfloat16 for half the size.
        ema: write the averaged weights if there are any.
        data_paths: keep the paths of dataset and network. Without them, all absolute paths are cut.
        classes: names and colours of the classes for the new file; None keeps those of the model, or takes those of its
            dataset if the model's file has none.
        examples: keep what the clusters of styles show of training photos: a crop of each, and names of photos.

    Returns:
        What was left out, and where the styles are, one sentence each.

    Raises:
        CheckpointError: the model or its styles cannot be loaded, or the styles are of another encoder.
        ConfigError: one of the new files exists, or `out` has another ending.
        HdganError: they cannot be written.
    """
    require_new_checkpoint(out)
    styles_file = beside(out, STYLES_FILE)
    if styles_file.exists():
        raise ConfigError(f"{styles_file} already exists: choose another {option('out')}, or delete it")
    model, info = load_model(source, ema=ema)
    bank = _styles_of(source, model)
    notes = []
    if model.discriminator is not None:
        model.discriminator = None
        notes.append("the discriminator is left out: training that starts from the new file makes a new one")
    _round(model, dtype)
    extra = {name: value for name, value in info.metadata.items() if name not in ("format", "version", "model")}
    if isinstance(train := extra.get("train"), dict):
        extra["train"] = _portable(train, ("data", "loss") if data_paths else ())
    extra |= classes_entry(classes or classes_to_keep(source, model.config))
    save_model(out, model, extra=extra, tensors=info.tensors, dtype=dtype, new=True)
    if bank is not None:
        # Rounding has made another network of E, for which these styles are as good.
        bank = bank if examples else bank.without_examples()
        replace(bank, origin=Origin(_encoder_id(model), bank.origin.checkpoint)).save(styles_file)
        notes.append(f"its {count(sum(map(len, bank.clusters.values())), 'cluster')} of styles: {styles_file}")
    elif model.config.feature_channels:
        notes.append(f"{source} has no clusters of styles, so the new file has none either")
    return notes


def _styles_of(source: Path, model: ImageModel) -> StyleBank | None:
    """The clusters beside a model; None if there are none."""
    file = beside(source, STYLES_FILE)
    if not model.config.feature_channels or not file.exists():
        return None
    bank = StyleBank.load(file)
    bank.require(_encoder_id(model), model.config.feature_channels, str(source))
    return bank


def _encoder_id(model: ImageModel) -> str:
    return "" if model.encoder is None else fingerprint(model.encoder)


@torch.no_grad()
def _round(model: ImageModel, dtype: torch.dtype) -> None:
    """Round all weights to numbers of a type."""
    for weight in model.parameters():
        weight.copy_(weight.to(dtype))


def _portable(train: dict[str, Any], kept: Sequence[str]) -> dict[str, Any]:
    """The description of a training in which paths outside of the `kept` parts are cut to their last part."""

    def cut(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: cut(part) for key, part in value.items()}
        if isinstance(value, list):
            return [cut(part) for part in value]
        return _last_part(value) if isinstance(value, str) else value

    return {key: part if key in kept else cut(part) for key, part in train.items()}


def _last_part(text: str) -> str:
    """The last part of a text that says where something lies on somebody's machine, of whichever kind; or the text."""
    start, local, place = text.rpartition("local-dir:")  # of timm's networks
    path = PureWindowsPath(place)  # which knows both separators
    tells = (
        path.is_absolute()
        or path.root
        or path.drive
        or place[:1] == "~"
        or ".." in path.parts
        or local
        or (is_url(place))
    )
    return f"{start}{local}{path.name}" if tells else text
