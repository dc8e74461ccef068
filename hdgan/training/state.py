"""What changes while a stage trains: networks, optimizers, moving average, fake pool, augmentation, number of steps."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Any

import torch
from torch import Tensor, nn

from hdgan.errors import CheckpointError
from hdgan.families import ImageModel, ModelConfig, build_model
from hdgan.families.common.augmentation import Augmentation
from hdgan.families.common.pool import FakePool
from hdgan.families.common.train_config import TrainConfig
from hdgan.seeding import seed_everything
from hdgan.training.ema import MovingAverage
from hdgan.training.health import Health
from hdgan.training.schedule import Stage


class StageNetworks:
    """The networks of a stage with new weights, and the parameters that it trains.

    Args:
        config: of the run.
        stage: the stage; it decides the architecture and which parameters train.
        device: for everything.

    Attributes:
        g_parameters: trained parameters of G and E.
        d_parameters: trained parameters of D.
    """

    def __init__(self, config: TrainConfig, stage: Stage, device: torch.device) -> None:
        seed_everything(config.seed, 0, stage.first_step)
        self.stage = stage
        self.model: ImageModel = build_model(stage_model(config, stage))
        move(self.model, config, device)
        self.model.requires_grad_(False)
        for module in stage.config.trained_modules(self.model):
            module.requires_grad_(True)
        trained = [(name, p) for name, p in self.model.named_parameters() if p.requires_grad]
        self.d_parameters: list[Tensor] = [p for name, p in trained if name.startswith("discriminator.")]
        self.g_parameters: list[Tensor] = [p for name, p in trained if not name.startswith("discriminator.")]

    @property
    def in_backward_order(self) -> list[Tensor]:
        """The trained parameters in about the order in which a step completes their gradients: D, G, E, each from its
        last layer."""
        networks = (self.model.discriminator, self.model.generator, self.model.encoder)
        parameters = [reversed(list(network.parameters())) for network in networks if network is not None]
        return [parameter for part in parameters for parameter in part if parameter.requires_grad]


class StageState(StageNetworks):
    """The state of a run within one stage.

    Args:
        config, stage, device: as of `StageNetworks`.
        previous: the model of the stage before, or of another run, whose weights this one takes over.
        augmentation: of the stage before, which goes on; None begins anew.
        health: what the watch on the run's health remembers of the stages before.

    Attributes:
        optimizers: of G (with E) and of D, where there is one, by "g" and "d".
        step: completed steps of the run.
        best: step and value of this stage's best checkpoint so far.
        best_by: what its value can be compared with, as `Validation.chosen_by`.
        penalty: the last penalty of D's objective, for the log; None before the first.
        stale: measured checkpoints since the best one, if `log.patience` counts them.
    """

    def __init__(
        self,
        config: TrainConfig,
        stage: Stage,
        device: torch.device,
        previous: ImageModel | None = None,
        augmentation: Augmentation | None = None,
        health: Health | None = None,
    ) -> None:
        super().__init__(config, stage, device)
        self.step = stage.first_step
        self.best: tuple[int, float] | None = None
        self.best_by: dict[str, str | int | None] = {"metric": config.log.best}
        self.penalty: float | None = None
        self.stale = 0
        self.health = Health() if health is None else health.for_next_stage()
        self.pool = FakePool(config.optim.pool_size)
        self.augmentation = augmentation or Augmentation(config.augment, device)
        self.ema = MovingAverage(self.model, config.optim.ema_decay)
        if previous is not None:
            self.take_over(previous)
        self.betas = (config.optim.beta1, config.optim.beta2)
        self.optimizers = {
            name: torch.optim.Adam(parameters, lr=stage.config.lr, betas=self.betas, fused=True)
            for name, parameters in (("g", self.g_parameters), ("d", self.d_parameters))
            if parameters
        }

    @property
    def step_in_stage(self) -> int:
        return self.step - self.stage.first_step

    @property
    def learning_rates(self) -> dict[str, float]:
        """Those of the next step, by the names of the optimizers."""
        rate, factors = self.stage.learning_rate, self.health.rates
        return {name: rate(self.step_in_stage, name) * factors[name] for name in self.optimizers}

    def take_over(self, previous: ImageModel) -> None:
        """Start from the weights of the stage before or of another run.

        Raises:
            RuntimeError: the architectures differ by more than enhancers and scales.
        """
        self.model.copy_from(previous)
        self.ema.reset()

    def training_state(self) -> dict[str, Any]:
        """Everything but the weights that a resume needs."""
        return {
            "stage": self.stage.name,
            "step": self.step,
            "first_step": self.stage.first_step,
            "batch_size": self.stage.config.batch_size,
            "best": self.best,
            "best_by": self.best_by,
            **({} if self.penalty is None else {"penalty": self.penalty}),
            **{f"optimizer_{name}": optimizer.state_dict() for name, optimizer in self.optimizers.items()},
            **self.pool.state(),
            **self.augmentation.state(),
            **({"stale": self.stale} if self.stale else {}),
            **({"health": asdict(self.health)} if self.health != Health() else {}),
        }

    def load(self, weights: dict[str, Tensor], average: dict[str, Tensor], training: dict[str, Any]) -> None:
        """Continue from a checkpoint of this stage.

        Raises:
            CheckpointError: it belongs to another schedule, or trains other networks.
        """
        if (training["stage"], training["first_step"]) != (self.stage.name, self.stage.first_step):
            raise CheckpointError(
                f"the checkpoint was saved in stage {training['stage']}, which began at step "
                f"{training['first_step']}, but the schedule is now in stage {self.stage.name} from step "
                f"{self.stage.first_step}: a resume can only change the length of the current stage and later ones"
            )
        if training["step"] > self.stage.last_step:
            raise CheckpointError(
                f"the checkpoint is from step {training['step']}, but in the new schedule stage {self.stage.name} "
                f"ends at step {self.stage.last_step}: a resume cannot end the current stage before the checkpoint"
            )
        batch = self.stage.config.batch_size
        if training.get("batch_size", batch) != batch:
            raise CheckpointError(
                f"stage {self.stage.name} started with batches of {training['batch_size']}, but "
                f"--stages.{self.stage.name}.batch-size is {batch}: a resume can change it only for later stages"
            )
        self.model.load_state_dict(weights)
        self.ema.model.load_state_dict(average)
        try:
            for name, optimizer in self.optimizers.items():
                _load_moments(optimizer, training.get(f"optimizer_{name}", {"state": {}, "param_groups": []}))
                self._adapt(optimizer)
        except ValueError as error:
            raise CheckpointError(
                f"the checkpoint does not train the same networks as stage {self.stage.name} of the new config "
                f"({error}): a resume cannot change what the current stage trains"
            ) from error
        device = next(self.model.parameters()).device
        self.pool.load(training["pool"], training.get("pool_conditions"), self.model.config, device)
        if "augmentation" in training:
            self.augmentation.load(training["augmentation"])
        self.step = training["step"]
        self.best = training["best"]
        self.penalty = training.get("penalty")
        self.best_by = training.get("best_by", {"metric": training.get("best_metric", "l1")})
        self.stale = training.get("stale", 0)
        self.health = training.get("health", Health())

    def _adapt(self, optimizer: torch.optim.Optimizer) -> None:
        """Apply the config's betas, and the memory format of the parameters, to what an optimizer has loaded.

        The fused Adam walks through parameter and moments in memory order, and would mix up their elements.
        """
        for group in optimizer.param_groups:
            group["betas"] = self.betas
        for parameter, moments in optimizer.state.items():
            for name, value in moments.items():
                if value.shape == parameter.shape:
                    moments[name] = torch.empty_like(parameter).copy_(value)


def _load_moments(optimizer: torch.optim.Optimizer, saved: dict[str, Any]) -> None:
    """Load the moments of each parameter from a checkpoint; the optimizer's options stay those of the config.

    Raises:
        ValueError: the checkpoint has other parameters, or moments that are not finite.
    """
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    known = sum(len(group["params"]) for group in saved["param_groups"] if isinstance(group.get("params"), list))
    if known != len(parameters):
        raise ValueError(f"{known} tensors instead of {len(parameters)}")
    for k, moments in saved["state"].items():
        shape = parameters[k].shape if 0 <= k < len(parameters) else None
        for name, value in moments.items():
            if value.shape != (() if name == "step" else shape) or not value.isfinite().all():
                raise ValueError(f"{name} of tensor {k} has shape {tuple(value.shape)}, or is not finite")
    optimizer.load_state_dict({"state": saved["state"], "param_groups": optimizer.state_dict()["param_groups"]})


def move(network: nn.Module, config: TrainConfig, device: torch.device) -> None:
    """Move a network to a device, in the memory format of the config.

    A network on the CPU is not touched if it would not change: estimates use fake tensors, which cannot be moved.
    """
    memory_format = config.format_on(device)
    if device.type != "cpu" or memory_format != torch.contiguous_format:
        network.to(device, memory_format=memory_format)  # type: ignore[call-overload]


def cast_convolutions(network: nn.Module, config: TrainConfig) -> None:
    """Give a network that never trains the weights that its convolutions compute with under autocast.

    Autocast keeps converted weights only if they train; those of a frozen network it would convert in every call, to
    the same numbers.
    """
    if config.precision == "bfloat16":
        for module in network.modules():
            if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
                module.to(torch.bfloat16)


def stage_model(config: TrainConfig, stage: Stage) -> ModelConfig:
    """The architecture of a stage, of a config that is `resolved`."""
    model = replace(config.model, dontcare=config.data.dontcare, instance_divisor=config.data.instance_divisor)
    return stage.config.model(model)
