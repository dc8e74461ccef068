"""The modules, each with what it is called with, for tests of what all of them can do."""

import torch

from hdgan.nn import AvgPyramid, InstanceMean, InstanceNormAct2d, InstanceNormAct3d, LabelConv2d

_GENERATOR = torch.Generator().manual_seed(0)
X = torch.randn(2, 3, 9, 6, generator=_GENERATOR)
VOLUME = torch.randn(2, 3, 4, 5, 3, generator=_GENERATOR)
LABEL = torch.randint(4, (2, 9, 6), generator=_GENERATOR)
IDS = torch.randint(3, (2, 9, 6), generator=_GENERATOR)

MODULES = {
    "norm": (lambda: InstanceNormAct2d(3, affine=True, activation="relu", pad=2), (X,)),
    "norm and residual": (lambda: InstanceNormAct2d(3, pad=1, pad_mode="zero"), (X, X.flip(3))),
    "norm in 3-D": (lambda: InstanceNormAct3d(3, affine=True, activation="leaky_relu"), (VOLUME,)),
    "norm in 3-D and residual": (lambda: InstanceNormAct3d(3), (VOLUME, VOLUME.flip(3))),
    "pyramid": (lambda: AvgPyramid(3), (X,)),
    "instance mean": (InstanceMean, (X, IDS)),
    "labels": (lambda: LabelConv2d(4, 5, 3, padding=1, padding_mode="reflect"), (LABEL,)),
    "labels and boundaries": (lambda: LabelConv2d(4, 5, 3, 2, boundaries=True, dontcare=1), (LABEL, IDS)),
}
"""Name -> what makes a module, and its inputs."""


def leaves_of(result):
    """The tensors that a module returns."""
    return result if isinstance(result, list) else [result]
