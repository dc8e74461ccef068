"""The styles of a model's classes: clusters of E's features, in a file beside the checkpoint.

styles.safetensors holds, for K clusters of all classes together, C classes and F features:

    centre       [K, F] float32          sorted by class, within a class by size
    mean         [C, F] float32          mean feature of each class over all its instances
    overall      [F] float32             mean feature of all instances
    thumbnail    [K, S, S, 3] uint8      crop of the instance nearest to each centre; left out if any cluster has none

Its metadata has the fields of `_Metadata`, as JSON under `hdgan`.
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
from hdgan.styles.remedies import how_to_cluster, how_to_cluster_again, how_to_renew
from hdgan.styles.sample import Style, Styles
from hdgan.styles.table import Origin
from hdgan.weights import open_safetensors

FORMAT = 1
"""Increased when an older hdgan could not read a newer file."""


@dataclass(frozen=True)
class Example:
    """An instance in the training images."""

    stem: str
    """Name of the image."""
    id: int
    box: tuple[float, float, float, float]
    """Left, top, right, bottom as shares of the image's width and height."""


@dataclass(frozen=True)
class Cluster:
    """Instances of a class with similar features."""

    centre: np.ndarray
    """[F] float32."""
    count: int | None = None
    """Number of its instances; None if unknown, as in NVIDIA's files."""
    examples: tuple[Example, ...] = ()
    """The nearest to the centre first."""
    thumbnail: Image.Image | None = None
    """Crop of the first example."""


