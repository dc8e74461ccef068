"""hdgan: pix2pixHD, high-resolution image synthesis from label maps (arXiv 1711.11585).

    import hdgan
    picture = hdgan.load("demo")("label.png", "instances.png")   # [3, H, W] in [0, 1]

Networks are in `hdgan.models`, the ops in `hdgan.ops`, the same as modules in `hdgan.nn`, training in `hdgan.training`,
datasets in `hdgan.data`. `hdgan.accelerate` lets other networks use the ops.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hdgan.acceleration import accelerate
    from hdgan.inference import Pipeline, load

    __version__: str

__all__ = ["Pipeline", "__version__", "accelerate", "load"]


def __getattr__(name: str) -> Any:
    """Import what takes time, such as PyTorch and the data readers, only on first use."""
    if name == "__version__":
        from importlib.metadata import version

        globals()[name] = found = version("hdgan")
        return found
    if name in ("Pipeline", "load"):
        import hdgan.inference

        return getattr(hdgan.inference, name)
    if name == "accelerate":
        import hdgan.acceleration

        return hdgan.acceleration.accelerate
    raise AttributeError(f"module 'hdgan' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
