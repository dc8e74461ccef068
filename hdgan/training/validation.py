"""How a checkpoint is measured, and which of two is better."""

from __future__ import annotations

import hashlib

import torch
import torch.nn.functional as F

from hdgan.errors import ConfigError
from hdgan.families.common.model import ImageModel
from hdgan.families.common.train_config import TrainConfig
from hdgan.metrics.evaluator import Evaluator
from hdgan.metrics.feature_networks import FeatureNetworks
from hdgan.metrics.scorer import Scorer, load_scorer
from hdgan.metrics.scores import HIGHER_IS_BETTER
from hdgan.progress import Progress
from hdgan.training.datasets import RunData
from hdgan.training.examples import Examples
from hdgan.training.schedule import plan


def record_name(metric: str) -> str:
    """The name of a metric of `LogConfig.best` in metrics.jsonl and best.json."""
    return f"val_{metric}"


def is_better(metric: str, value: float, than: float) -> bool:
    """Whether a value of a metric is better than another one."""
    return value > than if metric in HIGHER_IS_BETTER else value < than


class Validation:
    """Measures generated validation images: always by L1, and by the metric that chooses the best checkpoint.

    Args:
        config: of the run.
        data: its pairs.
        device: where it trains.

    Attributes:
        chosen_by: what a value can be compared with: metric, SHA-256 of the scorer's file, number of images.

    Raises:
        CheckpointError: the scorer cannot be read.
        ConfigError: it does not suit the label maps, the size of a stage, or the metric.
    """

    def __init__(self, config: TrainConfig, data: RunData, device: torch.device) -> None:
        self.config, self.device = config, device
        self.scorer: Scorer | None = None
        self.chosen_by: dict[str, str | int | None] = {
            "metric": config.log.best,
            "scorer": None,
            "pictures": min(config.log.val_images, len(data.val_pairs)),
        }
        self.networks = FeatureNetworks(None, device)
        if config.log.scorer is not None:
            self.scorer = load_scorer(config.log.scorer, config.model.n_labels, device)
            self.chosen_by["scorer"] = hashlib.sha256(config.log.scorer.read_bytes()).hexdigest()
            self.networks = FeatureNetworks(self.scorer.segmenter, device)
            if config.log.best == "scorer_fid" and self.scorer.segmenter is None:
                raise ConfigError(
                    f"--log.best scorer_fid needs one of hdgan's own scorers, but {config.log.scorer} is not one"
                )
        if config.log.best != "l1":
            self._try_metric(data)

    def _try_metric(self, data: RunData) -> None:
        """Try the metric on the images of every stage, so that it fails now and not at the first checkpoint."""
        for stage in plan(self.config, len(data.train_pairs)):
            dataset = data.validation(stage.config.size)
            for inputs in Examples(dataset, self.config, self.device).inputs(1):
                evaluator = self._evaluator(len(dataset))
                photo = (inputs.photo + 1) / 2
                evaluator.add(evaluator.measure(photo, photo, inputs.label)[0])
                if evaluator.images.notes:
                    raise self._no_value(f"stage {stage.name}: {evaluator.images.notes[self.config.log.best]}")

    def _evaluator(self, available: int) -> Evaluator:
        return Evaluator(
            [self.config.log.best],
            count=min(self.config.log.val_images, available),
            scorer=self.scorer,
            n_labels=self.config.model.n_labels,
            dontcare=self.config.data.dontcare,
            networks=self.networks,
            channels=self.config.model.image_channels,
        )

    def _no_value(self, reason: str) -> ConfigError:
        return ConfigError(
            f"--log.best {self.config.log.best} cannot be measured here ({reason}): choose another metric"
        )

    @torch.inference_mode()
    def __call__(self, model: ImageModel, examples: Examples, progress: Progress | None = None) -> dict[str, float]:
        """Measure a model.

        Args:
            model: with averaged weights.
            examples: validation images, of which the first `log.val_images` are used.
            progress: shows the progress.

        Returns:
            val_l1, the mean absolute difference to the photos, in [0, 2] as images are in [-1, 1], and the metric
            chosen.

        Raises:
            ConfigError: the metric cannot be computed for these images.
        """
        config, metric = self.config, self.config.log.best
        progress = progress or Progress(None)
        evaluator = self._evaluator(len(examples.dataset))
        distances = []
        pictures = min(config.log.val_images, len(examples.dataset))
        for index, inputs in enumerate(examples.inputs(pictures)):
            progress("measuring validation images", index, pictures)
            image = examples.generate(model, inputs, index)
            distances.append(F.l1_loss(image, inputs.photo))
            measures, _ = evaluator.measure((image.clamp(-1, 1) + 1) / 2, (inputs.photo + 1) / 2, inputs.label)
            evaluator.add(measures)
        values = {"l1": float(torch.stack(distances).mean())}
        if metric != "l1":
            row = evaluator.scores("validation")
            value = row.metrics[metric]
            if value is None:
                reason = row.notes.get(metric, "no pixel of the validation label maps belongs to a class")
                raise self._no_value(reason)
            values[metric] = value
        return {record_name(name): value for name, value in values.items()}
