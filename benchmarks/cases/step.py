"""A whole training step: ours, and the original's order of operations in eager PyTorch.

Only `build_step` depends on the trainer.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache, partial
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.optim import Optimizer
from torch.utils.flop_counter import FlopCounterMode

from hdgan import ops
from hdgan.benchmarks.plain import plain
from hdgan.benchmarks.runner import GRAPH, TOLERANCE, Benchmark, CheckFailed, Context, Cost, Trial, Where
from hdgan.benchmarks.shapes import N_LABELS, instance_ids, label_map
from hdgan.errors import ConfigError
from hdgan.families import (
    GeneratorConfig,
    Pix2PixHD,
    Pix2PixHDConfig,
    Pix2PixHDLoss,
    Pix2PixHDStage,
    Pix2PixHDTrainConfig,
)
from hdgan.families.common.batch import Batch
from hdgan.families.pix2pixhd.losses import Pix2PixHDCriterion
from hdgan.losses import LAYER_WEIGHTS
from hdgan.models import VGG19Features
from hdgan.models.blocks import recomputing
from hdgan.ops import encode_labels
from hdgan.training import TrainConfig
from hdgan.training.cuda_graph import GraphedGradients
from hdgan.training.schedule import plan
from hdgan.training.state import StageState
from hdgan.training.trainer import forward_backward

LOSS = Pix2PixHDLoss()
SLACK = {torch.float32: 100.0, torch.bfloat16: 50.0}
"""Factors on the tolerance of an op for the gradients of a whole step.

