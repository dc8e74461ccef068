"""The base of all families' training configs, which stands beside the families in `hdgan.families.common`."""

from hdgan.families.common.train_config import BestMetric, LogConfig, OptimConfig, StageConfig, TrainConfig

__all__ = ["BestMetric", "LogConfig", "OptimConfig", "StageConfig", "TrainConfig"]
