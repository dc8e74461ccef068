"""The styles that a model's classes come in: clusters of E's features, kept beside the checkpoint.

styles.safetensors holds, for K clusters of all classes together, C classes and F features:

    centre       [K, F] float32          sorted by class, in each by size
    mean         [C, F] float32          mean feature of each class over all its instances
    overall      [F] float32             mean feature of all instances
    thumbnail    [K, S, S, 3] uint8      crop of the instance nearest to each centre; left out where there is none

and, as JSON in its metadata under `hdgan`, what `_About` lists.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from PIL import Image
from safetensors.numpy import save_file

from hdgan.config.bounds import Count, Label, Seed
from hdgan.config.serialization import check_value, from_plain, to_plain
from hdgan.errors import CheckpointError, ConfigError
from hdgan.files import atomic_file
from hdgan.files.json import parse_json
from hdgan.styles.sample import Style, Styles
from hdgan.styles.table import Origin
from hdgan.weights import open_safetensors

STYLES_FILE = "styles.safetensors"
FORMAT = 1
"""Raised when an older hdgan could not read a newer file."""


@dataclass(frozen=True)
class Example:
    """An instance of the training pictures."""

    stem: str
    """Name of the picture."""
    id: int
    box: tuple[float, float, float, float]
    """Left, top, right, bottom as shares of the picture's width and height."""


@dataclass(frozen=True)
class Cluster:
    """Instances of a class that look alike."""

    centre: np.ndarray
    """[F] float32."""
    count: int | None = None
    """Instances in it; None where it is not known, as in NVIDIA's files."""
    examples: tuple[Example, ...] = ()
    """Nearest to the centre first."""
    thumbnail: Image.Image | None = None
    """Its first example."""


@dataclass(frozen=True)
class StyleBank:
    """The clusters of every class."""

    clusters: Mapping[int, tuple[Cluster, ...]]
    """By class; classes without clusters are absent."""
    means: Mapping[int, np.ndarray]
    """[F] float32 by class: the style of a class without clusters."""
    overall: np.ndarray
    """[F] float32: the style of a class without instances."""
    origin: Origin = field(default_factory=Origin)

    def style(self, label: int, cluster: int) -> Style:
        """One cluster's centre as a style.

        Raises:
            ConfigError: there is no such cluster.
        """
        there = self.clusters.get(label, ())
        if not 0 <= cluster < len(there):
            raise ConfigError(
                f"class {label} has no cluster {cluster}: it has "
                + (f"0 to {len(there) - 1}" if there else f"none; classes with clusters are {sorted(self.clusters)}")
            )
        return Style(label, tuple(there[cluster].centre.tolist()), cluster)

    def mean_style(self, label: int) -> Style:
        """The mean over the instances of a class, or over all instances where the data has none of it."""
        return Style(label, tuple(self.means.get(label, self.overall).tolist()))

    def sample(
        self,
        instances: Mapping[int, int],
        seed: int = 0,
        variant: int = 0,
        per: Literal["instance", "class"] = "instance",
    ) -> Styles:
        """Draw a cluster for every instance, each of its class with equal chances (paper section 3.4).

        What an instance gets depends on the seed, the variant, its class and its id alone, so instances that are added
        to a map leave the others as they are. A class without clusters gets its `mean_style`.

        Args:
            instances: class by instance id, as `Pipeline.instances` gives it.
            seed: from 0; the same gives the same styles.
            variant: number of the drawing, from 0.
            per: "class" gives all instances of a class one style.

        Raises:
            ConfigError: seed or variant is negative.
        """
        check_value(Seed, seed, "seed")
        check_value(Count, variant, "variant")
        styles = {}
        for id, label in instances.items():
            there = self.clusters.get(label)
            key = (seed, variant, label % 2**64, *((id % 2**64,) if per == "instance" else ()))
            styles[id] = (
                self.style(label, int(np.random.default_rng(key).integers(len(there))))
                if there
                else self.mean_style(label)
            )
        return Styles(styles, self.origin.encoder)

    def require(self, encoder: str, n_features: int, checkpoint: str) -> None:
        """Check that the clusters are of a model's E.

        Args:
            encoder: `fingerprint` of the model's E; empty without E.
            n_features: of the model.
            checkpoint: the model, for the message.

        Raises:
            CheckpointError: they are another's.
        """
        origin = self.origin
        if origin.encoder and encoder and origin.encoder != encoder:
            raise CheckpointError(
                f"the styles were made with {origin.checkpoint} (encoder {origin.encoder}), but {checkpoint} has "
                f"encoder {encoder}: make its own with `hdgan styles encode` and `hdgan styles cluster`"
            )
        if len(self.overall) != n_features:
            raise CheckpointError(
                f"the styles have {len(self.overall)} features, but {checkpoint} has {n_features}: make its own with "
                "`hdgan styles encode` and `hdgan styles cluster`"
            )

    def save(self, path: Path) -> None:
        """Write the bank atomically.

        Raises:
            HdganError: the file cannot be written.
        """
        flat = [(label, cluster) for label, there in sorted(self.clusters.items()) for cluster in there]
        means = sorted(self.means.items())
        about = _About(
            format=FORMAT,
            origin=self.origin,
            classes=tuple(label for label, _ in flat),
            counts=tuple(cluster.count for _, cluster in flat),
            examples=tuple(cluster.examples for _, cluster in flat),
            mean_classes=tuple(label for label, _ in means),
        )
        width = len(self.overall)
        arrays = {
            "centre": np.array([cluster.centre for _, cluster in flat], np.float32).reshape(-1, width),
            "mean": np.array([mean for _, mean in means], np.float32).reshape(-1, width),
            "overall": np.asarray(self.overall, np.float32),
        }
        if flat and all(cluster.thumbnail is not None for _, cluster in flat):
            arrays["thumbnail"] = np.stack([np.asarray(cluster.thumbnail) for _, cluster in flat])
        with atomic_file(path) as temporary:
            save_file(arrays, temporary, {"hdgan": json.dumps(to_plain(about))})

    @staticmethod
    def load(path: Path) -> StyleBank:
        """Read what `save` wrote.

        Raises:
            CheckpointError: the file is missing or damaged, or newer than this hdgan.
        """
        if not os.path.lexists(path):
            raise CheckpointError(
                f"{path} does not exist: make it with `hdgan styles encode RUN` and then `hdgan styles cluster RUN`"
            )
        with open_safetensors(path, remedy=_REMEDY) as file:
            there = _TYPES.keys() & file.keys()
            tensors = {name: file.get_tensor(name) for name in there}
            metadata = (file.metadata() or {}).get("hdgan", "")
        wrong = [name for name, tensor in tensors.items() if tensor.dtype != _TYPES[name]]
        if wrong:
            raise CheckpointError(f"{path} is damaged ({', '.join(wrong)} of another type): {_REMEDY}")
        arrays = {name: tensor.numpy() for name, tensor in tensors.items()}
        about = from_plain(_About, parse_json(metadata, f"{path}, hdgan", _REMEDY), f"{path}, hdgan")
        if about.format > FORMAT:
            raise CheckpointError(f"{path} has format {about.format}, this hdgan reads up to {FORMAT}: upgrade hdgan")
        _check(path, arrays, about)
        return _assemble(arrays, about)


