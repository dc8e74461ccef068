"""Images from trained models."""

from hdgan.inference.engine import Generated, ImageRequest
from hdgan.inference.maps import Maps
from hdgan.inference.pictures import to_pil
from hdgan.inference.pipeline import Pipeline, load

__all__ = ["Generated", "ImageRequest", "Maps", "Pipeline", "load", "to_pil"]
