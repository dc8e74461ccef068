"""Pictures from trained models."""

from hdgan.inference.pipeline import Pipeline, load

__all__ = ["Pipeline", "load"]