@dataclass(frozen=True)
class StyleBank:
    """The clusters of every class."""

    clusters: Mapping[int, tuple[Cluster, ...]]
    """By class. Classes without clusters are absent."""
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
        own = self.clusters.get(label, ())
        if not 0 <= cluster < len(own):
            raise ConfigError(
                f"class {label} has no cluster {cluster}: it has "
                + (f"0 to {len(own) - 1}" if own else f"none; classes with clusters are {sorted(self.clusters)}")
            )
        return Style(label, tuple(own[cluster].centre.tolist()), cluster)

    def mean_style(self, label: int) -> Style:
        """The mean over the instances of a class, or over all instances if the data has none of this class."""
        return Style(label, tuple(self.means.get(label, self.overall).tolist()))

    def sample(
        self,
        instances: Mapping[int, int],
        seed: int = 0,
        variant: int = 0,
        per: Literal["instance", "class"] = "instance",
    ) -> Styles:
        """Choose a random cluster of its class for every instance, all with the same probability (paper, section 3.4).

        The style of an instance depends only on the seed, the variant, its class and its id, so adding instances to a
        map does not change the others. A class without clusters gets its `mean_style`.

        Args:
            instances: class by instance id, as returned by `Pipeline.instances`.
            seed: 0 or more. The same seed gives the same styles.
            variant: number of the drawing, from 0.
            per: "class" gives all instances of a class the same style.

        Raises:
            ConfigError: seed or variant is negative.
        """
        check_value(Seed, seed, "seed")
        check_value(Count, variant, "variant")
        styles = {}
        for id, label in instances.items():
            key = (seed, variant, label % 2**64, *((id % 2**64,) if per == "instance" else ()))
            n = len(self.clusters.get(label, ()))
            drawn = int(np.random.default_rng(key).integers(n)) if n else None
            styles[id] = self.mean_style(label) if drawn is None else self.style(label, drawn)
        return Styles(styles, self.origin.encoder)

    def without_examples(self) -> StyleBank:
        """The same clusters without what they show of training images: the crops, and the examples with their names."""
        clusters = {
            label: tuple(Cluster(cluster.centre, cluster.count) for cluster in own)
            for label, own in self.clusters.items()
        }
        return replace(self, clusters=clusters)

    def require(self, encoder: str, n_features: int, checkpoint: str) -> None:
        """Check that the clusters were made with a model's E.

        Args:
            encoder: `fingerprint` of the model's E; empty without E.
            n_features: of the model.
            checkpoint: the model, for the message.

        Raises:
            CheckpointError: they were made with another E.
        """
        origin = self.origin
        if origin.encoder and encoder and origin.encoder != encoder:
            raise CheckpointError(
                f"the styles were made with {origin.checkpoint} (encoder {origin.encoder}), but {checkpoint} has "
                f"encoder {encoder}: {how_to_renew(Path(checkpoint))}, with the same choice of --ema or --no-ema as "
                "here"
            )
        if len(self.overall) != n_features:
            raise CheckpointError(
                f"the styles have {len(self.overall)} features, but {checkpoint} has {n_features}: "
                f"{how_to_renew(Path(checkpoint))}"
            )

    def save(self, path: Path) -> None:
        """Write the bank atomically.

        Raises:
            HdganError: the file cannot be written.
        """
        flat = [(label, cluster) for label, own in sorted(self.clusters.items()) for cluster in own]
        means = sorted(self.means.items())
        metadata = _Metadata(
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
            save_file(arrays, temporary, {"hdgan": json.dumps(to_plain(metadata))})

    @staticmethod
    def load(path: Path) -> StyleBank:
        """Read what `save` wrote.

        Raises:
            CheckpointError: the file is missing or damaged, or newer than this hdgan.
        """
        if not os.path.lexists(path):
            raise CheckpointError(f"{path} does not exist: {how_to_cluster(path)}")
        remedy = how_to_cluster_again(path)
        with open_safetensors(path, remedy=remedy) as file:
            tensors = {name: file.get_tensor(name) for name in _TYPES.keys() & file.keys()}
            text = (file.metadata() or {}).get("hdgan", "")
        wrong = [name for name, tensor in tensors.items() if tensor.dtype != _TYPES[name]]
        if wrong:
            raise CheckpointError(f"{path} is damaged ({', '.join(wrong)}: wrong type): {remedy}")
        arrays = {name: tensor.numpy() for name, tensor in tensors.items()}
        metadata = from_plain(_Metadata, parse_json(text, f"{path}, hdgan", remedy), f"{path}, hdgan")
        if metadata.format > FORMAT:
            raise CheckpointError(
                f"{path} has format {metadata.format}, but this hdgan reads formats up to {FORMAT}: upgrade hdgan"
            )
        _check(path, arrays, metadata)
        return _assemble(arrays, metadata)


@dataclass(frozen=True)
class _Metadata:
    format: int
    origin: Origin
    classes: tuple[Label, ...]
    """Metadata of each cluster."""
    counts: tuple[Count | None, ...]
    examples: tuple[tuple[Example, ...], ...]
    mean_classes: tuple[Label, ...]
    """Metadata of each mean."""


_TYPES = {"centre": torch.float32, "mean": torch.float32, "overall": torch.float32, "thumbnail": torch.uint8}


def _check(path: Path, arrays: dict[str, np.ndarray], metadata: _Metadata) -> None:
    width = arrays["overall"].size if "overall" in arrays else -1
    n = len(metadata.classes)
    shapes = {"centre": (n, width), "mean": (len(metadata.mean_classes), width), "overall": (width,)}
    wrong = [
        name
        for name, shape in shapes.items()
        if name not in arrays or arrays[name].shape != shape or not np.isfinite(arrays[name]).all()
    ]
    thumbnail = arrays.get("thumbnail")
    if thumbnail is not None and (thumbnail.shape != (n, *thumbnail.shape[1:3], 3) or 0 in thumbnail.shape[1:]):
        wrong.append("thumbnail")
    if wrong or not len(metadata.counts) == len(metadata.examples) == n:
        raise CheckpointError(
            f"{path} is damaged ({', '.join(wrong) or 'lists'} do not fit): {how_to_cluster_again(path)}"
        )


def _assemble(arrays: dict[str, np.ndarray], metadata: _Metadata) -> StyleBank:
    clusters: dict[int, list[Cluster]] = {}
    thumbnails = arrays.get("thumbnail")
    for k, label in enumerate(metadata.classes):
        thumbnail = None if thumbnails is None else Image.fromarray(thumbnails[k])
        cluster = Cluster(arrays["centre"][k], metadata.counts[k], metadata.examples[k], thumbnail)
        clusters.setdefault(label, []).append(cluster)
    return StyleBank(
        {label: tuple(own) for label, own in clusters.items()},
        dict(zip(metadata.mean_classes, arrays["mean"], strict=True)),
        arrays["overall"],
        metadata.origin,
    )


def with_thumbnails(bank: StyleBank, thumbnails: Mapping[Example, Image.Image]) -> StyleBank:
    """The same clusters, each with the crop of its first example."""
    clusters = {
        label: tuple(replace(cluster, thumbnail=thumbnails[cluster.examples[0]]) for cluster in own)
        for label, own in bank.clusters.items()
    }
    return replace(bank, clusters=clusters)
