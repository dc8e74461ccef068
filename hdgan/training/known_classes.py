"""Which names and colours the classes of a model have: those of a dataset, or those that its file keeps.

Two places can name them. classes.csv in the folder of a dataset says what its label maps mean, and the file of a model
keeps what it said when the model was trained.

A command that works with a dataset (training, evaluation, styles, the editor) takes the names of the dataset as they
are now. So a correction of classes.csv shows at once, also for a run that was trained before there was such a file; and
where another dataset is given, its own names describe its label maps. A command that has only a model (export, convert,
push, `hdgan.load`) takes the names in the model's file, so that they go wherever the file goes and do not depend on
what lies on a disk. Where the one has no names, the other's are taken.
"""

from __future__ import annotations

from pathlib import Path

from hdgan.data import DataConfig
from hdgan.data.class_file import CLASS_FILE
from hdgan.data.spec import DatasetSpec
from hdgan.errors import CheckpointError
from hdgan.families import ModelConfig
from hdgan.families.saving import read_metadata
from hdgan.families.stored_classes import stored_classes
from hdgan.files.remote import is_remote
from hdgan.scenes import spec_of
from hdgan.training.run_folder import training_of


def classes_of_model(file: Path, model: ModelConfig) -> DatasetSpec | None:
    """The classes of a model by itself: those in its file, else those of the dataset on this machine that the file says
    it is from.

    Args:
        file: of the model.
        model: its config.

    Returns:
        None where no names are known, and for a model of A-to-B pairs.

    Raises:
        CheckpointError: the file is damaged.
        DataError: the file has no names, and classes.csv of the dataset cannot be used.
    """
    if not model.n_labels:
        return None
    metadata = read_metadata(file)
    stored = stored_classes(file, metadata, model.n_labels)
    if stored is not None or "train" not in metadata:
        return stored
    data = training_of(file, metadata, model)[0].data
    # A dataset elsewhere is not asked, which may need a network and credentials.
    return None if is_remote(data.root) else spec_of(data, model.n_labels, trained=True)


def classes_to_keep(file: Path, model: ModelConfig) -> DatasetSpec | None:
    """The classes for a new file of a model: those of `classes_of_model`; None also if the description of its training
    is damaged, without which a model can still be used.

    Args:
        file: of the model.
        model: its config.

    Raises:
        CheckpointError: the names in the file are damaged.
        DataError: as `classes_of_model`.
    """
    stored = stored_classes(file, read_metadata(file), model.n_labels) if model.n_labels else None
    if stored is not None:
        return stored
    try:
        return classes_of_model(file, model)
    except CheckpointError:
        return None


def classes_of_data(data: DataConfig, file: Path, model: ModelConfig) -> DatasetSpec | None:
    """The classes of a dataset, for a command that uses a model with it: its own, else those in the model's file.

    Args:
        data: the dataset.
        file: of the model.
        model: its config.

    Returns:
        None where no names are known, and for A-to-B pairs.

    Raises:
        DataError: classes.csv cannot be used, or has another number of classes than the model.
        CheckpointError: the model's file is damaged.
    """
    return spec_of(data, model.n_labels, trained=True) or classes_of_model(file, model)


def renamed_note(data: DataConfig, current: DatasetSpec | None, kept: DatasetSpec | None, kept_by: str) -> str:
    """What to print if a dataset names the classes otherwise than a model does; empty if it does not.

    A name that was corrected is harmless. Labels that mean something else are not: the model cannot know.

    Args:
        data: the dataset.
        current: its classes.
        kept: the classes that the model was trained with.
        kept_by: what keeps them, such as "the run x".
    """
    if current is None or kept is None or data.root is None:
        return ""
    pairs = enumerate(zip(current.classes, kept.classes, strict=True))
    different = [(label, now, before) for label, (now, before) in pairs if now != before]
    if not different:
        return ""
    label, now, before = different[0]
    more = f" (and {len(different) - 1} more)" if len(different) > 1 else ""
    return (
        f"{data.root / CLASS_FILE} calls label {label} {now!r}, but {kept_by} was trained with {before!r}{more}: if "
        "only the name has changed, this is harmless; if the labels have other meanings, the images will be wrong"
    )
