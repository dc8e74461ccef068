"""A training run as plain data: everything that decides its result, saved with it.

Each family has its own subclasses of `StageConfig` and `TrainConfig`, whose fields have the types of that family. A run
therefore cannot have options, losses or stages that its family does not know.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, TypeVar

import torch
from annotated_types import Interval
from torch import nn

from hdgan.config.bounds import BatchSize, LearningRate, Positive, Seed, Share, Threads
from hdgan.config.needs import Needs
from hdgan.config.options import option
from hdgan.config.serialization import check_values
from hdgan.config.urls import is_url
from hdgan.data.config import DataConfig, SizeConfig
from hdgan.devices import network_format
from hdgan.errors import ConfigError
from hdgan.families.common.alignment import check_side
from hdgan.families.common.augmentation import AugmentConfig
from hdgan.families.common.config import ModelConfig
from hdgan.families.common.losses import LossConfig
from hdgan.files import leads_out
from hdgan.wording import count

Epochs = Annotated[float, Interval(ge=0, le=10**6)]
Images = Annotated[int, Interval(ge=0, le=10**12)]
Beta = Annotated[float, Interval(ge=0, lt=1)]
Norm = Annotated[float, Interval(gt=0, le=10**9)]
Schedule = Literal["linear", "cosine", "constant"]
BestMetric = Literal["l1", "psnr", "ssim", "miou", "pixel_accuracy", "scorer_fid"]
AnyRun = TypeVar("AnyRun", bound="TrainConfig")


@dataclass(frozen=True)
class StageConfig:
    """One stage of training: its resolution and length. Families add the parts that it has and trains."""

    size: SizeConfig = SizeConfig()
    """Resolution of the stage."""
    batch_size: BatchSize = 1
    """Images per optimizer step, over all processes and accumulation rounds."""
    micro_batch: BatchSize | None = None
    """Images per forward pass of one process; if fewer than its share of the batch, gradients are accumulated. Batch
    norms take the statistics of these images."""
    epochs: Epochs = 100.0
    """Passes over the training images if images is None; 0 leaves the stage out."""
    images: Images | None = None
    """Length of the stage in images, which takes precedence over epochs; 0 leaves the stage out."""
    decay: Share = 0.5
    """Last part of the stage, as a fraction, over which the learning rate falls to zero by the schedule."""
    lr: LearningRate = 2e-4
    """Learning rate of Adam before it falls."""
    lr_d: LearningRate | None = None
    """Learning rate of D, which rises and falls with that of G and E; None is the same (two rates: Heusel et al. 2017,
    for example 1e-4 and 4e-4)."""
    schedule: Schedule = "linear"
    """How the learning rate falls over decay: linearly, along half a cosine, or (constant) not at all."""
    warmup: Share = 0.0
    """First part of the stage, as a fraction, over which the learning rate rises linearly from zero."""

    @classmethod
    def upgraded(cls, plain: Mapping[str, Any]) -> dict[str, Any]:
        """Convert a table that an older version wrote to today's options; see `from_plain`."""
        return dict(plain)

    def check(self, place: str) -> None:
        """Refuse a stage that trains a part that it does not have; the base class has no such parts.

        Args:
            place: of the stage in the config, such as `stages.global`.

        Raises:
            ConfigError: it does.
        """

    def check_schedule(self, place: str) -> None:
        """Refuse a learning rate that would fall before it has risen.

        Args:
            place: of the stage in the config, such as `stages.global`.

        Raises:
            ConfigError: warmup and decay overlap.
        """
        if self.schedule != "constant" and self.warmup + self.decay > 1:
            raise ConfigError(
                f"{option(f'{place}.warmup')} is {self.warmup:g} and {option(f'{place}.decay')} {self.decay:g}: the "
                "learning rate would fall before it has risen; let them add up to 1 at most"
            )

    def model(self, config: Any) -> ModelConfig:
        """The architecture of the stage, derived from the architecture that the run's stages share.

        Raises:
            ConfigError: there is no such architecture.
        """
        return config

    def trained_modules(self, model: Any) -> Iterator[nn.Module]:
        """The modules of its model that the stage trains; all networks by default."""
        networks = (model.discriminator, model.encoder, model.generator)
        yield from (network for network in networks if network is not None)

    def trained_names(self, config: Any) -> list[str]:
        """The report's names for the networks that the stage trains; `config` is that of the stage's model."""
        return ["G", "D"] if config.has_discriminator else ["G"]