@dataclass(frozen=True)
class _About:
    format: int
    origin: Origin
    classes: tuple[Label, ...]
    """Of each cluster."""
    counts: tuple[Count | None, ...]
    examples: tuple[tuple[Example, ...], ...]
    mean_classes: tuple[Label, ...]
    """Of each mean."""


_TYPES = {"centre": torch.float32, "mean": torch.float32, "overall": torch.float32, "thumbnail": torch.uint8}
_REMEDY = "delete it and make it again with `hdgan styles cluster RUN`"


def _check(path: Path, arrays: dict[str, np.ndarray], about: _About) -> None:
    width = arrays["overall"].size if "overall" in arrays else -1
    n = len(about.classes)
    shapes = {"centre": (n, width), "mean": (len(about.mean_classes), width), "overall": (width,)}
    wrong = [
        name
        for name, shape in shapes.items()
        if name not in arrays or arrays[name].shape != shape or not np.isfinite(arrays[name]).all()
    ]
    thumbnail = arrays.get("thumbnail")
    if thumbnail is not None and (thumbnail.shape != (n, *thumbnail.shape[1:3], 3) or 0 in thumbnail.shape[1:]):
        wrong.append("thumbnail")
    if wrong or not len(about.counts) == len(about.examples) == n:
        raise CheckpointError(f"{path} is damaged ({', '.join(wrong) or 'lists'} do not fit): {_REMEDY}")


def _assemble(arrays: dict[str, np.ndarray], about: _About) -> StyleBank:
    clusters: dict[int, list[Cluster]] = {}
    thumbnails = arrays.get("thumbnail")
    for k, label in enumerate(about.classes):
        picture = None if thumbnails is None else Image.fromarray(thumbnails[k])
        clusters.setdefault(label, []).append(Cluster(arrays["centre"][k], about.counts[k], about.examples[k], picture))
    return StyleBank(
        {label: tuple(there) for label, there in clusters.items()},
        dict(zip(about.mean_classes, arrays["mean"], strict=True)),
        arrays["overall"],
        about.origin,
    )


def with_thumbnails(bank: StyleBank, thumbnails: Mapping[Example, Image.Image]) -> StyleBank:
    """Give every cluster the picture of its first example."""
    clusters = {
        label: tuple(replace(cluster, thumbnail=thumbnails[cluster.examples[0]]) for cluster in there)
        for label, there in bank.clusters.items()
    }
    return replace(bank, clusters=clusters)
