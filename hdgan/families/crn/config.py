"""The architecture of CRN."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, Literal

from tyro.conf import Suppress

from hdgan.config.bounds import Doublings, Factor, Modules, Variants
from hdgan.families.common.config import ModelConfig

_CRN_WIDTHS = (1024, 1024, 1024, 1024, 1024, 512, 512, 128, 32)
"""Channels of CRN's modules for 4 rows, 8, …, 1024 rows."""


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
    n_enhancers: Suppress[Doublings] = 0
    """Further modules, each of which doubles the resolution: what later stages add."""
    width: Factor = 1.0
    """Factor on the channels of all modules."""
    n_images: Variants = 1
    """Images of each condition: every class learns from the best of them."""

    @property
    def variants(self) -> int:
        return self.n_images

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels of each module, coarsest first."""
        count = self.n_modules + self.n_enhancers
        channels = (*_CRN_WIDTHS, *[_CRN_WIDTHS[-1]] * count)[:count]
        return tuple(max(1, round(self.width * full)) for full in channels)

    def trained(self, *, enhancer_only: bool, encoder: bool) -> list[str]:
        return ["finest module" if enhancer_only else f"{len(self.widths)} modules"]

    @property
    def growth(self) -> dict[str, int]:
        return {"modules": len(self.widths)}

    def grown(self, n_enhancers: int, n_scales: int) -> CRNConfig:
        """The architecture of a stage: a module more for each enhancer."""
        return replace(self, n_enhancers=n_enhancers)
