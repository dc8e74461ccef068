"""A training run as plain data: everything that decides its result, saved with it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import torch

from hdgan.config_io import check_choices
from hdgan.data.config import DataConfig, SizeConfig
from hdgan.devices import network_format
from hdgan.errors import ConfigError
from hdgan.models.config import Pix2PixHDConfig, require
from hdgan.models.families import AnyModelConfig
from hdgan.training.families import FAMILIES, AnyLoss, Family, Pix2PixHDLoss

BestMetric = Literal["l1", "psnr", "ssim", "miou", "pixel_accuracy", "scorer_fid"]


@dataclass(frozen=True)
class StageConfig:
    """One stage of coarse-to-fine training: which networks train, on what resolution, for how long."""

    n_enhancers: int = 0
    """Local enhancers around G1: 0 trains G1 alone. Of CRN the modules beyond those of the first stage."""
    n_scales: int = 2
    """Discriminators; D keeps the resolutions it knows from the stage before."""
    generator: Literal["all", "enhancer"] = "all"
    """Train all of G, or only the finest enhancer and the last convolution with the rest of G fixed."""
    encoder: bool = True
    """Train E, if the model has one."""
    size: SizeConfig = SizeConfig()
    """Resolution of the stage."""
    batch_size: int = 1
    """Pictures per optimizer step, over all processes and accumulation rounds."""
    micro_batch: int | None = None
    """Pictures per forward pass of one process; fewer than its share of the batch accumulates gradients. Batch norms
    take the statistics of these pictures."""
    epochs: float = 100.0
    """Passes over the training pictures, where images is None; 0 leaves the stage out."""
    images: int | None = None
    """Length of the stage in pictures, which goes before epochs; 0 leaves the stage out."""
    decay: float = 0.5
    """Last part of the stage, as a fraction, over which the learning rate falls linearly to zero."""
    lr: float = 2e-4
    """Learning rate of Adam before it falls."""


@dataclass(frozen=True)
class OptimConfig:
    """Optimisation (paper section 4: Adam, beta1 0.5)."""

    beta1: float = 0.5
    """Decay per step of Adam's mean of the gradients."""
    beta2: float = 0.999
    """Decay per step of Adam's mean of their squares."""
    clip: float | None = None
    """Largest norm of a network's gradient; None does not clip."""
    ema_decay: float = 0.999
    """Decay per step of the moving average of G's and E's weights, for samples and inference; shorter at first."""
    pool_size: int = 0
    """Generated pictures kept to show D again (Shrivastava et al. 2017); 0 as in the paper."""


@dataclass(frozen=True)
class LogConfig:
    """What a run writes while it trains. All counts are optimizer steps."""

    metrics_every: int = 10
    """Steps between lines of metrics.jsonl and points of TensorBoard."""
    samples_every: int = 1000
    """Steps between sample pictures."""
    samples: int = 4
    """Pictures in each sample."""
    checkpoint_every: int = 1000
    """Steps between checkpoints; each is measured on the validation pictures."""
    keep: int = 2
    """Latest checkpoints to keep, besides the best and those with styles."""
    val_images: int = 16
    """Validation pictures per measurement."""
    best: BestMetric = "l1"
    """What the best checkpoint is chosen by; each is measured by L1 as well. miou, pixel_accuracy and scorer_fid
    need a scorer."""
    scorer: Path | None = None
    """The scorer: what `hdgan evaluate --train-scorer` writes, or for miou and pixel_accuracy a foreign one that
    takes [-1, 1]."""
    style_images: int = 64
    """Training pictures from which a checkpoint's mean feature of each class is taken."""


