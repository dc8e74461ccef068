"""The architecture of CRN."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from tyro.conf import Suppress

from hdgan.config.bounds import Doublings, Factor, Modules, Variants
from hdgan.families.common.config import ModelConfig, renamed, without_unused

_WIDTHS = (1024, 1024, 1024, 1024, 1024, 512, 512, 128, 32)
"""Channels of the modules for 4 rows, 8, …, 1024 rows."""


@dataclass(frozen=True)
class CRNConfig(ModelConfig):
    """CRN (arXiv 1707.09405): refinement modules from coarse to fine, no discriminator."""

    has_discriminator: ClassVar[bool] = False

    family: Suppress[Literal["crn"]] = "crn"
    instances: bool = False
    """Feed the instance boundary map; off in the original."""
    n_modules: Modules = 7
    """Refinement modules of the first stage, each at twice the resolution of the one before. In the original the
    coarsest has 4 rows: 7 modules for 512x256, 5 for 128x64."""
    extra_modules: Suppress[Doublings] = 0
    """Further modules, which later stages add; each doubles the resolution."""
    width: Factor = 1.0
    """Factor on the channels of all modules."""
    n_images: Variants = 1
    """Number of images of each condition; every class learns from the best of them."""

    @classmethod
    def upgraded(cls, plain: Mapping[str, Any]) -> dict[str, Any]:
        """Earlier versions wrote features for every family, and called additional modules enhancers."""
        return renamed(without_unused(plain, feature_channels=(0,)), n_enhancers="extra_modules")

    @property
    def variants(self) -> int:
        """Number of different images that a model generates of one input."""
        return self.n_images

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels of each module, coarsest first."""
        count = self.n_modules + self.extra_modules
        channels = (*_WIDTHS, *[_WIDTHS[-1]] * count)[:count]
        return tuple(max(1, round(self.width * full)) for full in channels)

    @property
    def growth(self) -> dict[str, int]:
        """The number of modules, which a run may add from stage to stage."""
        return {"module": len(self.widths)}