In bfloat16 the tolerance is half the size of the gradients: gradients of L1 losses are signs, which rounding flips
where features are nearly equal, and eager PyTorch itself is off by a third. The check still finds wrong weights and
missing terms."""


@dataclass(frozen=True)
class StepCase:
    height: int
    width: int
    ngf: int = 64
    n_enhancers: int = 0
    n_scales: int = 3


CASES = {
    "G1 512x256, ngf 32, 3 D, VGG": StepCase(256, 512, ngf=32),
    "G1 1024x512, 2 D, VGG": StepCase(512, 1024, n_scales=2),
    "G2 2048x1024, 3 D, VGG": StepCase(1024, 2048, n_enhancers=1),
}
WHERE: dict[str, Where] = {name: "anywhere" if i == 0 else "gpu" for i, name in enumerate(CASES)}


@dataclass(frozen=True)
class Step:
    """A step of one implementation on a fixed batch."""

    forward: Callable[[], object]
    """Runs the networks and losses; returns tensors that keep the graph."""
    gradients: Callable[[], list[Tensor]]
    """Forward and backward; returns the gradients of all weights except dead biases, cast to float32."""
    update: Callable[[], list[Tensor]]
    """The whole step with its optimizers."""
    resident: tuple[Tensor, ...]
    """What is in memory between steps: parameters and batch."""
    optimizers: tuple[Optimizer, ...]


def build_step(
    case: StepCase,
    device: torch.device,
    dtype: torch.dtype,
    memory_format: torch.memory_format,
    graphed: bool = False,
) -> Step:
    """Our step with the active backend, from fixed weights on a fixed batch; `graphed` replays it from a CUDA graph."""
    config, state, inputs, vgg = _build(case, device, dtype, memory_format)
    model = state.model
    assert isinstance(model, Pix2PixHD)
    criterion = Pix2PixHDCriterion(LOSS, vgg, state.pool, state.augmentation)

    def forward() -> object:
        with config.autocast(device), recomputing():
            return criterion(model, inputs)

    compute = partial(forward_backward, config, state, criterion)
    gradients = GraphedGradients(compute, state) if graphed else compute

    def backward() -> None:
        gradients(inputs)

    def update() -> list[Tensor]:
        backward()
        for optimizer in state.optimizers.values():
            optimizer.step()
        return []

    return _step(model, vgg, inputs, forward, backward, update, tuple(state.optimizers.values()))


def build_original_step(
    case: StepCase, device: torch.device, dtype: torch.dtype, memory_format: torch.memory_format
) -> Step:
    """The order of NVIDIA/pix2pixHD: D runs on fake.detach(), on real and on fake; everything by plain modules."""
    _, state, inputs, vgg = _build(case, device, dtype, memory_format)
    model = copy.deepcopy(state.model)
    assert isinstance(model, Pix2PixHD)
    assert model.discriminator is not None
    netG, netD = plain(model.generator), plain(model.discriminator)
    g_parameters, d_parameters = list(netG.parameters()), list(netD.parameters())
    # Fused like ours: the default loops over tensors on a CPU.
    optimizer_g, optimizer_d = (
        torch.optim.Adam(p, lr=2e-4, betas=(0.5, 0.999), fused=True) for p in (g_parameters, d_parameters)
    )
    autocast = torch.autocast(device.type, dtype, enabled=dtype != torch.float32)

    def forward() -> tuple[Tensor, Tensor]:
        with autocast:
            assert inputs.label is not None
            condition = encode_labels(
                inputs.label, inputs.ids, N_LABELS, dtype=dtype, memory_format=memory_format, backend="eager"
            )
            fake, real = netG(condition), inputs.photo

            def discriminate(image: Tensor) -> list[list[Tensor]]:
                return netD(torch.cat([condition, image.to(condition.dtype)], dim=1))

            pooled, on_real, on_fake = discriminate(fake.detach()), discriminate(real), discriminate(fake)
            d_loss = (_lsgan(pooled, 0.0) + _lsgan(on_real, 1.0)) / 2
            matching = torch.zeros((), device=device)
            for fakes, reals in zip(on_fake, on_real, strict=True):
                for x, y in zip(fakes[:-1], reals[:-1], strict=True):
                    matching = matching + F.l1_loss(x, y.detach()).float() * 4 / (len(fakes) - 1) / len(on_fake)
            perceptual = torch.zeros((), device=device)
            for weight, x, y in zip(LAYER_WEIGHTS, vgg(fake), vgg(real), strict=True):
                perceptual = perceptual + weight * F.l1_loss(x, y.detach()).float()
            return _lsgan(on_fake, 1.0) + LOSS.feature_matching * matching + LOSS.vgg * perceptual, d_loss

    def backward(step: bool = False) -> None:
        g_loss, d_loss = forward()
        optimizer_g.zero_grad()
        g_loss.backward()
        if step:
            optimizer_g.step()
        optimizer_d.zero_grad()
        d_loss.backward()
        if step:
            optimizer_d.step()

    def update() -> list[Tensor]:
        backward(step=True)
        return []

    return _step(model, vgg, inputs, forward, backward, update, (optimizer_g, optimizer_d))


def _lsgan(outputs: list[list[Tensor]], target: float) -> Tensor:
    losses = [
        F.mse_loss(scale[-1].float(), torch.full_like(scale[-1], target, dtype=torch.float32)) for scale in outputs
    ]
    return torch.stack(losses).sum()


def _build(
    case: StepCase, device: torch.device, dtype: torch.dtype, memory_format: torch.memory_format
) -> tuple[TrainConfig, StageState, Batch, VGG19Features]:
    """Networks, a batch and VGG19, with the same random numbers on every call."""
    format: Literal["contiguous", "channels_last"] = (
        "channels_last" if memory_format == torch.channels_last else "contiguous"
    )
    stage = Pix2PixHDStage(n_enhancers=case.n_enhancers, n_scales=case.n_scales, images=1)
    model = Pix2PixHDConfig(n_labels=N_LABELS, generator=GeneratorConfig(ngf=case.ngf))
    config = Pix2PixHDTrainConfig(
        model=model,
        stages={"joint": stage},
        precision="float32" if dtype == torch.float32 else "bfloat16",
        memory_format=format,
    )
    state = StageState(config, plan(config, 1)[0], device)
    ids = instance_ids(case.height, case.width, 60).to(device)
    torch.manual_seed(0)
    photo = torch.rand(1, 3, case.height, case.width).to(device) * 2 - 1
    photo = photo.contiguous(memory_format=memory_format)
    vgg = VGG19Features().to(device, memory_format=memory_format).requires_grad_(False)  # type: ignore[call-overload]
    return config, state, Batch(photo, label_map(ids), None, ids), vgg


def _step(
    model: Pix2PixHD,
    vgg: VGG19Features,
    inputs: Batch,
    forward: Callable[[], object],
    backward: Callable[[], None],
    update: Callable[[], list[Tensor]],
    optimizers: tuple[Optimizer, ...],
) -> Step:
    weights = {name: p for name, p in model.named_parameters() if name.endswith(".weight")}

    def gradients() -> list[Tensor]:
        backward()
        flat: dict[str, list[Tensor]] = {}
        for name, weight in weights.items():
            assert weight.grad is not None
            flat.setdefault(name.split(".")[0], []).append(weight.grad.float().flatten())
        return [torch.cat(parts) for parts in flat.values()]  # one vector a network

    batch = tuple(t for t in (inputs.photo, inputs.label, inputs.ids) if t is not None)
    return Step(forward, gradients, update, (*model.parameters(), *vgg.parameters(), *batch), optimizers)


@cache
def true_gradients(case: StepCase, device: torch.device) -> list[Tensor]:
    with ops.backend("eager"):
        return build_original_step(case, device, torch.float32, torch.contiguous_format).gradients()


@cache
def least_cost(case: StepCase, device: torch.device) -> Cost:
    """The least cost of any implementation: that of our order, which runs D less often, with float32 weights.

    Its convolutions are dense ones: a look-up of label planes counts as what it replaces.
    """
    with ops.backend("eager"), FlopCounterMode(display=False) as counter:
        step = build_step(case, device, torch.float32, torch.contiguous_format)
        step.gradients()
    # Adam reads weight, gradient and two moments, and writes all but the gradient; the rest is read once.
    return Cost(sum(p.nbytes * (7 if p.requires_grad else 1) for p in step.resident), counter.get_total_flops())


def setup(name: str, context: Context) -> Iterator[Trial]:
    case = CASES[name]
    if context.dtype == torch.float16:
        raise CheckFailed("the trainer computes only in float32 or bfloat16")
    for implementation in context.implementations:
        build = (
            build_original_step if implementation == "eager" else partial(build_step, graphed=implementation == GRAPH)
        )
        with ops.backend("cuda" if implementation == GRAPH else implementation):
            step = build(case, context.device, context.dtype, context.memory_format)
            try:
                found = step.gradients()
            except ConfigError as error:  # a step that no graph can hold must not end a run of benchmarks
                raise CheckFailed(str(error)) from error
            yield Trial(
                implementation,
                "both",
                step.update,
                lambda: true_gradients(case, context.device),
                least_cost(case, context.device),
                SLACK[context.dtype] * TOLERANCE[context.dtype],
                step.forward,
                step.resident,
                found=lambda found=found: found,  # type: ignore[misc]
            )
            del step


BENCHMARK = Benchmark("step", WHERE, setup, ("eager", "cpu", "cuda", "triton", GRAPH), clock="call")