@dataclass(frozen=True)
class OptimConfig:
    """Optimisation (paper section 4: Adam, beta1 0.5)."""

    beta1: Beta = 0.5
    """Decay per step of Adam's mean of the gradients."""
    beta2: Beta = 0.999
    """Decay per step of Adam's mean of their squares."""
    clip: Norm | None = None
    """Largest norm of a network's gradient; None does not clip."""
    ema_decay: Share = 0.999
    """Decay per step of the moving average of G's and E's weights, for samples and inference; shorter at first."""
    pool_size: Annotated[int, Interval(ge=0, le=10**6)] = 0
    """Number of generated images kept to be shown to D again (Shrivastava et al. 2017); 0 as in the paper."""


@dataclass(frozen=True)
class LogConfig:
    """What a run writes while it trains. All counts are optimizer steps."""

    metrics_every: Positive = 10
    """Steps between lines of metrics.jsonl and points of TensorBoard."""
    samples_every: Positive = 1000
    """Steps between sample images."""
    samples: Annotated[int, Interval(ge=0, le=10**4)] = 4
    """Images in each sample."""
    checkpoint_every: Positive = 1000
    """Steps between checkpoints; each is measured on the validation images."""
    keep: Positive = 2
    """Latest checkpoints to keep, besides the best and those with styles."""
    val_images: Positive = 16
    """Validation images per measurement."""
    best: BestMetric = "l1"
    """Metric that chooses the best checkpoint; L1 is always measured as well. miou, pixel_accuracy and scorer_fid
    need a scorer."""
    scorer: Path | None = None
    """File of the scorer: one that `hdgan evaluate --train-scorer` wrote or, for miou and pixel_accuracy, one of your
    own that takes [-1, 1]."""
    style_images: Positive = 64
    """Training images from which a checkpoint's mean feature of each class is taken."""
    patience: Positive | None = None
    """End a stage once this many checkpoints in a row have not improved the best metric; None trains to its end."""
    to: Literal["tensorboard", "wandb", "mlflow"] = "tensorboard"
    """Where metrics go besides metrics.jsonl: to TensorBoard alone, or to wandb or mlflow as well, which also get the
    config, the samples and the report. Their own settings apply, such as WANDB_MODE and MLFLOW_TRACKING_URI."""


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """A run of any family. Create the subclass of a family; this class only defines what they share."""

    NEEDS: ClassVar[Needs] = {"health_rollbacks": {"health": "rollback"}}

    out: Path = Path("runs/pix2pixhd")
    """Run folder: checkpoints, metrics, samples and report.html."""
    model: ModelConfig
    data: DataConfig = DataConfig()
    stages: Mapping[str, StageConfig] = field(default_factory=dict)
    """Stages in order."""
    loss: LossConfig
    optim: OptimConfig = OptimConfig()
    augment: AugmentConfig = AugmentConfig()
    log: LogConfig = LogConfig()
    init_from: Path | None = None
    """Start from the weights of another run or checkpoint, or of hf:OWNER/NAME, whose model is that of the first stage
    or a smaller one."""
    seed: Seed = 0
    """Seed of weights, data order, augmentation and training."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """bfloat16 runs the networks under autocast."""
    memory_format: Literal["auto", "contiguous", "channels_last"] = "auto"
    """Memory format of networks and images; auto is channels_last on GPUs and, with oneDNN, on CPUs."""
    recompute: bool | Literal["auto"] = "auto"
    """Keep only the outputs of convolutions for the backward pass, and repeat norms and paddings: saves memory, costs
    some time. auto does so in stages that would not fit otherwise. --recompute and --no-recompute mean True and False.
    Of pix2pix's generators, only the padded input of a ResNet is affected."""
    compile: Literal["none", "default", "max-autotune"] = "none"
    """Compile G, E and the perceptual network with torch.compile: steps become shorter, but each stage takes minutes to
    start."""
    cuda_graphs: bool | Literal["auto"] = "auto"
    """Replay each step as one CUDA graph; for models without features, and batches of one shape. auto does so wherever
    it is possible. --cuda-graphs and --no-cuda-graphs mean True and False."""
    threads: Threads | None = None
    """CPU threads of PyTorch; None leaves PyTorch's choice."""
    health: Literal["off", "warn", "rollback"] = "off"
    """Watch losses, gradients and images. warn names what goes wrong and its likely cause; rollback also goes back to
    the last good checkpoint, and on from there with other batches at half the learning rate."""
    health_rollbacks: Annotated[int, Interval(ge=1, le=30)] = 3
    """Most rollbacks of a run. When another one is due, the run ends with an error."""

    def __post_init__(self) -> None:
        if type(self) is TrainConfig:
            family = "create the config of a family, such as Pix2PixHDTrainConfig"
            raise ConfigError(f"TrainConfig is only the base class: {family}")
        check_values(self)
        for name in ("out", "init_from"):
            if (path := getattr(self, name)) is not None and is_url(path):
                raise ConfigError(f"{option(name)} is {path}: only data may be at a URL; give a path of this machine")
        if not self.model.has_discriminator:
            self._check_without_discriminator()
        self._check_stages()
        self._check_best()
        self.loss.check(self.model)

    def format_on(self, device: torch.device) -> torch.memory_format:
        """The memory format of networks and images on a device."""
        if self.memory_format == "auto":
            return network_format(device)
        return torch.channels_last if self.memory_format == "channels_last" else torch.contiguous_format

    def autocast(self, device: torch.device) -> torch.autocast:
        """The context in which the networks run."""
        return torch.autocast(device.type, torch.bfloat16, enabled=self.precision == "bfloat16")

    def resolved(self: AnyRun, sides: Sequence[int]) -> AnyRun:
        """The config, completed with the values that follow from the sizes of the training images.

        Args:
            sides: widths and heights of the training images in all stages, in pixels.

        Raises:
            ConfigError: they are too small for the losses, or these cannot compare the channels of the photos.
        """
        self.loss.check_photos(self.model.image_channels)
        least = self.loss.least_side
        shortest = min(sides, default=max(least, 2 * self.loss.max_shift + 1))
        if shortest < least:
            raise ConfigError(
                f"some training images have a side of {count(shortest, 'pixel')}, but {self.loss.network_name}, whose "
                f"features the loss compares, needs {least}: train at a larger size, or with "
                f"{option('loss.network')} random"
            )
        check_side(self.loss.max_shift, shortest)
        return replace(self, model=self.model.resolved(sides))

    def _check_without_discriminator(self) -> None:
        none = f"but the models of the family {self.model.family} have no discriminator"
        if self.optim.pool_size:
            raise ConfigError(f"{option('optim.pool_size')} is {self.optim.pool_size}, {none}: set it to 0")
        if self.augment.policy:
            raise ConfigError(f"{option('augment.policy')} is {' '.join(self.augment.policy)}, {none}: leave it out")
        for name, stage in self.stages.items():
            if stage.lr_d is not None:
                raise ConfigError(f"{option(f'stages.{name}.lr_d')} is {stage.lr_d:g}, {none}: leave it out")

    def _check_best(self) -> None:
        best, scorer = self.log.best, self.log.scorer
        if best not in ("miou", "pixel_accuracy", "scorer_fid"):
            if scorer is not None:
                raise ConfigError(
                    f"{option('log.scorer')} {scorer} applies only to {option('log.best')} miou, pixel_accuracy or "
                    "scorer_fid"
                )
            return
        if scorer is None:
            raise ConfigError(
                f"{option('log.best')} {best} needs {option('log.scorer')} FILE: train one with "
                "`hdgan evaluate --train-scorer`"
            )
        if not self.model.n_labels:
            raise ConfigError(
                f"{option('log.best')} {best} needs label maps, and A->B training has none: choose l1, psnr or ssim"
            )

    def _check_stages(self) -> None:
        before: dict[str, int] = {}
        for name, stage in self.stages.items():
            if leads_out(name):
                raise ConfigError(
                    f"{name!r:.60} is the name of a stage but cannot be that of a folder: choose another name"
                )
            stage.check(f"stages.{name}")
            stage.check_schedule(f"stages.{name}")
            parts = stage.model(self.model).growth
            if any(number < before.get(part, 0) for part, number in parts.items()):
                raise ConfigError(
                    f"stage {name} has {_listed(parts)}, fewer than the stage before ({_listed(before)}): a run can "
                    "only grow"
                )
            before = parts


def _listed(parts: Mapping[str, int]) -> str:
    return " and ".join(count(number, part) for part, number in parts.items())
