"""Training: config and presets, the schedule of stages, the step, the loop, checkpoints and the report."""

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
