"""What all modules can do: be compiled, exported, copied, pickled, and trained by several processes."""

import copy
import io
import subprocess
import sys

import pytest
import torch
from torch import nn

from hdgan import ops
from hdgan.nn import InstanceNormAct2d
from tests.nn.modules import MODULES, leaves_of

every_module = pytest.mark.parametrize("name", MODULES)


def as_format(tensors, channels_last):
    """Images and volumes in channels_last, or everything as it is."""
    formats = {4: torch.channels_last, 5: torch.channels_last_3d} if channels_last else {}
    return [x.contiguous(memory_format=formats.get(x.dim(), torch.contiguous_format)) for x in tensors]


def results_and_gradients(function, module, inputs):
    """All results, and the gradients of the inputs and parameters."""
    inputs = [x.detach().requires_grad_(x.is_floating_point()) for x in inputs]
    results = leaves_of(function(*inputs))
    variables = [*(x for x in inputs if x.is_floating_point()), *module.parameters()]
    total = sum(y.square().sum() for y in results)
    return [*results, *torch.autograd.grad(total, variables)]


@pytest.mark.parametrize("dynamic", [False, True])
@every_module
def test_compiles(name, dynamic):
    """Into one graph, in both memory formats."""
    make, given = MODULES[name]
    module = make()
    torch._dynamo.reset()
    compiled = torch.compile(module, fullgraph=True, dynamic=dynamic, backend="aot_eager")
    for channels_last in (False, True):
        inputs = as_format(given, channels_last)
        found = results_and_gradients(compiled, module, inputs)
        expected = results_and_gradients(module, module, inputs)
        for ours, theirs in zip(found, expected, strict=True):
            torch.testing.assert_close(ours, theirs)
            assert ours.stride() == theirs.stride()


@pytest.mark.parametrize("strict", [False, True])
@every_module
def test_exports_as_operators(name, strict):
    make, inputs = MODULES[name]
    module = make()
    program = torch.export.export(module, inputs, strict=strict)
    torch.testing.assert_close(program.module()(*inputs), module(*inputs))
    assert any(node.target.namespace == "hdgan" for node in calls_of(program))


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize("name", [name for name in MODULES if "instance" not in name])
def test_exports_as_operators_of_torch(name, strict):
    """Which other runtimes have; at any size. (The eager instance index counts in Python.)"""
    make, inputs = MODULES[name]
    module = make()
    sizes = [{0: torch.export.Dim.AUTO, x.dim() - 2: torch.export.Dim.AUTO} for x in inputs]
    with ops.backend("eager"):
        program = torch.export.export(module, inputs, strict=strict, dynamic_shapes=tuple(sizes))
    assert {node.target.namespace for node in calls_of(program)} == {"aten"}
    larger = [torch.cat([torch.cat([x, x, x]), torch.cat([x, x, x])], x.dim() - 2) for x in inputs]
    for ours, theirs in zip(leaves_of(program.module()(*larger)), leaves_of(module(*larger)), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


def calls_of(program):
    """The calls of operators in an exported program."""
    calls = [node for node in program.graph.nodes if node.op == "call_function"]
    return [node for node in calls if isinstance(node.target, torch._ops.OpOverload)]


@every_module
def test_copies_and_saved_modules_do_the_same(name):
    make, inputs = MODULES[name]
    module = make().eval()
    saved = io.BytesIO()
    torch.save(module, saved)
    saved.seek(0)
    for other in (copy.deepcopy(module), torch.load(saved, weights_only=False)):
        assert repr(other) == repr(module)
        assert not other.training
        for ours, theirs in zip(leaves_of(other(*inputs)), leaves_of(module(*inputs)), strict=True):
            assert torch.equal(ours, theirs)
        for ours, theirs in zip(other.parameters(), module.parameters(), strict=True):
            assert ours is not theirs


NETWORK = """
import sys
import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from hdgan.nn import AvgPyramid, InstanceMean, InstanceNormAct2d, InstanceNormAct3d, LabelConv2d

class Network(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = LabelConv2d(4, 6, 3, padding=1, boundaries=True)
        self.norm = InstanceNormAct2d(6, affine=True, activation="relu")
        self.deep = InstanceNormAct3d(3, affine=True, activation="leaky_relu")
        self.pyramid, self.mean = AvgPyramid(1), InstanceMean()

    def forward(self, label, ids):
        y = self.mean(self.norm(self.stem(label, ids)), ids) + self.norm(self.stem(label, ids))
        return self.deep(self.pyramid(y)[1].unflatten(1, (3, 2)))

def gradients(network, label, ids):
    network(label, ids).pow(3).mean().backward()
    return {name.removeprefix("module."): p.grad for name, p in network.named_parameters()}

torch.manual_seed(0)
network, label, ids = Network(), torch.randint(4, (4, 8, 6)), torch.randint(3, (4, 8, 6))
"""
PROCESS = """
torch.set_num_threads(1)
rank, folder = int(sys.argv[1]), sys.argv[2]
torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
mine = slice(2 * rank, 2 * rank + 2)
torch.save(gradients(DistributedDataParallel(network), label[mine], ids[mine]), f"{folder}/{rank}.pt")
torch.distributed.destroy_process_group()
"""


@pytest.mark.slow
def test_two_processes_average_the_gradients(tmp_path):
    command = [sys.executable, "-c", NETWORK + PROCESS]
    processes = [subprocess.Popen([*command, str(rank), str(tmp_path)]) for rank in range(2)]
    assert [process.wait(timeout=100) for process in processes] == [0, 0]
    alone = {}
    exec(NETWORK, alone)
    expected = alone["gradients"](alone["network"], alone["label"], alone["ids"])
    assert len(expected) == 6
    for rank in range(2):
        found = torch.load(tmp_path / f"{rank}.pt")
        for name, gradient in expected.items():
            torch.testing.assert_close(found[name], gradient, rtol=1e-4, atol=1e-6)


def test_a_network_of_them_learns():
    """With an optimizer that was made for the modules they take the place of."""
    torch.manual_seed(0)
    norm = nn.InstanceNorm2d(4, affine=True)
    network = nn.Sequential(nn.Conv2d(3, 4, 3), norm, nn.ReLU(), nn.ReflectionPad2d(1), nn.Conv2d(4, 1, 3))
    optimizer = torch.optim.Adam(network.parameters(), lr=0.02)
    fused = nn.Sequential(network[0], InstanceNormAct2d.of(norm, "relu", pad=1), network[4])
    x, target = torch.randn(2, 3, 12, 12), torch.randn(2, 1, 10, 10)
    before, losses = norm.weight.detach().clone(), []
    for _ in range(20):
        optimizer.zero_grad()
        loss = (fused(x) - target).square().mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.9 * losses[0]
    assert not torch.equal(norm.weight, before)
    torch.testing.assert_close(fused(x), network(x))
