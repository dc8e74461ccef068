"""Styles of the instances of one label map: chosen, drawn at random, mixed, and saved as JSON."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from hdgan.config.bounds import Count, Label
from hdgan.config.serialization import from_plain, to_plain
from hdgan.errors import CheckpointError, ConfigError
from hdgan.files.json import read_json, write_json
from hdgan.ops import InstanceIndex

FORMAT = 1
"""Increased when an older hdgan could not read a newer file."""
_ID = re.compile(r"-?[0-9]{1,10}")


@dataclass(frozen=True)
class Style:
    """How one instance looks."""

    label: Label
    """Class that the style belongs to."""
    feature: tuple[float, ...]
    """The input of G at every pixel of the instance."""
    cluster: Count | None = None
    """Number of the cluster within its class, if the feature is the centre of one."""


@dataclass(frozen=True)
class Styles:
    """The styles of the instances of one label map, by instance id. A change returns a new object.

    An instance without an entry has the mean style of its class.
    """

    instances: Mapping[int, Style] = field(default_factory=dict)
    encoder: str = ""
    """`fingerprint` of the E that computed the features; empty if unknown."""

    def with_style(self, id: int, style: Style) -> Styles:
        """The same styles except that of one instance."""
        return replace(self, instances={**self.instances, id: style})

    def require(self, encoder: str) -> None:
        """Check that the features are those of the E with this `fingerprint`, if both are known.

        Raises:
            CheckpointError: they are those of another E.
        """
        if self.encoder and encoder and self.encoder != encoder:
            raise CheckpointError(
                f"the styles are of encoder {self.encoder}, but the model has encoder {encoder}: create them with "
                "this model"
            )

    def mixed(self, other: Styles, amount: float) -> Styles:
        """Interpolate linearly between these styles (amount 0) and others (amount 1).

        An instance that is in only one of them keeps its style. Call `Pipeline.complete` on both to have all instances
        in both.

        Raises:
            CheckpointError: they are of different encoders, or have features of different length.
        """
        other.require(self.encoder)
        instances = {**other.instances, **self.instances}
        for id in self.instances.keys() & other.instances.keys():
            first, second = self.instances[id], other.instances[id]
            if len(first.feature) != len(second.feature):
                raise CheckpointError(
                    f"the styles of instance {id} have {len(first.feature)} and {len(second.feature)} numbers: mix "
                    "only styles of one model"
                )
            instances[id] = _mix(first, second, amount)
        return Styles(dict(sorted(instances.items())), self.encoder or other.encoder)

    def save(self, path: Path) -> None:
        """Write the styles as JSON.

        Raises:
            HdganError: the file cannot be written.
        """
        write_json(path, self.to_plain())

    @staticmethod
    def load(path: Path) -> Styles:
        """Read what `save` wrote.

        Raises:
            CheckpointError: the file is missing or damaged.
        """
        return _styles_in(read_json(Path(path), _SavedStyles, _REMEDY), str(path))

    @staticmethod
    def load_for(path: Path, instances: Collection[int], source: str) -> Styles:
        """Read styles that are meant for a map.

        Args:
            path: of the styles.
            instances: ids in the map.
            source: the map, for the message.

        Raises:
            CheckpointError: the file is missing or damaged.
            ConfigError: none of the file's instances is in the map.
        """
        styles = Styles.load(path)
        if styles.instances and not styles.instances.keys() & set(instances):
            raise ConfigError(
                f"{path} has styles of instances {some(styles.instances)}, but {source} has none of them: it has "
                f"{some(instances)}"
            )
        return styles

    def to_plain(self) -> dict:
        """The content of a JSON file: `format`, `encoder`, and `instances` by id with `label`, `feature`, `cluster`."""
        instances = {str(id): to_plain(style) for id, style in self.instances.items()}
        return {"format": FORMAT, "encoder": self.encoder, "instances": instances}

    @staticmethod
    def from_plain(content: object, where: str = "the styles") -> Styles:
        """The styles of which `to_plain` returned the content.

        Args:
            content: from JSON.
            where: beginning of an error message, usually the file.

        Raises:
            CheckpointError: the content has another form.
        """
        return _styles_in(from_plain(_SavedStyles, content, where), where)


@dataclass(frozen=True)
class _SavedStyles:
    format: Count
    encoder: str
    instances: dict[str, Style]


_REMEDY = "give a file of styles that `hdgan generate --save-styles` wrote"


def _styles_in(file: _SavedStyles, where: str) -> Styles:
    if file.format > FORMAT:
        raise CheckpointError(
            f"{where} has format {file.format}, but this hdgan reads formats up to {FORMAT}: upgrade hdgan"
        )
    wrong = [id for id in file.instances if not _ID.fullmatch(id)]
    if wrong:
        raise CheckpointError(f"{where}: {wrong[0][:20]!r} is not an instance id: give a 32-bit integer")
    return Styles({int(id): style for id, style in file.instances.items()}, file.encoder)


def some(ids: Collection[int]) -> str:
    """The first ids, for a message."""
    return ", ".join(map(str, list(ids)[:8])) + (", …" if len(ids) > 8 else "")


def styles_of(classes: Mapping[int, int], features: np.ndarray, encoder: str) -> Styles:
    """Styles that are E's features, not centres of clusters.

    Args:
        classes: by instance id, N of them.
        features: [N, F] float32, in the same order.
        encoder: `fingerprint` of E.
    """
    rows = zip(classes.items(), features.tolist(), strict=True)
    return Styles({id: Style(label, tuple(feature)) for (id, label), feature in rows}, encoder)


def feature_rows(
    styles: Sequence[Styles], index: InstanceIndex, classes: Sequence[int], n_features: int
) -> tuple[Tensor, Tensor]:
    """The features of a batch of instances, for `instance_broadcast`.

    Args:
        styles: one for each image of the batch.
        index: of the batch.
        classes: of the N instances.
        n_features: of the model.

    Returns:
        The features, [N, n_features] float32, zero if an instance has no style; and which instances have one, [N] bool.

    Raises:
        ConfigError: a style is of another class than its instance, or its feature has another length or is not finite.
    """
    ids, offsets = index.ids.tolist(), index.offsets.tolist()
    features, known = torch.zeros(len(ids), n_features), torch.zeros(len(ids), dtype=torch.bool)
    for image, of_image in enumerate(styles):
        for row in range(offsets[image], offsets[image + 1]):
            style = of_image.instances.get(ids[row])
            if style is None:
                continue
            if style.label != classes[row]:
                raise ConfigError(
                    f"instance {ids[row]} is of class {classes[row]}, but its style is of class {style.label}: give "
                    "styles of this map"
                )
            feature = torch.tensor(style.feature)
            if len(feature) != n_features or not feature.isfinite().all():
                raise ConfigError(
                    f"the style of instance {ids[row]} is {list(style.feature)}: the model takes {n_features} finite "
                    "numbers"
                )
            features[row], known[row] = feature, True
    return features.to(index.rows.device), known.to(index.rows.device)


def _mix(first: Style, second: Style, amount: float) -> Style:
    if amount in (0, 1):
        return second if amount else first
    pairs = zip(first.feature, second.feature, strict=True)
    return Style(first.label, tuple((1 - amount) * a + amount * b for a, b in pairs))
