"""Which styles `hdgan generate` gives a picture."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

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
    """The options of the command, by their names there."""

    styles: str
    styles_to: Path | None
    variants: int
    seed: int
    clusters: Mapping[int, int]
    save: bool

    @property
    def files(self) -> tuple[Path, ...]:
        """The files of styles that are given."""
        return tuple(file for file in (self._file, self.styles_to) if file is not None)

    @property
    def _file(self) -> Path | None:
        return None if self.styles in ("mean", *_RANDOM) else Path(self.styles)

    @property
    def by_styles(self) -> bool:
        """Whether variants differ in their styles; else they are the model's own."""
        return self.styles in _RANDOM or self.styles_to is not None

    def check(self, own_variants: int | None, with_photo: bool) -> None:
        """Refuse options that contradict each other.

        Args:
            own_variants: `ModelConfig.variants`.
            with_photo: whether a photo is given.

        Raises:
            ConfigError: they do.
        """
        file = self._file
        if file is not None and file.suffix != ".json":
            raise ConfigError(f"--styles is {self.styles}: give mean, random, random-class or a .json file")
        if with_photo and self.styles != "mean":
            raise ConfigError(f"--photo gives the styles, so --styles {self.styles} has no meaning: leave one out")
        check_value(VariantsOnDisk, self.variants, "variants")
        check_value(Seed, self.seed, "seed")
        if self.styles_to is not None and (file is None or self.variants < 2):
            raise ConfigError("--styles-to goes from one file of styles to another: give --styles FILE and --variants")
        if self.by_styles or own_variants is None:
            return
        if own_variants == 1 < self.variants:
            raise ConfigError(f"--variants {self.variants} would all be alike: give --styles random, or --styles-to")
        if self.variants > own_variants:
            raise ConfigError(f"--variants is {self.variants}: the model makes {own_variants} pictures of each input")

    def styles_for(self, pipeline: Pipeline, maps: Maps, photo: Path | None, variant: int) -> Styles | None:
        """The styles of one picture; None where the pipeline's own rule (photo, else mean) serves.

        Raises:
            ConfigError, CheckpointError: the model has no styles, or not the ones that are asked for.
        """
        styles = self._base(pipeline, maps, photo, variant)
        if styles is None:
            return None
        styles = self._with_clusters(styles, pipeline, maps)
        return pipeline.complete(styles, maps) if self.save else styles

    def _base(self, pipeline: Pipeline, maps: Maps, photo: Path | None, variant: int) -> Styles | None:
        if self.styles in _RANDOM:
            return pipeline.bank.sample(
                pipeline.instances(maps),
                self.seed,
                variant,
                "class" if self.styles == "random-class" else "instance",
            )
        if self.styles != "mean":
            there = pipeline.instances(maps)
            styles = [Styles.load_for(file, there, maps.name) for file in self.files]
            if self.styles_to is None:
                return styles[0]
            first, last = (pipeline.complete(one, maps) for one in styles)
            return first.mixed(last, variant / (self.variants - 1))
        if not (self.clusters or self.save):
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
                f"{maps.name} has no instance {unknown[0]}, which --clusters names: it has {some(classes)}"
            )
        for id, cluster in self.clusters.items():
            styles = styles.with_style(id, pipeline.bank.style(classes[id], cluster))
        return styles
