"""A training run as plain data: everything that decides its result, saved with it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import torch
from annotated_types import Interval

from hdgan.config.bounds import BatchSize, Doublings, LearningRate, Positive, Scales, Seed, Share, Threads
from hdgan.config.options import option
from hdgan.config.serialization import check_values
from hdgan.data.config import DataConfig, SizeConfig
from hdgan.devices import network_format
from hdgan.errors import ConfigError
from hdgan.families.pix2pixhd.config import Pix2PixHDConfig
from hdgan.families.pix2pixhd.losses import Pix2PixHDLoss
from hdgan.families.registry import FAMILIES, AnyLoss, AnyModelConfig, Family
from hdgan.files import leads_out
from hdgan.wording import count

Epochs = Annotated[float, Interval(ge=0, le=10**6)]
Images = Annotated[int, Interval(ge=0, le=10**12)]
Beta = Annotated[float, Interval(ge=0, lt=1)]
Norm = Annotated[float, Interval(gt=0, le=10**9)]
BestMetric = Literal["l1", "psnr", "ssim", "miou", "pixel_accuracy", "scorer_fid"]


@dataclass(frozen=True)
class StageConfig:
    """One stage of coarse-to-fine training: which networks train, on what resolution, for how long."""

    n_enhancers: Doublings = 0
    """Local enhancers around G1: 0 trains G1 alone. Of CRN the modules beyond those of the first stage."""
    n_scales: Scales = 2
    """Discriminators; D keeps the resolutions it knows from the stage before."""
    generator: Literal["all", "enhancer"] = "all"
    """Train all of G, or only the finest enhancer and the last convolution with the rest of G fixed."""
    encoder: bool = True
    """Train E, if the model has one."""
    size: SizeConfig = SizeConfig()
    """Resolution of the stage."""
    batch_size: BatchSize = 1
    """Pictures per optimizer step, over all processes and accumulation rounds."""
    micro_batch: BatchSize | None = None
    """Pictures per forward pass of one process; fewer than its share of the batch accumulates gradients. Batch norms
    take the statistics of these pictures."""
    epochs: Epochs = 100.0
    """Passes over the training pictures, where images is None; 0 leaves the stage out."""
    images: Images | None = None
    """Length of the stage in pictures, which goes before epochs; 0 leaves the stage out."""
    decay: Share = 0.5
    """Last part of the stage, as a fraction, over which the learning rate falls linearly to zero."""
    lr: LearningRate = 2e-4
    """Learning rate of Adam before it falls."""


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
    """Generated pictures kept to show D again (Shrivastava et al. 2017); 0 as in the paper."""


@dataclass(frozen=True)
class LogConfig:
    """What a run writes while it trains. All counts are optimizer steps."""

    metrics_every: Positive = 10
    """Steps between lines of metrics.jsonl and points of TensorBoard."""
    samples_every: Positive = 1000
    """Steps between sample pictures."""
    samples: Annotated[int, Interval(ge=0, le=10**4)] = 4
    """Pictures in each sample."""
    checkpoint_every: Positive = 1000
    """Steps between checkpoints; each is measured on the validation pictures."""
    keep: Positive = 2
    """Latest checkpoints to keep, besides the best and those with styles."""
    val_images: Positive = 16
    """Validation pictures per measurement."""
    best: BestMetric = "l1"
    """What the best checkpoint is chosen by; each is measured by L1 as well. miou, pixel_accuracy and scorer_fid
    need a scorer."""
    scorer: Path | None = None
    """The scorer: what `hdgan evaluate --train-scorer` writes, or for miou and pixel_accuracy a foreign one that
    takes [-1, 1]."""
    style_images: Positive = 64
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
    seed: Seed = 0
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
    threads: Threads | None = None
    """CPU threads of PyTorch; None leaves PyTorch's choice."""

    def __post_init__(self) -> None:
        check_values(self)
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

    def _check_best(self) -> None:
        best, scorer = self.log.best, self.log.scorer
        if best not in ("miou", "pixel_accuracy", "scorer_fid"):
            if scorer is not None:
                raise ConfigError(
                    f"{option('log.scorer')} {scorer} is for {option('log.best')} miou, pixel_accuracy or scorer_fid"
                )
            return
        if scorer is None:
            raise ConfigError(
                f"{option('log.best')} {best} needs {option('log.scorer')} FILE: train one with "
                "`hdgan evaluate --train-scorer`"
            )
        if not self.model.n_labels:
            raise ConfigError(
                f"{option('log.best')} {best} needs label maps, which A->B training has not: take l1, psnr or ssim"
            )

    def _check_order(self) -> None:
        stages = list(self.stages.items())
        for (name, stage), (_, before) in zip(stages[1:], stages[:-1], strict=True):
            if stage.n_enhancers < before.n_enhancers or stage.n_scales < before.n_scales:
                raise ConfigError(
                    f"stage {name} has {count(stage.n_enhancers, 'enhancer')} and {count(stage.n_scales, 'scale')}, "
                    f"fewer than the stage before ({before.n_enhancers}, {before.n_scales}): a run only grows"
                )
        for name, stage in stages:
            if leads_out(name):
                raise ConfigError(f"a stage is named {name!r:.60}, which cannot be a folder: give it another name")
            if stage.generator == "enhancer" and stage.n_enhancers == 0:
                raise ConfigError(
                    f"stage {name} trains only the enhancer but has none: set {option(f'stages.{name}.n_enhancers')} 1"
                )

    def _check_family(self) -> None:
        """Refuse options of parts that the model's family has not: they would change nothing."""
        model, grows = self.model, self.model.growth
        models = f"the models of the family {model.family}"
        if self.optim.pool_size and not model.has_discriminator:
            raise ConfigError(
                f"{option('optim.pool_size')} is {self.optim.pool_size}, but {models} have no discriminator: "
                "set it to 0"
            )
        for name, stage in self.stages.items():
            model.grown(stage.n_enhancers, stage.n_scales)
            if stage.n_scales != StageConfig.n_scales and "scales" not in grows:
                raise ConfigError(
                    f"{option(f'stages.{name}.n_scales')} is {stage.n_scales}, but {models} have no discriminators of "
                    "several scales: leave it out"
                )
            if stage.generator == "enhancer" and not grows:
                raise ConfigError(
                    f"{option(f'stages.{name}.generator')} is enhancer, but {models} have none: set it to all"
                )
