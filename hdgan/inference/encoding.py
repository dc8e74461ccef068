"""Encoding of all instances of the training images by E (paper, section 3.4). It works in parts, so that it can be
interrupted."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from rich.console import Console

from hdgan.checkpoints import (
    FEATURES_FILE,
    MODEL_FILE,
    STYLES_FILE,
    beside,
    copying,
    is_pretrained,
    output_beside,
    run_of,
    unchanging_name,
)
from hdgan.config.bounds import Side
from hdgan.config.options import option
from hdgan.config.serialization import check_value
from hdgan.data import PairedDataset, SizeConfig, make_loader
from hdgan.data.agreement import require_same_pairs
from hdgan.data.spec import DatasetSpec
from hdgan.devices import network_format
from hdgan.errors import CheckpointError, ConfigError
from hdgan.families.common.batch import Batch
from hdgan.families.common.train_config import TrainConfig
from hdgan.families.saving import read_metadata
from hdgan.inference.pipeline import Pipeline, load
from hdgan.ops import instance_reduce
from hdgan.sharding.world import ALONE, World
from hdgan.styles.table import FeatureTable, Origin, boxes_of, classes_of
from hdgan.training.datasets import RunData, open_data
from hdgan.training.known_classes import classes_of_data
from hdgan.training.run_folder import training_of

PART = 100
"""Images in each part, which is the most that an interruption can lose."""
_ROUND = 4
"""Images that each process encodes before all exchange their features."""


@dataclass(frozen=True)
class TrainedModel:
    """A trained model with an encoder, and the images that it was trained on."""

    file: Path
    """The model."""
    pipeline: Pipeline
    config: TrainConfig
    data: RunData
    size: SizeConfig
    """Size of the checkpoint's stage, without crops."""

    @cached_property
    def dataset(self) -> PairedDataset:
        """All training samples as E sees them."""
        return self.data.reference(self.size)

    @property
    def origin(self) -> Origin:
        """Origin of the features that its E computes."""
        return Origin(self.pipeline.encoder_id, _name(self.file))

    @property
    def table_file(self) -> Path:
        """The file of its instances' features."""
        return output_beside(self.file, FEATURES_FILE)

    @property
    def bank_file(self) -> Path:
        """The file that their clusters are written to. `Pipeline.bank` reads them.

        Raises:
            ConfigError: the model comes with hdgan or is in the cache of the hub.
        """
        return new_bank_file(self.file)

    @cached_property
    def classes(self) -> DatasetSpec | None:
        """Names and colours of the classes, where the data or the model has them."""
        return classes_of_data(self.config.data, self.file, self.pipeline.config)


def open_trained_model(
    run: Path,
    *,
    checkpoint: str = "latest",
    root: Path | None = None,
    width: int | None = None,
    device: str = "auto",
    ema: bool = True,
    console: Console | None = None,
    world: World = ALONE,
) -> TrainedModel:
    """Load a model and find its training images.

    Args:
        run: run folder, checkpoint folder or .safetensors file.
        checkpoint: which one of a run: latest, best, or a step.
        root: dataset, if it is not the one in the checkpoint.
        width: of the images in pixels; None uses the size of training.
        device: auto, cpu, cuda or cuda:N.
        ema: use the averaged weights.
        console: for warnings.
        world: the processes that open it together; one of each machine goes first.

    Raises:
        ConfigError: the model has no E, or its data is not known.
        CheckpointError, DataError: the checkpoint or the data cannot be used.
    """
    pipeline = load(run, checkpoint=checkpoint, device=device, ema=ema)
    file = pipeline.file
    assert file is not None
    if not pipeline.config.feature_channels:
        raise ConfigError(
            f"{file} was trained without features and has no styles: train with {option('model.feature_channels')} 3"
        )
    if pipeline.model.encoder is None:
        raise ConfigError(f"{file} contains no encoder: convert it again with --encoder FILE")
    config, size = training_of(file, read_metadata(file), pipeline.config, root)
    check_value(Side | None, width, "width")
    if width is not None:
        size = SizeConfig(width=width)
    with world.local_main_first():
        data = open_data(replace(config, stages={}), console or Console(quiet=True), trained=True)
    return TrainedModel(file, pipeline, config, data, size)


def new_bank_file(model: Path) -> Path:
    """The file in which clusters of a model's styles are written.

    Raises:
        ConfigError: the model comes with hdgan or is in the cache of the hub, where nothing is written.
    """
    if name := unchanging_name(model):
        where = "comes with hdgan" if is_pretrained(model) else "is in the cache of the hub"
        raise ConfigError(f"the model {name} {where}, and its clusters of styles do not change: {copying(model)}")
    return beside(model, STYLES_FILE)


