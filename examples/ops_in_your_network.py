"""Use hdgan's ops in a network that somebody else wrote: `python examples/ops_in_your_network.py --size 512`.

`Theirs` is the network as its author wrote it. `with_ops` computes the same with its parameters and the ops, called by
hand. `hdgan.accelerate` puts the ops into a network without a change to its code.
"""

from collections.abc import Callable, Sequence
from copy import deepcopy
from functools import partial

import torch
import torch.nn.functional as F
import tyro
from torch import Tensor, nn
from torch.utils.benchmark import Timer

import hdgan
from hdgan import ops

N_LABELS, WIDTH = 20, 32


class InstanceFeatures(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        conv = nn.Conv2d(WIDTH, WIDTH, 3, bias=False)
        self.model = nn.Sequential(nn.ReflectionPad2d(1), conv, nn.InstanceNorm2d(WIDTH), nn.LeakyReLU(0.2))

    def forward(self, x: Tensor, ids: Tensor) -> Tensor:
        x = self.model(x)
        y = x.clone()
        for image in range(len(x)):
            for id in ids[image].unique():
                where = ids[image] == id
                y[image, :, where] = x[image, :, where].mean(1, keepdim=True)
        return y


class Theirs(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(N_LABELS, WIDTH, 7, bias=False), nn.InstanceNorm2d(WIDTH)
        self.features = InstanceFeatures()

    def forward(self, label: Tensor, ids: Tensor) -> list[Tensor]:  # maps [B, H, W], features [B, WIDTH, H, W]
        planes = F.one_hot(label, N_LABELS).permute(0, 3, 1, 2).to(self.stem.weight.dtype)
        x = F.relu(self.norm(self.stem(F.pad(planes, (3, 3, 3, 3), mode="reflect"))))
        x = self.features(x, ids)
        half = F.avg_pool2d(x, 3, 2, 1, count_include_pad=False)
        return [x, half, F.avg_pool2d(half, 3, 2, 1, count_include_pad=False)]


def with_ops(network: Theirs, label: Tensor, ids: Tensor) -> list[Tensor]:
    """What the network computes; an op replaces each norm with the layers around it, and no planes are made."""
    x = ops.label_conv2d(label, None, network.stem.weight, padding=3)
    x = ops.instance_norm_act(x, activation="relu", pad=1)
    x = ops.instance_norm_act(network.features.model[1](x), activation="leaky_relu")
    return ops.avg_pyramid(ops.instance_mean(x, ids), 2)


def squares(size: int, device: str) -> tuple[Tensor, Tensor]:
    place = torch.arange(size, device=device) * 5 // size
    ids = (5 * place[:, None] + place)[None]
    return ids * 7 % N_LABELS, ids  # the label and the number of each square


def forward_backward(compute: Callable[..., list[Tensor]], network: nn.Module, maps: Sequence[Tensor]) -> list[Tensor]:
    """All outputs as one vector, and all gradients of the parameters as another."""
    outputs = torch.cat([level.flatten() for level in compute(*maps)])
    gradients = torch.autograd.grad(outputs, [*network.parameters()], torch.linspace(-1, 1, len(outputs)).to(outputs))
    return [outputs.detach(), torch.cat([gradient.flatten() for gradient in gradients])]


def main(size: int = 256, device: str = "cuda" if torch.cuda.is_available() else "cpu", seconds: float = 1.0) -> None:
    """Print how far each result is from that in float64, and the median time of a forward and backward pass.

    Args:
        size: Width and height of the maps in pixels.
        device: cpu, cuda or cuda:N.
        seconds: For how long each of them is timed.
    """
    torch.manual_seed(0)
    network, maps = Theirs().to(device), squares(size, device)
    exact = forward_backward(double := deepcopy(network).double(), double, maps)

    def show(name: str, compute: Callable[..., list[Tensor]]) -> None:
        run = partial(forward_backward, compute, network, maps)
        errors = [float((a - b).norm() / b.norm()) for a, b in zip(run(), exact, strict=True)]
        timer = Timer("run()", globals={"run": run}, num_threads=torch.get_num_threads())
        median = timer.blocked_autorange(min_run_time=seconds).median * 1000
        print("{:11}  error of outputs {:.1e}, of gradients {:.1e}; {:.2f} ms".format(name, *errors, median))

    show("theirs", network)
    show("with ops", partial(with_ops, network))
    print(hdgan.accelerate(network, squares(32, device)))  # in place; a small example is enough
    show("accelerated", network)


if __name__ == "__main__":
    tyro.cli(main, description=__doc__)
