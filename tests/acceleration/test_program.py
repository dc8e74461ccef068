"""Accelerated modules are copied, pickled, compiled and exported."""

from __future__ import annotations

import copy
import io
import pickle
import sys
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from hdgan import ops
from hdgan.acceleration import accelerate
from hdgan.acceleration.program import program_of
from tests.acceleration.networks import Generator, assert_same, image, results


@pytest.fixture
def network() -> Generator:
    network = Generator()
    accelerate(network)
    return network


def by_pickle(network: nn.Module) -> Any:
    return pickle.loads(pickle.dumps(network))


def by_file(network: nn.Module) -> Any:
    file = io.BytesIO()
    torch.save(network, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


@pytest.mark.parametrize("duplicate", [copy.deepcopy, by_pickle, by_file])
def test_copies_are_accelerated_and_apart(network: Generator, duplicate: Any) -> None:
    other = duplicate(duplicate(network))
    program = program_of(other)
    assert isinstance(other, Generator)
    assert program is not None
    assert program.versions[0].is_for(other, (image(),))
    assert_same(results(other, image()), results(network, image()))
    with torch.no_grad():
        other.last.weight.zero_()
    assert float(network.last.weight.detach().abs().sum()) > 0


@pytest.mark.parametrize("duplicate", [copy.deepcopy, by_pickle, by_file])
def test_copies_of_what_was_accelerated_part_by_part(network: Generator, duplicate: Any) -> None:
    outer = nn.Sequential(network, nn.InstanceNorm2d(3), nn.Conv2d(3, 3, 1), nn.InstanceNorm2d(3), nn.ReLU())
    accelerate(outer[1])
    assert [row.where for row in accelerate(outer).replaced] == ["3"]
    other = duplicate(outer)
    assert all(
        (program_of(part) is None) == (program_of(same) is None)
        for part, same in zip(outer.modules(), other.modules(), strict=True)
    )
    assert_same(results(other, image()), results(outer, image()))


def test_data_parallel_training_takes_it(network: Generator) -> None:
    expected = results(network, image())
    store = torch.distributed.HashStore()
    torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    try:
        wrapped = nn.parallel.DistributedDataParallel(network.double())
        wrapped(image().double()).mul(image(2, 3, 8, 6, seed=1, dtype=torch.float64)).sum().backward()
        with pytest.raises(ValueError, match="accelerate the network before it is wrapped"):
            accelerate(wrapped)
    finally:
        torch.distributed.destroy_process_group()
    assert_same([p.grad for p in network.parameters() if p.grad is not None], expected[2:])


def test_state_dicts_go_both_ways(network: Generator) -> None:
    plain = Generator()
    plain.load_state_dict(network.state_dict())
    assert_same(results(plain, image()), results(network, image()))
    other = Generator()
    network.load_state_dict(other.state_dict())
    assert_same(results(network, image()), results(other, image()))


def test_compile_in_one_graph(network: Generator) -> None:
    compiled = torch.compile(network, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(image()), network(image()))


def test_export_in_operators_of_pytorch(network: Generator) -> None:
    with ops.backend("eager"), torch.no_grad():
        program = torch.export.export(network, (image(),))
    torch.testing.assert_close(program.module()(image()), network(image()))
    assert not any("hdgan" in str(node.target) for node in program.graph.nodes)


def test_functional_call_takes_other_parameters(network: Generator) -> None:
    zeros = {name: torch.zeros_like(p) for name, p in network.named_parameters()}
    assert torch.equal(torch.func.functional_call(network, zeros, (image(),)), torch.zeros(2, 3, 8, 6))


def test_a_slice_of_a_sequence_is_the_original(network: Generator) -> None:
    sequence = nn.Sequential(*network.stem, nn.Conv2d(4, 4, 1))
    accelerate(sequence)
    expected = nn.Sequential.forward(sequence[:2], image())
    torch.testing.assert_close(sequence[:2](image()), expected)


class Several(nn.Module):
    """A forward whose parameters have names and kinds that could be in the way."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 3, 1), nn.InstanceNorm2d(3)

    def forward(this, input: Tensor, /, call: Tensor, version: int = 2, *, kind: float = 1.0) -> Tensor:
        """Its own words."""
        return this.norm(this.conv(input)) * kind + call * version


def test_the_signature_stays() -> None:
    module = Several()
    x, y = image(), image(seed=1)
    expected = module(x, y, 3, kind=2.0), module(x, call=y)
    accelerate(module)
    assert module.forward.__doc__ == "Its own words."
    torch.testing.assert_close(module(x, y, 3, kind=2.0), expected[0])
    torch.testing.assert_close(module(x, call=y), expected[1])
    with pytest.raises(TypeError, match="missing"):
        module(x)
    with pytest.raises(TypeError, match="unexpected"):
        module(x, y, other=1)


@pytest.mark.skipif(sys.version_info < (3, 14), reason="annotations are evaluated at once")
def test_annotations_may_name_what_only_type_checkers_import() -> None:
    space: dict[str, Any] = {}
    exec("def forward(self, x: Missing) -> Missing:\n    return self.norm(self.conv(x))\n", space)
    module = type("Annotated", (Several,), {"forward": space["forward"]})()
    assert accelerate(module).modules == [""]
    assert module(image()).shape == image().shape


def test_a_traceback_shows_the_generated_line(network: Generator) -> None:
    import traceback

    with pytest.raises(RuntimeError) as error:
        network(image(1, 7, 8, 8))
    assert "self.stem" in "".join(traceback.format_exception(error.value))