def encode(
    trained: TrainedModel,
    progress: Callable[[int, int], None] = lambda done, total: None,
    world: World = ALONE,
) -> FeatureTable:
    """Encode all training images and write the table. Parts that an earlier call has finished are used again.

    Args:
        trained: from `open_trained_model`, the same in all processes.
        progress: called with the numbers of images done and of all images.
        world: the processes that share the images; the first one writes. Their number does not change the table.

    Raises:
        ConfigError: the processes have different models or images.
        DataError: an image cannot be used.
        CheckpointError: training has deleted the checkpoint in the meantime.
        HdganError: the table cannot be written.
    """
    total = len(trained.dataset)
    require_same_pairs(world.rendezvous, trained.dataset.pairs, "training image")
    world.rendezvous.require_equal({"the encoder": trained.origin.encoder})
    folder = trained.table_file.with_name(f".{trained.table_file.name}.parts-{_key(trained)}")
    parts = world.from_main(lambda: _begun(folder))
    done = sum(len(part.stem) for part in parts)
    rows: list[FeatureTable] = []
    progress(done, total)
    for row in world.in_order(_encoded(trained, done, world), total - done, _ROUND):
        rows.append(row)
        done += 1
        if len(rows) == PART or done == total:
            parts.append(FeatureTable.join(rows, trained.origin))
            rows = []
            if world.is_main:
                _require_checkpoint(trained)
                parts[-1].save(folder / _part_name(done))
        progress(done, total)
    table = FeatureTable.join(parts, trained.origin)
    if world.is_main:
        table.save(trained.table_file)
        shutil.rmtree(folder, ignore_errors=True)
    return table


def _begun(folder: Path) -> list[FeatureTable]:
    """The finished parts of this table; those of others are removed."""
    _remove_others(folder)
    return list(_finished_parts(folder))


@torch.inference_mode()
def _encoded(trained: TrainedModel, start: int, world: World) -> Iterator[FeatureTable]:
    """The table of each image of this process's share of those from number `start` on."""
    dataset, config = trained.dataset, trained.config
    model, device = trained.pipeline.model, trained.pipeline.device
    assert model.encoder is not None
    own = world.share(dataset.pairs[start:])
    if not own:
        return
    images = PairedDataset(own, dataset.data, dataset.size, dataset.n_labels, trained=True)
    for sample in make_loader(images, stop=len(own), shuffle=False, workers=config.data.workers):
        inputs = Batch.from_loader(sample, device, network_format(device))
        index = inputs.instances()
        with config.autocast(device):
            features = instance_reduce(model.encoder(inputs.photo, index).float(), index)
        yield FeatureTable(
            picture=np.zeros(len(features), np.int32),
            id=index.ids.cpu().numpy().astype(np.int64),
            label=classes_of(index, inputs.label, model.config.instance_divisor),
            area=index.counts.cpu().numpy(),
            box=boxes_of(index),
            feature=features.cpu().numpy(),
            stem=np.array(sample["stem"]),
            size=np.array([index.rows.shape[:0:-1]], np.int64),
        )


def _name(file: Path) -> str:
    if name := unchanging_name(file):
        return name
    if file.name != MODEL_FILE:
        return file.name
    folder = file.resolve().parent
    run = run_of(folder)
    return folder.name if run is None else f"{folder.name} of {run.name}"


def _require_checkpoint(trained: TrainedModel) -> None:
    """Refuse to write next to a checkpoint that is gone, since the folder would look like one."""
    if not trained.file.is_file():
        raise CheckpointError(
            f"{trained.file} no longer exists: a running training deletes its older checkpoints; encode the run again "
            f"when it has ended, or keep more checkpoints with {option('log.keep')}"
        )


def _key(trained: TrainedModel) -> str:
    """Distinguishes the parts of this table from those of another E, other or changed images, or another size."""
    dataset = trained.dataset
    pairs = [(pair.stem, [_version(file) for file in pair.files.values()]) for pair in dataset.pairs]
    text = json.dumps(
        [trained.origin.encoder, str(dataset.size), trained.config.precision, str(dataset.data.root), pairs]
    )
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _version(file: Path) -> tuple[int, int]:
    """Size and time of a file. If it is gone, the loader reports that with its name."""
    try:
        stat = file.stat()
    except OSError:
        return 0, 0
    return stat.st_size, stat.st_mtime_ns


def _finished_parts(folder: Path) -> Iterator[FeatureTable]:
    """The parts in order, up to the first that is damaged or missing."""
    done = 0
    for file in sorted(folder.glob("[0-9]*.npz")):
        try:
            part = FeatureTable.load(file)
        except CheckpointError:
            return
        done += len(part.stem)
        if file.name != _part_name(done):
            return
        yield part


def _part_name(done: int) -> str:
    """Name of the part after which `done` images are finished."""
    return f"{done:08d}.npz"


def _remove_others(folder: Path) -> None:
    for other in folder.parent.glob(f"{folder.name.rpartition('-')[0]}-*"):
        if other != folder:
            shutil.rmtree(other, ignore_errors=True)
