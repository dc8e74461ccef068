"""Modules that take the place of a norm with its parameters, and norms that nothing can take the place of."""

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, prune

from hdgan.nn import InstanceNormAct2d, InstanceNormAct3d
from tests.nn.test_instance_norm_act import randomised


@pytest.mark.parametrize(
    ("ours", "theirs"), [(InstanceNormAct2d, nn.InstanceNorm2d), (InstanceNormAct3d, nn.InstanceNorm3d)]
)
@pytest.mark.parametrize("options", [{}, {"affine": True, "eps": 0.1}], ids=["plain", "affine"])
def test_takes_the_place_of_a_norm_with_its_parameters(ours, theirs, options):
    norm = randomised(theirs(3, **options)).eval()
    made = ours.of(norm, "leaky_relu")
    assert made.weight is norm.weight
    assert made.bias is norm.bias
    assert not made.training
    x = torch.randn(2, 3, 4, 5, 6)[:, :, 0] if ours is InstanceNormAct2d else torch.randn(2, 3, 4, 5, 6)
    torch.testing.assert_close(made(x), nn.LeakyReLU()(norm(x)))
    randomised(norm)  # as an optimizer that was made for the norm would
    torch.testing.assert_close(made.train()(x), nn.LeakyReLU()(norm(x)))
    assert list(made.state_dict()) == list(norm.state_dict())


def test_takes_the_place_of_a_norm_without_shift():
    norm = nn.InstanceNorm2d(3, affine=True)
    norm.bias = None
    made = InstanceNormAct2d.of(randomised(norm), activation="relu", pad=1, pad_mode="replicate")
    x = torch.randn(2, 3, 4, 5)
    torch.testing.assert_close(made(x), nn.ReplicationPad2d(1)(nn.ReLU()(norm(x))))
    assert "bias=False" in repr(made)


class Subclass(nn.InstanceNorm2d):
    pass


def changed(change):
    norm = nn.InstanceNorm2d(3, affine=True)
    change(norm)
    return norm


@pytest.mark.parametrize(
    ("norm", "says"),
    [
        (nn.InstanceNorm2d(3, track_running_stats=True), "has running statistics.*track_running_stats=False"),
        (changed(lambda n: setattr(n, "running_mean", torch.zeros(3))), "has running statistics"),
        (nn.LazyInstanceNorm2d(), "LazyInstanceNorm2d does not know its number of channels yet"),
        (Subclass(3), "expected an nn.InstanceNorm2d, got Subclass"),
        (nn.BatchNorm2d(3), "expected an nn.InstanceNorm2d, got BatchNorm2d"),
        (nn.InstanceNorm3d(3), "expected an nn.InstanceNorm2d, got InstanceNorm3d"),
        (changed(parametrizations.weight_norm), "got ParametrizedInstanceNorm2d"),
        (changed(lambda n: setattr(n, "forward", n.forward)), "has a forward of its own"),
        (changed(lambda n: n.register_forward_hook(print)), "has hooks, which would not run any more"),
        (changed(lambda n: n.register_forward_pre_hook(print)), "has hooks"),
        (changed(lambda n: n.register_full_backward_hook(print)), "has hooks"),
        (changed(lambda n: prune.random_unstructured(n, "weight", 0.5)), "has hooks"),
    ],
)
def test_norms_that_are_something_else_are_refused(norm, says):
    with pytest.raises(ValueError, match=rf"InstanceNormAct2d\.of: .*{says}"):
        InstanceNormAct2d.of(norm)


def test_norms_that_are_no_longer_lazy_are_taken():
    norm = nn.LazyInstanceNorm2d(affine=True, track_running_stats=False)
    x = torch.randn(1, 3, 4, 5)
    expected = norm(x)
    torch.testing.assert_close(InstanceNormAct2d.of(norm)(x), expected)


def test_volumes_of_norms_that_are_something_else_are_refused():
    with pytest.raises(ValueError, match=r"InstanceNormAct3d\.of: expected an nn.InstanceNorm3d, got InstanceNorm2d"):
        InstanceNormAct3d.of(nn.InstanceNorm2d(3))
