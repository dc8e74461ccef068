"""Images from trained models."""

from hdgan.inference.maps import Maps
from hdgan.inference.pipeline import Pipeline, load

__all__ = ["Maps", "Pipeline", "load"]
