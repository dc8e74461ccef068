"""Training: config and presets, the schedule of stages, the step, the loop, checkpoints and the report."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hdgan.families.common.augmentation import AugmentConfig
    from hdgan.families.common.train_config import LogConfig, OptimConfig, StageConfig, TrainConfig
    from hdgan.families.registry import PRESETS
    from hdgan.training.loop import TrainResult, train
    from hdgan.training.report import write_report
    from hdgan.training.run_folder import load_config

__all__ = [
    "PRESETS",
    "AugmentConfig",
    "LogConfig",
    "OptimConfig",
    "StageConfig",
    "TrainConfig",
    "TrainResult",
    "load_config",
    "train",
    "write_report",
]
_HOMES = {
    "hdgan.families.common.augmentation": ("AugmentConfig",),
    "hdgan.families.common.train_config": ("LogConfig", "OptimConfig", "StageConfig", "TrainConfig"),
    "hdgan.families.registry": ("PRESETS",),
    "hdgan.training.loop": ("TrainResult", "train"),
    "hdgan.training.report": ("write_report",),
    "hdgan.training.run_folder": ("load_config",),
}


def __getattr__(name: str) -> Any:
    """Import a name on first use: what only reads how a model was trained needs neither the loop nor TensorBoard."""
    for home, names in _HOMES.items():
        if name in names:
            globals()[name] = found = getattr(import_module(home), name)
            return found
    raise AttributeError(f"module 'hdgan.training' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
