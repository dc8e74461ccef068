"""Others' networks, as they are, compiled, after `hdgan.accelerate`, and both: the forward pass, and the step of the
weights.

The look-alikes of `hdgan.benchmarks.foreign` have the layers of the originals. "both" is what a training step does with
the network: forward, and the gradients of all parameters. A convolution's bias before a norm has a gradient of rounding
errors only, so gradients are compared for the weights alone, with the tolerance of the benchmark "step": an activation
of what is zero within rounding may come out on either side of its kink.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from hdgan import ops
from hdgan.acceleration import accelerate
from hdgan.benchmarks import foreign
from hdgan.benchmarks.cases.networks import DEPTH_SLACK, dense_condition
from hdgan.benchmarks.cases.step import SLACK
from hdgan.benchmarks.plain import wide_copy
from hdgan.benchmarks.runner import (
    BOTH,
    COMPILED,
    OF_OPS,
    TOLERANCE,
    Benchmark,
    Context,
    Cost,
    Trial,
    bytes_of,
    compiled,
)
from hdgan.benchmarks.shapes import CONDITION, CONDITION_AND_IMAGE, scene_maps

SIDE = 256
"""Pixels of the images, in both directions."""
CORNER = 64
"""Pixels of an example."""


@dataclass(frozen=True)
class ForeignCase:
    """A network and what it takes."""

    build: Callable[[], nn.Module]
    planes: bool = False
    """It takes label planes of a street scene."""
    photo: bool = False
    """It takes a photo, behind the label planes if it takes both."""
    instances: bool = False
    """It takes a map of instances as well, [B, 1, H, W]."""

    def inputs(self, context: Context) -> list[Tensor]:
        label, ids = (t.to(context.device) for t in scene_maps(SIDE, SIDE))
        images = [dense_condition(context, label, ids)] if self.planes else []
        images += [context.randn(1, 3, SIDE, SIDE)] if self.photo else []
        image = torch.cat(images, dim=1).contiguous(memory_format=context.memory_format)
        return [image, ids.unsqueeze(1)] if self.instances else [image]


# Widths are those of the originals where a CPU can bear them, and a half or a quarter elsewhere.
CASES = {
    "pix2pixHD G1, ngf 32": ForeignCase(lambda: foreign.Pix2PixHDGenerator(CONDITION, 32), planes=True),
    "pix2pixHD G2, ngf 16": ForeignCase(lambda: foreign.Pix2PixHDEnhancer(CONDITION, 16), planes=True),
    "pix2pixHD D": ForeignCase(
        lambda: foreign.Pix2PixHDDiscriminator(CONDITION_AND_IMAGE, 64), planes=True, photo=True
    ),
    "pix2pixHD E": ForeignCase(lambda: foreign.Pix2PixHDEncoder(3, 16), photo=True, instances=True),
    "CycleGAN G, ngf 32": ForeignCase(lambda: foreign.CycleGanGenerator(3, 32, n_blocks=9), photo=True),
    "CUT G, ngf 32": ForeignCase(lambda: foreign.CycleGanGenerator(3, 32, n_blocks=9, blur=True), photo=True),
    "CycleGAN U-Net": ForeignCase(lambda: foreign.CycleGanUNet(3, 64, (1, 2, 4, 8, 8, 8, 8)), photo=True),
    "CycleGAN D": ForeignCase(lambda: foreign.CycleGanDiscriminator(3, 64), photo=True),
    "SPADE G, ngf 16": ForeignCase(
        lambda: foreign.SpadeGenerator(CONDITION, 16, latent=(SIDE // 32, SIDE // 32)), planes=True
    ),
    "SPADE D": ForeignCase(lambda: foreign.SpadeDiscriminator(CONDITION_AND_IMAGE, 64), planes=True, photo=True),
    "MONAI D": ForeignCase(lambda: foreign.MonaiDiscriminator(3, 64), photo=True),
}


class _NetworkPasses:
    """The passes of a network as calls without arguments that return tensors."""

    def __init__(
        self, network: nn.Module, run: Callable[..., Any], inputs: Sequence[Tensor], upstream: Sequence[Tensor] = ()
    ) -> None:
        self.parameters = list(network.parameters())
        self.run, self.inputs, self.upstream = run, inputs, upstream

    def graph(self) -> list[Tensor]:
        return flat(self.run(*self.inputs))

    def forward(self) -> list[Tensor]:
        with torch.no_grad():
            return self.graph()

    def both(self) -> list[Tensor]:
        for parameter in self.parameters:
            parameter.grad = None
        outputs = self.graph()
        torch.autograd.backward(outputs, self.upstream)
        return [*outputs, *(p.grad for p in self.parameters if p.dim() > 1 and p.grad is not None)]


def flat(output: Any) -> list[Tensor]:
    """The tensors of a network's output: an image, or nested lists of features."""
    return [output] if isinstance(output, Tensor) else [tensor for part in output for tensor in flat(part)]


