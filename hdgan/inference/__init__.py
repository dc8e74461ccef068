"""Images from trained models."""

from hdgan.inference.engine import Generated, Request
from hdgan.inference.maps import Maps
from hdgan.inference.pipeline import Pipeline, load

__all__ = ["Generated", "Maps", "Pipeline", "Request", "load"]
