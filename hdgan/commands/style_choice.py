"""The options of `hdgan generate` that choose styles."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from hdgan.config.bounds import Seed, VariantsOnDisk
from hdgan.config.serialization import check_value
from hdgan.errors import ConfigError
from hdgan.inference.maps import Maps
from hdgan.inference.pipeline import Pipeline
from hdgan.styles import Styles
from hdgan.styles.sample import some

_RANDOM = ("random", "random-class")


@dataclass(frozen=True)
class StyleChoice:
    """Which styles the images get, and how many variants of each there are."""

    styles: str = "mean"
    """Without a photo: mean (of each class), random (a cluster for each instance), random-class (a cluster for all
    instances of a class), or a .json file that --save-styles wrote."""
    styles_to: Path | None = None
    """A second file of styles; the variants are interpolated from the first to the second."""
    variants: int = 1
    """Images of each label map, named x_1.png, x_2.png, …: in random styles, between two files of styles, or the
    model's own variants (several images at once, or noise)."""
    seed: int = 0
    """Seed of random styles, and of the noise of models that draw any. The same seed gives the same images."""
    clusters: dict[int, int] | None = None
    """Instances and the cluster of each within its class, as in --clusters 26001 3 26002 5."""
    save_styles: bool = False
    """Write the styles of each image next to it, as x.json."""

    @property
    def files(self) -> tuple[Path, ...]:
        """The style files that are given."""
        return tuple(file for file in (self._file, self.styles_to) if file is not None)

    @property
    def _file(self) -> Path | None:
        return None if self.styles in ("mean", *_RANDOM) else Path(self.styles)

    @property
    def by_styles(self) -> bool:
        """Whether variants differ in their styles. Otherwise they come from the model."""
        return self.styles in _RANDOM or self.styles_to is not None

    def check(self, own_variants: int | None, with_photo: bool) -> None:
        """Refuse options that contradict each other.

        Args:
            own_variants: `ModelConfig.variants`.
            with_photo: whether a photo is given.

        Raises:
            ConfigError: they contradict each other, or one of them is out of range.
        """
        file = self._file
        if file is not None and file.suffix != ".json":
            raise ConfigError(f"--styles is {self.styles}: give mean, random, random-class or a .json file")
        if with_photo and self.styles != "mean":
            raise ConfigError(
                f"--photo already sets the styles, so --styles {self.styles} has no effect: leave one out"
            )
        check_value(VariantsOnDisk, self.variants, "variants")
        check_value(Seed, self.seed, "seed")
        if self.styles_to is not None and (file is None or self.variants < 2):
            raise ConfigError(
                "--styles-to sets the end of a series of variants: also give its start, --styles FILE, and --variants"
            )
        if self.by_styles or own_variants is None:
            return
        if own_variants == 1 < self.variants:
            raise ConfigError(
                f"--variants {self.variants} would all be identical: give --styles random, or --styles-to"
            )
        if self.variants > own_variants:
            raise ConfigError(f"--variants is {self.variants}: the model generates {own_variants} images of each input")

    def styles_for(self, pipeline: Pipeline, maps: Maps, photo: Path | None, variant: int) -> Styles | None:
        """The styles of one image; None if the pipeline itself chooses them (from the photo, else the mean).

        Raises:
            ConfigError, CheckpointError: the model has no styles, or not those that the options ask for.
        """
        styles = self._base(pipeline, maps, photo, variant)
        if styles is None:
            return None
        styles = self._with_clusters(styles, pipeline, maps)
        return pipeline.complete(styles, maps) if self.save_styles else styles

    def _base(self, pipeline: Pipeline, maps: Maps, photo: Path | None, variant: int) -> Styles | None:
        if self.styles in _RANDOM:
            per: Literal["class", "instance"] = "class" if self.styles == "random-class" else "instance"
            return pipeline.bank.sample(pipeline.instances(maps), self.seed, variant, per)
        if self.styles != "mean":
            instances = pipeline.instances(maps)
            styles = [Styles.load_for(file, instances, maps.name) for file in self.files]
            if self.styles_to is None:
                return styles[0]
            first, last = (pipeline.complete(one, maps) for one in styles)
            return first.mixed(last, variant / (self.variants - 1))
        if not (self.clusters or self.save_styles):
            return None
        if photo is not None:
            return pipeline.encode(photo, maps)
        return Styles({}, pipeline.encoder_id)

    def _with_clusters(self, styles: Styles, pipeline: Pipeline, maps: Maps) -> Styles:
        if not self.clusters:
            return styles
        classes = pipeline.instances(maps)
        unknown = [id for id in self.clusters if id not in classes]
        if unknown:
            raise ConfigError(
                f"{maps.name} has no instance {unknown[0]}, as --clusters asks for: it has {some(classes)}"
            )
        for id, cluster in self.clusters.items():
            styles = styles.with_style(id, pipeline.bank.style(classes[id], cluster))
        return styles
