"""What the benchmarks of networks share: the input of a street scene, and the trials of a forward pass.

Our backends start from the label map, as training and inference do. Eager and compiled PyTorch and NVIDIA's code start
from its one-hot planes, and do not pay for making them.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from hdgan import ops
from hdgan.benchmarks.plain import plain, wide_copy
from hdgan.benchmarks.reference import build_reference
from hdgan.benchmarks.runner import (
    GRAPH,
    OF_NETWORKS,
    Benchmark,
    Context,
    Cost,
    Function,
    Trial,
    Where,
    bytes_of,
    differentiable,
    replayed,
)
from hdgan.benchmarks.shapes import CONDITION, CONDITION_AND_IMAGE, FEATURES, N_LABELS, scene_maps
from hdgan.models import FeatureEncoder, GlobalGenerator, LocalEnhancer, MultiscaleDiscriminator
from hdgan.models.inputs import LabelInput
from hdgan.ops import InstanceIndex, encode_labels, instance_index, label_planes

DEPTH_SLACK = 10.0
"""Factor on the tolerance of an op."""
SIZES = {"512x256": (256, 512), "1024x512": (512, 1024), "2048x1024": (1024, 2048)}


def street_scene(context: Context, size: str) -> tuple[Tensor, Tensor]:
    """The label map and the instance map of a street scene, [1, H, W] each."""
    label, ids = scene_maps(*SIZES[size])
    return label.to(context.device), ids.to(context.device)


def dense_condition(context: Context, label: Tensor, ids: Tensor) -> Tensor:
    """The one-hot planes and the boundary plane, [1, CONDITION, H, W]."""
    return encode_labels(
        label, ids, N_LABELS, dtype=context.dtype, memory_format=context.memory_format, backend="eager"
    )


def generator_trials(case: str, context: Context, kind: type[GlobalGenerator | LocalEnhancer]) -> Iterator[Trial]:
    size, _, width = case.partition(", ngf ")
    label, ids = street_scene(context, size)
    network = kind(CONDITION, ngf=int(width))

    def ours(_: Tensor) -> list[Tensor]:
        return _features(network(LabelInput(label_planes(label, ids, N_LABELS))))

    return forward_trials(context, network, [dense_condition(context, label, ids)], ours=ours)


def discriminator_trials(case: str, context: Context) -> Iterator[Trial]:
    label, ids = street_scene(context, case)
    image = context.randn(1, 3, *SIZES[case])
    network = MultiscaleDiscriminator(CONDITION_AND_IMAGE)

    def ours(_: Tensor) -> list[Tensor]:
        return _features(network(image, network.context(LabelInput(label_planes(label, ids, N_LABELS)))))

    inputs = torch.cat([dense_condition(context, label, ids), image], dim=1)
    return forward_trials(context, network, [inputs], ours=ours)


def encoder_trials(case: str, context: Context) -> Iterator[Trial]:
    index = instance_index(street_scene(context, case)[1], backend="eager")
    photo = context.randn(1, 3, *SIZES[case])
    return forward_trials(context, FeatureEncoder(3, FEATURES), [photo], index)


def forward_trials(
    context: Context,
    network: nn.Module,
    inputs: list[Tensor],
    *fixed: InstanceIndex,
    ours: Callable[[Tensor], list[Tensor]] | None = None,
) -> Iterator[Trial]:
    """The forward pass of a network on each implementation.

    Args:
        context: what to make trials for.
        network: ours, whose weights all implementations have.
        inputs: what it takes.
        fixed: what follows the inputs.
        ours: what our backends run instead, from the label map of the inputs. The cost is that of the dense
            network for all of them.
    """
    # Random weights of the original's initialisation leave most of the signal to the norms; that is enough to check by.
    network = network.to(context.device, context.dtype, memory_format=context.memory_format)  # type: ignore[call-overload]
    network.requires_grad_(False)

    def run(implementation: str) -> Function:
        if implementation == "nvidia":
            assert context.reference is not None
            theirs = build_reference(context.reference, network)  # type: ignore[arg-type]
            theirs = theirs.to(memory_format=context.memory_format)  # type: ignore[call-overload]
            return _flat(theirs, *(_as_map(index) for index in fixed))
        if implementation == "eager":
            return _flat(plain(network), *fixed)
        if implementation == GRAPH:
            return replayed(on_backend("cuda", ours or _flat(network, *fixed)))
        return on_backend(implementation, ours or _flat(network, *fixed))

    true = plain(wide_copy(network))
    weights = bytes_of(network.parameters())
    cost = Cost(
        weights + bytes_of(inputs) + _output_bytes(network, inputs, *fixed), count_flops(network, inputs, *fixed)
    )
    return differentiable(context, run, inputs, cost, truth=_flat(true, *fixed), slack=DEPTH_SLACK)


def on_backend(backend: str, function: Function) -> Function:
    def switched(*inputs: Tensor) -> list[Tensor]:
        with ops.backend(backend):
            return function(*inputs)

    return switched


def _flat(network: nn.Module, *fixed: object) -> Function:
    """The network as a function to a list of tensors."""
    return lambda *inputs: _features(network(*inputs, *fixed))


def _features(output: Tensor | list[list[Tensor]]) -> list[Tensor]:
    """An image, or D's features of all scales, as a list of tensors."""
    return [output] if isinstance(output, Tensor) else [feature for scale in output for feature in scale]


def _as_map(index: InstanceIndex) -> Tensor:
    """Ids as NVIDIA's encoder takes them, [B, 1, H, W]."""
    return index.ids[index.rows.long()].unsqueeze(1)


def _on_meta(network: nn.Module, inputs: list[Tensor], *fixed: InstanceIndex) -> tuple[Function, list[Tensor]]:
    """Network and inputs without numbers, to count by."""
    empty = copy.deepcopy(network).to("meta")
    moved = [InstanceIndex(*(t.to("meta") for t in index)) for index in fixed]
    return on_backend("eager", _flat(empty, *moved)), [t.to("meta") for t in inputs]


def count_flops(network: nn.Module, inputs: list[Tensor], *fixed: InstanceIndex) -> int:
    """Floating-point operations of the convolutions, a multiplication and an addition counted as two."""
    function, empty = _on_meta(network, inputs, *fixed)
    with FlopCounterMode(display=False) as counter:
        function(*empty)
    return counter.get_total_flops()


def _output_bytes(network: nn.Module, inputs: list[Tensor], *fixed: InstanceIndex) -> int:
    function, empty = _on_meta(network, inputs, *fixed)
    return bytes_of(function(*empty))


_SIZES: dict[str, Where] = {"512x256": "anywhere", "1024x512": "gpu", "2048x1024": "gpu"}
BENCHMARKS = (
    Benchmark(
        "G1",
        {"512x256, ngf 32": "anywhere", "1024x512, ngf 64": "gpu"},
        partial(generator_trials, kind=GlobalGenerator),
        OF_NETWORKS,
        clock="call",
    ),
    Benchmark(
        "G2",
        {"512x256, ngf 16": "anywhere", "2048x1024, ngf 32": "gpu"},
        partial(generator_trials, kind=LocalEnhancer),
        OF_NETWORKS,
        clock="call",
    ),
    Benchmark("D", _SIZES, discriminator_trials, OF_NETWORKS, clock="call"),
    Benchmark("E", _SIZES, encoder_trials, OF_NETWORKS, clock="call"),
)