def setup(case: str, context: Context) -> Iterator[Trial]:
    made = CASES[case]
    # In training mode SPADE's spectral norms would change with every call.
    network = made.build().eval()
    network.to(context.device, context.dtype, memory_format=context.memory_format)  # type: ignore[call-overload]
    inputs = made.inputs(context)
    true = wide_copy(network)
    truth = _NetworkPasses(true, true, [t.float().contiguous() if t.is_floating_point() else t for t in inputs])
    cost = _cost(truth, bytes_of(inputs), bytes_of(network.parameters()))
    upstream = [context.randn(*y.shape) for y in truth.forward()]
    truth.upstream = [gradient.float().contiguous() for gradient in upstream]
    answers: dict[str, list[Tensor]] = {}

    def answer(direction: str) -> list[Tensor]:
        if direction not in answers:
            answers[direction] = getattr(truth, direction)()
        return answers[direction]

    for implementation in context.implementations:
        own = copy.deepcopy(network)
        step = _NetworkPasses(own, _function(own, implementation, inputs), inputs, upstream)
        for direction in (name for name in context.passes if name in cost):
            yield Trial(
                implementation,
                direction,
                getattr(step, direction),
                lambda direction=direction: answer(direction),  # type: ignore[misc]
                cost[direction],
                (SLACK[context.dtype] if direction == "both" else DEPTH_SLACK) * TOLERANCE[context.dtype],
                step.graph if direction == "both" else None,
                (*inputs, *own.parameters(), *own.buffers()),
            )


def _function(network: nn.Module, implementation: str, inputs: Sequence[Tensor]) -> Callable[..., Any]:
    """The network as an implementation runs it: as it is, compiled, or accelerated, on one of our backends, or both."""
    if implementation == "eager":
        return network
    if implementation not in COMPILED:
        # The loop over instances is only replaced if an example shows what it computes; a corner of it is enough.
        corner = tuple(t[..., :CORNER, :CORNER] for t in inputs)
        accelerate(network, corner if isinstance(network, foreign.Pix2PixHDEncoder) else None)
    if implementation in (BOTH, *COMPILED):
        return _compiled(network, implementation)

    def run(*inputs: Tensor) -> Any:
        with ops.backend(implementation):
            return network(*inputs)

    return run


def _compiled(network: nn.Module, implementation: str) -> Callable[..., Any]:
    if isinstance(network, foreign.Pix2PixHDEncoder):  # neither its loop nor the number of instances has a graph
        network.model = compiled(network.model, implementation)  # type: ignore[assignment]
        return network
    return compiled(network, implementation)


def _cost(truth: _NetworkPasses, of_inputs: int, of_weights: int) -> dict[str, Cost]:
    """Each weight and input is read once, each output and gradient written once. The gradients of the weights take as
    many operations as the forward pass, and so do those of the activations."""
    with FlopCounterMode(display=False) as counter:
        outputs = truth.forward()
    operations = counter.get_total_flops()
    forward = Cost(of_inputs + of_weights + bytes_of(outputs), operations)
    backward = Cost(bytes_of(outputs) + of_inputs + 2 * of_weights, 2 * operations)
    return {"forward": forward, "both": forward + backward}


BENCHMARK = Benchmark("accelerate", dict.fromkeys(CASES, "anywhere"), setup, (*OF_OPS, BOTH), clock="call")