@dataclass(frozen=True)
class TrainConfig:
    """A run: for pix2pixHD global generator, enhancer with the global part fixed, then all jointly."""

    out: Path = Path("runs/pix2pixhd")
    """Run folder: checkpoints, metrics, samples and report.html."""
    model: AnyModelConfig = field(default_factory=Pix2PixHDConfig)
    data: DataConfig = DataConfig()
    stages: dict[str, StageConfig] = field(default_factory=dict)
    """Stages in order."""
    loss: AnyLoss = field(default_factory=Pix2PixHDLoss)
    optim: OptimConfig = OptimConfig()
    log: LogConfig = LogConfig()
    init_from: Path | None = None
    """Start from the weights of another run or checkpoint, as the first stage's smaller or equal model."""
    seed: int = 0
    """Seed of weights, data order, augmentation and training."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """bfloat16 runs the networks under autocast."""
    memory_format: Literal["auto", "contiguous", "channels_last"] = "auto"
    """Of networks and pictures; auto is channels_last on GPUs."""
    recompute: bool = True
    """Keep what convolutions make for the backward pass, and repeat norms and paddings: less memory, some time. Not in
    pix2pix's generators."""
    compile: Literal["none", "default", "max-autotune"] = "none"
    """Compile G, E and VGG with torch.compile: minutes at the start of each stage for shorter steps."""
    cuda_graphs: bool = False
    """Replay each step as one CUDA graph; for models without features, and batches of one shape."""
    threads: int | None = None
    """CPU threads of PyTorch; None leaves PyTorch's choice."""

    def __post_init__(self) -> None:
        check_choices(self)
        self._check_ranges()
        self._check_family()
        self._check_order()
        self._check_best()
        if type(self.loss) is not self.family.loss:
            raise ConfigError(f"the losses are those of {self.loss.family}, but the model is a {self.model.family}")
        self.loss.check(self.model)

    @property
    def family(self) -> Family:
        """What the trainer knows of the model's family."""
        return FAMILIES[type(self.model)]

    def format_on(self, device: torch.device) -> torch.memory_format:
        """The memory format of networks and pictures on a device."""
        if self.memory_format == "auto":
            return network_format(device)
        return torch.channels_last if self.memory_format == "channels_last" else torch.contiguous_format

    def autocast(self, device: torch.device) -> torch.autocast:
        """The context in which the networks run."""
        return torch.autocast(device.type, torch.bfloat16, enabled=self.precision == "bfloat16")

    def _check_ranges(self) -> None:
        log, optim = self.log, self.optim
        positive = {
            "log.metrics-every": log.metrics_every,
            "log.samples-every": log.samples_every,
            "log.checkpoint-every": log.checkpoint_every,
            "log.keep": log.keep,
            "log.val-images": log.val_images,
            "log.style-images": log.style_images,
            "optim.clip": optim.clip,
            "threads": self.threads,
        }
        not_negative: dict[str, float] = {
            "log.samples": log.samples,
            "optim.pool-size": optim.pool_size,
            "seed": self.seed,
        }
        betas = {"optim.beta1": optim.beta1, "optim.beta2": optim.beta2}
        fractions = {"optim.ema-decay": optim.ema_decay}
        for name, stage in self.stages.items():
            positive[f"stages.{name}.batch-size"] = stage.batch_size
            positive[f"stages.{name}.n-scales"] = stage.n_scales
            positive[f"stages.{name}.lr"] = stage.lr
            not_negative[f"stages.{name}.n-enhancers"] = stage.n_enhancers
            # A stage of length 0 is left out.
            not_negative[f"stages.{name}.epochs"] = stage.epochs
            not_negative[f"stages.{name}.images"] = stage.images or 0
            fractions[f"stages.{name}.decay"] = stage.decay
        require("a positive number", positive, lambda value: value > 0)
        require("0 or more", not_negative, lambda value: value >= 0)
        require("0 or more and less than 1", betas, lambda value: 0 <= value < 1)
        require("a number from 0 to 1", fractions, lambda value: 0 <= value <= 1)

    def _check_best(self) -> None:
        best, scorer = self.log.best, self.log.scorer
        if best not in ("miou", "pixel_accuracy", "scorer_fid"):
            if scorer is not None:
                raise ConfigError(f"--log.scorer {scorer} is for --log.best miou, pixel_accuracy or scorer_fid")
            return
        if scorer is None:
            raise ConfigError(
                f"--log.best {best} needs --log.scorer FILE: train one with `hdgan evaluate --train-scorer`"
            )
        if not self.model.n_labels:
            raise ConfigError(f"--log.best {best} needs label maps, which A->B training has not: take l1, psnr or ssim")

    def _check_order(self) -> None:
        stages = list(self.stages.items())
        for (name, stage), (_, before) in zip(stages[1:], stages[:-1], strict=True):
            if stage.n_enhancers < before.n_enhancers or stage.n_scales < before.n_scales:
                raise ConfigError(
                    f"stage {name} has {stage.n_enhancers} enhancers and {stage.n_scales} scales, fewer than the stage "
                    f"before ({before.n_enhancers}, {before.n_scales}): a run only grows"
                )
        for name, stage in stages:
            if stage.generator == "enhancer" and stage.n_enhancers == 0:
                raise ConfigError(
                    f"stage {name} trains only the enhancer but has none: set --stages.{name}.n-enhancers 1"
                )

    def _check_family(self) -> None:
        """Refuse options of parts that the model's family has not: they would change nothing."""
        model, grows = self.model, self.model.growth
        if self.optim.pool_size and not model.has_discriminator:
            raise ConfigError(
                f"--optim.pool-size is {self.optim.pool_size}, but the models of the family {model.family} have no "
                "discriminator: set it to 0"
            )
        for name, stage in self.stages.items():
            model.grown(stage.n_enhancers, stage.n_scales)
            if stage.n_scales != StageConfig.n_scales and "scales" not in grows:
                raise ConfigError(
                    f"--stages.{name}.n-scales is {stage.n_scales}, but the models of the family {model.family} have "
                    "no discriminators of several scales: leave it out"
                )
            if stage.generator == "enhancer" and not grows:
                raise ConfigError(
                    f"--stages.{name}.generator is enhancer, but the models of the family {model.family} have none: "
                    "set it to all"
                )
